"""Constraints that are written row by row, as points violate them: what a separator is, and the tangents of log-sum-exp and of squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mipnet.arrays import Array, Columns, Csr
from mipnet.backend import LogSumExp, Rows

CUT_TOLERANCE = 1e-7


class Separator(Protocol):
    """A constraint that is written row by row, as points violate it."""

    def first(self, start: Array | None, width: int) -> Rows:
        """Rows to begin with; ``start`` is a true point, or None."""

    def separate(self, x: Array, width: int) -> Rows:
        """Rows that cut ``x`` off; none if it meets the constraint."""

    def lift(self, x: Array) -> Array | None:
        """The point with its auxiliary columns moved so that it meets the constraint, or None if they cannot do that."""


@dataclass(frozen=True, eq=False)
class Tangents:
    """A log-sum-exp term, cut by tangents at the points that come."""

    term: LogSumExp

    def first(self, start: Array | None, width: int) -> Rows:
        """Tangents at 0, 1/2 and 1 times the start's values: enough for a first bound."""
        points = np.zeros(self.term.columns.shape) if start is None else start[self.term.columns]
        columns, epigraph = (np.tile(part, (3, 1) if part.ndim == 2 else 3) for part in (self.term.columns, self.term.epigraph))
        return LogSumExp(columns, epigraph).tangents(np.concatenate([0 * points, 0.5 * points, points]), width)

    def separate(self, x: Array, width: int) -> Rows:
        """A tangent for each term that is too low at ``x``."""
        missed = self.term.excess(x) > CUT_TOLERANCE
        return LogSumExp(self.term.columns[missed], self.term.epigraph[missed]).tangents(x[self.term.columns[missed]], width)

    def lift(self, x: Array) -> Array:
        """The point with each epigraph at its log-sum-exp."""
        x = x.copy()
        x[self.term.epigraph] = np.maximum(x[self.term.epigraph], np.logaddexp.reduce(x[self.term.columns], axis=1))
        return x


@dataclass(frozen=True, eq=False)
class Squares:
    """``t >= ((x - centre) / radius)^2`` for pairs of columns, cut by tangents at the points that come."""

    x: Columns
    t: Columns
    centre: Array
    radius: float

    def first(self, start: Array | None, width: int) -> Rows:
        """Tangents at the start and at half of it, where they say anything."""
        if start is None:
            return self._tangents(np.zeros((0,)), np.zeros(0, dtype=np.int64), width)
        u = self._away(start)
        moved = np.flatnonzero(np.abs(u) > CUT_TOLERANCE)
        return self._tangents(np.concatenate([u[moved], u[moved] / 2]), np.tile(moved, 2), width)

    def separate(self, x: Array, width: int) -> Rows:
        """A tangent for each square that is too low at ``x``."""
        u = self._away(x)
        missed = np.flatnonzero(u**2 - x[self.t] > CUT_TOLERANCE / max(1, len(u)))
        return self._tangents(u[missed], missed, width)

    def lift(self, x: Array) -> Array:
        """The point with each t at its square at least."""
        x = x.copy()
        x[self.t] = np.maximum(x[self.t], self._away(x) ** 2)
        return x

    def _away(self, x: Array) -> Array:
        u: Array = (x[self.x] - self.centre) / self.radius
        return u

    def _tangents(self, p: Array, which: Columns, width: int) -> Rows:
        """Rows ``t - 2 p (x - centre) / radius >= -p^2``."""
        slope, count = 2 * p / self.radius, len(p)
        data = np.stack([np.ones(count), -slope], axis=1).reshape(-1)
        columns = np.stack([self.t[which], self.x[which]], axis=1).reshape(-1)
        matrix = Csr((data, columns, np.arange(0, 2 * count + 1, 2)), shape=(count, width))
        return Rows(matrix, -(p**2) - slope * self.centre[which], np.full(count, np.inf))
