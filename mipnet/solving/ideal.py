"""Ideal cuts: the inequalities that make the linear relaxation of a big-M neuron its convex hull, one at a time.

Over the box ``L <= x <= U`` of the variables that it reads, a neuron h = max(w x + b, 0) with v = 1 where w x + b > 0 meets, for
every subset I of its inputs::

    h  <=  sum_{i in I} w_i (x_i - L'_i (1 - v))  +  (b + sum_{i not in I} w_i U'_i) v,

L' and U' being the ends of the box at which w_i x_i is least and most.  All of them together are ideal, and the one that a point
violates most takes each term from the side where it is smaller, so it is found in linear time (Anderson, Huchette, Ma,
Tjandraatmadja and Vielma 2020, the ReLU over a box).  I = all inputs gives ``h <= z - l (1 - v)``, the empty I ``h <= u v``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from mipnet.arrays import Array, Columns, Csr, Mask, widen
from mipnet.backend import Program, Rows
from mipnet.formulations.block import Rectified
from mipnet.model.to_program import column_lookup

VIOLATED = 1e-6
"""A cut is worth a row if a point misses it by more, relative to ``1 + |h|``."""


@dataclass(frozen=True, eq=False)
class IdealCuts:
    """The ideal cuts of neurons: entries ``data`` in ``columns`` by neuron ``owner``, their ``constant``, and columns h and v.

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
    def of(neurons: Sequence[Rectified], program: Program) -> IdealCuts:
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
        return self._rows(h - highest > VIOLATED * (1 + np.abs(h)), within < without, width)

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
