"""ReLU networks with one input: their smallest and largest values over a range, exactly, in rational arithmetic.

A network of one input is piecewise linear along it.  So its values at the ends and at the kinks say everything.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np

import mipnet as mn


def one_input_network(seed: int, widths: tuple[int, ...], shift: float = 0.0) -> mn.Network:
    """Dense layers ``fc0``, ``fc1``, ... with ReLUs between them, with random weights; ``shift`` is added to the outputs."""
    g = np.random.default_rng(seed)
    layers, given = [], 1
    for k, units in enumerate(widths):
        bias = (shift if k == len(widths) - 1 else 0.0) + g.normal(size=units)
        layers.append((f"fc{k}", mn.Dense(g.normal(size=(units, given)), bias)))
        layers.append((f"relu{k}", mn.ReLU()))
        given = units
    return mn.Network.build((1,), layers[:-1])


def values_at_kinks(network: mn.Network, low: float, high: float) -> dict[str, np.ndarray]:
    """The values of each dense layer at both ends of the range and at all kinks before the layer, ``(points, units)``, as fractions."""
    values, found = np.array([[Fraction(low)], [Fraction(high)]]), {}
    for node in network.nodes:
        if not isinstance(node.layer, mn.Dense):
            continue
        if found:
            values = _rectified(values)
        weight, bias = (np.vectorize(Fraction, otypes=[object])(part.numpy()) for part in (node.layer.weight, node.layer.bias))
        values = found[node.name] = values @ weight.T + bias
    return found


def _rectified(values: np.ndarray) -> np.ndarray:
    """The values after a ReLU, with a point more wherever a unit changes its sign."""
    points = [values[0]]
    for first, last in pairwise(values):
        shares = sorted({a / (a - b) for a, b in zip(first, last, strict=True) if a * b < 0})
        points += [*(first + share * (last - first) for share in shares), last]
    return np.maximum(np.array(points), Fraction(0))
