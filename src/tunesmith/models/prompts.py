"""Virtual tokens: learned vectors before the text (a prompt), or learned keys and values in every block (a prefix).

Prompt tuning: Lester et al. 2021. Prefix tuning: Li & Liang 2021; without their reparametrisation, which Liu et al. 2022
(P-tuning v2, section 3.3) find of no use for classification. The network is the model's own; hooks on its forward pass
put the tokens in just where PEFT puts them, so that PEFT opens what was trained here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from tunesmith import seeds
from tunesmith.contracts import Model
from tunesmith.errors import ModelError
from tunesmith.models import heads
from tunesmith.models.forward import evaluated
from tunesmith.models.stages import with_stages
from tunesmith.plans import Adapter

LANGUAGE = "AutoModelForCausalLM"
UNFIT = (AttributeError, IndexError, RuntimeError, ValueError)
"""What networks raise whose state is of another kind than keys and values."""
NAME = "prompt_encoder"
"""The module, inside the backbone, that holds the vectors."""


class Prompt(nn.Module):
    """The vectors of the virtual tokens, each row one token.

    For a prompt (tokens, width of the embeddings); for a prefix (tokens, blocks · 2 · heads · width of a head), keys first.
    """

    def __init__(self, vectors: torch.Tensor, blocks: int = 0, attention_heads: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(vectors)
        self.blocks, self.attention_heads = blocks, attention_heads
        self.on = True
        self.ahead = 0
        """Vectors that stand before the text's own in the pass that is made; none once their keys are kept."""

    def cache(self, rows: int) -> DynamicCache:
        """Keys and values (rows, heads, tokens, width of a head) of every block."""
        parts = self.weight.view(len(self.weight), self.blocks, 2, self.attention_heads, -1).permute(1, 2, 3, 0, 4)
        return DynamicCache([tuple(one.expand(rows, *one.shape) for one in pair) for pair in parts])


def inject(model: Model, adapter: Adapter, seed: int) -> Model:
    """`model` with fresh virtual tokens, which start as those of words drawn from the vocabulary; its stages found anew.

    Raises:
        ModelError: the network takes no prefix, or one that PEFT would not read as it was trained.
    """
    if model.opens not in ("AutoModelForSequenceClassification", LANGUAGE):
        raise _refused(model, "they go with texts that are read as a whole, or that are gone on with")
    ids = _words(model, adapter.tokens, seed)
    if adapter.kind == "prefix" or model.opens == LANGUAGE:  # what is written token by token has them behind it as keys
        _insist_on_keys(model)
    if adapter.kind == "prefix":
        prompt = _as_prefix(model, ids)
    else:
        with torch.no_grad():
            prompt = Prompt(_embedding(model)(ids).detach().clone())
    _insist_on_reading(model, adapter)
    found = replace(attach(model, prompt), adapter=adapter)
    _insist_on_effect(found)
    return found


def attach(model: Model, prompt: Prompt) -> Model:
    """`model` with `prompt` in its forward pass."""
    backbone = model.module.get_submodule(model.backbone)
    backbone.add_module(NAME, prompt)
    decoder = _decodes(model)
    if prompt.blocks:
        _before(backbone, lambda given: _with_prefix(prompt, given))
    elif decoder:
        # The class finds the tokens that it reads by the text's own, so that only what lies below sees the prompt.
        _before(backbone, lambda given: _with_prompt(prompt, _embedding(model), given))
        backbone.register_forward_hook(lambda _, __, output: _without_prompt(prompt, output))
    else:
        _before(model.module, lambda given: _with_prompt(prompt, _embedding(model), given))
    return with_stages(model)


def _decodes(model: Model) -> bool:
    """Whether each token sees those before it, so that what is read of the text's own tokens has seen the virtual ones."""
    return heads.reads_last_token(model) or model.opens == LANGUAGE


def of(model: Model) -> Prompt | None:
    """The virtual tokens of `model`, where it has any."""
    found = dict(model.module.get_submodule(model.backbone).named_children()).get(NAME)
    return found if isinstance(found, Prompt) else None


@contextmanager
def bare(model: Model) -> Iterator[None]:
    """`model` without its virtual tokens, as it was loaded, while the block lasts."""
    prompt = of(model)
    if prompt is not None:
        prompt.on = False
    try:
        yield
    finally:
        if prompt is not None:
            prompt.on = True


def _before(module: nn.Module, change: Any) -> None:
    names = list(inspect.signature(module.forward).parameters)

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        return (), change(dict(zip(names, args, strict=False)) | kwargs)

    module.register_forward_pre_hook(hook, with_kwargs=True)


def _with_prompt(prompt: Prompt, embedding: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with vectors (batch, tokens + length, width) in place of token ids (batch, length)."""
    prompt.ahead = 0
    if not prompt.on:
        return given
    tokens, positions = len(prompt.weight), given.get("position_ids")
    if _goes_on(given):
        return _behind(given, tokens)
    prompt.ahead = tokens
    words = embedding(given["input_ids"])
    vectors = torch.cat([prompt.weight.to(words.dtype).expand(len(words), -1, -1), words], dim=1)
    changed = _behind(given, tokens) | {"input_ids": None, "inputs_embeds": vectors}
    if given.get("token_type_ids") is not None:
        changed["token_type_ids"] = _widened(given["token_type_ids"], tokens, 0)
    if positions is not None:
        own = torch.arange(tokens, device=positions.device).expand(len(positions), -1)
        changed["position_ids"] = torch.cat([own, changed["position_ids"]], dim=1)
    return changed


def _without_prompt(prompt: Prompt, output: Any) -> Any:
    if prompt.ahead:
        output["last_hidden_state"] = output.last_hidden_state[:, prompt.ahead :]
    return output


def _with_prefix(prompt: Prompt, given: dict[str, Any]) -> dict[str, Any]:
    if not prompt.on:
        return given
    changed = _behind(given, len(prompt.weight))
    return changed if _goes_on(given) else changed | {"past_key_values": prompt.cache(len(given["input_ids"]))}


def _goes_on(given: dict[str, Any]) -> bool:
    """Whether a text is written token by token, so that the keys of all before are kept, those of virtual tokens too."""
    past = given.get("past_key_values")
    return past is not None and past.get_seq_length() > 0


def _behind(given: dict[str, Any], tokens: int) -> dict[str, Any]:
    """`given` with `tokens` virtual ones before it, which are seen, and by which it stands further back."""
    changed = dict(given)
    if given.get("attention_mask") is not None:  # without one all is seen
        changed["attention_mask"] = _widened(given["attention_mask"], tokens, 1)
    if given.get("position_ids") is not None:
        changed["position_ids"] = given["position_ids"] + tokens
    return changed


def _widened(values: torch.Tensor, tokens: int, value: int) -> torch.Tensor:
    return torch.cat([values.new_full((len(values), tokens), value), values], dim=1)


def _embedding(model: Model) -> nn.Module:
    backbone: Any = model.module.get_submodule(model.backbone)
    found: nn.Module = backbone.get_input_embeddings()
    return found


def _words(model: Model, tokens: int, seed: int) -> torch.Tensor:
    """(tokens,) ids to start from: words of the vocabulary (Lester et al. 2021, section 3.2).

    The first is the mark that an encoder's texts begin with: its head reads the first token, which is now this one.
    """
    processor = model.processor
    special = set(processor.all_special_ids)
    usable = torch.tensor([index for index in range(len(processor)) if index not in special])
    drawn = seeds.generator(seed, "adapter").integers(len(usable), size=tokens)
    ids = usable[torch.from_numpy(drawn)]
    if processor.cls_token_id is not None and not _decodes(model):
        ids[0] = processor.cls_token_id
    return ids


def _as_prefix(model: Model, ids: torch.Tensor) -> Prompt:
    """The keys and values that the words `ids` have in every block (Li & Liang 2021, section 4.3).

    Raises:
        ModelError: the blocks keep no keys and values, or of different shapes.
    """
    backbone: Any = model.module.get_submodule(model.backbone)
    cache = DynamicCache()
    with evaluated(model.module), torch.no_grad():
        try:
            backbone(
                input_ids=ids[None], attention_mask=torch.ones_like(ids[None]), past_key_values=cache, use_cache=True
            )
        except UNFIT as error:
            raise _refused(model, "its blocks do not all keep keys and values") from error
    pairs = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
    flat = [one for pair in pairs for one in pair if isinstance(one, torch.Tensor)]
    if len(flat) != 2 * len(model.blocks) or len({tuple(one.shape) for one in flat}) != 1:
        raise _refused(model, "its blocks do not all keep keys and values, of one shape")
    by_block = torch.stack([one[0] for one in flat])  # (blocks · 2, heads, tokens, width), keys first
    held = by_block.reshape(len(pairs), 2, *by_block.shape[1:])
    vectors = held.permute(3, 0, 1, 2, 4).reshape(len(ids), -1)
    return Prompt(vectors.detach().clone(), len(pairs), held.shape[2])


def _insist_on_keys(model: Model) -> None:
    backbone = model.module.get_submodule(model.backbone)
    if "past_key_values" not in inspect.signature(backbone.forward).parameters:
        raise _refused(model, "its forward pass takes no past_key_values")


def _insist_on_reading(model: Model, adapter: Adapter) -> None:
    """PEFT itself reads the head in two cases; insist that it reads what the model's own class reads."""
    module: Any = model.module
    if model.opens == LANGUAGE:
        return
    if heads.reads_last_token(model):
        ends = model.processor("a")["input_ids"][-1:]
        if adapter.kind == "prompt" and ends == [model.processor.pad_token_id]:
            raise _refused(model, "its tokenizer ends each text with the padding token, which the head passes over")
        return
    if adapter.kind == "prefix":
        with evaluated(module), torch.no_grad():
            output = module.get_submodule(model.backbone)(**model.example)
            read = output[1] if len(output) > 1 else output[0]
            layer = dict(module.named_children()).get("classifier")
            same = layer is not None and torch.allclose(layer(read), module(**model.example).logits, atol=1e-5)
        if not same:
            raise _refused(model, "PEFT would read its head in another way than it was trained")


def _insist_on_effect(model: Model) -> None:
    """Insist that what the network says of its example follows from the virtual tokens too."""

    def said() -> torch.Tensor:
        found: torch.Tensor = model.module(**model.example).logits
        return found

    with evaluated(model.module), torch.no_grad():
        try:
            with_them = said()
        except UNFIT as error:
            raise _refused(model, f"its forward pass does not bear them ({error})") from error
        with bare(model):
            without = said()
    if torch.equal(with_them, without):
        raise _refused(model, "its forward pass does not read them")


def _refused(model: Model, why: str) -> ModelError:
    return ModelError(
        f"{type(model.module).__name__} cannot be trained with virtual tokens of this kind: {why}.",
        "Use method=lora, which goes with every network.",
    )
