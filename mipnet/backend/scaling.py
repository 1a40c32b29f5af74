"""Equilibration: a program whose rows and columns are scaled by powers of two before a solver gets it, and unscaled answers.

Solvers work with absolute tolerances of about 1e-6, and drop coefficients below 1e-9.  In a program whose variables range over 1e5 or
over 1e-6, or from 1e6 to 1e6 + 1, these tolerances are as large as the values, and "optimal" means little.  With positive scales c of
columns, r of rows and q of the objective, powers of two so that no digit is lost, and shifts s of columns, the solver gets

    minimise    q cost' @ x'                             x = s + c x',   cost' = cost * c
    subject to  r (lower - A s) <= (r A c) x' <= r (upper - A s),      (lower - s) / c <= x' <= (upper - s) / c

Columns are scaled to ranges of about 1, and shifted to 0 if they range far from it or are fixed.  Rows are scaled so that no column
changes them by more than about 1; what is fixed has no part in the size of a row.  What is of ordinary size already stays as it is.
Integer columns, and those of SOS1 sets and log-sum-exp terms, keep their zero, and integer and log-sum-exp columns their unit too.  Rows
that users wrote (`Program.user_rows`) are scaled up only: a tolerance of 1e-6 in their units is kept, or becomes a smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mipnet.arrays import Array, Columns
from mipnet.backend.checks import DEFAULT_LIMITS
from mipnet.backend.contract import Backend, Event, LazyRows, Limits, OnEvent, Options, Outcome, PointSource, Session, Status
from mipnet.backend.program import Program
from mipnet.backend.rows import Indicators, Rows
from mipnet.backend.scales import Scales

UNCERTAINTY_OF_INFEASIBLE_MAX = 1e-3
"""A solver's word that a program is infeasible is taken if its tolerances change no objective by more than this, relative to its size."""

TOO_FINE = "the program adds numbers of too different sizes for the solver's tolerances: the bound is lowered by what they may change"


def scaled(program: Program, scales: Scales) -> Program:
    """Return the program as the solver sees it."""
    indicators, (own, switched) = program.indicators, np.split(scales.factors, [len(program.rows)])
    return replace(
        program,
        cost=program.cost * scales.columns * scales.objective,
        offset=scales.offset(program.cost, program.offset),
        rows=scales.rows(program.rows, own, cuts=program.cuts),
        fine=program.fine or len(scales.errors) > 0,
        lower=scales.scaled_point(program.lower),
        upper=scales.scaled_point(program.upper),
        indicators=None if indicators is None else Indicators(scales.rows(indicators.rows, switched), indicators.column, indicators.active),
    )


def open_scaled(backend: Backend, program: Program, options: Options | None = None) -> Session:
    """Open a session on the equilibrated program; its points, bounds and objectives are those of the program that is given.

    A program with a quadratic objective is opened as it is: in units in which ranges are about 1, the curvature of a column that ranges
    far less than others would be below the tolerances of a solver.
    """
    if program.quadratic is not None:
        return backend.open(program, options)
    scales = Scales.of(program)
    uncertainty = float(np.minimum(backend.tolerances(options, fine=True).largest * scales.errors, 1.0).sum())
    inner, factors = backend.open(scaled(program, scales), options), scales.factors[: len(program.rows)]
    return ScaledSession(inner, scales, factors, program.cost, uncertainty)


class ScaledSession(Session):
    """A session on a scaled program that takes and returns unscaled numbers.

    ``uncertainty`` is by how much the solver's tolerances may change an objective through rows and columns that need an unusual accuracy,
    relative to its size.  Bounds are lowered by this, and what is then not proven any more is not claimed.
    """

    def __init__(self, session: Session, scales: Scales, row_factors: Array, cost: Array, uncertainty: float) -> None:
        self.session, self.scales, self.row_factors = session, scales, row_factors
        self.cost, self.uncertainty = cost, uncertainty

    @property
    def margin(self) -> float:
        """By how much bounds are lowered, in the units of the objective."""
        return self.uncertainty * float(np.abs(self.cost * self.scales.sizes).max(initial=0.0)) if self.uncertainty else 0.0

    def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
        """Solve the scaled program, and return the outcome in the units of the program."""
        q = self.scales.objective
        bound_stop, objective_stop = limits.bound_stop, _times(limits.objective_stop, q)
        bound_stop = None if bound_stop is None else (bound_stop + self.margin) * q
        inner = replace(limits, gap_abs=limits.gap_abs * q, bound_stop=bound_stop, objective_stop=objective_stop)
        outcome = self.session.solve(inner, None if on_event is None else self._unscaled(on_event))
        return self._proven(
            limits,
            replace(
                outcome,
                x=None if outcome.x is None else self.scales.point(outcome.x),
                objective=_times(outcome.objective, 1 / q),
                bound=outcome.bound / q - self.margin if math.isfinite(outcome.bound) else outcome.bound,
                duals=None if outcome.duals is None else outcome.duals[: len(self.row_factors)] * self.row_factors / q,
            ),
        )

    def _proven(self, limits: Limits, outcome: Outcome) -> Outcome:
        """Return the outcome without a claim that does not hold with the margin: `stalled` in place of `optimal` and `infeasible`."""
        if not self.uncertainty:
            return outcome
        if outcome.status is Status.INFEASIBLE and self.uncertainty > UNCERTAINTY_OF_INFEASIBLE_MAX:
            return replace(outcome, status=Status.STALLED, bound=-math.inf, message=f"infeasible to the solver's tolerances; {TOO_FINE}")
        if outcome.status is Status.OPTIMAL and outcome.objective is not None and not limits.closed(outcome.objective, outcome.bound):
            return replace(outcome, status=Status.STALLED, duals=None, message=f"{outcome.message}; {TOO_FINE}")
        return outcome

    def _unscaled(self, on_event: OnEvent) -> Callable[[Event], None]:
        q = self.scales.objective

        def pass_on(event: Event) -> None:
            x = None if event.x is None else self.scales.point(event.x)
            bound = None if event.bound is None else event.bound / q - self.margin
            on_event(replace(event, objective=_times(event.objective, 1 / q), bound=bound, x=x))

        return pass_on

    def start(self, x: Array) -> None:
        """Set the first incumbent of the next solve."""
        self.session.start(self.scales.scaled_point(x))

    def suggest(self, source: PointSource) -> None:
        """Ask ``source`` for points during the next solve."""

        def ask(x: Array | None) -> Array | None:
            found = source(None if x is None else self.scales.point(x))
            return None if found is None else self.scales.scaled_point(found)

        self.session.suggest(ask)

    def lazy(self, rows: LazyRows) -> None:
        """Use these lazy rows in the next solve only."""

        def separate(x: Array) -> Rows:
            found = rows.separate(self.scales.point(x))
            inner = self.scales.rows(found, cuts=len(found))
            finite = np.isfinite(inner.lower) | np.isfinite(inner.upper)
            return inner if finite.all() else inner.part(finite)

        def written(inner: Rows) -> None:
            rows.written(self._unscaled_rows(inner))

        self.session.lazy(LazyRows(separate, rows.columns, written))

    def _unscaled_rows(self, rows: Rows) -> Rows:
        """Return rows on the columns of the program; each may differ from the one that was scaled by a power of two."""
        return rows.scaled(1.0 / self.scales.columns).moved(-self.scales.shifts)

    def add_rows(self, rows: Rows) -> None:
        """Append rows for all later solves."""
        self.session.add_rows(self.scales.rows(rows, cuts=len(rows)))

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace the objective for all later solves; it gets a scale of its own."""
        self.scales, self.cost = self.scales.for_objective(cost), cost
        self.session.set_objective(cost * self.scales.columns * self.scales.objective, self.scales.offset(cost, offset))

    def set_bounds(self, columns: Columns, lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns for all later solves."""
        c, shift = self.scales.columns[columns], self.scales.shifts[columns]
        self.session.set_bounds(columns, (lower - shift) / c, (upper - shift) / c)

    def interrupt(self) -> None:
        """Stop the current solve as soon as the solver can."""
        self.session.interrupt()

    def close(self) -> None:
        """Release the solver's memory."""
        self.session.close()


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
