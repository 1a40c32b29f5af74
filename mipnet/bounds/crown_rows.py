"""What CROWN reads and improves: the bounds that are known, and the rows of a backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mipnet.bounds.interval import Interval, interval
from mipnet.bounds.linear_rules import is_elementwise, is_exact
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import Network, Node, size
from mipnet.network.polytopes import InputPolytope
from mipnet.network.sets import Ball

CANCELLED_SHARE = 1e-6
"""A value that is smaller than this share of the terms that it is computed from counts as cancelled: its size is this share of them."""


@dataclass(eq=False)
class KnownBounds:
    """The bounds of all nodes computed so far.

    ``after`` holds the bounds after the gate of a node acts, ``ungated`` those before.  ``sites`` are the nodes with a gate.
    If there is a ``ball`` or a ``polytope``, the input also lies in it.  ``stopped`` is True once the ``deadline`` has cut a computation
    short, and ``interrupted`` once Ctrl-C has.  ``simpler`` says which nodes keep bounds of a simpler method, and why.  ``magnitudes`` are
    those computed so far.
    """

    network: Network
    sites: frozenset[str]
    after: dict[str, Interval]
    ungated: dict[str, Interval] = field(default_factory=dict)
    ball: Ball | None = None
    polytope: InputPolytope | None = None
    deadline: Deadline = NO_DEADLINE
    stopped: bool = False
    interrupted: bool = False
    simpler: list[str] = field(default_factory=list)
    magnitudes: dict[str, Tensor] = field(default_factory=dict)

    def late(self) -> bool:
        """Return whether the deadline has passed, after which these bounds are ``stopped``."""
        passed = self.deadline.passed
        self.stopped |= passed
        return passed

    def before_gate(self, name: str) -> Interval:
        """Return the bounds of a node before its gate acts."""
        return self.ungated.get(name, self.after[name])

    def magnitude(self, node: Node) -> Tensor:
        """Return `magnitude` of a node with these bounds, computed once."""
        if node.name not in self.magnitudes:
            self.magnitudes[node.name] = magnitude(node, self.after)
        return self.magnitudes[node.name]


def magnitude(node: Node, after: Mapping[str, Interval]) -> Tensor:
    """Return the largest sum of the absolute values of the terms that a node's value is computed from, ``(samples, *shape)``."""
    given = [after[name] for name in node.inputs]
    sizes = [largest_absolute(each) for each in given]
    if is_exact(node.layer):
        return largest_absolute(interval(node.layer, *(Interval(-each, each) for each in sizes)))
    found = largest_absolute(interval(node.layer, *given))
    return torch.maximum(found, sizes[0] if is_elementwise(node.layer) else torch.stack([each.max() for each in sizes]).max())


def largest_absolute(box: Interval) -> Tensor:
    """Return the largest absolute value of each element of a box."""
    return torch.maximum(box.lower.abs(), box.upper.abs())


@dataclass(frozen=True, eq=False)
class CrownRows:
    """Which lower bounds are wanted.

    Row k asks for a lower bound of ``sign[k] * value[element[k]]`` for sample ``sample[k]``, where value is the flat value of the node
    before its gate.
    """

    node: Node
    sample: Tensor
    element: Tensor
    sign: Tensor

    @staticmethod
    def both(node: Node, wanted: Tensor) -> CrownRows:
        """Return two rows per wanted element of ``(sample, *shape)``: first all lower bounds, then all upper bounds."""
        sample, element = wanted.flatten(1).nonzero(as_tuple=True)
        sign = torch.ones(2 * len(sample), dtype=torch.float64)
        sign[len(sample) :] = -1.0
        return CrownRows(node, sample.repeat(2), element.repeat(2), sign)

    def __len__(self) -> int:
        return len(self.sign)

    def split(self, count: int) -> list[CrownRows]:
        """Return the same rows in parts of at most ``count``."""
        parts = (slice(first, first + count) for first in range(0, len(self), count))
        return [CrownRows(self.node, self.sample[part], self.element[part], self.sign[part]) for part in parts]

    def coefficients(self) -> Tensor:
        """Return the coefficients ``(rows, *shape)``: one nonzero number per row."""
        flat = torch.zeros(len(self), size(self.node.shape), dtype=torch.float64)
        flat[torch.arange(len(self)), self.element] = self.sign
        return flat.reshape(-1, *self.node.shape)

    def of_tensor(self, value: Tensor) -> Tensor:
        """Return the entry of each row's sample; a single entry holds for all samples."""
        return value if len(value) == 1 else value[self.sample]

    def of(self, box: Interval) -> Interval:
        """Return the box of each row's sample; a single box holds for all samples."""
        return box if len(box.lower) == 1 else box[self.sample]

    def improve(self, box: Interval, found: Tensor) -> Interval:
        """Return the node's box, intersected with the new bounds of all rows."""
        half, (lower, upper) = len(self) // 2, (box.lower.flatten(1).clone(), box.upper.flatten(1).clone())
        where = self.sample[:half], self.element[:half]
        lower[where], upper[where] = found[:half], -found[half:]
        return box & Interval(lower.reshape(box.lower.shape), upper.reshape(box.upper.shape))


def ancestors(network: Network, name: str) -> list[Node]:
    """Return a node and all nodes that it depends on, in topological order."""
    needed, found = {name}, []
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            found.append(node)
    return found[::-1]
