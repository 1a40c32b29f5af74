"""Formulations of max pooling: the maximum ``p = max_i h_i`` of the candidates of a window.

The candidates h_i of a window have bounds ``l_i <= h_i <= u_i``, and each of them can be the largest.  Candidates that are never the
largest are left out before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mipnet.arrays import Array, Csr, Ints, Mask
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block
from mipnet.formulations.program_size import ProgramSize, max_big_m_size
from mipnet.formulations.registry import Family

WINDOW_MAXIMUM = Family("p = max_i h_i")
"""The formulations of max pooling."""

maximum = WINDOW_MAXIMUM.register
"""Register a function from `MaxWindows` to their maxima p as a formulation of max pooling: ``@maximum("my-name")``."""


@dataclass(frozen=True, eq=False)
class MaxWindows:
    """Windows with several candidates.

    ``keep`` marks the candidates that can be the largest, and ``lower`` and ``upper`` are the bounds of all candidates; the three have
    shape ``(sample, channel, position, kernel)``.  ``inputs`` are the values of the kept candidates, flat and window after window.
    """

    block: Block
    inputs: Affine
    keep: Mask
    lower: Array
    upper: Array

    @cached_property
    def open(self) -> Mask:
        """True for windows with kept candidates, shape ``(sample, channel, position)``."""
        return np.asarray(self.keep.any(axis=-1))

    @cached_property
    def window(self) -> Ints:
        """The window of each kept candidate, by flat position among all windows; shape ``(kept,)``."""
        return np.broadcast_to(np.arange(self.open.size).reshape(*self.open.shape, 1), self.keep.shape)[self.keep]

    @cached_property
    def gap(self) -> Array:
        """``max_{j != i} u_j - l_i`` for each kept candidate i, the largest difference between the maximum and it; shape ``(kept,)``."""
        others = _max_of_others(np.where(self.keep, self.upper, -np.inf))[self.keep]
        return np.maximum(others - self.lower[self.keep], 0.0)

    def values(self, point: Array) -> Array:
        """Return the values of the kept candidates at a point, and minus infinity elsewhere; shape as ``keep``."""
        values = np.full(self.keep.shape, -np.inf)
        values[self.keep] = self.inputs.evaluate(point)
        return values

    def maximum(self) -> Affine:
        """Add one variable p per window with candidates; return them flat over all windows."""
        shape, where = self.block.shape, self.open
        low, high = (np.where(self.keep, ends, -np.inf).max(axis=-1) for ends in (self.lower, self.upper))
        ends = (np.where(where, end, 0.0).reshape(shape) for end in (low, high))
        p = self.block.variable(
            "", *ends, where=where.reshape(shape), value=lambda q: np.where(where, self.values(q).max(-1), 0.0).reshape(shape)
        )
        return p.reshape(where.size)

    def winners(self) -> Affine:
        """Add one binary y per kept candidate, with ``sum y = 1`` per window; return them flat."""
        dims = tuple(f"{self.block.name}_{part}" for part in ("channel", "position", "candidate"))
        y = self.block.variable(
            "winner", 0, 1, where=self.keep, binary=True, dims=("sample", *dims), shape=self.keep.shape, value=self._one_hot
        )[self.keep]
        self.block.rows("one", self.total(y), "=", 1.0)
        return y

    def total(self, values: Affine) -> Affine:
        """Return the sum, per window with candidates, of a flat value with one element per kept candidate."""
        counts = self.keep.sum(-1)[self.open]
        sums = Csr(
            (np.ones(counts.sum()), np.arange(counts.sum()), np.append(0, np.cumsum(counts))), shape=(len(counts), int(counts.sum()))
        )
        return Affine(Csr(sums @ values.terms), sums @ values.constant)

    def _one_hot(self, point: Array) -> Array:
        hot = np.zeros(self.keep.shape)
        np.put_along_axis(hot, self.values(point).argmax(axis=-1)[..., None], 1.0, axis=-1)
        return hot * self.keep


@maximum("big-m", size=max_big_m_size)
def big_m(of: MaxWindows) -> Affine:
    """Write ``p >= h_i``, ``p <= h_i + (1 - y_i)(max_{j != i} u_j - l_i)``, ``sum y = 1`` (Fischetti and Jo 2018)."""
    p, y, gap = of.maximum(), of.winners(), of.gap
    difference = p[of.window] - of.inputs
    of.block.rows("above", difference, ">=")
    of.block.rows("below", difference + y * gap, "<=", gap)
    return p


@maximum("indicator", size=max_big_m_size)
def indicator(of: MaxWindows) -> Affine:
    """Write ``p >= h_i``, ``y_i = 1 -> p <= h_i``, ``sum y = 1``."""
    p, y = of.maximum(), of.winners()
    difference = p[of.window] - of.inputs
    of.block.rows("above", difference, ">=")
    of.block.rows_if("below", y, 1, difference, "<=")
    return p


def _hull_size(counts: Ints, terms: Array) -> ProgramSize:
    """Return the size of the maxima, the winners, and one copy of each candidate per winner, with three rows per copy."""
    pairs, each = float((counts.astype(np.float64) ** 2).sum()), len(terms)
    copies = ProgramSize(pairs, 3 * pairs, 7 * pairs)
    return copies + ProgramSize(len(counts) + each, 2 * len(counts) + each, float(terms.sum()) + 2 * each + len(counts))


@maximum("hull", size=_hull_size)
def hull(of: MaxWindows) -> Affine:
    """Write one copy c_ij of candidate j per winner i, the convex hull of the window over the box of its candidates.

    ``sum_i c_ij = h_j``, ``l_j y_i <= c_ij <= u_j y_i``, ``c_ii >= c_ij``, ``p = sum_i c_ii``, ``sum y = 1`` (a disjunction in its
    extended form; Anderson et al. 2020 on the maximum of affine functions).
    """
    p, y = of.maximum(), of.winners()
    winner, candidate = _pairs(of.keep.sum(-1)[of.open])
    lower, upper, y_of = of.lower[of.keep][candidate], of.upper[of.keep][candidate], y[winner]
    c = of.block.variable(
        "copy",
        np.minimum(lower, 0.0),
        np.maximum(upper, 0.0),
        value=lambda q: of.inputs.evaluate(q)[candidate] * y.evaluate(q)[winner],
        dims=(f"{of.block.name}_copy",),
        shape=lower.shape,
    )
    of.block.rows("copy_below", c - y_of * upper, "<=")
    of.block.rows("copy_above", c - y_of * lower, ">=")
    diagonal = winner == candidate
    own = c[diagonal]  # c_ii, one per kept candidate
    of.block.rows("copy_wins", (own[winner] - c)[~diagonal], ">=")
    sums = Csr((np.ones(len(winner)), (candidate, np.arange(len(winner)))), shape=(len(y.constant), len(winner)))
    of.block.rows("copies", Affine(Csr(sums @ c.terms), np.zeros(len(y.constant))) - of.inputs, "=")
    of.block.rows("wins", of.total(own) - p[np.flatnonzero(of.open)], "=")
    return p


def _triangle_size(counts: Ints, terms: Array) -> ProgramSize:
    """Return the size of the maxima, with two rows per candidate and one per window that holds all terms."""
    return ProgramSize(len(counts), 2 * len(terms) + len(counts), 3 * float(terms.sum()) + 2 * len(terms) + len(counts))


@maximum("triangle", relaxed=True, size=_triangle_size)
def triangle(of: MaxWindows) -> Affine:
    """Write the linear relaxation of big-m without binaries: ``sum_i (p - h_i) / G_i <= n - 1``, with ``G_i`` the big-M of candidate i."""
    p, gap = of.maximum(), of.gap
    difference = p[of.window] - of.inputs
    of.block.rows("above", difference, ">=")
    of.block.rows("below", difference, "<=", gap)
    counts = of.keep.sum(-1)[of.open]
    smallest = np.minimum.reduceat(gap, np.append(0, np.cumsum(counts)[:-1]))
    share = np.divide(np.repeat(smallest, counts), gap, out=np.zeros_like(gap), where=gap > 0)  # a gap of 0 says p = h_i already
    of.block.rows("together", of.total(difference * share), "<=", smallest * (counts - 1))
    return p


def _pairs(counts: Ints) -> tuple[Ints, Ints]:
    """Return all ordered pairs of candidates of the same window, as two arrays of candidate numbers, sorted by the first.

    ``counts`` is the number of candidates per window.
    """
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    sizes = np.repeat(counts, counts)  # number of pairs per first candidate
    first = np.repeat(np.arange(len(sizes)), sizes)
    return first, starts[first] + np.arange(len(first)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _max_of_others(values: Array) -> Array:
    """Return, for each entry, the largest of the other entries along the last axis."""
    order = np.sort(values, axis=-1)
    top = values.argmax(axis=-1)[..., None]
    others = np.broadcast_to(order[..., -1:], values.shape).copy()
    np.put_along_axis(others, top, order[..., -2:-1], axis=-1)
    return others
