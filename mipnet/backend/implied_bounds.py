"""Bounds of variables that rows imply: those of a model, such as PyPSA's, that writes bounds as rows.

A row ``low <= a @ x <= high`` bounds each of its variables by the smallest and largest value of its other terms.  Rows with a single
variable are bounds; rows such as ``p - capacity <= 0`` follow once the capacity is bounded, so there are a few rounds.
"""

from __future__ import annotations

import numpy as np

from mipnet.arrays import Array, Csr, Ints, row_of_entry

ROUNDS_MAX = 4
"""Number of rounds; each uses the bounds that earlier ones have found."""


def implied_bounds(matrix: Csr, row_lower: Array, row_upper: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Return the bounds of all columns, where infinite ones are replaced by what the rows imply; finite ones stay as they are.

    ``matrix`` has one row per row of the program, without zeros.  Bounds that follow from several terms are moved outwards by the rounding
    of their sum.
    """
    lower, upper = lower.copy(), upper.copy()
    for _ in range(ROUNDS_MAX):
        open_columns = np.isinf(lower) | np.isinf(upper)
        if not open_columns.any():
            break
        if not open_columns.any():
            break
        entries = np.flatnonzero(open_columns[matrix.indices])
        which = np.unique(np.searchsorted(matrix.indptr, entries, side="right") - 1)
        if not len(which):
            break
        found = _one_round(Csr(matrix[which]), row_lower[which], row_upper[which], lower, upper)
        low, high = (np.where(np.isfinite(end), end, new) for end, new in zip((lower, upper), found, strict=True))
        if np.array_equal(low, lower) and np.array_equal(high, upper):
            break
        lower, upper = low, high
    return lower, upper


def _one_round(matrix: Csr, row_lower: Array, row_upper: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Return, for each column, the tightest bounds that one row implies together with the bounds of its other columns."""
    row, column, factor = row_of_entry(matrix), matrix.indices, matrix.data
    ends = factor * lower[column], factor * upper[column]
    smallest, largest = np.minimum(*ends), np.maximum(*ends)
    least, most = _of_others(smallest, row, matrix.shape[0], -1.0), _of_others(largest, row, matrix.shape[0], 1.0)
    with np.errstate(invalid="ignore"):
        below, above = (row_lower[row] - most) / factor, (row_upper[row] - least) / factor
    below, above = np.where(factor > 0, below, above), np.where(factor > 0, above, below)
    low, high = np.full(len(lower), -np.inf), np.full(len(lower), np.inf)
    np.maximum.at(low, column, np.where(np.isfinite(below), below, -np.inf))
    np.minimum.at(high, column, np.where(np.isfinite(above), above, np.inf))
    return low, high


def _of_others(terms: Array, row: Ints, rows: int, outwards: float) -> Array:
    """Return, for each entry, the sum of the other terms of its row, moved outwards by its rounding; infinite if another one is."""
    known = np.isfinite(terms)
    finite = np.where(known, terms, 0.0)
    open_terms = np.bincount(row, ~known, rows)[row] - ~known
    count = np.bincount(row, finite != 0, rows)[row]
    rounding = np.where(count > 1, np.bincount(row, np.abs(finite), rows)[row] * count * 2.0**-50, 0.0)
    others = np.bincount(row, finite, rows)[row] - finite + outwards * rounding
    return np.where(open_terms > 0, outwards * np.inf, others)
