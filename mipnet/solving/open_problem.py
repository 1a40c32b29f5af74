"""A problem that is handed to a solver once and solved many times, with different objectives and bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from itertools import chain
from types import TracebackType
from typing import Any, Literal

import linopy
import numpy as np
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend, Limits, OnEvent, Options, Outcome, SolverTolerances, get_backend
from mipnet.backend.checks import with_bounds, with_cost
from mipnet.backend.rewrites import rewrite
from mipnet.backend.rows import stack_rows
from mipnet.errors import InputError, UnsupportedError, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.model.encoding import Encoding
from mipnet.solving.carried_state import CarriedState
from mipnet.solving.completed_starts import CompletedStarts
from mipnet.solving.cut_rounds import CutRounds
from mipnet.solving.problem import Modelled, if_feasible
from mipnet.solving.problem import Problem as Problem
from mipnet.solving.problem import Start as Start
from mipnet.solving.program_sessions import OpenProgram
from mipnet.solving.result import Result as Result
from mipnet.solving.result import check_outcome, make_result
from mipnet.solving.separators import Tangents
from mipnet.solving.solve_state import PointFunctions, SolveEvents
from mipnet.solving.start_points import StartPoints

CONVERSION_SECONDS_AFTER_DEADLINE = 0.5
"""Seconds after the deadline in which a problem is still converted, so that a forward pass can be its answer."""


PREPARED_NONZEROS_MIN = 1_000_000
"""A problem with more nonzeros computes before a solve what its replay needs, so that the result comes soon after Ctrl-C."""


KEPT_POINTS_MAX = 16
"""Number of best points of earlier solves that are kept as starts."""


@suggest_keywords
def open_problem(
    problem: Encoding | linopy.Model | Problem,
    backend: str | Backend = "highs",
    *,
    options: Options | None = None,
    time_limit: TimeLimit = None,
) -> OpenProblem:
    """Open a problem that is handed to a solver once and solved many times, with different objectives and bounds.

        with mn.open_problem(encoding, "highs") as opened:
            for unit in range(10):
                opened.set_objective(encoding.output.isel(fc3_unit=unit).sum(), sense="max")
                print(opened.solve(time_limit=60).bound)

    Arguments are as for `solve`; ``time_limit`` is that of this call.  Later additions to the model have no effect.  Raises
    `TimeLimitReached` if the time ends before the program is made.
    """
    return OpenProblem(problem, get_backend(backend), options, Deadline.after(time_limit))


class OpenProblem:
    """A problem on an open session.

    A solve starts with the last basis, if the solver keeps one, and with the best points of earlier solves.  Cuts stay, because they
    are valid for every objective; dual bounds do not.  Use it as a context manager.  `open_problem` creates it.
    """

    @suggest_keywords
    def __init__(
        self,
        problem: Encoding | linopy.Model | Problem,
        backend: Backend,
        options: Options | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> None:
        work, deadline = "turn the model into a program", deadline.extended(CONVERSION_SECONDS_AFTER_DEADLINE)
        deadline.check(work)
        self.problem = copy(problem) if isinstance(problem, Problem) else Modelled.of(problem)
        deadline.check(work)
        self._rewritten = rewrite(self.problem.program, backend.features)
        self._separators = [*(Tangents(term) for term in self._rewritten.cuts), *self.problem.separators]
        self._opened = OpenProgram(self._rewritten.program, backend, options)
        self._first_program = self.problem.program
        self._points: deque[Array] = deque(maxlen=KEPT_POINTS_MAX)
        self._last_point: Array | None = None

    def __enter__(self) -> OpenProblem:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the solver's memory.  A later solve opens the problem again."""
        self._opened.close()

    def carried(self) -> CarriedState:
        """Return what later solves start from, apart from the state of the solver."""
        self._trim()
        rows = stack_rows(*self._opened.rows) if self._opened.rows else None
        return CarriedState(rows, self._points[-1] if self._points else None)

    @suggest_keywords
    def restart(self, state: CarriedState) -> None:
        """Start the next solve from this state alone, in a new session: its result is the same in another process."""
        self._opened.close()
        self._opened.rows[:] = [] if state.rows is None else [state.rows]
        self._points.clear()
        self._points.extend([] if state.point is None else [state.point])
        self._last_point = None

    def _trim(self) -> None:
        """Remove the cuts of a linear program that no longer bind, if there are many."""
        if self._last_point is not None and not self._opened.program.integer.any():
            self._opened.trim(self._last_point)

    @suggest_keywords
    def set_objective(self, objective: Any, offset: float = 0.0, *, sense: Literal["min", "max"] | None = None) -> None:
        """Replace the objective for all later solves.

        Parameters
        ----------
        objective
            A linopy expression or variable of the model, which is summed over its dimensions, or an array with one number per column of
            the program.
        offset
            A constant that is added to the objective.
        sense
            ``"min"``, ``"max"``, or None to keep the current sense.
        """
        if sense not in (None, "min", "max"):
            raise InputError(f"the sense is `{sense}`; expected `min` or `max`")
        if self.problem.program.quadratic is not None:
            raise UnsupportedError("the problem was opened with a quadratic objective, which cannot be replaced; open a model without it")
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

    @property
    def tolerances(self) -> SolverTolerances:
        """The tolerances with which the solver works on the problem."""
        return self._opened.backend.tolerances(self._opened.options, fine=self._opened.program.fine)

    def use_fine_tolerances(self) -> bool:
        """Solve with the smallest tolerances of the backend from now on; return False if the options set tolerances already."""
        if (self._opened.options or {}).keys() & self._opened.backend.tolerance_options.keys():
            return False
        self.close()
        for each in (self.problem, self._opened):
            each.program = replace(each.program, fine=True)
        return True

    @suggest_keywords
    def set_bounds(self, variables: Any, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> None:
        """Replace the bounds of a linopy variable, or of columns given by number, for all later solves; None keeps the current bounds.

        Raises `InputError` if they are wider than the bounds that the problem was opened with, for which its big-Ms are valid.
        """
        columns, now, first = self.problem.columns(variables), self.problem.program, self._first_program
        low, high = (
            current[columns] if given is None else np.broadcast_to(self.problem.values_for(variables, given), columns.shape)
            for given, current in ((lower, now.lower), (upper, now.upper))
        )
        if not ((low >= first.lower[columns]) & (high <= first.upper[columns])).all():
            raise InputError("the bounds are wider than those that the problem was opened with; open it again with the wider ones")
        for each in (self.problem, self._opened):
            each.program = with_bounds(each.program, columns, low, high)

    @suggest_keywords
    def solve(
        self,
        *,
        time_limit: TimeLimit = None,
        mip_gap: float = 1e-4,
        limits: Limits | None = None,
        start: Start = "forward",
        on_event: OnEvent | None = None,
    ) -> Result:
        """Solve the current problem; arguments are as for `mipnet.solve`.

        A solver that does not react at the end of ``time_limit`` is left to itself; ``limits.time`` alone may end this solve before.

        The best points of earlier solves are used as starts if they are feasible now, unless ``start`` is ``"none"``.  Rounds, cuts,
        nodes and the bound of the result are those of this solve alone.
        """
        self._opened.deadline = Deadline.after(time_limit)
        limits = _for_minimisation(limits or Limits(gap=mip_gap), maximise=self.problem.program.maximise)
        deadline = self._opened.deadline.within(limits.time)
        if time_limit is None:
            self._opened.deadline = deadline
        search = self.problem.gradient_search() if isinstance(start, str) and start == "search" else None
        start_points = None if search is None else StartPoints(search, self._repaired, deadline)
        suggest = None if start_points is None else start_points.during_solve
        events = SolveEvents(on_event, self._opened.program.maximise)
        points = PointFunctions(self._repaired, suggest)
        run = CutRounds(self._opened, self._separators, limits, events, points, self.problem.tighteners, deadline=deadline)
        self._trim()
        searched = () if start_points is None else start_points.before_solve()
        if self.problem.program.rows.matrix.nnz > PREPARED_NONZEROS_MIN:
            self.problem.prepare_replay()
        starts = chain(self._starts(start, self.problem.start(start)), searched)
        outcome = run.solve(starts if isinstance(start, str) and start == "none" else self._or_completed(starts, deadline))
        self._last_point = run.last_point
        try:
            return self._result(run, outcome)
        except KeyboardInterrupt:  # the solve is over; only its replay was cut short
            run.interrupted = True
            return self._result(run, outcome)

    def _result(self, run: CutRounds, outcome: Outcome) -> Result:
        """Check and replay the best point of a solve, and keep it for later solves."""
        check_outcome(run, outcome)
        integral = run.make_integral()
        if run.best.x is not None and integral:
            self._points.append(run.best.x[: self.problem.program.columns])
        return make_result(self.problem, run, outcome, self._rewritten.rewritten, integral=integral)

    def _starts(self, wanted: Start, first: Array | None) -> Iterator[Array]:
        found = [] if first is None else [self._lifted(first)]
        earlier = () if isinstance(wanted, str) and wanted == "none" else reversed(self._points)
        yield from (x for x in chain(found, map(self._repaired, earlier)) if x is not None)

    def _or_completed(self, starts: Iterator[Array], deadline: Deadline) -> Iterator[Array]:
        """Yield the starts; if there are none and the networks are part of a user's model, look for a point that the model accepts."""
        first = next(starts, None)
        if first is not None:
            yield first
            yield from starts
            return
        network, search = self.problem.embedded_columns(), self.problem.gradient_search()
        if network is None or search is None or self._separators:
            return
        network = np.concatenate([network, network[self._rewritten.members]])
        completed = CompletedStarts(self._opened, self._forward, self._repaired, network, search.free, deadline)
        found = next(chain(completed, StartPoints(search, self._repaired, completed.deadline).before_solve()), None)
        yield from () if found is None else (found,)

    def _forward(self, x: Array) -> Array:
        """Return the forward pass from the input and the scores of a point, feasible or not."""
        program = self.problem.program
        inside = np.clip(x[: program.columns], program.lower, program.upper)
        return self._rewritten.complete(self.problem.replay(inside, compare=False)[0])

    def _repaired(self, x: Array) -> Array | None:
        """Return the forward pass from the input and the scores of a point, or None if it is not feasible; binary scores are rounded."""
        program = self.problem.program
        inside = np.clip(x[: program.columns], program.lower, program.upper)
        return self._lifted(self.problem.replay(inside, compare=False)[0])

    def _lifted(self, x: Array) -> Array | None:
        """Return a point of the rewritten program: the point lifted by the separators of the problem, or None if it is not feasible."""
        point: Array | None = x
        for separator in self.problem.separators:
            point = None if point is None else separator.lift(point)
        feasible = None if point is None else if_feasible(self.problem.program, point)
        return None if feasible is None else self._rewritten.complete(feasible)


def _for_minimisation(limits: Limits, *, maximise: bool) -> Limits:
    """Return limits for the minimisation that a solver gets, from limits in the sense of the model."""
    if not maximise:
        return limits
    bound, objective = (None if stop is None else -stop for stop in (limits.bound_stop, limits.objective_stop))
    return replace(limits, bound_stop=bound, objective_stop=objective)
