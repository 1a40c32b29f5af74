"""Max pooling of affine functions of one input: its optimum is at an end or where two candidates meet, whatever the formulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mipnet as mn
from mipnet.solving.engine import solve
from tests.formulations.test_formulations import root

SLOPES = np.array([[2.0, -1.0, -0.75, -0.5], [2.0, 1.5, 1.75, 1.0]])
"""The candidates of both windows over [-1, 1]."""
SHIFTS = np.array([[0.0, 0.0, -0.25, 0.25], [0.0, 0.25, -0.25, 0.125]])
WEIGHTS = np.array([1.0, -1.5])


def network() -> mn.Network:
    candidates = mn.Dense(SLOPES.reshape(8, 1), SHIFTS.reshape(8))
    pool = mn.MaxPool2d(mn.Window((2, 2), (2, 2)))
    flat = [("windows", mn.Reshape((2, 2, 2))), ("pool", pool), ("flat", mn.Reshape((2,))), ("sum", mn.Dense(WEIGHTS[None]))]
    return mn.Network.build((1,), [("candidates", candidates), *flat])


def values(x: np.ndarray) -> np.ndarray:
    return (SLOPES * x[:, None, None] + SHIFTS).max(axis=2) @ WEIGHTS


def ends_and_kinks() -> np.ndarray:
    """Both ends of [-1, 1], and where two candidates of a window are equal."""
    pairs = [(k, i, j) for k in range(2) for i, j in itertools.combinations(range(4), 2)]
    meets = np.array([(SHIFTS[k, j] - SHIFTS[k, i]) / (SLOPES[k, i] - SLOPES[k, j]) for k, i, j in pairs])
    return np.append(meets[np.abs(meets) < 1], [-1.0, 1.0])


def posed(formulation: str, sense: str) -> mn.Encoding:
    encoding = mn.encode(network(), mn.Box(np.full((1, 1), -1.0), np.ones((1, 1))), formulation={"maxpool2d": formulation})
    encoding.model.add_objective(encoding.output.sum(), sense=sense)
    return encoding


@pytest.mark.parametrize(("formulation", "backend"), [("hull", "scip"), ("big-m", "scip"), ("indicator", "highs")])
def test_the_optimum_is_at_an_end_or_a_kink(formulation, backend):
    exact = values(ends_and_kinks())
    for sense, best in (("min", exact.min()), ("max", exact.max())):
        result = solve(posed(formulation, sense), backend, mip_gap=1e-9)
        assert result.verified
        assert (result.objective, result.bound) == pytest.approx((best, best), abs=1e-6)


@pytest.mark.parametrize("sense", ["min", "max"])
def test_a_triangle_has_the_bound_of_big_m_without_binaries(sense):
    assert root(posed("triangle", sense)) == pytest.approx(root(posed("big-m", sense)), abs=1e-6)
