"""A block: the part of the linopy model that one node owns, and all that the node's encoding may touch.

An encoding is a function ``(layer, block, *inputs) -> Affine``; `mipnet.formulations.registry` says how it is registered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import linopy
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mipnet.arrays import Array, Mask, Shape
from mipnet.bounds.interval import Interval
from mipnet.errors import UnboundedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import Sense, add_rows, add_variables, coordinates, expression, one_each
from mipnet.formulations.registry import Family, RegisteredFormulation
from mipnet.network.graph import Node

Fill = tuple[NDArray[np.int64], Callable[[Array], Array]]
"""Labels of variables, and a function that computes their values at a point where all earlier variables are known."""

PARTITION_PARTS_DEFAULT = 4
"""Number of parts into which formulation `partition` cuts a sum, unless the user says otherwise."""

WINDOWS_PART = "windows"
"""The name of the one piecewise-linear part of max pooling; its elements are windows."""


@dataclass(frozen=True, eq=False)
class BigMNeurons:
    """Neurons ``h = max(z, 0)`` with a binary v that is 1 where z > 0.  All three are flat; h and v are one variable per neuron."""

    z: Affine
    h: Affine
    v: Affine


@dataclass(frozen=True)
class Phases:
    """Number of elements whose phase the bounds decide for every allowed input, and number of those they leave undecided.

    Of a positive part, ``active`` elements have z >= 0 and ``inactive`` ones z <= 0.  Of a maximum, ``active`` counts the windows whose
    largest candidate is known.
    """

    active: int
    inactive: int
    undecided: int


@dataclass(frozen=True, eq=False)
class BlockBounds:
    """Bounds of each input of a node (``before``) and of its own value (``after``).

    ``paper`` is True for the published bounds, which do not hold for every gate value.
    """

    before: tuple[Interval, ...]
    after: Interval
    paper: bool = False


@dataclass(frozen=True, eq=False)
class ChosenFormulation:
    """The formulation that a block got, why it was chosen, and the number of parts for `partition`."""

    formulation: RegisteredFormulation
    why: str
    parts: int = PARTITION_PARTS_DEFAULT


@dataclass(eq=False)
class BlockNotes:
    """What an encoding writes down about a block besides its variables and rows.

    ``phases`` says, per piecewise-linear part by suffix, how many elements the bounds decide.  ``special_constraints`` counts SOS1 sets
    and indicator rows by the name of the backend feature that they need.  ``neurons`` are those that ideal cuts may be made for.
    ``gate_thresholds`` are the thresholds of a gate by side, for `mipnet.network.gates.gated_value`.
    """

    phases: dict[str, Phases] = field(default_factory=dict)
    special_constraints: dict[str, int] = field(default_factory=dict)
    neurons: list[BigMNeurons] = field(default_factory=list)
    gate_thresholds: dict[str, Array] = field(default_factory=dict)


@dataclass(eq=False)
class Block:
    """One node's variables, rows and value, and what an encoding needs to know to write them.

    ``fills`` is shared by all blocks of a model.  It computes the variables in order, each at a point where all earlier ones are known:
    a forward pass in variables.  ``choice`` is the formulation of the layer, ``gate_choice`` that of a gate after a layer that has none
    of the positive part.
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
        """The name of the formulation of the layer, or else of its gate; empty if there was nothing to choose."""
        chosen = self.choice or self.gate_choice
        return "" if chosen is None else chosen.formulation.name

    @property
    def why(self) -> str:
        """Why this formulation was chosen."""
        chosen = self.choice or self.gate_choice
        return "" if chosen is None else chosen.why

    @property
    def relaxed(self) -> bool:
        """True if the layer or its gate is written as a relaxation."""
        return any(chosen is not None and chosen.formulation.relaxed for chosen in (self.choice, self.gate_choice))

    def chosen_of(self, family: Family) -> ChosenFormulation | None:
        """Return the chosen formulation that belongs to a family, None if there is none."""
        return next((c for c in (self.choice, self.gate_choice) if c is not None and c.formulation.family is family), None)

    def finite(self, index: int = 0) -> tuple[Array, Array]:
        """Return the lower and upper bounds of an input as arrays; raise `UnboundedError` where one is infinite."""
        box = self.bounds.before[index]
        lower, upper = box.lower.numpy(), box.upper.numpy()
        infinite = ~(np.isfinite(lower) & np.isfinite(upper))
        if infinite.any():
            raise UnboundedError(
                f"node `{self.node.name}` has {np.count_nonzero(infinite)} inputs without finite bounds; a big-M needs them:"
                " give the network's input finite bounds (`Box`, `LInf`)"
            )
        return lower, upper

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
        """Add variables over ``dims`` (by default the block's own) where the mask ``where`` holds; elsewhere the value is 0.

        ``value(point)`` returns their values, of the same shape, at a point where all earlier variables are known.
        """
        name = f"{self.name}_{suffix}" if suffix else self.name
        coords = coordinates(dims or self.dims, shape or self.shape, self.samples)
        made = add_variables(self.model, name, lower, upper, coords, where=where, binary=binary)
        labels = made.labels.values
        self.variables[suffix] = made
        self.fills.append((labels, value))
        return Affine.of(labels)

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
        """Add variables as `variable` does, at most one of which along the last dimension is not zero (SOS1 sets)."""
        made = self.variable(suffix, lower, upper, value=value, where=where, dims=dims, shape=shape)
        variable = self.variables[suffix]
        self.model.add_sos_constraints(variable, 1, str(variable.dims[-1]))
        self._count("SOS1 sets", int(((variable.labels.values >= 0).sum(axis=-1) > 1).sum()))
        return made

    def rows_if(self, suffix: str, switch: Affine, active: int, value: Affine, sense: Sense, right: Array | float = 0.0) -> None:
        """Add rows ``value sense right``, flat, each of which holds where its binary in ``switch`` is ``active``."""
        name = f"{self.name}_{suffix}"
        dim = f"{name}_0"
        binary = linopy.Variable(one_each(switch, dim), self.model, name, skip_broadcast=True)
        bound = xr.DataArray(np.broadcast_to(np.asarray(right, dtype=np.float64), value.shape), dims=dim, coords=binary.coords)
        left = expression(self.model, value, (dim,), self.samples)
        self.model.add_indicator_constraints(binary, active, left, sense, bound, name=name)
        self.constraints.append(name)
        self._count("indicator rows", len(switch.constant))

    def _count(self, feature: str, more: int) -> None:
        self.notes.special_constraints[feature] = self.notes.special_constraints.get(feature, 0) + more

    def rows(self, suffix: str, value: Affine, sense: Sense, right: Array | float = 0.0, *, dims: tuple[str, ...] | None = None) -> None:
        """Add rows ``value sense right``, one per element; a value of the block's own shape keeps the block's dimensions."""
        name = f"{self.name}_{suffix}"
        if not value.constant.size:
            return
        dims = dims or (self.dims if value.shape == self.shape else tuple(f"{name}_{i}" for i in range(value.constant.ndim)))
        add_rows(self.model, name, value, sense, right, dims, self.samples)
        self.constraints.append(name)
