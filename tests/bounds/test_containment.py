"""Bounds of every method contain every activation found, with and without gates; each method is at least as tight as the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.interval import Interval
from mipnet.network.graph import INPUT_NODE
from tests.bounds.search import activations, everything, first_outside, gate_acts, sets
from tests.nets import NETWORKS, SEEDS, make
from tests.sweep import in_turn, sweep

METHODS = ("interval", "crown", "alpha")
NAMES = [f"{family.__name__}-{seed}" for family, seed in SEEDS]


def by_method(network: mn.Network, region: mn.Box, gates: Sequence[mn.Gate]) -> dict[str, Bounds]:
    return {method: mn.propagate(network, region, gates, method=method) for method in METHODS}


@pytest.mark.parametrize(("family", "seed", "kind"), in_turn(NETWORKS, ["clipped", "box", "image"]))
def test_bounds_hold_what_is_sampled_cornered_and_searched(family, seed, kind):
    network, g = make(family, seed)
    region = sets(g, network)[kind]
    values = activations(network, everything(network, region, g))
    for method, bounds in by_method(network, region, ()).items():
        assert first_outside(bounds, values) is None, method


@pytest.mark.parametrize(("family", "seed", "kind"), in_turn(NETWORKS, ["ball", "image"]))
def test_sound_bounds_hold_at_any_score(family, seed, kind):
    network, g = make(family, seed)
    region, gates = sets(g, network)[kind], mn.find_gates(network)
    x = everything(network, region, g)[::4]
    for method, bounds in by_method(network, region, gates).items():
        assert first_outside(bounds, activations(network, x, gate_acts(bounds, g, len(x), gates))) is None, method


@pytest.mark.parametrize(("family", "seed", "gated"), in_turn(NETWORKS, [False, True]))
def test_each_method_is_at_least_as_tight_as_the_one_before(family, seed, gated):
    network, g = make(family, seed)
    region = mn.LInf(g.uniform(0.2, 0.8, (3, *network.input_shape)), 0.2)
    found = list(by_method(network, region, mn.find_gates(network) if gated else ()).values())
    for wide, tight in pairwise(found):
        for name, box in tight.after.items():
            assert bool((box.lower >= wide.after[name].lower - 1e-9).all()), name
            assert bool((box.upper <= wide.after[name].upper + 1e-9).all()), name
            assert bool((box.lower <= box.upper).all()), name


@pytest.mark.parametrize(
    ("family", "seed", "method", "gated"),
    in_turn(sweep(SEEDS[::4], every=3), [("crown", True), ("alpha", False), ("alpha", True), ("crown", False)]),
)
def test_samples_together_are_samples_one_by_one(family, seed, method, gated):
    network, g = make(family, seed)
    gates = mn.find_gates(network) if gated else ()
    region = mn.LInf(g.uniform(0.2, 0.8, (3, *network.input_shape)), g.uniform(0, 0.3, (3, *network.input_shape)))
    together = mn.propagate(network, region, gates, method=method)
    for k in range(3):
        alone = mn.propagate(network, mn.Box(region.lower[k : k + 1], region.upper[k : k + 1]), gates, method=method)
        for name, box in alone.after.items():
            torch.testing.assert_close(together.after[name].lower[k : k + 1], box.lower, rtol=0, atol=1e-8)
            torch.testing.assert_close(together.after[name].upper[k : k + 1], box.upper, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("family", "seed"), SEEDS[::8], ids=NAMES[::8])
def test_a_bound_that_is_cut_by_a_tenth_is_caught(family, seed):
    """Each node's tightest bounds, with a tenth of the width removed where an activation is known to lie, are found to be wrong."""
    network, g = make(family, seed)
    region = sets(g, network)["ball"]
    values = activations(network, everything(network, region, g))
    bounds = mn.propagate(network, region, method="alpha")
    for name, box in bounds.after.items():
        if name == INPUT_NODE:
            continue
        reached = values[name].amax(0, keepdim=True)
        element = int(((reached - box.lower) / box.width.clamp(min=1e-12)).argmax())
        if reached.flatten()[element] < (box.upper - box.width / 10).flatten()[element] + 1e-6:
            continue  # the true range is smaller than nine tenths of the bounds
        upper = box.upper.flatten().clone()
        upper[element] -= box.width.flatten()[element] / 10
        upper = upper.reshape(box.upper.shape)
        assert first_outside(replace(bounds, after={**bounds.after, name: Interval(box.lower, upper)}), values) == name


def test_most_cuts_are_looked_at():
    """The test above does not pass for lack of search: in a network of one layer every bound is attained."""
    g = np.random.default_rng(0)
    network = mn.Network.build((3,), [("fc", mn.Dense(g.normal(size=(4, 3)))), ("act", mn.ReLU())])
    region = mn.LInf(np.zeros((1, 3)), 1.0)
    values = activations(network, everything(network, region, g))
    bounds = mn.propagate(network, region, method="crown")
    for end in range(2):
        box = bounds.after["fc"]
        cut = Interval(box.lower + box.width / 10, box.upper) if end else Interval(box.lower, box.upper - box.width / 10)
        assert first_outside(replace(bounds, after={**bounds.after, "fc": cut}), values) == "fc"
