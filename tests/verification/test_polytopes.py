"""Questions over polytopes and convex hulls, against one linear program per activation pattern."""

from __future__ import annotations

import linopy
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import linprog

import mipnet as mn
from mipnet.errors import InputError
from tests.sweep import sweep
from tests.verification.worked import INPUTS, pieces, random_network

BACKENDS = ("highs", "scip")


def drawn(kind, seed):
    """An input set, and the rows ``A @ z <= b`` and the map from z to inputs by which the oracle knows it."""
    g = np.random.default_rng([seed, 7])
    if kind == "half-spaces":
        matrix, rhs = g.normal(size=(3, INPUTS)), np.abs(g.normal(size=3)) + 0.1
        return mn.Polytope(matrix, rhs, lower=-1, upper=1), (matrix, rhs, None, [(-1, 1)] * INPUTS, np.eye(INPUTS))
    points, enlarge = 0.4 * g.normal(size=(9, INPUTS)) + [0.8, -1.0, 0.6], 0.1 if kind == "enlarged" else 0.0  # 0 lies outside
    ends, equal = [(0, 1)] * 9 + [(-enlarge, enlarge)] * INPUTS, [[1.0] * 9 + [0.0] * INPUTS]
    return mn.ConvexHull(points, enlarge), (np.zeros((0, 9 + INPUTS)), np.zeros(0), equal, ends, np.hstack([points.T, np.eye(INPUTS)]))


def constant(rows):
    return xr.DataArray(rows, dims=("time", "feature"))


def true_minimum(net, output, known):
    rows, right, equal, ends, to_x = known
    best = np.inf
    for matrix, side, slope, constant in pieces(net):
        upper = np.vstack([matrix @ to_x, rows]), np.concatenate([side, right])
        found = linprog(slope[output] @ to_x, *upper, equal, None if equal is None else [1.0], ends)
        best = min(best, found.fun + constant[output] if found.success else np.inf)
    return best


CASES = [(kind, seed, backend) for kind in ("half-spaces", "hull", "enlarged") for seed in range(4) for backend in BACKENDS]


@pytest.mark.parametrize(("kind", "seed", "backend"), sweep(CASES, every=13))
def test_the_smallest_output(kind, seed, backend):
    net = random_network(seed, (3, 2))
    region, known = drawn(kind, seed)
    truth = true_minimum(net, 1, known)
    found = mn.reach(net, region, [0, 1, 0], backend=backend).lowest[0]
    assert found.bound <= truth + 1e-9 <= found.value + 2e-9
    assert found.gap <= 2e-4 * found.size
    assert region.contains(found.point[None], 1e-9)
    for side, status in ((1e-3, "sat"), (-1e-3, "unsat")):
        question = mn.Property((mn.Case(region, (mn.Clause([[0.0, 1.0, 0.0]], [truth + side]),)),))
        verdict = mn.verify(net, question, backend=backend)
        assert verdict.status == status
        if verdict.counterexample is not None:
            assert region.contains(verdict.counterexample[None], 1e-9)
    enc = mn.encode(net, region)
    enc.model.add_objective(enc.output.isel(out_unit=1).sum())
    result = mn.solve(enc, backend=backend, mip_gap=1e-9)
    assert result.verified
    assert result.objective == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("kind", sweep(["half-spaces", "hull"], every=2))
def test_splitting_drops_the_boxes_outside(kind, monkeypatch):
    """Where only splitting is left, boxes beside the set are refuted although the output is smaller there."""
    monkeypatch.setattr("mipnet.verification.certified_minimum.SOLVER_FIRST_UNITS_MAX", -1)
    region, known = drawn(kind, 1)
    net = random_network(1, (3, 2))
    found = mn.reach(net, region, [0, 1, 0], tolerance=1e-2).lowest[0]
    assert found.method == "splitting"
    assert found.bound <= true_minimum(net, 1, known) + 1e-9
    assert found.relative_gap <= 1e-2


@pytest.mark.parametrize("kind", ["half-spaces", "hull"])
def test_bounds_hold_in_the_set_and_are_those_of_its_box_or_tighter(kind):
    net = random_network(2, (3, 2))
    region, _ = drawn(kind, 2)
    inside = region.nearest(np.random.default_rng(0).normal(size=(500, INPUTS)))
    values = net.forward(inside)
    for method in ("interval", "crown", "alpha"):
        found, box = mn.propagate(net, region, method=method), mn.propagate(net, mn.Box(region.lower, region.upper), method=method)
        assert (found["out"].lower.values <= values + 1e-9).all()
        assert (found["out"].upper.values >= values - 1e-9).all()
        assert found.width()["out"] <= box.width()["out"] + 1e-9
    first = [mn.propagate(net, each).width()["fc0"] for each in (region, mn.Box(region.lower, region.upper))]
    assert (first[0] < first[1]) == (kind == "hull")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_trust_region_of_an_embedded_network(backend):
    net = random_network(1, (3, 2)).with_input_names(["a", "b", "c"])
    plain, known = drawn("enlarged", 1)
    points = pd.DataFrame(plain.polytope.points, columns=["a", "b", "c"])[["c", "a", "b"]]
    model = linopy.Model()
    x = model.add_variables(coords=[pd.RangeIndex(2, name="time"), pd.Index(["b", "c", "a"], name="feature")], name="x")
    handle = mn.add_network(model, net, x, bounds=mn.ConvexHull(points, 0.1))
    model.add_objective(handle.output.isel(out_unit=1).sum())
    result = mn.solve(handle, backend=backend, mip_gap=1e-9)
    assert result.objective == pytest.approx(2 * true_minimum(net, 1, known), abs=1e-4)
    assert handle.error() < 1e-5
    found = x.solution.sel(feature=["a", "b", "c"]).values
    assert plain.meets_further(found, 1e-6).all()
    handle.remove()
    assert list(model.variables) == ["x"]
    assert not list(model.constraints)


def test_constant_inputs_have_to_lie_in_the_trust_region():
    net = random_network(1, (3, 2))
    model = linopy.Model()
    inside, outside = [[0.0, 0.0, 0.0]], [[9.0, 9.0, 9.0]]
    region = mn.ConvexHull(np.concatenate([np.eye(3), -np.eye(3)]))
    mn.add_network(model, net, constant(inside), bounds=region, prefix="in_")
    with pytest.raises(InputError, match=r"bounds that exclude each other|lies outside"):
        mn.add_network(model, net, constant(outside), bounds=region)
    with pytest.raises(InputError, match="the constant input at time=0 lies outside"):
        mn.add_network(model, net, constant([[0.5, 0.5, 0.5]]), bounds=region)
    for other, message in ((mn.L1(np.zeros((1, 3)), 1.0), "a ball"), (mn.LInf(np.zeros((2, 3)), 1.0), "2 sets")):
        with pytest.raises(InputError, match=f"`bounds` is {message}"):
            mn.add_network(model, net, constant(inside), bounds=other)


@pytest.mark.parametrize("enlarge", [0.0, 0.1])
def test_linear_functions_of_the_input_are_smallest_at_points_of_the_hull(enlarge):
    g = np.random.default_rng(3)
    points = g.normal([3.0, -4.0, 2.0], size=(7, INPUTS))
    encoding = mn.encode(random_network(0, (3, 2)), mn.ConvexHull(points, enlarge))
    encoding.model.add_objective(encoding.input.sum())
    with mn.open_problem(encoding, "highs") as problem:
        for _ in range(6):
            slope = g.normal(size=INPUTS)
            problem.set_objective((encoding.input * xr.DataArray(slope, dims="input_unit")).sum())
            truth = (points @ slope).min() - enlarge * np.abs(slope).sum()
            assert problem.solve().objective == pytest.approx(truth, abs=1e-5)
