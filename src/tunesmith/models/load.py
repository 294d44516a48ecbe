"""A pre-trained network with a fresh head, and its tokenizer, from files. Checks that the weights really fit."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
import transformers
from torch import nn

from tunesmith import seeds
from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import pooling, quantised, sources
from tunesmith.models.blocks import find_blocks
from tunesmith.models.named_pooling import named
from tunesmith.models.stages import find_stages

LONGEST_BY_DEFAULT = 512
"""Tokens; the cost of attention grows with the square, and few labels hang on what comes later."""
NO_LIMIT = 1_000_000
"""What tokenizers without a limit say is far above this."""
PROBLEM_TYPES = {
    "single-label": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Loading prints a table of the head's missing weights, which is what fine-tuning is for; what matters is checked."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)


def load_classifier(
    source: str,
    labels: Sequence[str],
    problem: str,
    *,
    seed: int,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    remote_code: bool = False,
    kind: Any = transformers.AutoModelForSequenceClassification,
) -> Model:
    """The standard class of the model's architecture for texts, or for their tokens, in fp32, with a new head.

    Args:
        source: folder, "builtin:…" or Hub id.
        labels: class names; empty for regression.
        problem: "single-label", "multi-label" or "regression".
        seed: draws the new head's first weights.
        loading: new weights throughout, or 4 bits, and how many positions are kept free.
        remote_code: whether Python code beside the weights may run.
        kind: transformers' class that opens it once it is saved.

    Raises:
        ModelError: nothing usable there, or weights that do not fit the architecture.
    """
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code)
        set_labels(config, labels, problem)
        set_padding(config, tokenizer, source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(seed, "head"))
            module, absent, _ = network(kind, folder, config, source, loading, remote_code=remote_code)
        model = taken_apart(module, tokenizer, config, loading, kind)
        files = None if loading.fresh else named(folder)
    taught = files.pooling if files else None
    return dataclasses.replace(
        model, source=source, folder=folder, remote_code=remote_code, absent=absent, taught=taught
    )


def taken_apart(module: Any, tokenizer: Any, config: Any, loading: Loading, kind: Any) -> Model:
    """A network that reads text, with its stages and blocks found; where it came from is for the caller to add."""
    backbone, example = module.base_model_prefix, tiny_batch(config)
    blocks = find_blocks(module, backbone, example)
    return Model(
        module=module,
        processor=tokenizer,
        stages=find_stages(module, backbone, blocks, example),
        blocks=blocks,
        source="",
        folder="",
        limit=longest_input(module, config, tokenizer, loading.reserved),
        backbone=backbone,
        example=example,
        modality="text",
        pooling=pooling.OWN,
        opens=kind.__name__,
        four_bit=loading.four_bit,
    )


class Opened(NamedTuple):
    """A network from files."""

    module: Any
    absent: tuple[str, ...]
    """Parameters of the backbone that the files lack and may lack."""
    headless: bool
    """Whether some of the head is new, as the files lack it or have it in another shape."""


def network(
    kind: Any,
    folder: str,
    config: Any,
    source: str,
    loading: Loading,
    *,
    remote_code: bool,
    new_head: bool = True,
    of_head: Callable[[str], bool] = lambda _: False,
) -> Opened:
    """The network of `folder`, in fp32 or as `loading` wants it.

    Args:
        kind: transformers' AutoModelFor… class.
        new_head: whether the head may be new; otherwise it must be there.
        of_head: which tensors of the backbone belong to the head all the same.

    Raises:
        ModelError: weights are missing, or those of the backbone have other shapes than the configuration says.
    """
    how = attention()
    if loading.fresh:
        module = kind.from_config(config, attn_implementation=how, trust_remote_code=remote_code).float()
        return Opened(module, (), headless=False)
    more = quantised.arguments(kind, config, remote_code=remote_code) if loading.four_bit else {}
    module, info = kind.from_pretrained(
        folder,
        config=config,
        attn_implementation=how,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # a head of another task may lie in the file; the backbone is checked here
        output_loading_info=True,
        trust_remote_code=remote_code,
        **more,
    )
    prefix = f"{module.base_model_prefix}."

    def of_backbone(name: str) -> bool:
        return name.startswith(prefix) and not of_head(name)

    wrong = sorted(str(entry[0]) for entry in info["mismatched_keys"] if of_backbone(str(entry[0])))
    if wrong:
        raise ModelError(f"The weights of {source} have other shapes than its config.json says ({wrong[0]}).")
    lacking = [*info["missing_keys"], *(str(entry[0]) for entry in info["mismatched_keys"])]
    headless = sorted(key for key in lacking if not of_backbone(key))
    if headless and not new_head:
        raise ModelError(
            f"The weights of {source} hold no head of a {type(module).__name__} ({headless[0]} is missing).",
            "Measure this model by labelled data.",
        )
    # Old checkpoints do not count the batches that batch-norm saw, and nothing reads the count.
    missing = tuple(
        sorted(key for key in info["missing_keys"] if of_backbone(key) and not key.endswith("num_batches_tracked"))
    )
    # A pooler is often absent from language-model checkpoints and is trained with the head.
    absent = [key for key in missing if "pooler" not in key]
    if absent:
        raise ModelError(
            f"The weights of {source} do not fit {type(module).__name__}: {len(absent)} tensors are missing ({absent[0]} …).",
            "Check that config.json and the weights belong together.",
        )
    return Opened(module if loading.four_bit else module.float(), missing, bool(headless))


def attention() -> str:
    """Which implementation of attention to train and predict with."""
    # Measured (docs/benchmarks.md): on the CPU the backward pass of fused attention is slower than the plain one's.
    return "sdpa" if torch.cuda.is_available() else "eager"


@contextlib.contextmanager
def clear_errors(source: str) -> Iterator[None]:
    """Turn what transformers raises while loading `source` into one ModelError."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, safetensors.SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "custom code" in first:
            raise ModelError(
                f"The model {source} brings Python code of its own, which runs only where that is allowed.",
                "Read it, and set trust_remote_code=true if you trust it.",
            ) from error
        if first.startswith("Unrecognized configuration class"):
            raise ModelError(
                f"transformers knows no {first.rstrip('.').split()[-1]} for the model {source}."
            ) from error
        if Path(source).exists() or source.startswith("builtin:"):
            raise ModelError(f"The model {source} cannot be loaded: {first}") from error
        raise ModelError(
            f"The model {source} cannot be fetched from the Hub: {first}",
            "Check the id and the network, or give a local folder or builtin:minilm.",
        ) from error


def set_labels(config: Any, labels: Sequence[str], problem: str) -> None:
    """Tell the configuration how many outputs there are, and what they are called."""
    names = list(labels) or ["score"]
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = PROBLEM_TYPES[problem]


def set_padding(config: Any, tokenizer: Any, source: str) -> None:
    """Decoders often come without a padding token, and their heads find the last token by it."""
    if tokenizer.pad_token is None:
        stand_in = tokenizer.eos_token or tokenizer.unk_token
        if stand_in is None:
            raise ModelError(f"The tokenizer of {source} has no padding token and none that could stand in for it.")
        tokenizer.pad_token = stand_in
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    config.pad_token_id = tokenizer.pad_token_id
    vocabulary = config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"The tokenizer of {source} knows {len(tokenizer):,} tokens, but the network only {vocabulary:,}.",
            "Check that tokenizer and weights belong together.",
        )


def longest_input(module: nn.Module, config: Any, tokenizer: Any, reserved: int) -> int:
    """Tokens that the network and its tokenizer take; RoBERTa and its kin lose the positions up to the padding's."""
    known = positions(module, config.get_text_config())
    limit = int(min(tokenizer.model_max_length, NO_LIMIT))
    return limit if known is None else min(limit, known - reserved)


def positions(module: nn.Module, config: Any) -> int | None:
    """How many tokens `module` has positions for; None where it needs none."""
    known = getattr(config, "max_position_embeddings", None)
    if not isinstance(known, int) or known <= 0:
        return None
    tables = [
        child
        for name, child in module.named_modules()
        if name.endswith("position_embeddings") and isinstance(child, nn.Embedding) and child.padding_idx is not None
    ]
    return known - (tables[0].padding_idx + 1 if tables else 0)  # type: ignore[operator]


def limited(model: Model, wanted: int | str, instead: str = "") -> Model:
    """`model`, reading at most `wanted` tokens, or as many as is usual when that is "auto".

    Args:
        instead: ends the sentence on what to do where the network does not take so many.

    Raises:
        SettingsError: it does not.
    """
    if isinstance(wanted, str):
        wanted = min(model.limit, LONGEST_BY_DEFAULT)
    if wanted > model.limit:
        raise SettingsError(
            f"task.max_length is {wanted:,}, but {model.source} takes {model.limit:,} tokens.",
            f"Set it to {model.limit} or less{instead}.",
        )
    return dataclasses.replace(model, limit=wanted)


def tiny_batch(config: Any) -> dict[str, torch.Tensor]:
    """A batch of one row of a few tokens, none of them padding."""
    usable = [index for index in range(min(8, config.get_text_config().vocab_size)) if index != config.pad_token_id]
    ids = torch.tensor([usable[:4]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
