"""A block: the variables and rows of one node in the linopy model.

An encoding is a function ``(layer, block, *inputs) -> Affine``.  It writes its variables and rows through the block that it is given.
`mipnet.formulations.registry` describes how to register an encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import linopy
import numpy as np
import xarray as xr

from mipnet.arrays import Array, Ints, Mask, Shape
from mipnet.bounds.interval import Interval
from mipnet.errors import InputError, UnboundedError, UnsupportedError, suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import NODE_ATTRIBUTE, Sense, add_rows, add_variables, binary_data, coordinates, expression
from mipnet.formulations.registry import Family, RegisteredFormulation
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import Node

Fill = tuple[Ints, Callable[[Array], Array]]
"""Labels of variables, and a function that computes their values at a point where all earlier variables are known."""

SOS1_SETS, INDICATOR_ROWS = "SOS1 sets", "indicator rows"
"""Keys of `BlockNotes.special_constraints`: the kinds of constraints that are not linear rows."""

PARTITION_PARTS_DEFAULT = 4
"""Number of parts into which formulation `partition` divides a sum by default."""

WINDOWS_PART = "windows"
"""Key of `BlockNotes.phases` for max pooling, whose elements are windows."""


TREES_PART = "trees"
"""Key of `BlockNotes.phases` for tree ensembles, whose elements are trees."""


@dataclass(frozen=True, eq=False)
class CutVariables:
    """Binaries that are 1 where an element of the block's input is at most a threshold.

    ``labels`` has shape ``(sample, threshold)``, with -1 where there is none; ``feature`` is the element, and ``value`` the threshold.
    """

    labels: Ints
    feature: Ints
    value: Array


@dataclass(frozen=True, eq=False)
class BigMNeurons:
    """Neurons ``h = max(z, 0)`` with a binary v that is 1 where z > 0.  All three are flat; h and v have one variable per neuron."""

    z: Affine
    h: Affine
    v: Affine


@dataclass(frozen=True)
class Phases:
    """Number of elements of a piecewise-linear function by phase: those that the bounds decide, and those that they leave undecided.

    For a positive part, z >= 0 for every input at ``active`` elements, and z <= 0 at ``inactive`` ones.  For max pooling, ``active``
    counts the windows whose largest candidate is known.
    """

    active: int
    inactive: int
    undecided: int


@dataclass(frozen=True, eq=False)
class BlockBounds:
    """Bounds of each input of a node (``before``), and of its own value (``after``).

    ``paper`` is True for the published bounds, which are not valid for every gate value.
    """

    before: tuple[Interval, ...]
    after: Interval
    paper: bool = False


@dataclass(frozen=True, eq=False)
class ChosenFormulation:
    """The formulation of a block, the reason for the choice, and the number of parts for `partition`."""

    formulation: RegisteredFormulation
    why: str
    parts: int = PARTITION_PARTS_DEFAULT


@dataclass(eq=False)
class BlockNotes:
    """Data that an encoding records about a block besides its variables and rows.

    ``phases`` counts the elements of each piecewise-linear function of the node by phase; its keys are suffixes.
    ``special_constraints`` counts SOS1 sets and indicator rows.  ``neurons`` are the neurons for which ideal cuts may be separated.
    ``gate_thresholds`` are the thresholds of a gate by side, as `mipnet.network.gates.gated_value` takes them.
    ``cuts`` are the binaries of a tree ensemble's thresholds.
    """

    phases: dict[str, Phases] = field(default_factory=dict)
    special_constraints: dict[str, int] = field(default_factory=dict)
    neurons: list[BigMNeurons] = field(default_factory=list)
    gate_thresholds: dict[str, Array] = field(default_factory=dict)
    cuts: CutVariables | None = None


def write_work(node: Node) -> str:
    """Return what is not finished if the time ends while the block of a node is written."""
    return f"write layer `{node.name}` into the model"


@dataclass(eq=False)
class Block:
    """The variables and rows of one node, and the data that an encoding needs to write them.

    ``fills`` is shared by all blocks of a model.  It lists functions that compute the variables in order, each from the earlier ones:
    together they are a forward pass.  ``choice`` is the formulation of the layer.  ``gate_choice`` is the formulation of the gate, if
    the layer itself is not written with positive parts.  ``threshold_gap`` is that of `mipnet.EmbeddingSettings`.  After ``deadline``, no
    further variables or rows are written: `TimeLimitReached` is raised.
    """

    name: str
    node: Node
    model: linopy.Model
    samples: xr.DataArray
    bounds: BlockBounds
    fills: list[Fill] = field(default_factory=list)
    variables: dict[str, linopy.Variable] = field(default_factory=dict)
    constraints: list[str] = field(default_factory=list)
    notes: BlockNotes = field(default_factory=BlockNotes)
    choice: ChosenFormulation | None = None
    gate_choice: ChosenFormulation | None = None
    threshold_gap: float = 0.0
    deadline: Deadline = NO_DEADLINE

    @property
    def dims(self) -> tuple[str, ...]:
        """``(sample, *dimensions of the node)``."""
        return ("sample", *self.node.dims)

    @property
    def shape(self) -> Shape:
        """``(samples, *shape of the node)``."""
        return (len(self.samples), *self.node.shape)

    @property
    def formulation(self) -> str:
        """Name of the formulation of the layer, or else of its gate; empty if neither has one."""
        chosen = self.choice or self.gate_choice
        return "" if chosen is None else chosen.formulation.name

    @property
    def why(self) -> str:
        """The reason why this formulation was chosen."""
        chosen = self.choice or self.gate_choice
        return "" if chosen is None else chosen.why

    @property
    def relaxed(self) -> bool:
        """True if the layer or its gate is written as a relaxation."""
        return any(chosen is not None and chosen.formulation.relaxed for chosen in (self.choice, self.gate_choice))

    def chosen_of(self, family: Family) -> ChosenFormulation | None:
        """Return the chosen formulation that belongs to a family, or None."""
        return next((c for c in (self.choice, self.gate_choice) if c is not None and c.formulation.family is family), None)

    def write_with(self, family: Family, condition: object) -> Affine:
        """Write a condition of a family with the formulation of that family that was chosen for this block, and return its value.

        Raises `UnsupportedError` if none was chosen, and `InputError` if the formulation does not return a value.
        """
        chosen = self.chosen_of(family)
        if chosen is None:
            raise UnsupportedError(
                f"node `{self.node.name}` has formulation `{self.formulation}`, and none for {family.condition};"
                f" use {', '.join(family.formulations)}"
            )
        return self.checked(family.formulations[chosen.formulation.name].write(condition))

    def checked(self, value: object) -> Affine:
        """Return the value that a formulation of this block returned; raises `InputError` unless it is an `Affine`."""
        if not isinstance(value, Affine):
            raise InputError(
                f"formulation `{self.formulation}` of layer `{self.node.layer.label}` (node `{self.node.name}`) returned"
                f" {type(value).__name__}; expected the layer's value: is its `return` missing?"
            )
        return value

    def _check_suffix(self, suffix: str, taken: bool, kind: str) -> None:
        self.deadline.check(write_work(self.node))
        if taken:
            raise InputError(
                f"formulation `{self.formulation}` of node `{self.node.name}` adds {kind} with the suffix `{suffix}` twice;"
                " give each its own suffix"
            )

    @suggest_keywords
    def finite(self, index: int = 0) -> tuple[Array, Array]:
        """Return the lower and upper bounds of an input as arrays of shape ``(samples, *shape)``.

        Raises `UnboundedError` if one is infinite.
        """
        box = self.bounds.before[index]
        lower, upper = box.lower.numpy(), box.upper.numpy()
        infinite = ~(np.isfinite(lower) & np.isfinite(upper))
        if infinite.any():
            raise UnboundedError(
                f"node `{self.node.name}` has {np.count_nonzero(infinite)} inputs without finite bounds; a big-M needs them:"
                " give the network's input finite bounds (`Box`, `LInf`)"
            )
        return lower, upper

    @suggest_keywords
    def variable(
        self,
        suffix: str,
        lower: Array | float,
        upper: Array | float,
        *,
        value: Callable[[Array], Array],
        where: Mask | None = None,
        binary: bool = False,
        dims: tuple[str, ...] | None = None,
        shape: Shape | None = None,
    ) -> Affine:
        """Add variables over ``dims`` (by default those of the block) where the mask ``where`` is True; elsewhere the value is 0.

        ``value(point)`` returns their values, of the same shape, at a point where all earlier variables are known.
        """
        self._check_suffix(suffix, suffix in self.variables, "variables")
        name = f"{self.name}_{suffix}" if suffix else self.name
        coords = coordinates(dims or self.dims, shape or self.shape, self.samples)
        made = add_variables(self.model, name, lower, upper, coords, where=where, binary=binary)
        made.attrs[NODE_ATTRIBUTE] = self.name
        labels = made.labels.values
        self.variables[suffix] = made
        self.fills.append((labels, value))
        return Affine.of(labels)

    @suggest_keywords
    def sets(
        self,
        suffix: str,
        lower: Array,
        upper: Array,
        *,
        value: Callable[[Array], Array],
        where: Mask | None = None,
        dims: tuple[str, ...] | None = None,
        shape: Shape | None = None,
    ) -> Affine:
        """Add variables as `variable` does, with SOS1 sets along the last dimension: at most one variable per set is nonzero."""
        made = self.variable(suffix, lower, upper, value=value, where=where, dims=dims, shape=shape)
        variable = self.variables[suffix]
        self.model.add_sos_constraints(variable, 1, str(variable.dims[-1]))
        self._count(SOS1_SETS, int(((variable.labels.values >= 0).sum(axis=-1) > 1).sum()))
        return made

    @suggest_keywords
    def rows_if(self, suffix: str, switch: Affine, active: int, value: Affine, sense: Sense, right: Array | float = 0.0) -> None:
        """Add indicator rows: where a binary of ``switch`` equals ``active``, the row ``value sense right`` must hold.  Both are flat."""
        name = f"{self.name}_{suffix}"
        self._check_suffix(suffix, name in self.constraints, "rows")
        dim = f"{name}_0"
        binary = linopy.Variable(binary_data(switch, dim), self.model, name, skip_broadcast=True)
        bound = xr.DataArray(np.broadcast_to(np.asarray(right, dtype=np.float64), value.shape), dims=dim, coords=binary.coords)
        left = expression(self.model, value, (dim,), self.samples)
        self.model.add_indicator_constraints(binary, active, left, sense, bound, name=name)
        self.constraints.append(name)
        self._count(INDICATOR_ROWS, len(switch.constant))

    def _count(self, kind: str, number: int) -> None:
        self.notes.special_constraints[kind] = self.notes.special_constraints.get(kind, 0) + number

    @suggest_keywords
    def rows(self, suffix: str, value: Affine, sense: Sense, right: Array | float = 0.0, *, dims: tuple[str, ...] | None = None) -> None:
        """Add rows ``value sense right``, one per element.  A value of the block's shape gets the block's dimensions by default."""
        name = f"{self.name}_{suffix}"
        if not value.constant.size:
            return
        self._check_suffix(suffix, name in self.constraints, "rows")
        dims = dims or (self.dims if value.shape == self.shape else tuple(f"{name}_{i}" for i in range(value.constant.ndim)))
        add_rows(self.model, name, value, sense, right, dims, self.samples)
        self.constraints.append(name)
