"""What HiGHS's words mean to mipnet, and arrays in the types it takes."""

from __future__ import annotations

from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Csr
from mipnet.backend import Status

Word: Any = highspy.HighsModelStatus
UNDECIDED = Word.kUnboundedOrInfeasible
NO_LIMIT = 2**31 - 1
STATUS: dict[Any, Status | None] = {
    Word.kOptimal: Status.OPTIMAL,
    Word.kInfeasible: Status.INFEASIBLE,
    Word.kUnbounded: Status.UNBOUNDED,
    Word.kTimeLimit: Status.TIME_LIMIT,
    Word.kSolutionLimit: Status.NODE_LIMIT,  # HiGHS says so of mip_max_nodes too
    Word.kMemoryLimit: Status.MEMORY_LIMIT,
    Word.kObjectiveTarget: Status.TARGET,
    Word.kObjectiveBound: Status.TARGET,
    Word.kIterationLimit: Status.STALLED,
    Word.kInterrupt: None,
    Word.kHighsInterrupt: None,
}


def arrays(matrix: Csr) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Row starts, column indices and values."""
    return matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), np.asarray(matrix.data, dtype=np.float64)
