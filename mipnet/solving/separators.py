"""Separators: constraints that are added row by row where points violate them.

There are three: tangents of log-sum-exp, tangents of squares, and the ideal cuts of ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from mipnet.arrays import Array, Columns, Csr, Mask, widen
from mipnet.backend import LogSumExp, Program, Rows
from mipnet.formulations.block import BigMNeurons
from mipnet.model.to_program import column_lookup

TANGENT_VIOLATION_MIN = 1e-7
"""A tangent is added where a point violates the constraint by more than this, in the units of the constraint."""


class Separator(Protocol):
    """A constraint that is added row by row where points violate it.  All rows have ``width`` columns."""

    def first(self, start: Array | None, width: int) -> Rows:
        """Return the rows for the first round; ``start`` is a feasible point, or None."""

    def separate(self, x: Array, width: int) -> Rows:
        """Return rows that ``x`` violates; none if it satisfies the constraint."""

    def lift(self, x: Array) -> Array | None:
        """Return the point with auxiliary columns changed so that it satisfies the constraint, or None if that is impossible."""


@dataclass(frozen=True, eq=False)
class Tangents:
    """A log-sum-exp term, approximated by tangents."""

    term: LogSumExp

    def first(self, start: Array | None, width: int) -> Rows:
        """Return tangents at 0, 1/2 and 1 times the values of the start."""
        points = np.zeros(self.term.columns.shape) if start is None else start[self.term.columns]
        columns, epigraph = (np.tile(part, (3, 1) if part.ndim == 2 else 3) for part in (self.term.columns, self.term.epigraph))
        return LogSumExp(columns, epigraph).tangents(np.concatenate([0 * points, 0.5 * points, points]), width)

    def separate(self, x: Array, width: int) -> Rows:
        """Return a tangent at ``x`` per violated term."""
        violated = self.term.excess(x) > TANGENT_VIOLATION_MIN
        return LogSumExp(self.term.columns[violated], self.term.epigraph[violated]).tangents(x[self.term.columns[violated]], width)

    def lift(self, x: Array) -> Array:
        """Return the point with each epigraph column raised to its log-sum-exp."""
        x = x.copy()
        x[self.term.epigraph] = np.maximum(x[self.term.epigraph], np.logaddexp.reduce(x[self.term.columns], axis=1))
        return x


@dataclass(frozen=True, eq=False)
class Squares:
    """``t >= ((x - centre) / radius)^2`` for pairs of columns, approximated by tangents."""

    x: Columns
    t: Columns
    centre: Array
    radius: Array

    def first(self, start: Array | None, width: int) -> Rows:
        """Return tangents at the start and halfway from the centre to it, for inputs that differ from the centre."""
        if start is None:
            return self._tangents(np.zeros((0,)), np.zeros(0, dtype=np.int64), width)
        u = self._scaled(start)
        moved = np.flatnonzero(np.abs(u) > TANGENT_VIOLATION_MIN)
        return self._tangents(np.concatenate([u[moved], u[moved] / 2]), np.tile(moved, 2), width)

    def separate(self, x: Array, width: int) -> Rows:
        """Return a tangent at ``x`` per violated square."""
        u = self._scaled(x)
        violated = np.flatnonzero(u**2 - x[self.t] > TANGENT_VIOLATION_MIN / max(1, len(u)))
        return self._tangents(u[violated], violated, width)

    def lift(self, x: Array) -> Array:
        """Return the point with each t raised to its square."""
        x = x.copy()
        x[self.t] = np.maximum(x[self.t], self._scaled(x) ** 2)
        return x

    def _scaled(self, x: Array) -> Array:
        u: Array = (x[self.x] - self.centre) / self.radius
        return u

    def _tangents(self, p: Array, which: Columns, width: int) -> Rows:
        """Return rows ``t - 2 p (x - centre) / radius >= -p^2`` for the pairs ``which``."""
        slope, count = 2 * p / self.radius[which], len(p)
        data = np.stack([np.ones(count), -slope], axis=1).reshape(-1)
        columns = np.stack([self.t[which], self.x[which]], axis=1).reshape(-1)
        matrix = Csr((data, columns, np.arange(0, 2 * count + 1, 2)), shape=(count, width))
        return Rows(matrix, -(p**2) - slope * self.centre[which], np.full(count, np.inf))


IDEAL_CUT_VIOLATION_MIN = 1e-6
"""An ideal cut is added if a point violates it by more than this, relative to ``1 + |h|``."""


@dataclass(frozen=True, eq=False)
class IdealCuts:
    """The inequalities that make the linear relaxation of a big-M neuron its convex hull, separated one at a time.

    Let h = max(w x + b, 0) be a neuron over the box ``L <= x <= U`` of its variables, with v = 1 where w x + b > 0.  For every subset I
    of its inputs, it satisfies::

        h  <=  sum_{i in I} w_i (x_i - L'_i (1 - v))  +  (b + sum_{i not in I} w_i U'_i) v,

    where L' and U' are the ends of the box at which w_i x_i is smallest and largest.  All of these together are ideal.  The one that a
    point violates most has, for each i, the smaller of the two terms, so it is found in linear time (Anderson, Huchette, Ma,
    Tjandraatmadja and Vielma 2020, the ReLU over a box).  With all inputs in I it is ``h <= z - l (1 - v)``, and with none ``h <= u v``.

    The arrays ``data``, ``columns``, ``owner``, ``lower`` and ``upper`` have one element per weight w_i: its value, its column, the number
    of its neuron, and the smallest and largest value of ``w_i x_i``.  ``constant``, ``h`` and ``v`` have one element per neuron: b, and
    the columns of h and v.
    """

    data: Array
    columns: Columns
    owner: Columns
    constant: Array
    h: Columns
    v: Columns
    lower: Array
    upper: Array

    @staticmethod
    def of(neurons: Sequence[BigMNeurons], program: Program) -> IdealCuts:
        """Return the cuts of some neurons over the bounds of a program's columns, without neurons that have an unbounded variable."""
        where = column_lookup(np.asarray(program.labels))
        terms = Csr(sparse.vstack([widen(n.z.terms, len(where)) for n in neurons], format="csr"))
        constant, h, v = (
            np.concatenate(parts) for parts in zip(*((n.z.constant, n.h.terms.indices, n.v.terms.indices) for n in neurons), strict=True)
        )
        columns = where[terms.indices]
        ends = np.sort([terms.data * program.lower[columns], terms.data * program.upper[columns]], axis=0)
        sizes = np.diff(terms.indptr)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        bounded = np.bincount(owner, ~np.isfinite(ends).all(axis=0), len(sizes)) == 0
        kept, number = bounded[owner], np.cumsum(bounded) - 1
        numbers = (constant[bounded], where[h[bounded]], where[v[bounded]])
        return IdealCuts(terms.data[kept], columns[kept], number[owner[kept]], *numbers, *ends[:, kept])

    def first(self, start: Array | None, width: int) -> Rows:
        """Return no rows, because the rows of big-M are part of the program."""
        return self._rows(np.zeros(len(self.h), dtype=np.bool_), np.zeros(len(self.data), dtype=np.bool_), width)

    def separate(self, x: Array, width: int) -> Rows:
        """Return the most violated cut of each neuron that violates one."""
        v, h = x[self.v], x[self.h]
        within = self.data * x[self.columns] - self.lower * (1 - v)[self.owner]
        without = self.upper * v[self.owner]
        highest = np.bincount(self.owner, np.minimum(within, without), len(h)) + self.constant * v
        return self._rows(h - highest > IDEAL_CUT_VIOLATION_MIN * (1 + np.abs(h)), within < without, width)

    def lift(self, x: Array) -> Array:
        """Return the point itself, because every feasible point satisfies the cuts."""
        return x

    def _rows(self, cut: Mask, chosen: Mask, width: int) -> Rows:
        """Return one inequality per neuron with ``cut``, with the ``chosen`` weights as I."""
        count, number = len(self.h), np.cumsum(cut) - 1
        lower, rest = (np.bincount(self.owner, part, count).astype(np.float64) for part in (self.lower * chosen, self.upper * ~chosen))
        entries, which = chosen & cut[self.owner], np.flatnonzero(cut)
        data = np.concatenate([-self.data[entries], np.ones(len(which)), -(lower + rest + self.constant)[cut]])
        row = np.concatenate([number[self.owner[entries]], number[which], number[which]])
        column = np.concatenate([self.columns[entries], self.h[cut], self.v[cut]])
        return Rows(Csr((data, (row, column)), shape=(len(which), width)), np.full(len(which), -np.inf), -lower[cut])
