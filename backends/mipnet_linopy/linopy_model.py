"""A program as a linopy model of few large containers, and the conversion of points between the two.

The conversion avoids what linopy or a reader of LP files would drop without an error.  The constant of the objective is the cost of a
column that is fixed at 1.  Columns without a cost and without a row are left out.  A row with two sides becomes two rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import linopy
import numpy as np
import xarray as xr
from linopy.constraints import Constraint
from numpy.typing import NDArray

from mipnet.arrays import Array, Columns, Csr
from mipnet.backend import Program

CROSSING_TOLERANCE = 1e-9
"""Bounds that cross by at most this count as equal."""


@dataclass(frozen=True, eq=False)
class BuiltModel:
    """The linopy model of a program.

    ``labels[j]`` is linopy's label of column j, or -1 for a column that is left out; its value is ``fixed[j]``.  The objective of the
    model is larger than that of the program by ``shift``.  ``infeasible``: the bounds of a column or of an empty row exclude every
    value, which an LP file cannot express.
    """

    model: linopy.Model
    labels: Columns
    fixed: Array
    shift: float
    infeasible: bool

    @property
    def size(self) -> int:
        """Number of labels: the columns in the model, and the column fixed at 1."""
        return int((self.labels >= 0).sum()) + 1

    def point(self, values: Array | None) -> Array | None:
        """Return the point of the program for values by label; None if a value is missing, which linopy replaces by NaN."""
        if values is None or len(values) != self.size or not np.isfinite(values).all():
            return None
        kept = self.labels >= 0
        x = self.fixed.copy()
        x[kept] = values[self.labels[kept]]
        return x

    def values(self, point: Array) -> Array:
        """Return a point of the program as values by label, the inverse of `point`."""
        values = np.ones(self.size)
        kept = self.labels >= 0
        values[self.labels[kept]] = point[kept]
        return values


def _nearest_to_zero(program: Program) -> Array:
    """Return the point within the bounds that is nearest to 0, with integral integer columns; outside if the bounds allow none."""
    lower, upper, whole = program.lower, program.upper, program.integer
    point: Array = np.clip(
        0.0, np.where(whole, np.ceil(lower - CROSSING_TOLERANCE), lower), np.where(whole, np.floor(upper + CROSSING_TOLERANCE), upper)
    )
    return point


def build_model(program: Program) -> BuiltModel:
    """Build the linopy model of a program."""
    model = linopy.Model()
    matrix = program.rows.matrix
    idle = program.cost == 0
    idle[matrix.indices] = False
    labels = np.full(program.columns, -1, dtype=np.int64)
    for name, which in (("real", ~idle & ~program.integer), ("whole", ~idle & program.integer)):
        if which.any():
            labels[which] = _variables(model, name, program.lower[which], program.upper[which])
    one = int(_variables(model, "one", np.ones(1), np.ones(1))[0])
    _objective(model, program, labels, one)
    _rows(model, matrix, program.rows.lower, program.rows.upper, labels)
    if not matrix.nnz:  # readers of LP files need at least one row
        _rows(model, Csr(np.ones((1, 1))), np.ones(1), np.ones(1), np.array([one]))
    fixed, blank = _nearest_to_zero(program), np.diff(matrix.indptr) == 0
    infeasible = (fixed < program.lower - CROSSING_TOLERANCE).any() or (fixed > program.upper + CROSSING_TOLERANCE).any()
    infeasible |= (program.rows.lower[blank] > CROSSING_TOLERANCE).any() or (program.rows.upper[blank] < -CROSSING_TOLERANCE).any()
    return BuiltModel(model, labels, fixed, 0.0 if program.cost.any() or program.offset else 1.0, bool(infeasible))


def _variables(model: linopy.Model, name: str, lower: Array, upper: Array) -> Columns:
    # with a dimension of the variable's own name, linopy would lose that the variable is integer
    index = [(f"{name}_column", np.arange(len(lower)))]
    variable = model.add_variables(xr.DataArray(lower, index), xr.DataArray(upper, index), name=name, integer=name == "whole")
    return np.asarray(variable.labels.values, dtype=np.int64)


def _objective(model: linopy.Model, program: Program, labels: Columns, one: int) -> None:
    """Set the costs, and the offset as the cost of the column fixed at 1; without any term that cost is 1, since LP files need a term."""
    costly = np.flatnonzero(program.cost)
    constant = program.offset if len(costly) or program.offset else 1.0
    terms = {
        "coeffs": ("_term", np.append(program.cost[costly], constant)),
        "vars": ("_term", np.append(labels[costly], one)),
        "const": ((), 0.0),
    }
    model.add_objective(linopy.LinearExpression(xr.Dataset(terms), model))


def _rows(model: linopy.Model, matrix: Csr, lower: Array, upper: Array, labels: Columns) -> None:
    """Add rows in one container per power of four of their length: linopy's overhead is per container, and it pads rows to the longest."""
    length, same = np.diff(matrix.indptr), lower == upper
    kinds = (("=", upper, same), ("<=", upper, ~same & np.isfinite(upper)), (">=", lower, ~same & np.isfinite(lower)))
    which = np.concatenate([np.flatnonzero(rows & (length > 0)) for _, _, rows in kinds])
    sign = np.concatenate([np.full(np.count_nonzero(rows & (length > 0)), sign) for sign, _, rows in kinds])
    side = np.concatenate([side[rows & (length > 0)] for _, side, rows in kinds])
    power = np.ceil(np.log2(np.maximum(length[which], 1)) / 2)
    for each in np.unique(power):
        some = power == each
        _container(model, f"rows{len(model.constraints)}", matrix[which[some]], sign[some], side[some], labels)


def _container(model: linopy.Model, name: str, matrix: Csr, sign: NDArray[np.str_], side: Array, labels: Columns) -> None:
    length = np.diff(matrix.indptr)
    filled = np.arange(length.max()) < length[:, None]
    coefficients, variables = np.zeros(filled.shape), np.full(filled.shape, -1, dtype=np.int64)
    coefficients[filled], variables[filled] = matrix.data, labels[matrix.indices]
    arrays = {
        "coeffs": ((name, "_term"), coefficients),
        "vars": ((name, "_term"), variables),
        "sign": (name, sign),
        "rhs": (name, side),
    }
    model.add_constraints(Constraint(xr.Dataset(arrays, coords={name: np.arange(len(side))}), model), name=name)
