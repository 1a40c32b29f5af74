"""Layers whose weights differ by factors of 1e3 to 1e9, the same function: `mn.reach`, `mn.add_network` and importance at every ratio.

The oracle is the enumeration of all linear regions; in the cases of `make test` it is a grid of inputs and the forward pass.
"""

from __future__ import annotations

from functools import cache

import linopy
import numpy as np
import pytest

import mipnet as mn
from tests.solving.test_scaling import BACKENDS, largest, scaled_network, weights
from tests.sweep import marked

RATIOS = (1e6, 1e3, 1e9, 1e-3, 1e-6, 1e-9)
"""The weights of the first layer are multiplied by it, those of the second or third are divided."""

BOX = mn.Box(-np.ones((1, 2)), np.ones((1, 2)))
GRID = np.stack(np.meshgrid(*[np.linspace(-1, 1, 201)] * 2), axis=-1).reshape(-1, 2)
PLACES = ("second", "third")
CASES = [(ratio, place, backend) for ratio in RATIOS for place in PLACES for backend in BACKENDS]
ALL = [case if case in ((1e6, "second", "scip"), (1e9, "third", "highs")) else marked(case) for case in CASES]


def network(ratio: float, place: str) -> mn.Network:
    return scaled_network(weights(0), ratio, 1.0 if place == "second" else ratio, 1.0, 1.0)


@cache
def exact() -> float:
    return largest(weights(0))


def check(value: float, bound: float, net: mn.Network, *, exactly: bool) -> None:
    """Value and bound are both the maximum, up to 1e-4 of it, and no input of the grid is above the bound."""
    assert value == pytest.approx(bound, rel=2e-4)
    assert float(net.forward(GRID).max()) <= bound
    if exactly:
        assert value - 1e-9 <= exact() <= bound


@pytest.mark.parametrize(("ratio", "place", "backend"), ALL, ids=str)
def test_reach_at_every_ratio(ratio: float, place: str, backend: str, request: pytest.FixtureRequest) -> None:
    net = network(ratio, place)
    found = mn.reach(net, BOX, backend=backend)
    (end,) = found.highest
    assert found.closed
    assert float(net.forward(end.point[None])[0, 0]) == pytest.approx(end.value, rel=1e-9)
    check(end.value, end.bound, net, exactly=request.node.get_closest_marker("sweep") is not None)


@pytest.mark.filterwarnings("ignore:.*drops .* coefficients")
@pytest.mark.parametrize(("ratio", "place", "backend"), ALL, ids=str)
def test_add_network_at_every_ratio(ratio: float, place: str, backend: str, request: pytest.FixtureRequest) -> None:
    net, model = network(ratio, place), linopy.Model()
    x = model.add_variables(-1, 1, coords=[("i", [0, 1])], name="x")
    handle = mn.add_network(model, net, x)
    model.add_objective(1 * handle.output.sum(), sense="max")
    result = mn.solve(model, backend, mip_gap=1e-5)
    assert result.status is mn.Status.OPTIMAL
    assert result.verified
    assert float(net.forward(np.asarray(model.variables["x"].solution)[None])[0, 0]) == pytest.approx(result.objective, rel=1e-5)
    slack = 1e-5 * abs(result.objective)
    check(result.objective, result.bound + slack, net, exactly=request.node.get_closest_marker("sweep") is not None)


@pytest.mark.parametrize("bounds", ["sound", pytest.param("paper", marks=pytest.mark.sweep)])
@pytest.mark.parametrize(("ratio", "place", "backend"), [ALL[0], *map(marked, CASES[1:])], ids=str)
def test_importance_at_every_ratio(ratio: float, place: str, backend: str, bounds: str) -> None:
    """The scores act on units, so that the program of the scaled network has the same objective at the same scores."""
    g = np.random.default_rng(1)
    images, labels, w = g.uniform(-1, 1, (3, 2)), np.array([0, 1, 1]), weights(0)
    last = np.stack([w[4], -w[4]])
    nets = []
    for factor in (1.0, ratio):
        second = 1.0 if place == "second" else factor
        layers = [mn.Dense(w[0] * factor, w[1] * factor), mn.ReLU(), mn.Dense(w[2] * second / factor, w[3] * second), mn.ReLU()]
        nets.append(mn.Network.build((2,), [(f"n{k}", layer) for k, layer in enumerate([*layers, mn.Dense(last / second)])]))
    objective = mn.Objective(3.0, mn.Loss("margin"))
    found = [mn.Importance(net, images, labels, objective, bounds=bounds).solve(backend, mip_gap=1e-6).result for net in nets]
    assert found[1].objective == pytest.approx(found[0].objective, rel=1e-4)
    assert found[1].bound <= found[0].objective + 1e-5
