"""Helpers for backends: checks before a solve, and `finish` after it; `mipnet.backend.progress` is used during the solve.

A backend gives the solver's result (`RawOutcome`) to `finish`, which returns an `Outcome` that satisfies the contract of
`mipnet.backend`: the point is clipped, rounded and checked, the status follows from the gap, and the bound is at most the objective.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from mipnet.arrays import Array, Columns, Csr
from mipnet.backend.contract import Backend, Feature, Limits, Outcome, PointSource, Status
from mipnet.backend.program import Program
from mipnet.backend.progress import SolveProgress
from mipnet.backend.rows import Rows
from mipnet.errors import BackendError, InputError, OptionError, SolverFailure, suggest_keywords
from mipnet.errors.expectations import expects

DEFAULT_LIMITS = Limits()
"""The limits of a solve for which none are given: only the default gap."""

POINT_TOLERANCE = 1e-4
"""A point may violate a row by this times ``max(1, |row| @ |x|)``; solvers themselves guarantee about 1e-6."""

OBJECTIVE_NOISE = 1e-6
"""Relative error of an optimal objective that is due to a solver's own tolerances."""


def unknown_option(solver: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise `OptionError` that names the option and known options with similar names."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else "; see the solver's own list of options"
    raise OptionError(f"{solver} has no option `{name}`{hint}")


@suggest_keywords
def check_program(backend: Backend, program: Program) -> None:
    """Raise `BackendError` if the program needs a feature that the backend lacks, or contains NaN."""
    needs = {
        Feature.INTEGER: bool(program.integer.any()),
        Feature.SOS1: bool(program.sos1),
        Feature.INDICATOR: program.indicators is not None,
        Feature.LOG_SUM_EXP: bool(program.convex),
        Feature.QUADRATIC: program.quadratic is not None,
    }
    for feature, needed in needs.items():
        if needed and feature not in backend.features:
            remedy = "rewrite the program with `mipnet.backend.rewrites`, or choose another backend"
            remedy = "solve with `scip`, or linearise it" if feature is Feature.QUADRATIC else remedy
            raise BackendError(f"backend `{backend.name}` has no {feature.value}: {remedy}")
    if program.sos2 or program.semi is not None:
        raise BackendError("no backend takes SOS2 sets and semi-continuous variables: rewrite the program with `mipnet.backend.rewrites`")
    parts = {"cost": program.cost, "lower": program.lower, "upper": program.upper, "rows": program.rows.matrix.data}
    parts |= {"row_lower": program.rows.lower, "row_upper": program.rows.upper}
    for name, values in parts.items():
        if np.isnan(values).any():
            raise BackendError(f"`{name}` of the program holds {int(np.isnan(values).sum())} NaN; expected numbers or infinities")


@suggest_keywords
def check_limits(backend: Backend, limits: Limits) -> None:
    """Raise `BackendError` if a limit is set that the backend does not support."""
    set_ = {
        Feature.TIME_LIMIT: limits.time < math.inf,
        Feature.NODE_LIMIT: limits.nodes is not None,
        Feature.MEMORY_LIMIT: limits.memory is not None,
        Feature.BOUND_STOP: limits.bound_stop is not None,
        Feature.OBJECTIVE_STOP: limits.objective_stop is not None,
    }
    for feature, wanted in set_.items():
        if wanted and feature not in backend.features:
            raise BackendError(f"backend `{backend.name}` has no {feature.value}: leave that limit unset, or choose another backend")


def warn_dropped(solver: str, count: int) -> None:
    """Warn that a solver treats ``count`` tiny coefficients as zero."""
    if count:
        text = f"{solver} drops {count} coefficients of size 1e-9 or less, so it solves a slightly different program; scale the weights"
        warnings.warn(text, RuntimeWarning, stacklevel=4)


@suggest_keywords
def check_rows(program: Program, rows: Rows) -> Rows:
    """Return the rows with bounds of float64; raises `InputError` unless they are as wide as the program."""
    if rows.matrix.shape[1] != program.columns:
        raise InputError(f"the added rows are {rows.matrix.shape[1]} columns wide; expected {program.columns}, one per variable")
    return Rows(rows.matrix, np.asarray(rows.lower, dtype=np.float64), np.asarray(rows.upper, dtype=np.float64))


@suggest_keywords
@expects("a program and a number for each of its variables")
def check_point(program: Program, x: Array) -> Array:
    """Return a copy of the point; raises `InputError` unless it has one finite number per column."""
    point = np.array(x, dtype=np.float64)
    if point.shape != (program.columns,) or not np.isfinite(point).all():
        raise InputError(f"the point given has shape {point.shape}; expected {program.columns} finite numbers, one per variable")
    return point


def checked_source(program: Program, source: PointSource) -> PointSource:
    """Return a source that checks every point of ``source`` by `check_point`."""

    def ask(relaxed: Array | None) -> Array | None:
        point = source(relaxed)
        return None if point is None else check_point(program, point)

    return ask


@suggest_keywords
@expects("a program, a cost for each of its variables, and a number")
def with_cost(program: Program, cost: Array, offset: float) -> Program:
    """Return the same program with another objective."""
    return replace(program, cost=np.asarray(cost, dtype=np.float64).copy(), offset=float(offset))


@suggest_keywords
@expects("a program, numbers of variables, and a lower and an upper bound for each of these")
def with_bounds(program: Program, columns: Columns, lower: Array, upper: Array) -> Program:
    """Return the same program with other bounds of some columns."""
    low, high = program.lower.copy(), program.upper.copy()
    low[columns], high[columns] = lower, upper
    return replace(program, lower=low, upper=high)


@dataclass(frozen=True, eq=False)
class RawOutcome:
    """The result of one solve as the solver reports it; ``status`` is None if the solve was interrupted."""

    status: Status | None
    x: Array | None = None
    bound: float = -math.inf
    nodes: int = 0
    iterations: int = 0
    start_accepted: bool | None = None
    message: str = ""
    duals: Array | None = None


@suggest_keywords
def trivial_outcome(program: Program) -> RawOutcome | None:
    """Return the result for crossing bounds and for programs without columns; None if a solver is needed."""
    rows = program.rows
    crossed = bool((program.lower > program.upper + 1e-9).any() or (rows.lower > rows.upper + 1e-9).any())
    if crossed:
        return RawOutcome(Status.INFEASIBLE, bound=math.inf, message="a lower bound is above its upper bound")
    if program.columns:
        return None
    if bool((rows.lower > 0).any() or (rows.upper < 0).any()):
        return RawOutcome(Status.INFEASIBLE, bound=math.inf, message="a row without entries excludes 0")
    return RawOutcome(Status.OPTIMAL, x=np.zeros(0), bound=program.offset, message="no columns")


def finish(program: Program, progress: SolveProgress, raw: RawOutcome) -> Outcome:
    """Return the outcome of a solve; raises the exception of an event handler, and `SolverFailure` for an infeasible point."""
    if progress.error is not None:
        raise progress.error
    x = None if raw.x is None or raw.status in (Status.INFEASIBLE, Status.UNBOUNDED) else clean_point(program, raw.x)
    objective = None if x is None else program.minimised(x)
    claimed = raw.status is Status.OPTIMAL or progress.gap_closed  # by the solver's own numbers, or by ours
    bound = {Status.INFEASIBLE: math.inf, Status.UNBOUNDED: -math.inf}.get(
        raw.status or Status.STALLED, max(raw.bound, progress.best_bound)
    )
    if objective is not None:
        bound = _valid_bound(bound, objective, progress.limits, claimed)
        progress.incumbent(objective, raw.nodes)
    progress.bound(bound, raw.nodes)
    progress.log("\n")
    if progress.error is not None:
        raise progress.error
    status = _status(raw.status, objective, bound, progress)
    nodes, iterations = max(raw.nodes, 0), max(raw.iterations, 0)
    duals = raw.duals if status is Status.OPTIMAL else None
    accepted, message = raw.start_accepted, raw.message
    return Outcome(status, x, objective, bound, progress.time, nodes, iterations, accepted, message, progress.interrupted, duals)


def _valid_bound(bound: float, objective: float, limits: Limits, optimal: bool) -> float:
    """Return the bound, at most the objective; a claim of optimality is accepted within `OBJECTIVE_NOISE`."""
    tolerated = limits.tolerated(objective)
    if optimal and objective - tolerated - OBJECTIVE_NOISE * max(1.0, abs(objective)) <= bound:
        bound = max(bound, objective - tolerated * (1 - 1e-9))
    return min(bound, objective)


def _status(claim: Status | None, objective: float | None, bound: float, progress: SolveProgress) -> Status:
    """Return why the solve stopped; the gap decides what is optimal, whatever the solver claims."""
    if claim in (Status.INFEASIBLE, Status.UNBOUNDED):
        return claim
    if objective is not None and progress.limits.closed(objective, bound):
        return Status.OPTIMAL
    if progress.target_reached or claim is Status.TARGET:
        return Status.TARGET
    if progress.interrupted:
        return Status.INTERRUPTED
    if progress.memory_reached and claim is not Status.TIME_LIMIT:
        return Status.MEMORY_LIMIT
    return Status.STALLED if claim in (None, Status.OPTIMAL) else claim


@suggest_keywords
@expects("a program and a number for each of its variables")
def clean_point(program: Program, x: Array) -> Array:
    """Return the point clipped to its bounds, with integer columns rounded; raises `SolverFailure` for an infeasible point.

    If rounding violates a row (a big-M of 1e6 times an error of 1e-7), the solver's own fractional value is kept.
    """
    clipped: Array = np.clip(x, program.lower, program.upper)
    if not np.isfinite(x).all() or float(np.abs(clipped - x).max(initial=0.0)) > POINT_TOLERANCE * max(
        1.0, float(np.abs(x).max(initial=0.0))
    ):
        raise SolverFailure("the solver returned a point outside the bounds of its columns; tighten its tolerances or scale the program")
    near = program.integer & (np.abs(clipped - np.round(clipped)) <= POINT_TOLERANCE)
    rounded: Array = np.where(near, np.round(clipped), clipped)
    for point in (rounded, clipped):
        if scaled_violation(program, point) <= POINT_TOLERANCE:
            return point
    raise SolverFailure(
        f"the solver returned a point that violates the program by {program.violation(rounded):.3g}; "
        "expected a feasible one: tighten its tolerances, scale the program, or switch its presolve off"
    )


@suggest_keywords
@expects("a program and a number for each of its variables")
def scaled_violation(program: Program, x: Array) -> float:
    """Return `Program.violation` with the violation of each row divided by ``max(1, |row| @ |x|)``."""
    absolute = program.violation(x)
    if absolute <= POINT_TOLERANCE:
        return absolute
    empty = Rows(Csr((0, program.columns)), np.zeros(0), np.zeros(0))
    rest = replace(program, rows=empty).violation(x)
    scale = np.maximum(1.0, abs(program.rows.matrix) @ np.abs(x))
    return max(rest, float((program.rows.violation(x) / scale).max(initial=0.0)))
