"""A solve stops as soon as its bound reaches `bound_stop`, or a feasible point reaches `objective_stop`, in the sense of the model."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import mipnet as mn
from mipnet.model.losses import Loss, add_loss
from tests.nets import dense, make, mlp, sample
from tests.sweep import in_turn, sweep

BACKENDS = ("highs", "scip")


def boxed(widths=(6, 12, 12, 2), seed=0, radius=0.5):
    g = np.random.default_rng(seed)
    layers = [part for i, (n, m) in enumerate(pairwise(widths)) for part in ((f"fc{i}", dense(g, m, n)), (f"r{i}", mn.ReLU()))]
    network = mn.Network.build((widths[0],), layers[:-1])
    return mn.encode(network, mn.LInf(g.uniform(0, 1, (1, widths[0])), radius))


def extremes(encoding, objective):
    """The objective at sampled inputs."""
    x = sample(encoding.region, 20000, np.random.default_rng(1))
    return objective(encoding.network.forward(x))


@pytest.mark.parametrize(("sense", "backend"), sweep([(sense, backend) for sense in ("min", "max") for backend in BACKENDS], every=3))
def test_a_bound_stop_is_in_the_models_own_sense_and_ends_the_search_early(backend, sense):
    encoding, sign = boxed(), 1 if sense == "min" else -1
    encoding.model.add_objective(encoding.output.sum(), sense=sense)
    whole = mn.solve(encoding, backend, time_limit=60)
    assert whole.status is mn.Status.OPTIMAL
    first = next(event.bound for event in whole.trace if event.bound is not None)
    between = whole.objective - 0.5 * (whole.objective - first)
    stopped = mn.solve(encoding, backend, limits=mn.Limits(bound_stop=between))
    assert stopped.status is mn.Status.TARGET
    assert sign * between <= sign * stopped.bound <= sign * whole.objective + 1e-6
    tried = extremes(encoding, lambda y: y.sum(axis=1))
    assert sign * stopped.bound <= (sign * tried).min() + 1e-6
    beyond = mn.solve(encoding, backend, limits=mn.Limits(bound_stop=whole.objective + sign * 0.1))
    assert beyond.status is mn.Status.OPTIMAL
    assert beyond.objective == pytest.approx(whole.objective, abs=1e-4)


@pytest.mark.parametrize(("sense", "backend"), in_turn(["min", "max"], BACKENDS))
def test_an_objective_stop_is_in_the_models_own_sense(backend, sense):
    encoding, sign = boxed(), 1 if sense == "min" else -1
    encoding.model.add_objective(encoding.output.sum(), sense=sense)
    tried = extremes(encoding, lambda y: y.sum(axis=1))
    target = sign * np.quantile(sign * tried, 0.02)
    stopped = mn.solve(encoding, backend, limits=mn.Limits(objective_stop=target))
    assert stopped.status is mn.Status.TARGET
    assert sign * stopped.objective <= sign * target
    assert stopped.verified


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_start_that_is_good_enough_needs_no_search(backend):
    encoding = boxed()
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    centre = encoding.network.forward(encoding.region.centre).sum()
    result = mn.solve(encoding, backend, limits=mn.Limits(objective_stop=centre - 1e-6))
    assert (result.status, result.rounds, result.verified) == (mn.Status.TARGET, 0, True)
    assert result.objective == pytest.approx(centre)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bound_and_objective_stops_hold_across_rounds(backend):
    """HiGHS approximates cross-entropy by tangents in rounds; the point at which a solve stops has the required loss itself."""
    encoding, loss = boxed((5, 8, 8, 3), radius=0.4), Loss()
    encoding.model.add_objective(1.0 * add_loss(encoding, [1], loss))
    tried = extremes(encoding, lambda y: loss.values(y, np.full(len(y), 1)))
    whole = mn.solve(encoding, backend, time_limit=60)
    assert whole.status is mn.Status.OPTIMAL
    centre = loss.values(encoding.network.forward(encoding.region.centre), np.array([1]))[0]
    for stop in (whole.objective - 0.1, whole.objective - 0.02):
        stopped = mn.solve(encoding, backend, limits=mn.Limits(gap=1e-6, bound_stop=stop))
        assert stopped.status is mn.Status.TARGET
        assert stop <= stopped.bound <= tried.min() + 1e-6
    target = (whole.objective + centre) / 2
    reached = mn.solve(encoding, backend, limits=mn.Limits(gap=1e-6, objective_stop=target))
    assert reached.status is mn.Status.TARGET
    assert reached.objective <= target
    assert reached.verified


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_rounds_without_integrality_find_is_no_incumbent(backend):
    """Ideal cuts have rounds without integrality; their objectives are attained by no input, so no event reports them."""
    network, g = make(mlp, 4)
    encoding = mn.encode(network, mn.LInf(g.uniform(0.3, 0.7, (1, *network.input_shape)), 0.5), formulation={"relu": "big-m"})
    encoding.model.add_objective(encoding.output.sum())
    result = mn.solve(encoding, backend)
    told = [event.objective for event in result.trace if event.objective is not None]
    assert min(told) >= result.objective - 1e-6
    assert all(event.bound is None or np.isfinite(event.bound) for event in result.trace)
