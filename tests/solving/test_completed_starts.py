"""Feasible starts of networks in a user's model whose rows forbid the centre of the inputs."""

from __future__ import annotations

import linopy
import numpy as np
import pandas as pd
import pytest

import mipnet as mn
from mipnet.arrays import Array
from mipnet.limits.deadline import Deadline
from mipnet.solving.completed_starts import CompletedStarts
from mipnet.solving.open_problem import OpenProblem, open_problem
from mipnet.solving.problem import if_feasible

BACKENDS = ("highs", "scip")


def network(seed: int) -> mn.Network:
    rng = np.random.default_rng(seed)
    sizes = [("fc1", (6, 2)), ("fc2", (6, 6)), ("fc3", (1, 6))]
    layers = [(name, mn.Dense(rng.normal(size=size), rng.normal(size=size[0]))) for name, size in sizes]
    return mn.Network.build((2,), [layers[0], ("act1", mn.ReLU()), layers[1], ("act2", mn.ReLU()), layers[2]])


def settings(relu: str) -> mn.EmbeddingSettings:
    """Rows per neuron alone, or the whole network by its linear regions."""
    return mn.EmbeddingSettings(regions=True) if relu == "regions" else mn.EmbeddingSettings({"relu": relu}, envelope=False)


def ramped(seed: int, relu: str = "big-m") -> mn.Encoding:
    """Hours that have to run, at a fixed level of two, with ramps and a number of units: the centre 0 violates the rows."""
    model, time = linopy.Model(), pd.RangeIndex(4, name="time")
    power = model.add_variables(-1, 1, coords=[time], name="power")
    supply = model.add_variables(-1, 1, coords=[time], name="supply")
    units = model.add_variables(0, 3, coords=[time], integer=True, name="units")
    model.add_constraints(power.sum() >= 1.7, name="demand")
    model.add_constraints(power - 0.3 * units <= 0, name="running")
    model.add_constraints(3 * supply - 2 * units == -1.5, name="level")
    handle = mn.add_network(model, network(seed), [power, supply], formulation=settings(relu))
    model.add_objective(handle.output.sum() + units.sum())
    return handle


def needs_output(seed: int, relu: str = "big-m") -> mn.Encoding:
    """Rows on the output alone: three samples have nearly the largest output, and the objective pulls them elsewhere."""
    model, net = linopy.Model(), network(seed)
    time = pd.RangeIndex(3, name="time")
    x = model.add_variables(-1, 1, coords=[time, pd.RangeIndex(2, name="feature")], name="x")
    handle = mn.add_network(model, net, x, formulation=settings(relu))
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), axis=-1).reshape(-1, 2)
    values = np.sort(net.forward(grid).reshape(-1))
    model.add_constraints(handle.output >= values[-20], name="nearly_largest")
    model.add_objective(x.sum())
    return handle


def first_starts(opened: OpenProblem, limit: float = 60.0) -> list[Array]:
    """The starts of a solve, from the engine."""
    starts = opened._starts("forward", opened.problem.start("forward"))
    return list(opened._or_completed(starts, Deadline.after(limit)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("relu", ["big-m", *(pytest.param(relu, marks=pytest.mark.sweep) for relu in ("sos1", "regions"))])
@pytest.mark.parametrize("make", [ramped, needs_output])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 12))])
def test_a_start_is_found_where_rows_forbid_the_centre(backend, relu, make, seed):
    handle = make(seed, relu)
    with open_problem(handle, backend) as opened:
        problem = opened.problem
        centre = problem.start("forward")
        assert if_feasible(problem.program, centre) is None
        (point,) = first_starts(opened)
        point = point[: problem.program.columns]
        assert problem.program.relative_violation(point) <= 1e-6
        assert problem.replay(point)[1] <= 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_pump_takes_several_rounds_where_the_first_phases_have_no_point(backend, monkeypatch):
    rounds, pump = [], CompletedStarts._pump

    def counted(self):
        found = pump(self)
        rounds.append((self.rounds, found is not None))
        return found

    monkeypatch.setattr(CompletedStarts, "_pump", counted)
    with open_problem(needs_output(5), backend) as opened:
        assert len(first_starts(opened)) == 1
    assert rounds == [(2, True)]


def test_the_search_for_a_start_ends_with_the_time_and_runs_only_if_a_start_is_wanted(monkeypatch):
    with open_problem(ramped(0), "highs") as opened:
        assert first_starts(opened, 1e-9) == []
    started = []
    monkeypatch.setattr(CompletedStarts, "__iter__", lambda self: iter(started.append(1) or ()))
    for start, expected in (("none", 0), ("forward", 1)):
        mn.solve(ramped(0), "highs", start=start, limits=mn.Limits(nodes=0))
        assert len(started) == expected
