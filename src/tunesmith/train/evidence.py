"""What the pre-trained network itself says about where it wants to change, before anything trains."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tunesmith.data import batches
from tunesmith.models.forward import device_of, evaluated, precision, to
from tunesmith.train.course import Job
from tunesmith.train.events import Trained
from tunesmith.train.loop import train

ROWS = 512
"""A mean over so many rows orders stages that differ at all; more would cost as much as training on them."""


def relative_gradients(job: Job) -> Mapping[str, float]:
    """Length of the gradient over length of the weights, by stage, on training rows, under the head that the plan solves for.

    Lee et al. 2023, section 4 (the relative gradient norm of Auto-RGN). The network of `job` is used up.
    """
    model = next(event for event in train(job) if isinstance(event, Trained)).model
    chosen = job.drawn("evidence")[:ROWS]
    lengths = batches.joined(job.train.lengths, job.together)
    count = job.train.count(batches.spread(chosen, job.together))
    device = device_of(model.module)
    model.module.requires_grad_(True)
    with evaluated(model.module):
        for rows in batches.micro_batches(chosen, lengths, job.plan.batch.micro_batch_tokens):
            part = batches.spread(rows, job.together)
            with precision(device, job.plan.precision):
                output = model.module(**to(job.task.inputs(job.train, part, model), device))
            loss = job.task.loss(job.task.read(output), job.train, part).sum
            (loss / count).backward()  # type: ignore[no-untyped-call]
    found = {}
    parameters = dict(model.module.named_parameters())
    for stage in model.stages:
        held = [parameters[name] for name in stage.parameters]
        gradient = math.sqrt(sum(float(one.grad.square().sum()) for one in held if one.grad is not None))
        found[stage.name] = gradient / max(math.sqrt(sum(float(one.detach().square().sum()) for one in held)), 1e-12)
    return found
