"""Scenes to learn finding on, where no detector is at hand: shapes of six kinds on blurred ground, and COCO's JSON of them.

    python make_scenes.py scenes --count 1500

Writes FOLDER/train.json, validation.json and test.json (a tenth of the scenes each but for train), and FOLDER/images; and,
beside FOLDER, network/, a small ResNet that knows nothing yet, for those who have no backbone.
What a detector learns on them is where things begin and end, however they are coloured, and to say each thing once.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = (320, 240)
SHAPES = ("disc", "ring", "square", "triangle", "star", "cross")
SMALLEST, LARGEST = 12, 110
"""Sides of a shape in pixels; half of all are smaller than their geometric mean."""
MOST = 14
"""Shapes in a scene."""
OVERLAP = 0.3
"""Share of the smaller of two boxes that may be covered, at most."""
FINER = 3
"""Times as many pixels while a shape is drawn, so that its edges are smooth."""


def outline(shape: str, rng: np.random.Generator) -> np.ndarray:
    """Corners of `shape`, (points, 2), about the centre and of radius 1 at most, turned and stretched at random."""
    turn = rng.uniform(0, 2 * math.pi)
    if shape in ("disc", "ring"):
        angle = np.linspace(0, 2 * math.pi, 60, endpoint=False)
        radius = 1 + rng.uniform(0, 0.12) * np.sin(rng.integers(2, 4) * angle + rng.uniform(0, 6))
    elif shape == "star":
        angle = np.linspace(0, 2 * math.pi, 10, endpoint=False)
        radius = np.tile([1.0, rng.uniform(0.35, 0.5)], 5)
    elif shape == "cross":
        arm = rng.uniform(0.2, 0.35)
        quarter = np.array([math.atan2(arm, 1), math.pi / 4, math.atan2(1, arm)])
        angle = np.concatenate([quarter + side * math.pi / 2 for side in range(4)])
        radius = np.tile([math.hypot(1, arm), arm * math.sqrt(2), math.hypot(1, arm)], 4)
    else:
        corners = 3 if shape == "triangle" else 4
        angle, radius = np.linspace(0, 2 * math.pi, corners, endpoint=False), np.ones(corners)
    stretch = np.array([1.0, rng.uniform(0.7, 1.0)])
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (radius / radius.max())[:, None] * stretch
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    turned: np.ndarray = points @ rotation.T
    return turned


def mask_of(shape: str, place: tuple[float, float], side: float, rng: np.random.Generator) -> Image.Image:
    """Where the shape covers the scene: 0 to 255 a pixel."""
    large = Image.new("L", (SIZE[0] * FINER, SIZE[1] * FINER), 0)
    points = (outline(shape, rng) * side / 2 + place) * FINER
    draw = ImageDraw.Draw(large)
    draw.polygon([tuple(point) for point in points.tolist()], fill=255)
    if shape == "ring":
        middle = np.array(place) * FINER
        inner = (points - middle) * rng.uniform(0.4, 0.7) + middle
        draw.polygon([tuple(point) for point in inner.tolist()], fill=0)
    return large.resize(SIZE, Image.Resampling.BOX)


def texture(rng: np.random.Generator, *, blur: float) -> Image.Image:
    """A picture of two colours that run into each other, with some grain."""
    coarse = max(2, int(rng.integers(2, 14)))
    first, second = rng.integers(0, 256, (2, 3))
    share = Image.fromarray(rng.integers(0, 256, (coarse, coarse), dtype=np.uint8)).resize(
        SIZE, Image.Resampling.BICUBIC
    )
    mixed = np.asarray(share, dtype=np.float64)[..., None] / 255 * (first - second) + second
    mixed += rng.normal(0, rng.uniform(0, 14), mixed.shape)
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))


def scene(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[list[int], int]]]:
    """An image, and each thing in it: [left, top, width, height] in pixels, and the index of its shape."""
    image = texture(rng, blur=rng.uniform(0, 2))
    found: list[tuple[list[int], int]] = []
    common = rng.uniform(SMALLEST, LARGEST)  # in some scenes all things are about as large as each other
    alike = rng.random() < 0.4
    for _ in range(int(rng.integers(1, MOST + 1))):
        kind = int(rng.integers(len(SHAPES)))
        side = common * rng.uniform(0.8, 1.2) if alike else math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST)))
        place = (rng.uniform(0, SIZE[0]), rng.uniform(0, SIZE[1]))
        mask = mask_of(SHAPES[kind], place, side, rng)
        ends = mask.point(lambda value: 255 if value > 127 else 0).getbbox()
        if ends is None or min(ends[2] - ends[0], ends[3] - ends[1]) < SMALLEST / 2:
            continue  # nearly all of it lies outside
        box = [ends[0], ends[1], ends[2] - ends[0], ends[3] - ends[1]]
        if any(_covered(box, other) > OVERLAP for other, _ in found):
            continue
        share = rng.uniform(0.55, 1.0)  # of what lies behind, the rest shines through
        solid = np.asarray(mask, dtype=np.float64) * share
        image.paste(texture(rng, blur=rng.uniform(0, 1)), mask=Image.fromarray(solid.astype(np.uint8)))
        if rng.random() < 0.5:
            edge = ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(3)))
            image.paste(tuple(rng.integers(0, 256, 3).tolist()), mask=edge)
        found.append((box, kind))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8))), found


def _covered(one: list[int], other: list[int]) -> float:
    """Share of the smaller box that the larger one covers."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down) / min(one[2] * one[3], other[2] * other[3])


def write(folder: Path, count: int, seed: int = 0) -> None:
    """`count` scenes, of which a tenth each are for validation and test."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    ends = {"train": count - 2 * (count // 10), "validation": count - count // 10, "test": count}
    begin = 0
    for split, end in ends.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(begin, end):
            image, things = scene(np.random.default_rng((seed, number)))
            name = f"{number:05}.jpg"
            image.save(folder / "images" / name, quality=92)
            images.append({"id": number, "file_name": f"images/{name}", "width": SIZE[0], "height": SIZE[1]})
            for box, kind in things:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": kind + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        kinds = [{"id": kind + 1, "name": name} for kind, name in enumerate(SHAPES)]
        told = {"images": images, "annotations": annotations, "categories": kinds}
        (folder / f"{split}.json").write_text(json.dumps(told), encoding="utf-8")
        begin = end


def write_network(folder: Path) -> None:
    """A small ResNet of random weights, and how it reads images."""
    import transformers  # noqa: PLC0415 - scenes can be had without it

    config = transformers.ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1], layer_type="basic"
    )
    transformers.ResNetModel(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--count", type=int, default=1500)
    given = options.parse_args()
    if given.count < 10:
        options.error("--count must be 10 or more, so that validation and test have scenes too")
    write(given.folder, given.count)
    write_network(given.folder.parent / "network")
    print(f"{given.count:,} scenes lie in {given.folder}.")
