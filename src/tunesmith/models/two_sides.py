"""Texts of two sides to tokens: a source as it is read, a target as the network is to write it; what was cut is counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tunesmith.contracts import Model
from tunesmith.data.asked import NOTHING, Asked
from tunesmith.data.source_target import SourceTarget
from tunesmith.data.tokens import Tokens
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models.forward import device_of, evaluated
from tunesmith.models.load import quiet

CHUNK = 1_000
"""Texts given to the tokenizer at once."""
Cut = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Writer:
    """How texts become what a network is to write, and back."""

    tokenizer: Any
    limit: int
    """Tokens of a target, at most."""
    before: tuple[int, ...]
    """Tokens that are written first, whatever the text: the mark of a language, for some."""
    after: tuple[int, ...]
    """Those that come last; one of `ends` among them."""
    begin: int
    """What the network is given before it writes anything."""
    ends: tuple[int, ...]
    """Tokens that end what is written."""

    def tokens(self, texts: Sequence[str], *, bare: bool = False) -> list[list[int]]:
        """The tokens of each text, and what stands around them unless `bare`."""
        return list(_encoded(texts, _writing(self.tokenizer), add_special_tokens=not bare))


def writer_of(model: Model, limit: int) -> Writer:
    """How `model` writes, by its tokenizer and by how its class shifts what is to be told.

    Raises:
        SettingsError: the tokenizer has to be told the language first.
    """
    network, own = cast(Any, model.module), model.processor
    try:
        before, after = _around(_writing(own))
    except KeyError as error:  # None is no language
        raise SettingsError(
            f"The model {model.source} writes many languages, and nothing says which one is wanted.",
            "Set task.target_language, and task.source_language, to codes as its model card writes them.",
        ) from error
    known = network.generation_config.eos_token_id
    given = known if isinstance(known, list) else [known, own.eos_token_id, own.sep_token_id]
    ends = tuple(dict.fromkeys(one for one in given if one is not None))
    after = after if set(after) & set(ends) else (ends[0],)
    begin = _begin(network, [*before, *after])
    return Writer(own, limit, before[1:] if before[:1] == (begin,) else before, after, begin, ends)


def marks(model: Model, writer: Writer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The marks that stand at every source and at every target, such as those of languages, beside what begins and ends any
    text."""
    own = model.processor
    usual = {own.cls_token_id, own.sep_token_id, own.bos_token_id, own.eos_token_id, own.pad_token_id, *writer.ends}
    first, last = _around(own)
    found = ((*first, *last), (writer.begin, *writer.before, *writer.after))
    reads, writes = (tuple(dict.fromkeys(one for one in side if one not in usual)) for side in found)
    return tuple(own.convert_ids_to_tokens(reads)), tuple(own.convert_ids_to_tokens(writes))


def sides(
    model: Model, texts: pa.ChunkedArray, references: Sequence[Sequence[str]] | None, prefix: str, writer: Writer
) -> SourceTarget:
    """Sources with the first of each row's `references`; without any, with nothing that is to be told.

    Args:
        prefix: what stands before every source.

    Raises:
        ModelError: a limit leaves no room for text.
    """
    source, lost = _source_tokens(model, texts, prefix)
    if references is None:
        target, cut = _untold(len(texts), writer), np.zeros(len(texts), dtype=np.int64)
    else:
        target, cut = target_tokens(writer, [one[0] for one in references])
    return SourceTarget(source, target, texts, references, np.stack([lost, cut], axis=1))


def several(writer: Writer, examples: SourceTarget, views: int) -> SourceTarget:
    """Example v · rows + i: row i with its target v, counted round where it has fewer."""
    known = examples.references or []
    target, _ = target_tokens(writer, [one[view % len(one)] for view in range(views) for one in known])
    return replace(examples, target=target)


def cut_of_others(writer: Writer, examples: SourceTarget) -> tuple[int, int]:
    """How many targets beside the first of each row are cut where they are learned, and by how many tokens in all."""
    around = len(writer.before) + len(writer.after) + 1
    others = [text for one in examples.references or [] for text in one[1:]]
    # No tokenizer makes more tokens of a text than it has bytes, and the mark of its beginning.
    _, lost = target_tokens(writer, [text for text in others if len(text.encode()) + around > writer.limit])
    return int((lost > 0).sum()), int(lost.sum())


def as_loaded(tokenizer: Any, rows: Sequence[Sequence[str]]) -> SourceTarget:
    """Pairs of source and target with the tokens that transformers makes of them itself, for the logits of the last one."""
    read = tokenizer([one for one, _ in rows], truncation=True)["input_ids"]
    written = tokenizer(text_target=[other for _, other in rows], truncation=True)["input_ids"]
    last = [np.array([NOTHING] * (len(one) - 1) + one[-1:], dtype=np.int32) for one in written]
    cut = np.zeros((len(rows), 2), dtype=np.int64)
    return SourceTarget(
        _pieces(read), _asked(written, last), pa.chunked_array([[]], pa.string()), None, cut, plain=True
    )


def target_tokens(writer: Writer, texts: Sequence[str]) -> tuple[Asked, Cut]:
    """Each text as the network is to write it, with the token that ends it, and how many tokens it lost at its end.

    What ends a text is not learned where it was cut, as the network would learn to stop in the middle; nor is what comes
    after the end, where a model of many languages has the mark of its language there.
    """
    ids, wanted, lost = [], [], []
    for tokens in writer.tokens(texts):
        inner = tokens[1:] if tokens[:1] == [writer.begin] else tokens
        inner = inner if set(inner) & set(writer.ends) else [*inner, *writer.after]
        kept, cut = _cut(inner, len(writer.after), writer.limit)
        end = max(place for place, token in enumerate(kept) if token in writer.ends)
        told = np.array(kept, dtype=np.int32)
        told[end if cut else end + 1 :] = NOTHING
        ids.append(kept)
        wanted.append(told)
        lost.append(cut)
    return _asked(ids, wanted), np.array(lost, dtype=np.int64)


def _source_tokens(model: Model, texts: pa.ChunkedArray, prefix: str) -> tuple[Tokens, Cut]:
    """The sources, and how many tokens each one lost at its end."""
    _, after = _around(model.processor)
    stand_in = [model.processor.pad_token_id]  # for a text of nothing but characters that the tokenizer drops
    whole = _encoded([prefix + text for text in texts.to_pylist()], model.processor)
    found = [_cut(tokens or stand_in, len(after), model.limit) for tokens in whole]
    return _pieces([one for one, _ in found]), np.array([lost for _, lost in found], dtype=np.int64)


def _begin(network: Any, labels: list[int]) -> int:
    """The token that the class of `network` puts before `labels`, seen in what reaches its decoder.

    Raises:
        ModelError: it shifts them in another way than by one place.
    """
    seen: list[torch.Tensor] = []

    def watch(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"][0])

    given = torch.tensor([labels], device=device_of(network))
    handle = network.get_decoder().register_forward_pre_hook(watch, with_kwargs=True)
    try:
        with evaluated(network), torch.no_grad(), warnings.catch_warnings(action="ignore"):  # of other ways to train
            network(input_ids=given, labels=given)
    finally:
        handle.remove()
    begin, *rest = seen[0].tolist()
    if rest != labels[:-1]:
        raise ModelError(f"{type(network).__name__} gives its decoder other tokens than those that it is to write.")
    return int(begin)


def _around(encode: Callable[..., Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that stand before and after every text."""
    whole, bare = (encode(["a"], add_special_tokens=special)["input_ids"][0] for special in (True, False))
    first = next((at for at in range(len(whole)) if bare and whole[at : at + len(bare)] == bare), 0)
    return tuple(whole[:first]), tuple(whole[first + len(bare) :])


def _writing(tokenizer: Any) -> Callable[..., Any]:
    """`tokenizer` for what is written, which for some is another one than for what is read."""
    return lambda texts, **more: tokenizer(text_target=texts, **more)


def _encoded(texts: Sequence[str], encode: Callable[..., Any], **more: Any) -> Iterator[list[int]]:
    for start in range(0, len(texts), CHUNK):
        with quiet():  # long texts are counted here, and need no warning
            yield from encode(list(texts[start : start + CHUNK]), truncation=False, **more)["input_ids"]


def _cut(tokens: list[int], closing: int, limit: int) -> tuple[list[int], int]:
    """At most `limit` of `tokens`, the last `closing` of them kept, and how many were cut."""
    if limit <= closing + 1:
        raise ModelError(f"{limit} tokens leave no room for text beside {closing} special ones.", "Raise the limit.")
    if len(tokens) <= limit:
        return tokens, 0
    return [*tokens[: limit - closing], *tokens[len(tokens) - closing :]], len(tokens) - limit


def _pieces(ids: Sequence[Sequence[int]]) -> Tokens:
    """A piece a row."""
    lengths = np.array([len(one) for one in ids], dtype=np.int64)
    return Tokens(
        ids=np.array([token for one in ids for token in one], dtype=np.int32),
        kinds=None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        owner=np.arange(len(ids), dtype=np.int64),
        targets=None,
        lost=np.zeros(len(ids), dtype=np.int64),
    )


def _asked(ids: Sequence[Sequence[int]], wanted: Sequence[npt.NDArray[np.int32]]) -> Asked:
    """The same, with what is to be told."""
    flat = np.concatenate(wanted) if wanted else np.zeros(0, dtype=np.int32)
    return Asked(**vars(_pieces(ids)), wanted=flat, scale=np.ones(len(ids), dtype=np.float32))


def _untold(rows: int, writer: Writer) -> Asked:
    """Rows of which nobody knows what is to be written."""
    return _asked([writer.after[:1]] * rows, [np.array([NOTHING], dtype=np.int32)] * rows)
