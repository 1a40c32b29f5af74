"""Small networks and their linear pieces, written out without mipnet's own arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import torch

import mipnet as mn

INPUTS, HIDDEN, OUTPUTS = 3, (4, 3), 3


def random_network(seed, hidden=HIDDEN):
    g = torch.Generator().manual_seed(seed)
    layers, width = [], INPUTS
    for k, units in enumerate(hidden):
        weight, bias = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((units, width), (units,)))
        layers += [(f"fc{k}", mn.Dense(weight, 0.3 * bias)), (f"relu{k}", mn.ReLU())]
        width = units
    layers.append(("out", mn.Dense(torch.randn(OUTPUTS, width, generator=g, dtype=torch.float64))))
    return mn.Network.build((INPUTS,), layers)


def pieces(net):
    """Per activation pattern: ``matrix @ x <= right`` where it occurs, and the slope and constant of the output there."""
    (w0, b0), (w1, b1), (w2, _) = (
        (net[name].layer.weight.numpy(), None if net[name].layer.bias is None else net[name].layer.bias.numpy())
        for name in ("fc0", "fc1", "out")
    )
    for signs in itertools.product((0.0, 1.0), repeat=len(b0) + len(b1)):
        d0, d1 = np.array(signs[: len(b0)]), np.array(signs[len(b0) :])
        a1, c1 = w1 @ (d0[:, None] * w0), w1 @ (d0 * b0) + b1
        turn0, turn1 = (1 - 2 * d0)[:, None], (1 - 2 * d1)[:, None]
        matrix, right = np.vstack([turn0 * w0, turn1 * a1]), np.concatenate([-turn0[:, 0] * b0, -turn1[:, 0] * c1])
        yield matrix, right, w2 @ (d1[:, None] * a1), w2 @ (d1 * c1)
