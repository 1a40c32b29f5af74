"""What a question gets, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import xarray as xr

import mipnet as mn
from mipnet.arrays import Array
from tests.scales.exact import Exact
from tests.scales.nets import Case

ROUNDING = 1e-9
"""How far a forward pass in float64 may be from the exact value, relative to the largest value of the function over the box."""

SOLVER_TOLERANCE = 1e-6
"""How far a solver's bound may be on the wrong side, relative to the same: the tolerance that docs/solvers.md states."""

SECONDS = 20.0
"""Time limit of each call."""

Label = str
"""``right``; ``wider``: true, but not as close as was asked; ``unknown``; ``unverified``; ``refused (error)``; or ``WRONG``."""

Found = tuple[Label, str]
"""A label, and what the library said."""


@dataclass(frozen=True)
class Setting:
    """The network of a case with its exact regions, the backend, and random numbers for the question."""

    case: Case
    exact: Exact
    backend: str
    rng: np.random.Generator

    @property
    def network(self) -> mn.Network:
        return self.case.network

    @property
    def outputs(self) -> int:
        return int(np.prod(self.network.output_shape))

    def direction(self) -> Array:
        return self.rng.normal(size=self.outputs)

    def inside(self, x: Array) -> bool:
        return bool((x >= self.case.lower).all() and (x <= self.case.upper).all())

    def value(self, weights: Array, x: Array) -> Fraction:
        """The exact ``weights @ y`` at one input."""
        return product(weights, self.exact.output(x))

    @property
    def output_size(self) -> float:
        """The largest absolute output over the box."""
        return max(size_of(self.exact.extremes(row)) for row in np.eye(self.outputs))


Question = Callable[[Setting], Iterator[Found]]


def product(weights: Array, values: list[Fraction]) -> Fraction:
    return sum((Fraction(float(w)) * v for w, v in zip(weights, values, strict=True)), Fraction(0))


def size_of(ends: tuple[Fraction, Fraction]) -> float:
    """The largest absolute value of a function with these extremes: its natural unit."""
    return float(max(map(abs, ends))) or 1.0


def weighted(variable, weights: Array):
    """The linopy expression ``weights @ variable`` along the last dimension."""
    dim = variable.dims[-1]
    return (variable * xr.DataArray(weights, {dim: variable.coords[dim]})).sum()
