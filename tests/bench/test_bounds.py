"""Bounds of the `mnist_fc` networks by every method: how many units stay unstable, how wide they are, and how long it takes."""

from __future__ import annotations

import time
from functools import cache, partial

import numpy as np
import pytest

import mipnet as mn
from mipnet.bounds.boxes import Bounds
from tests.bench.measure import cpu_times
from tests.bench.registry import Bench, Row, Section
from tests.bench.vnncomp import ball, mnist_fc
from tests.bounds.search import Values, activations, first_outside, pushed
from tests.nets import sample

EPSILON, SECONDS = 0.03, 120.0
METHODS = ("interval", "crown", "alpha", "lp", "mip")
DEPTHS = (2, 4, 6)
UNIT = {"time": "s", **{f"relu{k}": "" for k in range(1, 7)}, "unstable": "", "output width": ""}


@cache
def network(depth: int) -> mn.Network:
    return mnist_fc(depth)


@cache
def searched(depth: int) -> Values:
    """What 10,000 inputs, half of them corners, and those that gradients lead to make of every node."""
    g = np.random.default_rng(0)
    region = ball(EPSILON)
    return activations(network(depth), np.concatenate([sample(region, 10_000, g), pushed(network(depth), region, g)]))


@cache
def found(depth: int, method: str) -> tuple[Bounds, float]:
    """Bounds, and the CPU seconds they took; a solver starts from the bounds of the method before."""
    net, region = network(depth), ball(EPSILON)
    if method not in ("lp", "mip"):
        (seconds,) = cpu_times(partial(mn.propagate, net, region, method=method))
        return mn.propagate(net, region, method=method), seconds
    start, _ = found(depth, METHODS[METHODS.index(method) - 1])
    began = time.process_time()
    bounds = mn.tighten(net, region, method=method, start=start, time_limit=SECONDS)
    return bounds, time.process_time() - began


def row(depth: int, method: str) -> Row:
    bounds, seconds = found(depth, method)
    assert first_outside(bounds, searched(depth)) is None
    if method != METHODS[0]:
        check_tighter(bounds, found(depth, METHODS[METHODS.index(method) - 1])[0])
    unstable = bounds.unstable()
    return {
        "time": seconds,
        **{f"relu{k}": unstable.get(f"relu{k}") for k in range(1, 7)},
        "unstable": sum(unstable.values()),
        "output width": bounds.layers()[-1].width,
    }


def check_tighter(tight: Bounds, wide: Bounds) -> None:
    for name, box in tight.after.items():
        assert bool((box.lower >= wide.after[name].lower - 1e-9).all()), name
        assert bool((box.upper <= wide.after[name].upper + 1e-9).all()), name


BOUNDS = Section(
    "Bounds: the mnist_fc networks of VNN-COMP, epsilon 0.03",
    f"""
The networks have 2, 4 and 6 hidden layers of 256 units. The input set contains all inputs within 0.03 of the first test image of
MNIST. The columns relu1 to relu6 count the unstable units per layer, those whose sign is not fixed. For every method it was checked
that its bounds are at least as tight as those of the method above for every unit, and that they contain the activations of 10,000
sampled inputs, half of them corners, and of inputs found by gradient steps. `lp` starts from the bounds of `alpha`, and `mip` from
those of `lp`. Each of the two had {SECONDS:.0f} seconds for all layers; units that it did not reach keep their bounds.
""",
    tuple(Bench(f"256x{depth}, {method}", partial(row, depth, method), UNIT) for depth in DEPTHS for method in METHODS),
)


@pytest.mark.bench
@pytest.mark.parametrize("bench", BOUNDS.benches, ids=lambda bench: bench.name)
def test_bounds(bench: Bench, measured: dict[Section, dict[str, Row]]) -> None:
    values = bench.run()
    assert set(values) == set(bench.unit)
    measured.setdefault(BOUNDS, {})[bench.name] = values
    print(bench.name, values)
