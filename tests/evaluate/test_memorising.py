"""When the curve shows learning by heart, and when it only shows too much confidence."""

from __future__ import annotations

import pytest

from tunesmith.evaluate.memorising import memorising


def curve(*epochs: tuple[float, float, float]) -> list[dict[str, float]]:
    names = ("train_loss", "validation_loss", "metric")
    return [{"epoch": number, **dict(zip(names, epoch, strict=True))} for number, epoch in enumerate(epochs, 1)]


def test_a_rising_validation_loss_without_better_answers_is_memorising() -> None:
    found = memorising(curve((0.6, 0.50, 0.80), (0.3, 0.45, 0.84), (0.1, 0.60, 0.83)), 2)
    assert found is not None
    assert "after epoch 2" in found
    assert "The weights of epoch 2 were kept." in found
    assert "from 0.450 to 0.600" in found


@pytest.mark.parametrize(
    "epochs",
    [
        [],
        [(0.6, 0.5, 0.8)],
        [(0.6, 0.50, 0.80), (0.3, 0.45, 0.84), (0.1, 0.44, 0.85)],  # still falling
        [(0.6, 0.50, 0.80), (0.3, 0.45, 0.84), (0.1, 0.47, 0.84)],  # noise
        [(0.6, 0.50, 0.80), (0.3, 0.45, 0.84), (0.1, 0.60, 0.86)],  # too sure, and right more often
        [(0.6, 0.50, 0.80), (0.3, 0.45, 0.84), (0.4, 0.60, 0.83)],  # diverging: the training loss rises as well
    ],
)
def test_other_curves_are_not(epochs: list[tuple[float, float, float]]) -> None:
    assert memorising(curve(*epochs), 1) is None
