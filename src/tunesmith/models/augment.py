"""Images varied at random: all geometry in one warp, then colour, blur and erasing; every image draws for itself.

What becomes of an image depends on a generator of its own alone, not on its neighbours in the batch, so that a resumed run
sees the images that it would have seen. Images are (images, channels, height, width) from 0 to 1.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from tunesmith.demand import OnDemand
from tunesmith.errors import SettingsError
from tunesmith.settings import Strict

transform: Any = OnDemand("kornia.geometry.transform")
enhance: Any = OnDemand("kornia.enhance")
filters: Any = OnDemand("kornia.filters")

Share = Annotated[float, Field(ge=0, le=1)]
Matrix = npt.NDArray[np.float64]
"""(3, 3), homogeneous: where a point of the image, in pixels, x before y, comes to lie."""
Outside = Literal["reflection", "zeros"]
LARGEST = 30.0
"""Of RandAugment's scale of magnitudes."""
ASPECT = 4 / 3
"""Crops are at most this much wider or narrower than the image."""
COLOURS = ("brightness", "contrast", "saturation", "sharpness", "posterize", "solarize", "equalize")
MOVES = ("shear x", "shear y", "shift x", "shift y", "turn")


class Augment(Strict):
    """How training images are varied. All off; only what keeps every label true should be on."""

    flip: bool = False
    """Mirror half of the images left to right: where left and right mean nothing."""
    flip_vertical: bool = False
    """Mirror half of them upside down."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Turn by up to so many degrees."""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The least share of the image's area that is cut out and enlarged to its size (Szegedy et al. 2015, section 6)."""
    colour: Share = 0.0
    """Strength by which brightness, contrast and saturation change."""
    blur: Share = 0.0
    """Share of the images that are blurred."""
    erase: Share = 0.0
    """Share of the images of which a box is blanked (Zhong et al. 2020)."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Operations drawn from a table: `operations` of one `magnitude` (Cubuk et al. 2020), or one of any (Müller & Hutter
    2021)."""
    operations: Annotated[int, Field(ge=1, le=10)] = 2
    """Of RandAugment, an image."""
    magnitude: Annotated[float, Field(ge=0, le=LARGEST)] = 9.0
    """Of RandAugment, up to 30."""
    views: Annotated[int, Field(ge=2)] | None = None
    """Fixed variants of each image, the first as it is, so that activations of frozen stages can be kept; a new one each
    epoch where it is not set."""

    @property
    def changes(self) -> bool:
        """Whether anything is on."""
        return self.model_copy(update={"views": None}) != Augment()


SETS = {
    "none": Augment(),
    "light": Augment(crop=0.7, rotate=5, colour=0.15),
    "strong": Augment(crop=0.4, rotate=15, colour=0.3, blur=0.1, erase=0.25, policy="trivialaugment"),
}
"""By name. None mirrors: whether left and right mean anything only the user knows."""


def described(how: Augment) -> str:
    """What is on, as people say it."""
    parts = [
        ("mirrored left to right", how.flip),
        ("mirrored upside down", how.flip_vertical),
        (f"turned by up to {how.rotate:g} degrees", how.rotate),
        (f"cropped to {100 * how.crop:g} % of their area or more", how.crop < 1),
        (f"changed in brightness and colour by up to {90 * how.colour:g} %", how.colour),
        ("blurred, some of them", how.blur),
        ("blanked in part, some of them", how.erase),
        ({"randaugment": "RandAugment", "trivialaugment": "TrivialAugment"}.get(how.policy, ""), how.policy != "none"),
    ]
    return ", ".join(text for text, on in parts if on)


def insist_installed() -> None:
    """Insist that the library behind the operations is there.

    Raises:
        SettingsError: it is not.
    """
    if importlib.util.find_spec("kornia") is None:
        raise SettingsError(
            "task.augment needs kornia, which is not installed.", 'Install it: pip install "tunesmith[vision]"'
        )


@dataclass
class Drawn:
    """What one image will go through."""

    matrix: Matrix = field(default_factory=lambda: np.eye(3))
    colours: list[tuple[str, float]] = field(default_factory=list)
    """Operation and its strength, from 0 to 1 or, where both directions make sense, from -1 to 1."""
    blur: float = 0.0
    """Standard deviation in pixels."""
    erased: tuple[int, int, int, int] | None = None
    """left, top, right, bottom."""


def draw(wanted: Augment, height: int, width: int, channels: int, random: np.random.Generator) -> Drawn:
    """What one image of this size will go through."""
    found = Drawn()
    if wanted.crop < 1:
        found.matrix = _crop(wanted.crop, height, width, random) @ found.matrix
    if wanted.flip and random.random() < 0.5:
        found.matrix = _about_middle(np.diag([-1.0, 1.0, 1.0]), height, width) @ found.matrix
    if wanted.flip_vertical and random.random() < 0.5:
        found.matrix = _about_middle(np.diag([1.0, -1.0, 1.0]), height, width) @ found.matrix
    if wanted.rotate:
        angle = random.uniform(-wanted.rotate, wanted.rotate)
        found.matrix = _about_middle(_turn(angle), height, width) @ found.matrix
    if wanted.colour:
        kinds = COLOURS[:3] if channels == 3 else COLOURS[:2]
        found.colours += [(kind, float(random.uniform(-wanted.colour, wanted.colour))) for kind in kinds]
    if wanted.policy != "none":
        _policy(wanted, found, height, width, channels, random)
    if wanted.blur and random.random() < wanted.blur:
        found.blur = float(random.uniform(0.1, 2.0))
    if wanted.erase and random.random() < wanted.erase:
        found.erased = _box(height, width, random)
    return found


def _policy(wanted: Augment, found: Drawn, height: int, width: int, channels: int, random: np.random.Generator) -> None:
    """Add the operations of the table."""
    known = [*MOVES, *(kind for kind in COLOURS if channels == 3 or kind != "saturation")]
    trivial = wanted.policy == "trivialaugment"
    for _ in range(1 if trivial else wanted.operations):
        kind = known[random.integers(len(known))]
        size = random.random() if trivial else wanted.magnitude / LARGEST
        strength = float(size * random.choice((-1.0, 1.0)))
        if kind in MOVES:
            found.matrix = _about_middle(_move(kind, strength, height, width), height, width) @ found.matrix
        else:
            found.colours.append((kind, strength))


def apply(images: torch.Tensor, drawn: Sequence[Drawn], outside: Outside = "reflection") -> torch.Tensor:
    """`images` as they were drawn, (images, channels, height, width) from 0 to 1; for `outside` see `warp`."""
    found = warp(images, [one.matrix for one in drawn], outside=outside)
    for turn in range(max((len(one.colours) for one in drawn), default=0)):
        for kind in COLOURS:
            rows = [row for row, one in enumerate(drawn) if len(one.colours) > turn and one.colours[turn][0] == kind]
            if rows:
                strengths = torch.tensor([drawn[row].colours[turn][1] for row in rows], dtype=images.dtype)
                found[rows] = _OPERATIONS[kind](found[rows], strengths).clamp(0, 1)
    blurred = [row for row, one in enumerate(drawn) if one.blur]
    if blurred:
        sigma = torch.tensor([[drawn[row].blur] * 2 for row in blurred], dtype=images.dtype)
        side = min(13, 2 * ((min(images.shape[2:]) - 1) // 2) + 1)
        found[blurred] = filters.gaussian_blur2d(found[blurred], (side, side), sigma)
    for row, one in enumerate(drawn):
        if one.erased is not None:
            left, top, right, bottom = one.erased
            found[row, :, top:bottom, left:right] = images[row].mean(dim=(1, 2))[:, None, None]
    return found


def warp(
    images: torch.Tensor, matrices: Sequence[Matrix], *, nearest: bool = False, outside: Outside = "reflection"
) -> torch.Tensor:
    """Every image moved by its matrix.

    Args:
        images: (images, channels, height, width).
        nearest: for masks, whose values are names and have no middle.
        outside: what comes from there: a mirror image of what is inside, or black, as a mirrored thing would have no box.
    """
    rows = [row for row, matrix in enumerate(matrices) if not np.array_equal(matrix, np.eye(3))]
    found = images.clone()
    if rows:
        moved = torch.tensor(np.stack([matrices[row][:2] for row in rows]), dtype=images.dtype)
        size = (int(images.shape[2]), int(images.shape[3]))
        mode = "nearest" if nearest else "bilinear"
        found[rows] = transform.warp_affine(images[rows], moved, size, mode=mode, padding_mode=outside)
    return found


def moved(corners: Matrix, matrix: Matrix) -> Matrix:
    """(n, 4): the boxes that hold what the boxes `corners`, (n, 4) in pixels from the image's edge, become.

    Args:
        matrix: of `Drawn`, between middles of pixels.
    """
    ends = corners[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2) - 0.5
    points = np.concatenate([ends, np.ones((len(corners), 4, 1))], axis=2) @ matrix.T
    places = points[..., :2] / points[..., 2:] + 0.5
    return np.concatenate([places.min(axis=1), places.max(axis=1)], axis=1)


def _crop(least: float, height: int, width: int, random: np.random.Generator) -> Matrix:
    """A box of at least this share of the area, enlarged to the whole image."""
    area = random.uniform(least, 1.0)
    widest = min(math.log(ASPECT), -math.log(area))  # so that the box fits, and has its whole area
    aspect = math.exp(random.uniform(-widest, widest))
    across, up = math.sqrt(area * aspect), math.sqrt(area / aspect)
    left, top = random.uniform(0, 1 - across) * (width - 1), random.uniform(0, 1 - up) * (height - 1)
    return np.array([[1 / across, 0, -left / across], [0, 1 / up, -top / up], [0, 0, 1]])


def _turn(degrees: float) -> Matrix:
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])


def _move(kind: str, strength: float, height: int, width: int) -> Matrix:
    """Shear by up to 0.3, shift by up to 0.45 of the size, turn by up to 30 degrees: RandAugment's ranges."""
    if kind == "turn":
        return _turn(30 * strength)
    found = np.eye(3)
    place, size = {
        "shear x": ((0, 1), 0.3), "shear y": ((1, 0), 0.3), "shift x": ((0, 2), 0.45 * width),
        "shift y": ((1, 2), 0.45 * height),
    }[kind]  # fmt: skip
    found[place] = size * strength
    return found


def _about_middle(matrix: Matrix, height: int, width: int) -> Matrix:
    """`matrix`, with the middle of the image where it was."""
    to, back = np.eye(3), np.eye(3)
    middle = ((width - 1) / 2, (height - 1) / 2)
    to[:2, 2], back[:2, 2] = (-middle[0], -middle[1]), middle
    return np.asarray(back @ matrix @ to)


def _box(height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Up to a fifth of the area."""
    area, aspect = random.uniform(0.02, 0.2), math.exp(random.uniform(-1, 1))
    across = min(width, max(1, round(width * math.sqrt(area * aspect))))
    up = min(height, max(1, round(height * math.sqrt(area / aspect))))
    left, top = int(random.integers(width - across + 1)), int(random.integers(height - up + 1))
    return left, top, left + across, top + up


def _brightness(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return enhance.adjust_brightness_accumulative(images, 1 + 0.9 * strength)  # type: ignore[no-any-return]


def _contrast(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return enhance.adjust_contrast_with_mean_subtraction(images, 1 + 0.9 * strength)  # type: ignore[no-any-return]


def _saturation(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return enhance.adjust_saturation_with_gray_subtraction(images, 1 + 0.9 * strength)  # type: ignore[no-any-return]


def _sharpness(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return enhance.sharpness(images, 1 + 0.9 * strength)  # type: ignore[no-any-return]


def _posterize(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return enhance.posterize(images, (8 - 4 * strength.abs()).round().int())  # type: ignore[no-any-return]


def _solarize(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return enhance.solarize(images, 1 - strength.abs())  # type: ignore[no-any-return]


def _equalize(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return enhance.equalize(images)  # type: ignore[no-any-return]


_OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "equalize": _equalize,
}
