"""Bounds of inputs from the linear relaxation of the user's model: its rows bound what its variables' bounds leave open."""

from __future__ import annotations

from dataclasses import replace

import linopy
import numpy as np

from mipnet.arrays import Array, Csr
from mipnet.backend import Limits, Status, get_backend
from mipnet.formulations.affine import Affine
from mipnet.limits.deadline import Deadline
from mipnet.model.to_program import column_lookup, from_model

RELAXATION_TOLERANCE = 1e-6
"""By how much a bound of the relaxation is moved outwards, relative to 1 + its size: ten times what a solver lets a row be violated."""


def relaxation_bounds(model: linopy.Model, value: Affine, lower: Array, upper: Array, deadline: Deadline) -> tuple[Array, Array]:
    """Return bounds of each element of a value: those given, and tighter ones from the smallest and largest value over the relaxation.

    The relaxation has the rows of the model and the bounds of its variables, without integrality and special constraints.  There are two
    linear programs per different element with variables; after the deadline the rest keep their bounds.
    """
    program = from_model(model)
    program = replace(program, integer=np.zeros_like(program.integer), cost=np.zeros(program.columns))
    program = replace(program, sos1=(), sos2=(), semi=None, indicators=None, convex=(), quadratic=None)
    where = column_lookup(np.asarray(program.labels))
    low, high = lower.reshape(-1).copy(), upper.reshape(-1).copy()
    free = np.flatnonzero(value.row_sizes)
    with get_backend("highs").open(program) as session:
        known: dict[tuple[bytes, bytes], tuple[float, float]] = {}
        for element in free:
            row = Csr(value.terms[[element]])
            key = (row.indices.tobytes(), row.data.tobytes())
            if key not in known:
                if deadline.passed:
                    continue
                cost = np.zeros(program.columns)
                cost[where[row.indices]] = row.data
                found = []
                for sign in (1.0, -1.0):
                    session.set_objective(sign * cost)
                    outcome = session.solve(Limits(time=deadline.seconds))
                    found.append(outcome.bound if outcome.status is Status.OPTIMAL else -np.inf)
                known[key] = (found[0], -found[1])
            constant = value.constant.reshape(-1)[element]
            least, most = (end + constant for end in known[key])
            low[element] = max(low[element], least - RELAXATION_TOLERANCE * (1 + abs(least)) if np.isfinite(least) else -np.inf)
            high[element] = min(high[element], most + RELAXATION_TOLERANCE * (1 + abs(most)) if np.isfinite(most) else np.inf)
    return low.reshape(value.shape), high.reshape(value.shape)
