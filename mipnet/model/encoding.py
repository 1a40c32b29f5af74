"""Writing a network over an input set as a linopy model, with one block per node, for all samples at once.

`encode` creates a new model.  `add_network` adds the network to an existing model, with an existing variable as its input.  Both return
an `Encoding`, which contains the model and gives access to its variables by node.  Constants, affine layers and units with a fixed sign
need no variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary, ref

import linopy
import numpy as np
import torch
import xarray as xr
from linopy import LinearExpression

from mipnet.arrays import Array, Ints
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import CANCELLED_SHARE, largest_absolute, magnitude
from mipnet.bounds.interval import Mode
from mipnet.bounds.propagation import wanted_bounds
from mipnet.errors import DataError, InputError, UnboundedError, UnsupportedError, suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block, BlockBounds, Fill
from mipnet.formulations.distance import BALL_ROWS, DISTANCE_ROWS, DISTANCE_VARIABLE, Norm, Square, add_ball, add_distance
from mipnet.formulations.formulation_choice import Formulation as Formulation
from mipnet.formulations.formulation_choice import NetworkFacts, check_formulation, has_other_binaries
from mipnet.formulations.linopy_rows import add_rows, add_variables, coordinates, expression, value_range
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.model.encoding_size import making_program
from mipnet.model.node_values import FormulationRequest, scores_of_elements, write_node
from mipnet.network.gates import Gate, by_unit, resolve_gates
from mipnet.network.given_arrays import as_labelled, in_order, layout_hint, matched, numbers
from mipnet.network.graph import INPUT_NODE, Network, dims_of
from mipnet.network.sets import Box

Derived = Callable[[torch.Tensor], torch.Tensor]
"""A function from points ``(point, label)`` to the values of some variables, ``(point, *shape of the variables)``."""

RESERVED_VARIABLE_NAMES = frozenset({INPUT_NODE, "output", "lse", "hinge", "sparsity", "level", "above", DISTANCE_VARIABLE})
"""Names of variables that belong to no node; the variables of a node with such a name get the suffix ``_node``."""

BOUNDS_TIME_SHARE = 0.5
"""Largest share of the time limit of `encode` in which bounds are computed."""

_encodings_by_model: WeakKeyDictionary[linopy.Model, list[ref[Encoding]]] = WeakKeyDictionary()


def networks_in(model: linopy.Model) -> list[Encoding]:
    """Return the encodings of the networks in a model, in the order in which they were added, except those that were garbage-collected."""
    return [encoding for reference in _encodings_by_model.get(model, []) if (encoding := reference()) is not None]


@dataclass(eq=False)
class Encoding:
    """A network in a linopy model.

    You may add variables, constraints and an objective to ``model``.  ``output`` is the labelled variable of the network's output,
    ``encoding[name]`` is the value of a node as an expression, ``scores`` contains the score variables by gate name, and `block` returns
    the variables and rows of a node.

    ``fills`` computes the variables of the model in a forward pass.  ``convex`` lists log-sum-exp terms, ``derived`` the variables that
    `derive` was called for, and ``squares`` the squares of an l2 distance, all by variable label.
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
    convex: list[tuple[Ints, Ints]] = field(default_factory=list)
    derived: list[tuple[Ints, Derived]] = field(default_factory=list)
    squares: list[Square] = field(default_factory=list)
    own_rows: list[str] = field(default_factory=list)

    @property
    def own_constraints(self) -> tuple[str, ...]:
        """The names of the constraints that the library brought into the model: those of the blocks, and ``own_rows``."""
        return (*(name for block in self.blocks.values() for name in block.constraints), *self.own_rows)

    @cached_property
    def node_sizes(self) -> Mapping[str, float]:
        """The size of each node's value: its largest finite absolute bound, and at least a share of its terms; 1 if all of these are 0."""
        found = {}
        for node in self.network.nodes:
            sizes = (largest_absolute(self.bounds.after[node.name]), CANCELLED_SHARE * magnitude(node, self.bounds.after))
            found[node.name] = max(float(torch.where(each.isfinite(), each, 0.0).max()) for each in sizes) or 1.0
        return found

    def block(self, name: str) -> Block:
        """Return the variables and rows of a node; raises `NetworkError` for an unknown name."""
        return self.blocks[self.network[name].name]

    def __getitem__(self, name: str) -> LinearExpression:
        """Return the value of a node, or of ``input``, as a labelled expression with dimensions ``(sample, *dimensions of the node)``."""
        dims = ("sample", *dims_of(name, self.network.shape_of(name)))
        return expression(self.model, self.values[name], dims, self.samples)

    @property
    def relaxed(self) -> tuple[str, ...]:
        """Names of the nodes that are written as a relaxation.

        If there are any, the optimum is only a bound, and a solution may differ from the network.
        """
        return tuple(name for name, block in self.blocks.items() if block.relaxed)

    @property
    def input(self) -> LinearExpression:
        """The input of the network as a labelled expression."""
        return self[INPUT_NODE]

    @suggest_keywords
    def labelled(self, array: Array, dims: tuple[str, ...]) -> xr.DataArray:
        """Return an array with dimension names and the coordinates of this encoding's variables, for use in linopy expressions."""
        named = as_labelled(array)
        if named is not None and set(named.dims) == set(dims):
            sizes = tuple(named.sizes[dim] for dim in dims)
            like = xr.DataArray(np.empty(sizes), dims=dims, coords=coordinates(dims, sizes, self.samples))
            return matched(named, like, "the array and this encoding").astype(np.float64).assign_coords(like.coords)
        plain = np.array(numbers(array, "the array"), dtype=np.float64)
        if plain.ndim != len(dims):
            raise DataError(f"the array has shape {plain.shape}; expected one axis for each of {dims}")
        return xr.DataArray(plain, dims=dims, coords=coordinates(dims, plain.shape, self.samples))

    @suggest_keywords
    def point(self, x: Array, scores: Mapping[str, Array] | xr.Dataset | None = None) -> Array:
        """Return the value of every variable by label at input ``x``, computed by a forward pass; NaN where it is unknown.

        All scores are 1 by default.  The point satisfies all constraints that belong to the network.
        """
        point = np.full(self.model._xCounter, np.nan)
        source = self.values[INPUT_NODE]
        if not source.is_fixed:
            given = numbers(x, "the input")
            if given.size != source.constant.size:
                raise DataError(f"the input has shape {given.shape}; expected {source.shape}")
            point[source.terms.indices] = given.reshape(-1)
        if isinstance(scores, xr.Dataset):
            scores = {str(name): values.values for name, values in by_unit(self.gates, scores, "scores").items()}
        for gate in self.gates:
            labels = self.scores[gate.name].labels.values
            point[labels] = 1.0 if scores is None else scores[gate.name]
        for labels, fill in self.fills:
            present = labels >= 0
            point[labels[present]] = fill(point)[present]
        return point

    @suggest_keywords
    def derive(self, labels: Ints, function: Derived) -> None:
        """Define variables of the model, by label, as a function of the input, the output, the scores and variables derived before.

        ``function`` maps torch points of shape ``(point, label)`` to values of shape ``(point, *shape of labels)``.  Forward passes then
        compute these variables, and a gradient search differentiates through them.
        """
        self.derived.append((labels, function))
        self.fills.append((labels, lambda point: function(torch.as_tensor(point)[None])[0].numpy()))

    @suggest_keywords
    def value(self, name: str, point: Array) -> Array:
        """Return the value of a node at a point by label, shape ``(sample, *shape)``."""
        return self.values[name].evaluate(point)

    @suggest_keywords
    def distance(self, centre: Array, radius: float, norm: Norm) -> linopy.Variable:
        """Add variables whose sum is the distance of the input from ``centre``, in units of ``radius``, and return them.

        For norm l2, the sum is the squared distance; see `mipnet.formulations.distance`.
        """
        source, dims = self.values[INPUT_NODE], ("sample", *dims_of(INPUT_NODE, self.network.input_shape))
        t, value = add_distance(self.model, source, self.region, centre, radius, norm, dims, self.samples)
        self.own_rows += DISTANCE_ROWS
        self.derive(t.labels.values, value)
        if norm == "l2":
            self.squares.append(Square(source.terms.indices.astype(np.int64), t.labels.values.reshape(-1), centre.reshape(-1), radius))
        return t


@suggest_keywords
def encode(
    network: Network,
    region: Box,
    *,
    formulation: Formulation | None = None,
    bounds: Mode | Bounds = "sound",
    gates: Sequence[Gate] | str | Sequence[str] | None = None,
    binary_gates: bool = False,
    epsilon: float = 1e-5,
    time_limit: TimeLimit = None,
) -> Encoding:
    """Write a network over an input set as a new linopy model.

    Parameters
    ----------
    network
        The network.
    region
        The input set: `Box`, `LInf`, `L1`, `L2` or `Samples`, of shape ``(sample, *input_shape)``, with one set per sample.
    formulation
        Formulation name by lower-case layer name, ``{"relu": "big-m"}``.  A layer that is not listed gets its default, and ``"auto"``
        chooses one per node; see `mipnet.formulations.formulation_choice`.
    bounds
        ``"sound"``: bounds that are valid for every gate value, computed by CROWN.  ``"interval"``, ``"crown"`` or ``"alpha"``: the
        same, computed by the named method.  ``"paper"``: interval bounds of the network without gates over the region widened by
        ``epsilon``, used as big-Ms of the gated network, as published.  Or a `Bounds` object; see `mipnet.bounds.propagation`.
    gates
        None for no gates, ``"all"``, or a list of layer names; see `mipnet.network.gates`.
    binary_gates
        True for scores in {0, 1} instead of [0, 1].
    epsilon
        Distance in the maximum norm by which ``bounds="paper"`` widens the region.
    time_limit
        Seconds of the whole call, None for no limit.  Bounds may take `BOUNDS_TIME_SHARE` of them and are looser afterwards.

    Raises `UnboundedError` if a big-M would be infinite, `TimeLimitReached` if the time ends before all layers are written, and
    `MemoryLimitReached` if the program would be larger than the memory limit (`mipnet.memory_limit`).  Raises
    `UnsupportedError` if a layer does not have the requested formulation, and for a network that ends in a softmax:
    `Network.without_softmax` returns the one whose outputs are the logits.
    """
    _refuse_softmax(network)
    deadline = Deadline.after(time_limit)
    region = region.fit(network.input_shape)
    chosen = resolve_gates(network, gates)
    known = wanted_bounds(network, region, chosen, bounds, epsilon, deadline.share(BOUNDS_TIME_SHARE))
    samples = xr.DataArray(np.arange(region.samples), dims="sample")
    enc = Encoding(network, linopy.Model(), region, known, chosen, samples)
    enc.values[INPUT_NODE] = Affine.fixed(region.lower) if region.fixed else _input_variable(enc)
    _write(enc, formulation or {}, deadline, binary_gates=binary_gates)
    if region.ball is not None and not region.fixed:
        add_ball(enc.model, enc.distance(region.ball.centre, region.ball.radius, region.ball.norm), samples)
        enc.own_rows.append(BALL_ROWS)
    return enc


@suggest_keywords
def add_network(
    model: linopy.Model,
    network: Network,
    x: linopy.Variable,
    *,
    formulation: Formulation | None = None,
    bounds: Mode | Bounds = "sound",
    prefix: str = "",
    time_limit: TimeLimit = None,
) -> Encoding:
    """Write a network into an existing linopy model, with an existing variable as its input.

    Parameters
    ----------
    model
        The model; it may already contain other networks.
    network
        The network.
    x
        A variable of the model, of shape ``input_shape`` or ``(sample, *input_shape)``.  Its bounds are the input set.
    formulation, bounds, time_limit
        As for `encode`.  If the call fails, what was written of the network is removed from the model.
    prefix
        Prefix of every new name, so that one model can contain several networks.

    Returns the `Encoding`; its ``output`` is the labelled variable of the output.  Raises `DataError` if ``x`` has another shape or is
    masked, `UnboundedError` if its bounds are not finite, and `UnsupportedError` and `TimeLimitReached` as `encode`.
    """
    _refuse_softmax(network)
    deadline = Deadline.after(time_limit)
    read = in_order(x.labels, f"variable `{x.name}`")
    shape = tuple(int(n) for n in read.shape)
    single = shape == network.input_shape
    if not single and shape[1:] != network.input_shape:
        raise DataError(
            f"variable `{x.name}` has shape {shape}; the network takes {network.input_shape}, with or without a sample axis first"
            + layout_hint(shape, network.input_shape)
        )
    if (read.values < 0).any():
        raise DataError(f"variable `{x.name}` is masked in {np.count_nonzero(read.values < 0)} places; a network needs every input")
    lower, upper = (np.asarray(matched(end, read, f"variable `{x.name}`").values, dtype=np.float64) for end in (x.lower, x.upper))
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise UnboundedError(f"variable `{x.name}` has infinite bounds; set finite bounds, from which the big-Ms are computed")
    region = Box(lower, upper).fit(network.input_shape)
    coords = [0] if single or read.dims[0] not in read.coords else read.coords[read.dims[0]].values
    known = wanted_bounds(network, region, (), bounds, 0.0, deadline.share(BOUNDS_TIME_SHARE))
    enc = Encoding(network, model, region, known, (), xr.DataArray(np.asarray(coords), dims="sample"))
    enc.values[INPUT_NODE] = Affine.of(read.values.reshape(region.lower.shape))
    before = {*model.variables, *model.constraints}
    try:
        return _write(enc, formulation or {}, deadline, prefix=prefix)
    except BaseException:
        model.remove_constraints([name for name in model.constraints if name not in before])
        for variable in [name for name in model.variables if name not in before]:
            model.remove_variables(variable)
        raise


def _refuse_softmax(network: Network) -> None:
    if network.softmax is not None:
        raise UnsupportedError(
            f"the network ends in a {network.softmax.kind}, which is not piecewise linear; expected a network without it: write"
            " `network.without_softmax()`, and the output of the encoding is the logits"
        )


def _input_variable(enc: Encoding) -> Affine:
    coords = coordinates(("sample", *dims_of(INPUT_NODE, enc.network.input_shape)), enc.region.lower.shape, enc.samples)
    return Affine.of(add_variables(enc.model, INPUT_NODE, enc.region.lower, enc.region.upper, coords).labels.values)


def _write(enc: Encoding, formulation: Formulation, deadline: Deadline, *, binary_gates: bool = False, prefix: str = "") -> Encoding:
    """Write all nodes into the model, each in its own block, and the output as variables."""
    check_formulation(formulation)
    if f"{prefix}output" in enc.model.variables:
        raise InputError(
            f"the model has a variable `{prefix}output` already, perhaps of another network; give this one a `prefix` of its own"
        )
    for gate in enc.gates:
        coords = {gate.dim: np.arange(gate.units)}
        enc.scores[gate.name] = add_variables(enc.model, f"{prefix}score_{gate.name}", 0, 1, coords, binary=binary_gates)
    scores_at = {site: enc.scores[gate.name].labels.values for gate in enc.gates for site in gate.sites}
    other_binaries = (binary_gates and bool(enc.gates)) or has_other_binaries(enc.network)
    request = FormulationRequest(formulation, NetworkFacts(sum(enc.bounds.unstable().values()), other_binaries), deadline)
    with making_program(enc.network, enc.region, enc.bounds, request):
        _write_nodes(enc, request, scores_at, prefix, deadline)
        _add_output(enc, prefix)
    _encodings_by_model.setdefault(enc.model, []).append(ref(enc))
    return enc


def _write_nodes(enc: Encoding, request: FormulationRequest, scores_at: Mapping[str, Ints], prefix: str, deadline: Deadline) -> None:
    for node in enc.network.nodes:
        deadline.check(f"write layer `{node.name}` into the model")
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
        score = scores_of_elements(scores_at[node.name], block) if node.name in scores_at else None
        enc.values[node.name] = write_node(block, inputs, score, request)
        enc.blocks[node.name] = block


def _add_output(enc: Encoding, prefix: str) -> None:
    """Add variables for the output.  A linopy objective cannot contain the constants of an affine value, but it can contain variables."""
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
    enc.own_rows.append(f"{prefix}output_is")
    add_rows(enc.model, enc.own_rows[-1], value - Affine.of(labels), "=", 0.0, dims, enc.samples)
