"""A program: the arrays of a mixed-integer program, which is all that a backend gets::

    minimise    cost @ x + offset
    subject to  row_lower <= rows @ x <= row_upper
                lower <= x <= upper,   x[integer] integral
                at most one nonzero in each SOS1 set
                indicators:  x[column] = active  ->  row_lower <= row @ x <= row_upper
                convex:      log sum_k exp(x[columns[s, k]]) <= x[epigraph[s]]   for each s

Numbers are float64, infinities are IEEE infinities, and a maximisation is stored negated (`maximise`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from mipnet.arrays import Array, Columns, Csr, Mask

TANGENT_PROBABILITY_MIN = 1e-8
"""Smaller probabilities are left out of tangents; solvers treat coefficients of 1e-9 as zero."""


@dataclass(frozen=True, eq=False)
class Rows:
    """``lower <= matrix @ x <= upper``."""

    matrix: Csr
    lower: Array
    upper: Array

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def part(self, which: Mask) -> Rows:
        """Return some of the rows."""
        return Rows(Csr(self.matrix[np.flatnonzero(which)]), self.lower[which], self.upper[which])

    def largest_terms(self, sizes: Array) -> Array:
        """Return ``max_j |row_j| sizes_j`` of each row, for a size per column; 0 for a row without entries."""
        terms, starts = np.abs(self.matrix.data) * sizes[self.matrix.indices], self.matrix.indptr
        filled = np.diff(starts) > 0
        largest = np.zeros(len(self))
        if filled.any():
            largest[filled] = np.maximum.reduceat(terms, starts[:-1][filled])
        return largest

    def scaled(self, columns: Array, factors: Array | None = None) -> Rows:
        """Return ``f_i row_ij c_j`` with its bounds times f_i, for a scale c per column and a factor f per row (1 where it is None).

        The matrix is a copy with indices of its own: scipy sorts indices in place, which would scramble a matrix that shares them.
        """
        matrix = self.matrix.copy()
        matrix.data = matrix.data * columns[matrix.indices]
        if factors is None:
            return Rows(matrix, self.lower, self.upper)
        matrix.data *= np.repeat(factors, np.diff(matrix.indptr))
        return Rows(matrix, self.lower * factors, self.upper * factors)

    def slack(self, x: Array) -> Array:
        """Return the distance of each row at ``x`` from the nearer one of its bounds, negative where ``x`` violates it."""
        value = self.matrix @ x
        distance: Array = np.minimum(value - self.lower, self.upper - value)
        return distance

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

    def excess(self, x: Array) -> Array:
        """Return ``logsumexp - epigraph`` for each s: positive where the point violates the constraint."""
        value: Array = np.logaddexp.reduce(x[self.columns], axis=1) - x[self.epigraph]
        return value

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
class UserUnits:
    """The rows and columns that keep the units in which the user wrote them (True); all others may be scaled.

    Rows and columns that are appended to the program later may be scaled.
    """

    rows: Mask
    columns: Mask


@dataclass(frozen=True, eq=False)
class Program:
    """A mixed-integer program, see the docstring of the module.  ``labels[j]`` is the linopy label of column j."""

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
    user_units: UserUnits | None = None

    @property
    def columns(self) -> int:
        """Number of variables."""
        return len(self.cost)

    @property
    def column_sizes(self) -> Array:
        """The largest absolute value of each column within its bounds; 1 for columns without bounds, fixed at 0, or integer ones."""
        largest = np.maximum(np.abs(self.lower), np.abs(self.upper))
        known = np.isfinite(largest) & (largest > 0) & ~self.integer
        return np.where(known, largest, 1.0)

    @property
    def objective_size(self) -> float:
        """The largest contribution of one column to the objective: the natural unit of the objective; 1 without costs."""
        return float(np.abs(self.cost * self.column_sizes).max(initial=0.0)) or 1.0

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

    def objective(self, x: Array) -> float:
        """Return the objective at ``x``, in the sense of the model (minimise or maximise)."""
        value = float(self.cost @ x) + self.offset
        return -value if self.maximise else value

    def violation(self, x: Array) -> float:
        """Return the largest violation of a row, a bound, integrality, a special or a convex constraint at ``x``."""
        parts = [self.rows.violation(x), self.lower - x, x - self.upper, np.abs(x - np.round(x))[self.integer]]
        parts += [c.excess(x) for c in self.convex]
        for members in self.sos1:
            parts.append(np.sort(np.abs(x[members]))[:-1])
        if self.indicators is not None:
            on = np.round(x[self.indicators.column]) == self.indicators.active
            parts.append(self.indicators.rows.violation(x)[on])
        return max((float(p.max(initial=0.0)) for p in parts), default=0.0)

    def relative_violation(self, x: Array) -> float:
        """Return `violation` relative to the size of what is violated, whatever its unit.

        The violation of a bound is divided by ``min(1, s) + |x|``, where s is the size of its column (`column_sizes`), and that of a
        row by ``min(1, max_j |row_j| s_j) + |row| @ |x|``.
        """
        sizes, units = np.minimum(self.column_sizes, 1.0), self.rows.largest_terms(self.column_sizes)
        size = np.where(units > 0, np.minimum(units, 1.0), 1.0) + abs(self.rows.matrix) @ np.abs(x)
        parts = [self.rows.violation(x) / size, np.maximum(self.lower - x, x - self.upper) / (sizes + np.abs(x))]
        rest = replace(
            self,
            rows=Rows(Csr((0, self.columns)), np.empty(0), np.empty(0)),
            lower=np.minimum(self.lower, x),
            upper=np.maximum(self.upper, x),
        )
        return max(rest.violation(x), *(float(part.max(initial=0.0)) for part in parts))

    def with_rows(self, *more: Rows) -> Program:
        """Return the same program with further rows at the end."""
        return replace(self, rows=stack_rows(self.rows, *more))


def stack_rows(*rows: Rows) -> Rows:
    """Return the rows of all arguments, in order."""
    matrix = Csr(sparse.vstack([r.matrix for r in rows], format="csr"))
    return Rows(matrix, np.concatenate([r.lower for r in rows]), np.concatenate([r.upper for r in rows]))
