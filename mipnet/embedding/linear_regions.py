"""The linear regions of a network over a box of few free inputs, by their vertices.

A network of affine layers and ReLU, LeakyReLU and Clip is affine in each of finitely many polytopes, its linear regions, which cover the
box.  They are found one unit after another: where the argument of an activation changes its sign inside a region, the region is cut in two,
with new vertices on its edges.  A vertex knows the hyperplanes that it lies on, and two vertices of a region in k dimensions may share an
edge only if they lie on k - 1 common ones.

Arguments within `SNAP_RELATIVE` of the terms that they are sums of count as zero, which also covers the rounding of float64.  In every
point of a region, an activation is then the mean of its values at the vertices within twice this number and twice the error of its
argument, and an affine layer multiplies errors by the absolute values of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from mipnet.arrays import Array, Ints
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.layers.activations import Clip, LeakyReLU, ReLU
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import INPUT_NODE, Network, Node, size

SNAP_RELATIVE = 1e-11
"""Arguments of activations up to this share of the terms that they are sums of count as zero."""

REGIONS_MAX = 5_000
"""Largest number of linear regions of one network that are enumerated."""


@dataclass(frozen=True, eq=False)
class RegionVertices:
    """The vertices of all linear regions: ``points`` of shape ``(vertex, *input_shape)``, the output there, and its ``error`` per output.

    In every point of the box the output is a mean of outputs of vertices whose mean is the point, within ``error``.  ``regions`` are the
    numbers of the vertices of each region.  ``nodes`` are the values of all nodes at the vertices, of shape ``(vertex, element)``, and
    ``sides``, by activation, on which side of its kinks each argument is: -1, 0 or 1, of shape ``(vertex, kink, element)``.
    """

    points: Array
    values: Array
    error: Array
    regions: list[Ints]
    nodes: dict[str, Array]
    sides: dict[str, Ints]

    @property
    def error_share(self) -> float:
        """The largest error, relative to 1 or the largest output."""
        return float((self.error / np.maximum(1.0, np.abs(self.values).max(axis=0))).max())


def has_regions(network: Network) -> bool:
    """Return True if the network has only layers whose linear regions are enumerated here."""
    return all(is_affine(node.layer) or type(node.layer) in (ReLU, LeakyReLU, Clip) for node in network.nodes)


def region_vertices(
    network: Network, lower: Array, upper: Array, regions_max: int = REGIONS_MAX, deadline: Deadline = NO_DEADLINE
) -> RegionVertices | None:
    """Return the vertices of the linear regions of a network over a box of shape ``input_shape``.

    Returns None if there are more than ``regions_max`` regions, or the deadline passes.
    """
    free = np.flatnonzero((upper > lower).reshape(-1))
    corners = [np.where(np.array(ends), upper.reshape(-1)[free], lower.reshape(-1)[free]) for ends in product((0, 1), repeat=len(free))]
    masks = [sum(1 << (2 * axis + end) for axis, end in enumerate(ends)) for ends in product((0, 1), repeat=len(free))]
    found = _Subdivision(np.array(corners), masks, [list(range(len(corners)))], 2 * len(free))
    error = {INPUT_NODE: np.zeros(size(network.input_shape))}
    terms = {INPUT_NODE: np.maximum(np.abs(lower), np.abs(upper)).reshape(-1)}
    for node in network.nodes:
        snapped = SNAP_RELATIVE * max(float(terms[name].max(initial=0.0)) for name in node.inputs)
        if node.layer.activation:
            arguments = node_values(network, _inputs(lower, free, found.points))[node.inputs[0]]
            for kink, unit in product(kinks(node), range(arguments.shape[1])):
                arguments = found.cut(arguments, unit, kink, snapped)
                if len(found.regions) > regions_max or deadline.passed:
                    return None
        error[node.name], terms[node.name] = _error_and_terms(network, node, error, terms, snapped)
    points = _inputs(lower, free, found.points)
    nodes = node_values(network, points)
    sides = {node.name: _sides(node, nodes[node.inputs[0]], terms[node.inputs[0]]) for node in network.nodes if node.layer.activation}
    out = network.output.name
    return RegionVertices(points, nodes[out], error[out], [np.array(region) for region in found.regions], nodes, sides)


def kinks(node: Node) -> Iterator[float]:
    """Yield the arguments at which an activation changes its slope."""
    if isinstance(node.layer, Clip):
        yield from (end for end in (node.layer.low, node.layer.high) if math.isfinite(end))
    else:
        yield 0.0


def _error_and_terms(network: Network, node: Node, error: dict[str, Array], terms: dict[str, Array], snapped: float) -> tuple[Array, Array]:
    """Return the error of a node's value, and the sum of the absolute values of its terms."""
    layer = node.layer
    if not is_affine(layer):
        (name,) = node.inputs
        slope = max(1.0, float(torch.as_tensor(getattr(layer, "slope", 1.0)).abs().max()))
        ends = max((abs(kink) for kink in kinks(node)), default=0.0)
        return 2 * slope * (error[name] + snapped), slope * np.maximum(terms[name], ends)
    shapes = [network.shape_of(name) for name in node.inputs]
    maps = [abs(each) for each in linear_map(layer, *shapes)]
    constant = layer.forward(*(torch.zeros((1, *shape), dtype=torch.float64) for shape in shapes)).abs().numpy().reshape(-1)
    sums = [np.sum([m @ known[name] for m, name in zip(maps, node.inputs, strict=True)], axis=0) for known in (error, terms)]
    return np.asarray(sums[0] + snapped), np.asarray(sums[1] + constant)


def _inputs(lower: Array, free: Ints, points: Array) -> Array:
    full = np.repeat(lower.reshape(1, -1), len(points), axis=0)
    full[:, free] = points
    return full.reshape(-1, *lower.shape)


def node_values(network: Network, x: Array) -> dict[str, Array]:
    """Return the values of the input and of all nodes at points of shape ``(point, *input_shape)``, each of shape ``(point, element)``."""
    with torch.no_grad():
        values = network.values(torch.as_tensor(x))
    return {name: np.array(value.reshape(len(x), -1).numpy(), dtype=np.float64) for name, value in values.items()}


def _sides(node: Node, arguments: Array, terms: Array) -> Ints:
    """Return -1, 0 or 1 per vertex, kink and element; 0 within twice what counts as zero when regions are cut."""
    snapped = 2 * SNAP_RELATIVE * float(terms.max(initial=0.0))
    away = np.stack([arguments - kink for kink in kinks(node)], axis=1)
    return np.where(away > snapped, 1, np.where(away < -snapped, -1, 0))


@dataclass(eq=False)
class _Subdivision:
    """Vertices in the free inputs, the hyperplanes that each lies on as bits, and regions as lists of vertices."""

    points: Array
    masks: list[int]
    regions: list[list[int]]
    planes: int

    def cut(self, arguments: Array, unit: int, kink: float, snapped: float) -> Array:
        """Cut all regions where an argument equals ``kink``, and return the arguments with those at the new vertices."""
        value = arguments[:, unit] - kink
        sign = np.where(value > snapped, 1, np.where(value < -snapped, -1, 0)).tolist()
        bit, kept, cut = 1 << self.planes, list[list[int]](), list[list[int]]()
        self.planes += 1
        for region in self.regions:
            signs = [sign[vertex] for vertex in region]
            (cut if max(signs) > 0 > min(signs) else kept).append(region)
        for vertex in (vertex for vertex, each in enumerate(sign) if each == 0):
            self.masks[vertex] |= bit
        if not cut:
            return arguments
        pairs: dict[tuple[int, int], int] = {}
        edges_share = self.points.shape[1] - 1
        for region in cut:
            above, below = ([v for v in region if sign[v] * side > 0] for side in (1, -1))
            on = [v for v in region if sign[v] == 0]
            edges = [(a, b) for a in above for b in below if (self.masks[a] & self.masks[b]).bit_count() >= edges_share]
            on += [pairs.setdefault(edge, len(self.masks) + len(pairs)) for edge in edges]
            kept += [above + on, below + on]
        first, last = (np.array([pair[end] for pair in pairs], dtype=np.int64) for end in (0, 1))
        share = (value[first] / (value[first] - value[last]))[:, None]
        self.masks += [self.masks[a] & self.masks[b] | bit for a, b in pairs]
        self.points = np.concatenate([self.points, self.points[first] + share * (self.points[last] - self.points[first])])
        self.regions = kept
        return np.concatenate([arguments, arguments[first] + share * (arguments[last] - arguments[first])])
