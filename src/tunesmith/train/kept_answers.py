"""What the pre-trained network told as the next token, kept to hold the network near it that is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from tunesmith.contracts import Array, Examples, Indices, Model, Task
from tunesmith.data import batches
from tunesmith.models.forward import INFERENCE_TOKENS, device_of, evaluated, precision, to
from tunesmith.models.told_places import a_few

LIKELIEST = 32
"""Tokens whose probability is kept at each place, at most; all others together are one more."""
BYTES_A_PLACE = LIKELIEST * (4 + 4)
LEAST = 1e-6
"""Probability that what is left is taken to have, so that its logarithm is finite."""


@dataclass(frozen=True)
class KeptAnswers:
    """The likeliest tokens at each place that some examples are asked for, as the pre-trained network had them."""

    log_probabilities: torch.Tensor
    """(places, likeliest), example by example."""
    tokens: torch.Tensor
    """(places, likeliest)."""
    starts: Indices
    """(examples + 1,) where the places of each example begin."""

    def divergence(self, logits: torch.Tensor, part: Array) -> torch.Tensor:
        """The Kullback-Leibler divergence of what `logits` tell from what is kept, summed over the places of `part`; scalar.

        With Hinton et al. 2015, section 2, at a temperature of 1. Tokens that are not among the likeliest count as one, by
        which the sum is at most that over the whole vocabulary.

        Args:
            logits: (places, vocabulary), those of the examples `part` in their order.
        """
        places = torch.from_numpy(self.places(part))
        total = logits.new_zeros((), dtype=torch.float32)
        for few, scores in a_few(places, logits):
            before = self.log_probabilities[few].to(logits.device)
            tokens = self.tokens[few].to(logits.device).long()
            # Computed again for the gradient: what is kept for it would be as wide as the vocabulary.
            total = total + checkpoint(_away, scores, before, tokens, use_reentrant=False)
        return total

    def places(self, part: Array) -> Indices:
        """Those of the examples `part`, one example after the other."""
        counts = self.starts[part + 1] - self.starts[part]
        ends = np.cumsum(counts)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        found: Indices = np.repeat(self.starts[part], counts) + within
        return found


def computed(task: Task, model: Model, examples: Examples, precision_name: str) -> KeptAnswers:
    """What `model`, with the weights from before training, tells at every place that `examples` are asked for."""
    starts = _starts(task, examples)
    device, kept = device_of(model.module), None
    with evaluated(model.module), torch.no_grad(), precision(device, precision_name):
        for indices in batches.in_length_order(examples.lengths, INFERENCE_TOKENS):
            logits = task.read(model.module(**to(task.inputs(examples, indices, model), device)))
            kept = kept or _room(int(starts[-1]), starts, logits.shape[1])
            places = torch.from_numpy(kept.places(indices))
            for few, scores in a_few(places, logits):
                told, tokens = scores.float().log_softmax(dim=1).topk(kept.tokens.shape[1])
                kept.log_probabilities[few] = told.cpu()
                kept.tokens[few] = tokens.to("cpu", torch.int32)
    assert kept is not None  # a run has rows
    return kept


def stand_in(task: Task, model: Model, examples: Examples) -> KeptAnswers:
    """Answers of the same shape that cost nothing to make: each token is as likely as the others."""
    starts, module = _starts(task, examples), model.module
    vocabulary = int(module.get_output_embeddings().out_features)  # type: ignore[operator]
    likeliest = min(LIKELIEST, vocabulary)
    tokens = torch.arange(likeliest, dtype=torch.int32).expand(int(starts[-1]), likeliest)
    return KeptAnswers(torch.full((1, 1), -np.log(vocabulary)).expand(tokens.shape), tokens, starts)


def _room(places: int, starts: Indices, vocabulary: int) -> KeptAnswers:
    shape = (places, min(LIKELIEST, vocabulary))
    return KeptAnswers(torch.zeros(shape), torch.zeros(shape, dtype=torch.int32), starts)


def _starts(task: Task, examples: Examples) -> Indices:
    owner = task.asked(examples, np.arange(len(examples)))
    assert owner is not None  # as the plan says
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(examples)))])


def _away(scores: torch.Tensor, before: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    scores = scores.float()
    now = scores.gather(1, tokens) - scores.logsumexp(dim=1, keepdim=True)
    rest, left = _rest(before), _rest(now)
    return (before.exp() * (before - now)).sum() + (rest * (rest.log() - left.log())).sum()


def _rest(log_probabilities: torch.Tensor) -> torch.Tensor:
    """(places,) what the likeliest tokens leave to all others."""
    return (1 - log_probabilities.exp().sum(dim=1)).clamp(min=LEAST)
