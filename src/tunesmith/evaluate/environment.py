"""What the figures were measured with: versions, processor, accelerator."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "scipy", "pyarrow")


def environment() -> dict[str, Any]:
    """Name to version or description."""
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    found |= {package: metadata.version(package) for package in PACKAGES}
    found["processor"] = _processor()
    found["threads"] = torch.get_num_threads()
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
