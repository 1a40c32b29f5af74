"""The importance program with binary scores, against every mask."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

import mipnet as mn
from mipnet.arrays import Array, Ints
from mipnet.model.losses import Loss
from tests.scales.exact import Exact
from tests.scales.programs import solved
from tests.scales.setting import SECONDS, Found, Setting

UNITS_MAX = 8
"""More units have too many masks."""


def importance(s: Setting) -> Iterator[Found]:
    """Scores of the units of a small dense network on two images of the box, with a loss in the unit of the outputs."""
    if s.case.family not in ("dense", "chain") or sum(g.units for g in mn.find_gates(s.network)) > UNITS_MAX:
        return
    images = s.rng.uniform(s.case.lower, s.case.upper, (2, *s.network.input_shape))
    labels, unit = s.rng.integers(s.outputs, size=2), s.case.unit
    loss = Loss() if 1e-2 < unit < 1e1 else Loss("margin", 0.5 * unit)
    weight = float(s.rng.uniform(0.5, 5.0)) / (1.0 if loss.name == "cross-entropy" else unit)
    objective = mn.Objective(weight, loss)
    task = mn.Importance(s.network, images, labels, objective, kind="binary", bounds="sound")
    posed = task.pose()
    result = mn.solve(posed, s.backend, time_limit=SECONDS)
    values = {mask: value(s, posed.gates, mask, (images, labels), objective) for mask in masks(posed.gates)}

    def attained() -> Fraction:
        scores = task.read(posed, result).scores
        return values[tuple(int(v) for gate in posed.gates for v in scores[gate.name].values.round())]

    yield solved(result, min(values.values()), float(max(1, *map(abs, values.values()))), 1.0, attained)


def masks(gates: tuple[mn.Gate, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product((0, 1), repeat=sum(gate.units for gate in gates))


def value(s: Setting, gates: tuple[mn.Gate, ...], mask: tuple[int, ...], given: tuple[Array, Ints], objective: mn.Objective) -> Fraction:
    """The objective of one mask, from exact logits: the weights that read a masked unit are 0."""
    images, labels = given
    layers, kept, left = [], None, list(np.split(np.array(mask, dtype=float), np.cumsum([g.units for g in gates])[:-1]))
    sparsity = sorted(Fraction(int(part.sum()) - 2 * len(part), len(part)) for part in left)
    for node in s.network.nodes:
        layer = node.layer
        if isinstance(layer, mn.Dense):
            layer = layer if kept is None else mn.Dense(layer.weight.numpy() * kept, layer.bias.numpy())
            kept = left.pop(0) if left else None
        layers.append((node.name, layer, node.inputs))
    exact = Exact(mn.Network.build(s.network.input_shape, layers), s.case.lower, s.case.upper)
    logits = np.array([[float(v) for v in exact.output(x[None])] for x in images])
    loss = Fraction(objective.weight) * Fraction(float(objective.loss.values(logits, labels).mean()))
    return sum(sparsity if len(sparsity) == 1 else sparsity[1:], Fraction(0)) + loss
