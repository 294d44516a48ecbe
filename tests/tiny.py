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
from tunesmith.tasks.tiny_answers import write_answers
from tunesmith.tasks.tiny_boxes import write_boxes
from tunesmith.tasks.tiny_identities import write_identities
from tunesmith.tasks.tiny_images import write_images, write_processor
from tunesmith.tasks.tiny_masks import write_masks
from tunesmith.tasks.tiny_tags import write_tags

__all__ = [
    "ARCHITECTURES", "DECODERS", "IMAGE_ARCHITECTURES", "METHODS", "WORDS", "write_answers", "write_boxes",
    "write_identities", "write_image_model", "write_images", "write_masks", "write_model", "write_rows", "write_tags",
]  # fmt: skip

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
_TRANSFORMER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
}  # fmt: skip
IMAGE_SIDE = dict.fromkeys(("vit", "deit", "beit", "dinov2"), 16)
IMAGE_ARCHITECTURES: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "vit": lambda: transformers.ViTConfig(**_TRANSFORMER, intermediate_size=64),
    "deit": lambda: transformers.DeiTConfig(**_TRANSFORMER, intermediate_size=64),
    "beit": lambda: transformers.BeitConfig(**_TRANSFORMER, intermediate_size=64),
    "dinov2": lambda: transformers.Dinov2Config(**_TRANSFORMER, mlp_ratio=2),
    "swin": lambda: transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4, drop_path_rate=0.0
    ),
    "convnext": lambda: transformers.ConvNextConfig(num_stages=3, hidden_sizes=[8, 16, 24], depths=[1, 2, 1]),
    "resnet": lambda: transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic"
    ),
    "mobilenet-v1": lambda: transformers.MobileNetV1Config(depth_multiplier=0.1, min_depth=4),
    "mobilenet-v2": lambda: transformers.MobileNetV2Config(depth_multiplier=0.1, min_depth=4),
    "efficientnet": lambda: transformers.EfficientNetConfig(
        width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320
    ),
}


def write_image_model(folder: Path, architecture: str = "vit") -> Path:
    """A pre-trained image classifier of five classes with random weights, as save_pretrained leaves it."""
    torch.manual_seed(0)
    config = IMAGE_ARCHITECTURES[architecture]()
    config.num_labels = 5
    config.architectures = [f"{type(config).__name__.removesuffix('Config')}ForImageClassification"]
    module = transformers.AutoModelForImageClassification.from_config(config)
    for child in module.modules():  # nothing but noise passes through a deep network as it is drawn
        if isinstance(child, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(child.weight)
    module.save_pretrained(folder)
    write_processor(folder, IMAGE_SIDE.get(architecture, 32))
    return folder
