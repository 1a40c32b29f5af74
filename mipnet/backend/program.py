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
from scipy import sparse

from mipnet.arrays import Array, Columns, Csr, Ints, Mask, activity, parts_of, row_of_entry
from mipnet.backend.implied_bounds import implied_bounds
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
class Rows:
    """``lower <= matrix @ x <= upper``; duplicate entries of the matrix are added, and zeros left out, in a copy."""

    matrix: Csr
    lower: Array
    upper: Array

    def __post_init__(self) -> None:
        if not isinstance(self.matrix, Csr):
            raise InputError(f"the matrix of the rows is {described(self.matrix)}; expected a scipy.sparse.csr_array")
        for name, values in (("lower", self.lower), ("upper", self.upper)):
            if not isinstance(values, np.ndarray) or values.shape != self.matrix.shape[:1]:
                raise InputError(f"the {name} ends of the rows are {described(values)}; expected an array of shape {self.matrix.shape[:1]}")
        if not self.matrix.has_canonical_format or not self.matrix.data.all():
            matrix = self.matrix.copy()
            matrix.sum_duplicates()
            matrix.eliminate_zeros()
            object.__setattr__(self, "matrix", matrix)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    @expects("True or False for each row")
    def part(self, which: Mask) -> Rows:
        """Return some of the rows."""
        return Rows(Csr(self.matrix[np.flatnonzero(which)]), self.lower[which], self.upper[which])

    def terms(self, sizes: Array, entries: slice = slice(None)) -> Array:
        """Return ``|row_j| sizes_j`` of some entries, for a size per column."""
        found: Array = np.abs(self.matrix.data[entries])
        found *= sizes[self.matrix.indices[entries]]
        return found

    @expects("a size for each variable")
    def largest_terms(self, sizes: Array) -> Array:
        """Return ``max_j |row_j| sizes_j`` of each row, for a size per column; 0 for a row without entries."""
        starts, largest = self.matrix.indptr, np.zeros(len(self))
        for rows, entries in parts_of(self.matrix):
            first, ends = starts[rows] - starts[rows.start], starts[rows.start + 1 : rows.stop + 1] - starts[rows.start]
            filled = ends > first
            if filled.any():
                largest[rows][filled] = np.maximum.reduceat(self.terms(sizes, entries), first[filled])
        return largest

    @property
    def row_of_entry(self) -> Ints:
        """The row of each entry of the matrix."""
        return row_of_entry(self.matrix)

    @expects("a scale for each variable, and a factor for each row or None")
    def scaled(self, columns: Array, factors: Array | None = None) -> Rows:
        """Return ``f_i row_ij c_j`` with its bounds times f_i, for a scale c per column and a factor f per row (1 where it is None)."""
        own = factors is not None and bool((factors != 1).any())
        if not own and (columns == 1).all():
            return self
        data, sizes = np.empty_like(self.matrix.data), np.diff(self.matrix.indptr)
        for rows, entries in parts_of(self.matrix):
            np.multiply(self.matrix.data[entries], columns[self.matrix.indices[entries]], out=data[entries])
            if factors is not None and own:
                data[entries] *= np.repeat(factors[rows], sizes[rows])
        lower, upper = (self.lower, self.upper) if factors is None else (self.lower * factors, self.upper * factors)
        # the indices are sorted, so that scipy does not sort those that matrices share
        return Rows(Csr((data, self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape), lower, upper)

    @expects("a number for each variable")
    def moved(self, shifts: Array) -> Rows:
        """Return the rows on ``x - shifts``: the same matrix, with bounds less its value at the shifts."""
        if not shifts.any():
            return self
        value = self.matrix @ shifts
        return Rows(self.matrix, self.lower - value, self.upper - value)

    @expects("a number, and a lower and an upper bound for each variable")
    def without(self, negligible: float, lower: Array, upper: Array, *, cuts: int = 0) -> Rows:
        """Return rows without the entries that are, or change a row by, less than ``negligible``, over columns with these ranges.

        The rows allow whatever these entries may add, so no point is cut off.  Entries of fixed columns stay.  The last ``cuts`` rows are
        left out, with infinite bounds, where such an entry has no limit; other rows then raise `InputError`.
        """
        widths = upper - lower
        places = [np.zeros(0, dtype=np.int64)]
        for _, part in parts_of(self.matrix):
            with np.errstate(invalid="ignore"):
                little = self.terms(widths, part) < negligible
            little |= np.abs(self.matrix.data[part]) <= negligible
            if little.any():
                places.append(np.flatnonzero(little) + part.start)
        at = np.concatenate(places)
        at = at[(self.matrix.data[at] != 0) & (widths[self.matrix.indices[at]] > 0)]
        if not len(at):
            return self
        small = np.zeros(self.matrix.nnz, dtype=np.bool_)
        small[at] = True
        entries = [
            Csr((np.where(mask, self.matrix.data, 0.0), self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape)
            for mask in (small, ~small)
        ]
        least, most = activity(entries[0], lower, upper)
        found = Rows(entries[1], self.lower - most, self.upper - least)
        lost = (np.isfinite(self.lower) & np.isinf(found.lower)) | (np.isfinite(self.upper) & np.isinf(found.upper))
        lost[len(self) - cuts :] = False
        if lost.any():
            terms = np.count_nonzero(small & np.isinf(widths[self.matrix.indices]) & lost[self.row_of_entry])
            raise InputError(
                f"{terms} coefficients are less than {negligible:g} of the size of their rows, on variables without finite bounds, and"
                " solvers would drop them; give these variables bounds"
            )
        return found

    @expects("a number for each variable")
    def slack(self, x: Array) -> Array:
        """Return the distance of each row at ``x`` from the nearer one of its bounds, negative where ``x`` violates it."""
        value = self.matrix @ x
        distance: Array = np.minimum(value - self.lower, self.upper - value)
        return distance

    @expects("a number for each variable")
    def violation(self, x: Array) -> Array:
        """Return by how much each row violates its bounds at ``x``, 0 where it holds."""
        value = self.matrix @ x
        excess: Array = np.maximum(np.maximum(self.lower - value, value - self.upper), 0.0)
        return excess


@dataclass(frozen=True, eq=False)
class Indicators:
    """``x[column[i]] = active[i]`` implies row i; ``active`` contains 0 or 1."""

    rows: Rows
    column: Columns
    active: Columns


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


def stack_rows(*rows: Rows) -> Rows:
    """Return the rows of all arguments, in order."""
    matrix = Csr(sparse.vstack([r.matrix for r in rows], format="csr"))
    return Rows(matrix, np.concatenate([r.lower for r in rows]), np.concatenate([r.upper for r in rows]))
