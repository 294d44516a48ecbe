"""An image network of two blocks and a few images, made on the spot, so that the contract tests can run in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

SIDE = 16


def write_processor(folder: Path, side: int = SIDE) -> None:
    """An image processor that makes squares of `side` pixels."""
    ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)


def write_vit(folder: Path) -> Path:
    """A pre-trained ViT of two blocks with random weights, as save_pretrained leaves it."""
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIDE, patch_size=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    write_processor(folder)
    return folder


def write_images(folder: Path, rows: int = 120, seed: int = 0) -> Path:
    """Folders of two classes that can be told apart: stripes across, and stripes down, of any colour and width."""
    draw = np.random.default_rng(seed)
    for number in range(rows):
        label = ("across", "down")[number % 2]
        wave = np.sin(np.arange(20) * draw.uniform(0.8, 1.6) + draw.uniform(0, 6))[:, None, None]
        values = 128 + 60 * wave * draw.uniform(0.5, 1, 3) + draw.normal(0, 12, (20, 20, 3))
        values = values if label == "across" else values.swapaxes(0, 1)
        file = folder / label / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(file)
    return folder
