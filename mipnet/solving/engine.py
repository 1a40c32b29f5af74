"""Solve: lower for the backend, start from a forward pass, cut in rounds, and replay what comes back.

What the solver says is never taken at its word.  The point is replayed: the input and the scores are read off it, the network
runs forward on them in float64, every variable of the encoding is recomputed, and the objective reported is the one at the
recomputed point.  `Result.max_error` is the largest difference between the solver's point and the network's own values.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain
from types import TracebackType
from typing import Any, Literal

import linopy
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend, Event, Limits, OnEvent, Options, Outcome, Status, get_backend, relative_gap
from mipnet.backend.helpers import with_bounds, with_cost
from mipnet.backend.rewrites import lower
from mipnet.errors import InputError, SolverFailure
from mipnet.model.encoding import Encoding
from mipnet.solving.cut_rounds import CutRounds, PointFunctions, SolveEvents
from mipnet.solving.open_program import OpenProgram
from mipnet.solving.problem import Modelled
from mipnet.solving.problem import Problem as Problem
from mipnet.solving.problem import Start as Start
from mipnet.solving.problem import if_feasible as if_feasible
from mipnet.solving.separators import Tangents
from mipnet.solving.start_points import StartPoints

REPLAY_TOLERANCE = 1e-5
"""`Result.verified` needs the replay to agree within this, relative to 1 + the size of the value."""

KEPT_POINTS_MAX = 16
"""As many best points of earlier solves are kept as starts."""


@dataclass(frozen=True, eq=False)
class Result:
    """What came of a solve.

    ``status`` says why it stopped, apart from whether there is a point: ``x`` is the labelled point, or None.  ``objective`` is the
    true one at the replayed point, ``bound`` the proven bound, both in the model's own sense; ``gap`` is their relative gap.
    ``verified`` is True if the replay of every network in the model agrees within `REPLAY_TOLERANCE` and the replayed point meets every
    constraint as closely.  In a model without a network only the constraints are checked, and ``max_error`` is None.
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


def solve(
    problem: Encoding | linopy.Model | Problem,
    backend: str | Backend = "highs",
    *,
    time_limit: float = math.inf,
    mip_gap: float = 1e-4,
    limits: Limits | None = None,
    options: Options | None = None,
    start: Start = "forward",
    on_event: OnEvent | None = None,
) -> Result:
    """Solve an encoding (with whatever was added to its model), any linopy model, or a `Problem`, and replay the point.

    Parameters
    ----------
    backend
        The name of a backend, or a `Backend` of your own.
    time_limit, mip_gap
        Seconds, and the relative gap at which to stop; ``limits`` takes all limits at once and wins.  Its ``bound_stop`` and
        ``objective_stop`` are in the model's own sense: a maximisation stops once its bound falls to the one, or a point rises to
        the other, with status `target reached`.
    options
        The solver's own options by its own names; an unknown one raises `OptionError`.
    start
        ``"forward"``: the forward pass of the network at the centre of its input set, all gates open, is the first incumbent;
        ``"search"``: gradient steps from there and from random points look for better ones first, and answer a solver that asks for
        points meanwhile (`mipnet.solving.gradient_search`), in a tenth of the time at most; ``"none"``; or a full point by variable label.
    on_event
        Called with every `Event`; an exception it raises stops the solve and is raised here.

    Ctrl-C returns the best point so far with status `interrupted`.  To solve one problem many times, see `open_problem`.
    """
    with open_problem(problem, backend, options=options) as opened:
        return opened.solve(time_limit=time_limit, mip_gap=mip_gap, limits=limits, start=start, on_event=on_event)


def open_problem(
    problem: Encoding | linopy.Model | Problem, backend: str | Backend = "highs", *, options: Options | None = None
) -> OpenProblem:
    """A problem that is handed to a solver once and solved many times, with other objectives and bounds.

        with mn.open_problem(encoding, "highs") as opened:
            for unit in range(10):
                opened.set_objective(encoding.output.isel(fc3_unit=unit).sum(), sense="max")
                print(opened.solve(time_limit=60).bound)

    What is added to the model later takes no part.
    """
    return OpenProblem(problem, get_backend(backend), options)


class OpenProblem:
    """A problem on an open session.  Every cut stays, for cuts hold whatever the objective; no bound does.

    A solve starts from where the one before it ended: the session's basis where the solver keeps one, and the best points so far.
    Use it as a context manager; `open_problem` makes one.
    """

    def __init__(self, problem: Encoding | linopy.Model | Problem, backend: Backend, options: Options | None = None) -> None:
        self.problem = copy(problem) if isinstance(problem, Problem) else Modelled.of(problem)
        self._lowered = lower(self.problem.program, backend.features)
        self._separators = [*(Tangents(term) for term in self._lowered.cuts), *self.problem.separators]
        self._opened = OpenProgram(self._lowered.program, backend, options)
        self._widest = self.problem.program
        self._points: deque[Array] = deque(maxlen=KEPT_POINTS_MAX)
        self._last: Array | None = None

    def __enter__(self) -> OpenProblem:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the solver's memory back; another solve would hand the problem over again."""
        self._opened.close()

    def set_objective(self, objective: Any, offset: float = 0.0, *, sense: Literal["min", "max"] | None = None) -> None:
        """Replace the objective for all later solves.

        It is a linopy expression or variable of the model, summed over its dimensions, or an array with a number for each column of
        the program; ``sense`` stays as it was if left out.
        """
        if sense not in (None, "min", "max"):
            raise InputError(f"the sense is `{sense}`; expected `min` or `max`")
        cost, constant = self.problem.costs(objective)
        if not np.isfinite([*cost, constant, offset]).all():
            raise InputError("the objective holds numbers that are not finite; expected finite ones")
        maximise = self.problem.program.maximise if sense is None else sense == "max"
        sign = -1.0 if maximise else 1.0
        padded = np.zeros(self._opened.program.columns)
        padded[: len(cost)] = sign * cost
        for each in (self.problem, self._opened):
            changed = with_cost(each.program, padded[: each.program.columns], sign * (constant + offset))
            each.program = replace(changed, maximise=maximise)

    def set_bounds(self, variables: Any, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> None:
        """Replace the bounds of a linopy variable, or of some columns, for all later solves; what is None stays as it was.

        Big-Ms hold for the bounds that the problem was opened with, so none may be wider than those.
        """
        columns, now, widest = self.problem.columns(variables), self.problem.program, self._widest
        low, high = (
            program_end[columns] if given is None else np.broadcast_to(np.asarray(given, dtype=np.float64), columns.shape)
            for given, program_end in ((lower, now.lower), (upper, now.upper))
        )
        if not ((low >= widest.lower[columns]) & (high <= widest.upper[columns])).all():
            raise InputError("the bounds are wider than those that the problem was opened with; open it again with the wider ones")
        for each in (self.problem, self._opened):
            each.program = with_bounds(each.program, columns, low, high)

    def solve(
        self,
        *,
        time_limit: float = math.inf,
        mip_gap: float = 1e-4,
        limits: Limits | None = None,
        start: Start = "forward",
        on_event: OnEvent | None = None,
    ) -> Result:
        """Solve the problem as it stands now; arguments as those of `mipnet.solve`.

        The best points of earlier solves are starts too, as far as they are feasible now, unless ``start`` is ``"none"``.
        Rounds, cuts, nodes and the bound of the result are those of this solve alone.
        """
        limits = _in_sense(limits or Limits(time=time_limit, gap=mip_gap), maximise=self.problem.program.maximise)
        search = self.problem.searched() if isinstance(start, str) and start == "search" else None
        start_points = None if search is None else StartPoints(search, self._repaired, limits.time)
        answer = None if start_points is None else start_points.answer
        events = SolveEvents(on_event, self._opened.program.maximise)
        points = PointFunctions(self._repaired, answer)
        run = CutRounds(self._opened, self._separators, limits, events, points, self.problem.tighteners)
        if self._last is not None and not self._opened.program.integer.any():
            self._opened.trim(self._last)
        searched = () if start_points is None else start_points.before()
        outcome = run.solve(chain(self._starts(start, self.problem.start(start)), searched))
        self._last = run.last
        if run.best.x is not None:
            self._points.append(run.best.x[: self.problem.program.columns])
        _check_claims(run, outcome)
        return _result(self.problem, run, outcome, self._lowered.rewritten)

    def _starts(self, wanted: Start, first: Array | None) -> Iterator[Array]:
        found = [] if first is None else [self._lifted(first)]
        earlier = () if isinstance(wanted, str) and wanted == "none" else reversed(self._points)
        yield from (x for x in chain(found, map(self._repaired, earlier)) if x is not None)

    def _repaired(self, x: Array) -> Array | None:
        """The forward pass from a point's input and scores (rounded if they are binary), if that is a feasible point."""
        program = self.problem.program
        inside = np.clip(x[: program.columns], program.lower, program.upper)
        return self._lifted(self.problem.replay(inside, compare=False)[0])

    def _lifted(self, x: Array) -> Array | None:
        """The point as the backend takes it, lifted by the problem's own separators, if it is feasible."""
        point: Array | None = x
        for separator in self.problem.separators:
            point = None if point is None else separator.lift(point)
        feasible = None if point is None else if_feasible(self.problem.program, point)
        return None if feasible is None else self._lowered.complete(feasible)


def _in_sense(limits: Limits, *, maximise: bool) -> Limits:
    """The limits for the minimisation that a solver sees, from those in the model's own sense."""
    if not maximise:
        return limits
    bound, objective = (None if stop is None else -stop for stop in (limits.bound_stop, limits.objective_stop))
    return replace(limits, bound_stop=bound, objective_stop=objective)


def _check_claims(run: CutRounds, outcome: Outcome) -> None:
    """Raise `SolverFailure` if the solver contradicts a point that is known: by `infeasible`, or by a bound above its objective."""
    if run.best.x is None:
        return
    if outcome.status is Status.INFEASIBLE:
        raise SolverFailure(f"{run.opened.backend.name} says infeasible, but a point with objective {run.best.objective:g} is known")
    if run.best.bound - run.best.objective > 1e-3 * max(1.0, abs(run.best.objective)):
        raise SolverFailure(
            f"{run.opened.backend.name} claims a bound of {run.best.bound:g}, but a point with objective {run.best.objective:g} is known"
        )


def final_status(run: CutRounds, outcome: Outcome, gap: float) -> Status:
    """Why the whole solve stopped: the gap decides over `optimal`, the clock over `time limit`, whatever the last round said."""
    if gap <= run.limits.gap and outcome.status is not Status.INTERRUPTED:
        return Status.OPTIMAL
    if outcome.status is Status.OPTIMAL and gap <= run.limits.gap + REPLAY_TOLERANCE:
        return Status.OPTIMAL
    if outcome.status in (Status.OPTIMAL, Status.TIME_LIMIT):
        return Status.TIME_LIMIT if run.events.elapsed >= run.limits.time else Status.STALLED
    return outcome.status


def _result(problem: Problem, run: CutRounds, outcome: Outcome, rewritten: tuple[str, ...]) -> Result:
    program, bound = problem.program, run.best.bound
    max_error: float | None = None
    verified, point, x, objective = False, None, None, math.inf
    if run.best.x is not None:
        replayed, max_error = problem.replay(run.best.x[: program.columns])
        objective = float(program.cost @ replayed) + program.offset
        missed = max([program.misses(replayed), *(math.inf for s in problem.separators if s.lift(replayed) is None)])
        verified = (max_error is None or max_error <= REPLAY_TOLERANCE) and missed <= REPLAY_TOLERANCE
        x, point = problem.labelled(replayed)
    gap = math.inf if run.best.x is None else relative_gap(objective, bound)
    sign = -1.0 if program.maximise else 1.0
    return Result(
        status=final_status(run, outcome, gap),
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
        start_accepted=run.accepted,
        rewritten=rewritten,
        trace=tuple(run.events.trace),
        message=outcome.message,
    )
