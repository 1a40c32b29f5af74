"""Cut rounds: solve, add the rows that the point violates, solve again, on sessions that stay open.

What a program leaves out (log-sum-exp terms that the backend lacks, rows too many to write down) is a `Separator`.  Every round
solves a relaxation, so its bound is a bound; a point counts only once every separator has lifted it to a true one.  Rounds are
first run on the program without integrality, where a round costs little, and then for as long as needed on the program itself.  With a
backend that takes lazy rows a round of the latter is one tree, at whose nodes the separators act, and there is seldom a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Event, Feature, Lazy, Limits, OnEvent, Outcome, Program, Rows, Session, Status, relative_gap
from mipnet.backend.program import stack
from mipnet.solving.open_program import OpenProgram
from mipnet.solving.separators import Separator

LIFT_TOLERANCE = 1e-6
"""A lifted point counts if it violates no other constraint by more than this, relative to the constraint's size, as solvers do."""

CUT_ROUNDS_MAX = 500
"""Largest number of cut rounds of one solve."""

FIRST_ROUND_SECONDS = 2.0
"""Time limit of the first integer round; each later round that is stopped by its limit has twice as much."""


@dataclass(eq=False)
class SolveEvents:
    """The events of one solve: on its own clock, in the model's own sense, each incumbent better than those before.

    ``trace`` keeps all events but log lines; ``shown`` is the objective of the best incumbent in an event.
    """

    on_event: OnEvent | None
    maximise: bool
    began: float = field(default_factory=time.perf_counter)
    shown: float = math.inf
    trace: list[Event] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds since the solve began."""
        return time.perf_counter() - self.began

    def emit(self, event: Event) -> None:
        """Pass an event on, unless it is an incumbent that is no better than one that was shown."""
        if event.objective is not None:
            if event.kind == "incumbent" and event.objective >= self.shown:
                return
            self.shown = min(self.shown, event.objective)
            event = replace(event, objective=self.shown)
        if self.maximise:
            event = replace(event, objective=_negate(event.objective), bound=_negate(event.bound))
        event = replace(event, time=max(event.time, self.trace[-1].time if self.trace else 0.0))
        if event.kind != "log":
            self.trace.append(event)
        if self.on_event is not None:
            self.on_event(event)


@dataclass(eq=False)
class BestKnown:
    """The best true point across all rounds with its objective, and the largest proven bound."""

    x: Array | None = None
    objective: float = math.inf
    bound: float = -math.inf

    @property
    def shown_objective(self) -> float | None:
        """The objective as events show it: None without a point."""
        return None if self.x is None else self.objective

    @property
    def shown_bound(self) -> float | None:
        """The bound as events show it: None if nothing is proven."""
        return None if self.bound == -math.inf else self.bound


@dataclass(eq=False)
class SolveCounts:
    """Counts of one solve over all of its rounds."""

    nodes: int = 0
    iterations: int = 0
    rounds: int = 0
    cuts: int = 0


@dataclass(frozen=True, eq=False)
class PointFunctions:
    """How points are found beside the solver.

    ``repair`` makes a true point of any point, integral or not (a forward pass from its input and scores), or returns None.  ``suggest``
    makes one of the point of a relaxation and the best known point, where there are any.
    """

    repair: Callable[[Array], Array | None] | None = None
    suggest: Callable[[Array | None, Array | None], Array | None] | None = None


@dataclass(eq=False)
class CutRounds:
    """One solve: its rounds on the open program, and what is known across them.

    ``opened`` is the program that the backend takes, ``separators`` what was left out of it; points have the columns of the program.
    ``tighteners`` cut no integral point, and act only in the rounds without integrality.  ``last`` is the point of the last round, true
    or not.  ``ended`` is True once a round was interrupted because a true point is good enough; ``told`` is the objective of the best
    point that the session was given.
    """

    opened: OpenProgram
    separators: Sequence[Separator]
    limits: Limits
    events: SolveEvents
    points: PointFunctions = PointFunctions()
    tighteners: Sequence[Separator] = ()
    best: BestKnown = field(default_factory=BestKnown)
    counts: SolveCounts = field(default_factory=SolveCounts)
    last: Array | None = None
    accepted: bool | None = None
    ended: bool = False
    told: float = math.inf

    @property
    def program(self) -> Program:
        """The program as it stands, without the rows that were added."""
        return self.opened.program

    @property
    def closed(self) -> bool:
        """True once objective and bound are within the gap limit."""
        return self.best.x is not None and relative_gap(self.best.objective, self.best.bound) <= self.limits.gap

    def solve(self, starts: Iterable[Array] = ()) -> Outcome:
        """The last round's outcome; Ctrl-C outside of a round, where no session hears it, keeps the best point as well.

        ``starts`` are true points.  Whatever else ends this by an exception closes the sessions: they may have heard half of a change.
        """
        try:
            for start in starts:
                self._offer(start)
                if self.reached:
                    break
            if self.separators and not self.opened.rows:
                self._add([separator.first(self.best.x, self.program.columns) for separator in self.separators])
            if not self.decided and (self.separators or self.tighteners) and self.program.integer.any():
                self._relax()
            return self._outcome(Status.TARGET, "decided before the search") if self.decided else self._rounds()
        except KeyboardInterrupt:
            self.opened.close()
            return self._outcome(Status.INTERRUPTED, "interrupted")
        except BaseException:
            self.opened.close()
            raise

    def _outcome(self, status: Status, message: str) -> Outcome:
        return Outcome(status, None, None, self.best.bound, self.events.elapsed, message=message)

    def _relax(self) -> None:
        """Rounds without integrality, within a fifth of the time; what they cut off is cut off for good."""
        stop = 0.2 * self.limits.time
        while self.counts.rounds < CUT_ROUNDS_MAX and self.events.elapsed < stop:
            session, last = self.opened.session(relaxed=True), self.best.bound
            outcome = session.solve(Limits(time=max(0.0, stop - self.events.elapsed)), self._hear(self.events.elapsed))
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
            self._add(cuts)

    def _rounds(self) -> Outcome:
        slice_s, plain = FIRST_ROUND_SECONDS, not self.separators or self.in_tree or not self.program.integer.any()
        while True:
            session = self.opened.session()
            rest = max(0.0, self.limits.time - self.events.elapsed)
            outcome = self._round(session, rest if plain else min(rest, slice_s))
            sliced = outcome.status is Status.TIME_LIMIT and self.events.elapsed < self.limits.time
            if self.decided and not (outcome.interrupted and not self.ended):
                return self._settled(outcome)
            if not self.separators or self.closed or self.counts.rounds >= CUT_ROUNDS_MAX:
                return outcome
            if outcome.interrupted:
                return replace(outcome, status=Status.INTERRUPTED)
            if outcome.status is not Status.OPTIMAL and not sliced:
                return outcome
            cuts = [] if outcome.x is None else self._separate(outcome.x, self.separators)
            if not cuts and not sliced:
                return outcome
            slice_s *= 2 if sliced else 1
            self._add(cuts)

    def _settled(self, outcome: Outcome) -> Outcome:
        final = outcome.status is Status.INFEASIBLE or (outcome.status is Status.OPTIMAL and not self.separators)
        return outcome if final else replace(outcome, status=Status.TARGET)

    def _round(self, session: Session, seconds: float) -> Outcome:
        self.told = math.inf
        if self.best.x is not None and Feature.START in self.opened.backend.features:
            session.start(self.best.x)
            self.told = self.best.objective
        if (self.points.suggest is not None or self.in_tree) and Feature.SUGGEST in self.opened.backend.features:
            session.suggest(partial(self._answer, session))
        written: list[Rows] = []
        if self.in_tree:
            session.lazy(Lazy(partial(self._missed, session), np.arange(self.program.columns), written.append))
        outcome = session.solve(self._limits(seconds), self._hear(self.events.elapsed, session))
        self._add(written)
        self.counts.rounds += 1
        self.counts.nodes += outcome.nodes
        self.counts.iterations += outcome.iterations
        self.accepted = outcome.start_accepted if self.accepted is None else self.accepted
        if outcome.status is not Status.INFEASIBLE:
            self.best.bound = max(self.best.bound, outcome.bound)
        if outcome.x is not None:
            self.last = outcome.x
            self._offer_lifted(outcome.x)
        return outcome

    def _missed(self, session: Session, x: Array) -> Rows:
        """The rows that a point of the tree violates; what can be made true of an integral one is kept, and told when asked for points."""
        found = [rows for rows in (s.separate(x, self.program.columns) for s in self.separators) if len(rows)]
        whole = x[self.program.integer]
        if float(np.abs(whole - np.round(whole)).max(initial=0.0)) <= LIFT_TOLERANCE and self._objective(x) < self.best.objective:
            self._offer_lifted(x)
            self._end_if_reached(session)
        return stack(*found) if found else self.program.rows.part(np.zeros(len(self.program.rows), dtype=np.bool_))

    @property
    def in_tree(self) -> bool:
        """True if separators act at the nodes of one tree instead of in rounds."""
        return bool(self.separators) and bool(self.program.integer.any()) and Feature.LAZY in self.opened.backend.features

    def _answer(self, session: Session, x: Array | None) -> Array | None:
        """The best point if the session does not know it or a better one; ``x`` is that of its relaxation."""
        found = None if self.points.suggest is None else self.points.suggest(x, self.best.x)
        if found is not None:
            self._offer(found)
            self._end_if_reached(session)
        if self.best.objective >= self.told or self.best.objective > self.events.shown:
            return None
        self.told = self.best.objective
        return self.best.x

    def _limits(self, seconds: float) -> Limits:
        """What is left for one round; a relaxation's own incumbents reach no objective."""
        nodes = None if self.limits.nodes is None else max(0, self.limits.nodes - self.counts.nodes)
        stop = None if self.separators else self.limits.objective_stop
        return replace(self.limits, time=seconds, nodes=nodes, objective_stop=stop)

    @property
    def reached(self) -> bool:
        """True once a true point is at least as good as the objective to stop at."""
        return self.limits.objective_stop is not None and self.best.objective <= self.limits.objective_stop

    def _end_if_reached(self, session: Session) -> None:
        if self.reached:
            self.ended = True
            session.interrupt()

    @property
    def decided(self) -> bool:
        """True once a true point or the bound has reached what the limits say to stop at."""
        return self.reached or (self.limits.bound_stop is not None and self.best.bound >= self.limits.bound_stop)

    def _separate(self, x: Array, separators: Sequence[Separator]) -> list[Rows]:
        """Rows that cut ``x`` off; none if they are no deeper than what the solver leaves of the rows that it has."""
        found = [rows for rows in (s.separate(x, self.program.columns) for s in separators) if len(rows)]
        return found if _deepest(found, x) > 2 * _deepest(self.opened.rows, x) else []

    def _add(self, cuts: list[Rows]) -> None:
        self.opened.rows += cuts
        self.counts.cuts += sum(len(rows) for rows in cuts)
        if self.counts.rounds and cuts:
            text = f"round {self.counts.rounds}: {self.counts.cuts} cuts"
            known = (self.best.shown_objective, self.best.shown_bound, self.counts.nodes)
            self.events.emit(Event("bound", self.events.elapsed, *known, text))

    def _offer_lifted(self, x: Array) -> None:
        lifted: Array | None = x
        for separator in self.separators:
            lifted = None if lifted is None else separator.lift(lifted)
        # what was lifted may now miss the program itself, a budget on the loss for one
        if lifted is not None and (lifted is x or self.program.misses(lifted) <= LIFT_TOLERANCE):
            self._offer(lifted)
        self._offer_repaired(x)

    def _offer_repaired(self, x: Array) -> None:
        repaired = None if self.points.repair is None else self.points.repair(x)
        if repaired is not None:
            self._offer(repaired)

    def _offer(self, x: Array) -> None:
        objective = self._objective(x)
        if objective < self.best.objective:
            self.best.x, self.best.objective = x, objective
            self.events.emit(Event("incumbent", self.events.elapsed, objective, self.best.shown_bound, self.counts.nodes))

    def _hear(self, since: float, session: Session | None = None) -> OnEvent:
        """The solver's events on this solve's clock; with separators its incumbents count only once they are lifted.

        Points of a solve without integrality (``session`` is None) are no incumbents at all.
        """

        def hear(event: Event) -> None:
            if event.kind == "incumbent" and (self.separators or session is None):
                if event.x is not None and session is not None:
                    self._offer_lifted(event.x)
                    self._end_if_reached(session)
                return
            if event.bound is not None:
                self.best.bound = max(self.best.bound, event.bound)
            objective = self.best.shown_objective if self.separators or session is None else event.objective
            self.events.emit(replace(event, time=since + event.time, bound=self.best.shown_bound, objective=objective, x=None))

        return hear

    def _objective(self, x: Array) -> float:
        return float(self.program.cost @ x) + self.program.offset


def _deepest(found: Sequence[Rows], x: Array) -> float:
    return max((float(rows.violation(x).max(initial=0.0)) for rows in found), default=0.0)


def _negate(value: float | None) -> float | None:
    return None if value is None else -value
