"""The statuses of HiGHS, and sparse matrices in the types that HiGHS takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import highspy
import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array, Csr
from mipnet.backend import Status

ModelStatus: Any = highspy.HighsModelStatus
UNBOUNDED_OR_INFEASIBLE = ModelStatus.kUnboundedOrInfeasible

HIGHS_NODES_MAX = 2**31 - 1
"""HiGHS's node limit for no limit."""

HIGHS_STATUSES: dict[Any, Status | None] = {
    ModelStatus.kOptimal: Status.OPTIMAL,
    ModelStatus.kInfeasible: Status.INFEASIBLE,
    ModelStatus.kUnbounded: Status.UNBOUNDED,
    ModelStatus.kTimeLimit: Status.TIME_LIMIT,
    ModelStatus.kSolutionLimit: Status.NODE_LIMIT,  # HiGHS reports this for mip_max_nodes too
    ModelStatus.kMemoryLimit: Status.MEMORY_LIMIT,
    ModelStatus.kObjectiveTarget: Status.TARGET,
    ModelStatus.kObjectiveBound: Status.TARGET,
    ModelStatus.kIterationLimit: Status.STALLED,
    ModelStatus.kInterrupt: None,
    ModelStatus.kHighsInterrupt: None,
}
"""The status for each model status of HiGHS; None for a solve that was interrupted."""


class CsrArrays(NamedTuple):
    """A sparse matrix by rows: the start of each row, and the column and the value of each entry."""

    starts: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: Array


def csr_arrays(matrix: Csr) -> CsrArrays:
    """Return the arrays of a sparse matrix in the types that HiGHS takes."""
    return CsrArrays(matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), np.asarray(matrix.data, dtype=np.float64))
