"""A user's own linopy model means the same before and after every call, and mipnet writes the same rows under each semantics of linopy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
from linopy.config import LinopySemanticsWarning

import mipnet as mn
from mipnet.model.to_program import from_model
from mipnet.testing import check_layer

OPTIONS = dict(linopy.options._current_values)

NETWORK = mn.Network.build(
    (2,),
    [
        ("fc1", mn.Dense([[1.0, -1.0], [2.0, 1.0], [-1.0, 0.5]], [0.1, 0.2, 0.3])),
        ("r", mn.ReLU()),
        ("fc2", mn.Dense([[1.0, 1.0, 1.0], [1.0, -1.0, 0.5]])),
    ],
)
BOX = mn.Box(-np.ones((1, 2)), np.ones((1, 2)))
IMAGES, CLASSES = np.array([[0.2, 0.8], [-0.5, 0.1]]), np.array([0, 1])


@pytest.fixture(params=["legacy", "v1"])
def semantics(request: pytest.FixtureRequest) -> Iterator[str]:
    with linopy.options:
        linopy.options["semantics"] = request.param
        yield request.param


def users_optimum() -> tuple[float, float]:
    """The largest production with ramps, the first hour of which has none under `v1`; and one with capacities over other hours.

    Capacities over the hours 2 to 5 are added to those over 0 to 3 by position under `legacy`; under `v1` they cannot be added.
    """
    hours, later = (pd.RangeIndex(first, first + 4, name="time") for first in (0, 2))
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinopySemanticsWarning)
        for rows in ("ramp", "sum"):
            m = linopy.Model()
            q = m.add_variables(lower=0, upper=10, coords=[hours], name="q")
            r = m.add_variables(lower=0, upper=10, coords=[later], name="r")
            if rows == "ramp":
                m.add_constraints(q - q.shift(time=1) <= 3, name="ramp")
            else:
                try:
                    m.add_constraints(q + r <= pd.Series([4.0, 5.0, 6.0, 7.0], hours), name="sum")
                except ValueError:
                    found.append(float("nan"))
                    continue
            m.add_objective(1 * q.sum() + 1 * r.sum(), sense="max")
            found.append(mn.solve(m).objective)
    return found[0], found[1]


EXPECTED = {"legacy": (28.0 + 40.0, 22.0), "v1": (40.0 + 40.0, float("nan"))}


def embedded() -> tuple[linopy.Model, linopy.Variable, mn.Encoding]:
    model = linopy.Model()
    x = model.add_variables(lower=-1, upper=1, coords=[pd.RangeIndex(3, name="sample"), pd.Index([0, 1], name="input_unit")], name="x")
    handle = mn.add_network(model, NETWORK, x)
    model.add_objective(handle.output.sum())
    return model, x, handle


def opened() -> None:
    model, x, _ = embedded()
    with mn.open_problem(model) as problem:
        problem.set_objective(x, sense="max")
        problem.set_bounds(x, upper=0.5)
        assert problem.solve().objective == pytest.approx(3.0)


CALLS: dict[str, Callable[[], Any]] = {
    "encode": lambda: mn.encode(NETWORK, BOX, gates="all"),
    "ball": lambda: mn.encode(NETWORK, mn.L1(np.zeros((1, 2)), 0.5)),
    "solve": lambda: mn.solve(embedded()[0]),
    "explain": lambda: mn.explain(embedded()[2]),
    "open_problem": opened,
    "importance": lambda: mn.importance(NETWORK, IMAGES, CLASSES),
    "tighten": lambda: mn.tighten(NETWORK, BOX),
    "reach": lambda: mn.reach(NETWORK, BOX),
    "verify": lambda: mn.robustness(NETWORK, IMAGES[0], radius=0.1),
    "minimum_distortion": lambda: mn.minimum_distortion(NETWORK, IMAGES[0], upper=0.5),
    "agree": lambda: mn.agree(NETWORK, NETWORK, BOX, within=0.1),
    "check_layer": lambda: check_layer(mn.ReLU(), (2,)),
}


SLOW = ("check_layer", "tighten", "reach", "minimum_distortion", "importance")


@pytest.mark.parametrize("call", [pytest.param(name, marks=[pytest.mark.sweep] * (name in SLOW)) for name in CALLS])
def test_a_users_model_means_the_same_after_a_call(call: str, semantics: str) -> None:
    before = dict(linopy.options._current_values)
    assert before == OPTIONS | {"semantics": semantics}
    assert linopy.options._defaults == OPTIONS
    CALLS[call]()
    assert linopy.options._current_values == before
    assert users_optimum() == pytest.approx(EXPECTED[semantics], nan_ok=True)


@pytest.mark.parametrize("relu", ["auto", "big-m", "sos1", "indicator", "partition", "hull", "anderson"])
def test_the_rows_of_a_network_are_the_same_under_each_semantics(relu: str) -> None:
    found = []
    for semantics in ("legacy", "v1"):
        with linopy.options:
            linopy.options["semantics"] = semantics
            _, _, handle = embedded()
            other = mn.encode(NETWORK, BOX, formulation={"relu": relu})
            other.model.add_objective(other.output.sum())
            found.append([from_model(each.model) for each in (handle, other)])
    for one, two in zip(*found, strict=True):
        assert (one.rows.matrix != two.rows.matrix).nnz == 0
        for first, second in (
            (one.rows.lower, two.rows.lower), (one.rows.upper, two.rows.upper), (one.cost, two.cost), (one.lower, two.lower),
            (one.upper, two.upper), (one.integer, two.integer),
        ):  # fmt: skip
            assert np.array_equal(first, second)
        assert [s.tolist() for s in one.sos1] == [s.tolist() for s in two.sos1]
        assert (one.indicators is None) == (two.indicators is None)
        if one.indicators is not None:
            assert (one.indicators.rows.matrix != two.indicators.rows.matrix).nnz == 0
            assert np.array_equal(one.indicators.rows.upper, two.indicators.rows.upper)
