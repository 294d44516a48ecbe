"""The settings of a run: shared keys, and errors that name the nearest key.

A task and a method each bring settings of their own: they lie under `task:` and `method:` beside `name`, and are
checked by `own` against the class that the task or the method declares. Knows no torch.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from tunesmith.errors import SettingsError
from tunesmith.faults import explain

Auto = Literal["auto"]
ScheduleName = Literal["linear", "cosine", "constant", "slanted-triangular", "one-cycle", "warmup-stable-decay"]


class Strict(BaseModel):
    """A settings class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Named(BaseModel):
    """A task or a method: its name, and settings that its own class checks."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def own(self) -> dict[str, Any]:
        """The settings beside the name, unchecked."""
        return dict(self.model_extra or {})


def switch(value: Any) -> Any:
    """`value`, or "on" and "off" for what YAML reads those plain words as."""
    return ("on" if value else "off") if isinstance(value, bool) else value


class DataSettings(Strict):
    """Where the rows are and which column plays which part."""

    train: str
    """File (.csv .tsv .json .jsonl .parquet), folder with one file a split, with one folder a class, or written by
    `datasets`, or Hub id."""
    validation: str | None = None
    """Cut from train when absent."""
    test: str | None = None
    """Cut from train when absent."""
    input: str | list[str] | None = None
    """Column of the text, or of the image's path, or the two columns of a sentence pair; guessed when only one reading is
    safe."""
    target: str | list[str] | None = None
    """Column of the label or score; several columns of 0 and 1 make a multi-label target."""
    id: str | None = None
    """Column that names each row; otherwise split and line number."""
    group: str | None = None
    """Rows that share this column's value stay on one side of every split, and are resampled together."""
    split_column: str | None = None
    """Column that says which split a row belongs to: train, validation (or valid, val, dev) or test."""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test when they are cut from one file."""
    separator: Annotated[str, Field(min_length=1)] = ";"
    """What parts the labels of one cell when the target is multi-label."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte order mark overrides it. Rows that do not decode are set aside."""
    max_characters: Annotated[int, Field(gt=0)] = 1_000_000
    """A longer cell is taken for damage and the row is set aside."""
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.1
    """A larger share of rows set aside stops the run before training."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Rows at least this similar count as near-duplicates: texts by Jaccard over shingles of five bytes, images by the share
    of the 64 bits of their difference hash that agree."""

    @pydantic.field_validator("split")
    @classmethod
    def _shares(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) <= 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError("three positive shares that add up to 1 are needed, such as [0.8, 0.1, 0.1]")
        return value


class TrainSettings(Strict):
    """How the weights are trained; a method reads what concerns it and its plan says what came of it."""

    epochs: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Passes over the training rows, at most; training stops earlier when validation no longer improves."""
    learning_rate: Auto | Annotated[float, Field(gt=0)] = "auto"
    """The highest rate of the schedule."""
    batch_size: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Rows of one optimiser step, over all processes."""
    micro_batch_tokens: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Padded tokens of one forward pass; the step is cut into as many as it needs."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW; norms and biases have none."""
    schedule: ScheduleName = "linear"
    """The course of the rate after its warm-up: down to zero in a straight line, along a cosine, not at all, …"""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the rate climbs."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm where it is longer."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of matrix products; bf16 where the machine has it, when it is `auto`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | Literal["model"] = 0.0
    """Hidden and attention dropout while training; `model` keeps what the model's configuration says."""
    patience: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Validations without improvement after which training stops."""
    l2_sp: Annotated[float, Field(ge=0)] = 0.0
    """Strength of the pull back to the pre-trained weights (L2-SP); 0 is none."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay, a step, of the moving average of the weights that is validated and kept; absent, the weights themselves are."""
    swa: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Last share of the steps whose weights are averaged equally (SWA); the average is validated and kept."""
    ewc: Annotated[float, Field(ge=0)] = 0.0
    """Strength of the pull back to the pre-trained weights by their importance (EWC); 0 is none."""
    distil: Annotated[float, Field(ge=0)] = 0.0
    """Strength with which features of the training rows, or the next tokens that a language model expects in them, are held
    near the pre-trained network's; 0 is none."""
    replay: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of each batch that is rows of `evaluate.retention`, whose features are held near the pre-trained network's; a
    language model learns them by their own loss."""
    wise_ft: bool = False
    """Mix the weights from before and after training by the share that is best on validation (WiSE-FT)."""
    r_drop: Annotated[float, Field(ge=0)] = 0.0
    """Strength with which two passes of different dropout are made to agree (R-Drop); 0 is none."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of the mixing of two rows and of their labels (mixup); 0 is none."""
    mixup_of: Literal["hidden", "inputs"] = "hidden"
    """What mixup mixes: `hidden`, what the head's last layer receives (manifold mixup), or `inputs`, images as such."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of the mixing of images, a box of one pasted into another (CutMix); 0 is none."""
    sam: Annotated[float, Field(ge=0)] = 0.0
    """Radius within which the sharpest rise of the loss is flattened (SAM); 0 is none. A step takes two."""
    retain: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of each reference score that is to be kept: `wise_ft` and `auto` choose by it, and the report says if it is."""
    cache: Literal["auto", "off"] = "auto"
    """Whether what frozen stages put out is kept, where that saves time."""

    @pydantic.field_validator("cache", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return switch(value)

    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Least time between two checkpoints inside an epoch; one is written at each epoch's end anyway."""
    log_steps: Annotated[int, Field(gt=0)] = 10
    """Steps between two lines of log.jsonl."""


_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


def _measured(units: str) -> typing.Any:
    """A number, or a number with one of `units`: "90s", "10 min", "2GB"."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
        if not found or found[2] not in ("", *units.split()):
            raise ValueError(f"a number is needed, alone or with one of the units {units.replace(' ', ', ')}")
        return float(found[1]) * _UNITS.get(found[2], 1)

    return pydantic.BeforeValidator(read)


class Budget(Strict):
    """What a run may take. `method: auto` chooses within it; a single method is shortened where time does not suffice."""

    time: Annotated[float, Field(gt=0), _measured("s sec m min h d")] | None = None
    """For everything from reading the data to the report, in seconds, or as `90s`, `10min`, `2h`."""
    memory: Annotated[float, Field(gt=0), _measured("kb mb gb tb")] | None = None
    """Peak, in bytes, or as `2GB`; methods that are predicted to need more are not tried."""
    parameters: Annotated[int, Field(gt=0)] | None = None
    """How many parameters may train at most."""


class UserModel(Strict):
    """A network of one's own, for images: a torch module that turns pixels into logits and ends in a linear layer; or, for
    image-similarity, into vectors."""

    python: str
    """The function that makes the module, as `package.module:function`; it is called without arguments."""
    weights: str | None = None
    """File of its pre-trained weights: a state dict, as safetensors or as torch.save writes it; absent, they stay as the
    function makes them."""
    size: Annotated[int, Field(gt=0)] | tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] = 224
    """Pixels of a side of the images that it reads, or height and width."""
    channels: Literal[1, 3] = 3
    """Grey or colour."""
    mean: list[float] | None = None
    """Of each channel, of pixels from 0 to 1; absent, that of ImageNet, or 0.5 of grey images."""
    std: list[Annotated[float, Field(gt=0)]] | None = None
    """The standard deviation, likewise."""
    labels: list[str] = []
    """What its outputs stand for, so that retention can be measured with its own head."""

    @pydantic.model_validator(mode="after")
    def _a_number_a_channel(self) -> UserModel:
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) != self.channels:
                raise ValueError(
                    f"{name} needs {self.channels} number{'s' if self.channels > 1 else ''}, one a channel"
                )
        return self

    def __str__(self) -> str:
        return self.python


class LineSettings(Strict):
    """One stage of the plan, set by hand; what is absent stays as the method has it."""

    learning_rate: Annotated[float, Field(gt=0)] | Literal["frozen"] | None = None
    """The highest rate of the stage, or `frozen`."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Of the stage's matrices."""
    part: Literal["all", "biases", "norms"] | None = None
    """Which of the stage's parameters train."""


class PhaseSettings(Strict):
    """One phase of the plan, set by hand; beside these keys it takes the names of stages."""

    epochs: Annotated[int, Field(gt=0)] | None = None
    """Passes over the training rows, at most."""
    schedule: ScheduleName | None = None
    """The course of the rate."""
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the steps in which the rate climbs."""


class ReferenceSettings(Strict):
    """Reference data on which the pre-trained network is measured before training, and the fine-tuned one after."""

    name: Annotated[str, Field(min_length=1)]
    """What the report calls it."""
    data: DataSettings
    """A file, or a mapping as under the run's own `data`."""
    task: Named | None = None
    """A name, or `{name: …}`; absent, the run's own task with its default settings."""
    head: Literal["auto", "own", "own-in-order", "probe"] = "auto"
    """The checkpoint's own head, with labels matched by name or by order, or a probe; `auto`: own where the names agree."""
    rows: Annotated[int, Field(ge=50)] = 2000
    """At most so many training rows, and as many of validation and test, are used; drawn by the seed."""

    @pydantic.field_validator("task", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @pydantic.field_validator("data", mode="before")
    @classmethod
    def _by_file(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, str) else value


class AdaptSettings(Strict):
    """Continued pre-training on texts of the field, before the training for the task."""

    data: DataSettings | None = None
    """Texts: a file, or a mapping as under the run's own `data`; absent, the texts of the training split."""
    method: Literal["full", "lora"] = "full"
    """How the weights change: all of them, or adapters that are folded in."""
    epochs: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Passes over the texts, at most."""
    learning_rate: Auto | Annotated[float, Field(gt=0)] = "auto"
    """The highest rate of the schedule."""
    batch_size: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Texts of one optimiser step."""

    @pydantic.field_validator("data", mode="before")
    @classmethod
    def _by_file(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, str) else value


class EvaluateSettings(Strict):
    """What is measured at the end, on the test split."""

    baselines: list[Literal["majority", "probe", "scratch", "without_adapt"]] = ["majority", "probe", "without_adapt"]
    """majority, and the probe where training starts from one, are always measured; `scratch` trains the same network from
    fresh weights too, and `without_adapt`, where there is an `adapt`, the same plan from the weights as they came."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap resamples behind each interval; AUROC and average precision take the first 200 of them."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Share of intervals that are to hold the true value."""
    mistakes: Annotated[int, Field(ge=0)] = 20
    """How many of the worst mistakes the report shows."""
    retention: list[ReferenceSettings] = []
    """Reference data that show what the model can still do; see the table of their keys."""

    @pydantic.field_validator("retention")
    @classmethod
    def _one_of_a_name(cls, value: list[ReferenceSettings]) -> list[ReferenceSettings]:
        names = [one.name for one in value]
        if len(set(names)) < len(names):
            raise ValueError(f"each reference needs a name of its own, but they are {', '.join(names)}")
        return value


class Settings(Strict):
    """All of a run: re-running them gives the same run."""

    task: Named = Named(name="text-classification")
    """A name, or `{name: …}` with settings of the task's own."""
    model: str | UserModel = "builtin:minilm"
    """Hub id, local folder, or builtin:minilm; or a network of one's own, as the table below says."""
    trust_remote_code: bool = False
    """Run the Python code that a model folder or Hub repository brings."""
    data: DataSettings
    """The training file, or the settings under `data.`."""
    adapt: AdaptSettings | None = None
    """Texts to go on pre-training with before the task, or the settings under `adapt.`; `true` takes the training texts."""
    method: Named = Named(name="auto")
    """A name, or `{name: …}` with settings of the method's own."""
    budget: Budget = Budget()
    """A time, such as `10min`, or the settings under `budget.`."""
    train: TrainSettings = TrainSettings()
    plan: dict[str, dict[str, Any]] = {}
    """Lines of the plan that are to differ from the method's, by stage or phase: `{block 3: {learning_rate: 1e-5}}`."""
    evaluate: EvaluateSettings = EvaluateSettings()
    seed: Annotated[int, Field(ge=0)] = 0
    """Of everything that is drawn: splits, order, dropout, resamples."""

    @pydantic.field_validator("task", "method", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @pydantic.field_validator("budget", mode="before")
    @classmethod
    def _by_time(cls, value: Any) -> Any:
        return {"time": value} if isinstance(value, str | int | float) else value

    @pydantic.field_validator("data", mode="before")
    @classmethod
    def _by_file(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, str) else value

    @pydantic.field_validator("adapt", mode="before")
    @classmethod
    def _by_texts(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {} if value else None
        return {"data": value} if isinstance(value, str) else value


Model = TypeVar("Model", bound=BaseModel)


def parse(values: Mapping[str, Any], where: str = "settings") -> Settings:
    """Check `values` (as a YAML file gives them) and return the settings.

    Raises:
        SettingsError: unknown key (the nearest good one is offered), missing key, or wrong type.
    """
    found = check(Settings, values, where)
    _insist(found, where)
    return found


def _insist(found: Settings, where: str) -> None:
    """Refuse keys that make no sense together."""
    wanted, references = found.train, found.evaluate.retention
    example = "Give some, such as evaluate: {retention: [{name: general, data: general.csv}]}."
    if wanted.retain is not None and not references:
        raise SettingsError(
            f"{where}: train.retain is {wanted.retain:g}, but evaluate.retention names no reference data.", example
        )
    if wanted.replay and not references:
        raise SettingsError(
            f"{where}: train.replay is {wanted.replay:g}, but evaluate.retention names no rows to replay.", example
        )
    if found.budget.time is not None and "scratch" in found.evaluate.baselines:
        raise SettingsError(
            f"{where}: budget.time is for the whole run, but evaluate.baselines asks for a training from scratch, which "
            "takes longer than all else.",
            "Leave one of them away.",
        )
    if found.adapt is not None and found.method.name == "scratch":
        raise SettingsError(
            f"{where}: adapt goes on from pre-trained weights, but method scratch forgets them.",
            "Leave one of them away.",
        )
    if found.adapt is not None and isinstance(found.model, UserModel):
        raise SettingsError(f"{where}: adapt is for networks that read text, unlike model.python.", "Leave it away.")
    if wanted.swa and wanted.ema:
        raise SettingsError(f"{where}: train.swa and train.ema both say which average is kept.", "Set one of them.")
    if wanted.r_drop and wanted.dropout == 0:
        raise SettingsError(
            f"{where}: train.r_drop compares two passes of different dropout, but train.dropout is 0.",
            "Set train.dropout=0.1, or model.",
        )


def check(kind: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """`values` as an instance of `kind`; the first fault becomes one SettingsError that names key and mend."""
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        raise SettingsError(*explain(kind, error.errors(), where)) from None
