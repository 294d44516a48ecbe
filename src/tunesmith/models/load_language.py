"""A language model, masked or not, with the head that its files bring, or with a new one where it may be new."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers

from tunesmith import seeds
from tunesmith.contracts import Loading, Model
from tunesmith.models import sources
from tunesmith.models.load import clear_errors, network, quiet, set_padding, taken_apart
from tunesmith.models.told_places import tell_places


def load_language_model(
    source: str, kind: Any, *, seed: int, loading: Loading, remote_code: bool, new_head: bool
) -> Model:
    """The network that gives a logit to each token of the vocabulary, in fp32, and only where it is asked to.

    Where files tie the head's matrix to that of the embeddings, the two are one, which belongs to the embeddings; unless
    `loading` wants them apart: then the head's is a copy, which stays as it is whatever becomes of the embeddings.

    Args:
        source: folder, "builtin:…" or Hub id.
        kind: transformers' AutoModelForCausalLM or AutoModelForMaskedLM.
        seed: draws the first weights of what is new.
        remote_code: whether Python code beside the weights may run.
        new_head: whether the head may be new where the files have none; its matrix is that of the embeddings all the same,
            where the architecture ties them.

    Raises:
        ModelError: nothing usable there, weights that do not fit the architecture, or no head in them.
    """
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code)
        set_padding(config, tokenizer, source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(seed, "head"))
            module, absent, headless = network(
                kind, folder, config, source, loading, remote_code=remote_code, new_head=new_head
            )
    tell_places(module, source)
    last, first = module.get_output_embeddings(), module.get_input_embeddings()
    if loading.apart and last.weight is first.weight:
        last.weight = torch.nn.Parameter(first.weight.detach().clone())
        if last.bias is not None:  # it may have two names, of which files that tie nothing would keep one
            last.bias = torch.nn.Parameter(last.bias.detach().clone())
        module.config.tie_word_embeddings = False
    model = taken_apart(module, tokenizer, config, loading, kind)
    return dataclasses.replace(
        model,
        source=source,
        folder=folder,
        remote_code=remote_code,
        absent=absent,
        head="new" if headless else "kept",
    )
