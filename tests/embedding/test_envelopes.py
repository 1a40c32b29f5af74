"""Convex and concave envelopes of a network as rows: valid everywhere, tight at vertices, and the optimum stays."""

from __future__ import annotations

from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import Bounds as Ends
from scipy.optimize import LinearConstraint, milp
from scipy.spatial import ConvexHull

import mipnet as mn
from mipnet.embedding import region_shares
from mipnet.embedding.envelopes import envelope
from mipnet.embedding.linear_regions import RegionVertices, region_vertices
from mipnet.errors import InputError, MemoryLimitReached, UnsupportedError
from mipnet.solving.problem import Modelled
from tests.limits.room import room

ACTIVATIONS = {"relu": mn.ReLU(), "leaky": mn.LeakyReLU(0.2), "clip": mn.Clip(-0.5, 1.0)}


def network(inputs: int, activation: str = "relu", seed: int = 0, outputs: int = 1) -> mn.Network:
    rng, layer = np.random.default_rng([seed, inputs]), ACTIVATIONS[activation]
    weights = [rng.normal(size=size) for size in ((7, inputs), (7, 7), (outputs, 7))]
    layers = [(f"fc{k}", mn.Dense(w, rng.normal(size=len(w)))) for k, w in enumerate(weights)]
    return mn.Network.build((inputs,), [layers[0], ("act1", layer), layers[1], ("act2", layer), layers[2]])


def box(inputs: int, free: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A box, far from 0 in one input, with all inputs but ``free`` fixed."""
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=inputs) + 3.0 * (np.arange(inputs) == 1)
    return lower, lower + np.where(np.arange(inputs) < free, rng.uniform(0.5, 2.0, inputs), 0.0)


@pytest.mark.parametrize(
    ("free", "activation", "seed"),
    [
        (2, "relu", 0),
        (3, "clip", 0),
        *(pytest.param(k, kind, seed, marks=pytest.mark.sweep) for k in (1, 2, 3) for kind in ACTIVATIONS for seed in range(1, 8)),
    ],
)
def test_the_envelope_is_below_and_above_the_network_and_tight_at_vertices(free: int, activation: str, seed: int) -> None:
    net = network(free + 1, activation, seed, outputs=2)
    lower, upper = box(free + 1, free, seed)
    found = region_vertices(net, lower, upper)
    assert found is not None
    assert found.error.max() <= 1e-6
    columns = np.arange(free)
    width = (upper - lower)[:free]
    corners = [found.points[each, :free] for each in found.regions]
    volumes = [np.ptp(each) if free == 1 else ConvexHull(each, qhull_options="QJ").volume for each in corners]
    assert sum(volumes) == pytest.approx(width.prod(), rel=1e-6)
    x = lower + np.random.default_rng(seed).uniform(size=(10_000, free + 1)) * (upper - lower)
    with torch.no_grad():
        exact = net.values(torch.as_tensor(x))["fc2"].numpy()
    for output in range(2):
        for sign, side in ((1, False), (-1, True)):
            facets = envelope(found, columns, output, upper=side)
            under = sign * (exact[:, output, None] - x[:, :free] @ facets.slopes.T - facets.constants)
            assert under.min() >= 0
            at = sign * (found.values[:, output, None] - found.points[:, :free] @ facets.slopes.T - facets.constants)
            assert at.min() >= 0
            assert ((at <= 3 * found.error[output] + 1e-9).sum(axis=0) >= free + 1).all()
            ends = ((found.points == lower) | (found.points == upper)).all(axis=1)
            assert at[ends].min(axis=1).max() <= 3 * found.error[output] + 1e-9


def test_a_kink_through_corners_and_earlier_vertices_has_no_vertices_of_its_own() -> None:
    layers = [
        ("fc1", mn.Dense([[1.0, -1.0], [1.0, 1.0], [2.0, -2.0]], [0.0, -4.0, 0.0])),
        ("act", mn.ReLU()),
        ("fc2", mn.Dense([[-1, 1, 3]])),
    ]
    found = region_vertices(mn.Network.build((2,), layers), np.zeros(2), np.full(2, 4.0))
    assert found is not None
    assert sorted(found.points.tolist()) == [[0, 0], [0, 4], [2, 2], [4, 0], [4, 4]]
    assert len(found.regions) == 4


def dispatch(envelope: bool | str, relu: str = "big-m") -> mn.Encoding:
    """Four hours with two free inputs and one known one, two of which are the same."""
    model, time = linopy.Model(), pd.RangeIndex(4, name="time")
    power, supply = (model.add_variables(-1, 1, coords=[time], name=name) for name in ("power", "supply"))
    known = [pd.Series([0.3, -0.5, 0.3, 0.9], index=time)]
    model.add_constraints(power.sum() + 2 * supply.sum() >= 0.7, name="demand")
    settings = mn.EmbeddingSettings({"relu": relu}, envelope=envelope)
    handle = mn.add_network(model, network(3), [power, supply, *known], formulation=settings)
    model.add_objective(handle.output.sum())
    return handle


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_the_optimum_stays_and_the_relaxation_is_tighter(backend: str) -> None:
    optima, relaxed = [], []
    for choice in (False, True):
        handle = dispatch(choice)
        assert any("envelope" in name for name in handle.model.constraints) == choice
        result = mn.solve(handle, backend, mip_gap=1e-7)
        assert result.verified
        optima.append(result.objective)
        program = Modelled.of(handle).program
        rows, ends = LinearConstraint(program.rows.matrix, program.rows.lower, program.rows.upper), Ends(program.lower, program.upper)
        relaxed.append(milp(program.cost, constraints=rows, bounds=ends).fun + program.offset)
    assert optima[1] == pytest.approx(optima[0], abs=1e-5)
    assert relaxed[1] <= optima[0] + 1e-6
    assert optima[0] - relaxed[1] < 0.5 * (optima[0] - relaxed[0])


def test_hours_with_the_same_box_share_an_envelope_and_remove_takes_the_rows_out(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []

    def counted(network: mn.Network, lower: np.ndarray, *rest: Any, **keywords: Any) -> RegionVertices | None:
        boxes.append(lower[2])
        return region_vertices(network, lower, *rest, **keywords)

    monkeypatch.setattr(region_shares, "region_vertices", counted)
    handle = dispatch("auto")
    assert sorted(boxes) == [-0.5, 0.3, 0.9]
    program = Modelled.of(handle).program
    rows = [handle.model.constraints[name] for name in handle.model.constraints if "envelope" in name]
    assert len(rows) == 2
    outputs = [np.flatnonzero(program.labels == label)[0] for label in handle.output_labels.reshape(-1)]
    taken = (program.rows.matrix[:, outputs] != 0).sum(axis=0)
    assert taken[0] == taken[2] > 2
    handle.remove()
    assert not any("envelope" in name for name in handle.model.constraints)


def test_what_has_no_envelope_is_refused_or_left_out() -> None:
    for choice in (True, "auto"):
        model = linopy.Model()
        x = model.add_variables(-1, 1, coords=[pd.RangeIndex(4, name="feature")], name="x")
        settings = mn.EmbeddingSettings(envelope=choice)
        if choice is True:
            with pytest.raises(UnsupportedError, match="4 inputs of the network are not fixed; expected at most 3"):
                mn.add_network(model, network(4), x, formulation=settings)
            assert not list(model.constraints)
        else:
            handle = mn.add_network(model, network(4), x, formulation=settings)
            assert not any("envelope" in name for name in handle.model.constraints)
    image = [pd.RangeIndex(n, name=dim) for dim, n in (("channel", 1), ("height", 1), ("width", 3))]
    pool = mn.Network.build((1, 1, 3), [("pool", mn.MaxPool2d(mn.Window((1, 2), (1, 1))))])
    for choice in (True, "auto"):
        model = linopy.Model()
        x, settings = model.add_variables(-1, 1, coords=image, name="x"), mn.EmbeddingSettings(envelope=choice)
        if choice is True:
            with pytest.raises(UnsupportedError, match="layers that are neither affine nor ReLU"):
                mn.add_network(model, pool, x, formulation=settings)
        else:
            assert not any("envelope" in name for name in mn.add_network(model, pool, x, formulation=settings).model.constraints)
    with pytest.raises(InputError, match="`envelope` is 'yes'; expected True, False or `auto`"):
        mn.EmbeddingSettings(envelope="yes")


def test_rows_of_an_envelope_count_in_the_memory_limit() -> None:
    """With 200 samples the program of the network takes 2.4 MB, and its envelope of 31,400 rows 16 MB."""
    ends = np.ones((200, 3))

    def rows(choice: bool | str) -> int:
        model = linopy.Model()
        x = model.add_variables(-ends, ends, name="x", dims=["hour", "feature"])
        mn.add_network(model, network(3, seed=1), x, formulation=mn.EmbeddingSettings(envelope=choice, regions=False))
        return int(model.ncons)

    without = rows(False)
    with room(8e6):
        with pytest.raises(MemoryLimitReached, match=r"the rows of the envelope .* would take about .* MB; the memory limit"):
            rows(True)
        assert rows("auto") == without
    assert rows("auto") == rows(True) > without
