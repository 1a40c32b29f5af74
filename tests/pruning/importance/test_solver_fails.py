"""Importance with a solver that fails at its n-th solve: finished classes, and the points of a path before it, are kept."""

from __future__ import annotations

import pytest

from mipnet.backend import Status
from mipnet.errors import SolverFailure
from mipnet.limits.result_warnings import collected_warnings
from mipnet.pruning.importance.by_class import by_class
from mipnet.pruning.importance.weight_path import weight_path
from tests.failing_solver import WORDS, Failing
from tests.pruning.importance.test_by_class import question


class CountingSolves(Failing):
    """A solver that never fails, and counts its solves."""

    def __init__(self) -> None:
        super().__init__(10**9)


def test_the_other_classes_are_kept() -> None:
    asked, whole = question({"relu": "big-m"}), CountingSolves()
    first = by_class(asked, backend=whole).parts[0]
    with collected_warnings() as added:
        found = by_class(asked, backend=Failing(whole.solves))
    assert found.parts[0].scores.identical(first.scores)
    assert found.parts[1].scores is None
    assert found.result.status is Status.STALLED
    assert any("solver failed" in text and WORDS in text for text in added)


def test_the_points_before_are_kept() -> None:
    asked, whole, weights = question({"relu": "big-m"}), CountingSolves(), (0.5, 5.0, 20.0)
    points = weight_path(asked, weights, backend=whole).points
    found = weight_path(asked, weights, backend=Failing(whole.solves))
    assert 1 <= len(found.points) <= 3
    assert [one.found.result.objective for one in found.points[:2]] == [one.found.result.objective for one in points[:2]]
    if len(found.points) < 3:
        assert any(WORDS in text for text in found.warnings)
    else:  # the last solve was a later round: what the rounds before have found is kept
        assert WORDS in found.points[2].found.result.message


def test_a_failure_before_anything_is_known_is_raised() -> None:
    with pytest.raises(SolverFailure, match="Solve error"):
        weight_path(question({"relu": "big-m"}), (0.5, 5.0), backend=Failing(1))
