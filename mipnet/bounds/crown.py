"""CROWN: rows of coefficients walk from a node back to the input, where their least value over the box is known.

Zhang et al., "Efficient Neural Network Robustness Certification with General Activation Functions" (NeurIPS 2018), section 3.  An upper
bound is the negated lower bound of the negated value, so there is one walk: a row a bound in question, all samples and elements at
once.  Each layer's step is in `mipnet.bounds.linear_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mipnet.bounds.interval import Interval
from mipnet.bounds.linear_rules import Passed, backward, gate_lines, has_backward, is_elementwise, is_exact, lines
from mipnet.network.graph import INPUT, Network, Node, size
from mipnet.network.sets import Ball

CHUNK = 2**19
"""As many coefficients of one node are held at once: 4 MiB, which a cache may hold."""

ROUNDING = 1e-12
"""Bounds are rounded outwards by this, relative to the size of what was added up; float64 itself has 1e-16."""

Choices = Mapping[str, Tensor]


@dataclass(eq=False)
class Known:
    """Bounds of the nodes so far, ``after`` their gates and ``ungated`` before; ``sites`` are those where any score is possible.

    The input lies in the ``ball`` as well, if there is one.
    """

    network: Network
    sites: frozenset[str]
    after: dict[str, Interval]
    ungated: dict[str, Interval] = field(default_factory=dict)
    ball: Ball | None = None

    def before_gate(self, name: str) -> Interval:
        """The value that a node computes, before a gate acts on it."""
        return self.ungated.get(name, self.after[name])


@dataclass(frozen=True, eq=False)
class Rows:
    """What is asked: the least value of ``sign * element`` of a node's value before its gate, for each row in its own sample."""

    node: Node
    sample: Tensor
    element: Tensor
    sign: Tensor

    @staticmethod
    def both(node: Node, wanted: Tensor) -> Rows:
        """Two rows for each wanted element of ``(sample, *shape)``: its lower end, then as many rows for its upper end."""
        sample, element = wanted.flatten(1).nonzero(as_tuple=True)
        sign = torch.ones(2 * len(sample), dtype=torch.float64)
        sign[len(sample) :] = -1.0
        return Rows(node, sample.repeat(2), element.repeat(2), sign)

    def __len__(self) -> int:
        return len(self.sign)

    def split(self, count: int) -> list[Rows]:
        """The same rows in parts of at most ``count``."""
        parts = (slice(first, first + count) for first in range(0, len(self), count))
        return [Rows(self.node, self.sample[part], self.element[part], self.sign[part]) for part in parts]

    def coefficients(self) -> Tensor:
        """``(rows, *shape)``: one number that is not 0 in each row."""
        flat = torch.zeros(len(self), size(self.node.shape), dtype=torch.float64)
        flat[torch.arange(len(self)), self.element] = self.sign
        return flat.reshape(-1, *self.node.shape)

    def of(self, box: Interval) -> Interval:
        """The box of each row's sample; a single one stands for all."""
        return box if len(box.lower) == 1 else box[self.sample]

    def improve(self, box: Interval, least: Tensor) -> Interval:
        """The box of the node with the ends that were asked for, where they are better."""
        half, (lower, upper) = len(self) // 2, (box.lower.flatten(1).clone(), box.upper.flatten(1).clone())
        where = self.sample[:half], self.element[:half]
        lower[where], upper[where] = least[:half], -least[half:]
        return box & Interval(lower.reshape(box.lower.shape), upper.reshape(box.upper.shape))


def ancestors(network: Network, name: str) -> list[Node]:
    """A node and all nodes that it depends on, in topological order."""
    needed, found = {name}, []
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            found.append(node)
    return found[::-1]


def crown(known: Known, node: Node, box: Interval, wanted: Tensor) -> Interval:
    """The node's box, where ``wanted`` improved by linear backward bounds over the boxes of the nodes before it."""
    rows = Rows.both(node, wanted)
    if not len(rows):
        return box
    return rows.improve(box, torch.cat([least(known, part, box) for part in rows.split(rows_at_once(known.network, node))]))


def rows_at_once(network: Network, node: Node) -> int:
    """How many rows may walk together: so many that no node's coefficients exceed `CHUNK`."""
    largest = max(size(network.shape_of(name)) for each in ancestors(network, node.name) for name in (each.name, *each.inputs))
    return max(1, CHUNK // largest)


def least(known: Known, rows: Rows, box: Interval, choices: Choices | None = None) -> Tensor:
    """A lower bound of each row's value, shape ``(rows,)``; ``choices`` are those of `mipnet.bounds.linear_rules.lines` by node name."""
    return walk(known, rows, box, choices)[0]


def walk(
    known: Known,
    rows: Rows,
    box: Interval,
    choices: Choices | None = None,
    added: Choices | None = None,
    seen: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """A lower bound of each row's value, and the coefficients of the input in it, ``(rows, *input_shape)``.

    ``added`` are coefficients that come to those of a node's value: Lagrange multipliers of what is known of it.  ``seen`` takes down the
    coefficients that reach each activation.
    """
    waiting, shifts = {rows.node.name: rows.coefficients()}, []
    for node in reversed(ancestors(known.network, rows.node.name)):
        if node.name not in waiting:
            continue
        coefficients, value = waiting.pop(node.name), box if node is rows.node else known.before_gate(node.name)
        if added is not None and node.name in added:
            coefficients = coefficients + added[node.name]
        if seen is not None and node.layer.activation:
            seen[node.name] = coefficients
        if node is not rows.node and node.name in known.sites:
            (coefficients,), shift = gate_lines(value).of(rows.sample).passed(coefficients)
            shifts.append(shift)
        if not has_backward(node.layer) or (node is not rows.node and not value.width.any()):
            shifts.append(least_over(rows.of(value), coefficients))
            continue
        parts, shift = _step(known, node, rows, coefficients, choices or {})
        shifts.append(shift)
        for name, part in zip(node.inputs, parts, strict=True):
            waiting[name] = waiting[name] + part if name in waiting else part
    source = known.after[INPUT]
    slopes = waiting[INPUT] if INPUT in waiting else source.lower.new_zeros(len(rows), *source.lower.shape[1:])
    lowest = least_over(rows.of(source), slopes)
    if known.ball is not None:
        lowest = torch.maximum(lowest, least_in(known.ball, rows, source, slopes))
    terms = torch.stack([*shifts, lowest])
    return terms.sum(0) - ROUNDING * terms.abs().sum(0), slopes


def _step(known: Known, node: Node, rows: Rows, coefficients: Tensor, choices: Choices) -> Passed:
    inputs = [known.after[name] for name in node.inputs]
    if is_exact(node.layer):
        return backward(node.layer, coefficients, *inputs)  # which looks at no number of them
    if not is_elementwise(node.layer):
        return backward(node.layer, coefficients, *(rows.of(x) for x in inputs))
    if node.name in choices:
        return lines(node.layer, rows.of(inputs[0]), choices[node.name]).passed(coefficients)
    return lines(node.layer, inputs[0]).of(rows.sample).passed(coefficients)


def least_over(box: Interval, coefficients: Tensor) -> Tensor:
    """The least value of each row over its box: ``c . centre - |c| . radius``, rounded outwards."""
    flat, centre, radius = coefficients.flatten(1), box.centre.flatten(1), box.radius.flatten(1)
    reach = radius + ROUNDING * (centre.abs() + radius)
    if len(centre) == 1:
        return flat @ centre[0] - flat.abs() @ reach[0]
    return (flat * centre).sum(1) - (flat.abs() * reach).sum(1)


def least_in(ball: Ball, rows: Rows, box: Interval, coefficients: Tensor) -> Tensor:
    """A lower bound of each row over a ball, in its own sample: ``c . centre - radius * |c|`` in the dual norm, rounded outwards.

    The dual of the sum norm is the largest ``|c_i|``, the Euclidean norm is its own.  A coordinate that the box does not let move down
    the row does not count: it cannot lower the value below that at the centre.
    """
    centre = torch.tensor(ball.centre)
    centre = centre if len(centre) == 1 else centre[rows.sample]
    ends = rows.of(box)
    room = torch.where(coefficients > 0, centre - ends.lower, ends.upper - centre)
    falls = torch.where(room > 0, coefficients, 0.0).flatten(1)
    dual = falls.abs().amax(1) if ball.norm == "l1" else torch.linalg.vector_norm(falls, dim=1)
    terms = (coefficients * centre).flatten(1)
    return terms.sum(1) - ball.radius * dual - ROUNDING * (terms.abs().sum(1) + ball.radius * dual)
