"""A network in a linopy model: `Encoding` gives access to its variables, rows and values by node.

`mipnet.encode` creates one with a model of its own; `mipnet.add_network` adds a network to an existing model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args
from weakref import WeakKeyDictionary, ref

import linopy
import numpy as np
import torch
import xarray as xr
from linopy import LinearExpression

from mipnet.arrays import Array, Ints, Mask
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown_rows import CANCELLED_SHARE, largest_absolute, magnitude
from mipnet.errors import DataError, InputError, NetworkError, check_choice, described, expected_one_of, suggest_keywords
from mipnet.errors.expectations import expects
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block, Fill
from mipnet.formulations.distance import DISTANCE_ROWS, Norm, Square, add_distance
from mipnet.formulations.formulation_choice import Formulation as Formulation
from mipnet.formulations.linopy_rows import coordinates, expression
from mipnet.model.host_model import MARK_ATTRIBUTE, Mark, drop_kept, keep_with, remove_from, solution_of
from mipnet.model.pickled import packed, unpacked
from mipnet.model.sample_grid import SampleGrid
from mipnet.model.summary import BLOCK_HEADS, EncodingSummary, block_row
from mipnet.network.gates import Gate, by_unit
from mipnet.network.given_arrays import as_labelled, matched, numbers
from mipnet.network.graph import INPUT_NODE, Network, dims_of
from mipnet.network.named_inputs import in_input_order, names_of_inputs
from mipnet.network.sets import Box

Derived = Callable[[torch.Tensor], torch.Tensor]
"""A function from points ``(point, label)`` to the values of some variables, ``(point, *shape of the variables)``."""

_encodings_by_model: WeakKeyDictionary[linopy.Model, list[ref[Encoding]]] = WeakKeyDictionary()


def networks_in(model: linopy.Model) -> list[Encoding]:
    """Return the encodings of the networks in a model, in the order in which they were added, except those that were garbage-collected.

    A copy of a model with networks of `mipnet.add_network`, and a pickled one, get networks of their own.  Raises `InputError`, naming the
    variable, if they are not known, as in a model that was read from a file.
    """
    known = [encoding for reference in _encodings_by_model.get(model, []) if (encoding := reference()) is not None]
    outputs = {encoding.output.name for encoding in known}
    for name, variable in model.variables.data.items():
        mark: Any = variable.attrs.get(MARK_ATTRIBUTE)
        if mark is None or name in outputs:
            continue
        try:
            known.append(mark.owner.packed().moved_to(model))
        except (AttributeError, KeyError) as error:
            raise InputError(
                f"variable `{name}` is the output of a network, and this copy of the model does not have that network any more, so that it"
                " cannot be computed again at a solution; copy or pickle the model itself, or write the network again with `mn.add_network`"
            ) from error
    return known


def register(encoding: Encoding) -> None:
    """Record that a network was written into its model; see `networks_in`."""
    _encodings_by_model.setdefault(encoding.model, []).append(ref(encoding))
    if encoding.grid is not None:
        keep_with(encoding.model, encoding)
        encoding.model.variables[encoding.output.name].attrs[MARK_ATTRIBUTE] = Mark.of(encoding)


@dataclass(frozen=True)
class PackedNetwork:
    """A network as bytes, with the names of the variables in it; None stands for their model."""

    state: bytes
    names: tuple[str | None, ...]

    def packed(self) -> PackedNetwork:
        """Return itself."""
        return self

    def moved_to(self, model: linopy.Model) -> Encoding:
        """Return the network in a copy of its model, and register it there; raises `KeyError` if the copy lacks a variable."""
        return unpickled_network(self.state, [model if name is None else model.variables[name] for name in self.names], registered=True)


def unpickled_network(state: bytes, shared: Sequence[Any], registered: bool) -> Encoding:
    """Return a pickled network, registered in its model if it was."""
    encoding = object.__new__(Encoding)
    vars(encoding).update(unpacked(state, shared))
    if registered:
        register(encoding)
    return encoding


def network_of(model: linopy.Model, output: str) -> Encoding:
    """Return the network in a model whose output has this name."""
    return next(encoding for encoding in networks_in(model) if encoding.output.name == output)


@dataclass(eq=False)
class Encoding:
    """A network in a linopy model.

    You may add variables, constraints and an objective to ``model``.  ``output`` is the labelled variable of the network's output,
    ``encoding[name]`` is the value of a node as an expression, ``scores`` contains the score variables by gate name, and `block` returns
    the variables and rows of a node.  ``bounds`` are the bounds of all nodes.

    ``fills`` computes the variables of the model in a forward pass.  ``convex`` lists log-sum-exp terms, ``derived`` the variables that
    `derive` was called for, and ``squares`` the squares of an l2 distance, all by variable label.

    A network that `mipnet.add_network` wrote has a ``grid``, the places of its samples in the user's dimensions, and ``host``, its input
    as a function of the user's own variables; at ``enforced`` inputs, rows or variables of its own keep the input in the input set.
    ``output_labels`` are the labels of the output, ``(sample, *output_shape)``.  ``threshold_gap`` is that of `mipnet.EmbeddingSettings`.
    """

    network: Network
    model: linopy.Model
    region: Box
    bounds: Bounds
    gates: tuple[Gate, ...]
    samples: xr.DataArray
    values: dict[str, Affine] = field(default_factory=dict)
    output: linopy.Variable = field(init=False)
    output_labels: Ints = field(init=False)
    blocks: dict[str, Block] = field(default_factory=dict)
    scores: dict[str, linopy.Variable] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    convex: list[tuple[Ints, Ints]] = field(default_factory=list)
    derived: list[tuple[Ints, Derived]] = field(default_factory=list)
    squares: list[Square] = field(default_factory=list)
    own_rows: list[str] = field(default_factory=list)
    own_variables: list[str] = field(default_factory=list)
    grid: SampleGrid | None = None
    host: Affine | None = None
    enforced: Mask | None = None
    threshold_gap: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        registered = any(each is self for each in networks_in(self.model))
        if registered and self.grid is not None:
            return network_of, (self.model, self.output.name)  # the model has it
        return unpickled_network, (*packed(vars(self)), registered)

    def __copy__(self) -> Encoding:
        """Return another handle of the same network in the same model."""
        copied = object.__new__(Encoding)
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoding:
        """Return the same network in a copy of its model."""
        return self.packed().moved_to(deepcopy(self.model, memo))

    def packed(self) -> PackedNetwork:
        """Return the network as bytes, to be moved to a copy of its model."""
        state, shared = packed(vars(self))
        return PackedNetwork(state, tuple(each.name if isinstance(each, linopy.Variable) else None for each in shared))

    @property
    def source(self) -> Affine:
        """The input of the network, of shape ``(sample, *input_shape)``, as a function of the variables that the user has."""
        return self.values[INPUT_NODE] if self.host is None else self.host

    @property
    def output_range(self) -> tuple[Array, Array]:
        """Lower and upper bounds of the output's variables, ``(sample, *output_shape)``."""
        ends = (self.output.lower, self.output.upper)
        lower, upper = (np.asarray(end.values) if self.grid is None else self.grid.gathered(end) for end in ends)
        return lower, upper

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
        """Return the value of a node, or of ``input``, as a labelled expression with dimensions ``(sample, *dimensions of the node)``.

        In a user's model, its dimensions stand in place of ``sample``, and those of the input are the user's own.
        """
        shape = self.network.shape_of(name)
        value = self.values[name]
        dims = dims_of(name, shape)
        if self.grid is None:
            return expression(self.model, value, ("sample", *dims), self.samples)
        if name == INPUT_NODE:
            return self.grid.expression(self.model, self.source, self.grid.feature_dims, self.grid.feature_coords)
        return self.grid.expression(self.model, value, dims, {dim: np.arange(n) for dim, n in zip(dims, shape, strict=True)})

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
            coords = coordinates(dims, sizes, self.samples)
            like = xr.DataArray(np.empty(sizes), dims=tuple(coords), coords=coords)
            return matched(named, like, "the array and this encoding").astype(np.float64).assign_coords(like.coords)
        plain = np.array(numbers(array, "the array"), dtype=np.float64)
        if plain.ndim != len(dims):
            raise DataError(f"the array has shape {plain.shape}; expected one axis for each of {dims}")
        coords = coordinates(dims, plain.shape, self.samples)
        return xr.DataArray(plain, dims=tuple(coords), coords=coords)

    @suggest_keywords
    def point(self, x: Array, scores: Mapping[str, Array] | xr.Dataset | None = None) -> Array:
        """Return the value of every variable by label at input ``x``, computed by a forward pass; NaN where it is unknown.

        All scores are 1 by default.  The point satisfies all constraints that belong to the network.
        """
        point = np.full(self.model._xCounter, np.nan)
        source = self.values[INPUT_NODE]
        if not source.is_fixed:
            given = in_input_order(numbers(x, "the input"), names_of_inputs(x), self.network.input_names, "the input")
            if given.size != source.constant.size:
                raise DataError(f"the input has shape {given.shape}; expected {source.shape}")
            point[source.terms.indices] = given.reshape(-1)[source.row_sizes > 0]
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
        if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
            raise InputError(f"`Encoding.derive` was given {described(labels)} as `labels`; expected an array of labels, whole numbers")
        self.derived.append((labels, function))
        self.fills.append((labels, lambda point: function(torch.as_tensor(point)[None])[0].numpy()))

    @suggest_keywords
    @expects("the name of a node, and a number for each label")
    def value(self, name: str, point: Array) -> Array:
        """Return the value of a node at a point by label, shape ``(sample, *shape)``."""
        if name not in self.values:
            raise NetworkError(f"no value of a node `{name}`; {expected_one_of(name, self.values)}")
        return self.values[name].evaluate(point)

    def error(self) -> float:
        """Return the largest difference between the output in the model's solution and the network at the input in this solution.

        It is ``max |output - network(input)|`` over all samples and outputs, after any solve: `mipnet.solve` or ``model.solve``.  Raises
        `InputError` if the model has no solution.
        """
        point = solution_of(self.model)
        given, found = self.source.evaluate(point), point[self.output_labels]
        if np.isnan(given).any() or np.isnan(found).any():
            raise InputError("the model has no solution; solve it first, with `mn.solve(model)` or `model.solve()`")
        return float(np.abs(self.network.forward(given) - found).max())

    def summary(self) -> EncodingSummary:
        """Return what was written: dimensions, formulations and sizes by node; it shows as text, in Rich and in notebooks."""
        unstable = self.bounds.unstable()
        rows = [block_row(self.model, block, unstable.get(name, 0)) for name, block in self.blocks.items()]
        dims = ", ".join(f"{dim}: {n}" for dim, n in self.output.sizes.items())
        free = int((self.source.row_sizes > 0).sum())
        facts = {
            "input": f"{len(self.samples):,} samples of shape {self.network.input_shape}, {free:,} of {self.source.constant.size:,} free",
            "output": f"variable `{self.output.name}` ({dims})",
        }
        if self.region.polytope is not None:
            facts["input set"] = f"each input in {self.region.polytope}"
        if self.grid is not None and not self.grid.present.all():
            facts["without a network"] = (
                f"{np.count_nonzero(~self.grid.present):,} of {self.grid.places.size:,} places, where inputs are absent"
            )
        if self.relaxed:
            facts["relaxed"] = ", ".join(self.relaxed)
        return EncodingSummary(f"Network `{self.output.name}` of {len(self.blocks)} layers", facts, BLOCK_HEADS, rows)

    def __rich__(self) -> str:
        return self.summary().__rich__()

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def remove(self) -> None:
        """Take the variables and rows of a network out of the user's model again.

        Terms of the objective with its variables are dropped.  Raises `InputError` if constraints of the user contain its variables, and
        for a network that `encode` wrote, whose model is its own.
        """
        if self.grid is None:
            raise InputError("the network was written by `encode`, and the model contains nothing else; drop the model")
        remove_from(self.model, self.own_variables, self.own_constraints)
        drop_kept(self.model, self)
        _encodings_by_model[self.model] = [each for each in _encodings_by_model.get(self.model, []) if each() is not self]

    @suggest_keywords
    def distance(self, centre: Array, radius: float | Array, norm: Norm) -> linopy.Variable:
        """Add variables whose sum is the distance of the input from ``centre``, in units of ``radius``, and return them.

        The radius is one number, or one per input.  For norm l2, the sum is the squared distance; see `mipnet.formulations.distance`.
        """
        centre = np.asarray(numbers(centre, "the centre"), dtype=np.float64)
        if centre.shape[1:] != self.region.lower.shape[1:] or len(centre) not in (1, len(self.region.lower)):
            raise DataError(f"the centre has shape {centre.shape}; the input set {self.region.lower.shape}: expected the same shape")
        check_choice("the norm", norm, get_args(Norm))
        radius = np.array(numbers(radius, "the radius"), dtype=np.float64)
        if radius.shape not in ((), np.shape(centre)):
            raise DataError(f"the radius has shape {radius.shape}; expected a number, or one for each of the inputs, {np.shape(centre)}")
        source, dims = self.values[INPUT_NODE], ("sample", *dims_of(INPUT_NODE, self.network.input_shape))
        t, value = add_distance(self.model, source, self.region, centre, radius, norm, dims, self.samples)
        self.own_rows += DISTANCE_ROWS
        self.derive(t.labels.values, value)
        if norm == "l2":
            each = (np.broadcast_to(part, source.shape).reshape(-1) for part in (centre, radius))
            self.squares.append(Square(source.terms.indices.astype(np.int64), t.labels.values.reshape(-1), *each))
        return t
