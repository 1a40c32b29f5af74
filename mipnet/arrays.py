"""Array types of the whole package, and functions for sparse rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mipnet.errors.expectations import expects

Shape = tuple[int, ...]
Array = NDArray[np.float64]
Csr = sparse.csr_array
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Columns = NDArray[np.int64]
"""Indices of the columns (variables) of a program."""


@expects("a scipy.sparse.csr_array, and a number of columns")
def widen(terms: Csr, width: int) -> Csr:
    """Return the same rows as a matrix with ``width`` columns."""
    return terms if terms.shape[1] == width else Csr((terms.data, terms.indices, terms.indptr), shape=(terms.shape[0], width))


@expects("a scipy.sparse.csr_array")
def row_of_entry(terms: Csr) -> Ints:
    """Return the row of each stored entry."""
    rows: Ints = np.repeat(np.arange(terms.shape[0]), np.diff(terms.indptr))
    return rows


ENTRIES_AT_ONCE = 2**17
"""Entries of a sparse matrix that are looked at together: temporary arrays of 1 MiB stay in a cache."""


def parts_of(matrix: Csr) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of a sparse matrix in parts, each with its entries; a part has about `ENTRIES_AT_ONCE` of them."""
    starts, row, count = matrix.indptr, 0, matrix.shape[0]
    while row < count:
        wanted = min(int(starts[row]) + ENTRIES_AT_ONCE, int(starts[-1]))
        end = max(row + 1, int(np.searchsorted(starts, starts.dtype.type(wanted), side="right")) - 1)
        yield slice(row, end), slice(int(starts[row]), int(starts[end]))
        row = end


@expects("an array of whole numbers from 0 on")
def distinct(numbers: NDArray[Any]) -> Ints:
    """Return the different values among integers from 0 on, sorted; faster than `numpy.unique` for labels and columns."""
    seen = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=np.bool_)
    seen[numbers] = True
    return np.flatnonzero(seen)


@expects("a scipy.sparse.csr_array, and a lower and an upper end for each of its columns")
def activity(terms: Csr, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Return the smallest and the largest value of each row of ``terms @ x`` for ``lower <= x <= upper``."""
    up, down = Csr(terms.maximum(0)), Csr(terms.minimum(0))
    for each in (up, down):  # zero times infinity would be NaN
        each.eliminate_zeros()
    return up @ lower + down @ upper, up @ upper + down @ lower
