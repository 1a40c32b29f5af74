"""The program of one pruning step: against enumeration, on both backends and by the search alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

import mipnet as mn
from mipnet.errors import InputError
from mipnet.network.gates import Gate
from mipnet.pruning.stepwise.curvature import Curvature
from mipnet.pruning.stepwise.step_program import StepProgram

BACKENDS = ("highs", "scip")
GATES = (Gate("a", 5, "a_unit", ("a",), ("a",)), Gate("b", 4, "b_unit", ("b",), ("b",)))


def step(seed: int, drop: float = 8.0, rank: int = 9) -> StepProgram:
    """Nine units, a third of them silent already, with a dense convex change of the loss."""
    g = np.random.default_rng(seed)
    root = g.normal(size=(rank, 9))
    kept = (g.uniform(size=9) < 0.67).astype(float)
    kept[[0, 5]] = 1.0
    price = np.repeat(g.integers(2, 5, 2).astype(float), (5, 4))
    return StepProgram(GATES, kept, Curvature(0.0, g.normal(size=9), root.T @ root), price, min(drop, price @ kept - price[0] - price[5]))


def enumerated(flips: StepProgram) -> float:
    """The best change of the loss over all masks that the program allows."""
    best = np.inf
    for bits in itertools.product((0.0, 1.0), repeat=9):
        s = np.array(bits)
        if flips.price @ (flips.kept - s) >= flips.drop - 1e-9 and s[:5].any() and s[5:].any():
            best = min(best, flips.curve.change(s - flips.kept))
    return best


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("seed", "rank"), [(0, 9), (1, 9), (2, 2), (3, 0)])
def test_solvers_find_the_enumerated_optimum(backend: str, seed: int, rank: int) -> None:
    flips = step(seed, rank=rank)
    best = enumerated(flips)
    for start in ("forward", "none"):
        result = mn.solve(flips, backend, start=start, mip_gap=1e-6, time_limit=60)
        assert result.status is mn.Status.OPTIMAL
        assert result.verified
        assert result.objective == pytest.approx(best, abs=1e-5)
        assert result.bound <= best + 1e-5


def test_the_search_keeps_the_constraints_and_is_near_the_optimum() -> None:
    lost = []
    for seed in range(40):
        flips = step(seed)
        scores = flips.search()
        assert set(scores) <= {0.0, 1.0}
        assert flips.program.relative_violation(flips.completed(scores)) < 1e-9
        best = enumerated(flips)
        worst = max(flips.curve.change(np.array(bits) - flips.kept) for bits in itertools.product((0.0, 1.0), repeat=9))
        lost.append((flips.curve.change(scores - flips.kept) - best) / (worst - best))
    assert min(lost) >= -1e-12
    assert np.mean(np.array(lost) < 1e-9) > 0.5
    assert np.mean(lost) < 0.03


def test_units_that_change_nothing_go_for_nothing_and_one_a_layer_stays() -> None:
    flips = StepProgram(GATES, np.ones(9), Curvature(0.0, np.zeros(9), np.zeros((9, 9))), np.ones(9), 1.0)
    scores = flips.search()
    assert [scores[:5].sum(), scores[5:].sum()] == [1, 1]


def test_units_that_were_silenced_wrongly_come_back() -> None:
    gradient = np.array([-5.0, *np.zeros(8)])  # unit 0 lowers the loss, and is silent
    kept = np.array([0.0, *np.ones(8)])
    flips = StepProgram(GATES, kept, Curvature(0.0, gradient, 0.1 * np.eye(9)), np.ones(9), 2.0)
    scores = flips.search()
    assert scores[0] == 1
    assert scores.sum() == 6
    assert flips.curve.change(scores - kept) == pytest.approx(enumerated(flips))


def test_a_wrong_square_does_not_survive_the_replay() -> None:
    flips = step(0)
    flips.curve = replace(flips.curve, hessian=2 * flips.curve.hessian)  # the program has the true one
    assert not mn.solve(flips, "highs", time_limit=20).verified


def test_a_drop_that_is_out_of_reach_is_refused() -> None:
    with pytest.raises(InputError, match=r"8 parameters cannot be removed: one unit of each layer has to stay"):
        StepProgram(GATES, np.ones(9), Curvature(0.0, np.zeros(9), np.eye(9)), np.ones(9), 8.0)
    assert StepProgram(GATES, np.ones(9), Curvature(0.0, np.zeros(9), np.eye(9)), np.ones(9), 7.0).search().sum() == 2
