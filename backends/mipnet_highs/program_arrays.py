"""Programs and sparse matrices in the types that HiGHS takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array, Csr, Mask
from mipnet.backend import Program
from mipnet_highs.options import expect_ok


class CsrArrays(NamedTuple):
    """A sparse matrix by rows: the start of each row, and the column and the value of each entry."""

    starts: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: Array


def csr_arrays(matrix: Csr) -> CsrArrays:
    """Return the arrays of a sparse matrix in the types that HiGHS takes."""
    return CsrArrays(
        matrix.indptr.astype(np.int32, copy=False), matrix.indices.astype(np.int32, copy=False), np.asarray(matrix.data, dtype=np.float64)
    )


def pass_program(highs: Any, program: Program, integer: Mask) -> None:
    """Hand the rows, bounds and linear costs of a program to HiGHS, with the integer columns of a mask; raises `SolverFailure`."""
    p, matrix = program, program.rows.matrix
    status = highs.passModel(
        p.columns,
        len(p.rows),
        matrix.nnz,
        2,
        1,
        p.offset,
        p.cost,
        p.lower,
        p.upper,
        p.rows.lower,
        p.rows.upper,
        *csr_arrays(matrix),
        integer.astype(np.int32),
    )  # fmt: skip  (2: by rows, 1: minimise)
    expect_ok(status, "the program")
