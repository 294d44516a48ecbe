"""Images: a column of paths, or of files' contents (bytes, or the struct of bytes and path that `datasets` writes); from
Python arrays and Pillow's images too.

Every file is read and decoded once here, to know that it can be, what it looks like, and which others look the same. A
table's own bytes are put into files of the cache, so that from here on an image is a path.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from tunesmith.data import lookalikes, picture
from tunesmith.data.cells import Indices, Place, Unusable
from tunesmith.data.rejected import excerpt
from tunesmith.run import path_of, writing

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


class Images:
    """Cells that hold an image."""

    noun = "image"
    least = 1
    most = 1
    names: Sequence[str] = (
        "image", "file", "path", "file_name", "filename", "image_path", "image_file", "img", "img_path", "file_path",
        "filepath", "photo", "picture",
    )  # fmt: skip
    preferred: Sequence[str] = names
    pairs: Sequence[tuple[str, ...]] = ()
    optional = 0
    listed = False
    workers = min(8, os.cpu_count() or 1)
    readers: Mapping[str, str] = {}
    together = 16

    def fields(self, columns: int) -> list[tuple[str, pa.DataType]]:
        return [
            ("input", pa.string()),  # as the source calls it
            ("file", pa.string()),
            ("content", pa.string()),  # a checksum of the file
            ("look", pa.binary(lookalikes.BYTES)),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("mode", pa.string()),
            ("moves", pa.bool_()),  # whether there are frames or pages after the first
            ("turned", pa.bool_()),  # whether its EXIF had it turned or mirrored
        ]

    def read(self, cells: Sequence[Any], row: str, place: Place) -> tuple[Any, ...] | Unusable:
        cell = cells[0]
        try:
            name, content = _taken_apart(cell)
        except picture.NotAnImage as error:
            return Unusable(0, str(error))
        if content is None and not name:
            return Unusable(
                0, "no image" if cell is None or cell == "" else "neither a path nor an image", excerpt(cell)
            )
        shown = name or row
        try:
            file = place.folder / path_of(name)
            if content is None:
                content = _content(file)
            elif not content:
                raise picture.NotAnImage("empty file")
            else:
                file = _kept(content, row, place)
            image = picture.read(content)
            moves, turned = picture.moves(content), picture.turned(content)
            look = lookalikes.look(image)
        except picture.NotAnImage as error:
            return Unusable(0, str(error), excerpt(shown))
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return shown, str(file), digest, look, *image.size, image.mode, moves, turned

    def clusters(self, tables: list[pa.Table], threshold: float) -> tuple[Indices, Indices]:
        return lookalikes.clusters(tables, threshold)

    def shared(self, rows: pa.Table) -> Indices | None:
        return None

    def described(self, tables: dict[str, pa.Table]) -> tuple[dict[str, Any], list[str]]:
        found = {name: _sizes(rows) for name, rows in tables.items()}
        deep = sum(count for one in found.values() for mode, count in one["modes"].items() if mode in picture.DEEP)
        warning = (
            f"{deep:,} image{'' if deep == 1 else 's'} with more than 8 bits a channel: scaled to 8 here, but clipped by "
            "transformers' own pipeline; convert such files before you use the model there."
        )
        moving = sum(one["moving"] for one in found.values())
        are = "image has" if moving == 1 else "images have"
        several = f"{moving:,} {are} several frames or pages, of which the first is read."
        turned = sum(one["turned"] for one in found.values())
        seen = (
            f"{turned:,} image{' is' if turned == 1 else 's are'} turned as EXIF says; masks and boxes, where there are any, "
            "are taken to lie on what is seen then."
        )
        told = ((warning, deep), (several, moving), (seen, turned))
        return {"images": found}, [sentence for sentence, count in told if count]

    def expanded(self, inputs: Sequence[str]) -> list[str]:
        """Folders become the images in them."""
        found: list[str] = []
        for one in inputs:
            folder = path_of(one)
            found += [str(file) for file in files_in(folder)] if folder.is_dir() else [one]
        return found

    def named(self, row: str, shown: str) -> str:
        return shown


IMAGES = Images()


def files_in(folder: Path) -> list[Path]:
    """The image files in `folder` and the folders in it, hidden ones left out, sorted."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in picture.SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def _taken_apart(cell: Any) -> tuple[str, bytes | None]:
    """Name and content of a cell; the content is None where only a path is given.

    Raises:
        NotAnImage: an array that is no image.
    """
    if isinstance(cell, np.ndarray | Image.Image):
        return "", _as_file(cell)
    if isinstance(cell, os.PathLike):
        return os.fspath(cell), None
    if isinstance(cell, dict) and cell.keys() <= {"bytes", "path"}:
        name, content = cell.get("path") or "", cell.get("bytes")
        readable = isinstance(name, str) and isinstance(content, bytes | None)
        return (name, content) if readable else ("", None)
    if isinstance(cell, bytes):
        return "", cell
    return (cell.strip(), None) if isinstance(cell, str) else ("", None)


def _as_file(cell: Any) -> bytes:
    """The PNG of an image, or of an array (height, width) or (height, width, 1, 3 or 4) of bytes."""
    if isinstance(cell, np.ndarray):
        whole = cell[..., 0] if cell.ndim == 3 and cell.shape[2] == 1 else cell
        if cell.dtype != np.uint8 or not cell.size or not (whole.ndim == 2 or whole.shape[2:] in ((3,), (4,))):
            shown = f"array of shape {cell.shape} and type {cell.dtype}"
            raise picture.NotAnImage(f"{shown}, where (height, width) or (height, width, 3) of uint8 would be an image")
        cell = Image.fromarray(np.ascontiguousarray(whole))
    content = BytesIO()
    try:
        image = ImageOps.exif_transpose(cell)
        if image.mode in picture.DEEP:
            image = picture.converted(image, 1)
        (image if image.mode in PNG_MODES else image.convert("RGB")).save(content, "PNG")
    except (ValueError, OSError, SystemError) as error:  # no pixels, or a mode that nothing is known of
        raise picture.NotAnImage(f"image that cannot be read ({error})") from None
    return content.getvalue()


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise picture.NotAnImage("no such file") from None
    except (OSError, ValueError) as error:  # a folder, no permission, a NUL in the path
        raise picture.NotAnImage(f"file that cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not content:
        raise picture.NotAnImage("empty file")
    return content


def _kept(content: bytes, row: str, place: Place) -> Path:
    file = place.kept / row.replace(":", "-")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return file


def _sizes(rows: pa.Table) -> dict[str, Any]:
    """Width and height as least, median and greatest; how many images are of which mode, and how many are more than one."""
    found: dict[str, Any] = {
        "modes": dict(Counter(rows.column("mode").to_pylist()).most_common()),
        "moving": rows.column("moves").to_pylist().count(True),
        "turned": rows.column("turned").to_pylist().count(True),
    }
    for side in ("width", "height"):
        values = np.quantile(rows.column(side).to_numpy(), [0, 0.5, 1])
        found[side] = dict(zip(("min", "median", "max"), map(float, values), strict=True))
    return found
