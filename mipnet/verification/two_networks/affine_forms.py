"""The values of a network over a box as affine functions of its input and of those units whose activation is not decided there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import distance

from mipnet.arrays import Array, Csr, Ints, widen
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.linear_rules import is_elementwise, lines
from mipnet.formulations.affine import Affine, concatenate
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.network.graph import INPUT, Layer, Network, Node
from mipnet.network.sets import Box

ROUNDING = 1e-12
"""What rounding may do to an affine function, relative to the size of what is added up."""

PATIENCE = 10**9
"""So many numbers are compared at most to find nearest rows: about a second."""


@dataclass(eq=False)
class Forms:
    """A growing basis: ``largest`` bounds the absolute value of each of its members, of which the first are the input's."""

    largest: Array = field(default_factory=lambda: np.zeros(0))

    def new(self, largest: Array) -> Ints:
        """The numbers of further members, which are no larger than these."""
        labels = np.arange(len(self.largest), len(self.largest) + largest.size)
        self.largest = np.concatenate([self.largest, largest.reshape(-1)])
        return labels

    def input(self, region: Box) -> Affine:
        """The input over one box, in new members."""
        largest = np.maximum(np.abs(region.lower), np.abs(region.upper))
        return Affine.of(self.new(largest).reshape(largest.shape))

    def follow(self, network: Network, bounds: Bounds) -> dict[str, Affine]:
        """The value of every node of a network, the input in new members."""
        values = {INPUT: self.input(bounds.region)}
        for node in network.nodes:
            values[node.name] = self.value(node, [values[name] for name in node.inputs], bounds)
        return values

    def value(self, node: Node, inputs: list[Affine], bounds: Bounds) -> Affine:
        """A node's value: an affine layer's, a decided activation's, or new members."""
        if is_affine(node.layer):
            return through(node.layer, inputs)
        box = bounds.after[node.name]
        largest = torch.maximum(box.lower.abs(), box.upper.abs()).numpy()
        if not is_elementwise(node.layer):
            return Affine.of(self.new(largest).reshape(1, *node.shape))
        line = lines(node.layer, bounds.after[node.inputs[0]])
        apart = line.apart.expand(1, *node.shape).numpy()
        labels = np.full(apart.shape, -1)
        labels[apart] = self.new(largest[apart])
        slope, shift = (np.where(apart, 0.0, end.expand(1, *node.shape).numpy()) for end in (line.lower_slope, line.lower_shift))
        return inputs[0] * slope + shift + Affine.of(labels)

    def rows(self, *values: Affine) -> Csr:
        """Constants and terms of some values, a row for each element."""
        flat = concatenate([value.reshape(-1) for value in values], 0)
        constant = Csr(flat.constant.reshape(-1, 1))
        return Csr(sparse.hstack([constant, widen(flat.terms, len(self.largest))], format="csr"))

    def nearest(self, rows: Csr, known: Csr) -> tuple[NDArray[np.int64], Array, Array]:
        """For each row the row of ``known`` that is nearest, by how much both may differ, rounding included, and the size of the row.

        Where comparing all with all takes too long, neighbours in a random projection are compared: a row that is known is found then,
        but not the nearest of those that differ.
        """
        reach = np.concatenate([[1.0], self.largest])
        if rows.shape[0] * known.shape[0] * len(reach) <= PATIENCE:
            near = distance.cdist(rows.toarray() * reach, known.toarray() * reach, "cityblock").argmin(axis=1)[None]
        else:
            along = np.random.default_rng(0).normal(size=len(reach)) * (reach > 0)
            order, places = np.argsort(known @ along), np.sort(known @ along)
            after = np.searchsorted(places, rows @ along)
            near = order[np.clip(np.stack([after - 1, after]), 0, len(order) - 1)]
        apart = np.stack([abs(rows - known[each]) @ reach for each in near])
        best, sizes = apart.argmin(axis=0), abs(rows) @ reach
        return near[best, np.arange(len(best))], apart.min(axis=0) + 2 * ROUNDING * sizes, sizes


def through(layer: Layer, inputs: list[Affine]) -> Affine:
    """An affine layer's value."""
    with torch.no_grad():
        constant: Array = layer.forward(*(torch.tensor(x.constant) for x in inputs)).numpy()
    maps = linear_map(layer, *(x.shape[1:] for x in inputs))
    parts = [x.through(each, np.zeros(constant.shape)) for x, each in zip(inputs, maps, strict=True)]
    return sum(parts[1:], start=parts[0]) + constant
