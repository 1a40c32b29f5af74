"""Array types of the whole package, and functions for sparse rows."""

from __future__ import annotations

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
