"""One model, however its inputs are labelled, ordered and given: one optimum, and the output over the user's dimensions."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from linopy.config import LinopySemanticsWarning

import mipnet as mn

NAMES = ("wind", "load", "price")
HOURS, PLANTS = pd.RangeIndex(4, 7, name="time"), pd.Index(["a", "b"], name="plant")
RNG = np.random.default_rng(3)
LOWER = xr.DataArray(RNG.uniform(0, 1, (3, 2, 3)), coords=[HOURS, PLANTS, pd.Index(NAMES, name="quantity")])
UPPER = LOWER + xr.DataArray(RNG.uniform(0.5, 1.5, 3), coords={"quantity": list(NAMES)})
PRICE = LOWER.sel(quantity="price", drop=True)
COST = {"wind": 1.0, "load": -0.7}
NET = mn.Network.build(
    (3,),
    [
        ("fc1", mn.Dense(RNG.normal(size=(4, 3)), RNG.normal(size=4))),
        ("act", mn.ReLU()),
        ("fc2", mn.Dense(RNG.normal(size=(1, 4)), [0.3])),
    ],
).with_input_names(NAMES)
SHARES = RNG.uniform(size=(50, 1, 1, 2))
TRIED = np.concatenate(
    [LOWER.values[..., :2] + SHARES * (UPPER - LOWER).values[..., :2], np.broadcast_to(PRICE.values[..., None], (50, 3, 2, 1))], -1
)
LEAST = xr.DataArray(np.quantile(NET.forward(TRIED.reshape(-1, 3)).reshape(50, 3, 2), 0.7, axis=0), coords=[HOURS, PLANTS])
"""What the output must be at least: more than at most points, so that the network decides the optimum."""


def variables(model: linopy.Model, order: tuple[str, ...] = ("time", "plant")) -> dict[str, Any]:
    """The two free inputs, over time and plant in any order."""
    ends = {name: [end.sel(quantity=name, drop=True).transpose(*order) for end in (LOWER, UPPER)] for name in COST}
    return {name: model.add_variables(*ends[name], name=name) for name in COST}


def stacked(model: linopy.Model, dims: tuple[str, ...], names: tuple[str, ...] = NAMES) -> tuple[linopy.Variable, dict[str, Any]]:
    """All inputs as one variable, the price fixed by its bounds."""
    low, high = LOWER.sel(quantity=list(names)), UPPER.sel(quantity=list(names)).copy()
    high.loc[{"quantity": "price"}] = PRICE
    x = model.add_variables(low.transpose(*dims), high.transpose(*dims), name="x")
    return x, {name: x.sel(quantity=name, drop=True) for name in COST}


def masked(model: linopy.Model) -> Any:
    """One hour more than there is, masked in one input."""
    more = HOURS.union([3]).rename("time")
    low, high = (end.reindex(time=more, fill_value=0.0) for end in (LOWER, UPPER))
    mask = xr.DataArray(np.isin(more, HOURS), coords=[more])
    found = {}
    for name in COST:
        ends = [end.sel(quantity=name, drop=True) for end in (low, high)]
        found[name] = model.add_variables(*ends, name=name, mask=mask.broadcast_like(ends[0]) if name == "wind" else None)
    return found | {"price": PRICE.reindex(time=more, fill_value=0.0)}, {name: found[name].sel(time=list(HOURS)) for name in COST}


def overlapping(model: linopy.Model) -> Any:
    """Each variable over hours that the other one lacks, and prices of more hours."""
    found = {}
    for name, hours in (("wind", [3, *HOURS]), ("load", [*HOURS, 9, 8])):
        ends = [end.sel(quantity=name, drop=True).reindex(time=hours, fill_value=0.0) for end in (LOWER, UPPER)]
        found[name] = model.add_variables(*ends, name=name)
    return found | {"price": PRICE.reindex(time=[9, *HOURS[::-1], 11], fill_value=7.0)}, {
        name: found[name].sel(time=list(HOURS)) for name in COST
    }


def as_expressions(model: linopy.Model) -> Any:
    own = variables(model)
    half = model.add_variables(LOWER.sel(quantity="load", drop=True) / 2, UPPER.sel(quantity="load", drop=True) / 2, name="half")
    return {"wind": 1 * own["wind"], "load": 2 * half, "price": PRICE}, {"wind": own["wind"], "load": 2 * half}


def multiindex(model: linopy.Model) -> Any:
    """Time and plant as the levels of one dimension, and the price over the time and plant of these."""
    index = pd.MultiIndex.from_product([HOURS, PLANTS], names=["time", "plant"])
    found = {}
    for name in COST:
        ends = [end.sel(quantity=name).values.reshape(-1) for end in (LOWER, UPPER)]
        coords = xr.Coordinates.from_pandas_multiindex(index, "snapshot")
        found[name] = model.add_variables(*(xr.DataArray(end, dims="snapshot", coords=coords) for end in ends), name=name)
    return found | {"price": xr.DataArray(PRICE.values.reshape(-1), dims="snapshot", coords=coords)}, found


def listed(model: linopy.Model) -> Any:
    own = variables(model)
    return [own["wind"], own["load"], PRICE], own


def in_a_dict(model: linopy.Model) -> Any:
    own = variables(model)
    return {"price": PRICE, "load": own["load"], "wind": own["wind"]}, own


def exchanged(model: linopy.Model) -> Any:
    own = variables(model, ("plant", "time"))
    return {"price": PRICE.transpose("plant", "time"), **own}, own


def mixed_order(model: linopy.Model) -> Any:
    """One input over (time, plant), the other one over (plant, time) with the plants in another order."""
    own = variables(model)
    low, high = (end.sel(quantity="load", drop=True).transpose("plant", "time")[::-1] for end in (LOWER, UPPER))
    turned = model.add_variables(low, high, name="turned")
    return {"wind": own["wind"], "load": turned, "price": PRICE}, {"wind": own["wind"], "load": turned.sel(plant=list(PLANTS))}


def one_array(dims: tuple[str, ...], names: tuple[str, ...] = NAMES) -> Callable[[linopy.Model], Any]:
    return lambda model: stacked(model, dims, names)


def an_expression(model: linopy.Model) -> Any:
    x, own = stacked(model, ("quantity", "time", "plant"), ("price", "wind", "load"))
    return 1 * x, own


GIVEN: dict[str, Callable[[linopy.Model], Any]] = {
    "list": listed,
    "dict": in_a_dict,
    "exchanged": exchanged,
    "mixed order": mixed_order,
    "expressions": as_expressions,
    "one hour masked": masked,
    "overlapping": overlapping,
    "MultiIndex": multiindex,
    "one expression": an_expression,
    **{"-".join(dims): one_array(dims) for dims in itertools.permutations(("time", "plant", "quantity"))},
    "shuffled": one_array(("time", "quantity", "plant"), ("load", "price", "wind")),
}


def model_of(given: Callable[[linopy.Model], Any], **keywords: Any) -> tuple[linopy.Model, mn.Encoding]:
    """The cheapest inputs for which the output is at least something, at every time and plant."""
    model = linopy.Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinopySemanticsWarning)
        x, own = given(model)
        handle = mn.add_network(model, NET, x, **keywords)
        least = LEAST
        if "snapshot" in handle.output.dims:
            least = xr.DataArray(LEAST.values.reshape(-1), dims="snapshot", coords=handle.output.labels.isel(fc2_unit=0, drop=True).coords)
        out = handle.output.isel(fc2_unit=0, drop=True)
        model.add_constraints(out if "snapshot" in out.dims else out.sel(time=list(HOURS)), ">=", least, name="least")
        model.add_objective(sum((COST[name] * own[name]).sum() for name in COST) + 0.5 * handle.output.sum())
    return model, handle


@pytest.fixture(scope="module")
def optimum() -> float:
    """The optimum by one network per time and plant, each on three plain variables."""
    model, parts = linopy.Model(), []
    for i, (t, p) in enumerate(itertools.product(HOURS, PLANTS)):
        low, high = LOWER.sel(time=t, plant=p).values, UPPER.sel(time=t, plant=p).values.copy()
        high[2] = low[2]
        x = model.add_variables(lower=low, upper=high, coords=[pd.RangeIndex(3, name="feature")], name=f"x{i}")
        handle = mn.add_network(model, NET, x, prefix=f"p{i}_")
        model.add_constraints(handle.output, ">=", float(LEAST.sel(time=t, plant=p)), name=f"least{i}")
        parts.append((x * xr.DataArray([1.0, -0.7, 0.0], coords=[pd.RangeIndex(3, name="feature")])).sum() + 0.5 * handle.output.sum())
    model.add_objective(sum(parts))
    return mn.solve(model, mip_gap=1e-9).objective


FIRST = ("dict", "expressions", "one hour masked", "overlapping", "MultiIndex", "shuffled")
"""Those that run in each test run, on one backend each."""


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks=[pytest.mark.sweep] * (name not in FIRST or backend != ("highs", "scip")[i % 2]))
        for i, name in enumerate(GIVEN)
        for backend in ("highs", "scip")
    ],
)
def test_one_optimum_however_the_inputs_are_given(name: str, backend: str, optimum: float) -> None:
    model, handle = model_of(GIVEN[name])
    rows = model.constraints["least"].labels
    assert rows.size == LEAST.size
    result = mn.solve(model, backend, mip_gap=1e-9)
    assert result.verified
    assert result.objective == pytest.approx(optimum, abs=1e-6)
    assert "sample" not in handle.output.dims
    assert int((handle.output.labels >= 0).sum()) == LEAST.size
