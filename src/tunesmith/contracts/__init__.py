"""What the floors say to each other: the Protocols Task and Method, and the small values that cross between them.

`train` receives a Task and a Plan as values and knows no task or method by name.
"""

from tunesmith.contracts.network import NEW_HEADS, UNSOLVED, HeadKind, Loading, Modality, Model, Parameter, Stage
from tunesmith.contracts.planning import Facts, Method, Packing, Variation
from tunesmith.contracts.task import Objective, Scoring, Task
from tunesmith.contracts.values import Array, Batch, Batched, Collate, Examples, Features, Head, Indices, Loss, Solved

__all__ = [
    "NEW_HEADS",
    "UNSOLVED",
    "Array",
    "Batch",
    "Batched",
    "Collate",
    "Examples",
    "Facts",
    "Features",
    "Head",
    "HeadKind",
    "Indices",
    "Loading",
    "Loss",
    "Method",
    "Modality",
    "Model",
    "Objective",
    "Packing",
    "Parameter",
    "Scoring",
    "Solved",
    "Stage",
    "Task",
    "Variation",
]
