"""The size of an encoding before it is written: columns, rows and nonzeros of every node, from the network and its bounds.

The values of all nodes are followed as `mipnet.model.encoding` writes them, but only the number of variables of each element is kept
(`mipnet.model.term_counts`).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from mipnet.arrays import Array, Ints, Mask
from mipnet.bounds.boxes import Bounds
from mipnet.formulations.block import ChosenFormulation
from mipnet.formulations.formulation_choice import choice_of, gate_choice_of
from mipnet.formulations.program_size import NONZERO_BYTES, ProgramSize, big_m_size, max_big_m_size
from mipnet.formulations.registry import is_affine
from mipnet.formulations.relu import POSITIVE_PART
from mipnet.layers import Clip, Dense, LeakyReLU, PReLU, ReLU, TreeEnsemble
from mipnet.layers.maximum import WindowMaximum, kept_candidates
from mipnet.layers.tree_rows import TreeTables
from mipnet.limits.memory import fits, making
from mipnet.model.node_values import FormulationRequest
from mipnet.model.term_counts import TermCounts, TermPattern, VariableNumbers, either, no_terms, passed_on, terms_through
from mipnet.network.graph import INPUT_NODE, Layer, Network, Node, size
from mipnet.network.sets import Box

COPIES_WHILE_WRITTEN = 3
"""Copies of the largest node's terms that exist at the same time while it is written."""


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


def encoding_size(network: Network, region: Box, bounds: Bounds, request: FormulationRequest, *, correct: bool = True) -> EncodingSize:
    """Return the size of the encoding of a network over an input set, with these bounds and their gates.

    If ``correct`` is False, a variable that reaches an element on several paths counts once per path: quicker, and never too small.
    """
    count, numbers = size(region.lower.shape), VariableNumbers()
    own = np.full(region.lower.shape, not region.fixed)
    values = {INPUT_NODE: TermCounts(1.0 * own, count / region.samples, 0.0, numbers.new(own[0])) if own.any() else no_terms(own.shape)}
    scores = {gate.name: numbers.new(np.ones(gate.units, dtype=np.bool_)) for gate in bounds.gates}
    columns = sum(gate.units for gate in bounds.gates) + values[INPUT_NODE].total
    found = [NodeSize(INPUT_NODE, ProgramSize(columns), values[INPUT_NODE].total)]
    gate_at = {site: scores[gate.name] for gate in bounds.gates for site in gate.sites}
    for node in network.nodes:
        sizer = _NodeSizer(node, bounds, request, numbers, correct)
        written, values[node.name] = sizer.size([values[name] for name in node.inputs], gate_at.get(node.name))
        found.append(NodeSize(node.name, written, values[node.name].total))
    output = values[network.output.name]
    outputs = output.each.size
    found.append(NodeSize("output", ProgramSize(outputs, outputs, output.total + outputs), outputs))
    return EncodingSize(tuple(found))


def making_program(network: Network, region: Box, bounds: Bounds, request: FormulationRequest) -> AbstractContextManager[None]:
    """Return the context in which a network is written; raises `MemoryLimitReached` if that would take too much memory."""
    found = encoding_size(network, region, bounds, request, correct=False)
    if not fits(found.bytes):
        found = encoding_size(network, region, bounds, request)
    count = f"{region.samples:,} samples" if region.samples > 1 else "one sample"
    smaller = "give a smaller network, or a smaller input set, over which fewer units are unstable"
    remedy = "give fewer samples" if region.samples > 1 else smaller
    return making(f"the program of the network on {count} ({found.total})", found.bytes, remedy)


@dataclass(frozen=True, eq=False)
class _NodeSizer:
    """Measures one node, with the bounds of all nodes and the formulations that were asked for."""

    node: Node
    bounds: Bounds
    request: FormulationRequest
    numbers: VariableNumbers
    correct: bool

    def size(self, inputs: list[TermCounts], score: TermPattern | None) -> tuple[ProgramSize, TermCounts]:
        """Return what is written for the node and its gate, whose scores are given, and the terms of its value."""
        layer, varies = self.node.layer, any(x.total for x in inputs)
        if score is not None and isinstance(layer, ReLU) and varies:
            return self._gated(inputs[0], *self._before(), score, both=False, chosen=self._chosen())
        written, value = self._layer(layer, inputs) if varies else (ProgramSize(), no_terms((len(inputs[0].each), *self.node.shape)))
        if score is None:
            return written, value
        box = self.bounds.before_gate(self.node.name)
        chosen = gate_choice_of(self.node, self.request.formulation, self.request.facts) if self._own_choice() else self._chosen()
        more, value = self._gated(value, box.lower.numpy(), box.upper.numpy(), score, both=True, chosen=chosen)
        return written + more, value

    def _layer(self, layer: Layer, inputs: list[TermCounts]) -> tuple[ProgramSize, TermCounts]:
        if is_affine(layer):
            value = terms_through(layer, inputs)
            return ProgramSize(), value if isinstance(layer, Dense) or not self.correct else value.corrected()
        if isinstance(layer, ReLU | LeakyReLU | PReLU | Clip):
            return self._activation(layer, inputs[0])
        if isinstance(layer, TreeEnsemble):
            return self._trees(layer, inputs[0])
        return self._maximum(layer, inputs[0]) if isinstance(layer, WindowMaximum) else self._unknown(inputs)

    def _chosen(self) -> ChosenFormulation:
        return choice_of(self.node, self.request.formulation, self.request.facts)

    def _own_choice(self) -> bool:
        """Return True if the layer itself is not written with positive parts, so that the gate has a formulation of its own."""
        return is_affine(self.node.layer) or self._chosen().formulation.family is not POSITIVE_PART

    def _before(self) -> tuple[Array, Array]:
        box = self.bounds.after[self.node.inputs[0]]
        return box.lower.numpy(), box.upper.numpy()

    def _activation(self, layer: Layer, x: TermCounts) -> tuple[ProgramSize, TermCounts]:
        (lower, upper), written, value = self._before(), ProgramSize(), x
        if isinstance(layer, Clip):
            if math.isfinite(layer.low):
                written, value = self._positive(x, lower - layer.low, upper - layer.low, self._chosen())
            if math.isfinite(layer.high):
                more, above = self._positive(x, lower - layer.high, upper - layer.high, self._chosen())
                written, value = written + more, value + above
            return written, value
        written, value = self._positive(x, lower, upper, self._chosen())
        return written, value if isinstance(layer, ReLU) else value + x

    def _gated(
        self, x: TermCounts, lower: Array, upper: Array, score: TermPattern, *, both: bool, chosen: ChosenFormulation
    ) -> tuple[ProgramSize, TermCounts]:
        """Return the size of a gate: of the ReLU that it acts on, or of the positive parts of both signs of a value."""
        paper, fixed = self.bounds.mode == "paper", x.each == 0
        if both and paper and not self.node.layer.activation:
            return ProgramSize(), self._with_score(x, score, upper != 0)
        sides = [(lower, upper), (-upper, -lower)] if both else [(lower, upper)]
        written, value = ProgramSize(), no_terms(x.each.shape)
        for low, high in sides:
            if both and not (high > 0).any():
                continue
            low, top = np.where(fixed, np.minimum(high, 0.0), low), np.maximum(high, 0.0)
            shifted = self._with_score(x, score, top > 0)
            more, part = self._positive(shifted, low if paper else np.where(fixed, low, low - top), high, chosen, valid=fixed, gated=True)
            written, value = written + more, value + part
        return written, value

    def _with_score(self, x: TermCounts, score: TermPattern, where: Mask) -> TermCounts:
        """Return the counts with the score of the unit more in the elements ``where``; units are the first axis of one sample."""
        units: Mask = np.asarray(where.any(axis=(0, *range(2, where.ndim))))
        unit = np.broadcast_to(np.arange(len(units)).reshape(-1, *[1] * (where.ndim - 2)), where.shape[1:])
        pattern = either(x.pattern, passed_on(score, np.where(where[0], unit, -1)))
        return TermCounts(x.each + where, x.own, x.shared + float(units.sum()), pattern)

    def _positive(
        self, z: TermCounts, lower: Array, upper: Array, chosen: ChosenFormulation, valid: Mask | None = None, *, gated: bool = False
    ) -> tuple[ProgramSize, TermCounts]:
        """Return the size of `mipnet.formulations.relu.positive_part`; elements that are ``valid`` need no rows that keep their phase."""
        varies, paper = z.each > 0, self.bounds.mode == "paper"
        undecided: Mask = varies & (lower < 0) & (upper > 0)
        active: Mask = varies & (lower >= 0)
        kept = varies & ~undecided if valid is None else varies & ~undecided & ~valid
        written = ProgramSize(0, 2 * int(kept.sum()), 2 * float(z.each[kept].sum())) if paper else ProgramSize()
        many = len(z.each) * z.own + z.shared > int(active.sum()) and bool((z.each[active] > 1).any())
        split: Mask = active if many else np.zeros_like(active)
        written += ProgramSize(int(split.sum()), int(split.sum()), float(z.each[split].sum()) + int(split.sum()))
        measure = chosen.formulation.size or big_m_size
        written += measure(z.each[undecided], chosen.parts) if undecided.any() else ProgramSize()
        if gated and not paper:
            written += ProgramSize(0, int(undecided.sum()), 2 * int(undecided.sum()))
        return written, self._partly_new(z, undecided | split, active & ~split)

    def _partly_new(self, x: TermCounts, new: Mask, passed: Mask, places: Ints | None = None) -> TermCounts:
        """Return the counts of a value with one new variable in some elements, and in others the terms of ``x`` at the same places.

        ``places`` are the flat places in the first sample of ``x``, those of the elements themselves if None.
        """
        number = new.sum() / len(new)
        own, shared = (number + x.own, x.shared) if passed.any() else (number, 0.0)
        at = np.arange(new[0].size).reshape(new[0].shape) if places is None else places
        each = np.where(passed, x.each if places is None else x.each.reshape(len(new), -1)[:, at], 1.0 * new)
        return TermCounts(each, own, shared, either(self.numbers.new(new[0]), passed_on(x.pattern, np.where(passed[0], at, -1))))

    def _maximum(self, layer: WindowMaximum, x: TermCounts) -> tuple[ProgramSize, TermCounts]:
        found = kept_candidates(layer, *self._before())
        counts, chosen = found.keep.sum(axis=-1), self._chosen()
        several, terms = counts > 1, x.each.reshape(-1)[np.where(found.places >= 0, found.places, 0)]
        measure = chosen.formulation.size or max_big_m_size
        written = measure(counts[several], terms[found.keep & several[..., None]]) if several.any() else ProgramSize()
        if self.bounds.mode == "paper":
            dropped = (found.places >= 0) & ~found.keep
            written += ProgramSize(0, int(dropped.sum()), 2 * float(terms[dropped].sum()))
        shape = (len(x.each), *self.node.shape)
        place = np.take_along_axis(found.places, found.keep.argmax(axis=-1)[..., None], -1)[0].reshape(self.node.shape)
        value = self._partly_new(x, several.reshape(shape), (~several).reshape(shape), place)
        lone = (terms * found.keep).sum(axis=-1).reshape(shape)
        return written, replace(value, each=np.where(several.reshape(shape), 1.0, lone))

    def _trees(self, layer: TreeEnsemble, x: TermCounts) -> tuple[ProgramSize, TermCounts]:
        """Return the size of all leaves and thresholds of a tree ensemble, those that the bounds decide among them."""
        samples, tables, leaves = len(x.each), TreeTables.of(layer), len(layer.leaves)
        cuts, pairs = len(tables.cut_value), len(tables.row_cut)
        rows = cuts + 2 * pairs + len(layer.roots) + 2 * x.each[0].size
        nonzeros = 2 * cuts + tables.left.nnz + tables.right.nnz + 2 * pairs + leaves + 2 * cuts
        new = np.ones((samples, *self.node.shape), dtype=np.bool_)
        written = ProgramSize(samples * (cuts + leaves), samples * rows, samples * nonzeros + 2 * x.total)
        return written, TermCounts(np.full(new.shape, float(leaves)), float(leaves), 0.0, self.numbers.new(new[0]))

    def _unknown(self, inputs: list[TermCounts]) -> tuple[ProgramSize, TermCounts]:
        """Return the size of a layer of somebody else: one variable and two rows per element, which read all of its inputs once."""
        new = np.ones((len(inputs[0].each), *self.node.shape), dtype=np.bool_)
        written = ProgramSize(new.size, 2 * new.size, 2 * new.size + 2 * sum(x.total for x in inputs))
        return written, TermCounts(new.astype(np.float64), size(self.node.shape), 0.0, self.numbers.new(new[0]))
