"""Pascal VOC's XML: one file an image, with the name, the corners and the difficulty of each object in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

SIDES = ("xmin", "ymin", "xmax", "ymax")
Object = dict[str, Any]


class Annotated(NamedTuple):
    """What the file says of one image."""

    file_name: str
    """Of the image, as it is written there; may be empty, or name nothing."""
    objects: list[Object]
    size: tuple[int, int] | None
    """Width and height of the image, where they are there."""


class NotAnnotated(Exception):
    """The file cannot be read; the message is the reason, for people."""


def read(file: Path) -> Annotated:
    """The objects in a file.

    Raises:
        NotAnnotated: it is no XML, no annotation, declares entities, or an object lacks its name or a corner.
    """
    root = _root(file)
    if root.tag != "annotation":
        raise NotAnnotated(f"XML of <{root.tag}>, where <annotation> is expected")
    sides = [(root.findtext(f"size/{name}") or "").strip() for name in ("width", "height")]
    size = (int(sides[0]), int(sides[1])) if all(side.isdecimal() and int(side) for side in sides) else None
    return Annotated((root.findtext("filename") or "").strip(), [_object(one) for one in root.findall("object")], size)


def _root(file: Path) -> ElementTree.Element:
    try:
        content = file.read_bytes()
        guard = expat.ParserCreate()
        guard.EntityDeclHandler = _refuse
        guard.Parse(content, True)
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, expat.ExpatError, ValueError, LookupError) as error:
        raise NotAnnotated(f"broken XML ({str(error).partition(':')[0]})") from None
    except OSError as error:
        raise NotAnnotated(f"file that cannot be read ({error.strerror or error})") from None


def _refuse(*declaration: Any) -> None:
    """A few entities that hold one another grow to gigabytes, and others read files; annotations need none."""
    raise NotAnnotated("XML that declares entities")


def _object(one: ElementTree.Element) -> Object:
    name = (one.findtext("name") or "").strip()
    if not name:
        raise NotAnnotated("object without a name")
    box = one.find("bndbox")
    sides = {side: (box.findtext(side) or "").strip() for side in SIDES} if box is not None else {}
    if not all(sides.get(side) for side in SIDES):
        raise NotAnnotated("object without a bndbox of xmin, ymin, xmax and ymax")
    return {**sides, "label": name, "difficult": (one.findtext("difficult") or "").strip() == "1"}
