"""Cut rounds: solve, add rows that the solution violates, and solve again, on sessions that stay open.

Constraints that are not part of the program are separators: log-sum-exp terms that the backend does not support, or rows that are too
many to add at once.  Every round solves a relaxation, so its dual bound is valid.  A solution becomes an incumbent only after every
separator has lifted it to a feasible point.  The first rounds solve the program without integrality, where a round takes little time.
Later rounds solve the program itself.  With a backend that supports lazy rows, the separators are called at the nodes of the
branch-and-bound tree, and one round is usually enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Event, Feature, LazyRows, Limits, OnEvent, Outcome, Program, Rows, Session, Status, relative_gap
from mipnet.backend.rows import stack_rows
from mipnet.errors import SolverFailure, TimeLimitReached
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.solving.integral_point import integral_point
from mipnet.solving.program_sessions import OpenProgram
from mipnet.solving.separators import Separator
from mipnet.solving.solve_state import BestKnown, PointFunctions, SolveCounts, SolveEvents

LIFT_TOLERANCE = 1e-6
"""Largest violation of a constraint by a lifted point, relative to the size of the constraint, and of integrality in the tree."""

CUT_ROUNDS_MAX = 500
"""Largest number of cut rounds of one solve."""

FIRST_ROUND_SECONDS = 2.0
"""Time limit of the first integer round, in seconds; it doubles after each round that reaches it."""

STARTS_SECONDS_MIN = 0.2
"""Seconds, also after the deadline, in which the starts are tried."""

INTEGRAL_POINT_SECONDS_MIN = 0.3
"""Seconds, also after the deadline, in which the point of the solver is made integral."""

RELAXED_ROUNDS_TIME_SHARE = 0.2
"""Largest share of the time limit for the rounds without integrality."""


@dataclass(eq=False)
class CutRounds:
    """One solve: its rounds on the open program, and its state.

    Attributes
    ----------
    opened
        The program as the backend takes it; all points are points of it.
    separators
        The constraints that are not part of the program.
    limits, deadline, events, points
        The limits of the solve, for a minimisation, whose time is that of the ``deadline``; its events; and functions that compute feasible
        points.
    tighteners
        Separators of inequalities that are valid for all feasible points.  They are used in the rounds without integrality only.
    best, counts
        The best point and bound, and the counts.
    last_point
        The solution of the last round, feasible or not.
    start_accepted
        Whether the solver accepted the first point, or None if it does not report this.
    interrupted
        True once Ctrl-C came.  The solve may have ended for another reason before, as with a closed gap.
    session_objective
        The objective of the best point that the session of the current round was given.
    """

    opened: OpenProgram
    separators: Sequence[Separator]
    limits: Limits
    events: SolveEvents
    points: PointFunctions = field(default_factory=PointFunctions)
    tighteners: Sequence[Separator] = ()
    best: BestKnown = field(default_factory=BestKnown)
    counts: SolveCounts = field(default_factory=SolveCounts)
    last_point: Array | None = None
    start_accepted: bool | None = None
    interrupted: bool = False
    session_objective: float = math.inf
    deadline: Deadline = NO_DEADLINE

    @property
    def program(self) -> Program:
        """The current program, without the rows that were added."""
        return self.opened.program

    @property
    def closed(self) -> bool:
        """True once objective and bound are within the gap limit."""
        return self.best.x is not None and self.limits.closed(self.best.objective, self.best.bound)

    def solve(self, starts: Iterable[Array] = ()) -> Outcome:
        """Run all rounds, and return the outcome of the last one.

        ``starts`` are feasible points.  Ctrl-C between two rounds returns the status
        `interrupted` and keeps the best point.  Any other exception closes the sessions, because a change may have reached them only in
        part, and is raised again, except at the end of the time, and if the solver fails after the first round.
        """
        time_for_starts = self.deadline.at_least(STARTS_SECONDS_MIN)
        try:
            for start in starts:
                self._offer(start)
                if self.target_reached or time_for_starts.passed:
                    break
            if self.separators and not self.opened.rows:
                self._add_rows([separator.first(self.best.x, self.program.columns) for separator in self.separators])
            if not self.decided and (self.separators or self.tighteners) and self.program.integer.any():
                self._relaxed_rounds()
            return self._outcome(Status.TARGET, "decided before the search") if self.decided else self._integer_rounds()
        except KeyboardInterrupt:
            self.interrupted = True
            self.opened.close()
            return self._outcome(Status.INTERRUPTED, "interrupted")
        except TimeLimitReached as error:
            return self._outcome(Status.TIME_LIMIT, str(error))
        except SolverFailure as error:
            self.opened.close()
            if not self.counts.rounds:
                raise
            return self._outcome(Status.STALLED, str(error))  # what the rounds before have found holds
        except BaseException:
            self.opened.close()
            raise

    def make_integral(self) -> bool:
        """Replace the best point by one whose integers are integers; return False if there is none near, and keep the point."""
        if self.best.x is None or not self.program.integer.any():
            return True
        try:
            found = integral_point(self.opened, self.separators, self.best.x, self.deadline.at_least(INTEGRAL_POINT_SECONDS_MIN))
        except KeyboardInterrupt:
            self.interrupted, found = True, None
        if found is not None:
            self.best.x, self.best.objective = found, self._objective(found)
        return found is not None

    def _outcome(self, status: Status, message: str) -> Outcome:
        return Outcome(status, None, None, self.best.bound, self.events.elapsed, message=message)

    def _relaxed_rounds(self) -> None:
        """Solve the program without integrality in rounds; the rows that they add stay for the later rounds."""
        stop = self.deadline.share(RELAXED_ROUNDS_TIME_SHARE)
        while self.counts.rounds < CUT_ROUNDS_MAX and not stop.passed:
            session, last = self.opened.session(relaxed=True), self.best.bound
            outcome = session.solve(Limits(time=stop.seconds), self._handler(self.events.elapsed))
            self.counts.rounds += 1
            self.counts.iterations += outcome.iterations
            if outcome.interrupted:
                raise KeyboardInterrupt
            if outcome.x is None or outcome.status is not Status.OPTIMAL:
                break
            self._offer_repaired(outcome.x)
            self.best.bound = max(self.best.bound, outcome.bound)
            cuts = self._separate(outcome.x, [*self.separators, *self.tighteners])
            if not cuts or self.decided or relative_gap(self.best.bound, last) < self.limits.gap:
                break
            self._add_rows(cuts)

    def _integer_rounds(self) -> Outcome:
        """Solve the program in rounds until no separator finds a violated row, or a limit is reached; return the last outcome."""
        round_seconds, single = FIRST_ROUND_SECONDS, not self.separators or self.in_tree or not self.program.integer.any()
        while True:
            session = self.opened.session()
            outcome = self._solve_round(session, self.deadline if single else self.deadline.within(round_seconds))
            cut_short = outcome.status is Status.TIME_LIMIT and not self.deadline.passed
            if self.decided:
                return self._target_outcome(outcome)
            if not self.separators or self.closed or self.counts.rounds >= CUT_ROUNDS_MAX:
                return outcome
            if outcome.interrupted:
                return replace(outcome, status=Status.INTERRUPTED)
            if outcome.status is not Status.OPTIMAL and not cut_short:
                return outcome
            cuts = [] if outcome.x is None else self._separate(outcome.x, self.separators)
            if not cuts and not cut_short:
                return outcome
            round_seconds *= 2 if cut_short else 1
            self._add_rows(cuts)

    def _target_outcome(self, outcome: Outcome) -> Outcome:
        final = outcome.status is Status.INFEASIBLE or (outcome.status is Status.OPTIMAL and not self.separators)
        return outcome if final else replace(outcome, status=Status.TARGET)

    def _solve_round(self, session: Session, stop: Deadline) -> Outcome:
        """Solve the program once, and update the best point, the bound and the counts."""
        self.session_objective = math.inf
        if self.best.x is not None and Feature.START in self.opened.backend.features:
            session.start(self.best.x)
            self.session_objective = self.best.objective
        if (self.points.suggest is not None or self.in_tree) and Feature.SUGGEST in self.opened.backend.features:
            session.suggest(partial(self._suggest, session))
        written: list[Rows] = []
        if self.in_tree:
            session.lazy(LazyRows(partial(self._violated_rows, session), np.arange(self.program.columns), written.append))
        outcome = session.solve(self._limits(stop.seconds), self._handler(self.events.elapsed, session))
        self._add_rows(written)
        self.counts.rounds += 1
        self.counts.nodes += outcome.nodes
        self.counts.iterations += outcome.iterations
        self.start_accepted = outcome.start_accepted if self.start_accepted is None else self.start_accepted
        if outcome.status is not Status.INFEASIBLE:
            self.best.bound = max(self.best.bound, outcome.bound)
        self.interrupted |= outcome.interrupted
        if outcome.x is not None:
            self.last_point = outcome.x
            self._offer_lifted(outcome.x)
        return outcome

    def _violated_rows(self, session: Session, x: Array) -> Rows:
        """Return the rows that a point of the tree violates.  If it is integral, lift it; the session gets the result by `_suggest`."""
        found = [rows for rows in (s.separate(x, self.program.columns) for s in self.separators) if len(rows)]
        integers = x[self.program.integer]
        integral = float(np.abs(integers - np.round(integers)).max(initial=0.0)) <= LIFT_TOLERANCE
        if integral and self._objective(x) < self.best.objective:
            self._offer_lifted(x)
            self._interrupt_at_target(session)
        return stack_rows(*found) if found else self.program.rows.part(np.zeros(len(self.program.rows), dtype=np.bool_))

    @property
    def in_tree(self) -> bool:
        """True if the separators are called at the nodes of the branch-and-bound tree, instead of after each round."""
        return bool(self.separators) and bool(self.program.integer.any()) and Feature.LAZY in self.opened.backend.features

    def _suggest(self, session: Session, x: Array | None) -> Array | None:
        """Return the best point, or None if the session knows one that is as good; ``x`` is the solution of the session's relaxation."""
        found = None if self.points.suggest is None else self.points.suggest(x, self.best.x)
        if found is not None:
            self._offer(found)
            self._interrupt_at_target(session)
        if self.best.objective >= self.session_objective or self.best.objective > self.events.objective:
            return None
        self.session_objective = self.best.objective
        return self.best.x

    def _limits(self, seconds: float) -> Limits:
        """Return the limits of one round; without an objective to stop at if incumbents of the session may violate a separator."""
        nodes = None if self.limits.nodes is None else max(0, self.limits.nodes - self.counts.nodes)
        stop = None if self.separators else self.limits.objective_stop
        return replace(self.limits, time=seconds, nodes=nodes, objective_stop=stop)

    @property
    def target_reached(self) -> bool:
        """True once a feasible point is at least as good as the objective to stop at."""
        return self.limits.objective_stop is not None and self.best.objective <= self.limits.objective_stop

    def _interrupt_at_target(self, session: Session) -> None:
        if self.target_reached:
            session.interrupt()

    @property
    def decided(self) -> bool:
        """True once a feasible point has reached the objective to stop at, or the bound has reached the bound to stop at."""
        return self.target_reached or (self.limits.bound_stop is not None and self.best.bound >= self.limits.bound_stop)

    def _separate(self, x: Array, separators: Sequence[Separator]) -> list[Rows]:
        """Return rows that ``x`` violates, or none if the violation is as small as that of the rows that the solver already has."""
        found = [rows for rows in (s.separate(x, self.program.columns) for s in separators) if len(rows)]
        return found if _largest_violation(found, x) > 2 * _largest_violation(self.opened.rows, x) else []

    def _add_rows(self, cuts: list[Rows]) -> None:
        self.opened.rows += cuts
        self.counts.cuts += sum(len(rows) for rows in cuts)
        if self.counts.rounds and cuts:
            text = f"round {self.counts.rounds}: {self.counts.cuts} cuts"
            known = (self.best.known_objective, self.best.known_bound, self.counts.nodes)
            self.events.emit(Event("bound", self.events.elapsed, *known, text))

    def _offer_lifted(self, x: Array) -> None:
        """Make feasible points of a solution, by the separators and by a forward pass, and keep the best one."""
        lifted: Array | None = x
        for separator in self.separators:
            lifted = None if lifted is None else separator.lift(lifted)
        # a lifted point may violate the program itself, for example a budget on the loss
        if lifted is not None and (lifted is x or self.program.relative_violation(lifted) <= LIFT_TOLERANCE):
            self._offer(lifted)
        self._offer_repaired(x)

    def _offer_repaired(self, x: Array) -> None:
        repaired = None if self.points.repair is None else self.points.repair(x)
        if repaired is not None:
            self._offer(repaired)

    def _offer(self, x: Array) -> None:
        """Keep a feasible point if it is the best one."""
        objective = self._objective(x)
        if objective < self.best.objective:
            self.best.x, self.best.objective = x, objective
            self.events.emit(Event("incumbent", self.events.elapsed, objective, self.best.known_bound, self.counts.nodes))

    def _handler(self, since: float, session: Session | None = None) -> OnEvent:
        """Return a handler that passes on the events of a round that began ``since`` seconds after the solve.

        With separators, incumbents of the session are lifted first.  Without a ``session``, the round has no integrality, and its
        solutions are not incumbents.
        """

        def handle(event: Event) -> None:
            if event.kind == "incumbent" and (self.separators or session is None):
                if event.x is not None and session is not None:
                    self._offer_lifted(event.x)
                    self._interrupt_at_target(session)
                return
            if event.bound is not None:
                self.best.bound = max(self.best.bound, event.bound)
            objective = self.best.known_objective if self.separators or session is None else event.objective
            self.events.emit(replace(event, time=since + event.time, bound=self.best.known_bound, objective=objective, x=None))

        return handle

    def _objective(self, x: Array) -> float:
        return self.program.minimised(x)


def _largest_violation(found: Sequence[Rows], x: Array) -> float:
    return max((float(rows.violation(x).max(initial=0.0)) for rows in found), default=0.0)
