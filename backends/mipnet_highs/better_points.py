"""Points that are better than the result of HiGHS, for a check of its proofs: linear programs with fixed integers, region by region.

Cuts of HiGHS 1.15.1 could exclude every better point (its issues 3170 and 3171).  Then the best point found before was called optimal,
although a neighbour of it was often better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

import numpy as np
from scipy import sparse

from mipnet.arrays import Array
from mipnet.backend import Program
from mipnet_highs.program_arrays import pass_program
from mipnet_highs.silent_highs import SilentHighs
from mipnet_highs.statuses import ModelStatus

DESCENT_SOLVES_MAX = 200
"""Largest number of linear programs of all descents from the points of one solve."""

STEP_TOLERANCE = 1e-6
"""An integer may change by 1 if no row is then violated by more than this."""

IMPROVEMENT_MIN = 1e-7
"""Smallest improvement of a step, relative to the objective or 1 if that is larger."""

CONTRADICTION_MIN = 1e-5
"""A bound contradicts a feasible point if it is above its objective by more than this, relative to the objective or its size."""


def contradicts(program: Program, bound: float, x: Array) -> bool:
    """Return True if a dual bound cannot hold, because of a feasible point."""
    objective = float(program.cost @ x) + program.offset
    return bound - objective > CONTRADICTION_MIN * max(program.objective_size, abs(objective))


class Descent:
    """A local search over integer values, each with the best values of the other columns, by linear programs.

    A step changes one integer by 1 where this violates no row, such as the sign of a ReLU whose value before it is 0, and solves for the
    other columns, with a feasibility ``tolerance``.  ``seconds`` limits all of it, and it ends once ``stopped`` returns True.
    """

    def __init__(self, program: Program, tolerance: float, seconds: float, stopped: Callable[[], bool]) -> None:
        self.program, self._end, self._stopped = program, perf_counter() + seconds, stopped
        self._tried: set[bytes] = set()
        self._integers = np.flatnonzero(program.integer).astype(np.int32)
        self._by_column = sparse.csc_array(program.rows.matrix)
        self._highs: Any = SilentHighs()
        for name, value in {
            "output_flag": False,
            "threads": 1,
            "presolve": "off",
            "primal_feasibility_tolerance": tolerance,
        }.items():
            self._highs.setOptionValue(name, value)
        pass_program(self._highs, program, np.zeros_like(program.integer))
        self._highs.cbSimplexInterrupt += lambda event: event.interrupt(stopped())

    def ends(self, points: Iterable[Array]) -> list[Array]:
        """Return the ends of the descents from some points, once; one that reaches a point of another ends there."""
        try:
            return [end for end in map(self._descend, points) if end is not None]
        finally:
            self._highs.clearCallbacks()
            self._highs.clear()
            self._highs.resetGlobalScheduler(False)  # its worker threads belong to this thread

    def _descend(self, x: Array) -> Array | None:
        found = self._solve(np.round(x[self._integers]))
        while found is not None:
            steps = (self._solve(integers) for integers in self._neighbours(found))
            better = next((step for step in steps if step is not None and self._improves(step, found)), None)
            if better is None:
                break
            found = better
        return found

    def _improves(self, step: Array, x: Array) -> bool:
        now = float(self.program.cost @ x)
        return float(self.program.cost @ step) < now - IMPROVEMENT_MIN * max(1.0, abs(now))

    def _neighbours(self, x: Array) -> Iterator[Array]:
        """Yield the integers of a point with one of them changed by 1, where the point may have them."""
        p, matrix, integers = self.program, self._by_column, np.round(x[self._integers])
        activity = p.rows.matrix @ x
        above, below = p.rows.upper - activity + STEP_TOLERANCE, activity - p.rows.lower + STEP_TOLERANCE
        for k, column in enumerate(self._integers):
            entries = slice(matrix.indptr[column], matrix.indptr[column + 1])
            rows, change = matrix.indices[entries], matrix.data[entries]
            for step in (1.0, -1.0):
                inside = p.lower[column] <= integers[k] + step <= p.upper[column]
                if inside and (step * change <= above[rows]).all() and (-step * change <= below[rows]).all():
                    changed = integers.copy()
                    changed[k] += step
                    yield changed

    def _solve(self, integers: Array) -> Array | None:
        """Return the best point with these integers; None without one, at the end of the time, and if they were tried before."""
        seconds, key = self._end - perf_counter(), (integers + 0.0).tobytes()
        if self._stopped() or seconds <= 0 or key in self._tried or len(self._tried) >= DESCENT_SOLVES_MAX:
            return None
        self._tried.add(key)
        if math.isfinite(seconds):
            self._highs.setOptionValue("time_limit", self._highs.getRunTime() + seconds)
        self._highs.changeColsBounds(len(integers), self._integers, integers, integers)
        self._highs.run()
        if self._highs.getModelStatus() != ModelStatus.kOptimal:
            return None
        x = np.array(self._highs.getSolution().col_value)
        x[self._integers] = integers
        return x
