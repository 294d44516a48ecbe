"""Continued pre-training before the task: its texts, its settings, and what the report says of it.

It is a run of its own, in a folder inside the run folder, whose model the task starts from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tunesmith import prepare, record
from tunesmith import run as runs
from tunesmith.contracts import Task
from tunesmith.data.cells.text import TEXT
from tunesmith.data.load import Dataset, load_unlabelled
from tunesmith.errors import DataError, RunError, SettingsError
from tunesmith.models.adapted import CAUSAL, complete, objective_of
from tunesmith.run import Run
from tunesmith.settings import (
    AdaptSettings,
    Budget,
    DataSettings,
    EvaluateSettings,
    Named,
    Settings,
    TrainSettings,
    UserModel,
)

SHARE = 0.5
"""Of what is left of a budget of time, for the adaptation."""
SPLIT = (0.85, 0.1, 0.05)
"""Of the run's own training texts: few are held out to see how the adaptation goes."""
TEXTUAL = ("text", "question")
"""Inputs that are read as they stand."""
OWN = ("precision", "micro_batch_tokens", "checkpoint_seconds", "log_steps")
"""Settings of training that are about the machine."""


def begin(wanted: Settings, place: Run, left: float | None) -> Settings:
    """The settings of the adaptation for the run `wanted`; leaves its texts, and what is known of them, in the run folder.

    Args:
        left: seconds of the budget; None where there is none.

    Raises:
        TunesmithError: the network cannot go on with its pre-training, or there are no texts.
    """
    adapt = wanted.adapt
    assert adapt is not None
    assert not isinstance(wanted.model, UserModel)  # as settings insist
    objective = objective_of(wanted.model, remote_code=wanted.trust_remote_code)
    with runs.scratch() as cache:
        task, dataset = prepare.load_data(wanted, cache / "task")
        data = _own_texts(task, dataset, place) if adapt.data is None else adapt.data
        try:
            texts = load_unlabelled(data, cache / "texts", wanted.seed)
        except DataError as error:
            raise DataError(f"The texts of adapt cannot be used: {error.what}", error.mend) from error
        repeated = _repeated(texts, dataset, wanted.data.near_duplicate)
        prints = record.fingerprints(dataset)
    tested = dataset.splits["test"].num_rows
    runs.write_json(
        place.adapting,
        {"objective": objective, "fingerprints": prints, "repeated": repeated, "test_rows": tested},
    )
    return _settings(wanted, adapt, objective, data, left)


def finished(wanted: Settings, place: Run) -> None:
    """Make the model of the finished adaptation one that every task can start from."""
    objective = runs.read_json(place.adapting)["objective"]
    complete(place.adaptation.model, str(wanted.model), objective, remote_code=wanted.trust_remote_code)


def insist_same(dataset: Dataset, place: Run) -> None:
    """Insist that the task's data are those whose test rows were kept out of the adaptation.

    Raises:
        RunError: they have changed.
    """
    if runs.read_json(place.adapting)["fingerprints"] != record.fingerprints(dataset):
        raise RunError(
            f"The data have changed since the adaptation of the run {place.folder} began.",
            "Restore them, or start a new run.",
        )


def told(place: Run) -> str | None:
    """A warning where test rows stand among the texts of the adaptation."""
    known = runs.read_json(place.adapting)
    count, rows = known["repeated"], known["test_rows"]
    if not count:
        return None
    return (
        f"{count:,} of {rows:,} test rows ({100 * count / rows:.1f} %) {'stands' if count == 1 else 'stand'}, exactly or "
        "nearly, among the texts of the adaptation: without their labels, but the figures may flatter the model."
    )


def described(place: Run) -> dict[str, Any]:
    """The report's section on the adaptation."""
    report = runs.read_json(place.adaptation.report)
    metric = report["primary_metric"]
    before = report["baselines"].get("before")
    return {
        "task": report["task"],
        "method": report["method"],
        "texts": report["data"]["train"],
        "held_out": report["data"]["test"],
        "epochs": report["training"]["epochs"],
        "best_epoch": report["training"]["best_epoch"],
        "seconds": report["training"]["seconds"],
        "metric": metric,
        **({"before": before[metric]} if before else {}),
        "after": report["metrics"]["test"][metric],
        "report": str(place.adaptation.page.relative_to(place.folder)),
    }


def _settings(
    wanted: Settings, adapt: AdaptSettings, objective: str, data: DataSettings, left: float | None
) -> Settings:
    length = {"max_length": wanted.task.own["max_length"]} if "max_length" in wanted.task.own else {}
    problem = {"problem": "text"} if objective == CAUSAL else {}
    own: dict[str, Any] = {name: value for name, value in wanted.train.model_dump().items() if name in OWN}
    own |= {"epochs": adapt.epochs, "learning_rate": adapt.learning_rate, "batch_size": adapt.batch_size}
    measuring = wanted.evaluate
    return Settings(
        task=Named(name=objective, **problem, **length),
        model=wanted.model,
        trust_remote_code=wanted.trust_remote_code,
        data=data,
        method=Named(name=adapt.method),
        budget=Budget(time=None if left is None else max(1.0, SHARE * left), memory=wanted.budget.memory),
        train=TrainSettings(**own),
        evaluate=EvaluateSettings(resamples=measuring.resamples, confidence=measuring.confidence),
        seed=wanted.seed,
    )


def _own_texts(task: Task, dataset: Dataset, place: Run) -> DataSettings:
    """The texts of the training split, each once, in a file of the run folder."""
    rows = dataset.splits["train"]
    if task.keeps_head or task.cells.noun not in TEXTUAL:
        raise SettingsError(
            f"adapt names no texts, and the training rows of {task.name} are no texts that it could take instead.",
            "Name a file with texts: adapt.data=texts.txt",
        )
    columns = [rows.column(name).to_pylist() for name in ("input", "pair") if name in rows.column_names]
    texts = list(dict.fromkeys(text for column in columns for text in column))
    with runs.writing(place.texts):
        place.texts.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.table({"text": texts}), place.texts)
    return DataSettings(train=str(place.texts), input="text", split=SPLIT)


def _repeated(texts: Dataset, dataset: Dataset, threshold: float) -> int:
    """How many test rows of the task stand among the texts, exactly or at least this alike."""
    test = dataset.splits["test"]
    known = [pa.table({"input": split.column("input")}) for split in texts.splits.values()]
    asked = [pa.table({"input": test.column(name)}) for name in ("input", "pair") if name in test.column_names]
    _, near = TEXT.clusters([*known, *asked], threshold)
    count = sum(table.num_rows for table in known)
    among = np.isin(near[count:], near[:count]).reshape(len(asked), test.num_rows)
    return int(among.any(axis=0).sum())
