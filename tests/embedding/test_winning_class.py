"""`argmax_is`: the class that is asked for wins by its margin, at the best input; checked by the network on a grid of all vertices."""

from __future__ import annotations

from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import mipnet as mn
from mipnet.errors import DataError, InputError

NET = mn.Network.build(
    (2,),
    [
        ("fc1", mn.Dense([[1.0, -1.0], [1.0, 1.0]], [0.0, -1.0])),
        ("act", mn.ReLU()),
        ("fc2", mn.Dense([[1.0, -1.0], [-1.0, 1.0], [0.5, 0.5]], [0.25, 0.0, 0.0])),
    ],
)
STEPS = np.linspace(-1, 1, 161)
GRID = np.stack(np.meshgrid(STEPS, STEPS, indexing="ij"), axis=-1).reshape(-1, 2)
OUTPUT = NET.forward(GRID)
HOURS = pd.Index([3, 4, 5], name="time")


def best(label: int, margin: float, cost: np.ndarray) -> float:
    """The smallest cost of a point of the grid where the class wins."""
    others = np.delete(OUTPUT, label, axis=1)
    wins = OUTPUT[:, label] - others.max(axis=1) >= margin - 1e-9
    return float((GRID @ cost)[wins].min())


def embedded(**keywords: Any) -> tuple[linopy.Model, linopy.Variable, mn.Encoding]:
    model = linopy.Model()
    x = model.add_variables(-1, 1, coords=[pd.Index(["a", "b"], name="feature"), HOURS], name="x")
    return model, x, mn.add_network(model, NET, x, **keywords)


@pytest.mark.parametrize("backend", ["highs", pytest.param("scip", marks=pytest.mark.sweep)])
@pytest.mark.parametrize("margin", [0.125, pytest.param(0.0, marks=pytest.mark.sweep), pytest.param(0.25, marks=pytest.mark.sweep)])
def test_each_hour_has_the_class_that_it_is_asked_for(backend: str, margin: float) -> None:
    """The classes are given by label, over other hours in another order, and the network agrees in torch."""
    model, x, handle = embedded(prefix="n_")
    classes = xr.DataArray([2, 0, 1, 0], coords=[pd.Index([5, 4, 3, 9], name="time")])
    rows = mn.argmax_is(handle, classes.sel(time=[5, 3, 4]), margin=margin)
    assert rows.name == "n_argmax_is"
    cost = np.array([1.0, 0.3])
    model.add_objective((x * pd.Series(cost, pd.Index(["a", "b"], name="feature"))).sum())
    result = mn.solve(model, backend, mip_gap=1e-9)
    assert result.verified
    found = torch.as_tensor(NET.forward(x.solution.transpose("time", "feature").values))
    gaps = [float(y[k] - np.delete(y.numpy(), k).max()) for y, k in zip(found, [1, 0, 2], strict=True)]
    assert min(gaps) >= margin - 1e-5
    assert result.objective == pytest.approx(sum(best(k, margin, cost) for k in (1, 0, 2)), abs=2e-2)
    assert result.objective <= sum(best(k, margin, cost) for k in (1, 0, 2)) + 1e-6


def test_one_class_for_all_and_its_removal() -> None:
    model, x, handle = embedded()
    mn.argmax_is(handle, 1, margin=0.1)
    mn.argmax_is(handle, 1)
    assert "argmax_is_" in model.constraints
    model.add_objective(x.sum())
    result = mn.solve(model)
    assert (NET.forward(x.solution.transpose("time", "feature").values).argmax(axis=1) == 1).all()
    mn.argmax_is(handle, 0)
    assert mn.solve(model).status is mn.Status.INFEASIBLE
    handle.remove()
    assert list(model.constraints) == []
    assert mn.solve(model).objective < result.objective


def test_an_encoding_of_its_own_model() -> None:
    enc = mn.encode(NET, mn.Box(-np.ones((2, 2)), np.ones((2, 2))))
    mn.argmax_is(enc, pd.Series([2, 1], pd.RangeIndex(2, name="sample")), margin=0.125)
    enc.model.add_objective(enc.input.sum())
    assert mn.solve(enc).objective <= sum(best(k, 0.125, np.ones(2)) for k in (2, 1)) + 1e-6
    assert NET.forward(enc.input.solution.values).argmax(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("label", "margin", "kind", "message"),
    [
        (3, 0.1, DataError, "the output has no class 3; the labels of `fc2_unit` are 0, 1, 2"),
        ("cat", 0.1, DataError, "the output has no class cat;"),
        (True, 0.1, DataError, "the output has no class True"),
        (1, -0.1, InputError, "-0.1 as `margin`; expected a finite number of at least 0"),
        ([0, 1, 2], 0.1, DataError, "an array without labels; expected a label of `fc2_unit`"),
        (xr.DataArray([0, 1], coords=[HOURS[:2]]), 0.1, DataError, "the classes lack time=5; expected one entry"),
        (pd.Series(["a", "b", "a"], HOURS), 0.1, DataError, "the output has no class a; the labels of `fc2_unit` are 0, 1, 2"),
        (pd.Series([True, False, True], HOURS), 0.1, DataError, "the output has no class True"),
        (pd.Series([0, np.nan, 2], HOURS), 0.1, DataError, "the classes contain NaN; expected a number"),
        (xr.DataArray([0, 1], dims="plant"), 0.1, DataError, "the classes have the dimension `plant`"),
    ],
)
def test_what_is_no_class_is_refused(label: Any, margin: float, kind: type[Exception], message: str) -> None:
    model, _, handle = embedded()
    before = list(model.constraints)
    with pytest.raises(kind, match=message):
        mn.argmax_is(handle, label, margin=margin)
    assert list(model.constraints) == before


def test_a_network_without_classes_is_refused() -> None:
    enc = mn.encode(mn.Network.build((2,), [("fc", mn.Dense([[1.0, 1.0]]))]), mn.Box(-np.ones((1, 2)), np.ones((1, 2))))
    with pytest.raises(InputError, match=r"has shape \(1,\); expected a vector"):
        mn.argmax_is(enc, 0)
