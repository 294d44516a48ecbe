"""A network as it is trained: its stages, its parameters, and how it is to be loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from tunesmith.contracts.values import Batch
from tunesmith.plans import Adapter, Part
from tunesmith.settings import UserModel


@dataclass(frozen=True)
class Parameter:
    """A parameter of the network, by its full name."""

    name: str
    size: int
    """How many numbers it holds."""
    bias: bool
    norm: bool
    """Whether a normalisation layer owns it."""
    adapter: bool = False
    """Whether it was added for fine-tuning."""


_CHOOSE: Mapping[Part, Callable[[Parameter], bool]] = {
    "all": lambda _: True,
    "biases": lambda member: member.bias,
    "norms": lambda member: member.norm,
    "adapter": lambda member: member.adapter,
}


@dataclass(frozen=True)
class Stage:
    """One step of the network in depth order, with the parameters that it owns."""

    name: str
    members: tuple[Parameter, ...]
    bare: tuple[str, ...] = ()
    """Modules without parameters that run as part of it, such as the dropout after the embeddings."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Full names."""
        return tuple(member.name for member in self.members)

    @property
    def size(self) -> int:
        """How many numbers the parameters hold."""
        return sum(member.size for member in self.members)

    def chosen(self, part: Part) -> tuple[Parameter, ...]:
        """The parameters that a row of the plan with this `part` trains."""
        return tuple(member for member in self.members if _CHOOSE[part](member))


Modality = Literal["text", "image"]
HeadKind = Literal["linear", "replaced", "new", "kept", "none"]
"""What the head is at the start: "linear" in its last layer, which can be solved for; a trained one, of which some layers are
"replaced" by new ones; all "new"; "kept": the one that the files bring, which goes on as it is; or "none", where what the
backbone gives is all that is wanted."""
NEW_HEADS: Sequence[HeadKind] = ("replaced", "new")
"""Those with weights that nothing was learned with yet."""
UNSOLVED: Sequence[HeadKind] = (*NEW_HEADS, "kept")
"""Those that train by gradient from the first step, if at all."""


@dataclass(frozen=True)
class Model:
    """A network with what prepares its input. `module(**batch)` returns an object with `.logits`."""

    module: nn.Module
    processor: Any
    stages: tuple[Stage, ...]
    blocks: tuple[str, ...]
    """The modules that its blocks are, by full name, in depth order."""
    source: str | UserModel
    """What the user asked for: Hub id, folder, builtin name, or a network of their own."""
    folder: str
    """Where the pre-trained files were found."""
    limit: int
    """Longest input, in tokens."""
    backbone: str
    """The attribute of `module` that holds the pre-trained part; empty where that is `module` itself, head and all."""
    example: Batch
    """A batch that the network takes, as small as may be, to see with how it is made."""
    modality: Modality
    """What it reads."""
    pooling: str
    """How a row becomes one vector: "own" is the way of the model's own class."""
    opens: str
    """transformers' class that opens it once it is saved, such as "AutoModelForSequenceClassification"."""
    taught: str | None = None
    """The pooling that the files name as the one that the weights were taught with."""
    remote_code: bool = False
    """Whether Python code that lies beside the weights may run; it was allowed for all of them or for none."""
    adapter: Adapter | None = None
    """Set while adapters stand beside its weights."""
    head: HeadKind = "linear"
    head_inside: tuple[str, ...] = ()
    """Modules of the head that stand inside the backbone."""
    absent: tuple[str, ...] = ()
    """Parameters of the backbone that the files do not hold, and that are new: a pooler, often."""
    four_bit: bool = False
    """Whether the linear layers of its blocks are kept in 4 bits."""
    resized: bool = False
    """Whether its weights differ from those in its files, as it reads images of another size, or writes where these only
    read."""
    decoder: str = ""
    """The module that writes what it writes, of a network of two halves, of which the other one reads; empty elsewhere."""

    @property
    def start(self) -> str:
        """How the full names of what the backbone holds begin."""
        return f"{self.backbone}." if self.backbone else ""

    @property
    def reading(self) -> tuple[str, ...]:
        """Those of its blocks that see nothing but the input: all but a decoder's."""
        return tuple(name for name in self.blocks if not (self.decoder and name.startswith(f"{self.decoder}.")))

    @property
    def language(self) -> bool:
        """Whether it is a language model, which gives a logit to each token of its vocabulary, wherever it is asked."""
        return self.opens in ("AutoModelForCausalLM", "AutoModelForMaskedLM")


@dataclass(frozen=True)
class Loading:
    """How a method wants the network, before there is a plan."""

    fresh: bool = False
    """New weights throughout: the same network from scratch."""
    four_bit: bool = False
    """The linear layers of its blocks in 4 bits."""
    reserved: int = 0
    """Positions that virtual tokens take from the text."""
    apart: bool = False
    """A matrix of its own for a head that shares one with the embeddings, as language models have it, so that it can train
    alone."""
