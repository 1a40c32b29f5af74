"""Equilibration: a program whose rows and columns are scaled by powers of two before a solver gets it, and unscaled answers.

Solvers work with absolute tolerances of about 1e-6, and drop coefficients below 1e-9.  In a program whose variables range over 1e5 or
over 1e-6 these tolerances are as large as the values, and "optimal" means little.  With positive scales c of columns, r of rows and q of
the objective, powers of two so that no digit is lost, the solver gets

    minimise    q cost' @ x'            cost' = cost * c
    subject to  r lower <= (r A c) x' <= r upper,    lower / c <= x' <= upper / c,    x = c x'

Columns are scaled to ranges of about 1 and rows to largest coefficients of about 1, unless they are of ordinary size already.  Integer
columns, those of log-sum-exp terms, and the rows and columns that users wrote (`Program.user_units`) keep their unit: what a tolerance of
1e-6 means there is theirs to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mipnet.arrays import Array, Columns, Mask
from mipnet.backend.checks import DEFAULT_LIMITS
from mipnet.backend.contract import Backend, Event, LazyRows, Limits, OnEvent, Options, Outcome, PointSource, Session
from mipnet.backend.program import Indicators, Program, Rows

ORDINARY_SIZE_MIN, ORDINARY_SIZE_MAX = 2.0**-6, 2.0**8
"""Rows, columns and objectives of a size in this range keep their unit: an ordinary program is handed over as it is."""

SCALE_EXPONENT_MAX = 60
"""Largest exponent of a scale: a program whose numbers differ by more than 2^60 is not helped by scaling."""


@dataclass(frozen=True, eq=False)
class Scales:
    """The scale of each column, a power of two; ``objective`` is that of the objective."""

    columns: Array
    objective: float

    def point(self, x: Array) -> Array:
        """Return a point of the program, given a point that the solver sees."""
        unscaled: Array = self.columns * x
        return unscaled

    def scaled_point(self, x: Array) -> Array:
        """Return the point that the solver sees, given a point of the program."""
        return np.asarray(x, dtype=np.float64) / self.columns

    def rows(self, rows: Rows, kept: Mask | None = None) -> Rows:
        """Return rows as the solver sees them, each scaled so that its largest coefficient is about 1; ``kept`` rows keep their unit."""
        factor = 1.0 / _power_of_two(rows.largest_terms(self.columns))
        if kept is not None:
            factor[: len(kept)][kept] = 1.0
        return rows.scaled(self.columns, factor)


def _power_of_two(size: Array) -> Array:
    """Return the power of two nearest to each positive finite number outside of the ordinary sizes, 1 elsewhere."""
    known = np.isfinite(size) & (size > 0) & ((size < ORDINARY_SIZE_MIN) | (size > ORDINARY_SIZE_MAX))
    exponent = np.round(np.log2(np.where(known, size, 1.0))).clip(-SCALE_EXPONENT_MAX, SCALE_EXPONENT_MAX)
    scale: Array = np.exp2(exponent)
    return scale


def column_scales(program: Program) -> Array:
    """Return the scale of each column: the size of its range, or, without a range, that of the values that its rows allow."""
    fixed = program.integer.copy()
    if program.user_units is not None:
        fixed[: len(program.user_units.columns)] |= program.user_units.columns
    for term in program.convex:
        fixed[term.columns.reshape(-1)] = fixed[term.epigraph] = True
    size = np.maximum(np.abs(program.lower), np.abs(program.upper))
    bounded = np.isfinite(size) & ~fixed
    scales = np.where(bounded, _power_of_two(size), 1.0)
    free = ~fixed & ~np.isfinite(size)
    return _free_scales(program, scales, free) if free.any() else scales


def _free_scales(program: Program, scales: Array, free: np.ndarray) -> Array:
    """Scale columns without finite bounds so that they weigh as much as the largest other entry of one of their rows."""
    matrix = program.rows.matrix
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    entries = np.abs(matrix.data) * scales[matrix.indices]
    own = free[matrix.indices]
    largest = np.zeros(matrix.shape[0])
    np.maximum.at(largest, row[~own], entries[~own])
    with np.errstate(divide="ignore"):
        wanted = largest[row[own]] / np.abs(matrix.data[own])
    found = np.zeros(len(scales))
    np.maximum.at(found, matrix.indices[own], wanted)
    return np.where(free, _power_of_two(found), scales)


def objective_scale(cost: Array, columns: Array) -> float:
    """Return the scale of an objective: the largest change that one column makes becomes about 1.

    An objective of ordinary size keeps its unit, so that the solver's log shows it as it is.
    """
    largest = np.abs(cost * columns).max(initial=0.0)
    return float(1.0 / _power_of_two(np.array([largest]))[0])


def scaled(program: Program, scales: Scales) -> Program:
    """Return the program as the solver sees it."""
    c, q = scales.columns, scales.objective
    indicators = program.indicators
    return replace(
        program,
        cost=program.cost * c * q,
        offset=program.offset * q,
        rows=scales.rows(program.rows, None if program.user_units is None else program.user_units.rows),
        lower=program.lower / c,
        upper=program.upper / c,
        indicators=None if indicators is None else Indicators(scales.rows(indicators.rows), indicators.column, indicators.active),
    )


def open_scaled(backend: Backend, program: Program, options: Options | None = None) -> Session:
    """Open a session on the equilibrated program; its points, bounds and objectives are those of the program that is given."""
    columns = column_scales(program)
    scales = Scales(columns, objective_scale(program.cost, columns))
    return ScaledSession(backend.open(scaled(program, scales), options), scales)


class ScaledSession(Session):
    """A session on a scaled program that takes and returns unscaled numbers."""

    def __init__(self, session: Session, scales: Scales) -> None:
        self.session, self.scales = session, scales

    def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
        """Solve the scaled program, and return the outcome in the units of the program."""
        q = self.scales.objective
        bound_stop, objective_stop = _times(limits.bound_stop, q), _times(limits.objective_stop, q)
        inner = replace(limits, gap_abs=limits.gap_abs * q, bound_stop=bound_stop, objective_stop=objective_stop)
        outcome = self.session.solve(inner, None if on_event is None else self._unscaled(on_event))
        return replace(
            outcome,
            x=None if outcome.x is None else self.scales.point(outcome.x),
            objective=_times(outcome.objective, 1 / q),
            bound=outcome.bound / q if math.isfinite(outcome.bound) else outcome.bound,
        )

    def _unscaled(self, on_event: OnEvent) -> Callable[[Event], None]:
        q = self.scales.objective

        def pass_on(event: Event) -> None:
            x = None if event.x is None else self.scales.point(event.x)
            on_event(replace(event, objective=_times(event.objective, 1 / q), bound=_times(event.bound, 1 / q), x=x))

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
            return self.scales.rows(rows.separate(self.scales.point(x)))

        def written(inner: Rows) -> None:
            rows.written(self._unscaled_rows(inner))

        self.session.lazy(LazyRows(separate, rows.columns, written))

    def _unscaled_rows(self, rows: Rows) -> Rows:
        """Return rows on the columns of the program; each may differ from the one that was scaled by a power of two."""
        return rows.scaled(1.0 / self.scales.columns)

    def add_rows(self, rows: Rows) -> None:
        """Append rows for all later solves."""
        self.session.add_rows(self.scales.rows(rows))

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace the objective for all later solves; it gets a scale of its own."""
        q = objective_scale(cost, self.scales.columns)
        self.scales = replace(self.scales, objective=q)
        self.session.set_objective(cost * self.scales.columns * q, offset * q)

    def set_bounds(self, columns: Columns, lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns for all later solves."""
        c = self.scales.columns[columns]
        self.session.set_bounds(columns, lower / c, upper / c)

    def interrupt(self) -> None:
        """Stop the current solve as soon as the solver can."""
        self.session.interrupt()

    def close(self) -> None:
        """Release the solver's memory."""
        self.session.close()


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
