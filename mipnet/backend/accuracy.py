"""How accurate rows and columns have to be, from the order in which the columns of a program are computed.

A row such as ``out = a - b``, where a and b range over 1e7 and ``out`` over 1, has to hold far better than the size of its terms says,
and so do the rows and columns from which a and b are computed.  The accuracy that a row or column needs is

    need(row i) = min_k |row_ik| need_k         over the continuous columns k that row i computes
    need_j = min_i need(row i) / |row_ij|       over the rows i that compute a later column from column j

The accuracy of a row that computes only columns from which nothing is computed is the largest range of its terms with them.  An error of
this size changes such a column by up to its range.  Rows that users wrote compute nothing, and keep their unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipnet.arrays import Array, Columns, Csr, Mask
from mipnet.backend.program import Program

ACCURATE_RATIO_MIN = 2.0**10
"""Rows and columns whose size is this many times the accuracy that they need are scaled to the geometric mean of both."""


@dataclass(frozen=True, eq=False)
class NeededAccuracy:
    """The accuracy that each row and each column needs; infinite where nothing is computed from it, or the order is unknown."""

    rows: Array
    columns: Array

    @staticmethod
    def of(program: Program, sizes: Array) -> NeededAccuracy:
        """Return the accuracies of a program; ``sizes`` are the ranges of the columns, 0 for fixed ones."""
        found, need = np.full(len(program.rows), np.inf), np.full(program.columns, np.inf)
        if program.steps is None or not len(program.rows):
            return NeededAccuracy(found, need)
        matrix = program.rows.matrix
        entries = np.where(program.integer[matrix.indices], 0.0, np.abs(matrix.data))
        if program.user_rows is not None:
            entries[program.by_user[program.rows.row_of_entry]] = 0.0
        last = np.full(len(found), -1, dtype=np.int64)
        used = entries > 0
        np.maximum.at(last, program.rows.row_of_entry[used], program.steps[matrix.indices[used]])
        continuous = Csr((entries, matrix.indices, matrix.indptr), shape=matrix.shape)
        order = np.argsort(-last, kind="stable")
        for own in np.split(order, np.flatnonzero(np.diff(last[order])) + 1):
            if (step := int(last[own[0]])) >= 0:
                _compute(continuous, own, program.steps == step, sizes, need, found)
        return NeededAccuracy(found, need)

    def accurate_rows(self, terms: Array) -> Mask:
        """Return the rows that need a far higher accuracy than the size of their terms says."""
        found: Mask = terms > ACCURATE_RATIO_MIN * self.rows
        return found

    def accurate_columns(self, sizes: Array) -> Mask:
        """Return the columns that need a far higher accuracy than their range says."""
        found: Mask = sizes > ACCURATE_RATIO_MIN * self.columns
        return found


def between(sizes: Array, needs: Array, where: Mask) -> Array:
    """Return the geometric mean of sizes and needs at the places of a mask, and the sizes elsewhere."""
    return np.where(where, np.sqrt(sizes * np.where(where, needs, 1.0)), sizes)


def _compute(matrix: Csr, own: Columns, in_step: Mask, sizes: Array, need: Array, found: Array) -> None:
    """Store the accuracy of the rows that compute the columns of one step, and lower that of the other columns in these rows."""
    part = matrix[own]
    entry, column = part.data, part.indices
    row, computed = np.repeat(own, np.diff(part.indptr)), in_step[column]
    for _ in range(2):  # a column that is computed beside one that is used later needs the accuracy of their row, and so do its own rows
        here = computed & (entry > 0) & np.isfinite(need[column])
        np.minimum.at(found, row[here], entry[here] * need[column[here]])
        beside = computed & (entry > 0) & np.isinf(need[column]) & np.isfinite(found[row])
        np.minimum.at(need, column[beside], found[row[beside]] / entry[beside])
    largest = np.zeros(len(found))
    here = computed & (entry > 0)
    np.maximum.at(largest, row[here], entry[here] * sizes[column[here]])
    ends = own[np.isinf(found[own]) & (largest[own] > 0)]
    found[ends] = largest[ends]
    earlier = ~computed & (entry > 0)
    with np.errstate(over="ignore"):
        np.minimum.at(need, column[earlier], found[row[earlier]] / entry[earlier])
