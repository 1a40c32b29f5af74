"""A program as a linopy model, in the few pieces that linopy is fast at, and points back as columns of the program.

What linopy or a reader of LP files would lose in silence is kept here: the constant of the objective is the cost of a column fixed
at 1, a column without a cost or a row stays at home, and a row with two sides is handed over twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import linopy
import numpy as np
import xarray as xr
from linopy.constraints import Constraint
from numpy.typing import NDArray

from mipnet.arrays import Columns, Csr
from mipnet.backend import Program
from mipnet.backend.helpers import canonical

Array = NDArray[np.float64]

NOISE = 1e-9
"""Bounds may cross by this much."""


@dataclass(frozen=True, eq=False)
class Handed:
    """A linopy model, where the program's columns are in it, and by how much its objective is above the program's.

    ``labels[j]`` is the label of column j, -1 for one that stays at home, with its value in ``home``.
    ``impossible``: a column or an empty row has no value within its bounds, which an LP file cannot say.
    """

    model: linopy.Model
    labels: Columns
    home: Array
    shift: float
    impossible: bool

    @property
    def size(self) -> int:
        """Number of labels: the columns that were handed over, and the one fixed at 1."""
        return int((self.labels >= 0).sum()) + 1

    def point(self, values: Array | None) -> Array | None:
        """The point that a solver's values (by label) are; None unless they are all there, for linopy fills gaps with NaN."""
        if values is None or len(values) != self.size or not np.isfinite(values).all():
            return None
        there = self.labels >= 0
        x = self.home.copy()
        x[there] = values[self.labels[there]]
        return x

    def values(self, point: Array) -> Array:
        """A point of the program by label: the way back of `point`."""
        values = np.ones(self.size)
        there = self.labels >= 0
        values[self.labels[there]] = point[there]
        return values


def _home(program: Program) -> Array:
    """A point within the bounds, integral where it must be, as near to 0 as they allow; outside of them if nothing is within."""
    lower, upper, whole = program.lower, program.upper, program.integer
    point: Array = np.clip(0.0, np.where(whole, np.ceil(lower - NOISE), lower), np.where(whole, np.floor(upper + NOISE), upper))
    return point


def hand_over(program: Program) -> Handed:
    """The program as a linopy model."""
    model = linopy.Model()
    matrix = canonical(program.rows.matrix)
    idle = program.cost == 0
    idle[matrix.indices] = False
    labels = np.full(program.columns, -1, dtype=np.int64)
    for name, which in (("real", ~idle & ~program.integer), ("whole", ~idle & program.integer)):
        if which.any():
            labels[which] = _variables(model, name, program.lower[which], program.upper[which])
    one = int(_variables(model, "one", np.ones(1), np.ones(1))[0])
    _objective(model, program, labels, one)
    _rows(model, matrix, program.rows.lower, program.rows.upper, labels)
    if not matrix.nnz:  # readers of LP files want a row
        _rows(model, Csr(np.ones((1, 1))), np.ones(1), np.ones(1), np.array([one]))
    home, blank = _home(program), np.diff(matrix.indptr) == 0
    impossible = (home < program.lower - NOISE).any() or (home > program.upper + NOISE).any()
    impossible |= (program.rows.lower[blank] > NOISE).any() or (program.rows.upper[blank] < -NOISE).any()
    return Handed(model, labels, home, 0.0 if program.cost.any() or program.offset else 1.0, bool(impossible))


def _variables(model: linopy.Model, name: str, lower: Array, upper: Array) -> Columns:
    # a dimension of the variable's own name would hide it from linopy, which would then forget that it is integer
    index = [(f"{name}_column", np.arange(len(lower)))]
    variable = model.add_variables(xr.DataArray(lower, index), xr.DataArray(upper, index), name=name, integer=name == "whole")
    return np.asarray(variable.labels.values, dtype=np.int64)


def _objective(model: linopy.Model, program: Program, labels: Columns, one: int) -> None:
    """Costs, and the offset as the cost of the column fixed at 1; an objective without any term is no LP file, so that is a 1."""
    costly = np.flatnonzero(program.cost)
    constant = program.offset if len(costly) or program.offset else 1.0
    terms = {
        "coeffs": ("_term", np.append(program.cost[costly], constant)),
        "vars": ("_term", np.append(labels[costly], one)),
        "const": ((), 0.0),
    }
    model.add_objective(linopy.LinearExpression(xr.Dataset(terms), model))


def _rows(model: linopy.Model, matrix: Csr, lower: Array, upper: Array, labels: Columns) -> None:
    """Rows as one container for each power of four of their length: linopy's cost is per container, and it fills rows up to the longest."""
    length, same = np.diff(matrix.indptr), lower == upper
    kinds = (("=", upper, same), ("<=", upper, ~same & np.isfinite(upper)), (">=", lower, ~same & np.isfinite(lower)))
    which = np.concatenate([np.flatnonzero(there & (length > 0)) for _, _, there in kinds])
    sign = np.concatenate([np.full(np.count_nonzero(there & (length > 0)), sign) for sign, _, there in kinds])
    side = np.concatenate([side[there & (length > 0)] for _, side, there in kinds])
    power = np.ceil(np.log2(np.maximum(length[which], 1)) / 2)
    for each in np.unique(power):
        some = power == each
        _container(model, f"rows{len(model.constraints)}", matrix[which[some]], sign[some], side[some], labels)


def _container(model: linopy.Model, name: str, matrix: Csr, sign: NDArray[np.str_], side: Array, labels: Columns) -> None:
    length = np.diff(matrix.indptr)
    there = np.arange(length.max()) < length[:, None]
    coefficients, variables = np.zeros(there.shape), np.full(there.shape, -1, dtype=np.int64)
    coefficients[there], variables[there] = matrix.data, labels[matrix.indices]
    arrays = {
        "coeffs": ((name, "_term"), coefficients),
        "vars": ((name, "_term"), variables),
        "sign": (name, sign),
        "rhs": (name, side),
    }
    model.add_constraints(Constraint(xr.Dataset(arrays, coords={name: np.arange(len(side))}), model), name=name)
