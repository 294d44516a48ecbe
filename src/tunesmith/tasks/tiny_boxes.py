"""A backbone of two blocks and a few images with boxes, made on the spot, so that the contract tests can run in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

SIDE = 64
NAMES = ("bright", "dark")


def write_backbone(folder: Path) -> Path:
    """A Swin of two stages with random weights, as save_pretrained leaves it."""
    config = transformers.SwinConfig(
        image_size=SIDE,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[1, 2],
        window_size=4,
        drop_path_rate=0.0,
        hidden_dropout_prob=0.0,
        architectures=["SwinModel"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.SwinModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def write_boxes(folder: Path, rows: int = 60, seed: int = 0) -> Path:
    """Noise with bright and dark boxes on grey, as a COCO file beside a folder of images."""
    draw = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number in range(rows):
        values = np.full((SIDE, SIDE), 128.0)
        for _ in range(int(draw.integers(1, 4))):
            kind = int(draw.integers(2))
            left, top, width, height = (int(side) for side in (*draw.integers(0, 44, 2), *draw.integers(12, 20, 2)))
            values[top : top + height, left : left + width] = (220, 40)[kind]
            entry = {"image_id": number, "category_id": kind, "bbox": [left, top, width, height], "iscrowd": 0}
            found.append({"id": len(found), "area": width * height, **entry})
        values += draw.normal(0, 12, values.shape)
        name = f"images/{number:03}.png"
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB").save(folder / name)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
    whole = {"images": images, "annotations": found, "categories": [{"id": i, "name": n} for i, n in enumerate(NAMES)]}
    file = folder / "train.json"
    file.write_text(json.dumps(whole))
    return file
