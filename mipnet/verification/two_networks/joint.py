"""Two networks on one input as one network, in which a unit that both compute is there once.

Over a box every value is an affine function of the input and of units that are not decided there
(`mipnet.verification.two_networks.affine_forms`).  A unit of the second network whose input is the same function as that of a unit
of the first takes that unit's value, at any depth; so a unit that was removed because it is always silent, or folded into others
because it always acts, does not hide that the rest is equal.  "Same" is up to rounding, and what that may do to the outputs is
bounded: `Joined.slack`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import ancestors
from mipnet.bounds.linear_rules import is_elementwise
from mipnet.bounds.propagation import propagate
from mipnet.errors import NetworkError
from mipnet.formulations.affine import Affine
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.layers import Add, Clip, Concat, Dense, LeakyReLU, MaxPool2d, ReLU, Reshape
from mipnet.network.graph import INPUT, Layer, Network, Node, size
from mipnet.network.sets import Box
from mipnet.verification.two_networks.affine_forms import Forms

SAME = 1e-9
"""Inputs of two units are the same if they differ by at most this, relative to their size."""

WIDEST = 4096
"""In a layer of more units than that, all are shared or none."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Joined:
    """``network`` returns the flat outputs of both networks (``both``) or the first's less the second's (``difference``).

    ``slack`` ``(outputs,)`` bounds by how much an output of the second network may differ from its place in ``network``, anywhere in
    the box; ``shared`` counts the units of the second that are the first's.  ``given`` are bounds of the first network's nodes.
    """

    network: Network
    slack: Array
    shared: int
    given: Mapping[str, tuple[Array, Array]]


def side_by_side(
    first: Network,
    second: Network,
    region: Box,
    output: Literal["difference", "both"] = "difference",
    *,
    bounds: tuple[Bounds | None, Bounds | None] = (None, None),
    same: float = SAME,
) -> Joined:
    """Both networks on one input of a box, their nodes named ``first_...`` and ``second_...``; equal over that box, up to the slack.

    ``bounds`` are those of both networks over that box, CROWN's where there are none.  With a large ``same`` units are shared whose inputs
    are merely near; the slack says what that costs.

    Raises `NetworkError` unless they take inputs of one shape and return as many numbers.
    """
    check_shapes(first, second)
    region = region.fit(first.input_shape)
    known = [given or propagate(each, region) for each, given in zip((first, second), bounds, strict=True)]
    joining = _Joining(first, second, known[0], known[1], same)
    for node in second.nodes:
        joining.add(node)
    return joining.joined(output)


def check_shapes(first: Network, second: Network) -> None:
    """Raise `NetworkError` unless two networks take inputs of one shape and return as many numbers."""
    if first.input_shape != second.input_shape or size(first.output_shape) != size(second.output_shape):
        raise NetworkError(
            f"the networks map {first.input_shape} to {first.output_shape} and {second.input_shape} to {second.output_shape};"
            " expected the same shapes"
        )


@dataclass(eq=False)
class _Value:
    """A value of the second network: its node ``at`` in the joined one, and its form.

    ``away`` bounds the distance of that node from the true value, ``off`` that of the form from that node, element by element.
    """

    at: str
    form: Affine
    away: Array
    off: Array


@dataclass(eq=False)
class _Joining:
    first: Network
    second: Network
    bounds: Bounds
    others: Bounds
    same: float
    shared: int = 0
    layers: list[tuple[str, Layer, tuple[str, ...]]] = field(default_factory=list)
    values: dict[str, _Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forms = Forms()
        self.own = self.forms.follow(self.first, self.bounds)
        self.layers += [(f"first_{n.name}", n.layer, self.names(n.inputs)) for n in self.first.nodes]
        nothing = np.zeros(size(self.first.input_shape))
        self.values[INPUT] = _Value(INPUT, self.own[INPUT], nothing, nothing)
        self.safe = all(is_affine(node.layer) or isinstance(node.layer, KNOWN) for node in self.second.nodes)

    def add(self, node: Node) -> None:
        """One node of the second network."""
        inputs = [self.values[name] for name in node.inputs]
        twin = next((other for other in self.alike(node) if self.names(other.inputs) == tuple(x.at for x in inputs)), None)
        if twin is not None:  # the very same sum, so without any rounding
            self.shared += 0 if is_affine(node.layer) else size(node.shape)
            nothing = np.zeros(size(node.shape))
            self.values[node.name] = _Value(f"first_{twin.name}", self.own[twin.name], self.stretched(node, inputs, "away"), nothing)
        elif is_affine(node.layer):
            at = self.put(f"second_{node.name}", node.layer, *(x.at for x in inputs))
            value = self.forms.value(node, [x.form for x in inputs], self.others)
            self.values[node.name] = _Value(at, value, self.stretched(node, inputs, "away"), self.stretched(node, inputs, "off"))
        elif is_elementwise(node.layer):
            self.values[node.name] = self.activation(node, inputs[0])
        else:
            self.values[node.name] = self.opaque(node, inputs)

    def names(self, nodes: tuple[str, ...]) -> tuple[str, ...]:
        """What nodes of the first network are called in the joined one."""
        return tuple(name if name == INPUT else f"first_{name}" for name in nodes)

    def stretched(self, node: Node, inputs: list[_Value], key: Literal["away", "off"]) -> Array:
        """What a layer makes of distances of its inputs, at most."""
        given = [x.away if key == "away" else x.off for x in inputs]
        if is_affine(node.layer):
            maps = linear_map(node.layer, *(x.form.shape[1:] for x in inputs))
            return np.asarray(sum(abs(each) @ x for each, x in zip(maps, given, strict=True)))
        if is_elementwise(node.layer):
            return steepness(node.layer) * given[0]
        return np.full(size(node.shape), max(float(x.max()) for x in given))

    def put(self, name: str, layer: Layer, *inputs: str) -> str:
        """One more node of the joined network."""
        self.layers.append((name, layer, inputs))
        return name

    def alike(self, node: Node) -> list[Node]:
        """The nodes of the first network with the same layer."""
        return [each for each in self.first.nodes if same_layer(each.layer, node.layer)] if self.safe else []

    def opaque(self, node: Node, inputs: list[_Value]) -> _Value:
        """A layer that is neither affine nor an activation: the first's, if all of its inputs are the same."""
        off, away = self.stretched(node, inputs, "off"), self.stretched(node, inputs, "away")
        rows = self.forms.rows(*(x.form for x in inputs))
        for other in self.alike(node):
            if other.shape == node.shape:
                which, apart, sizes = self.forms.nearest(rows, self.forms.rows(*(self.own[name] for name in other.inputs)))
                if (which == np.arange(len(which))).all() and (apart <= self.same * (1 + sizes)).all():
                    self.shared += size(node.shape)
                    return _Value(f"first_{other.name}", self.own[other.name], away + off + apart.max(), 0 * off)
        at = self.put(f"second_{node.name}", node.layer, *(x.at for x in inputs))
        return self.apart(node, at, [x.form for x in inputs], away)

    def apart(self, node: Node, at: str, inputs: list[Affine], away: Array) -> _Value:
        """A node of its own, whose undecided values are new members of the basis."""
        before = len(self.forms.largest)
        form = self.forms.value(node, inputs, self.others)
        self.forms.largest[before:] += away.max(initial=0.0)
        return _Value(at, form, away, np.zeros(size(node.shape)))

    def activation(self, node: Node, x: _Value) -> _Value:
        """An activation, with the units that the first network has as well taken from there."""
        steep = steepness(node.layer)
        value = self.apart(node, f"second_{node.name}", [x.form], steep * x.away)
        value.off = steep * (x.off + 2 * x.away)  # where it is decided: its input may be outside of its bounds by what that is away
        others = self.alike(node)
        match = np.full(size(node.shape), -1)
        if others:
            which, apart, sizes = self.forms.nearest(self.forms.rows(x.form), self.forms.rows(*(self.own[o.inputs[0]] for o in others)))
            match = np.where(apart <= self.same * (1 + sizes), which, -1)
        starts = np.cumsum([0, *(size(other.shape) for other in others)])
        whole = bool((match >= 0).all())
        if whole and others and (number := int(np.searchsorted(starts, match[0], "right")) - 1) >= 0:
            whole = others[number].shape == node.shape and bool((match == starts[number] + np.arange(len(match))).all())
        if (match < 0).all() or (not whole and max(np.diff(starts)) > WIDEST):
            self.put(value.at, node.layer, x.at)
            return value
        taken = match >= 0
        self.shared += int(taken.sum())
        value.away = np.where(taken, steep * (x.away + x.off + np.where(taken, apart, 0.0)), value.away)
        value.off = np.where(taken, 0.0, value.off)
        form = self.forms.rows(*(self.own[other.name] for other in others), value.form)
        rows = form[np.where(taken, match, starts[-1] + np.arange(len(match)))]
        value.form = Affine(rows[:, 1:].tocsr(), rows[:, [0]].toarray().reshape(1, *node.shape))
        if whole:
            value.at = f"first_{others[number].name}"
        else:
            self.gather(node, x.at, match, [(o, s) for o, s in zip(others, starts, strict=False)])
        return value

    def gather(self, node: Node, x: str, match: Ints, others: list[tuple[Node, int]]) -> None:
        """The activation of some units from nodes of the first network, and of the rest from a node of its own."""
        name, left = f"second_{node.name}", np.flatnonzero(match < 0)
        pieces = []
        for other, start in others:
            mine = np.flatnonzero((match >= start) & (match < start + size(other.shape)))
            if len(mine):
                picked = torch.zeros(len(match), size(other.shape), dtype=torch.float64)
                picked[mine, match[mine] - start] = 1.0
                flat = self.put(f"{name}_flat_{other.name}", Reshape((size(other.shape),)), f"first_{other.name}")
                pieces.append(self.put(f"{name}_of_{other.name}", Dense(picked), flat))
        if len(left):
            flat = self.put(f"{name}_flat_input", Reshape((len(match),)), x)
            rows = torch.zeros(len(left), len(match), dtype=torch.float64)
            rows[np.arange(len(left)), left] = 1.0
            alone = self.put(f"{name}_own", node.layer, self.put(f"{name}_input", Dense(rows), flat))
            pieces.append(self.put(f"{name}_placed", Dense(rows.T), alone))
        total = self.put(f"{name}_flat", Add((1.0,) * len(pieces)), *pieces)
        self.put(name, Reshape(node.shape), total)

    def joined(self, output: Literal["difference", "both"]) -> Joined:
        """The joined network, without nodes that nothing reads."""
        last, count = self.values[self.second.output.name], size(self.second.output_shape)
        ends = [
            self.put(f"{side}_flat_output", Reshape((count,)), at)
            for side, at in (("first", f"first_{self.first.output.name}"), ("second", last.at))
        ]
        self.put("joined_output", Add((1.0, -1.0)) if output == "difference" else Concat(), *ends)
        whole = Network.build(self.first.input_shape, self.layers)
        read = [(n.name, n.layer, n.inputs) for n in ancestors(whole, whole.output.name)]
        return Joined(Network.build(self.first.input_shape, read), last.away, self.shared, self.given({name for name, *_ in read}))

    def given(self, names: set[str]) -> dict[str, tuple[Array, Array]]:
        """The bounds of the first network's nodes, as far as they have these names in the joined one."""
        boxes = {f"first_{node.name}": self.bounds.after[node.name] for node in self.first.nodes}
        return {name: (box.lower.numpy(), box.upper.numpy()) for name, box in boxes.items() if name in names}


KNOWN = (ReLU, LeakyReLU, Clip, MaxPool2d)
"""Layers whose output changes by no more than a known multiple of the change of their input."""


def steepness(layer: Layer) -> float:
    """By how much an activation may stretch a difference."""
    return max(1.0, layer.slope) if isinstance(layer, LeakyReLU) else 1.0


def same_layer(one: Layer, other: Layer) -> bool:
    """True if both compute the same."""
    if type(one) is not type(other):
        return False
    pairs = ((getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    return all(torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b for a, b in pairs)
