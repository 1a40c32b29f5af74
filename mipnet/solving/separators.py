"""Separators: constraints written row by row, as points violate them.  Tangents of log-sum-exp and of squares, and ideal cuts of ReLU."""

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


IDEAL_CUT_VIOLATION_MIN = 1e-6
"""A cut is worth a row if a point misses it by more, relative to ``1 + |h|``."""


@dataclass(frozen=True, eq=False)
class IdealCuts:
    """The inequalities that make the linear relaxation of big-M neurons their convex hull, written one at a time.

    Over the box ``L <= x <= U`` of the variables that it reads, a neuron h = max(w x + b, 0) with v = 1 where w x + b > 0 meets, for
    every subset I of its inputs::

        h  <=  sum_{i in I} w_i (x_i - L'_i (1 - v))  +  (b + sum_{i not in I} w_i U'_i) v,

    L' and U' being the ends of the box at which w_i x_i is least and most.  All of them together are ideal, and the one that a point
    violates most takes each term from the side where it is smaller, so it is found in linear time (Anderson, Huchette, Ma,
    Tjandraatmadja and Vielma 2020, the ReLU over a box).  I = all inputs gives ``h <= z - l (1 - v)``, the empty I ``h <= u v``.

    Entries ``data`` stand in ``columns`` and belong to neuron ``owner``; each neuron has a ``constant`` and the columns ``h`` and ``v``.
    ``least`` and ``most`` are the smallest and largest value of each entry ``w_i x_i``.
    """

    data: Array
    columns: Columns
    owner: Columns
    constant: Array
    h: Columns
    v: Columns
    least: Array
    most: Array

    @staticmethod
    def of(neurons: Sequence[BigMNeurons], program: Program) -> IdealCuts:
        """The cuts of neurons over the bounds of a program's columns; a neuron that reads a column without bounds has none."""
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
        """None: big-M is there already."""
        return self._rows(np.zeros(len(self.h), dtype=np.bool_), np.zeros(len(self.data), dtype=np.bool_), width)

    def separate(self, x: Array, width: int) -> Rows:
        """The most violated cut of each neuron that misses one."""
        v, h = x[self.v], x[self.h]
        within = self.data * x[self.columns] - self.least * (1 - v)[self.owner]
        without = self.most * v[self.owner]
        highest = np.bincount(self.owner, np.minimum(within, without), len(h)) + self.constant * v
        return self._rows(h - highest > IDEAL_CUT_VIOLATION_MIN * (1 + np.abs(h)), within < without, width)

    def lift(self, x: Array) -> Array:
        """The point itself: no cut moves an integral one."""
        return x

    def _rows(self, cut: Mask, chosen: Mask, width: int) -> Rows:
        """For each neuron to ``cut`` its inequality, with the ``chosen`` entries as I."""
        count, number = len(self.h), np.cumsum(cut) - 1
        least, rest = (np.bincount(self.owner, part, count).astype(np.float64) for part in (self.least * chosen, self.most * ~chosen))
        entries, which = chosen & cut[self.owner], np.flatnonzero(cut)
        data = np.concatenate([-self.data[entries], np.ones(len(which)), -(least + rest + self.constant)[cut]])
        row = np.concatenate([number[self.owner[entries]], number[which], number[which]])
        column = np.concatenate([self.columns[entries], self.h[cut], self.v[cut]])
        return Rows(Csr((data, (row, column)), shape=(len(which), width)), np.full(len(which), -np.inf), -least[cut])
