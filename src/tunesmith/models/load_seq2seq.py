"""Networks of two halves: one reads a text, the other writes one. From files that hold both, or made of two copies of an
encoder (Rothe, Narayan & Severyn 2020, section 3: what they call BERT2BERT)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers

from tunesmith import seeds
from tunesmith.contracts import HeadKind, Loading, Model
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import pooling, sources
from tunesmith.models.blocks import find_blocks
from tunesmith.models.load import (
    NO_LIMIT,
    attention,
    clear_errors,
    longest_input,
    network,
    positions,
    quiet,
    set_padding,
    tiny_batch,
)
from tunesmith.models.reload import opened
from tunesmith.models.stages import find_stages
from tunesmith.models.told_places import tell_places

KIND = transformers.AutoModelForSeq2SeqLM
CROSS = "crossattention"
"""What transformers calls the layers of a BERT or RoBERTa that look at what another network read."""
ENCODERS = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "ernie",
    "bert-generation",
    "roberta-prelayernorm",
)
"""Architectures, by transformers' name, that can be given such layers."""


def load_seq2seq(
    source: str, *, seed: int, loading: Loading, languages: tuple[str | None, str | None], remote_code: bool
) -> Model:
    """A network that reads a text and writes another, in fp32, which gives logits only where it is asked to.

    An encoder alone becomes both halves: the writing one is a copy that looks back only, with new layers that look at what
    was read, and a new layer before its vocabulary, whose matrix is that of its embeddings.

    Args:
        source: folder, "builtin:…" or Hub id.
        seed: draws the new layers' first weights.
        languages: the codes of the language that is read and of the one that is written, for models of many languages.

    Raises:
        ModelError: nothing usable there, or a network that neither writes nor can be made to.
        SettingsError: a code that the tokenizer does not know, or what cannot be done with a network that is made here.
    """
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        tokenizer = _tokenizer(folder, languages, source, remote_code)
        set_padding(config, tokenizer, source)
        made = not config.is_encoder_decoder
        if made:
            _insist(config, loading, source)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seeds.derive(seed, "head"))
                module = _of_two(folder, config, loading, remote_code)
            _tell_marks(module, tokenizer, source)
        else:
            module, _, _ = network(KIND, folder, config, source, loading, remote_code=remote_code, new_head=False)
    if loading.apart:
        _untie(module)
    model = _apart(module, tokenizer, "new" if made else "kept", source)
    return dataclasses.replace(
        model, source=source, folder=folder, remote_code=remote_code, resized=made, four_bit=loading.four_bit
    )


def reload_seq2seq(folder: Any, languages: tuple[str | None, str | None], *, remote_code: bool = False) -> Model:
    """The network that `save` wrote to `folder`, in eval mode."""
    where = str(folder)
    with quiet(), clear_errors(where):
        tokenizer = _tokenizer(where, languages, where, remote_code)
        model = opened(folder, KIND, lambda module: _apart(module, tokenizer, "kept", where), remote_code=remote_code)
    model.module.eval()
    return model


def longest_output(model: Model) -> int:
    """Tokens that `model` can write: the positions that its decoder has; as good as endless where it needs none."""
    network: Any = model.module
    known = positions(network.get_decoder(), network.config.get_text_config(decoder=True))
    return NO_LIMIT if known is None else known


def language_token(tokenizer: Any, code: str) -> str:
    """The mark that stands for the language `code`.

    Raises:
        SettingsError: the tokenizer has none.
    """
    for spelled in (code, f"__{code}__", f">>{code}<<"):
        found = tokenizer.convert_tokens_to_ids(spelled)
        if found is not None and found != tokenizer.unk_token_id:
            return spelled
    raise SettingsError(
        f"The tokenizer knows no language {code!r}.",
        "Give a code as its model card writes it, such as de_DE or deu_Latn.",
    )


def _tokenizer(folder: str, languages: tuple[str | None, str | None], source: str, remote_code: bool) -> Any:
    given = {key: code for key, code in zip(("src_lang", "tgt_lang"), languages, strict=True) if code is not None}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code, **given)
    for code in given.values():
        language_token(tokenizer, code)
    if tokenizer.eos_token is None and tokenizer.sep_token is None:
        raise ModelError(
            f"The tokenizer of {source} has no token that ends a text: nothing could say where what is written ends.",
            "Set eos_token in its tokenizer_config.json.",
        )
    return tokenizer


def _insist(config: Any, loading: Loading, source: str) -> None:
    if config.model_type not in ENCODERS:
        raise ModelError(
            f"The model {source} ({config.model_type}) does not make one text of another, and cannot be taught to.",
            "Take a model such as T5, BART, Marian or Pegasus, an encoder such as BERT or RoBERTa, or task: causal-lm.",
        )
    if loading.four_bit:
        raise SettingsError(
            f"{source} is an encoder, of which a network that writes is made here: it has no files to read in 4 bits.",
            "Use another method than qlora.",
        )


def _of_two(folder: str, config: Any, loading: Loading, remote_code: bool) -> Any:
    """The network made of two copies of the encoder in `folder`; with fresh weights throughout where that is asked for."""
    how = attention()
    if loading.fresh:
        made = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(config, config)
        module = transformers.EncoderDecoderModel(config=made)
        module.set_attn_implementation(how)
        return module.float()
    own = {
        "use_safetensors": True,
        "dtype": torch.float32,
        "attn_implementation": how,
        "trust_remote_code": remote_code,
    }
    given = {f"{half}_{key}": value for half in ("encoder", "decoder") for key, value in own.items()}
    return transformers.EncoderDecoderModel.from_encoder_decoder_pretrained(folder, folder, **given).float()


def _tell_marks(module: Any, tokenizer: Any, source: str) -> None:
    """Let a network that was made here know the tokens that begin, end and fill what it writes."""
    begin = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if begin is None:
        raise ModelError(f"The tokenizer of {source} has no token that begins a text (cls_token or bos_token).")
    for config in (module.config, module.generation_config):
        config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = begin, end, tokenizer.pad_token_id


def _untie(module: Any) -> None:
    """Give the head a matrix of its own; and what transformers ties only together with it, too."""
    last, first = module.get_output_embeddings(), module.get_decoder().get_input_embeddings()
    if last.weight is not first.weight:
        return
    for config in (module.config, module.get_decoder().config, module.config.get_text_config(decoder=True)):
        config.tie_word_embeddings = False
    with torch.device("meta"):
        blank = dict(type(module)(module.config).named_parameters(remove_duplicate=False))
    taken: dict[int, int] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        # The first of those that share one keeps it; another has a copy where a network of this configuration has two.
        if taken.setdefault(id(parameter), id(blank[name])) != id(blank[name]):
            owner, _, own = name.rpartition(".")
            setattr(module.get_submodule(owner), own, torch.nn.Parameter(parameter.detach().clone()))


def _fix_computed(module: Any) -> None:
    """Make buffers of parameters that transformers computes anew whenever it opens the files, as the positions of Marian:
    what they would learn is not saved."""
    known = dict(module.named_parameters())
    for name in set(known) & set(module._keys_to_ignore_on_save or ()):
        owner, _, own = name.rpartition(".")
        holder = module.get_submodule(owner)
        delattr(holder, own)
        holder.register_buffer(own, known[name].detach(), persistent=False)


def _apart(module: Any, tokenizer: Any, head: HeadKind, source: str) -> Model:
    """The network with its stages found: embeddings of both halves, blocks of the reading one, then of the writing one."""
    tell_places(module, source)
    _fix_computed(module)
    names = {id(child): name for name, child in module.named_modules()}
    reads, writes = names[id(module.get_encoder())], names[id(module.get_decoder())]
    inside = _head(module, names)
    example = _tiny(module)
    blocks = tuple(block for half in (reads, writes) for block in find_blocks(module, half, example))
    if head == "new":
        inside += tuple(name for name in names.values() if name.rpartition(".")[2] == CROSS)
    return Model(
        module=module,
        processor=tokenizer,
        stages=find_stages(module, "", blocks, example, inside, writes),
        blocks=blocks,
        source="",
        folder="",
        limit=longest_input(module, module.config, tokenizer, 0),
        backbone="",
        example=example,
        modality="text",
        pooling=pooling.OWN,
        opens=KIND.__name__,
        head=head,
        head_inside=inside,
        decoder=writes,
    )


def _head(module: Any, names: dict[int, str]) -> tuple[str, ...]:
    """What stands between the last block and the vocabulary: the last layer, and what its class puts before it."""
    if not isinstance(module, transformers.EncoderDecoderModel):
        return (names[id(module.get_output_embeddings())],)
    own = module.decoder.base_model_prefix
    return tuple(f"decoder.{name}" for name, _ in module.decoder.named_children() if name != own)


def _tiny(module: Any) -> dict[str, torch.Tensor]:
    """A batch of one row of a few tokens on both sides."""
    batch = tiny_batch(module.config)
    return batch | {"decoder_input_ids": batch["input_ids"].flip(-1)[:, :3]}
