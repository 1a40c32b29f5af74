"""A program: the arrays of a mixed-integer program, which is all that a backend gets::

    minimise    cost @ x + x @ quadratic @ x / 2 + offset
    subject to  row_lower <= rows @ x <= row_upper
                lower <= x <= upper,   x[integer] integral
                at most one nonzero in each SOS1 set, two neighbours in each SOS2 set
                semi:        x[column] = 0 or in an interval
                indicators:  x[column] = active  ->  row_lower <= row @ x <= row_upper
                convex:      log sum_k exp(x[columns[s, k]]) <= x[epigraph[s]]   for each s

Numbers are float64, infinities are IEEE infinities, and a maximisation is stored negated (`maximise`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mipnet.arrays import Array, Columns, Csr, Mask, parts_of
from mipnet.backend.implied_bounds import implied_bounds
from mipnet.backend.rows import Indicators, Rows, stack_rows
from mipnet.backend.value_sets import SemiContinuous, sos2_excess
from mipnet.errors import InputError, described
from mipnet.errors.expectations import expects

ROUNDING_TERM_RELATIVE = 2.0**-42
"""Terms of a row that are smaller than its largest one by this factor are rounding errors of the bounds that were computed for them."""

TANGENT_PROBABILITY_MIN = 1e-8
"""Smaller probabilities are left out of tangents; solvers treat coefficients of 1e-9 as zero."""

FAR_WIDTHS = 8.0
"""A range whose middle is more than this many times its width away from 0 counts as far from 0."""

SIZE_ROUNDING = 1e-5
"""Share of the absolute values in the size of a row; 1e-9 of it, the smallest tolerance used, is 100 times the rounding of float64."""


@dataclass(frozen=True, eq=False)
class LogSumExp:
    """``log sum_k exp(x[columns[s, k]]) <= x[epigraph[s]]`` for each s: shapes ``(samples, classes)`` and ``(samples,)``."""

    columns: Columns
    epigraph: Columns

    @expects("a number for each variable")
    def excess(self, x: Array) -> Array:
        """Return ``logsumexp - epigraph`` for each s: positive where the point violates the constraint."""
        value: Array = np.logaddexp.reduce(x[self.columns], axis=1) - x[self.epigraph]
        return value

    @expects("points of shape (samples, classes), and the number of variables")
    def tangents(self, points: Array, width: int) -> Rows:
        """Return the tangents at ``points`` of shape ``(samples, classes)``, one row per sample: ``t >= g @ y + H(g)`` with the softmax g.

        With the entropy H the row is valid for every distribution g, so probabilities too small for a solver's matrix are left out.
        """
        from scipy.special import entr

        samples, classes = self.columns.shape
        slope = np.exp(points - np.logaddexp.reduce(points, axis=1)[:, None])
        slope = np.where(slope < TANGENT_PROBABILITY_MIN, 0.0, slope)
        slope /= slope.sum(axis=1, keepdims=True)
        columns = np.concatenate([self.columns, self.epigraph[:, None]], axis=1)
        data = np.concatenate([-slope, np.ones((samples, 1))], axis=1)
        indptr = np.arange(0, samples * (classes + 1) + 1, classes + 1)
        matrix = Csr((data.reshape(-1), columns.reshape(-1), indptr), shape=(samples, width))
        matrix.eliminate_zeros()
        return Rows(matrix, entr(slope).sum(axis=1), np.full(samples, np.inf))


@dataclass(frozen=True, eq=False)
class Program:
    """A mixed-integer program, see the docstring of the module.

    ``labels[j]`` is the linopy label of column j.  ``user_rows`` marks the rows that a user wrote, which keep their unit; all others, and
    rows that are appended later, may be scaled (`mipnet.backend.scaling`).  ``embedded`` says that the networks are part of a user's
    model: by default SCIP then separates no cutting planes. ``steps`` is the number of the step, from 0 on, that computes each column
    from those of smaller numbers, None if that is unknown (`mipnet.backend.accuracy`). ``fine`` says that the tolerances of solvers,
    about 1e-6, are too large for some rows: solvers then use `Backend.fine_tolerance`.  The last ``cuts`` rows are cuts (`with_cuts`).
    """

    cost: Array
    rows: Rows
    lower: Array
    upper: Array
    integer: Mask
    offset: float = 0.0
    maximise: bool = False
    labels: Columns | None = None
    sos1: tuple[Columns, ...] = ()
    indicators: Indicators | None = None
    convex: tuple[LogSumExp, ...] = ()
    user_rows: Mask | None = None
    embedded: bool = False
    steps: Columns | None = None
    fine: bool = False
    sos2: tuple[Columns, ...] = ()
    semi: SemiContinuous | None = None
    quadratic: Csr | None = None
    cuts: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Rows):
            raise InputError(f"the rows of the program are {described(self.rows)}; expected `mipnet.backend.Rows(...)`")
        columns = self.rows.matrix.shape[1:]
        for name, values in (("cost", self.cost), ("lower", self.lower), ("upper", self.upper), ("integer", self.integer)):
            if not isinstance(values, np.ndarray) or values.shape != columns:
                raise InputError(f"`{name}` of the program is {described(values)}; expected an array of shape {columns}")

    @property
    def columns(self) -> int:
        """Number of variables."""
        return len(self.cost)

    @cached_property
    def widths(self) -> Array:
        """The width of each column's range: 0 for fixed columns, 1 for integer columns and for those without finite bounds.

        A column is fixed, too, if in all of its rows its whole range is within the rounding errors of a larger term.
        """
        known = np.isfinite(self.lower) & np.isfinite(self.upper)
        width = np.where(known, self.upper, 1.0) - np.where(known, self.lower, 0.0)
        width = np.where(self.integer & (width > 0), 1.0, width)
        sizes = np.where(known, np.maximum(np.abs(self.lower), np.abs(self.upper)), 0.0)
        matrix, largest = self.rows.matrix, max(self.rows.matrix.data.max(initial=0.0), -self.rows.matrix.data.min(initial=0.0))
        # what is above this is visible whatever the other terms of its row are
        certain = ROUNDING_TERM_RELATIVE * largest * sizes.max(initial=0.0)
        if all((self.rows.terms(width, entries) > certain).all() for _, entries in parts_of(matrix)):
            return width
        change = self.rows.terms(width)
        visible = change > certain
        unclear = np.flatnonzero(~visible & (change > 0))
        row = np.searchsorted(matrix.indptr, unclear, side="right") - 1
        rows, at = np.unique(row, return_inverse=True)
        terms = Rows(Csr(matrix[rows]), self.rows.lower[rows], self.rows.upper[rows]).largest_terms(sizes)
        visible[unclear] = change[unclear] > ROUNDING_TERM_RELATIVE * terms[at]
        seen = np.bincount(matrix.indices, visible, self.columns) > 0
        if self.indicators is not None:
            seen[self.indicators.rows.matrix.indices] = True
        in_rows = np.bincount(matrix.indices, minlength=self.columns) > 0
        return np.where(in_rows & ~seen & ~self.integer, 0.0, width)

    @cached_property
    def anchors(self) -> Array:
        """A value of each column near all others: that of a fixed one, the middle of a range that is far from 0, and 0 for all others.

        Integer columns, and columns of SOS1 sets and log-sum-exp terms, have 0.
        """
        with np.errstate(invalid="ignore"):
            middle = self.lower / 2 + self.upper / 2
        far = np.isfinite(middle) & (np.abs(middle) > FAR_WIDTHS * self.widths) & ~self.integer
        for members in self.sos1:
            far[members] = False
        for term in self.convex:
            far[term.columns.reshape(-1)] = far[term.epigraph] = False
        return np.where(far, np.where(self.lower == self.upper, self.lower, middle), 0.0)

    @cached_property
    def implied_bounds(self) -> tuple[Array, Array]:
        """The bounds of the columns; in place of infinite ones those that rows imply, see `mipnet.backend.implied_bounds`."""
        return implied_bounds(self.rows.matrix, self.rows.lower, self.rows.upper, self.lower, self.upper)

    @property
    def all_rows(self) -> Rows:
        """The rows, followed by those of the indicators."""
        return self.rows if self.indicators is None else stack_rows(self.rows, self.indicators.rows)

    @property
    def by_user(self) -> Mask:
        """Which rows users wrote: ``user_rows`` and False for the rows that were appended."""
        found = np.zeros(len(self.rows), dtype=np.bool_)
        if self.user_rows is not None:
            found[: len(self.user_rows)] = self.user_rows
        return found

    @cached_property
    def columns_in_rows(self) -> tuple[Mask, Mask]:
        """Which columns occur in rows that users wrote, and which in other rows or in special constraints."""
        by_user = self.rows.matrix[np.flatnonzero(self.by_user)]
        own = np.bincount(by_user.indices, minlength=self.columns)
        other = np.bincount(self.rows.matrix.indices, minlength=self.columns) > own
        if self.indicators is not None:
            other[self.indicators.rows.matrix.indices] = True
        return own > 0, other

    @property
    def objective_size(self) -> float:
        """The largest change of the objective by one column: the natural unit of the objective; 1 without costs."""
        return float(np.abs(self.cost * self.widths).max(initial=0.0)) or 1.0

    @property
    def size(self) -> dict[str, int]:
        """Numbers of rows, columns, integer columns, nonzeros and special constraints, for reports."""
        return {
            "rows": len(self.rows),
            "columns": self.columns,
            "integers": int(self.integer.sum()),
            "nonzeros": int(self.rows.matrix.nnz),
            "special": len(self.sos1) + (len(self.indicators.rows) if self.indicators else 0) + sum(len(c.epigraph) for c in self.convex),
        }

    @expects("a number for each variable")
    def minimised(self, x: Array) -> float:
        """Return the objective at ``x`` as it is minimised."""
        return float(self.cost @ x) + self.offset + (0.0 if self.quadratic is None else float(x @ (self.quadratic @ x)) / 2)

    def objective(self, x: Array) -> float:
        """Return the objective at ``x``, in the sense of the model (minimise or maximise)."""
        value = self.minimised(x)
        return -value if self.maximise else value

    @expects("a number for each variable")
    def violation(self, x: Array) -> float:
        """Return the largest violation of a row, a bound, integrality, a special or a convex constraint at ``x``."""
        parts = [self.rows.violation(x), self.lower - x, x - self.upper, np.abs(x - np.round(x))[self.integer]]
        parts += [c.excess(x) for c in self.convex]
        for members in self.sos1:
            parts.append(np.sort(np.abs(x[members]))[:-1])
        parts += [np.array([sos2_excess(x, members)]) for members in self.sos2]
        parts += [] if self.semi is None else [self.semi.excess(x)]
        if self.indicators is not None:
            on = np.round(x[self.indicators.column]) == self.indicators.active
            parts.append(self.indicators.rows.violation(x)[on])
        return max((float(p.max(initial=0.0)) for p in parts), default=0.0)

    @expects("a number for each variable")
    def relative_violation(self, x: Array) -> float:
        """Return `violation` relative to the size of what is violated, whatever its unit.

        With the width w of each column's range (`widths`; 1 if it is 0) and its distance ``d = |x - anchor|`` from its anchor
        (`anchors`), the violation of a bound is divided by ``min(1, w) + d + R |x|``, and that of a row by
        ``min(1, max_j |row_j| w_j) + |row| @ (d + R |x|)``.  R = `SIZE_ROUNDING` stands for rounding errors.
        """
        moved = np.abs(x - self.anchors) + SIZE_ROUNDING * np.abs(x)
        widths = np.where(self.widths > 0, np.minimum(self.widths, 1.0), 1.0)
        units = self.rows.largest_terms(self.widths)
        size = np.where(units > 0, np.minimum(units, 1.0), 1.0) + abs(self.rows.matrix) @ moved
        parts = [self.rows.violation(x) / size, np.maximum(self.lower - x, x - self.upper) / (widths + moved)]
        rest = replace(
            self,
            rows=Rows(Csr((0, self.columns)), np.empty(0), np.empty(0)),
            lower=np.minimum(self.lower, x),
            upper=np.maximum(self.upper, x),
        )
        return max(rest.violation(x), *(float(part.max(initial=0.0)) for part in parts))

    @expects("rows, `mipnet.backend.Rows(...)`, as wide as those of the program")
    def with_rows(self, *more: Rows) -> Program:
        """Return the same program with further rows at the end."""
        return replace(self, rows=stack_rows(self.rows, *more))

    def with_cuts(self, *cuts: Rows) -> Program:
        """Return the same program with rows at the end that hold for all points that matter, so that a solver may lack them."""
        return replace(self.with_rows(*cuts), cuts=self.cuts + sum(len(rows) for rows in cuts)) if cuts else self
