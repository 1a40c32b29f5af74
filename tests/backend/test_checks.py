"""Helpers of all backends: cleaned points, valid bounds, ordered events, solvers in another thread."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mipnet.backend import Event, Limits, Status
from mipnet.backend.checks import OBJECTIVE_NOISE, POINT_TOLERANCE, RawOutcome, clean_point, finish, trivial_outcome
from mipnet.backend.progress import SolveProgress, run_in_thread
from mipnet.errors import SolverFailure
from mipnet.testing.programs import program

BINARY = program([-1.0, 1.0], [[1.0, 1.0]], row_upper=1.0, upper=1.0, integer=True, offset=3.0)


def test_clean_point_rounds_and_clips() -> None:
    assert clean_point(BINARY, np.array([0.9999997, -1e-9])).tolist() == [1.0, 0.0]


def test_clean_point_keeps_a_fraction_that_a_big_m_needs() -> None:
    p = program([0.0, 0.0], [[1.0, -1e6]], row_upper=0.0, lower=0.0, upper=[5.0, 1.0], integer=[False, True])
    assert clean_point(p, np.array([0.5, 5e-7])).tolist() == [0.5, 5e-7]


def test_clean_point_takes_a_row_that_is_violated_by_the_tolerance_itself() -> None:
    p = program([0.0], [[1.0]], row_upper=0.0, upper=1.0)
    assert clean_point(p, np.array([POINT_TOLERANCE])).tolist() == [POINT_TOLERANCE]


@pytest.mark.parametrize("x", [[1.0, 1.0], [0.5, 0.0], [math.nan, 0.0], [2.0, -1.0], [math.inf, 0.0]])
def test_clean_point_refuses_a_point_that_is_none(x: list[float]) -> None:
    with pytest.raises(SolverFailure):
        clean_point(BINARY, np.array(x))


def test_noise_does_not_spoil_optimality() -> None:
    progress = SolveProgress(Limits(gap=0.0), None)
    progress.incumbent(2.0 - 6e-14)
    progress.bound(2.0 - 6e-14)
    assert progress.should_stop, "the gap is closed in the solver's own numbers"
    outcome = finish(BINARY, progress, RawOutcome(None, np.array([1.0, 0.0]), 2.0 - 6e-14))
    assert (outcome.status, outcome.gap, outcome.bound) == (Status.OPTIMAL, 0.0, 2.0)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-4, 0.1])
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e7])
def test_optimal_means_within_the_gap(gap: float, offset: float) -> None:
    p = program([-1.0], upper=1.0, offset=offset)
    bound = offset - 1.0 - gap * max(1.0, abs(offset - 1.0))
    outcome = finish(p, SolveProgress(Limits(gap=gap), None), RawOutcome(Status.OPTIMAL, np.array([1.0]), bound))
    assert outcome.status is Status.OPTIMAL
    assert outcome.gap <= gap + 1e-12


@pytest.mark.parametrize("gap", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("objective", [0.1, -3.7, 1e5 / 3])
def test_a_claim_of_optimality_is_believed_within_the_noise(gap: float, objective: float) -> None:
    size = max(1.0, abs(objective))
    limits, claimed = Limits(gap=gap), objective - gap * abs(objective) - OBJECTIVE_NOISE * size / 2
    outcome = finish(program([0.0], offset=objective), SolveProgress(limits, None), RawOutcome(Status.OPTIMAL, np.zeros(1), claimed))
    assert outcome.status is Status.OPTIMAL
    assert claimed < outcome.bound == pytest.approx(objective - gap * abs(objective), abs=1e-8 * size)


def test_a_claim_of_optimality_with_a_large_gap_is_not_believed() -> None:
    outcome = finish(BINARY, SolveProgress(Limits(), None), RawOutcome(Status.OPTIMAL, np.array([1.0, 0.0]), 1.0))
    assert outcome.status is Status.STALLED
    assert outcome.gap == 0.5


def test_no_point_when_infeasible() -> None:
    outcome = finish(BINARY, SolveProgress(Limits(), None), RawOutcome(Status.INFEASIBLE, np.zeros(2)))
    assert outcome.x is None
    assert outcome.objective is None
    assert outcome.bound == math.inf


def test_events_are_monotone_and_stop_after_an_exception() -> None:
    seen: list[Event] = []

    def handler(event: Event) -> None:
        seen.append(event)
        if event.kind == "log":
            raise KeyError("no")

    progress = SolveProgress(Limits(gap=0.0), handler)
    for value in (5.0, 6.0, 4.0):
        progress.incumbent(value)
    for value in (1.0, 0.5, math.inf, 4.5):
        progress.bound(value)
    assert [(e.objective, e.bound) for e in seen] == [(5.0, None), (4.0, None), (4.0, 1.0), (4.0, 4.0)]
    progress.log("half a ")
    assert progress.error is None
    progress.log("line\nmore\n")
    assert [e.text for e in seen if e.kind == "log"] == ["half a line"]
    assert progress.should_stop
    with pytest.raises(KeyError, match="no"):
        finish(BINARY, progress, RawOutcome(None))


def test_targets_stop() -> None:
    progress = SolveProgress(Limits(bound_stop=1.0, objective_stop=-1.0), None)
    progress.bound(0.9)
    progress.incumbent(5.0)
    assert not progress.should_stop
    progress.bound(1.0)
    assert progress.should_stop
    assert finish(BINARY, progress, RawOutcome(None, None, 1.0)).status is Status.TARGET


def test_trivial_programs_need_no_solver() -> None:
    assert trivial_outcome(BINARY) is None
    crossed = trivial_outcome(program([1.0], lower=1.0, upper=0.0))
    assert crossed is not None
    assert crossed.status is Status.INFEASIBLE


def test_run_in_thread_raises_what_the_work_raised() -> None:
    def work() -> None:
        raise SolverFailure("broken")

    with pytest.raises(SolverFailure, match="broken"):
        run_in_thread(work, lambda: None)
