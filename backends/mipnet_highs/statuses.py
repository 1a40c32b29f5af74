"""The statuses of HiGHS."""

from __future__ import annotations

from typing import Any

import highspy

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
