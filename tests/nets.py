"""Small random networks of every kind of layer, written straight in the IR, and a dense sampling of boxes."""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse

import mipnet as mn
from mipnet.arrays import Array
from tests.sweep import marked

Generator = np.random.Generator


def dense(g: Generator, outputs: int, inputs: int, *, bias: bool = True) -> mn.Dense:
    return mn.Dense(g.normal(size=(outputs, inputs)) / math.sqrt(inputs), g.normal(size=outputs) * 0.3 if bias else None)


def conv(g: Generator, outputs: int, inputs: int, kernel: tuple[int, int], groups: int = 1, **window) -> mn.Conv2d:
    weight = g.normal(size=(outputs, inputs // groups, *kernel)) * 1.5 / math.sqrt(inputs // groups * math.prod(kernel))
    return mn.Conv2d(weight, g.normal(size=outputs) * 0.3, groups=groups, **window)


def activation(g: Generator) -> mn.Layer:
    kinds = (mn.ReLU(), mn.ReLU(), mn.LeakyReLU(0.2), mn.Clip(0.0, 0.6), mn.Clip(-0.5, 0.5), mn.Clip(high=0.4), mn.Clip(low=-0.1))
    return kinds[g.integers(len(kinds))]


def norm(g: Generator, channels: int) -> mn.BatchNorm:
    return mn.BatchNorm(g.uniform(0.5, 1.5, channels) * g.choice([-1, 1], channels), g.normal(size=channels) * 0.3)


def mlp(g: Generator) -> mn.Network:
    n, a, b = (int(v) for v in g.integers(3, 7, 3))
    layers = [
        ("fc1", dense(g, a, n)),
        ("act1", activation(g)),
        ("fc2", dense(g, b, a, bias=False)),
        ("bn2", norm(g, b)),
        ("act2", activation(g)),
    ]
    return mn.Network.build((n,), [*layers, ("fc3", dense(g, 3, b))])


def relu_first(g: Generator) -> mn.Network:
    layers = [
        ("scale", mn.Scale(2.0, -1.0)),
        ("act0", activation(g)),
        ("fc1", dense(g, 4, 5)),
        ("act1", mn.ReLU()),
        ("fc2", dense(g, 3, 4)),
    ]
    return mn.Network.build((5,), layers)


def residual(g: Generator) -> mn.Network:
    return mn.Network.build(
        (4,),
        [
            ("fc1", dense(g, 5, 4)),
            ("act1", mn.ReLU()),
            ("fc2", dense(g, 5, 5)),
            ("act2", activation(g)),
            ("sum", mn.Add((1.0, -0.5)), ("act1", "act2")),
            ("act3", mn.ReLU()),
            ("cat", mn.Concat(), ("act3", "act1")),
            ("fc3", dense(g, 3, 10)),
        ],
    )


def cnn(g: Generator) -> mn.Network:
    pool = (
        mn.MaxPool2d(mn.Window((2, 2), (2, 2))),
        mn.MaxPool2d(mn.Window((3, 2), (1, 2), (1, 1, 0, 0))),
        mn.AvgPool2d(mn.Window((2, 2), (2, 2))),
    )
    return _convolutional(g, conv(g, 2, 1, (3, 3), padding=(1, 1, 1, 1)), pool[g.integers(3)])


def strided(g: Generator) -> mn.Network:
    first = conv(g, 4, 2, (2, 3), groups=2, stride=(2, 1), padding=(0, 1, 1, 1), dilation=(1, 2))
    pool = (mn.AdaptiveAvgPool2d((1, 2)), mn.AvgPool2d(mn.Window((2, 2), (1, 1), (1, 1, 0, 0)), count_padding=False))
    return _convolutional(g, first, pool[g.integers(2)], channels=2)


def _convolutional(g: Generator, first: mn.Conv2d, pool: mn.Layer, channels: int = 1) -> mn.Network:
    shape = (channels, 3, 4)
    outputs = len(first.weight)
    head = [("conv1", first), ("bn1", norm(g, outputs)), ("act1", activation(g)), ("pool1", pool), ("turn", mn.Permute((1, 2, 0)))]
    size = math.prod(mn.Network.build(shape, head).output_shape)
    tail = [("flat", mn.Reshape((size,))), ("fc1", dense(g, 3, size)), ("act2", mn.ReLU()), ("fc2", dense(g, 3, 3))]
    return mn.Network.build(shape, [*head, *tail])


def tokens(g: Generator) -> mn.Network:
    """Three tokens of two numbers that are mixed, copied with constants between them, and compared."""
    places = np.array([[0, 5, -1, 3], [2, 2, 1, 4]])
    return mn.Network.build(
        (3, 2),
        [
            ("each", mn.AxisDense(g.normal(size=(3, 2)), g.normal(size=3) * 0.3)),
            ("act1", mn.PReLU(np.array([[0.3, -1.0, 1.5]]))),
            ("mix", mn.AxisDense(g.normal(size=(2, 3)) / 2, None, axis=0)),
            ("copies", mn.Gather(places, g.normal(size=4))),
            ("map", mn.SparseMap.of(sparse.random_array((6, 8), density=0.4, rng=g, format="csr"), g.normal(size=(2, 3)))),
            ("largest", mn.Maximum(np.array([[0, 4], [5, -1], [3, 1], [2, 4]]))),
            ("fc1", dense(g, 4, 4)),
            ("act2", mn.ReLU()),
            ("fc2", dense(g, 3, 4)),
        ],
    )


def volume(g: Generator) -> mn.Network:
    """A volume that a convolution over three axes makes smaller, and a transposed one, as an image, larger."""
    return mn.Network.build(
        (1, 3, 3, 2),
        [
            ("conv1", mn.Conv3d(g.normal(size=(2, 1, 2, 2, 2)) / 2, g.normal(size=2), padding=((1, 0), (0, 0), (0, 0)), stride=(2, 1, 1))),
            ("image", mn.Reshape((2, 2, 2))),
            ("act1", activation(g)),
            ("up", mn.ConvTranspose2d(g.normal(size=(2, 1, 3, 2)) / 2, g.normal(size=1), (2, 2), (1, 0, 0, -1))),
            ("act2", mn.ReLU()),
            ("flat", mn.Reshape((20,))),
            ("fc1", dense(g, 3, 20)),
            ("act3", mn.ReLU()),
            ("fc2", dense(g, 3, 3)),
        ],
    )


FAMILIES = (mlp, relu_first, residual, cnn, strided, tokens, volume)
SEEDS = [(family, seed) for family in FAMILIES for seed in range(8)]
"""Fifty-six networks."""
FEW_SEEDS = {mlp: (0, 2), relu_first: (2,), residual: (6,), cnn: (0, 6), strided: (3, 6), tokens: (0,), volume: (0,)}
"""Ten of them, from every family, in which every type of layer occurs (`tests/layers/test_networks.py`)."""
NETWORKS = [(family, seed) if seed in FEW_SEEDS[family] else marked((family, seed)) for family, seed in SEEDS]
"""They as parameters of a test, of which `make test` runs the ten of `FEW_SEEDS`."""


def make(family, seed: int) -> tuple[mn.Network, Generator]:
    g = np.random.default_rng([FAMILIES.index(family), seed])
    return family(g), g


def sample(region: mn.Box, count: int, g: Generator) -> Array:
    """Points of the first box of a region: half uniform, half corners."""
    lower, upper = region.lower[0], region.upper[0]
    inside = g.uniform(lower, upper, (count // 2, *lower.shape))
    corners = np.where(g.integers(0, 2, (count // 2, *lower.shape)) == 1, upper, lower)
    return np.concatenate([inside, corners])
