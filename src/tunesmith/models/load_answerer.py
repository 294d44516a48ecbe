"""A pre-trained network that says of each token how likely the answer begins and ends there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError
from tunesmith.models.heads import make_exact
from tunesmith.models.load import load_classifier
from tunesmith.models.reload import reload

KIND = transformers.AutoModelForQuestionAnswering
ENDS = ("start", "end")
"""What the outputs are."""


def load_answerer(source: str, *, seed: int, loading: Loading, remote_code: bool) -> Model:
    """The standard question-answering class of the model's architecture, in fp32, with a new head.

    Its output has `.logits` too: (rows, tokens, 2).

    Raises:
        ModelError: nothing usable there, weights that do not fit the architecture, or a class that answers in another way.
    """
    more: dict[str, Any] = {"seed": seed, "loading": loading, "remote_code": remote_code}
    try:
        model = load_classifier(source, ENDS, "single-label", kind=KIND, **more)
    except (
        AttributeError,
        AssertionError,
    ) as error:  # T5 has no backbone in one part; Longformer wants three separators
        raise ModelError(
            f"The question-answering class for {source} cannot be trained stage by stage: {str(error).rstrip('.')}.",
            "Give another model (--model).",
        ) from error
    _joined(model.module)
    with torch.no_grad():
        output = model.module(**model.example)
    if "start_logits" not in output:
        raise ModelError(
            f"{type(model.module).__name__} does not give each token a start and an end.", "Give another (--model)."
        )
    make_exact(model)
    return model


def reload_answerer(folder: Path, *, remote_code: bool = False) -> Model:
    """The model that a run left in `folder`, in fp32 and eval mode.

    Raises:
        ModelError: the folder does not hold such a model.
    """
    model = reload(folder, remote_code=remote_code, kind=KIND)
    _joined(model.module)
    return model


def _joined(module: nn.Module) -> None:
    """Let the output of `module` have its two logits side by side."""

    def join(_: nn.Module, __: Any, output: Any) -> Any:
        if "start_logits" in output:
            output["logits"] = torch.stack([output.start_logits, output.end_logits], dim=-1)
        return output

    module.register_forward_hook(join)
