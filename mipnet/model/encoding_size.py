"""The size of an encoding before it is written: columns, rows and nonzeros of every node, from the network and its bounds.

The values of all nodes are followed as `mipnet.model.encoding` writes them, but only the number of variables of each element is kept.
Where a variable reaches an element on several paths, it is counted once per path, up to the number of different variables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
import torch
import torch.nn.functional as F

from mipnet.arrays import Array, Csr, Mask
from mipnet.bounds.boxes import Bounds
from mipnet.formulations.block import ChosenFormulation
from mipnet.formulations.formulation_choice import choice_of, gate_choice_of
from mipnet.formulations.program_size import NONZERO_BYTES, ProgramSize, big_m_size, max_big_m_size
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.formulations.relu import POSITIVE_PART
from mipnet.layers import Clip, Conv2d, Dense, LeakyReLU, MaxPool2d, ReLU
from mipnet.layers.pool import kept_candidates
from mipnet.model.node_values import FormulationRequest
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT_NODE, Layer, Network, Node, size
from mipnet.network.sets import Box

COPIES_WHILE_WRITTEN = 3
"""Copies of the largest node's terms that exist at the same time while it is written."""


@dataclass(frozen=True, eq=False)
class TermCounts:
    """The number of variables of each element of a value, ``(sample, *shape)``.

    One sample has ``own`` different variables that no other sample has, and ``shared`` ones that all have, such as scores.
    """

    each: Array
    own: float
    shared: float

    @property
    def total(self) -> float:
        """The number of terms of all elements."""
        return float(self.each.sum())

    def capped(self) -> TermCounts:
        """Return the same counts, none above the number of different variables."""
        return replace(self, each=np.minimum(self.each, self.own + self.shared))

    def with_score(self, where: Mask) -> TermCounts:
        """Return the counts with one score more in the elements ``where``; the units of the gate are the first axis of one sample."""
        units = where.any(axis=(0, *range(2, where.ndim)))
        return TermCounts(self.each + where, self.own, self.shared + float(units.sum()))


@dataclass(frozen=True, eq=False)
class NodeSize:
    """What is written for a node, and the number of terms of its value."""

    name: str
    written: ProgramSize
    terms: float


@dataclass(frozen=True, eq=False)
class EncodingSize:
    """The sizes of all nodes of an encoding, in order, with those of the input and the output."""

    nodes: tuple[NodeSize, ...]

    @property
    def total(self) -> ProgramSize:
        """The size of the whole program."""
        return sum((node.written for node in self.nodes), ProgramSize())

    @property
    def bytes(self) -> float:
        """The bytes that writing it takes: its rows, the values of all nodes, and copies of the largest of them."""
        terms = [node.terms for node in self.nodes]
        return self.total.bytes + NONZERO_BYTES * (sum(terms) + COPIES_WHILE_WRITTEN * max(terms))


def encoding_size(network: Network, region: Box, bounds: Bounds, request: FormulationRequest) -> EncodingSize:
    """Return the size of the encoding of a network over an input set, with these bounds and their gates."""
    samples, inputs, fixed = region.samples, size(network.input_shape), region.fixed
    values = {INPUT_NODE: TermCounts(np.full(region.lower.shape, 0.0 if fixed else 1.0), 0.0 if fixed else inputs, 0.0)}
    scores = sum(gate.units for gate in bounds.gates)
    found = [NodeSize(INPUT_NODE, ProgramSize(scores + (0 if fixed else samples * inputs)), 0.0 if fixed else samples * inputs)]
    gate_at = {site: gate for gate in bounds.gates for site in gate.sites}
    for node in network.nodes:
        written, values[node.name] = _Node(node, bounds, request).size([values[name] for name in node.inputs], gate_at.get(node.name))
        found.append(NodeSize(node.name, written, values[node.name].total))
    output = values[network.output.name]
    count = output.each.size
    found.append(NodeSize("output", ProgramSize(count, count, output.total + count), count))
    return EncodingSize(tuple(found))


@dataclass(frozen=True, eq=False)
class _Node:
    """One node, with the bounds of all nodes and the formulations that were asked for."""

    node: Node
    bounds: Bounds
    request: FormulationRequest

    def size(self, inputs: list[TermCounts], gate: Gate | None) -> tuple[ProgramSize, TermCounts]:
        """Return what is written for the node and its gate, and the terms of its value."""
        layer = self.node.layer
        if gate is not None and isinstance(layer, ReLU) and any(x.total for x in inputs):
            return self._gated(inputs[0], *self._before(), both=False, chosen=self._chosen())
        if all(not x.total for x in inputs):
            written, value = ProgramSize(), TermCounts(np.zeros((self.bounds.region.samples, *self.node.shape)), 0.0, 0.0)
        elif is_affine(layer):
            written, value = ProgramSize(), terms_through(layer, *inputs).capped()
        elif isinstance(layer, ReLU | LeakyReLU | Clip):
            written, value = self._activation(layer, inputs[0])
        elif isinstance(layer, MaxPool2d):
            written, value = self._maximum(layer, inputs[0])
        else:
            written, value = self._unknown(inputs)
        if gate is None:
            return written, value
        box = self.bounds.before_gate(self.node.name)
        chosen = gate_choice_of(self.node, self.request.formulation, self.request.facts) if self._own_choice() else self._chosen()
        more, value = self._gated(value, box.lower.numpy(), box.upper.numpy(), both=True, chosen=chosen)
        return written + more, value

    def _chosen(self) -> ChosenFormulation:
        return choice_of(self.node, self.request.formulation, self.request.facts)

    def _own_choice(self) -> bool:
        """Return True if the layer itself is not written with positive parts, so that the gate has a formulation of its own."""
        return is_affine(self.node.layer) or self._chosen().formulation.family is not POSITIVE_PART

    def _before(self, index: int = 0) -> tuple[Array, Array]:
        box = self.bounds.after[self.node.inputs[index]]
        return box.lower.numpy(), box.upper.numpy()

    def _activation(self, layer: Layer, x: TermCounts) -> tuple[ProgramSize, TermCounts]:
        lower, upper = self._before()
        if isinstance(layer, Clip):
            written, value = ProgramSize(), x
            if math.isfinite(layer.low):
                written, value = self._positive(x, lower - layer.low, upper - layer.low, self._chosen())
            if math.isfinite(layer.high):
                more, above = self._positive(x, lower - layer.high, upper - layer.high, self._chosen())
                written, value = written + more, _sum(value, above)
            return written, value
        written, value = self._positive(x, lower, upper, self._chosen())
        return written, value if isinstance(layer, ReLU) else _sum(value, x)

    def _gated(
        self, x: TermCounts, lower: Array, upper: Array, *, both: bool, chosen: ChosenFormulation
    ) -> tuple[ProgramSize, TermCounts]:
        """Return the size of a gate: of the ReLU that it acts on, or of the positive parts of both signs of a value."""
        paper, fixed = self.bounds.mode == "paper", x.each == 0
        if both and paper and not self.node.layer.activation:
            return ProgramSize(), x.with_score(upper != 0)
        sides = [(lower, upper), (-upper, -lower)] if both else [(lower, upper)]
        written, value = ProgramSize(), TermCounts(np.zeros_like(x.each), 0.0, 0.0)
        for low, high in sides:
            if both and not (high > 0).any():
                continue
            low, top = np.where(fixed, np.minimum(high, 0.0), low), np.maximum(high, 0.0)
            shifted = x.with_score(top > 0)
            more, part = self._positive(shifted, low if paper else np.where(fixed, low, low - top), high, chosen, valid=fixed, gated=True)
            written, value = written + more, _sum(value, part)
        return written, value

    def _positive(
        self, z: TermCounts, lower: Array, upper: Array, chosen: ChosenFormulation, valid: Mask | None = None, *, gated: bool = False
    ) -> tuple[ProgramSize, TermCounts]:
        """Return the size of `mipnet.formulations.relu.positive_part`; elements that are ``valid`` need no rows that keep their phase."""
        varies, paper = z.each > 0, self.bounds.mode == "paper"
        undecided = varies & (lower < 0) & (upper > 0)
        active = varies & (lower >= 0)
        kept = varies & ~undecided if valid is None else varies & ~undecided & ~valid
        written = ProgramSize(0, 2 * int(kept.sum()), 2 * float(z.each[kept].sum())) if paper else ProgramSize()
        many = len(z.each) * z.own + z.shared > int(active.sum()) and bool((z.each[active] > 1).any())
        split = active if many else np.zeros_like(active)
        written += ProgramSize(int(split.sum()), int(split.sum()), float(z.each[split].sum()) + int(split.sum()))
        measure = chosen.formulation.size or big_m_size
        written += measure(z.each[undecided], chosen.parts) if undecided.any() else ProgramSize()
        if gated and not paper:
            written += ProgramSize(0, int(undecided.sum()), 2 * int(undecided.sum()))
        folded = active & ~split
        new = (undecided.sum() + split.sum()) / len(z.each)
        own, shared = (new + z.own, z.shared) if folded.any() else (new, 0.0)
        return written, TermCounts(np.where(folded, z.each, 1.0 * (undecided | split)), own, shared)

    def _maximum(self, layer: MaxPool2d, x: TermCounts) -> tuple[ProgramSize, TermCounts]:
        found = kept_candidates(layer, *self._before())
        counts = found.keep.sum(axis=-1)
        open_windows, terms = counts > 1, x.each.reshape(-1)[np.where(found.places >= 0, found.places, 0)]
        chosen, lone = self._chosen(), (found.keep & ~open_windows[..., None])
        measure = chosen.formulation.size or max_big_m_size
        many = found.keep & open_windows[..., None]
        written = measure(counts[open_windows], terms[many]) if open_windows.any() else ProgramSize()
        dropped = (found.places >= 0) & ~found.keep
        if self.bounds.mode == "paper":
            written += ProgramSize(0, int(dropped.sum()), 2 * float(terms[dropped].sum()))
        each = np.where(open_windows, 1.0, (terms * lone).sum(axis=-1)).reshape(-1, *self.node.shape)
        return written, TermCounts(each, x.own + open_windows.sum() / len(each), x.shared)

    def _unknown(self, inputs: list[TermCounts]) -> tuple[ProgramSize, TermCounts]:
        """Return the size of a layer of somebody else: one variable and two rows per element, which read all of its inputs once."""
        count = self.bounds.region.samples * size(self.node.shape)
        written = ProgramSize(count, 2 * count, 2 * count + 2 * sum(x.total for x in inputs))
        return written, TermCounts(np.ones((self.bounds.region.samples, *self.node.shape)), size(self.node.shape), 0.0)


def _sum(a: TermCounts, b: TermCounts) -> TermCounts:
    """Return the counts of a sum of two values, whose variables are taken to be different up to the number of all."""
    own, shared = max(a.own, b.own) + min(a.own, b.own), max(a.shared, b.shared)
    return TermCounts(a.each + b.each, own, shared).capped()


@singledispatch
def terms_through(layer: Layer, *inputs: TermCounts) -> TermCounts:
    """Return the counts after an affine layer: the sum over all inputs that an element reads."""
    maps = linear_map(layer, *(x.each.shape[1:] for x in inputs))
    samples, shape = len(inputs[0].each), layer.shape(*(x.each.shape[1:] for x in inputs))
    parts = [(_pattern(each) @ x.each.reshape(samples, -1).T).T.reshape(samples, *shape) for each, x in zip(maps, inputs, strict=True)]
    return _with_variables(sum(parts[1:], start=parts[0]), inputs)


def _pattern(matrix: Csr) -> Csr:
    return Csr((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)


def _with_variables(each: Array, inputs: Sequence[TermCounts]) -> TermCounts:
    return TermCounts(each, sum(x.own for x in inputs), max(x.shared for x in inputs))


@terms_through.register
def _(layer: Dense, x: TermCounts) -> TermCounts:
    return _with_variables(F.linear(torch.tensor(x.each), (layer.weight != 0).double()).numpy(), [x])


@terms_through.register
def _(layer: Conv2d, x: TermCounts) -> TermCounts:
    return _with_variables(layer._apply(torch.tensor(x.each), (layer.weight != 0).double(), None).numpy().round(), [x])
