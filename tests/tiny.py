"""Tiny real models, made here: two blocks, width 32, a tokenizer of a few hundred words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from tunesmith import methods
from tunesmith.errors import SettingsError
from tunesmith.registry import look_up
from tunesmith.tasks.tiny import SMALL, SPECIAL, WORDS, words, write_rows

__all__ = ["ARCHITECTURES", "DECODERS", "METHODS", "WORDS", "write_model", "write_rows"]

_DECODER = {"bos_token_id": 2, "eos_token_id": 3, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "bert": lambda: transformers.BertConfig(**SMALL),
    "roberta": lambda: transformers.RobertaConfig(**SMALL | {"max_position_embeddings": 66}),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=SMALL["vocab_size"], dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
    ),
    "electra": lambda: transformers.ElectraConfig(**SMALL, embedding_size=16),
    "deberta-v2": lambda: transformers.DebertaV2Config(
        **SMALL,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        conv_kernel_size=3,
        conv_act="gelu",
        position_biased_input=False,
        type_vocab_size=0,
    ),
    "albert": lambda: transformers.AlbertConfig(**SMALL, embedding_size=16),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**SMALL | {"max_position_embeddings": 66}),
    "mpnet": lambda: transformers.MPNetConfig(**SMALL | {"max_position_embeddings": 66}),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SMALL, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3, local_attention=16
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=SMALL["vocab_size"], n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3
    ),
    "llama": lambda: transformers.LlamaConfig(**SMALL | _DECODER | {"pad_token_id": None}),
    "qwen2": lambda: transformers.Qwen2Config(**SMALL | _DECODER | {"pad_token_id": None, "vocab_size": 270}),
}
DECODERS = ("gpt2", "llama", "qwen2")


def write_model(folder: Path, architecture: str = "bert") -> Path:
    """A pre-trained model folder of `architecture` with random weights, as save_pretrained leaves it."""
    torch.manual_seed(0)
    config = ARCHITECTURES[architecture]()
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    decoder = architecture in DECODERS
    if architecture == "qwen2":  # its tokenizer class knows byte-level pieces only
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Tokenizer(models.BPE({piece: index for index, piece in enumerate([*SPECIAL, *alphabet])}, []))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        core = words(decoder=decoder)
    names = {"unk_token": "[UNK]", "eos_token": "[SEP]"} | (
        {} if decoder else {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    )
    inputs = ["input_ids", "attention_mask"] + (
        ["token_type_ids"] if architecture in ("bert", "electra", "albert") else []
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=64, model_input_names=inputs, **names
    ).save_pretrained(folder)
    return folder


def able(method: str) -> bool:
    """Whether this machine can carry out `method`."""
    kind = look_up("method", method, methods.TABLE)
    try:
        kind(kind.Settings())
    except SettingsError:
        return False
    return True


METHODS = [method for method in methods.TABLE if able(method)]
"""All but those that need what is not here."""
