"""The handle of an embedded network, and the model after a solve: solution, status, error, summary, removal."""

from __future__ import annotations

import dataclasses
import gc
import io
import pickle
import warnings
import weakref
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

import mipnet as mn
from mipnet.errors import InputError
from mipnet.solving.write_back import write_back

RNG = np.random.default_rng(2)
NET = mn.Network.build(
    (3,),
    [
        ("fc1", mn.Dense(RNG.normal(size=(5, 3)), RNG.normal(size=5))),
        ("act", mn.ReLU()),
        ("fc2", mn.Dense(RNG.normal(size=(2, 5)))),
    ],
)
HOURS, FEATURES = pd.Index([3, 4, 5, 6], name="time"), pd.Index(["a", "b", "c"], name="feature")


def dispatch(**keywords: Any) -> tuple[linopy.Model, linopy.Variable, mn.Encoding]:
    """A variable with other units in linopy's `scaling`, one hour of which is masked, and a row of the user's own."""
    model = linopy.Model()
    mask = xr.DataArray(HOURS != 5, coords=[HOURS]).broadcast_like(xr.DataArray(0, coords=[HOURS, FEATURES]))
    scaling = xr.DataArray([1.0, 10.0, 0.5], coords=[FEATURES])
    x = model.add_variables(-1, 1, coords=[HOURS, FEATURES], name="x", mask=mask, scaling=scaling)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", linopy.config.LinopySemanticsWarning)
        handle = mn.add_network(model, NET, x, **keywords)
        model.add_constraints(x.sum("feature") >= 0.1, name="own", scaling=4.0)
        model.add_objective((x * xr.DataArray([0.3, 0.1, -0.2], coords=[FEATURES])).sum() + handle.output.sum(), scaling=2.0)
    return model, x, handle


def of_network(x: linopy.Variable) -> np.ndarray:
    return NET.forward(x.solution.dropna("time").values)


@pytest.mark.parametrize("backend", ["highs", pytest.param("scip", marks=pytest.mark.sweep)])
def test_a_solve_is_written_into_the_model(backend: str) -> None:
    model, x, handle = dispatch()
    result = mn.solve(handle, backend)
    assert result.verified
    assert (model.status, model.termination_condition) == ("ok", "optimal")
    assert model.objective.value == pytest.approx(result.objective)
    assert x.solution.isnull().any("feature").values.tolist() == [False, False, True, False]
    np.testing.assert_allclose(x.solution, result.x["x"])
    np.testing.assert_allclose(handle.output.solution.dropna("time"), of_network(x), atol=1e-6)
    assert handle.output.dims == ("time", "fc2_unit")
    assert handle.input.indexes["feature"].tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(handle.input.solution.dropna("time"), x.solution.dropna("time"))
    assert float((x.solution.sum("feature")).min()) >= -1e-9
    assert handle.error() < 1e-9


def test_the_optimum_and_the_error_are_those_of_linopys_own_solve() -> None:
    model, _, handle = dispatch()
    with pytest.raises(InputError, match="the model has no solution"):
        handle.error()
    ours = mn.solve(model, mip_gap=1e-9).objective
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.solve("highs", mip_rel_gap=1e-9, output_flag=False)
    assert model.objective.value == pytest.approx(ours, abs=1e-6)
    assert handle.error() < 1e-5
    handle.output.data["solution"] = handle.output.solution + 0.25
    assert handle.error() == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("kind", ["infeasible", "unbounded", "no time"])
def test_without_a_point_nothing_of_an_earlier_solve_stays(kind: str) -> None:
    model = linopy.Model()
    x = model.add_variables(0, 1, coords=[HOURS], name="x")
    model.add_objective(x.sum(), sense="max")
    mn.solve(model)
    assert float(x.solution.sum()) == 4
    if kind == "infeasible":
        model.add_constraints(x.sum() >= 5, name="much")
    elif kind == "unbounded":
        x.update(upper=np.inf)
    result = mn.solve(model, start="none")
    if kind == "no time":
        nothing: dict[str, Any] = {"x": None, "point": None, "objective": None}
        write_back(model, dataclasses.replace(result, status=mn.Status.TIME_LIMIT, **nothing))
    assert model.status == "warning"
    assert model.termination_condition == {"no time": "time_limit"}.get(kind, kind)
    assert np.isnan(model.objective.value)
    assert "solution" not in x.data


def test_a_network_is_removed_without_a_trace() -> None:
    plain = linopy.Model()
    plain.add_variables(-1, 1, coords=[HOURS, FEATURES], name="x")
    for bounds in (None, (-0.5, 0.5)):
        for given in ("variable", "expression"):
            model = linopy.Model()
            x = model.add_variables(-1, 1, coords=[HOURS, FEATURES], name="x")
            y = model.add_variables(-9, 9, coords=[HOURS, pd.RangeIndex(2, name="fc2_unit")], name="y")
            model.add_constraints(x.sum() >= -11, name="own")
            handle = mn.add_network(
                model, NET, x if given == "variable" else 0.5 * x + 0.1, y, bounds=bounds, prefix="n_", formulation={"relu": "sos1"}
            )
            other = mn.add_network(model, NET, x, prefix="o_")
            model.add_objective(handle.output.sum() + x.sum() + other.output.sum(), sense="max")
            handle.remove()
            other.remove()
            assert (sorted(model.variables), list(model.constraints)) == (["x", "y"], ["own"])
            assert mn.solve(model).objective == pytest.approx(12.0)
            assert mn.solve(model).max_error is None
            again = mn.add_network(model, NET, x, prefix="n_")
            assert again.output.name == "n_output"


def test_a_network_that_rows_of_the_user_need_is_not_removed() -> None:
    model, _, handle = dispatch()
    with pytest.warns(linopy.config.LinopySemanticsWarning):
        model.add_constraints(handle.output, "<=", 5.0, name="cap")
    before = [list(model.variables), list(model.constraints)]
    with pytest.raises(InputError, match="the constraints `cap` contain variables of the network"):
        handle.remove()
    assert [list(model.variables), list(model.constraints)] == before
    model.remove_constraints("cap")
    handle.remove()
    assert list(model.variables) == ["x"]
    with pytest.raises(InputError, match="drop the model"):
        mn.encode(NET, mn.Box(-np.ones((1, 3)), np.ones((1, 3)))).remove()


def test_a_summary_shows_the_layers_as_text_in_rich_and_in_html() -> None:
    _, _, handle = dispatch()
    summary = handle.summary()
    text = str(summary)
    assert "3 samples of shape (3,), 9 of 9 free" in text
    assert "variable `output` (time: 4, fc2_unit: 2)" in text
    assert "1 of 4 places" in text
    cells = dict(zip(summary.heads, next(row for row in summary.rows if row[0] == "act"), strict=True))
    unstable = handle.bounds.unstable()["act"]
    assert (cells["unstable"], cells["binaries"], cells["formulation"]) == (str(unstable), str(unstable), "regions")
    assert "<th>formulation</th>" in handle._repr_html_()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(handle)
    assert "3 samples of shape (3,)" in console.export_text()
    assert handle.block("act").formulation == "regions"


@pytest.mark.parametrize("sense", ["min", "max"])
def test_dual_values_of_a_linear_program_are_linopys(sense: str) -> None:
    found = []
    for ours in (True, False):
        model = linopy.Model()
        x = model.add_variables(0, 1e4, coords=[HOURS], name="x", scaling=100.0)
        y = model.add_variables(0, 3, coords=[HOURS], name="y")
        model.add_constraints(x + 1e-3 * y, "<=", xr.DataArray([1.0, 2000, 3, 4], coords=[HOURS]), name="cap", scaling=7.0)
        model.add_constraints(x + y, ">=", 0.5, name="least")
        price = xr.DataArray([1.0, 2, 3, 4], coords=[HOURS])
        model.add_objective((x * price + 0.1 * y).sum(), sense=sense, scaling=3.0)
        if ours:
            assert mn.solve(model).verified
        else:
            model.solve("highs", output_flag=False)
        found.append((model.objective.value, model.constraints["cap"].dual, model.constraints["least"].dual))
    for first, second in zip(*found, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-9)
    assert np.abs(found[0][1 if sense == "max" else 2]).max() > 0
    model, _, _ = dispatch()
    assert mn.solve(model).duals is None


def test_a_network_is_computed_again_although_its_handle_is_dropped() -> None:
    model = linopy.Model()
    x = model.add_variables(-1, 1, coords=[HOURS, FEATURES], name="x")
    model.add_objective(mn.add_network(model, NET, x).output.sum())
    gc.collect()
    result = mn.solve(model)
    assert result.max_error is not None
    assert result.verified
    again = pickle.loads(pickle.dumps(model))
    assert list(again.variables) == list(model.variables)
    assert mn.solve(again).objective == pytest.approx(result.objective)
    assert mn.solve(model.copy()).objective == pytest.approx(result.objective)
    alive = weakref.ref(model)
    del model, x
    gc.collect()
    assert alive() is None
