"""Points whose integer columns are integers, not integers within a tolerance.

A solver accepts a binary of 1e-6.  Times a big-M of 1e6 it lets a row through that 0 would not, so such a point may be far from every
feasible one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Limits, Program
from mipnet.backend.checks import with_bounds
from mipnet.errors import SolverFailure, TimeLimitReached
from mipnet.limits.deadline import Deadline
from mipnet.solving.program_sessions import OpenProgram
from mipnet.solving.separators import Separator

INTEGRAL_POINT_TOLERANCE = 1e-6
"""Largest violation of a rounded point that counts as feasible, relative to the size of the row or column."""


def integral_point(opened: OpenProgram, separators: Sequence[Separator], x: Array, deadline: Deadline) -> Array | None:
    """Return a feasible point with the integers of ``x`` rounded, or None if there is none near.

    If the rounded point violates a row, the integers are fixed and the other columns are solved for again before the deadline.
    """
    rounded = np.where(opened.program.integer, np.round(x), x)
    if (rounded == x).all():
        return rounded
    program = opened.program.with_cuts(*opened.rows)
    if program.relative_violation(rounded) <= INTEGRAL_POINT_TOLERANCE:
        return rounded
    try:
        solved = _solve_rest(opened, program, rounded, deadline)
    except (TimeLimitReached, SolverFailure):  # the point of the solver is kept as it is
        return None
    for separator in separators:
        solved = None if solved is None else separator.lift(solved)
    return solved if solved is not None and program.relative_violation(solved) <= INTEGRAL_POINT_TOLERANCE else None


def _solve_rest(opened: OpenProgram, program: Program, rounded: Array, deadline: Deadline) -> Array | None:
    """Return an optimal point among those with these integers, or None."""
    integers = np.flatnonzero(program.integer)
    fixed = with_bounds(program, integers, rounded[integers], rounded[integers])
    fixed = replace(fixed, integer=np.zeros_like(program.integer))
    with opened.open(fixed, deadline) as session:
        found = session.solve(Limits(time=deadline.seconds))
    if found.interrupted:
        raise KeyboardInterrupt
    return None if found.x is None else np.where(program.integer, rounded, found.x)
