"""Image files to pixels by a model's own image processor: every file decoded, resized and cropped once, and kept as bytes
where there is room.

What a processor does to the values after resizing (rescale, normalise) is, a channel, one factor and one summand. They are
found by trying, and applied a batch at a time, so that a quarter of the memory holds the same numbers. Where trying shows
something else, the processor's own numbers are kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tunesmith.data import picture, segments
from tunesmith.data.parallel import ordered
from tunesmith.data.pixels import Pixels
from tunesmith.data.segments import Segments
from tunesmith.errors import DataError, ModelError
from tunesmith.run import has_room, reserve, writing

TRIED_SIDE = 300
"""Pixels of the images that a processor is tried on."""
AT_ONCE = 64
"""Images that are kept in memory where nothing else keeps them, at most."""
SAME = 1e-4
"""By which values scaled here may differ from the processor's own; both compute in fp32."""
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Reading:
    """How a processor reads, as trying showed."""

    processor: Any
    channels: int
    shape: tuple[int, ...]
    """(channels, height, width) of what comes out."""
    scale: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    raw: bool
    """Whether bytes are kept, to be scaled later."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is kept."""
        return np.dtype(np.uint8 if self.raw else np.float32)

    @property
    def key(self) -> str:
        """A checksum over all that changes what comes out."""
        described = f"{self.processor.to_json_string()}/{self.channels}/{self.raw}"
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def values(self, image: Any) -> Values:
        """(channels, height, width) of an image, as they are kept.

        Raises:
            ModelError: the processor gives images of different shapes.
        """
        found = _processed(self.processor, picture.converted(image, self.channels), self.raw)
        if found.shape != self.shape:
            raise ModelError(
                f"The model's image processor ({type(self.processor).__name__}) makes images of different sizes: "
                f"{_size(self.shape)} and {_size(found.shape)}.",
                "Set do_center_crop in its preprocessor_config.json, or a size with height and width.",
            )
        return found


def find_reading(processor: Any, channels: int) -> Reading:
    """Try `processor` on plain and on random images.

    Args:
        channels: that the network reads.

    Raises:
        ModelError: the network reads neither grey nor colour images.
    """
    if channels not in picture.CHANNELS:
        raise ModelError(f"The model reads images of {channels} channels.", "Grey (1) and colour (3) can be read.")
    own = partial(_processed, processor, raw=False)
    black, white = (own(_plain(level, channels)) for level in (0, 255))
    scale = ((white - black) / 255).mean(axis=(1, 2)).astype(np.float32)
    shift = black.mean(axis=(1, 2)).astype(np.float32)
    random = np.random.default_rng(0).integers(0, 256, (TRIED_SIDE, TRIED_SIDE, 3), dtype=np.uint8)
    noise = picture.converted(Image.fromarray(random), channels)
    kept, wanted = _processed(processor, noise, raw=True), own(noise)
    again = kept * scale[:, None, None] + shift[:, None, None]
    if kept.dtype == np.uint8 and kept.shape == wanted.shape and np.abs(again - wanted).max() < SAME:
        return Reading(processor, channels, wanted.shape, scale, shift, True)
    ones = np.ones(channels, dtype=np.float32)
    return Reading(processor, channels, wanted.shape, ones, 0 * ones, False)


class Decoded:
    """(images, channels, height, width), of which those are decoded that an index names: for predictions, which read each
    image once, and for training where the disk has no room for all."""

    def __init__(self, reading: Reading, files: Sequence[str]) -> None:
        self.reading, self.files = reading, files
        self.shape, self.dtype = (len(files), *reading.shape), reading.dtype

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: npt.NDArray[np.int64]) -> Values:
        """Raise DataError where a file has changed or vanished since it was found good."""
        found = np.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        _fill(self.reading, [self.files[place] for place in indices], found)
        return found


def read_files(
    reading: Reading, files: Sequence[str], contents: Sequence[str], targets: Values | None, folder: Path | None
) -> Pixels:
    """Pixels of image files.

    Args:
        contents: a checksum of each file.
        targets: (files, …), handed on.
        folder: where they are kept in a mapped file, which is used again for the same files. Where it is None and they are
            many, or where it has no room for them, files are decoded whenever a batch asks for them.

    Raises:
        DataError: a file has changed or vanished since it was found good.
    """
    digest = hashlib.blake2b("/".join([reading.key, *contents]).encode(), digest_size=16).hexdigest()
    values: Any = Decoded(reading, files)
    kept, size = folder and folder / f"{digest}.pixels", int(np.prod(values.shape)) * reading.dtype.itemsize
    if kept and files and (kept.exists() or has_room(kept, size)):
        values = _mapped(kept, values.shape, reading.dtype, partial(_fill, reading, files))
    elif folder is None and len(files) <= AT_ONCE:  # together by several threads, though a batch may hold one alone
        values = values[np.arange(len(files))]
    return Pixels(values, reading.scale, reading.shift, targets, digest)


def with_masks(
    pixels: Pixels, masks: Sequence[bytes] | None, sizes: npt.NDArray[np.int64], folder: Path | None
) -> Segments:
    """`pixels` with their masks, at the size of the former.

    Args:
        masks: as PNGs of class indices; None where nothing is known.
        sizes: (images, 2) height and width of each image as it was drawn.
        folder: where masks are kept in a mapped file; in memory where it is None or has no room.
    """
    known = (pixels.values, pixels.scale, pixels.shift, None)
    if masks is None:
        return Segments(*known, pixels.key, None, None, sizes)
    key, shape = segments.key_of(pixels, masks), (len(masks), *pixels.values.shape[2:])
    resize = partial(segments.resize, masks)
    kept = folder and folder / f"{key}.masks"
    if kept and not kept.exists() and not has_room(kept, int(np.prod(shape))):
        kept = None
    resized = _filled(kept, shape, np.dtype(np.uint8), resize)
    return Segments(*known, key, masks, resized, sizes)


def _filled(file: Path | None, shape: tuple[int, ...], kind: np.dtype[Any], fill: Callable[[Values], None]) -> Values:
    """An array that `fill` has filled: in the mapped `file`, or in memory where there is none or nothing to keep."""
    if file is not None and shape[0]:
        return _mapped(file, shape, kind, fill)
    values = np.empty(shape, dtype=kind)
    fill(values)
    return values


def _mapped(file: Path, shape: tuple[int, ...], kind: np.dtype[Any], fill: Callable[[Values], None]) -> Values:
    if not file.exists():
        part = file.with_suffix(".part")
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            reserve(part, int(np.prod(shape)) * kind.itemsize)
            values = np.memmap(part, dtype=kind, mode="r+", shape=shape)
        fill(values)
        with writing(file):
            values.flush()
            part.rename(file)
    return np.memmap(file, dtype=kind, mode="r", shape=shape)


def _fill(reading: Reading, files: Sequence[str], values: Values) -> None:
    """Put the pixels of `files` into `values`, by several threads."""

    def one(file: str) -> Values:
        try:
            return reading.values(picture.read(Path(file)))
        except picture.NotAnImage as error:
            raise DataError(f"The image {file} was good when the data were read, and is not now: {error}.") from None

    for place, found in enumerate(ordered(one, files, os.cpu_count() or 1)):
        values[place] = found


def _processed(processor: Any, image: Any, raw: bool) -> Values:
    """(channels, height, width): what the processor makes of `image`; before it touches the values where `raw`."""
    untouched = {"do_rescale": False, "do_normalize": False} if raw else {}
    found = processor(images=[image], return_tensors="np", **untouched)["pixel_values"][0]
    return np.asarray(found)


def _plain(level: int, channels: int) -> Any:
    return Image.new(
        picture.CHANNELS[channels], (TRIED_SIDE, TRIED_SIDE), (level,) * channels if channels > 1 else level
    )


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape[:0:-1]))
