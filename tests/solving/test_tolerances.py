"""Tolerances that users set by the options of a solver: what they may change is taken off its bounds."""

from __future__ import annotations

import numpy as np
import pytest

import mipnet as mn
from mipnet.backend import SolverTolerances
from mipnet.model.to_program import from_model
from mipnet.solving.element_bounds import tolerance_margin
from tests.solving.test_accuracy import NETWORKS, box, chain, narrow
from tests.sweep import sweep

ROWS = {"highs": "mip_feasibility_tolerance", "scip": "numerics/feastol"}
COSTS = {"highs": "dual_feasibility_tolerance", "scip": "numerics/dualfeastol"}
BOTH = {"highs": "kkt_tolerance", "scip": "numerics/epsilon"}
BACKENDS = "highs", "scip"


@pytest.mark.parametrize("backend", BACKENDS)
def test_tolerances_are_those_of_the_options(backend: str) -> None:
    solver = mn.get_backend(backend)
    assert solver.tolerances() == solver.tolerances({"no_tolerance": 1.0}) == SolverTolerances(1e-6, 1e-7)
    assert solver.tolerances(fine=True) == SolverTolerances(1e-9, 1e-9)
    assert solver.tolerances({ROWS[backend]: 1e-4}, fine=True) == SolverTolerances(1e-4, 1e-9)
    assert solver.tolerances({COSTS[backend]: np.float64(1e-8)}) == SolverTolerances(1e-6, 1e-8)
    assert solver.tolerances({BOTH[backend]: 1e-5}) == SolverTolerances(1e-5, 1e-5)
    assert solver.tolerances({ROWS[backend]: "wrong"}) == SolverTolerances()


def test_of_two_options_for_rows_the_larger_one_counts() -> None:
    highs = mn.get_backend("highs")
    assert highs.tolerances({"primal_feasibility_tolerance": 1e-9}).rows == 1e-6
    assert highs.tolerances({"primal_feasibility_tolerance": 1e-9, "mip_feasibility_tolerance": 1e-8}).rows == 1e-8


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_tolerances_of_the_user_may_change_is_taken_off_the_bound(backend: str) -> None:
    """At a ratio of 1e7, a tolerance of 1e-9 may change the largest output, 1.5, by about 1e-5; one of 1e-6 by a thousand times as much."""
    bounds = []
    for options in (None, {ROWS[backend]: 1e-6}, {ROWS[backend]: 1e-9}):
        encoding = mn.encode(narrow(), box(1e7))
        encoding.model.add_objective(encoding.output.sum(), sense="max")
        bounds.append(mn.solve(encoding, backend, options=options).bound)
    assert 1.5 <= bounds[0] < 1.5001
    assert 1.505 < bounds[1] < 1.6
    assert bounds[2] >= bounds[0]


@pytest.mark.parametrize(("backend", "tolerance"), sweep([(b, t) for t in (1e-4, 1e-5) for b in BACKENDS], every=4), ids=str)
def test_certified_bounds_carry_the_tolerances_of_the_user(backend: str, tolerance: float) -> None:
    network, region = chain(0), mn.Box(-np.ones((1, 12)), np.ones((1, 12)))
    ends = []
    for options in ({}, {ROWS[backend]: tolerance}):
        found = mn.reach(network, region, backend=mn.MipSettings(backend, options), tolerance=1e-6)
        (end,) = found.highest
        ends.append((end.value, end.bound, end.method))
    size = abs(ends[1][0])
    assert ends[1][2] == "mip"
    assert ends[1][1] - ends[1][0] >= tolerance * size
    assert ends[0][1] - ends[0][0] < tolerance * size


def test_the_margin_grows_with_the_tolerances() -> None:
    encoding = mn.encode(narrow(), box(10.0))
    encoding.model.add_objective(encoding.output.sum())
    program = from_model(encoding.model)
    small, rows, costs = (
        tolerance_margin(program, program.cost, 0.0, each)
        for each in (SolverTolerances(1e-9, 1e-9), SolverTolerances(1e-3, 1e-9), SolverTolerances(1e-9, 1e-3))
    )
    assert small < 1e-6
    assert rows > 1e-3
    assert costs > 1e-3


CASES = [("mixed", 1e9, "max"), ("mixed", 1e7, "max"), ("mixed", 1e12, "min"), ("narrow", 1e9, "max"), ("narrow", 1e12, "min")]


@pytest.mark.parametrize(("name", "ratio", "sense"), sweep(CASES, every=5))
def test_indicator_rows_are_scaled_as_big_m_rows_are(name: str, ratio: float, sense: str) -> None:
    make, least, largest = NETWORKS[name]
    exact, sign = (largest, 1) if sense == "max" else (least, -1)
    encoding = mn.encode(make(), box(ratio), formulation={"relu": "indicator"})
    encoding.model.add_objective(encoding.output.sum(), sense=sense)
    result = mn.solve(encoding, "scip", time_limit=20)
    assert result.objective == pytest.approx(exact, abs=5e-4)
    assert -1e-6 <= sign * (result.bound - exact) < (0.05 if ratio > 1e9 else 2e-3)
