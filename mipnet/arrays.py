"""The array types that all rooms share, and two helpers for sparse rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Shape = tuple[int, ...]
Array = NDArray[np.float64]
Csr = sparse.csr_array
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Columns = NDArray[np.int64]


def widen(terms: Csr, width: int) -> Csr:
    """The same rows with room for ``width`` variables."""
    return terms if terms.shape[1] == width else Csr((terms.data, terms.indices, terms.indptr), shape=(terms.shape[0], width))


def activity(terms: Csr, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The least and the largest value of each row of ``terms @ x`` for ``lower <= x <= upper``."""
    up, down = Csr(terms.maximum(0)), Csr(terms.minimum(0))
    return up @ lower + down @ upper, up @ upper + down @ lower
