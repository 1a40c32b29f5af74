"""Quadratic objectives in HiGHS, which solves convex ones without integers, and whose answers to others would be wrong or missing."""

from __future__ import annotations

from typing import Any

import highspy
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from mipnet.arrays import Csr, Mask
from mipnet.backend import Program
from mipnet.errors import UnsupportedError
from mipnet_highs.options import expect_ok

CONVEX_TOLERANCE = 1e-9
"""An eigenvalue of a convex objective may be below 0 by this share of the largest entry."""

DENSE_BLOCK_MAX = 3000
"""Largest number of variables that products connect, for which eigenvalues are computed."""


def check_quadratic(program: Program) -> None:
    """Raise `UnsupportedError` for a quadratic objective that is not convex, and for one beside integer variables."""
    if program.quadratic is None:
        return
    remedy = "solve with backend `scip`, or linearise the objective"
    if program.integer.any():
        raise UnsupportedError(
            f"the objective is quadratic, and {int(program.integer.sum())} variables are integer or binary, those of networks included;"
            f" HiGHS solves quadratic objectives without integers only: {remedy}"
        )
    if not _is_convex(program.quadratic):
        kind = "maximum of a quadratic objective that is not concave" if program.maximise else "quadratic objective that is not convex"
        raise UnsupportedError(f"HiGHS does not solve the {kind}: {remedy}")


def _is_convex(matrix: Csr) -> bool:
    count, owner = connected_components(matrix, directed=False)
    used: Mask = np.diff(matrix.indptr) > 0
    tolerance = CONVEX_TOLERANCE * float(np.abs(matrix.data).max(initial=0.0))
    diagonal = matrix.diagonal()
    if (diagonal < 0).any():
        return False
    sizes = np.bincount(owner, minlength=count)
    for block in np.unique(owner[used]):
        if sizes[block] == 1:
            continue
        members = np.flatnonzero(owner == block)
        if len(members) > DENSE_BLOCK_MAX:
            raise UnsupportedError(
                f"products in the objective connect {len(members)} variables, too many for a check that it is convex; solve with `scip`"
            )
        part = matrix[members][:, members].toarray()
        if float(np.linalg.eigvalsh(part)[0]) < -tolerance:
            return False
    return True


def pass_quadratic(highs: Any, matrix: Csr) -> None:
    """Hand the lower triangle of the matrix over by columns."""
    lower = sparse.csc_array(sparse.tril(matrix))
    lower.sort_indices()
    status = highs.passHessian(
        lower.shape[0],
        lower.nnz,
        int(highspy.HessianFormat.kTriangular),
        lower.indptr.astype(np.int32),
        lower.indices.astype(np.int32),
        np.asarray(lower.data, dtype=np.float64),
    )
    expect_ok(status, "the quadratic objective")
