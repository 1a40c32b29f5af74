"""Writing a result back into a linopy model, as linopy's own `Model.solve` does."""

from __future__ import annotations

import linopy
import numpy as np
from linopy.constants import Result as LinopyResult
from linopy.constants import Solution, SolverStatus, TerminationCondition
from linopy.constants import Status as LinopyStatus

from mipnet.arrays import Array
from mipnet.backend import Status
from mipnet.solving.result import Result

LINOPY_CONDITIONS = {
    Status.OPTIMAL: TerminationCondition.optimal,
    Status.INFEASIBLE: TerminationCondition.infeasible,
    Status.UNBOUNDED: TerminationCondition.unbounded,
    Status.TIME_LIMIT: TerminationCondition.time_limit,
    Status.NODE_LIMIT: TerminationCondition.terminated_by_limit,
    Status.MEMORY_LIMIT: TerminationCondition.resource_interrupt,
    Status.TARGET: TerminationCondition.terminated_by_limit,
    Status.INTERRUPTED: TerminationCondition.user_interrupt,
    Status.STALLED: TerminationCondition.suboptimal,
}
"""linopy's termination condition for each status."""


def write_back(model: linopy.Model, result: Result) -> None:
    """Set the solution, the objective value, the status and, of a linear program, the dual values of a model.

    The status of linopy is `ok` if there is a point, and `warning` otherwise: then the solution and the value of an earlier solve are
    removed.  ``model.matrices.sol``, ``variable.solution`` and ``model.solution`` are the replayed point.
    """
    condition = LINOPY_CONDITIONS[result.status]
    model.reset_solution()
    model.objective.set_value(np.nan)
    solution = None
    if result.point is not None and result.objective is not None:
        value = result.objective * model.objective.scaling
        solution = Solution(_in_solver_units(model, result.point), _duals_by_label(model, result.duals), value)
    status = SolverStatus.ok if solution is not None else SolverStatus.warning
    done = LinopyResult(LinopyStatus(status, condition, result.status.value), solution, solver_name=result.backend)
    model.assign_result(done)


def _duals_by_label(model: linopy.Model, duals: Array | None) -> Array:
    """Return dual values by the label of their constraint, NaN where there is none, in the unit of linopy's scaled objective."""
    if duals is None:
        return np.zeros(0)
    by_label = np.full(model._cCounter, np.nan)
    by_label[np.asarray(model.constraints.label_index.clabels)] = duals * model.objective.scaling
    for constraint in model.constraints.data.values():  # `Model.assign_result` takes them for those of rows that were multiplied
        if not constraint.is_indicator:
            labels, factor = constraint.labels.values.reshape(-1), constraint.scaling.values.reshape(-1)
            used = labels >= 0
            by_label[labels[used]] /= np.broadcast_to(factor, labels.shape)[used]
    return by_label


def _in_solver_units(model: linopy.Model, point: Array) -> Array:
    """Return a point by label in the units in which linopy hands variables to a solver; `Model.assign_result` converts it back."""
    scaled = point.copy()
    for variable in model.variables.data.values():
        factor, labels = variable.solver_scaling.values.reshape(-1), variable.labels.values.reshape(-1)
        used = labels >= 0
        scaled[labels[used]] *= factor[used]
    return scaled
