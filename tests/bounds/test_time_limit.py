"""At the end of a time limit the bounds are sound, are marked as stopped, and no work goes on."""

from __future__ import annotations

import numpy as np
import pytest

import mipnet as mn
from mipnet.bounds import crown
from mipnet.errors import InputError, TimeLimitReached
from tests.bounds.search import activations, everything, first_outside
from tests.clock import TickingClock
from tests.nets import cnn, make, residual
from tests.sweep import in_turn


@pytest.mark.parametrize(
    ("method", "gated", "family"),
    in_turn(["auto", "crown", "alpha"], [(False, cnn), (True, residual), (False, residual), (True, cnn)]),
)
def test_bounds_of_every_limit_hold_and_get_tighter(method, gated, family, monkeypatch):
    monkeypatch.setattr(crown, "CROWN_COEFFICIENTS_MAX", 2**9)
    network, g = make(family, 3)
    region = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.1)
    gates = mn.find_gates(network) if gated else ()
    reached = activations(network, everything(network, region, g))
    full, width, states = mn.propagate(network, region, gates, method=method), np.inf, set()
    assert not full.stopped
    clock = TickingClock(monkeypatch)
    mn.propagate(network, region, gates, method=method, time_limit=1e9)
    every = clock.readings + 5
    for limit in (*range(len(network.nodes) + 1, every, max(1, every // 12)), every):
        clock.readings = 0
        bounds = mn.propagate(network, region, gates, method=method, time_limit=limit)
        states.add(bounds.stopped)
        assert clock.readings <= limit + 4 * len(network.nodes) + 8, "work went on after the end of the time"
        assert gated or first_outside(bounds, reached) is None
        name = network.output.name
        assert bool((bounds.after[name].lower <= full.after[name].lower + 1e-9).all())
        assert bounds.width()[name] <= width + 1e-9
        width = bounds.width()[name]
    assert states == {True, False}
    assert width == pytest.approx(full.width()[network.output.name])


def test_without_time_for_intervals_there_are_no_bounds(monkeypatch):
    network, g = make(cnn, 3)
    region = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.1)
    tight = mn.propagate(network, region, method="alpha")
    TickingClock(monkeypatch)
    for method in ("auto", "interval", "crown", "alpha"):
        with pytest.raises(TimeLimitReached, match=r"the time limit ended before mipnet could bound node `"):
            mn.propagate(network, region, method=method, time_limit=2)
        again = mn.propagate(network, region, method=method, start=tight, time_limit=2)
        assert again.stopped
        assert again.width() == tight.width()


def test_stopped_bounds_stay_stopped_in_a_file(tmp_path, monkeypatch):
    network, g = make(residual, 1)
    region = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.1)
    TickingClock(monkeypatch)
    bounds = mn.propagate(network, region, method="crown", time_limit=len(network.nodes) + 2)
    bounds.save(tmp_path / "bounds.npz")
    assert bounds.stopped
    assert mn.load_bounds(tmp_path / "bounds.npz", network, region).stopped


def test_given_bounds_are_checked_within_the_limit(monkeypatch):
    network, g = make(residual, 1)
    region = mn.LInf(g.uniform(0.2, 0.8, (30, *network.input_shape)), 0.1)
    box = mn.propagate(network, region)[network.output.name]
    TickingClock(monkeypatch)
    with pytest.raises(TimeLimitReached, match="check the bounds that were given"):
        mn.propagate(network, region, given={network.output.name: (box.lower.values, box.upper.values)}, time_limit=10)


def test_an_encoding_is_whole_or_none(monkeypatch):
    network, g = make(residual, 1)
    region = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.1)
    model, known = mn.encode(network, region).model, mn.propagate(network, region)
    before = {*model.variables, *model.constraints}
    x = model.variables["input"].isel(sample=0)
    clock = TickingClock(monkeypatch)
    with pytest.raises(TimeLimitReached, match=r"write layer `\w+` into the model"):
        mn.add_network(model, network, x, prefix="again_", formulation=mn.EmbeddingSettings(bounds=known, time_limit=5))
    assert {*model.variables, *model.constraints} == before
    clock.moves = 0.0
    handle = mn.add_network(model, network, x, prefix="again_", formulation=mn.EmbeddingSettings(time_limit=1))
    assert handle.output.shape == network.output_shape
    assert mn.encode(network, region, bounds="alpha", time_limit=1).bounds.method == "alpha"


@pytest.mark.parametrize("given", [0, -1, np.nan, "8"])
def test_other_limits_are_refused(given):
    network, g = make(residual, 1)
    region = mn.Samples(g.uniform(size=(1, *network.input_shape)))
    for call in (mn.propagate, mn.encode):
        with pytest.raises(InputError, match="expected a positive number of seconds, or None for no limit"):
            call(network, region, time_limit=given)
