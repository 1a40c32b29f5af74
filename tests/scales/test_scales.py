"""Answers about random networks at all scales, against their exact values: a few networks per question here, many in a sweep."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.scales.exact import TooManyRegions
from tests.scales.nets import draw
from tests.scales.questions import BACKENDS, QUESTIONS, ask, rotation

FEW = {name: range(200, 203) for name in QUESTIONS} | {
    "bounds": range(201, 202),
    "verify": range(200, 201),
    "agree": range(202, 203),
    "compress": range(205, 206),
    "importance": range(2000, 2002),
    "solve": (200, 360, 397),  # HiGHS said infeasible in presolve; it called a start optimal that it had before presolve
}
"""Networks per question.  Without the solvers' tolerances in their bounds, `reach` and `maximum_margin` are wrong about some of them."""

NEAR_ROUNDING = 1213, pytest.param(1263, marks=pytest.mark.sweep)
"""Networks with another class nearer than a few million steps of float64: a program in units of the distance proves nothing."""

TURNS = [pytest.param(first, marks=pytest.mark.sweep) for first in range(1000, 1060, 10)]


def wrong(seed: int, names: Sequence[str], backends: Sequence[str], labels: tuple[str, ...] = ("WRONG",)) -> list[str]:
    """The answers whose label starts with one of these; a network with more regions than are enumerated has none."""
    try:
        answers = list(ask(draw(seed), names, backends))
    except TooManyRegions:
        return []
    return [f"{seed} {each.question} {each.backend}: {each.detail}" for each in answers if each.label.startswith(labels)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_no_answer_is_wrong(name: str, backend: str) -> None:
    assert not [text for seed in FEW[name] for text in wrong(seed, (name,), (backend,), ("WRONG", "refused"))]


@pytest.mark.parametrize("seed", NEAR_ROUNDING)
def test_distances_that_float64_hardly_resolves_are_bounded_without_a_program(seed: int) -> None:
    assert not wrong(seed, ("distortion",), BACKENDS[:1], ("WRONG", "refused", "wider"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("first", TURNS)
def test_no_answer_of_many_networks_is_wrong(first: int) -> None:
    """Each network gets three of the questions, and one or both solvers, in turn."""
    assert not [text for seed in range(first, first + 10) for text in wrong(seed, *rotation(seed, list(QUESTIONS), 3))]
