"""A segmenter of two blocks and a few images with masks, made on the spot, so that the contract tests can run in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

SIDE = 32


def write_segformer(folder: Path) -> Path:
    """A pre-trained SegFormer of two blocks with random weights, as save_pretrained leaves it."""
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[16, 32],
        num_attention_heads=[1, 2],
        patch_sizes=[3, 3],
        strides=[2, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=32,
        drop_path_rate=0.0,
        architectures=["SegformerForSemanticSegmentation"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_reduce_labels=False).save_pretrained(folder)
    return folder


def write_masks(folder: Path, rows: int = 60, seed: int = 0) -> Path:
    """Noise with a bright box (1) and a dark disc (2) on grey (0), a strip at the edge not labelled; a file names them."""
    draw = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    across, down = np.meshgrid(np.arange(40), np.arange(30))
    for number in range(rows):
        mask = np.zeros((30, 40), dtype=np.uint8)
        left, top = draw.integers(0, 28), draw.integers(0, 18)
        mask[top : top + 10, left : left + 10] = 1
        mask[(across - draw.integers(5, 35)) ** 2 + (down - draw.integers(5, 25)) ** 2 < 30] = 2
        values = np.array([128, 210, 50])[mask] + draw.normal(0, 12, (30, 40))
        mask[:, -2:] = 255
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB").save(
            folder / "images" / f"{number:03}.png"
        )
        Image.fromarray(mask).save(folder / "masks" / f"{number:03}.png")
    (folder / "classes.txt").write_text("grey\nbox\ndisc\n")
    return folder
