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
from numpy.typing import NDArray

from mipnet.arrays import Array, Columns, Csr, Mask, parts_of
from mipnet.backend.program import Program

ACCURATE_RATIO_MIN = 2.0**10
"""Rows and columns whose size is this many times the accuracy that they need are scaled to the geometric mean of both."""


@dataclass(frozen=True, eq=False)
class NeededAccuracy:
    """The accuracy that each row and each column needs; infinite where nothing is computed from it, or the order is unknown.

    The rows are those of `Program.all_rows`.
    """

    rows: Array
    columns: Array

    @staticmethod
    def of(program: Program, sizes: Array) -> NeededAccuracy:
        """Return the accuracies of a program; ``sizes`` are the ranges of the columns, 0 for fixed ones."""
        rows = program.all_rows
        found, need = np.full(len(rows), np.inf), np.full(program.columns, np.inf)
        if program.steps is None or not len(rows):
            return NeededAccuracy(found, need)
        matrix = rows.matrix
        steps = np.where(program.integer, -2, program.steps).astype(np.int32)
        last = _last_steps(matrix, steps)
        last[: len(program.rows)][program.by_user] = -1
        order = np.argsort(-last, kind="stable")
        for own in np.split(order, np.flatnonzero(np.diff(last[order])) + 1):
            if (step := int(last[own[0]])) >= 0:
                _compute(_part(matrix, own), own, steps, step, sizes, need, found)
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


def _last_steps(matrix: Csr, steps: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the largest step of the columns of each row; -1 for a row without columns."""
    last, starts = np.full(matrix.shape[0], -1, dtype=np.int32), matrix.indptr
    for rows, entries in parts_of(matrix):
        first, ends = starts[rows] - starts[rows.start], starts[rows.start + 1 : rows.stop + 1] - starts[rows.start]
        filled = ends > first
        if filled.any():
            last[rows][filled] = np.maximum.reduceat(steps[matrix.indices[entries]], first[filled])
    return last


def _part(matrix: Csr, rows: Columns) -> Csr:
    """Return some rows, which are sorted; if they follow each other, with the same memory."""
    first, count = int(rows[0]), len(rows)
    if int(rows[-1]) - first + 1 != count:
        return Csr(matrix[rows])
    begin, end = matrix.indptr[first], matrix.indptr[first + count]
    starts = matrix.indptr[first : first + count + 1] - begin
    return Csr((matrix.data[begin:end], matrix.indices[begin:end], starts), shape=(count, matrix.shape[1]))


def _compute(part: Csr, own: Columns, steps: NDArray[np.int32], step: int, sizes: Array, need: Array, found: Array) -> None:
    """Store the accuracy of the rows ``own`` that compute the columns of one step, and lower that of the other columns in these rows."""
    places = [np.flatnonzero(steps[part.indices[entries]] == step) + entries.start for _, entries in parts_of(part)]
    at = np.concatenate(places)
    row, column = np.searchsorted(part.indptr, at.astype(part.indptr.dtype), side="right") - 1, part.indices[at]
    computed, ours = np.abs(part.data[at]), np.full(len(own), np.inf)
    for _ in range(2):  # a column that is computed beside one that is used later needs the accuracy of their row, and so do its own rows
        here = np.isfinite(need[column])
        np.minimum.at(ours, row[here], computed[here] * need[column[here]])
        beside = np.isinf(need[column]) & np.isfinite(ours[row])
        np.minimum.at(need, column[beside], ours[row[beside]] / computed[beside])
    largest = np.zeros(len(own))
    np.maximum.at(largest, row, computed * sizes[column])
    ends = np.isinf(ours) & (largest > 0)
    ours[ends] = largest[ends]
    found[own] = ours
    counts = np.diff(part.indptr)
    for rows, entries in parts_of(part):
        of_entry = steps[part.indices[entries]]
        earlier = np.flatnonzero((of_entry < step) & (of_entry > -2))
        if len(earlier):
            with np.errstate(over="ignore"):
                wanted = np.repeat(ours[rows], counts[rows])[earlier] / np.abs(part.data[entries][earlier])
            np.minimum.at(need, part.indices[entries][earlier], wanted)
