"""A language model, masked or not, with the head that its files bring."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from tunesmith.contracts import Loading, Model
from tunesmith.models import pooling, sources
from tunesmith.models.blocks import find_blocks
from tunesmith.models.load import clear_errors, longest_input, network, quiet, set_padding, tiny_batch
from tunesmith.models.stages import find_stages


def load_language_model(source: str, kind: Any, *, loading: Loading, remote_code: bool) -> Model:
    """The network that gives a logit to each token of the vocabulary, in fp32.

    Where files tie the head's matrix to that of the embeddings, it is a copy here: the head stays as it was, whatever
    becomes of the embeddings.

    Args:
        source: folder, "builtin:…" or Hub id.
        kind: transformers' AutoModelForCausalLM or AutoModelForMaskedLM.
        remote_code: whether Python code beside the weights may run.

    Raises:
        ModelError: nothing usable there, weights that do not fit the architecture, or no head in them.
    """
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code)
        set_padding(config, tokenizer, source)
        module, absent = network(kind, folder, config, source, loading, remote_code=remote_code, new_head=False)
    last, first = module.get_output_embeddings(), module.get_input_embeddings()
    if last is not None and last.weight is first.weight:
        last.weight = torch.nn.Parameter(first.weight.detach().clone())
    backbone, example = module.base_model_prefix, tiny_batch(config)
    blocks = find_blocks(module, backbone, example)
    return Model(
        module=module,
        processor=tokenizer,
        stages=find_stages(module, backbone, blocks, example),
        blocks=blocks,
        source=source,
        folder=folder,
        limit=longest_input(module, config, tokenizer, loading.reserved),
        backbone=backbone,
        example=example,
        modality="text",
        pooling=pooling.OWN,
        remote_code=remote_code,
        absent=absent,
    )
