"""Networks that are written by their linear regions: the same optima as with a big-M, hulls as relaxations, exact forward passes."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.optimize import Bounds as Ends
from scipy.optimize import LinearConstraint, milp

import mipnet as mn
from mipnet.embedding import region_shares
from mipnet.embedding.region_shares import BoxCases, NetworkRegions
from mipnet.errors import InputError, TimeLimitReached, UnsupportedError
from mipnet.limits.deadline import NO_DEADLINE
from mipnet.solving.problem import Modelled
from tests.embedding.test_envelopes import network
from tests.limits.room import room

HOURS = pd.RangeIndex(3, name="time")


def dispatch(
    settings: mn.EmbeddingSettings, free: int = 2, activation: str = "relu", seed: int = 0, width: float = 1.0, outputs: int = 1
) -> mn.Encoding:
    """Three hours with ``free`` inputs each and one known one, one of whose boxes is another, and rows that tie the hours."""
    model, rng = linopy.Model(), np.random.default_rng([seed, free])
    lower = rng.normal(size=(3, free)) * width
    lower[1] = lower[0]
    upper = lower + width * rng.uniform(0.5, 2.0, free)
    ends = [xr.DataArray(end, coords=[HOURS, pd.RangeIndex(free, name="input")]) for end in (lower, upper)]
    x = model.add_variables(*ends, name="x")
    inside = xr.DataArray(lower + 0.6 * (upper - lower), coords=x.coords)
    for hour in (1, 2):
        now, before = ({"time": each, "drop": True} for each in (hour, hour - 1))
        model.add_constraints(
            x.isel(**now) - x.isel(**before) <= inside.isel(**now) - inside.isel(**before) + 0.3 * width, name=f"up{hour}"
        )
    model.add_constraints(x.sum() >= float(inside.sum()), name="demand")
    inputs = [x.isel(input=k, drop=True) for k in range(free)] + [pd.Series([0.3, 0.3, 0.9], HOURS)]
    handle = mn.add_network(model, network(free + 1, activation, seed, outputs), inputs, formulation=settings)
    factors = xr.DataArray(np.linspace(1.0, -0.5, outputs), dims="fc2_unit", coords={"fc2_unit": np.arange(outputs)})
    model.add_objective((handle.output * factors).sum())
    return handle


def relaxed_optimum(handle: mn.Encoding) -> float:
    program = Modelled.of(handle).program
    rows = LinearConstraint(program.rows.matrix, program.rows.lower, program.rows.upper)
    return float(milp(program.cost, constraints=rows, bounds=Ends(program.lower, program.upper)).fun + program.offset)


SWEEP = [
    *product((1, 2, 3), ("relu", "leaky", "clip"), (1, 2, 3), (1.0,), ("highs", "scip")),
    *product((2,), ("relu",), (4, 9), (1e-2, 30.0), ("highs", "scip")),
]


@pytest.mark.parametrize(
    ("free", "activation", "seed", "width", "backend"),
    [
        (2, "relu", 0, 1.0, "highs"),
        (2, "clip", 1, 1.0, "scip"),
        *(pytest.param(*case, marks=pytest.mark.sweep) for case in SWEEP),
    ],
)
def test_the_optimum_is_that_of_a_big_m_and_the_relaxation_is_tighter(
    free: int, activation: str, seed: int, width: float, backend: str
) -> None:
    optima, relaxed = [], []
    for choice in (False, True):
        settings = mn.EmbeddingSettings(regions=choice, envelope=False)
        handle = dispatch(settings, free, activation, seed, width, outputs=2)
        assert (handle.block("act1").formulation == "regions") == choice
        result = mn.solve(handle, backend, mip_gap=1e-8)
        assert result.verified
        assert result.max_error is not None
        assert result.max_error <= 1e-5
        assert handle.error() <= 1e-5
        optima.append(result.objective)
        relaxed.append(relaxed_optimum(handle))
    size = max(1.0, abs(optima[0]))
    assert optima[1] == pytest.approx(optima[0], abs=2e-6 * size)
    assert relaxed[0] - 1e-6 * size <= relaxed[1] <= optima[0] + 1e-6 * size


@pytest.mark.parametrize(
    ("free", "activation", "seed"),
    [
        (2, "relu", 0),
        (3, "leaky", 1),
        *(
            pytest.param(k, kind, seed, marks=pytest.mark.sweep)
            for k in (1, 2, 3)
            for kind in ("relu", "leaky", "clip")
            for seed in (2, 3, 4)
        ),
    ],
)
def test_a_forward_pass_satisfies_the_rows_and_the_relaxation_is_the_hull(free: int, activation: str, seed: int) -> None:
    net, rng = network(free, activation, seed, outputs=2), np.random.default_rng(seed)
    model = linopy.Model()
    x = model.add_variables(-1, 2, coords=[pd.RangeIndex(40, name="time"), pd.RangeIndex(free, name="input")], name="x")
    handle = mn.add_network(model, net, x, formulation=mn.EmbeddingSettings(regions=True))
    given = rng.uniform(-1, 2, (40, free))
    vertices = NetworkRegions.of(net, BoxCases.of(handle.region), True, NO_DEADLINE)
    assert vertices is not None
    points = vertices.vertices[0].points
    count = min(30, len(points))
    given[:count] = points[:count]  # kinks, and corners of the box
    model.add_objective(handle.output.sum())
    program, point = Modelled.of(handle).program, handle.point(given)
    assert program.relative_violation(point[program.labels]) <= 1e-9
    with torch.no_grad():
        exact = net.values(torch.as_tensor(given))
    for node in net.nodes:
        assert handle.value(node.name, point) == pytest.approx(exact[node.name].numpy(), abs=1e-9)
    for direction in rng.normal(size=(2, free + 2)):
        first = x.isel(time=0, drop=True), handle.output.isel(time=0, drop=True)
        parts = (each.isel({dim: k}, drop=True) for each, dim in zip(first, ("input", "fc2_unit"), strict=True) for k in range(each.size))
        cost = sum(float(factor) * part for factor, part in zip(direction, parts, strict=True))
        model.add_objective(cost, overwrite=True)
        lowest = (points @ direction[:free] + vertices.vertices[0].values @ direction[free:]).min()
        assert relaxed_optimum(handle) == pytest.approx(lowest, abs=1e-6 * max(1.0, abs(lowest)))


def test_known_and_absent_inputs_and_equal_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, enumerate_regions = [], region_shares.region_vertices

    def counted(network: mn.Network, lower: np.ndarray, *rest: Any) -> Any:
        boxes.append(lower.tolist())
        return enumerate_regions(network, lower, *rest)

    monkeypatch.setattr(region_shares, "region_vertices", counted)
    optima = []
    for choice in (False, "auto"):
        model, time = linopy.Model(), pd.RangeIndex(5, name="time")
        lower = pd.Series([-1.0, -1.0, 0.4, -2.0, -1.0], time)
        mask = pd.Series([True, True, True, True, False], time)
        x = model.add_variables(lower, pd.Series([1.0, 1.0, 0.4, 2.0, 1.0], time), name="x", mask=mask)
        handle = mn.add_network(model, network(2), [x, 0.3], formulation=mn.EmbeddingSettings(regions=choice, envelope=False))
        model.add_constraints(x.sum() >= 1.5, name="demand")
        model.add_objective(handle.output.sum())
        result = mn.solve(model, "highs", mip_gap=1e-8)
        assert result.verified
        optima.append(result.objective)
    assert optima[1] == pytest.approx(optima[0], abs=1e-6)
    assert sorted(boxes) == [[-2.0, 0.3], [-1.0, 0.3], [0.4, 0.3]]
    assert "regions" in str(handle.summary())
    assert "regions" in str(mn.explain(handle, "scip"))
    copied = pickle.loads(pickle.dumps(model))
    assert mn.solve(copied, "scip", mip_gap=1e-8).objective == pytest.approx(optima[1], abs=1e-5)
    names = {*model.variables, *model.constraints}
    handle.remove()
    assert names - {*model.variables, *model.constraints} >= {"shares", "shares_sum", "shares_mean"}
    assert set(model.variables) == {"x"}
    assert set(model.constraints) == {"demand"}


def rows_of(settings: mn.EmbeddingSettings | None, inputs: int = 2, samples: int = 2, **given: Any) -> mn.Encoding:
    model = linopy.Model()
    ends = np.linspace(1.0, 2.0, samples)[:, None] * np.ones(inputs)
    x = model.add_variables(-ends, ends, name="x", dims=["hour", "feature"])
    return mn.add_network(model, network(inputs, **given), x, formulation=settings)


def test_regions_are_the_default_where_inputs_are_few_and_nothing_else_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def formulation(settings: mn.EmbeddingSettings | None, **given: Any) -> str:
        return rows_of(settings, **given).block("act1").formulation

    assert formulation(None) == "regions"
    assert formulation(None, inputs=7) == "big-m"
    assert formulation(mn.EmbeddingSettings({"relu": "sos1"})) == "sos1"
    assert formulation(mn.EmbeddingSettings(envelope=True)) == "big-m"
    assert formulation(mn.EmbeddingSettings(regions=False)) == "big-m"
    monkeypatch.setattr(region_shares, "BOXES_AUTO_MAX", 1)
    assert formulation(None) == "big-m"
    assert formulation(mn.EmbeddingSettings(regions=True)) == "regions"
    monkeypatch.undo()
    monkeypatch.setattr(region_shares, "REGIONS_AUTO_MAX", 3)
    assert formulation(None) == "big-m"


def test_regions_that_cannot_be_written_are_refused() -> None:
    for settings, message in (
        ({"formulation": {"relu": "big-m"}}, "`regions` is True, and a formulation is given"),
        ({"envelope": True}, "`regions` is True, and `envelope` is True"),
        ({"regions": "yes"}, "`regions` is 'yes'; expected True, False or `auto`"),
    ):
        with pytest.raises(InputError, match=message):
            mn.EmbeddingSettings(**{"regions": True, **settings})  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="7 of its inputs are not fixed, more than 6; write `regions='auto'`"):
        rows_of(mn.EmbeddingSettings(regions=True), inputs=7)
    with pytest.raises(TimeLimitReached):
        rows_of(mn.EmbeddingSettings(regions=True, time_limit=1e-9))


def test_regions_count_in_the_memory_limit() -> None:
    model = linopy.Model()
    x = model.add_variables(-1, 1, coords=[pd.RangeIndex(400, name="hour"), pd.RangeIndex(2, name="feature")], name="x")
    with room(8e6):
        assert mn.add_network(model, network(2), x).block("act1").formulation == "big-m"
