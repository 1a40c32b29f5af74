"""The scales of a program: powers of two by which its rows and columns are multiplied, and shifts of its columns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mipnet.arrays import Array, Mask
from mipnet.backend.accuracy import NeededAccuracy, between
from mipnet.backend.program import Program
from mipnet.backend.rows import Rows

ORDINARY_SIZE_MIN, ORDINARY_SIZE_MAX = 2.0**-2, 2.0**2
"""Columns of a size in this range keep their unit, and rows from the smaller size on (`ORDINARY_ROW_MAX`).

A larger range loosens proofs: those of a solver hold up to its tolerances times the ranges of the columns and rows that it gets.
"""


ORDINARY_ROW_MAX = 2.0**8
"""A row of a size up to this keeps its unit: scaled down, it would hold to a larger tolerance."""


ORDINARY_OBJECTIVE_MAX = 2.0**8
"""An objective of a size up to this keeps its unit, if it is not below that of ordinary rows."""


USER_WIDTH_MAX = 2.0**14
"""Largest range in the solver's units of a column that both users and a network write rows on."""


SCALE_EXPONENT_MAX = 60
"""Largest exponent of a scale: a program whose numbers differ by more than 2^60 is not helped by scaling."""


SHIFT_ROUNDING = 2.0**-50
"""Rounding of the value of a row at the shifts, and of the bounds around them, relative to the absolute values of its terms.

Rows are loosened by this where it is more than `NEGLIGIBLE_TERM`: else a row on columns that vary far less than they are large, or on
fixed ones only, may exclude the network's own points.
"""


NEGLIGIBLE_TERM = 1e-9
"""Terms that change a scaled row by less than this are left out: a thousandth of a solver's tolerance."""


@dataclass(frozen=True, eq=False)
class Scales:
    """The scale of each column, a power of two, and its shift; ``objective`` is the scale of the objective.

    ``lower`` and ``upper`` are the bounds of the columns as the solver sees them; those that rows imply in place of infinite ones.
    ``sizes`` are the parts of the columns in the size of a row, in the units of the program.  ``accuracy`` is the accuracy that rows and
    columns of the program need.  ``terms`` are the largest terms of `Program.all_rows`, and
    ``factors`` the factors of these.
    """

    columns: Array
    shifts: Array
    lower: Array
    upper: Array
    sizes: Array
    accuracy: NeededAccuracy
    terms: Array = field(default_factory=lambda: np.empty(0))
    factors: Array = field(default_factory=lambda: np.empty(0))
    objective: float = 1.0

    @staticmethod
    def of(program: Program) -> Scales:
        """Return the scales of a program; that of the objective is for its costs."""
        bounded = np.isfinite(program.lower) & np.isfinite(program.upper)
        sizes = np.where(bounded, program.widths, _column_scales(program, bounded, program.widths))
        accuracy = NeededAccuracy.of(program, sizes)
        wide = accuracy.accurate_columns(program.widths)
        columns = _column_scales(program, bounded, between(program.widths, accuracy.columns, wide))
        rows = program.all_rows
        terms = rows.largest_terms(sizes)
        columns = _fixed_scales(program, rows, columns, terms, accuracy)
        factors = _row_factors(rows, columns, terms, program.user_rows, accuracy)
        lower, upper = ((end - program.anchors) / columns for end in program.implied_bounds)
        return Scales(columns, program.anchors, lower, upper, sizes, accuracy, terms, factors).for_objective(program.cost)

    def for_objective(self, cost: Array) -> Scales:
        """Return the same scales with that of an objective: the largest change that one column makes becomes about 1.

        An objective of ordinary size keeps its unit, so that the solver's log shows it as it is.
        """
        largest = np.array([np.abs(cost * self.sizes).max(initial=0.0)])
        return replace(self, objective=float(1.0 / _power_of_two(largest, ORDINARY_OBJECTIVE_MAX)[0]))

    def point(self, x: Array) -> Array:
        """Return a point of the program, given a point that the solver sees."""
        unscaled: Array = self.shifts + self.columns * x
        return unscaled

    def scaled_point(self, x: Array) -> Array:
        """Return the point that the solver sees, given a point of the program."""
        found: Array = (np.asarray(x, dtype=np.float64) - self.shifts) / self.columns
        return found

    def offset(self, cost: Array, offset: float) -> float:
        """Return the constant of the objective that the solver sees."""
        return (offset + float(cost @ self.shifts)) * self.objective

    @property
    def errors(self) -> Array:
        """By how much an error of 1 in a row or column of the scaled program changes an objective, relative to its size.

        This is for each row and column that needs an unusual accuracy n: ``1 / (factor n)``, and ``scale / n``.
        """
        rows, columns = self.accuracy.accurate_rows(self.terms), self.accuracy.accurate_columns(self.sizes)
        return np.concatenate([1.0 / (self.factors * self.accuracy.rows)[rows], (self.columns / self.accuracy.columns)[columns]])

    def rows(self, rows: Rows, factors: Array | None = None, *, cuts: int = 0) -> Rows:
        """Return rows as the solver sees them, with these factors, or scaled so that no column changes them by more than about 1.

        The last ``cuts`` rows get infinite bounds if the solver would drop a term of a column without finite bounds.
        """
        factors = _row_factors(rows, self.columns, rows.largest_terms(self.sizes)) if factors is None else factors
        found = rows.moved(self.shifts).scaled(self.columns, factors).without(NEGLIGIBLE_TERM, self.lower, self.upper, cuts=cuts)
        if not self.shifts.any():
            return found
        slack = factors * SHIFT_ROUNDING * (abs(rows.matrix) @ np.abs(self.shifts))
        slack[slack < NEGLIGIBLE_TERM] = 0.0
        return Rows(found.matrix, found.lower - slack, found.upper + slack) if slack.any() else found


def _power_of_two(size: Array, ordinary_max: float = ORDINARY_SIZE_MAX) -> Array:
    """Return the power of two nearest to each positive finite number outside of the ordinary sizes, 1 elsewhere."""
    known = np.isfinite(size) & (size > 0) & ((size < ORDINARY_SIZE_MIN) | (size > ordinary_max))
    exponent = np.round(np.log2(np.where(known, size, 1.0))).clip(-SCALE_EXPONENT_MAX, SCALE_EXPONENT_MAX)
    scale: Array = np.exp2(exponent)
    return scale


def _row_factors(rows: Rows, columns: Array, size: Array, kept: Mask | None = None, accuracy: NeededAccuracy | None = None) -> Array:
    """Return the factor of each row of a size, its largest term; a row on fixed columns only is scaled by its largest coefficient.

    ``kept`` rows are scaled up only.  A row that needs to hold far better than the size of its terms says (`mipnet.backend.accuracy`)
    counts as of a smaller size.
    """
    if accuracy is not None:
        size = between(size, accuracy.rows, accuracy.accurate_rows(size))
    fixed = ~(size > 0)
    if fixed.any():
        size = size.copy()
        size[fixed] = rows.part(fixed).largest_terms(columns)
    factor: Array = 1.0 / _power_of_two(size, ORDINARY_ROW_MAX)
    if kept is not None:
        factor[: len(kept)][kept] = np.maximum(factor[: len(kept)][kept], 1.0)
    return factor


def _column_scales(program: Program, bounded: Mask, sizes: Array) -> Array:
    """Return the scale of each column: its size, or, without a range, that of the values that its rows allow."""
    own_unit = program.integer.copy()
    for term in program.convex:
        own_unit[term.columns.reshape(-1)] = own_unit[term.epigraph] = True
    scales = np.where(bounded & ~own_unit, _power_of_two(sizes), 1.0)
    in_user_row, in_other_row = program.columns_in_rows
    scales = np.where(in_user_row & ~in_other_row, np.minimum(scales, 1.0), scales)
    scales = np.where(in_user_row & in_other_row, np.minimum(scales, np.maximum(scales / USER_WIDTH_MAX, 1.0)), scales)
    free = ~own_unit & ~bounded & ~in_user_row
    return _free_scales(program, scales, free) if free.any() else scales


def _free_scales(program: Program, scales: Array, free: Mask) -> Array:
    """Scale columns without finite bounds by the range that rows imply, or to weigh as much as the largest other entry of one row."""
    matrix, row = program.rows.matrix, program.rows.row_of_entry
    entries = np.abs(matrix.data) * program.widths[matrix.indices]
    own = free[matrix.indices]
    largest = np.zeros(matrix.shape[0])
    np.maximum.at(largest, row[~own], entries[~own])
    with np.errstate(divide="ignore"):
        wanted = largest[row[own]] / np.abs(matrix.data[own])
    found = np.zeros(len(scales))
    np.maximum.at(found, matrix.indices[own], wanted)
    implied = np.subtract(*program.implied_bounds[::-1])
    found = np.where(np.isfinite(implied) & (implied > 0), implied, found)
    return np.where(free, _power_of_two(found), scales)


def _fixed_scales(program: Program, rows: Rows, scales: Array, terms: Array, accuracy: NeededAccuracy) -> Array:
    """Scale fixed columns so that their largest entry in a scaled row is about 1."""
    fixed = (program.widths == 0) & ~program.integer
    if not fixed.any():
        return scales
    factor, matrix = _row_factors(rows, scales, terms, program.user_rows, accuracy), rows.matrix
    largest = np.zeros(len(scales))
    np.maximum.at(largest, matrix.indices, np.abs(matrix.data) * factor[rows.row_of_entry])
    return np.where(fixed, 1.0 / _power_of_two(largest), scales)
