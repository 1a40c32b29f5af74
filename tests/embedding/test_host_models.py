"""What a model may have besides a network: SOS sets, piecewise formulations, semi-continuous variables and indicator rows.

The oracle enumerates what is discrete, and for each case the inputs of the network on a grid that contains all vertices of its regions.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest

import mipnet as mn
from mipnet.backend.rewrites import rewrite
from mipnet.errors import BackendError, UnboundedError, UnsupportedError
from mipnet.model.to_program import from_model
from tests.sweep import marked

NET = mn.Network.build(
    (2,), [("fc1", mn.Dense([[1.0, -1.0], [1.0, 1.0]], [0.0, -2.0])), ("act", mn.ReLU()), ("fc2", mn.Dense([[-1.0, 1.5]]))]
)
GRID = np.stack(np.meshgrid(np.arange(0, 4.01, 0.5), np.arange(0, 4.01, 0.5), indexing="ij"), axis=-1).reshape(-1, 2)
VALUE = NET.forward(GRID)[:, 0]
INPUT = pd.Index(["a", "b"], name="feature")
BACKENDS = ["highs", *map(marked, ["scip"])]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """linopy speaks about its own changes, and calls piecewise formulations new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def embedded() -> tuple[linopy.Model, linopy.Variable, linopy.LinearExpression]:
    """Two inputs in [0, 4], and the output of the network."""
    model = linopy.Model()
    x = model.add_variables(0, 4, coords=[INPUT], name="x")
    handle = mn.add_network(model, NET, x)
    return model, x, 1 * handle.output.isel(fc2_unit=0, drop=True)


def solved(model: linopy.Model, backend: str, **keywords: Any) -> mn.Result:
    result = mn.solve(model, backend, mip_gap=1e-9, **keywords)
    assert result.status is mn.Status.OPTIMAL
    assert result.verified
    assert model.objective.value == pytest.approx(result.objective)
    return result


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sense", ["max", *map(marked, ["min"])])
def test_semi_continuous_inputs(backend: str, sense: str) -> None:
    """An input of a network is 0, or from 2 to 4; the network is valid between, too."""
    model = linopy.Model()
    x = model.add_variables(2, 4, coords=[INPUT], name="x", semi_continuous=True)
    handle = mn.add_network(model, NET, x)
    assert handle.region.lower.tolist() == [[0, 0]]
    model.add_objective(handle.output.sum() + (x * pd.Series([0.1, -0.3], INPUT)).sum(), sense=sense)
    allowed = ((GRID == 0) | (GRID >= 2)).all(axis=1)
    values = (VALUE + GRID @ [0.1, -0.3])[allowed]
    assert solved(model, backend).objective == pytest.approx(values.max() if sense == "max" else values.min(), abs=1e-6)
    at = x.solution.values
    assert ((np.abs(at) < 1e-6) | (at >= 2 - 1e-6)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [1, 2])
def test_sos_sets(backend: str, kind: int) -> None:
    """Weights of which one, or two neighbours, may be nonzero, by the order of their labels; one is masked."""
    model, x, output = embedded()
    rank = pd.Index([10, 20, 30, 40, 50], name="rank")
    w = model.add_variables(-0.5, 1, coords=[rank], name="w", mask=pd.Series(rank != 20, rank).to_xarray())
    model.add_sos_constraints(w, kind, "rank")
    gain = np.array([3.0, 0.0, -7.0, 2.0, 2.5])
    model.add_objective((w * pd.Series(gain, rank)).sum() + output + 0.25 * x.sum(), sense="max")
    kept = [0, 2, 3, 4]
    sets = [(i,) for i in kept] if kind == 1 else list(itertools.pairwise(kept))
    best = max(sum(max(gain[i], -0.5 * gain[i]) for i in each) for each in sets)
    assert solved(model, backend).objective == pytest.approx(best + (VALUE + 0.25 * GRID.sum(axis=1)).max(), abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["sos2", *map(marked, ["incremental"])])
def test_a_piecewise_formulation_of_linopy(backend: str, method: str) -> None:
    """The cost of both inputs is a function of their sum that is neither convex nor concave."""
    model, x, output = embedded()
    total, cost = model.add_variables(0, 8, name="total"), model.add_variables(-99, 99, name="cost")
    model.add_constraints(x.sum() == total, name="sum")
    breaks, costs = [0.0, 2.0, 5.0, 8.0], {"sos2": [0.0, 5.0, 3.0, 9.0], "incremental": [0.0, 5.0, 6.0, 9.0]}[method]
    model.add_piecewise_formulation((total, breaks), (cost, costs), method=method)
    model.add_objective(2 * output + cost)
    for sense, best in (("min", min), ("max", max)):
        model.objective.sense = sense
        expected = best(2 * VALUE + np.interp(GRID.sum(axis=1), breaks, costs))
        assert solved(model, backend).objective == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("active", [0, 1])
def test_indicator_rows(backend: str, active: int) -> None:
    model, x, output = embedded()
    on = model.add_variables(binary=True, coords=[INPUT], name="on")
    model.add_indicator_constraints(on, active, 1 * x, "<=", 0.5, name="small")
    sign = 1.0 if active else -1.0
    model.add_objective(output + 2 * sign * on.sum() - 0.25 * x.sum(), sense="max")
    free = [(sign * 2 * sum(b) + (VALUE - 0.25 * GRID.sum(axis=1))[((GRID <= 0.5) | (np.array(b) != active)).all(axis=1)].max())
            for b in itertools.product([0, 1], repeat=2)]  # fmt: skip
    assert solved(model, backend).objective == pytest.approx(max(free), abs=1e-6)


@pytest.mark.parametrize("sense", ["min", *map(marked, ["max"])])
@pytest.mark.parametrize("kind", ["convex", *map(marked, ["concave", "indefinite"])])
def test_quadratic_objectives_with_a_network_need_scip(kind: str, sense: str) -> None:
    """Integer inputs, so that the points can be enumerated."""
    model = linopy.Model()
    x = model.add_variables(0, 4, coords=[INPUT], name="x", integer=True)
    handle = mn.add_network(model, NET, x)
    a, b = x.sel(feature="a"), x.sel(feature="b")
    sign = {"convex": (1.0, 1.0), "concave": (-1.0, -0.5), "indefinite": (1.0, -1.0)}[kind]
    objective = sign[0] * a * a + sign[1] * b * b - 0.4 * a * b + handle.output.sum() - 2.3 * a - 1.7 * b
    model.add_objective(objective, sense=sense)
    with pytest.raises(UnsupportedError, match="variables are integer or binary, those of networks included; HiGHS"):
        mn.solve(model, "highs")
    whole = (GRID % 1 == 0).all(axis=1)
    u, v = GRID[whole].T
    values = sign[0] * u * u + sign[1] * v * v - 0.4 * u * v + VALUE[whole] - 2.3 * u - 1.7 * v
    result = solved(model, "scip", start="search")
    assert result.objective == pytest.approx(values.min() if sense == "min" else values.max(), abs=1e-5)
    assert result.bound == pytest.approx(result.objective, abs=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_convex_quadratic_objective_without_integers(backend: str) -> None:
    """Points far from 0, scaled variables and a scaled objective; the oracle solves the conditions of the optimum by hand."""
    model = linopy.Model()
    x = model.add_variables(99, 104, coords=[INPUT], name="x", scaling=10.0)
    y = model.add_variables(-1e4, 1e4, name="y")
    handle = mn.add_network(model, mn.Network.build((2,), [("fc", mn.Dense([[1.0, -1.0]]))]), x)
    model.add_constraints(handle.output.sum() == y, name="difference")
    model.add_objective((x * x - 2 * pd.Series([100.0, 102.0], INPUT) * x).sum() + 0.5 * y * y + y, scaling=3.0)
    # (a - 100)^2 + (b - 102)^2 + y^2 / 2 + y without its constant; with a = 100 + t, b = 102 - t, y = 2 t - 2 it is least at t = 0.25
    result = mn.solve(model, backend, mip_gap=1e-9)
    assert result.status is mn.Status.OPTIMAL
    assert result.objective == pytest.approx(-0.25 - 100.0**2 - 102.0**2, abs=1e-4)
    assert model.objective.value == pytest.approx(result.objective)
    np.testing.assert_allclose(x.solution, [100.25, 101.75], atol=1e-2)
    with mn.open_problem(model, backend) as opened, pytest.raises(UnsupportedError, match="cannot be replaced"):
        opened.set_objective(y)


@pytest.mark.parametrize("sense", ["min", "max"])
def test_a_quadratic_objective_that_is_not_convex_is_refused_by_highs(sense: str) -> None:
    model = linopy.Model()
    x = model.add_variables(-1, 2, coords=[INPUT], name="x")
    a, b = x.sel(feature="a"), x.sel(feature="b")
    model.add_objective(1.0 * a * b + 0.5 * a, sense=sense)
    with pytest.raises(UnsupportedError, match="HiGHS does not solve the"):
        mn.solve(model, "highs")
    with pytest.raises(BackendError, match="backend `cbc` has no quadratic objective: solve with `scip`, or linearise it"):
        mn.solve(model, "cbc")
    corners = [u * v + 0.5 * u for u in (-1, 2) for v in (-1, 2)]
    best = min(corners) if sense == "min" else max(corners)
    assert mn.solve(model, "scip", mip_gap=1e-9).objective == pytest.approx(best, abs=1e-5)


def test_sets_whose_bounds_are_rows_and_sets_without_bounds() -> None:
    model = linopy.Model()
    w = model.add_variables(0, np.inf, coords=[pd.RangeIndex(3, name="rank")], name="w")
    s = model.add_variables(2, np.inf, name="s", semi_continuous=True)
    model.add_sos_constraints(w, 2, "rank")
    model.add_objective(w.sum() + s, sense="max")
    with pytest.raises(UnboundedError, match="1 semi-continuous variables have no finite upper bound"):
        mn.solve(model)
    model.add_constraints(0.5 * s <= 2.5, name="most")
    with pytest.raises(UnboundedError, match="3 members of SOS2 sets have no finite bounds"):
        mn.solve(model)
    model.add_constraints(w <= 1, name="each")
    result = mn.solve(model)
    assert result.objective == pytest.approx(7)
    assert result.rewritten == ("1 semi-continuous variable -> binaries and rows", "1 SOS2 set -> binaries and rows")


@pytest.mark.parametrize("seed", [0, *map(marked, range(1, 6))])
def test_rewritten_points_are_those_of_the_program(seed: int) -> None:
    """A point of the program is one of the rewritten program with its binaries, and only such points are."""
    rng = np.random.default_rng(seed)
    model = linopy.Model()
    w = model.add_variables(-1, 1, coords=[pd.RangeIndex(2, name="k"), pd.RangeIndex(4, name="rank")], name="w")
    v = model.add_variables(-1, 1, coords=[pd.RangeIndex(3, name="rank")], name="v")
    model.add_variables(0.5, 1, coords=[pd.RangeIndex(2, name="k")], name="s", semi_continuous=True)
    model.add_sos_constraints(w, 2, "rank")
    model.add_sos_constraints(v, 1, "rank")
    model.add_objective(w.sum())
    program = from_model(model)
    made = rewrite(program, frozenset())
    for _ in range(60):
        x = np.where(rng.uniform(size=program.columns) < 0.6, 0.0, rng.uniform(-1, 1, program.columns))
        x = np.clip(x, program.lower, program.upper)
        assert (program.violation(x) == 0) == (made.program.violation(made.complete(x)) <= 1e-12)
