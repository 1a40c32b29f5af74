"""Constraints that are written row by row, as points violate them: what a separator is, and the tangents of log-sum-exp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mipnet.ir import Array
from mipnet.program import LogSumExp, Rows

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
