"""Write a network over an input set as a linopy model, one block a node, all samples at once.

`encode` makes a model of its own; `add_network` writes into somebody else's model, on somebody else's variables.  Both return an
`Encoding`: the model and the labelled handles.  Constants, affine chains and units with a fixed sign cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, ref

import linopy
import numpy as np
import torch
import xarray as xr
from linopy import LinearExpression
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.interval import Mode
from mipnet.bounds.propagation import wanted_bounds
from mipnet.errors import DataError, InputError, UnboundedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block, BlockBounds, Fill
from mipnet.formulations.choice import Formulation as Formulation
from mipnet.formulations.choice import NetworkFacts, check_formulation, choose, choose_gate, has_other_binaries
from mipnet.formulations.distance import DISTANCE_VARIABLE, Norm, Square, add_ball, add_distance
from mipnet.formulations.gated import gated, gated_relu, published_linear
from mipnet.formulations.linopy_rows import add_rows, add_variables, coordinates, expression, value_range
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.layers.activations import ReLU
from mipnet.network.gates import Gate, wanted_gates
from mipnet.network.graph import INPUT, Layer, Network, dims_of
from mipnet.network.sets import Box

Derived = Callable[[torch.Tensor], torch.Tensor]

RESERVED_VARIABLE_NAMES = frozenset({INPUT, "output", "lse", "hinge", "sparsity", "level", "above", DISTANCE_VARIABLE})
"""Names of variables that belong to no node; a node that is called so has its variables under another name."""

_written: WeakKeyDictionary[linopy.Model, list[ref[Encoding]]] = WeakKeyDictionary()


def networks_in(model: linopy.Model) -> list[Encoding]:
    """The networks that were written into a model, in order, as far as somebody still holds their encodings."""
    return [encoding for known in _written.get(model, []) if (encoding := known()) is not None]


@dataclass(eq=False)
class Encoding:
    """A network inside a linopy model.

    ``model`` may be extended freely (variables, constraints, objective).  ``output`` is the labelled variable of what the
    network returns; ``encoding[name]`` is the value of any node as an expression; ``scores`` holds the gate variables by gate
    name; `block` gives one node's variables, rows and value.
    """

    network: Network
    model: linopy.Model
    region: Box
    bounds: Bounds
    gates: tuple[Gate, ...]
    samples: xr.DataArray
    values: dict[str, Affine] = field(default_factory=dict)
    output: linopy.Variable = field(init=False)
    blocks: dict[str, Block] = field(default_factory=dict)
    scores: dict[str, linopy.Variable] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    convex: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list)
    derived: list[tuple[NDArray[np.int64], Derived]] = field(default_factory=list)
    squares: list[Square] = field(default_factory=list)

    def block(self, name: str) -> Block:
        """The variables, rows and value of one node; raises `NetworkError` for an unknown name."""
        return self.blocks[self.network[name].name]

    def __getitem__(self, name: str) -> LinearExpression:
        """The value of a node (or of ``input``) as a labelled expression with dimensions ``(sample, *dimensions of the node)``."""
        dims = ("sample", *dims_of(name, self.network.shape_of(name)))
        return expression(self.model, self.values[name], dims, self.samples)

    @property
    def relaxed(self) -> tuple[str, ...]:
        """The nodes that are written as a relaxation: the optimum is a bound then, and its point need not be the network's."""
        return tuple(name for name, block in self.blocks.items() if block.relaxed)

    @property
    def input(self) -> LinearExpression:
        """What the network reads."""
        return self[INPUT]

    def labelled(self, array: Array, dims: tuple[str, ...]) -> xr.DataArray:
        """An array with dimension names, and the coordinates that all variables of this encoding use."""
        return xr.DataArray(np.array(array, dtype=np.float64), dims=dims, coords=coordinates(dims, array.shape, self.samples))

    def point(self, x: Array, scores: Mapping[str, Array] | None = None) -> Array:
        """Every variable's value by label (NaN where unknown) at the input ``x`` and the given scores (1 where none is given).

        It is a feasible point of the network's part of the model, because it is a forward pass.
        """
        point = np.full(self.model._xCounter, np.nan)
        source = self.values[INPUT]
        if not source.is_fixed:
            point[source.terms.indices] = x.reshape(-1)
        for gate in self.gates:
            labels = self.scores[gate.name].labels.values
            point[labels] = 1.0 if scores is None else scores[gate.name]
        for labels, fill in self.fills:
            there = labels >= 0
            point[labels[there]] = fill(point)[there]
        return point

    def derive(self, labels: NDArray[np.int64], function: Derived) -> None:
        """Say that variables of the model, by label, are a function of the input, the output, the scores and what was derived before.

        ``function`` maps points in torch, ``(point, label)``, to the variables' values, ``(point, *shape of labels)``.  Forward passes
        then know these variables, and a gradient search knows their slopes.
        """
        self.derived.append((labels, function))
        self.fills.append((labels, lambda point: function(torch.as_tensor(point)[None])[0].numpy()))

    def value(self, name: str, point: Array) -> Array:
        """The value of a node at a point, shape ``(sample, *shape)``."""
        return self.values[name].evaluate(point)

    def distance(self, centre: Array, radius: float, norm: Norm) -> linopy.Variable:
        """New variables that sum to the distance of the input from ``centre``, in units of ``radius``: `mipnet.formulations.distance`."""
        source, dims = self.values[INPUT], ("sample", *dims_of(INPUT, self.network.input_shape))
        t, value = add_distance(self.model, source, self.region, centre, radius, norm, dims, self.samples)
        self.derive(t.labels.values, value)
        if norm == "l2":
            self.squares.append(Square(source.terms.indices.astype(np.int64), t.labels.values.reshape(-1), centre.reshape(-1), radius))
        return t


def encode(
    network: Network,
    region: Box,
    *,
    formulation: Formulation | None = None,
    bounds: Mode | Bounds = "sound",
    gates: Sequence[Gate] | str | Sequence[str] | None = None,
    binary_gates: bool = False,
    epsilon: float = 1e-5,
) -> Encoding:
    """The network over an input set as a model of its own.

    Parameters
    ----------
    region
        `Box`, `LInf`, `L1`, `L2` or `Samples`, with one set a sample, of shape ``(sample, *input_shape)``.
    formulation
        Formulation name by lower-case layer name, ``{"relu": "big-m"}``; a name that is left out takes the first registered, and
        ``"auto"`` picks one for each node; see `mipnet.formulations.choice`.
    bounds
        ``"sound"`` (hold for every gate value; computed by ``"interval"``, ``"crown"`` or ``"alpha"`` if it is named, by CROWN if
        not), ``"paper"`` (intervals of the ungated network over the region widened by ``epsilon``, used as big-Ms of the gated
        one, as published), or a `Bounds` object; see `mipnet.bounds.propagation`.
    gates
        None for no gates, ``"all"``, or a list of layer names; see `mipnet.network.gates`.
    binary_gates
        Scores in {0, 1} instead of [0, 1].

    Raises `UnboundedError` if a big-M would be infinite, `UnsupportedError` if a layer has no such formulation.
    """
    region = region.fit(network.input_shape)
    chosen = wanted_gates(network, gates)
    known = wanted_bounds(network, region, chosen, bounds, epsilon)
    samples = xr.DataArray(np.arange(region.samples), dims="sample")
    enc = Encoding(network, linopy.Model(), region, known, chosen, samples)
    enc.values[INPUT] = Affine.fixed(region.lower) if region.fixed else _input_variable(enc)
    _write(enc, formulation or {}, binary_gates=binary_gates)
    if region.ball is not None and not region.fixed:
        add_ball(enc.model, enc.distance(region.ball.centre, region.ball.radius, region.ball.norm), samples)
    return enc


def add_network(
    model: linopy.Model,
    network: Network,
    x: linopy.Variable,
    *,
    formulation: Formulation | None = None,
    bounds: Mode | Bounds = "sound",
    prefix: str = "",
) -> Encoding:
    """The network inside ``model``, reading the variable ``x`` of shape ``input_shape``, or with a leading sample dimension.

    The bounds of ``x`` are its input set and must be finite (`UnboundedError`).  ``prefix`` goes in front of every new name, so
    one model can hold several networks.  ``handle.output`` is the labelled output.
    """
    shape = tuple(int(n) for n in x.shape)
    single = shape == network.input_shape
    if not single and shape[1:] != network.input_shape:
        raise DataError(f"variable `{x.name}` has shape {shape}; the network takes {network.input_shape}, or that behind a sample axis")
    if (x.labels.values < 0).any():
        raise DataError(f"variable `{x.name}` is masked in {np.count_nonzero(x.labels.values < 0)} places; a network needs every input")
    lower, upper = (np.asarray(end.transpose(*x.dims).values, dtype=np.float64) for end in (x.lower, x.upper))
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise UnboundedError(f"variable `{x.name}` has infinite bounds; give it finite lower and upper ones: they become the big-Ms")
    region = Box(lower, upper).fit(network.input_shape)
    coords = [0] if single or x.dims[0] not in x.coords else x.coords[x.dims[0]].values
    known = wanted_bounds(network, region, (), bounds, 0.0)
    enc = Encoding(network, model, region, known, (), xr.DataArray(np.asarray(coords), dims="sample"))
    enc.values[INPUT] = Affine.of(x.labels.transpose(*x.dims).values.reshape(region.lower.shape))
    return _write(enc, formulation or {}, prefix=prefix)


def _input_variable(enc: Encoding) -> Affine:
    coords = coordinates(("sample", *dims_of(INPUT, enc.network.input_shape)), enc.region.lower.shape, enc.samples)
    return Affine.of(add_variables(enc.model, INPUT, enc.region.lower, enc.region.upper, coords).labels.values)


def _write(enc: Encoding, formulation: Formulation, *, binary_gates: bool = False, prefix: str = "") -> Encoding:
    """Write node after node into the model, each in a block of its own, and the output as variables."""
    check_formulation(formulation)
    if f"{prefix}output" in enc.model.variables:
        raise InputError(
            f"the model has a variable `{prefix}output` already, of another network perhaps; give this one a `prefix` of its own"
        )
    for gate in enc.gates:
        coords = {gate.dim: np.arange(gate.units)}
        enc.scores[gate.name] = add_variables(enc.model, f"{prefix}score_{gate.name}", 0, 1, coords, binary=binary_gates)
    owner = {site: gate for gate in enc.gates for site in gate.sites}
    other_binaries = (binary_gates and bool(enc.gates)) or has_other_binaries(enc.network)
    facts = NetworkFacts(sum(enc.bounds.unstable().values()), other_binaries)
    for node in enc.network.nodes:
        block = Block(
            name=prefix + (f"{node.name}_node" if node.name in RESERVED_VARIABLE_NAMES or node.name.startswith("score_") else node.name),
            node=node,
            model=enc.model,
            samples=enc.samples,
            bounds=BlockBounds(
                before=tuple(enc.bounds.after[name] for name in node.inputs),
                after=enc.bounds.before_gate(node.name),
                paper=enc.bounds.mode == "paper",
            ),
            fills=enc.fills,
        )
        inputs = [enc.values[name] for name in node.inputs]
        score = _scores_at(enc, owner.get(node.name), block)
        enc.values[node.name] = _value(block, inputs, score, _Chooser(formulation, facts))
        enc.blocks[node.name] = block
    _add_output(enc, prefix)
    _written.setdefault(enc.model, []).append(ref(enc))
    return enc


def _add_output(enc: Encoding, prefix: str) -> None:
    """The output as variables of its own: a linopy objective takes no constants, and an objective is what outputs are for."""
    node = enc.network.output
    value, dims = enc.values[node.name], ("sample", *node.dims)
    lower, upper = value_range(enc.model, value)
    if enc.bounds.mode == "sound":
        known = enc.bounds.after[node.name]
        lower, upper = np.maximum(lower, known.lower.numpy()), np.minimum(upper, known.upper.numpy())
    coords = coordinates(dims, value.shape, enc.samples)
    enc.output = add_variables(enc.model, f"{prefix}output", np.minimum(lower, upper), np.maximum(lower, upper), coords)
    labels = enc.output.labels.values
    enc.fills.append((labels, value.evaluate))
    add_rows(enc.model, f"{prefix}output_is", value - Affine.of(labels), "=", 0.0, dims, enc.samples)


def _scores_at(enc: Encoding, gate: Gate | None, block: Block) -> Affine | None:
    """The score of each element of a site, repeated over samples and positions."""
    if gate is None:
        return None
    labels = enc.scores[gate.name].labels.values
    return Affine.of(np.broadcast_to(labels.reshape(1, -1, *[1] * (len(block.shape) - 2)), block.shape))


@dataclass(frozen=True)
class _Chooser:
    """What the user asks of formulations, and what `auto` knows of the network."""

    formulation: Formulation
    facts: NetworkFacts


def _value(block: Block, inputs: list[Affine], score: Affine | None, chooser: _Chooser) -> Affine:
    node = block.node
    if all(x.is_fixed for x in inputs):
        value = Affine.fixed(_forward(node.layer, inputs))
    elif score is not None and isinstance(node.layer, ReLU):
        choose(block, chooser.formulation, chooser.facts)
        return gated_relu(block, inputs[0], score)
    else:
        value = _apply(block, inputs, chooser)
    return value if score is None else _gate(block, value, score, chooser)


def _apply(block: Block, inputs: list[Affine], chooser: _Chooser) -> Affine:
    node = block.node
    if not is_affine(node.layer):
        return choose(block, chooser.formulation, chooser.facts)(node.layer, block, *inputs)
    constant = _forward(node.layer, inputs)
    maps = linear_map(node.layer, *(x.shape[1:] for x in inputs))
    parts = [x.through(m, np.zeros(constant.shape)) for x, m in zip(inputs, maps, strict=True)]
    return sum(parts[1:], start=parts[0]) + constant


def _gate(block: Block, value: Affine, score: Affine, chooser: _Chooser) -> Affine:
    choose_gate(block, chooser.formulation, chooser.facts)
    lower, upper = block.bounds.after.lower.numpy(), block.bounds.after.upper.numpy()
    if block.bounds.paper and not block.node.layer.activation:
        return published_linear(block, value, score, upper)
    return gated(block, value, score, lower, upper)


def _forward(layer: Layer, inputs: list[Affine]) -> Array:
    """The layer on the constants of its inputs: exact for fixed inputs, the constant part for an affine layer."""
    with torch.no_grad():
        value: Array = layer.forward(*(torch.tensor(x.constant) for x in inputs)).numpy()
    return value
