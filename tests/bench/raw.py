"""The same program as mipnet's, by hand: numpy arrays straight to highspy, with no labels and nothing but this one architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array

Ints = NDArray[np.int32]


@dataclass
class Arrays:
    """Columns and rows as they come: one array a block, joined once at the end."""

    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    integer: list[Ints] = field(default_factory=list)
    data: list[Array] = field(default_factory=list)
    index: list[Ints] = field(default_factory=list)
    sizes: list[Ints] = field(default_factory=list)
    least: list[Array] = field(default_factory=list)
    most: list[Array] = field(default_factory=list)
    columns: int = 0

    def variables(self, lower: Array, upper: Array, where: NDArray[np.bool_], integer: bool = False) -> Ints:
        """The column of each element, -1 where there is none."""
        found = np.full(where.shape, -1, dtype=np.int32)
        count = int(where.sum())
        found[where] = np.arange(self.columns, self.columns + count, dtype=np.int32)
        self.columns += count
        self.lower.append(np.broadcast_to(lower, where.shape)[where])
        self.upper.append(np.broadcast_to(upper, where.shape)[where])
        self.integer.append(np.full(count, int(integer), dtype=np.int32))
        return found

    def rows(self, columns: Ints, data: Array, least: Array, most: Array) -> None:
        """Rows of equal length, short ones with columns of -1."""
        there = columns >= 0
        full = bool(there.all())
        self.sizes.append(np.full(len(columns), columns.shape[1], dtype=np.int32) if full else there.sum(axis=1, dtype=np.int32))
        self.index.append(columns.reshape(-1) if full else columns[there])
        self.data.append(data.reshape(-1) if full else data[there])
        self.least.append(least)
        self.most.append(most)


def hand_over(weights: Sequence[tuple[Array, Array]], lower: Array, upper: Array) -> highspy.Highs:
    """A dense ReLU network over boxes: bounds, ``h - g = W x + b``, ``h <= u v``, ``g <= -l (1 - v)``, and the output as variables."""
    a = Arrays()
    x = a.variables(lower, upper, np.ones(lower.shape, dtype=bool))
    for weight, bias in weights[:-1]:
        lower, upper = bounds(weight, bias, lower, upper)
        x = relu(a, x, weight, bias, lower, upper)
        lower, upper = np.maximum(lower, 0), np.maximum(upper, 0)
    weight, bias = weights[-1]
    lower, upper = bounds(weight, bias, lower, upper)
    y = a.variables(lower, upper, np.ones(lower.shape, dtype=bool))
    affine(a, y.reshape(-1, 1), -np.ones(1), x, weight, bias, np.ones(y.shape, dtype=bool))
    return passed(a)


def bounds(weight: Array, bias: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    centre, radius = (lower + upper) / 2 @ weight.T + bias, (upper - lower) / 2 @ np.abs(weight).T
    return centre - radius, centre + radius


def relu(a: Arrays, x: Ints, weight: Array, bias: Array, lower: Array, upper: Array) -> Ints:
    own, undecided = upper > 0, (lower < 0) & (upper > 0)
    h = a.variables(np.maximum(lower, 0), upper, own)
    g = a.variables(np.zeros(1), -lower, undecided)
    affine(a, np.stack([h[own], g[own]], axis=1), np.array([-1.0, 1.0]), x, weight, bias, own)
    v = a.variables(np.zeros(1), np.ones(1), undecided, integer=True)
    low, high = lower[undecided], upper[undecided]
    one, free = np.ones(len(low)), np.full(len(low), -np.inf)
    a.rows(np.stack([h[undecided], v[undecided]], axis=1), np.stack([one, -high], axis=1), free, 0 * one)
    a.rows(np.stack([g[undecided], v[undecided]], axis=1), np.stack([one, -low], axis=1), free, -low)
    return h


def affine(a: Arrays, left: Ints, signs: Array, x: Ints, weight: Array, bias: Array, own: NDArray[np.bool_]) -> None:
    """Rows ``W x + signs @ left = -b`` for the units that have one."""
    sample, unit = np.nonzero(own)
    columns = np.concatenate([left, x[sample]], axis=1)
    data = np.concatenate([np.broadcast_to(signs, (len(unit), len(signs))), weight[unit]], axis=1)
    a.rows(columns, data, -bias[unit], -bias[unit])


def passed(a: Arrays, cost: Array | None = None) -> highspy.Highs:
    join = np.concatenate
    start = np.concatenate([[0], np.cumsum(join(a.sizes))]).astype(np.int32)
    index, data, lower, least = join(a.index), join(a.data), join(a.lower), join(a.least)
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.passModel(
        *(a.columns, len(least), len(data), 2, 1, 0.0, np.zeros(a.columns) if cost is None else cost, lower, join(a.upper)),
        *(least, join(a.most), start, index, data, join(a.integer)),
    )
    return highs
