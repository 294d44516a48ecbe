"""What `auto` stands for, by the kind of network."""

from __future__ import annotations

import dataclasses

import pytest

from tunesmith.contracts import Facts, Parameter, Stage
from tunesmith.methods.defaults import choose, new_rate
from tunesmith.methods.full import Full
from tunesmith.methods.lp_ft import LpFt
from tunesmith.methods.partial import bearable
from tunesmith.settings import TrainSettings

IMAGES = Facts(474, 474, 6, 256, False, True, "linear", 256, lambda _: {}, TrainSettings())


def test_convolutions_bear_more_and_get_longer() -> None:
    blocks, convolutions = choose(IMAGES), choose(dataclasses.replace(IMAGES, linear_blocks=False))
    assert (blocks.epochs, convolutions.epochs) == (9, 18)
    assert blocks.learning_rate == pytest.approx(7.5e-5)
    assert convolutions.learning_rate == pytest.approx(3e-4)
    assert any("made of convolutions" in reason for reason in convolutions.reasons)
    assert not any("made of convolutions" in reason for reason in blocks.reasons)


def test_validation_of_convolutions_has_time_to_come_back() -> None:
    """It falls at first at the rate that they bear, which a range test would take for a rate that is too high."""
    blocks, convolutions = choose(IMAGES), choose(dataclasses.replace(IMAGES, linear_blocks=False))
    assert (blocks.patience, convolutions.patience) == (2, 9)
    assert (blocks.tests_rates, convolutions.tests_rates) == (True, False)
    assert any("No range test" in reason for reason in convolutions.reasons)


def test_convolutions_that_do_not_normalise_have_the_usual_rate_and_its_test() -> None:
    plain = choose(dataclasses.replace(IMAGES, linear_blocks=False, normalised=False))
    assert plain == choose(IMAGES)


def test_what_the_head_reads_does_not_slow_convolutions_down() -> None:
    rates = {
        choose(dataclasses.replace(IMAGES, linear_blocks=False, hidden=hidden)).learning_rate for hidden in (64, 1_280)
    }
    assert len(rates) == 1


def test_under_a_head_that_cannot_be_solved_for_they_go_by_the_width() -> None:
    """Its gradients are noise at first, and would tear at what was trained before."""
    found = [
        choose(dataclasses.replace(IMAGES, linear_blocks=linear_blocks, head="new")) for linear_blocks in (True, False)
    ]
    assert found[0].learning_rate == found[1].learning_rate
    assert found[0].epochs == found[1].epochs
    assert bearable(1, 12, dataclasses.replace(IMAGES, linear_blocks=False, head="new")) == 4
    assert (
        new_rate(dataclasses.replace(IMAGES, linear_blocks=False, head="new", head_hidden=128)) > found[1].learning_rate
    )


def test_what_the_user_sets_stays() -> None:
    wanted = TrainSettings(epochs=3, learning_rate=1e-5)
    found = choose(dataclasses.replace(IMAGES, linear_blocks=False, settings=wanted))
    assert (found.epochs, found.learning_rate) == (3, 1e-5)


def test_parts_of_convolutions_bear_no_more_than_all() -> None:
    convolutions = dataclasses.replace(IMAGES, linear_blocks=False)
    assert [bearable(1, 12, facts) for facts in (IMAGES, convolutions)] == [4, 1]


def test_a_head_that_is_solved_for_to_its_end_asks_convolutions_for_a_smaller_rate() -> None:
    stages = [
        Stage("embeddings", (Parameter("stem.weight", 8, False, False),)),
        Stage("head", (Parameter("head.weight", 8, False, False),)),
    ]
    full, lp_ft = (
        one.plan(stages, dataclasses.replace(IMAGES, linear_blocks=False))
        for one in (Full(Full.Settings()), LpFt(LpFt.Settings()))
    )
    assert full.phases[-1].rows[0].learning_rate == pytest.approx(3e-4)
    assert lp_ft.phases[-1].rows[0].learning_rate == pytest.approx(3e-4 / 8)
