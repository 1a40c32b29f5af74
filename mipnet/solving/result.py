"""The result of a solve, made from its rounds and the replay of its best point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from mipnet.arrays import Array
from mipnet.backend import Backend, Event, Outcome, Status, relative_gap
from mipnet.errors import SolverFailure
from mipnet.solving.cut_rounds import CUT_ROUNDS_MAX, CutRounds
from mipnet.solving.problem import Problem
from mipnet.solving.replay import REPLAY_TOLERANCE

BOUND_CONTRADICTION_MIN = 1e-3
"""A bound contradicts a feasible point if it is above its objective by more than this, relative to the objective or 1 if that is larger."""


TOLERANCE_SHARE_OF_SPREAD_MAX = 1e-3
"""A solver's tolerance may be at most this share of the difference between forward passes: else nothing is called optimal."""

TOO_COARSE = (
    "the objective ranges over far less than its bounds allow, and the solver's tolerance, a share of the latter, was subtracted from the"
    " bound: give the network tighter `bounds`"
)


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a solve.

    Attributes
    ----------
    status
        Why the solve stopped.  It may have stopped at a limit with or without a point.
    x, point
        The replayed solution as labelled arrays, and by variable label; None without a solution.
    objective, bound, gap
        The objective at the replayed solution, the dual bound, both in the sense of the model, and their relative gap.
    runtime
        Seconds.
    nodes, iterations, rounds, cuts
        Numbers of branch-and-bound nodes, simplex iterations, cut rounds, and rows that were added.
    backend, version
        The name and version of the backend.
    size
        Numbers of columns, rows, integer columns and special constraints of the program.
    max_error
        Largest difference between the solver's solution and the network, ``|a - b| / (1 + |b|)``; None without a network.
    verified
        True if ``max_error`` and the violation of every constraint by the replayed solution are at most `REPLAY_TOLERANCE`.
    start_accepted
        Whether the solver accepted the first point; None if it does not report this.
    rewritten
        The constraints that were rewritten for the backend.
    trace
        All events except log lines.
    message
        Further text of the backend.
    interrupted
        True if Ctrl-C came during the solve, whatever its status is.
    duals
        The dual values of the rows of the program, in the sense of the model; None if the solver has none, as for programs with integers.
    """

    status: Status
    x: xr.Dataset | None
    point: Array | None
    objective: float | None
    bound: float
    gap: float
    runtime: float
    nodes: int
    iterations: int
    rounds: int
    cuts: int
    backend: str
    version: str
    size: Mapping[str, int]
    max_error: float | None
    verified: bool
    start_accepted: bool | None = None
    rewritten: tuple[str, ...] = ()
    trace: tuple[Event, ...] = field(default=(), repr=False)
    message: str = ""
    interrupted: bool = False
    duals: Array | None = field(default=None, repr=False)


def unsolved_result(backend: Backend, seconds: float, message: str, *, maximise: bool = False) -> Result:
    """Return the result of a solve whose time ended before the solver had the program: no point, and no bound."""
    return Result(
        status=Status.TIME_LIMIT,
        x=None,
        point=None,
        objective=None,
        bound=math.inf if maximise else -math.inf,
        gap=math.inf,
        runtime=seconds,
        nodes=0,
        iterations=0,
        rounds=0,
        cuts=0,
        backend=backend.name,
        version=backend.version(),
        size={},
        max_error=None,
        verified=False,
        message=message,
    )


def summed_work(results: Sequence[Result]) -> dict[str, Any]:
    """Return the work of several results, summed by field, and their largest error."""
    errors = [r.max_error for r in results if r.max_error is not None]
    work = {name: sum(getattr(r, name) for r in results) for name in ("runtime", "nodes", "iterations", "rounds", "cuts")}
    return work | {"max_error": max(errors, default=None)}


def check_outcome(run: CutRounds, outcome: Outcome) -> None:
    """Raise `SolverFailure` if the outcome contradicts a feasible point: by `infeasible`, or by a bound above its objective."""
    if run.best.x is None:
        return
    if outcome.status is Status.INFEASIBLE:
        raise SolverFailure(f"{run.opened.backend.name} says infeasible, but a point with objective {run.best.objective:g} is known")
    excess = run.best.bound - run.best.objective
    if excess > 0 and excess > BOUND_CONTRADICTION_MIN * max(run.program.objective_size, abs(run.best.objective)):
        raise SolverFailure(
            f"{run.opened.backend.name} claims a bound of {run.best.bound:g}, but a point with objective {run.best.objective:g} is known"
        )


def _unresolved(run: CutRounds, problem: Problem, objective: float) -> float:
    """Return the tolerance of solvers in the units of the objective if forward passes hardly differ by more than that, else 0.

    The tolerance is a share of the range of the objective by its bounds.  If these are far too wide, it may hide all values that occur.
    """
    tolerance = run.opened.backend.tolerances(run.opened.options).rows * problem.program.objective_size
    if not abs(objective) < tolerance / TOLERANCE_SHARE_OF_SPREAD_MAX:
        return 0.0
    spread = problem.objective_spread()
    return tolerance if 0 < spread < tolerance / TOLERANCE_SHARE_OF_SPREAD_MAX else 0.0


def final_status(run: CutRounds, outcome: Outcome, objective: float, bound: float, unresolved: float) -> Status:
    """Return why the whole solve stopped: the gap decides about `optimal`, and the clock about `time limit`, not the last round."""
    missing = objective - bound - run.limits.tolerated(objective)
    if missing <= 0 and outcome.status is not Status.INTERRUPTED:
        return Status.OPTIMAL
    if unresolved and outcome.status is Status.OPTIMAL:
        return Status.STALLED
    if outcome.status is Status.OPTIMAL and missing <= REPLAY_TOLERANCE * max(run.program.objective_size, abs(objective)):
        return Status.OPTIMAL
    if outcome.status in (Status.OPTIMAL, Status.TIME_LIMIT):
        late = run.deadline.passed or (outcome.status is Status.TIME_LIMIT and run.counts.rounds < CUT_ROUNDS_MAX)
        return Status.TIME_LIMIT if late else Status.STALLED
    return outcome.status


def make_result(problem: Problem, run: CutRounds, outcome: Outcome, rewritten: tuple[str, ...], *, integral: bool) -> Result:
    """Replay the best point of a solve, and return the result in the sense of the model.

    Without ``integral``, the integers of the point cannot be rounded, and it is not verified.
    """
    program, bound = problem.program, run.best.bound
    max_error: float | None = None
    objective, verified, x, point = math.inf, False, None, None
    if run.best.x is not None:
        replayed, max_error = problem.replay(run.best.x[: program.columns])
        objective = program.minimised(replayed)
        violation = max([program.relative_violation(replayed), *(math.inf for s in problem.separators if s.lift(replayed) is None)])
        verified = integral and (max_error is None or max_error <= REPLAY_TOLERANCE) and violation <= REPLAY_TOLERANCE
        x, point = problem.labelled(replayed)
    unresolved = _unresolved(run, problem, objective) if outcome.status is Status.OPTIMAL else 0.0
    bound, message = bound - unresolved, f"{outcome.message}; {TOO_COARSE}" if unresolved else outcome.message
    gap = math.inf if run.best.x is None else relative_gap(objective, bound)
    sign = -1.0 if program.maximise else 1.0
    return Result(
        status=final_status(run, outcome, objective, bound, unresolved),
        x=x,
        point=point,
        objective=None if run.best.x is None else sign * objective,
        bound=sign * bound,
        gap=gap,
        runtime=run.events.elapsed,
        nodes=run.counts.nodes,
        iterations=run.counts.iterations,
        rounds=run.counts.rounds,
        cuts=run.counts.cuts,
        backend=run.opened.backend.name,
        version=run.opened.backend.version(),
        size=program.size,
        max_error=max_error,
        verified=verified,
        start_accepted=run.start_accepted,
        rewritten=rewritten,
        duals=_duals(problem, outcome, rewritten),
        trace=tuple(run.events.trace),
        message=message,
        interrupted=run.interrupted,
    )


def _duals(problem: Problem, outcome: Outcome, rewritten: tuple[str, ...]) -> Array | None:
    """Return the dual values of a linear program's rows in the sense of the model, or None."""
    program = problem.program
    special = program.integer.any() or program.sos1 or program.convex or program.indicators is not None or problem.separators or rewritten
    if outcome.duals is None or special or len(outcome.duals) < len(program.rows):
        return None
    duals: Array = outcome.duals[: len(program.rows)] * (-1.0 if program.maximise else 1.0)
    return duals
