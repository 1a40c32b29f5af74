"""The nearest input with another answer, against one mixed-integer program per activation pattern, and against all points of a grid."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.optimize import Bounds, LinearConstraint, milp

import mipnet as mn
from mipnet.errors import DataError, InputError, UnsupportedError
from tests.sweep import sweep
from tests.verification.worked import INPUTS, OUTPUTS, pieces, random_network

BACKENDS = ("highs", "scip")
ORDER = {"linf": np.inf, "l1": 1, "l2": 2}
NAMES = ("age", "income", "debt")
HALF_SPACES = np.array([[1.0, 1.0, -0.5], [-1.0, 0.5, 1.0]]), np.array([0.8, 0.6])
POINTS = np.random.default_rng(5).normal(size=(8, INPUTS))


def nearest(net, x, target, norm, weights, *, ends=(-2.0, 2.0), integer=(), rows=None, points=None, one_hot=None):
    """The smallest distance in the sum or maximum norm, by SciPy; infinite if there is no such input."""
    slack, hull, best = 1 if norm == "linf" else INPUTS, 0 if points is None else len(points), np.inf
    spread, none = np.ones((INPUTS, 1)) if norm == "linf" else np.eye(INPUTS), np.zeros((INPUTS, hull))
    low, high = (np.broadcast_to(end, INPUTS) for end in ends)
    kinds = np.zeros(INPUTS + slack + hull)
    kinds[list(integer)] = 1
    for matrix, right, slope, constant in pieces(net):
        others = [c for c in range(OUTPUTS) if c != target]
        x_rows = [(matrix, right), (slope[others] - slope[target], constant[target] - constant[others] - 1e-4)]
        x_rows += [] if rows is None else [rows]
        parts = [(np.hstack([a, np.zeros((len(a), slack + hull))]), -np.inf, b) for a, b in x_rows]
        parts += [(np.hstack([sign * np.diag(weights), -spread, none]), -np.inf, sign * weights * x) for sign in (1, -1)]
        if points is not None:
            parts.append((np.hstack([np.eye(INPUTS), np.zeros((INPUTS, slack)), -points.T]), 0, 0))
            parts.append((np.hstack([np.zeros((1, INPUTS + slack)), np.ones((1, hull))]), 1, 1))
        if one_hot is not None:
            parts.append((np.isin(np.arange(INPUTS + slack + hull), one_hot)[None].astype(float), 1, 1))
        limits = Bounds([*low, *[0] * (slack + hull)], [*high, *[np.inf] * (slack + hull)])
        cost = np.concatenate([np.zeros(INPUTS), np.ones(slack), np.zeros(hull)])
        found = milp(cost, constraints=[LinearConstraint(*part) for part in parts], integrality=kinds, bounds=limits)
        best = min(best, found.fun if found.status == 0 else np.inf)
    return best


def asked(seed):
    """A network, an input, a class that is not its own, and weights."""
    g = np.random.default_rng([seed, 3])
    net = random_network(seed, (3, 2)).with_input_names(NAMES)
    x = g.uniform(-1, 1, INPUTS)
    y = net.forward(x[None])[0]
    return net, x, int(y.argsort()[-2]), g.uniform(0.5, 2, INPUTS)


BOX = mn.Box(np.full((1, INPUTS), -2.0), np.full((1, INPUTS), 2.0))
KINDS = {
    "box": ({}, BOX, {}),
    "immutable": ({"immutable": ["income"]}, BOX, {}),
    "integer": ({"integer": ["age", 1]}, BOX, {"integer": [0, 1]}),
    "half-spaces": ({}, mn.Polytope(*HALF_SPACES, lower=-2, upper=2), {"rows": HALF_SPACES}),
    "whole in half-spaces": ({"integer": [2]}, mn.Polytope(*HALF_SPACES, lower=-2, upper=2), {"rows": HALF_SPACES, "integer": [2]}),
    "hull": ({}, mn.ConvexHull(POINTS), {"points": POINTS, "ends": (-9.0, 9.0)}),
    "one-hot": ({"one_hot": [["income", "debt"]]}, BOX, {"one_hot": [1, 2], "integer": [1, 2], "ends": ([-2.0, 0, 0], [2.0, 1, 1])}),
}
CASES = list(itertools.product(("integer", "hull", "box", "one-hot", "half-spaces", "immutable", "whole in half-spaces"), ORDER, BACKENDS))


@pytest.mark.parametrize("seed", sweep(range(3), every=3))
@pytest.mark.parametrize(("kind", "norm", "backend"), sweep(CASES, every=9))
def test_the_nearest_input(seed, kind, norm, backend):
    net, x, target, weights = asked(seed)
    given, within, known = KINDS[kind]
    if kind == "one-hot":
        x = np.array([x[0], 1.0, 0.0])
        target = (int(net.forward(x[None]).argmax()) + 1) % OUTPUTS
    if kind == "immutable":
        known = {"ends": ([-2, x[1], -2], [2, x[1], 2])}
    settings = mn.CounterfactualSettings(backend, within=within, weights=weights)
    found = mn.counterfactual(net, x, target, norm=norm, backend=settings, **_by_position(given))
    truth = nearest(net, x, target, "l1" if norm == "l2" else norm, weights, **known)
    if found.status == "infeasible":
        assert truth == np.inf
        assert found.point is None
        assert "proven" in found.warnings[0]
        return
    assert found.status == "optimal"
    assert found.bound <= found.distance <= found.bound * (1 + 3e-3)
    assert found.bound <= truth + 1e-7
    assert norm == "l2" or found.distance >= truth - 1e-5
    point = found.point.values
    assert list(found.point.coords["feature"].values) == list(NAMES)
    assert np.linalg.norm(weights * (point - x), ORDER[norm]) == pytest.approx(found.distance, abs=1e-12)
    y = net.forward(point[None])[0]
    np.testing.assert_array_equal(found.output.values, y)
    assert y[target] - np.delete(y, target).max() >= 1e-4 - 1e-12
    assert within.contains(point[None], 1e-5)
    whole = [*known.get("integer", ()), *known.get("one_hot", ())]
    np.testing.assert_array_equal(point[whole], np.round(point[whole]))


def _by_position(given):
    """Features by name where the network has names: numbers become names."""
    return {key: [NAMES[f] if isinstance(f, int) else f for f in features] for key, features in given.items()}


def on_grid(net, x, target):
    """All whole inputs from -2 to 2 with the class, and their distances."""
    grid = np.array(list(itertools.product(range(-2, 3), repeat=INPUTS)), dtype=float)
    y = net.forward(grid)
    wins = y[:, target] - np.delete(y, target, axis=1).max(axis=1) >= 1e-4
    return grid[wins], np.abs(grid[wins] - x).sum(axis=1)


@pytest.mark.parametrize(("backend", "apart", "seed"), sweep([(b, a, s) for a in (None, 2.0) for s in (8, 9) for b in BACKENDS], every=5))
def test_several_answers_differ(backend, apart, seed):
    net, g = random_network(seed, (3, 2)), np.random.default_rng(seed)
    x = g.integers(-2, 3, INPUTS).astype(float)
    target = int(net.forward(x[None])[0].argsort()[-2])
    points, distances = on_grid(net, x, target)
    settings = mn.CounterfactualSettings(backend, within=BOX, count=4, apart=apart)
    found = mn.counterfactual(net, x, target, integer=range(INPUTS), backend=settings)
    left = np.ones(len(points), dtype=bool)
    for each in (found, *found.further):
        truth = distances[left].min(initial=np.inf)
        assert each.status == ("optimal" if np.isfinite(truth) else "infeasible")
        assert each.distance == truth
        assert each.bound <= truth
        if each.point is None:
            assert each is found.further[-1]
            assert "there are" in found.warnings[-1]
            break
        point = each.point.values
        if apart is None:
            changed = point != x
            left &= (points[:, changed] == x[changed]).any(axis=1)
        else:
            left &= (np.abs(points - point) >= apart).any(axis=1)
    table = found.table()
    assert list(table.index) == ["given", *(f"answer {k + 1}" for k in range(len(found.answers)))]
    assert table["distance"].is_monotonic_increasing


def score():
    """One output, ``relu(a) - relu(b) + c / 2``."""
    weights = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    layers = [("fc", mn.Dense(weights)), ("act", mn.ReLU()), ("out", mn.Dense(torch.tensor([[1.0, -1.0, 0.5, -0.5]]).double()))]
    return mn.Network.build((3,), layers)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interval_of_the_only_output_without_limits_by_hand(backend):
    x = {"a": 0.5, "b": 1.0, "c": 0.0}
    found = mn.counterfactual(score(), x, (0.25, None), backend=backend)
    assert found.distance == pytest.approx(0.75, abs=1e-4)
    assert found.bound <= 0.75
    assert float(found.output[0]) >= 0.25
    assert set(found.change.coords["feature"].values) <= {"a", "b"}
    frozen = mn.counterfactual(score(), x, (0.25, 0.3), immutable=["a", "b"], backend=backend)
    assert frozen.change.to_dict()["coords"]["feature"]["data"] == ["c"]
    assert frozen.distance == pytest.approx(1.5, abs=1e-4)
    only_down = mn.CounterfactualSettings(backend, decreasing=["a", "b"], increasing=["c"])
    assert float(mn.counterfactual(score(), x, {0: (0.25, 0.3)}, backend=only_down).change.sel(feature="b")) == pytest.approx(
        -0.75, abs=1e-4
    )


@pytest.mark.parametrize("backend", ["scip", pytest.param("highs", marks=pytest.mark.sweep)])
def test_a_near_answer_within_wide_limits_is_closed(backend):
    """Gradient search finds none, so that the first program is over the whole of the limits, far wider than the distance."""
    g = np.random.default_rng(0)
    first = mn.Dense(g.normal(size=(5, 3)) / [100, 1, 1], g.normal(size=5))
    net = mn.Network.build((3,), [("fc1", first), ("act", mn.ReLU()), ("fc2", mn.Dense(g.normal(size=(2, 5))))])
    x = np.array([0.3, 1, 0])
    target = 1 - int(net.forward(x[None]).argmax())
    every = np.array([[whole, *kind] for whole in range(-1000, 1001) for kind in ((1, 0), (0, 1))], dtype=float)
    y = net.forward(every)
    nearest_one = np.abs(every - x).sum(1)[y[:, target] - y[:, 1 - target] >= 1e-4].min()
    settings = mn.CounterfactualSettings(within=mn.Box([[-1000, 0, 0]], [[1000, 1, 1]]), backend=backend)
    found = mn.counterfactual(net, x, target, integer=[0], one_hot=[[1, 2]], backend=settings)
    assert found.status == "optimal"
    assert found.bound <= nearest_one == pytest.approx(found.distance)
    assert found.bound >= found.distance * (1 - 2e-3)


def test_an_input_that_has_the_answer_already():
    net, x, _, _ = asked(0)
    found = mn.counterfactual(net, x, int(net.forward(x[None]).argmax()))
    assert (found.distance, found.bound, found.status) == (0.0, 0.0, "optimal")
    assert not found.change.size


def test_nothing_may_change():
    net, x, target, _ = asked(0)
    found = mn.counterfactual(net, x, target, immutable=NAMES)
    assert (found.status, found.distance, found.bound) == ("infeasible", np.inf, np.inf)
    with pytest.raises(InputError, match="there is no counterfactual"):
        _ = found.change


def test_labels_decide():
    net, x, target, weights = asked(2)
    plain = mn.counterfactual(net, x, target, backend=mn.CounterfactualSettings(weights=weights, within=BOX))
    order = [2, 0, 1]
    names = [NAMES[k] for k in order]
    array = xr.DataArray(x[order], dims="feature", coords={"feature": names})
    for given in (pd.Series(x[order], names), array, dict(zip(NAMES, x, strict=True))):
        settings = mn.CounterfactualSettings(weights=pd.Series(weights[order], names), within=BOX)
        found = mn.counterfactual(net, given, target, backend=settings)
        assert found.distance == pytest.approx(plain.distance, rel=2e-3)
        np.testing.assert_array_equal(found.x.values, x)


def test_time_ends_before_anything_is_proven(monkeypatch):
    net, x, target, _ = asked(0)
    found = mn.counterfactual(net, x, target, backend=mn.CounterfactualSettings(within=BOX, time_limit=1e-9))
    assert found.status in ("unknown", "feasible")
    assert found.bound == 0
    assert found.warnings


def test_softmax_classes_are_those_of_the_logits():
    net, x, target, _ = asked(2)
    with_softmax = replace(net, softmax=mn.FinalSoftmax("softmax", (0,)))
    settings = mn.CounterfactualSettings(within=BOX)
    found, plain = (mn.counterfactual(each, x, target, backend=settings) for each in (with_softmax, net))
    assert found.distance == plain.distance
    assert found.output.values.sum() == pytest.approx(1)
    assert found.output.values.argmax() == target
    with pytest.raises(UnsupportedError, match=r"expected a class, or `network.without_softmax"):
        mn.counterfactual(with_softmax, x, {0: (0.5, None)})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"immutable": ["agee"]}, "`immutable` has the feature 'agee'; the features are age, income, debt; did you mean `age`"),
        ({"integer": "age"}, "`integer` is 'age'; expected a list of features"),
        ({"integer": ["age", "age"]}, "`integer` has a feature twice"),
        ({"one_hot": ["age", "debt"]}, "`one_hot` is .*; expected a list of groups"),
        ({"one_hot": [["age", "debt"]]}, "one-hot group; expected one 1"),
        ({"one_hot": [["age"]]}, "fewer than two features"),
        ({"integer": ["debt"], "immutable": ["debt"]}, "`debt` is a whole number, and immutable at 0.5"),
        ({"target": 3}, "the target is 3; expected a class from 0 to 2"),
        ({"target": True}, "expected a class from 0 to 2"),
        ({"target": (0.5, 1.0)}, "expected a class from 0 to 2"),
        ({"target": {7: (0, 1)}}, "the target has the output 7; expected a number from 0 to 2"),
        ({"target": {0: (2, 1)}}, r"the target of output 0 is \(2, 1\); expected lower <= upper"),
        ({"target": {0: (None, None)}}, "the target bounds no output"),
        ({"norm": "l3"}, "the norm is `l3`"),
        ({"x": [0.0, 0.5]}, r"the input has shape \(2,\); the network takes \(3,\)"),
        ({"x": {"age": 1, "debt": 2}}, "the input lacks `income`"),
        ({"x": {"age": 1, "debt": 2, "z": 3}}, "the input has the feature 'z'"),
        ({"x": [np.nan, 0, 0]}, "NaN"),
        ({"within": mn.Box([[0.0] * 3], [[1.0] * 3]), "x": [5.0, 0.5, 0.5]}, r"the input has `age` = 5, outside of its bounds \[0, 1\]"),
        ({"within": mn.L1(np.zeros((1, 3)), 1.0)}, "several sets or a ball"),
        ({"within": mn.ConvexHull(pd.DataFrame(POINTS, columns=["age", "debt", "z"]))}, "the input set has a feature `z`"),
        ({"weights": [1, 0, 1]}, "`weights` has 0 for `income`"),
        ({"weights": [1, 1]}, r"`weights` has shape \(2,\)"),
        ({"increasing": ["age"], "within": mn.Polytope(*HALF_SPACES, -2, -1)}, "`age` has no value left"),
        ({"time_limit": 5}, "write `backend=mn.CounterfactualSettings"),
    ],
)
def test_what_is_no_question(given, message):
    keywords = {key: given[key] for key in ("immutable", "integer", "one_hot", "norm", "time_limit") if key in given}
    settings = {key: given[key] for key in ("within", "weights", "increasing") if key in given}
    x, target = given.get("x", [0.0, 0.25, 0.5]), given.get("target", 1)
    with pytest.raises((DataError, InputError), match=message):
        mn.counterfactual(asked(0)[0], x, target, backend=mn.CounterfactualSettings(**settings), **keywords)


@pytest.mark.parametrize(("field", "value"), [("count", 0), ("count", 1.5), ("apart", 0.0), ("margin", -1.0), ("time_limit", 0)])
def test_settings_that_are_none(field, value):
    with pytest.raises(InputError, match=f"`{field}`|time limit"):
        mn.counterfactual(asked(0)[0], [0.0, 0.25, 0.5], 1, backend=mn.CounterfactualSettings(**{field: value}))
