"""Two networks joined into one network on a shared input, in which units that both compute occur once.

Over a box every value is an affine function of the input and of the unstable units (`mipnet.verification.two_networks.affine_forms`).  If
the input of a unit of the second network is the same function as that of a unit of the first, the unit takes the value of the first, at
any depth.  So equal units are found even if other units were removed because they are always inactive, or folded because they are always
active.  Functions are the same up to rounding; `JointNetwork.slack` bounds the effect on the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array, Ints
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown_rows import ancestors
from mipnet.bounds.linear_rules import is_elementwise
from mipnet.bounds.propagation import propagate
from mipnet.errors import NetworkError
from mipnet.formulations.affine import Affine
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.layers import Add, Clip, Concat, Dense, LeakyReLU, PReLU, ReLU, Reshape, Scale
from mipnet.layers.maximum import WindowMaximum
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import INPUT_NODE, Layer, Network, Node, size
from mipnet.network.named_inputs import check_input_order
from mipnet.network.sets import Box
from mipnet.verification.two_networks.affine_forms import AffineForms

SAME_UNIT_TOLERANCE = 1e-9
"""Two units are the same if their inputs differ by at most this, relative to the sum of the absolute values of their terms."""

PARTLY_SHARED_UNITS_MAX = 4096
"""In a layer with more units than this, either all units are shared or none."""


@dataclass(frozen=True, eq=False)
class JointNetwork:
    """A ``network`` that returns the flat outputs of both networks (``both``), or the first minus the second (``difference``).

    ``slack`` ``(outputs,)`` bounds how far an output of the second network may differ from its value in ``network``, over the box.
    ``shared`` is the number of units of the second network that equal units of the first.  ``given`` are bounds of the first network's
    nodes.
    """

    network: Network
    slack: Array
    shared: int
    given: Mapping[str, tuple[Array, Array]]


def join_networks(
    first: Network,
    second: Network,
    region: Box,
    output: Literal["difference", "both"] = "difference",
    *,
    bounds: tuple[Bounds | None, Bounds | None] = (None, None),
    same: float = SAME_UNIT_TOLERANCE,
    deadline: Deadline = NO_DEADLINE,
) -> JointNetwork:
    """Join two networks on one input; their nodes are named ``first_...`` and ``second_...``.

    Over the box the result equals both networks, up to the slack.  ``bounds`` are those of both networks over the box, of CROWN where they
    are None.  With a large ``same``, units whose inputs are only close are shared as well, which increases the slack.

    Raises `NetworkError` unless they take inputs of one shape and return as many numbers, and `TimeLimitReached` after the deadline.
    """
    check_shapes(first, second)
    region = region.fit(first.input_shape, first.input_names)
    known = [given or propagate(each, region, time_limit=deadline) for each, given in zip((first, second), bounds, strict=True)]
    joiner = _Joiner(first, second, known[0], known[1], same, deadline)
    for node in second.nodes:
        joiner.add(node)
    return joiner.joined(output)


def check_shapes(first: Network, second: Network) -> None:
    """Raise `NetworkError` unless two networks take inputs of one shape and return as many numbers."""
    if first.input_shape != second.input_shape or size(first.output_shape) != size(second.output_shape):
        raise NetworkError(
            f"the networks map {first.input_shape} to {first.output_shape} and {second.input_shape} to {second.output_shape};"
            " expected the same shapes"
        )
    check_input_order(second.input_names, first.input_names, "the second network")


@dataclass(eq=False)
class _Value:
    """A value of the second network: the node of the joint network that stands for it, and its affine form.

    ``node_error`` bounds the distance of that node from the true value, ``form_error`` that of the form from the node, per element.
    """

    node: str
    form: Affine
    node_error: Array
    form_error: Array


@dataclass(eq=False)
class _Joiner:
    """Adds one node of the second network after another to the layers of the first."""

    first: Network
    second: Network
    bounds: Bounds
    second_bounds: Bounds
    same: float
    deadline: Deadline
    shared: int = 0
    layers: list[tuple[str, Layer, tuple[str, ...]]] = field(default_factory=list)
    values: dict[str, _Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forms = AffineForms(self.deadline)
        self.own = self.forms.follow(self.first, self.bounds)
        self.layers += [(f"first_{n.name}", n.layer, self.names(n.inputs)) for n in self.first.nodes]
        nothing = np.zeros(size(self.first.input_shape))
        self.values[INPUT_NODE] = _Value(INPUT_NODE, self.own[INPUT_NODE], nothing, nothing)
        self.shareable = all(is_affine(node.layer) or isinstance(node.layer, LIPSCHITZ_LAYERS) for node in self.second.nodes)

    def add(self, node: Node) -> None:
        """Add one node of the second network."""
        self.deadline.check("join the networks")
        inputs = [self.values[name] for name in node.inputs]
        twin = next((other for other in self.same_layers(node) if self.names(other.inputs) == tuple(x.node for x in inputs)), None)
        if twin is not None:  # the same operations on the same nodes, so there is no rounding
            self.shared += 0 if is_affine(node.layer) else size(node.shape)
            nothing = np.zeros(size(node.shape))
            self.values[node.name] = _Value(f"first_{twin.name}", self.own[twin.name], self.propagated(node, inputs, "node_error"), nothing)
        elif is_affine(node.layer):
            at = self.append(f"second_{node.name}", node.layer, *(x.node for x in inputs))
            value = self.forms.value(node, [x.form for x in inputs], self.second_bounds)
            self.values[node.name] = _Value(
                at, value, self.propagated(node, inputs, "node_error"), self.propagated(node, inputs, "form_error")
            )
        elif is_elementwise(node.layer):
            self.values[node.name] = self.activation(node, inputs[0])
        else:
            self.values[node.name] = self.nonlinear(node, inputs)

    def names(self, nodes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the first network's nodes in the joint network."""
        return tuple(name if name == INPUT_NODE else f"first_{name}" for name in nodes)

    def propagated(self, node: Node, inputs: list[_Value], key: Literal["node_error", "form_error"]) -> Array:
        """Return a bound on the error of a layer's output, given bounds on the errors of its inputs."""
        given = [x.node_error if key == "node_error" else x.form_error for x in inputs]
        if is_affine(node.layer):
            maps = linear_map(node.layer, *(x.form.shape[1:] for x in inputs))
            return np.asarray(sum(abs(each) @ x for each, x in zip(maps, given, strict=True)))
        if is_elementwise(node.layer):
            return lipschitz_constant(node.layer) * given[0]
        return np.full(size(node.shape), max(float(x.max()) for x in given))

    def append(self, name: str, layer: Layer, *inputs: str) -> str:
        """Append a node to the joint network, and return its name."""
        self.layers.append((name, layer, inputs))
        return name

    def same_layers(self, node: Node) -> list[Node]:
        """Return the nodes of the first network with the same layer."""
        return [each for each in self.first.nodes if same_layer(each.layer, node.layer)] if self.shareable else []

    def nonlinear(self, node: Node, inputs: list[_Value]) -> _Value:
        """Add a layer that is neither affine nor elementwise, or take the first network's node if all inputs are the same."""
        form_error, node_error = self.propagated(node, inputs, "form_error"), self.propagated(node, inputs, "node_error")
        rows = self.forms.rows(*(x.form for x in inputs))
        for other in self.same_layers(node):
            if other.shape == node.shape:
                near = self.forms.nearest(rows, self.forms.rows(*(self.own[name] for name in other.inputs)))
                if (near.which == np.arange(len(near.which))).all() and (near.distance <= self.same * near.size).all():
                    self.shared += size(node.shape)
                    error = node_error + form_error + near.distance.max()
                    return _Value(f"first_{other.name}", self.own[other.name], error, 0 * form_error)
        at = self.append(f"second_{node.name}", node.layer, *(x.node for x in inputs))
        return self.own_node(node, at, [x.form for x in inputs], node_error)

    def own_node(self, node: Node, at: str, inputs: list[Affine], node_error: Array) -> _Value:
        """Return the value of a node that is not shared; its unstable elements are new variables of the forms."""
        before = len(self.forms.largest)
        form = self.forms.value(node, inputs, self.second_bounds)
        self.forms.largest[before:] += node_error.max(initial=0.0)
        return _Value(at, form, node_error, np.zeros(size(node.shape)))

    def activation(self, node: Node, x: _Value) -> _Value:
        """Add an activation; units that the first network has as well are taken from there."""
        steep = lipschitz_constant(node.layer)
        value = self.own_node(node, f"second_{node.name}", [x.form], steep * x.node_error)
        # for stable units: the input may lie outside of its bounds by its error
        value.form_error = steep * (x.form_error + 2 * x.node_error)
        others = self.same_layers(node)
        match, distance = np.full(size(node.shape), -1), np.zeros(size(node.shape))
        if others:
            near = self.forms.nearest(self.forms.rows(x.form), self.forms.rows(*(self.own[o.inputs[0]] for o in others)))
            match, distance = np.where(near.distance <= self.same * near.size, near.which, -1), near.distance
        starts = np.cumsum([0, *(size(other.shape) for other in others)])
        whole = bool((match >= 0).all())
        if whole and others and (number := int(np.searchsorted(starts, match[0], "right")) - 1) >= 0:
            whole = others[number].shape == node.shape and bool((match == starts[number] + np.arange(len(match))).all())
        if (match < 0).all() or (not whole and max(np.diff(starts)) > PARTLY_SHARED_UNITS_MAX):
            self.append(value.node, node.layer, x.node)
            return value
        taken = match >= 0
        self.shared += int(taken.sum())
        value.node_error = np.where(taken, steep * (x.node_error + x.form_error + np.where(taken, distance, 0.0)), value.node_error)
        value.form_error = np.where(taken, 0.0, value.form_error)
        form = self.forms.rows(*(self.own[other.name] for other in others), value.form)
        rows = form[np.where(taken, match, starts[-1] + np.arange(len(match)))]
        value.form = Affine(rows[:, 1:].tocsr(), rows[:, [0]].toarray().reshape(1, *node.shape))
        if whole:
            value.node = f"first_{others[number].name}"
        else:
            self.gather(node, x.node, match, [(o, s) for o, s in zip(others, starts, strict=False)])
        return value

    def gather(self, node: Node, x: str, match: Ints, others: list[tuple[Node, int]]) -> None:
        """Append nodes that take some units of an activation from the first network, and compute the others."""
        name, left = f"second_{node.name}", np.flatnonzero(match < 0)
        pieces = []
        for other, start in others:
            units = np.flatnonzero((match >= start) & (match < start + size(other.shape)))
            if len(units):
                picked = torch.zeros(len(match), size(other.shape), dtype=torch.float64)
                picked[units, match[units] - start] = 1.0
                flat = self.append(f"{name}_flat_{other.name}", Reshape((size(other.shape),)), f"first_{other.name}")
                pieces.append(self.append(f"{name}_of_{other.name}", Dense(picked), flat))
        if len(left):
            flat = self.append(f"{name}_flat_input", Reshape((len(match),)), x)
            rows = torch.zeros(len(left), len(match), dtype=torch.float64)
            rows[np.arange(len(left)), left] = 1.0
            alone = self.append(f"{name}_own", node.layer, self.append(f"{name}_input", Dense(rows), flat))
            pieces.append(self.append(f"{name}_placed", Dense(rows.T), alone))
        total = self.append(f"{name}_flat", Add((1.0,) * len(pieces)), *pieces)
        self.append(name, Reshape(node.shape), total)

    def joined(self, output: Literal["difference", "both"]) -> JointNetwork:
        """Return the joint network without nodes that nothing reads."""
        last, count = self.values[self.second.output.name], size(self.second.output_shape)
        ends = [
            self.append(f"{side}_flat_output", Reshape((count,)), at)
            for side, at in (("first", f"first_{self.first.output.name}"), ("second", last.node))
        ]
        if output == "difference" and last.node == f"first_{self.first.output.name}":  # the difference is 0, without rounding
            self.append("joined_output", Scale(torch.zeros(count), torch.zeros(count)), ends[0])
        else:
            self.append("joined_output", Add((1.0, -1.0)) if output == "difference" else Concat(), *ends)
        whole = Network.build(self.first.input_shape, self.layers)
        read = [(n.name, n.layer, n.inputs) for n in ancestors(whole, whole.output.name)]
        network, given = Network.build(self.first.input_shape, read), self.given({name for name, *_ in read})
        return JointNetwork(network, last.node_error, self.shared, given)

    def given(self, names: set[str]) -> dict[str, tuple[Array, Array]]:
        """Return the bounds of the first network's nodes that have these names in the joint network."""
        boxes = {f"first_{node.name}": self.bounds.after[node.name] for node in self.first.nodes}
        return {name: (box.lower.numpy(), box.upper.numpy()) for name, box in boxes.items() if name in names}


LIPSCHITZ_LAYERS = (ReLU, LeakyReLU, PReLU, Clip, WindowMaximum)
"""Nonlinear layers with a known Lipschitz constant."""


def lipschitz_constant(layer: Layer) -> float:
    """Return the largest ratio of a change of the output to the change of the input, per element."""
    if isinstance(layer, PReLU):
        return max(1.0, float(layer.slope.abs().max()))
    return max(1.0, layer.slope) if isinstance(layer, LeakyReLU) else 1.0


def same_layer(one: Layer, other: Layer) -> bool:
    """Return True if both layers compute the same function."""
    if type(one) is not type(other):
        return False
    pairs = ((getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    return all(torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b for a, b in pairs)
