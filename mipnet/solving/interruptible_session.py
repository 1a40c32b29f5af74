"""A session whose solve ends soon after Ctrl-C or a deadline, also while the solver does not react, as in a presolve or in a large LP."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from mipnet.arrays import Array, Columns
from mipnet.backend import Event, LazyRows, Limits, OnEvent, Outcome, PointSource, Rows, Session, Status
from mipnet.backend.checks import DEFAULT_LIMITS
from mipnet.backend.progress import run_in_thread
from mipnet.limits.deadline import NO_DEADLINE, Deadline

REACTION_SECONDS_MAX = 0.5
"""Seconds that a solver gets to end after Ctrl-C; then it is left to itself, and ends in its thread as soon as it can."""

SOLVER_OVERTIME_SECONDS = 0.1
"""Seconds after the deadline in which a solver may end by its own time limit, before it is interrupted."""


class SolverWasLeft(Exception):
    """Raised in the thread of a solver that was left to itself, by the functions that it calls; it ends that solve."""


class InterruptibleSession(Session):
    """A session around another one; ``left`` is True once its solver was left to itself, and it cannot be used any more.

    ``interrupted`` of its outcomes is True if Ctrl-C came, here or in the solver, and not after `interrupt`.  After ``deadline``, which is
    that of the whole call, a solve ends as after Ctrl-C, with the status `time limit`; the limits of a solve may end it before.
    """

    def __init__(self, session: Session, deadline: Deadline = NO_DEADLINE) -> None:
        self._session, self.deadline, self.left, self._stopped = session, deadline, False, False

    def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
        """Solve the program; at the end of the time or after Ctrl-C return what its events said, if the solver does not end soon."""
        began, found, best, self._stopped = time.perf_counter(), list[Outcome](), _Best(), False

        def see(event: Event) -> None:
            self._check_left()
            best.learn(event)
            if on_event is not None:
                on_event(event)

        run = run_in_thread(
            lambda: found.append(self._session.solve(limits, see)),
            self._session.interrupt,
            seconds=self.deadline.seconds + SOLVER_OVERTIME_SECONDS,
            patience=REACTION_SECONDS_MAX,
            when_left=self._session.close,
        )
        if run.ended:
            outcome = found[0]
            status = Status.TIME_LIMIT if run.late and not run.ctrl_c and outcome.status is Status.INTERRUPTED else outcome.status
            ctrl_c = outcome.interrupted and not (self._stopped or run.late)
            return replace(outcome, status=status, interrupted=run.ctrl_c or ctrl_c)
        self.left = True
        x, objective = best.point
        return Outcome(
            Status.INTERRUPTED if run.ctrl_c else Status.TIME_LIMIT,
            x,
            objective,
            best.bound,
            time.perf_counter() - began,
            best.nodes,
            message=f"the solver did not react to {'Ctrl-C' if run.ctrl_c else 'the end of the time'}",
            interrupted=run.ctrl_c,
        )

    def _check_left(self) -> None:
        if self.left:
            raise SolverWasLeft

    def start(self, x: Array) -> None:
        """Set the first incumbent of the next solve."""
        self._session.start(x)

    def suggest(self, source: PointSource) -> None:
        """Ask ``source`` for points during the next solve."""

        def ask(x: Array | None) -> Array | None:
            self._check_left()
            return source(x)

        self._session.suggest(ask)

    def lazy(self, rows: LazyRows) -> None:
        """Use these lazy rows in the next solve only."""

        def separate(x: Array) -> Rows:
            self._check_left()
            return rows.separate(x)

        self._session.lazy(replace(rows, separate=separate))

    def add_rows(self, rows: Rows) -> None:
        """Append rows for all later solves."""
        self._session.add_rows(rows)

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace the objective for all later solves."""
        self._session.set_objective(cost, offset)

    def set_bounds(self, columns: Columns, lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns for all later solves."""
        self._session.set_bounds(columns, lower, upper)

    def interrupt(self) -> None:
        """Stop the current solve as soon as the solver can."""
        self._stopped = True
        self._session.interrupt()

    def close(self) -> None:
        """Release the solver's memory; a solver that was left to itself releases it when it ends."""
        if not self.left:
            self._session.close()


class _Best:
    """The best point and bound that the events of a solve have shown."""

    def __init__(self) -> None:
        self.point: tuple[Array | None, float | None] = (None, None)
        self.bound, self.nodes = -math.inf, 0

    def learn(self, event: Event) -> None:
        """Keep the point of an incumbent, if the solver shows it, and the bound."""
        if event.x is not None:
            self.point = (event.x, event.objective)
        self.bound = self.bound if event.bound is None else max(self.bound, event.bound)
        self.nodes = max(self.nodes, event.nodes or 0)
