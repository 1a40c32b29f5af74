"""Networks in PyPSA models: bounds from PyPSA's rows, both ways to solve, and results and prices in PyPSA's tables."""

from __future__ import annotations

import logging
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import mipnet as mn
from mipnet.errors import InputError, UnboundedError

EXAMPLE = Path(__file__).parents[2] / "examples" / "pypsa_dispatch.py"
HOURS = pd.date_range("2026-01-01", periods=3, freq="h", name="snapshot")
NET = mn.Network.build(
    (2,),
    [
        ("fc1", mn.Dense([[1.0, -1.0], [2.0, 1.0], [-1.0, 0.5]], [0.1, -5.0, 0.3])),
        ("act", mn.ReLU()),
        ("fc2", mn.Dense([[1.0, -0.8, 0.6]])),
    ],
)
AVAILABLE = np.array([0.5, 1.0, 0.25])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """PyPSA and linopy speak about their own changes."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(level)


def grid(**more: Any) -> Any:
    """A network of PyPSA with generators of fixed and of extendable capacity, and one more."""
    import pypsa

    n = pypsa.Network(snapshots=HOURS)
    n.add("Bus", "bus")
    n.add("Generator", "fixed", bus="bus", p_nom=4.0, p_max_pu=AVAILABLE, p_min_pu=0.1, marginal_cost=1.0)
    n.add("Generator", "larger", bus="bus", p_nom_extendable=True, p_nom_max=3.0, capital_cost=1.0, p_max_pu=AVAILABLE)
    n.add("Generator", "dear", bus="bus", p_nom=20.0, marginal_cost=9.0)
    if more:
        n.add("Generator", "more", bus="bus", **more)
    n.add("Load", "load", bus="bus", p_set=[3.0, 5.0, 4.0])
    return n


def made(n: Any) -> Any:
    return n.optimize.create_model(include_objective_constant=False)


def test_the_example_is_solved_in_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    space = runpy.run_path(str(EXAMPLE))
    first, second, *_ = capsys.readouterr().out.splitlines()
    n, result = space["n"], space["result"]
    assert float(first.split()[2].rstrip(",")) == pytest.approx(float(second.split()[2].rstrip(",")), rel=2e-4)
    assert "verified: True" in second
    assert n.objective == pytest.approx(result.objective)
    at = n.generators_t.p[["gas1", "gas2"]]
    given = np.stack([at.to_numpy(), np.broadcast_to(space["TEMPERATURE"].to_numpy()[:, None], at.shape)], axis=-1)
    burnt = space["handle"].network.forward(given.reshape(-1, 2)).reshape(at.shape)
    np.testing.assert_allclose(n.generators_t.fuel[["gas1", "gas2"]], burnt, atol=1e-5)
    assert n.objective == pytest.approx(20 * burnt.sum() + 60 * n.generators_t.p["import"].sum(), rel=1e-6)
    assert (n.generators_t.p.sum(axis=1) - n.loads_t.p["load"]).abs().max() < 1e-6


def test_bounds_are_read_from_the_rows_of_pypsa_by_label() -> None:
    n = grid(committable=True, p_nom=2.0, p_max_pu=AVAILABLE)
    model = made(n)
    names = ["more", "fixed", "larger"]
    p = model.variables["Generator-p"].sel(name=names)
    assert not np.isfinite(p.upper).any()
    handle = mn.add_network(model, NET, [p, xr.DataArray([0.5, 1.0, 2.0], coords=[HOURS])])
    found = {side: getattr(handle.region, side)[..., 0].reshape(3, 3) for side in ("lower", "upper")}
    np.testing.assert_allclose(found["upper"], AVAILABLE[:, None] * [2.0, 4.0, 3.0])
    np.testing.assert_allclose(found["lower"], np.full((3, 3), [0.0, 0.4, 0.0]))
    model.objective += handle.output.sum()
    result = mn.solve(model)
    assert result.verified
    assert handle.error() < 1e-6
    row = model.constraints["Generator-fix-p-upper"]
    row.rhs = 2 * row.rhs
    with pytest.raises(InputError, match="wider bounds than when it was written"):
        mn.solve(model)


@pytest.mark.sweep
def test_an_input_that_no_row_bounds_is_named() -> None:
    n = grid(p_nom_extendable=True, capital_cost=1.0)
    n.add("Generator", "sink", bus="bus", p_nom_extendable=True, p_min_pu=-1.0, capital_cost=1.0)  # else the load bounds all
    model = made(n)
    p = model.variables["Generator-p"].sel(name=["more", "fixed"])
    parts = {"power": p, "warm": 0.5}
    with pytest.raises(UnboundedError, match=r"no upper bound of feature `power` at snapshot=2026-01-01 00:00:00, name=more"):
        mn.add_network(model, NET, parts)
    handle = mn.add_network(model, NET, parts, bounds={"power": (None, pd.Series(3.0, HOURS))})
    assert handle.region.upper[..., 0].reshape(3, 2).tolist() == [[3, 2], [3, 3], [3, 1]]
    assert mn.solve(model).verified


@pytest.mark.sweep
@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_a_surrogate_on_links_gives_the_same_results_in_both_ways(backend: str) -> None:
    n = grid()
    n.add("Bus", "heat")
    n.add("Link", ["pump", "boiler"], bus0="bus", bus1="heat", p_nom=[3.0, 2.0], efficiency=[3.0, 1.0])
    n.add("Load", "warm", bus="heat", p_set=[4.0, 6.0, 8.0])
    model = made(n)
    p = model.variables["Link-p"]
    wear = model.add_variables(coords=p.coords, name="Link-wear")
    handle = mn.add_network(model, NET, [p, 1.0], wear)
    model.objective += wear.sum()
    n.optimize.solve_model(solver_name="highs", mip_rel_gap=1e-9, output_flag=False)
    first = n.objective
    assert handle.error() < 1e-5
    assert mn.solve(model, backend, mip_gap=1e-9).verified
    for step in (n.optimize.assign_solution, n.optimize.assign_duals, n.optimize.post_processing):
        step()
    assert n.objective == pytest.approx(first, rel=1e-7)
    at = n.links_t.p0.to_numpy()
    expected = NET.forward(np.stack([at, np.ones_like(at)], axis=-1).reshape(-1, 2)).reshape(at.shape)
    np.testing.assert_allclose(n.links_t.wear, expected, atol=1e-6)
    np.testing.assert_allclose(-n.links_t.p1, at * [3.0, 1.0], atol=1e-6)


@pytest.mark.sweep
def test_prices_of_a_linear_program_are_those_of_pypsa() -> None:
    affine = mn.Network.build((2,), [("fc", mn.Dense([[1.0, 0.5]], [0.1]))])
    prices, powers = [], []
    for ours in (False, True):
        n = grid()
        model = made(n)
        handle = mn.add_network(model, affine, [model.variables["Generator-p"].sel(name=["fixed"]), 2.0])
        model.objective += 0.5 * handle.output.sum()
        if ours:
            assert mn.solve(model).duals is not None
            n.optimize.assign_solution()
            n.optimize.assign_duals(assign_all_duals=True)
            n.optimize.post_processing()
        else:
            n.optimize.solve_model(solver_name="highs", assign_all_duals=True, output_flag=False)
        prices.append(n.buses_t.marginal_price.to_numpy())
        powers.append(n.generators_t.mu_upper["fixed"].to_numpy())
    assert np.abs(prices[0]).max() > 0
    np.testing.assert_allclose(prices[1], prices[0], atol=1e-9)
    np.testing.assert_allclose(powers[1], powers[0], atol=1e-9)


@pytest.mark.sweep
def test_a_surrogate_in_extra_functionality() -> None:
    n = grid()
    handles = []

    def add(n: Any, snapshots: Any) -> None:
        p = n.model.variables["Generator-p"].sel(name=["fixed", "larger"])
        handles.append(mn.add_network(n.model, NET, [p, xr.DataArray([0.5, 1.0, 2.0], coords=[HOURS]).sel(snapshot=snapshots)]))
        n.model.objective += handles[-1].output.sum()

    n.optimize.optimize_with_rolling_horizon(
        horizon=2, overlap=0, extra_functionality=add, include_objective_constant=False, output_flag=False
    )
    assert [len(each.samples) for each in handles] == [4, 2]
    assert max(each.error() for each in handles) < 1e-5


@pytest.mark.parametrize("call", [mn.solve, lambda n: mn.add_network(n, "surrogate.onnx", [])])
def test_a_network_of_pypsa_is_no_model(call: Any) -> None:
    import pypsa

    with pytest.raises(InputError, match=r"expected a linopy model: of a network of PyPSA it is `n\.model`"):
        call(pypsa.Network())
