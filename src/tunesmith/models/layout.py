"""How weights and images of image networks lie in memory."""

from __future__ import annotations

import torch

LAYOUT = torch.channels_last
"""On processors with bf16 convolutions take half the time so (docs/benchmarks.md); elsewhere it costs nothing."""
