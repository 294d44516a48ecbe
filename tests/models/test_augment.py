"""Varied images: each by itself, the same whenever it is asked for, and moved to where its matrix says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith.data.pixels import Pixels
from tunesmith.models import augment
from tunesmith.models.augment import SETS, Augment, Drawn, apply, draw, warp
from tunesmith.models.varied import varied

EVERYTHING = Augment(flip=True, flip_vertical=True, rotate=30, crop=0.5, colour=0.5, blur=0.5, erase=0.5,
                     policy="randaugment", operations=3)  # fmt: skip


def images(count: int, channels: int = 3, side: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.rand((count, channels, side, side), generator=torch.Generator().manual_seed(seed))


def pixels(count: int, channels: int = 3, kind: Any = np.uint8) -> Pixels:
    values = (images(count, channels).numpy() * 255).astype(kind)
    scale, shift = np.full(channels, 1 / 64, np.float32), np.full(channels, -2.0, np.float32)
    return Pixels(values, scale, shift, np.arange(count) % 2, "key")


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_depends_on_seed_view_and_image_alone(channels: int, kind: Any) -> None:
    seen = varied(pixels(6, channels, kind), EVERYTHING, 4, seed=7)
    assert len(seen) == 24
    together = seen.batch(np.arange(24))
    for index in (23, 6, 13, 0):
        # Up to the order of sums, which goes by how many images a filter is given at once.
        assert seen.batch(np.array([index]))[0] == pytest.approx(together[index], abs=1e-4)
    assert not np.array_equal(together[6], together[12])
    other = varied(pixels(6, channels, kind), EVERYTHING, 4, seed=8).batch(np.arange(24))
    assert not np.array_equal(other[6:], together[6:])


def test_the_first_view_is_the_image_as_it_is() -> None:
    plain = pixels(5)
    assert np.array_equal(varied(plain, EVERYTHING, 3, 0).batch(np.arange(5)), plain.batch(np.arange(5)))


def test_views_belong_to_their_rows() -> None:
    plain = pixels(5)
    seen = varied(plain, EVERYTHING, 3, 0)
    assert seen.rows == 5
    assert seen.owner.tolist() == [0, 1, 2, 3, 4] * 3
    assert seen.count(np.arange(10)) == 10
    assert seen.key not in (plain.key, varied(plain, EVERYTHING, 4, 0).key, varied(plain, SETS["light"], 3, 0).key)


def test_nothing_that_is_off_changes_anything() -> None:
    before = images(4)
    drawn = [draw(Augment(), 24, 24, 3, np.random.default_rng(row)) for row in range(4)]
    assert torch.equal(apply(before, drawn), before)
    assert not Augment(views=3).changes
    assert Augment(flip=True).changes


def test_mirrors_are_exact() -> None:
    before = images(3, side=15)
    across = augment._about_middle(np.diag([-1.0, 1.0, 1.0]), 15, 15)
    assert torch.allclose(warp(before, [across] * 3), before.flip(3), atol=1e-5)
    upside = augment._about_middle(np.diag([1.0, -1.0, 1.0]), 15, 15)
    assert torch.allclose(warp(before, [upside] * 3), before.flip(2), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), x=st.integers(8, 55), y=st.integers(8, 39))
def test_what_stands_somewhere_comes_to_lie_where_the_matrix_says(seed: int, x: int, y: int) -> None:
    wanted = Augment(flip=True, flip_vertical=True, rotate=40, crop=0.4, policy="trivialaugment")
    matrix = draw(wanted, 48, 64, 3, np.random.default_rng(seed)).matrix
    image = torch.zeros((1, 1, 48, 64))
    image[0, 0, y - 1 : y + 2, x - 1 : x + 2] = 1.0
    goal = (matrix @ [x, y, 1.0])[:2]
    if not (4 <= goal[0] <= 59 and 4 <= goal[1] <= 43):
        return  # it left the image, or lies so near its edge that its mirror image does too
    found = warp(image, [matrix])[0, 0]
    ys, xs = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    near = (xs - goal[0]).square() + (ys - goal[1]).square() < 12**2
    weight = found * near
    assert float((weight * xs).sum() / weight.sum()) == pytest.approx(goal[0], abs=1.0)
    assert float((weight * ys).sum() / weight.sum()) == pytest.approx(goal[1], abs=1.0)


def test_masks_keep_their_names() -> None:
    mask = torch.randint(0, 5, (2, 1, 20, 30)).float()
    matrices = [draw(EVERYTHING, 20, 30, 1, np.random.default_rng(row)).matrix for row in range(2)]
    assert set(warp(mask, matrices, nearest=True).unique().tolist()) <= set(range(5))


@pytest.mark.parametrize("kind", augment.COLOURS)
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_within_their_range(kind: str, channels: int) -> None:
    if kind == "saturation" and channels == 1:
        pytest.skip("grey has no saturation")
    before = images(4, channels)
    for strength in (-1.0, 1.0):
        after = apply(before, [Drawn(colours=[(kind, strength)])] * 4)
        assert after.shape == before.shape
        assert 0 <= float(after.min()) <= float(after.max()) <= 1
        assert not torch.equal(after, before)


def test_blanked_boxes_are_no_larger_than_a_fifth() -> None:
    drawn = [draw(Augment(erase=1), 24, 24, 3, np.random.default_rng(row)) for row in range(50)]
    changed = (apply(images(50), drawn) != images(50)).any(dim=1).float().mean(dim=(1, 2))
    assert float(changed.min()) > 0
    assert float(changed.max()) < 0.25


@settings(deadline=None)
@given(seed=st.integers(0, 5000), least=st.floats(0.1, 0.99))
def test_crops_keep_at_least_their_share(seed: int, least: float) -> None:
    matrix = draw(Augment(crop=least), 40, 60, 3, np.random.default_rng(seed)).matrix
    assert 1 / (matrix[0, 0] * matrix[1, 1]) >= least - 1e-9
    corners = np.linalg.inv(matrix) @ np.array([[0, 59, 0, 59], [0, 0, 39, 39], [1, 1, 1, 1]])
    assert (corners[:2] >= -1e-6).all()
    assert (corners[:2] <= np.array([[59], [39]]) + 1e-6).all()


@pytest.mark.parametrize("wrong", [{"crop": 0}, {"rotate": 200}, {"erase": 2}, {"views": 1}, {"policy": "mine"}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Augment(**wrong)
