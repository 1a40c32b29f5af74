"""Small trained-like networks, images and labels for the tests of rivals."""

from __future__ import annotations

import numpy as np

import mipnet as mn
from tests.nets import conv, dense, norm


def mlp(g: np.random.Generator) -> mn.Network:
    layers = [("fc1", dense(g, 7, 5)), ("relu1", mn.ReLU()), ("fc2", dense(g, 6, 7)), ("relu2", mn.ReLU()), ("fc3", dense(g, 3, 6))]
    return mn.Network.build((5,), layers)


def cnn(g: np.random.Generator) -> mn.Network:
    """Convolution, batch norm, leaky ReLU (so later inputs have both signs), max pool, grouped convolution, average pool, dense."""
    window = mn.Window((2, 2), (2, 2))
    layers = [
        ("conv1", conv(g, 4, 2, (3, 3), padding=(1, 1, 1, 1))),
        ("bn1", norm(g, 4)),
        ("act1", mn.LeakyReLU(0.2)),
        ("pool1", mn.MaxPool2d(window)),
        ("conv2", conv(g, 6, 4, (2, 2), groups=2, stride=(1, 2))),
        ("relu2", mn.ReLU()),
        ("flat", mn.Reshape((18,))),
        ("fc1", dense(g, 5, 18)),
        ("relu3", mn.ReLU()),
        ("fc2", dense(g, 3, 5)),
    ]
    return mn.Network.build((2, 8, 4), layers)


def plain_cnn(g: np.random.Generator) -> mn.Network:
    """Two convolutions without groups, so that every masked channel can be cut out."""
    head = [
        ("conv1", conv(g, 4, 2, (3, 3), padding=(1, 1, 1, 1))),
        ("relu1", mn.ReLU()),
        ("pool1", mn.MaxPool2d(mn.Window((2, 2), (2, 2)))),
    ]
    body = [("conv2", conv(g, 6, 4, (2, 2), stride=(1, 2))), ("relu2", mn.ReLU()), ("flat", mn.Reshape((18,))), ("fc1", dense(g, 5, 18))]
    return mn.Network.build((2, 8, 4), [*head, *body, ("relu3", mn.ReLU()), ("fc2", dense(g, 3, 5))])


def residual(g: np.random.Generator) -> mn.Network:
    layers = [
        ("fc1", dense(g, 5, 4)),
        ("relu1", mn.ReLU()),
        ("fc2", dense(g, 5, 5)),
        ("relu2", mn.ReLU()),
        ("sum", mn.Add(), ("relu1", "relu2")),
        ("cat", mn.Concat(), ("sum", "relu1")),
        ("fc3", dense(g, 3, 10)),
    ]
    return mn.Network.build((4,), layers)


def case(family, seed: int = 0, samples: int = 12):
    """``(network, gates, images, labels)``."""
    g = np.random.default_rng(seed)
    network = family(g)
    images = g.normal(size=(samples, *network.input_shape))
    return network, mn.find_gates(network), images, g.integers(0, 3, samples)
