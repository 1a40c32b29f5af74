"""A block: the part of the linopy model that one node owns, and all that the node's encoding may touch.

An encoding is a function ``(layer, block, *inputs) -> Affine`` registered for a layer type and a formulation name::

    @encoding(MyLayer, "big-m")
    def _(layer, block, x):
        h = block.variable("", lower, upper, value=lambda point: layer_in_numpy(x.evaluate(point)))
        block.rows("above", h - x, ">=")
        return h

Affine layers register `linear_map` instead and need neither variables nor rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import linopy
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mipnet.arrays import Array, Csr, Mask, Shape
from mipnet.bounds.interval import Interval
from mipnet.errors import UnboundedError, UnsupportedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import Sense, add_rows, add_variables, coordinates, expression, one_each
from mipnet.network.graph import Layer, Node

Encoder = Callable[..., Affine]
Fill = tuple[NDArray[np.int64], Callable[[Array], Array]]


@singledispatch
def linear_map(layer: Layer, *shapes: Shape) -> tuple[Csr, ...]:
    """For an affine layer: one sparse matrix an input, ``(elements of the output) x (elements of that input)``, flat in C order."""
    raise UnsupportedError(f"layer `{layer.label}` is not affine")


def is_affine(layer: Layer) -> bool:
    """True if `linear_map` knows the layer."""
    return linear_map.dispatch(type(layer)) is not linear_map.dispatch(object)


_ENCODINGS: dict[type[Layer], dict[str, Encoder]] = {}


RELAXED: set[str] = set()
"""Formulations that hold points which the layer does not: their optimum is a bound."""


def encoding(layer: type[Layer], formulation: str, *, relaxed: bool = False) -> Callable[[Encoder], Encoder]:
    """Register a function as the encoding of a layer type under a formulation name; ``relaxed``: it holds more than the layer does."""

    def register(function: Encoder) -> Encoder:
        _ENCODINGS.setdefault(layer, {})[formulation] = function
        RELAXED.update({formulation} if relaxed else ())
        return function

    return register


def formulations(layer: type[Layer]) -> Mapping[str, Encoder]:
    """The encodings of a layer type by name, the default first; empty if there is none."""
    for base in layer.__mro__:
        if base in _ENCODINGS:
            return _ENCODINGS[base]
    return {}


def all_formulations() -> dict[str, tuple[str, ...]]:
    """The names on offer for each kind of layer, by the layer's lower-case name."""
    return {layer.__name__.lower(): tuple(names) for layer, names in _ENCODINGS.items()}


PARTS = 4
"""Into how many parts `partition` cuts a sum if nothing else is said."""


@dataclass(frozen=True, eq=False)
class Rectified:
    """Neurons ``h = max(z, 0)`` with a binary v that is 1 where z > 0: flat, and h and v are one variable each."""

    z: Affine
    h: Affine
    v: Affine


WINDOWS = "windows"
"""The name of the one part of max pooling, of which a window is an element."""


@dataclass(frozen=True)
class Phases:
    """How many elements are decided for every allowed input, one way or the other, and how many are not.

    Of a positive part ``active`` are those with z >= 0 and ``inactive`` those with z <= 0; of a maximum ``active`` are the windows whose
    winner is known.
    """

    active: int
    inactive: int
    undecided: int


@dataclass(eq=False)
class Block:
    """One node's variables, rows and value, and what an encoding needs to know to write them.

    ``before`` holds the bounds of each input, ``after`` those of the node's own value.  ``fills`` (shared by all blocks of a
    model) compute the variables in order, each at a point where all earlier ones are known: a forward pass in variables.
    ``tops`` are the thresholds that a gate used here, for `mipnet.network.gates.gated_value`.  ``parts`` is what the user says about
    partitions, ``rectified`` what cuts may be made for later, ``special`` how many constraints beyond rows there are, by the name
    of the feature that a backend needs for them.  ``phases`` tell of each piecewise-linear part, by its suffix, what bounds decide;
    ``unstable`` is how many activations of the whole network they leave open; ``mixed``: it has binaries beside those of activations.
    """

    name: str
    node: Node
    model: linopy.Model
    samples: xr.DataArray
    before: tuple[Interval, ...]
    after: Interval
    paper: bool = False
    variables: dict[str, linopy.Variable] = field(default_factory=dict)
    constraints: list[str] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    formulation: str = ""
    why: str = ""
    tops: dict[str, Array] = field(default_factory=dict)
    parts: int = PARTS
    rectified: list[Rectified] = field(default_factory=list)
    special: dict[str, int] = field(default_factory=dict)
    phases: dict[str, Phases] = field(default_factory=dict)
    unstable: int = 0
    mixed: bool = False

    @property
    def dims(self) -> tuple[str, ...]:
        """``(sample, *dimensions of the node)``."""
        return ("sample", *self.node.dims)

    @property
    def shape(self) -> Shape:
        """``(samples, *shape of the node)``."""
        return (len(self.samples), *self.node.shape)

    def finite(self, index: int = 0) -> tuple[Array, Array]:
        """Lower and upper bound of an input as arrays; raises `UnboundedError` where one is infinite."""
        box = self.before[index]
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
        """New variables over ``dims`` (the block's own by default), only ``where`` a mask holds; elsewhere the value is 0.

        ``value(point)`` gives their values, of the same shape, at a point where all earlier variables have theirs.
        """
        name = f"{self.name}_{suffix}" if suffix else self.name
        coords = coordinates(dims or self.dims, shape or self.shape, self.samples)
        made = add_variables(self.model, name, lower, upper, coords, where=where, binary=binary)
        labels = made.labels.values
        self.variables[suffix] = made
        self.fills.append((labels, value))
        return Affine.of(labels)

    def sets(self, suffix: str, lower: Array, upper: Array, **given: Any) -> Affine:
        """New variables as those of `variable`, of which at most one along the last dimension is not zero."""
        made = self.variable(suffix, lower, upper, **given)
        variable = self.variables[suffix]
        self.model.add_sos_constraints(variable, 1, str(variable.dims[-1]))
        self._count("SOS1 sets", int(((variable.labels.values >= 0).sum(axis=-1) > 1).sum()))
        return made

    def rows_if(self, suffix: str, switch: Affine, active: int, value: Affine, sense: Sense, right: Array | float = 0.0) -> None:
        """New rows ``value sense right``, flat, each of which holds where its binary in ``switch`` is ``active``."""
        name = f"{self.name}_{suffix}"
        dim = f"{name}_0"
        binary = linopy.Variable(one_each(switch, dim), self.model, name, skip_broadcast=True)
        bound = xr.DataArray(np.broadcast_to(np.asarray(right, dtype=np.float64), value.shape), dims=dim, coords=binary.coords)
        left = expression(self.model, value, (dim,), self.samples)
        self.model.add_indicator_constraints(binary, active, left, sense, bound, name=name)
        self.constraints.append(name)
        self._count("indicator rows", len(switch.constant))

    def _count(self, feature: str, more: int) -> None:
        self.special[feature] = self.special.get(feature, 0) + more

    def rows(self, suffix: str, value: Affine, sense: Sense, right: Array | float = 0.0, *, dims: tuple[str, ...] | None = None) -> None:
        """New rows ``value sense right``, one an element; a value of the block's own shape keeps the block's dimensions."""
        name = f"{self.name}_{suffix}"
        if not value.constant.size:
            return
        dims = dims or (self.dims if value.shape == self.shape else tuple(f"{name}_{i}" for i in range(value.constant.ndim)))
        add_rows(self.model, name, value, sense, right, dims, self.samples)
        self.constraints.append(name)
