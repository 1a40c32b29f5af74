"""Trees in a user's model: inputs at thresholds, gaps, and optima against the enumeration of all cells."""

from __future__ import annotations

from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

import mipnet as mn
from mipnet.errors import InputError
from mipnet.layers import TreeEnsemble
from mipnet.model.to_program import from_model
from mipnet.solving.replay import replay
from tests.trees import corners, random_ensemble

BACKENDS = ["highs", "scip"]
STUMP = [
    torch.tensor([[0, 1, 2], [-1, 1, 1], [-1, 2, 2]]),
    torch.zeros(3),
    torch.tensor([[0.0], [1], [2]]),
    torch.tensor([0]),
    torch.zeros(1),
]


def stump(threshold: float, *, strict: bool = False) -> mn.Network:
    """1 for inputs up to the threshold, 2 above."""
    splits, _, values, roots, constant = STUMP
    return mn.Network.build(
        (1,), [("trees", TreeEnsemble(splits, torch.tensor([threshold, 0, 0], dtype=torch.float64), values, roots, constant, strict))]
    )


def pinned(net: mn.Network, at: float, backend: str, sense: str = "max", **settings: Any) -> tuple[mn.Result, float | None]:
    """The smallest or largest output where a row of the model fixes the input, which bounds alone leave open."""
    model = linopy.Model()
    x = model.add_variables(0, 10, name="x")
    y = model.add_variables(0, 10, name="y")
    model.add_constraints(x + y == 2 * at, name="sum")
    model.add_constraints(x - y == 0, name="equal")
    handle = mn.add_network(model, net, [x], formulation=mn.EmbeddingSettings(**settings))
    model.add_objective(handle.output.sum(), sense=sense)
    result = mn.solve(model, backend)
    return result, None if result.objective is None else float(handle.output.solution.values.item())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("threshold", "strict", "value"),
    [
        (3.0, False, 1.0),
        (np.nextafter(3.0, 2.0), True, 2.0),
        pytest.param(3.0 - 1e-8, False, 2.0, marks=pytest.mark.sweep),
        pytest.param(3.0 + 1e-8, True, 1.0, marks=pytest.mark.sweep),
    ],
)
def test_an_input_that_rows_fix_at_a_threshold_has_the_value_of_its_side(
    threshold: float, strict: bool, value: float, backend: str
) -> None:
    for sense in ("min", "max"):
        result, found = pinned(stump(threshold, strict=strict), 3.0, backend, sense)
        assert result.verified
        assert found == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_input_in_the_gap_is_a_solution(backend: str) -> None:
    inside = 3.0 + 1e-3
    assert pinned(stump(3.0), inside, backend, threshold_gap=1e-3)[0].status.value == "infeasible"
    result, found = pinned(stump(3.0), inside, backend)
    assert result.verified
    assert found == pytest.approx(2.0)


def test_the_solution_is_on_the_side_of_the_threshold_that_the_output_says() -> None:
    net, model = stump(3.0), linopy.Model()
    x = model.add_variables(0, 10, name="x")
    handle = mn.add_network(model, net, [x], formulation=mn.EmbeddingSettings(threshold_gap=0.0))
    model.add_objective(5 * handle.output.sum() - 1.0 * x, sense="max")
    result = mn.solve(model)
    at = float(x.solution)
    assert result.verified
    assert at == pytest.approx(3.0)
    assert net.forward([[at]]).item() == handle.output.solution.item() == 2.0
    with pytest.raises(InputError, match="`threshold_gap` is 2; expected a number from 0 to"):
        mn.EmbeddingSettings(threshold_gap=2)


@pytest.mark.parametrize(("at", "off"), [(3.0, 1e-7), (np.nextafter(3.0, 4.0), -1e-7)])
def test_an_input_beyond_the_threshold_by_a_tolerance_is_moved_back(at: float, off: float) -> None:
    enc = mn.encode(stump(3.0), mn.Box([[0.0]], [[10.0]]))
    program, point = from_model(enc.model), enc.point(np.array([[at]]))
    point[enc.model.variables["input"].labels.values.item()] += off
    moved, error = replay(enc, program, point[program.labels])
    found = np.full(len(point), np.nan)
    found[program.labels] = moved
    assert enc.value("input", found).item() == at
    assert enc.value("trees", found).item() == enc.network.forward([[at]]).item()
    assert error < 1e-6


def test_a_whole_number_at_a_threshold_of_scaled_data_is_not_left_out() -> None:
    x = np.array([[2.0], [4.0]])
    for shift in (0, 3):
        model = make_pipeline(StandardScaler(), DecisionTreeRegressor()).fit(x + shift, [0.0, 1.0])
        wanted = model.predict([[3.0 + shift]])[0]
        result, found = pinned(mn.from_sklearn(model), 3.0 + shift, "highs")
        assert result.verified
        assert found == pytest.approx(wanted)


KINDS = [
    lambda seed: RandomForestRegressor(3, max_depth=3, random_state=seed),
    lambda seed: make_pipeline(StandardScaler(), RandomForestRegressor(2, max_depth=3, random_state=seed)),
    lambda seed: HistGradientBoostingRegressor(max_iter=3, max_leaf_nodes=5, min_samples_leaf=5, random_state=seed),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 30))])
def test_trees_of_scikit_learn_in_a_model(seed: int, backend: str) -> None:
    g = np.random.default_rng(seed)
    frame = pd.DataFrame(np.round(g.uniform(0, 5, (40, 2)), 1), columns=["heat", "wind"])
    estimator = KINDS[seed % 3](seed).fit(frame, np.sin(frame["heat"]) * frame["wind"])
    net = mn.from_sklearn(estimator)
    hours = pd.RangeIndex(3, name="time")
    wind = xr.DataArray(g.uniform(0, 5, 3), coords=[hours])
    model = linopy.Model()
    heat = model.add_variables(0.5, 4.5, coords=[hours], name="heat")
    known = model.add_variables(wind, wind, coords=[hours], name="known")
    handle = mn.add_network(model, estimator, {"wind": wind, "heat": heat})
    fixed = mn.add_network(model, estimator, {"wind": wind, "heat": known}, prefix="fixed_")
    model.add_objective(handle.output.sum(), sense="max")
    result = mn.solve(model, backend)
    assert result.verified
    wanted = estimator.predict(pd.DataFrame({"heat": wind, "wind": wind}))
    np.testing.assert_allclose(fixed.output.solution.values[:, 0], wanted, rtol=0, atol=1e-9)
    tree = net.output.layer
    best = sum(net.forward(corners(tree, np.array([0.5, at]), np.array([4.5, at]))).max() for at in wind.values)
    assert result.objective == pytest.approx(best, abs=1e-6)
    found = pd.DataFrame({"heat": heat.solution, "wind": wind})
    np.testing.assert_allclose(handle.output.solution.values[:, 0], estimator.predict(found), rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 8))])
def test_rows_of_the_model_and_trees_together(seed: int, backend: str) -> None:
    tree, g = random_ensemble(seed, trees=4, outputs=1), np.random.default_rng(seed)
    net = mn.Network.build((2,), [("trees", tree)])
    model = linopy.Model()
    x = model.add_variables(0, 5, coords=[pd.RangeIndex(2, name="feature")], name="x")
    model.add_constraints(x.sum() <= 4.1, name="budget")
    cost = g.uniform(0.1, 0.3, 2)
    handle = mn.add_network(model, net, x)
    model.add_objective((x * xr.DataArray(cost, dims="feature")).sum() + handle.output.sum())
    result = mn.solve(model, backend)
    tried = corners(tree, np.zeros(2), np.full(2, 5.0))
    tried = tried[tried.sum(axis=1) <= 4.1]
    assert result.verified
    assert result.objective == pytest.approx((tried @ cost + net.forward(tried)[:, 0]).min(), abs=2e-4)
