"""The values of a network over a box as affine functions of its input and of the unstable units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import distance

from mipnet.arrays import Array, Csr, Ints, widen
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.linear_rules import is_elementwise, lines
from mipnet.formulations.affine import Affine, concatenate
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.memory import check_memory
from mipnet.network.graph import INPUT_NODE, Layer, Network, Node
from mipnet.network.sets import Box

FORM_TERM_BYTES = 48
"""Bytes per term of an affine function of a layer: itself, and copies of it."""

FORM_ROUNDING_RELATIVE = 1e-12
"""Rounding error of an affine function, relative to the sum of the absolute values of its terms."""

COMPARED_NUMBERS_MAX, COMPARED_NUMBERS_AT_ONCE = 10**9, 10**8
"""Largest number of differences that are computed to find nearest rows, which takes about a second, and between two looks at the clock."""


class NearestRows(NamedTuple):
    """Per row: the number of the nearest row, a bound on the difference of both values, rounding included, and the size of the row."""

    which: Ints
    distance: Array
    size: Array


@dataclass(eq=False)
class AffineForms:
    """The variables of affine functions: the elements of the input, and the unstable units, which are added one layer after another.

    ``largest`` bounds the absolute value of each variable.  Raises `TimeLimitReached` after the ``deadline``.
    """

    deadline: Deadline = NO_DEADLINE
    largest: Array = field(default_factory=lambda: np.zeros(0))

    def new(self, largest: Array) -> Ints:
        """Add variables with these bounds of their absolute values, and return their numbers."""
        labels = np.arange(len(self.largest), len(self.largest) + largest.size)
        self.largest = np.concatenate([self.largest, largest.reshape(-1)])
        return labels

    def input(self, region: Box) -> Affine:
        """Add one variable per element of the input, and return the input as affine functions."""
        largest = np.maximum(np.abs(region.lower), np.abs(region.upper))
        return Affine.of(self.new(largest).reshape(largest.shape))

    def follow(self, network: Network, bounds: Bounds) -> dict[str, Affine]:
        """Return the value of every node of a network; the elements of the input are new variables."""
        values = {INPUT_NODE: self.input(bounds.region)}
        for node in network.nodes:
            values[node.name] = self.value(node, [values[name] for name in node.inputs], bounds)
        return values

    def value(self, node: Node, inputs: list[Affine], bounds: Bounds) -> Affine:
        """Return a node's value: an affine function for affine layers and stable units, and new variables for unstable units."""
        self.deadline.check(f"write the values of layer `{node.name}` as functions of the input")
        if is_affine(node.layer):
            return apply_affine(node.layer, inputs, self.deadline)
        box = bounds.after[node.name]
        largest = torch.maximum(box.lower.abs(), box.upper.abs()).numpy()
        if not is_elementwise(node.layer):
            return Affine.of(self.new(largest).reshape(1, *node.shape))
        line = lines(node.layer, bounds.after[node.inputs[0]])
        unstable = line.differ.expand(1, *node.shape).numpy()
        labels = np.full(unstable.shape, -1)
        labels[unstable] = self.new(largest[unstable])
        slope, shift = (np.where(unstable, 0.0, end.expand(1, *node.shape).numpy()) for end in (line.lower_slope, line.lower_shift))
        return inputs[0] * slope + shift + Affine.of(labels)

    def rows(self, *values: Affine) -> Csr:
        """Return the constant and the coefficients of some values, one row per element."""
        flat = concatenate([value.reshape(-1) for value in values], 0)
        constant = Csr(flat.constant.reshape(-1, 1))
        return Csr(sparse.hstack([constant, widen(flat.terms, len(self.largest))], format="csr"))

    def nearest(self, rows: Csr, known: Csr) -> NearestRows:
        """Find the nearest row of ``known`` for each row.

        If comparing all pairs takes too long, only neighbours in a random projection are compared.  An equal row is still found, but among
        different rows not always the nearest.
        """
        reach, count = np.concatenate([[1.0], self.largest]), rows.shape[0]
        every = count * known.shape[0] * len(reach) <= COMPARED_NUMBERS_MAX
        choose = self._nearest_of_all(known, reach) if every else self._neighbours(known, reach)
        numbers = known.shape[0] * len(reach) if every else (rows.nnz + known.nnz) / max(1, count)
        at_once, parts = max(1, int(COMPARED_NUMBERS_AT_ONCE / max(1, numbers))), []
        for first in range(0, count, at_once):
            self.deadline.check("compare the units of both networks")
            part = Csr(rows[first : first + at_once])
            near = choose(part)
            differences = np.stack([abs(part - known[each]) @ reach for each in near])
            best, sizes = differences.argmin(axis=0), abs(part) @ reach
            found = differences.min(axis=0) + 2 * FORM_ROUNDING_RELATIVE * sizes
            parts.append((near[best, np.arange(len(best))], found, sizes))
        return NearestRows(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    @staticmethod
    def _nearest_of_all(known: Csr, reach: Array) -> Callable[[Csr], Ints]:
        """Return a function that returns the nearest row of ``known`` for each of some rows, ``(1, rows)``."""
        scaled = known.toarray() * reach
        return lambda rows: distance.cdist(rows.toarray() * reach, scaled, "cityblock").argmin(axis=1)[None]

    @staticmethod
    def _neighbours(known: Csr, reach: Array) -> Callable[[Csr], Ints]:
        """Return a function that returns both neighbours in a random projection for each of some rows, ``(2, rows)``."""
        along = np.random.default_rng(0).normal(size=len(reach)) * (reach > 0)
        projected = known @ along
        order = np.argsort(projected)
        places = projected[order]

        def neighbours(rows: Csr) -> Ints:
            after = np.searchsorted(places, rows @ along)
            return np.asarray(order[np.clip(np.stack([after - 1, after]), 0, len(order) - 1)])

        return neighbours


def apply_affine(layer: Layer, inputs: list[Affine], deadline: Deadline = NO_DEADLINE) -> Affine:
    """Return the value of an affine layer; raises `TimeLimitReached` after the deadline."""
    with torch.no_grad():
        constant: Array = layer.forward(*(torch.tensor(x.constant) for x in inputs)).numpy()
    maps = linear_map(layer, *(x.shape[1:] for x in inputs))
    terms = sum(_largest_product(each, x) for each, x in zip(maps, inputs, strict=True))
    what = f"the values of a layer ({layer.label}) as functions of the input and of unstable units ({terms:,.0f} terms)"
    check_memory(what, FORM_TERM_BYTES * terms, "give a smaller input set, over which fewer units are unstable")
    parts = [x.through(each, np.zeros(constant.shape), deadline) for x, each in zip(inputs, maps, strict=True)]
    return sum(parts[1:], start=parts[0]) + constant


def _largest_product(matrix: Csr, x: Affine) -> float:
    """Return an upper bound of the number of terms of a layer's value: those of all that it reads, and no more than there are variables."""
    variables = len(np.unique(x.terms.indices))
    return min(matrix.nnz * x.terms.nnz / max(1, x.terms.shape[0]), float(matrix.shape[0]) * variables)
