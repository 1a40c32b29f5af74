"""Random small networks whose layers, inputs and outputs have units of their own, from 1e-7 to 1e6."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import mipnet as mn
from mipnet.arrays import Array

WIDTH_EXPONENTS = -7.0, 6.0
"""Decimal exponents of the widths of inputs."""

UNIT_EXPONENTS = -6.0, 6.0
"""Decimal exponents of outputs, and of the ratio of the units of two layers, which is the size of the weights between them."""

WIDE_INPUTS = 11
"""More inputs than those of a set that is split: all but a few are fixed, and the solver decides."""


@dataclass(frozen=True)
class Case:
    """A network over a box ``(1, *input_shape)``; ``unit`` is the size of its outputs as they were drawn."""

    seed: int
    family: str
    network: mn.Network
    lower: Array
    upper: Array
    unit: float
    units: tuple[float, ...]

    @property
    def region(self) -> mn.Box:
        return mn.Box(self.lower, self.upper)

    @property
    def rng(self) -> np.random.Generator:
        """The numbers of a question, not those of the network."""
        return np.random.default_rng([self.seed, 1])


@dataclass
class Draw:
    """Draws layers whose values have the size of their unit."""

    g: np.random.Generator
    jitter: bool

    def spread(self, count: int, unit: float) -> Array:
        """One unit per element: all the same, or over three orders of magnitude."""
        return unit * 10 ** self.g.uniform(-1.5, 1.5, count) if self.jitter else np.full(count, unit)

    def dense(self, inputs: Array, outputs: Array, centre: Array | None = None) -> mn.Dense:
        """A dense layer from values of sizes ``inputs`` around ``centre`` to values of sizes ``outputs``."""
        g, n, m = self.g, len(inputs), len(outputs)
        weight = g.normal(size=(m, n)) / np.sqrt(min(n, 4)) * outputs[:, None] / inputs
        if self.jitter and g.uniform() < 0.5:  # one size for all inputs, as of features that nobody normalised
            weight *= inputs / inputs.max()
        bias = g.normal(size=m) * 0.5 * outputs
        kind = g.uniform(size=m)
        weight[kind < 0.04] = 0.0
        bias[(kind >= 0.04) & (kind < 0.10)] -= 10 * outputs[(kind >= 0.04) & (kind < 0.10)]
        bias[(kind >= 0.10) & (kind < 0.16)] += 10 * outputs[(kind >= 0.10) & (kind < 0.16)]
        for k in np.flatnonzero(kind > 0.94):
            weight[k], bias[k] = weight[0] * outputs[k] / outputs[0], bias[0] * outputs[k] / outputs[0]
        if centre is not None and g.uniform() < 0.9:  # otherwise the bias is off centre, and most units are stable
            bias = bias - weight @ centre
        return mn.Dense(weight, bias)

    def activation(self, unit: float) -> mn.Layer:
        g = self.g
        kinds = (
            mn.LeakyReLU(float(g.choice([0.0, 0.01, 0.1, 1.0]))),
            mn.Clip(-0.5 * unit, 0.7 * unit),
            mn.Clip(low=-0.2 * unit),
            mn.Clip(high=0.6 * unit),
        )
        return mn.ReLU() if g.uniform() < 0.7 else kinds[g.integers(len(kinds))]


def units(g: np.random.Generator, width: float, layers: int) -> list[float]:
    """The units of layers after inputs of a width: neighbours differ by at most 1e6, and the last is from 1e-6 to 1e6."""
    while True:
        steps = g.uniform(*UNIT_EXPONENTS, layers - 1)
        last = g.uniform(*UNIT_EXPONENTS)
        path = np.log10(width) + np.concatenate([[0.0], np.cumsum(steps)])
        if abs(last - path[-1]) <= UNIT_EXPONENTS[1]:
            return [float(10**each) for each in (*path[1:], last)]


def draw(seed: int, family: str | None = None) -> Case:
    """The network of a seed."""
    g = np.random.default_rng([seed, 0])
    chosen = g.choice(["dense", "dense", "chain", "residual", "image"]) if family is None else family
    maker = Draw(g, bool(g.uniform() < 0.3))
    shape = (1, 3, 3) if chosen == "image" else (WIDE_INPUTS if g.uniform() < 0.5 and chosen != "chain" else int(g.integers(1, 4)),)
    count = int(np.prod(shape))
    few = min(count, int(g.choice([1, 2, 2, 2, 3])))
    width = float(10 ** g.uniform(*WIDTH_EXPONENTS))
    widths = np.full(count, width)
    if g.uniform() < 0.25:
        widths = 10 ** g.uniform(*WIDTH_EXPONENTS, count)
        width = float(np.exp(np.log(widths).mean()))
    centre = g.normal(size=count) * widths * g.choice([0.0, 1.0, 1e3])
    lower, upper = centre.copy(), centre.copy()
    free = g.choice(count, few, replace=False)
    lower[free], upper[free] = centre[free] - widths[free] / 2, centre[free] + widths[free] / 2
    make = {"dense": dense, "chain": dense, "residual": residual, "image": image}[str(chosen)]
    sizes = units(g, width, 2 if chosen == "image" else int(g.integers(2, 4)))
    layers = make(maker, widths / 2, (lower + upper) / 2, sizes, only_relu=chosen == "chain")
    ends = (end.reshape(1, *shape) for end in (lower, upper))
    return Case(seed, str(chosen), mn.Network.build(shape, layers), *ends, sizes[-1], (width, *sizes))


def dense(m: Draw, inputs: Array, centre: Array, sizes: list[float], *, only_relu: bool) -> list[tuple[str, mn.Layer]]:
    layers: list[tuple[str, mn.Layer]] = []
    for k, unit in enumerate(sizes):
        outputs = m.spread(int(m.g.integers(3, 8)), unit) if k < len(sizes) - 1 else np.full(int(m.g.integers(2, 4)), unit)
        layers.append((f"fc{k}", m.dense(inputs, outputs, centre if k == 0 else None)))
        if k < len(sizes) - 1:
            layers.append((f"act{k}", mn.ReLU() if only_relu else m.activation(unit)))
        inputs = outputs
    return layers


def residual(m: Draw, inputs: Array, centre: Array, sizes: list[float], *, only_relu: bool) -> list[tuple]:
    first, last = m.spread(int(m.g.integers(3, 6)), sizes[0]), np.full(2, sizes[-1])
    inside = m.spread(len(first), sizes[1]) if len(sizes) > 2 else first
    return [
        ("fc0", m.dense(inputs, first, centre)),
        ("act0", mn.ReLU()),
        ("fc1", m.dense(first, inside)),
        ("act1", m.activation(sizes[1] if len(sizes) > 2 else sizes[0])),
        ("fc2", m.dense(inside, first)),
        ("sum", mn.Add((1.0, float(m.g.choice([1.0, -1.0, 0.5])))), ("fc2", "act0")),
        ("act2", mn.ReLU()),
        ("fc3", m.dense(first, last)),
    ]


def image(m: Draw, inputs: Array, centre: Array, sizes: list[float], *, only_relu: bool) -> list[tuple[str, mn.Layer]]:
    g, unit = m.g, sizes[0]
    weight = g.normal(size=(2, 1, 2, 2)) * unit / np.median(inputs)
    bias = g.normal(size=2) * 0.5 * unit - weight.sum(axis=(1, 2, 3)) * np.median(centre)
    size = np.full(2, unit)
    return [
        ("conv", mn.Conv2d(weight, bias)),
        ("act", m.activation(unit)),
        ("pool", mn.MaxPool2d(mn.Window((2, 1), (1, 1)))),
        ("flat", mn.Reshape((4,))),
        ("fc", m.dense(np.full(4, unit), size * sizes[-1] / unit)),
    ]
