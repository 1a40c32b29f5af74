"""Polytopes of inputs: all x with ``A x <= b``, and the convex hull of points; flat inputs, of shape ``(n, inputs)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy.optimize import nnls

from mipnet.arrays import Array, Ints, Mask
from mipnet.network.named_inputs import Names, input_order

POLYTOPE_ROUNDING_RELATIVE = 1e-12
"""Rounding error of a row ``a x <= b`` at a point, relative to the sum of the absolute values of its terms."""

HULL_RESIDUAL_RELATIVE = 1e-10
"""A point with at most this distance from the hull lies in it, relative to the ranges of the inputs over its points."""

PROJECTION_NUMBERS_MAX = 2**24
"""Largest product of points, inputs and hull points for which every projection onto a hull is exact; else it is a point on the way."""

PROJECTION_STEPS = 24
"""Steps of a projection onto a hull that is not exact (Frank and Wolfe)."""

ALTERNATING_STEPS_MAX = 50
"""Largest number of projections onto the hull and onto the box in turn."""


@dataclass(frozen=True, eq=False)
class _Labelled:
    """A polytope whose inputs may have names."""

    input_names: Names = field(default=(), kw_only=True)

    def with_inputs(self, names: Sequence[str]) -> Self:
        """Return the same set with its inputs in the order of these names, if they have names; raises `DataError` for other names."""
        return self if self.input_names in ((), tuple(names)) else self.ordered(input_order(self.input_names, names, "the polytope"))

    def ordered(self, order: Ints) -> Self:
        """Return the same set for inputs in another order."""
        raise NotImplementedError

    def _names_in(self, order: Ints) -> Names:
        return self.input_names and tuple(self.input_names[k] for k in order)


@dataclass(frozen=True, eq=False)
class HalfSpaces(_Labelled):
    """All x with ``matrix @ x <= rhs``, of shapes ``(rows, inputs)`` and ``(rows,)``; ``inside`` is one of them."""

    matrix: Array
    rhs: Array
    inside: Array

    def __str__(self) -> str:
        return f"the polytope of {len(self.rhs):,} half-spaces"

    def ordered(self, order: Ints) -> Self:
        """Return the same set for inputs in another order."""
        return replace(self, matrix=self.matrix[:, order], inside=self.inside[order], input_names=self._names_in(order))

    def violation(self, x: Array) -> Array:
        """Return how far each input lies outside of its worst half-space, in the maximum norm: ``(n,)``, at most 0 inside."""
        over = x @ self.matrix.T - self.rhs
        over -= POLYTOPE_ROUNDING_RELATIVE * (np.abs(x) @ np.abs(self.matrix).T + np.abs(self.rhs))
        size = np.abs(self.matrix).sum(axis=1)
        return np.asarray((over / np.where(size > 0, size, 1.0)).max(axis=1, initial=-np.inf))

    def nearest(self, x: Array, lower: Array, upper: Array) -> Array:
        """Return the nearest point of the set and of the box ``lower <= x <= upper`` for each input of the box.

        Each is a least-distance problem, solved by non-negative least squares (Lawson and Hanson, "Solving Least Squares Problems", 1974,
        chapter 23).
        """
        found = np.clip(x, lower, upper)
        for k in np.flatnonzero(self.violation(found) > 0):
            found[k] = self._projected(x[k], *(np.broadcast_to(end, x.shape)[k] for end in (lower, upper)))
        return found

    def _projected(self, x: Array, lower: Array, upper: Array) -> Array:
        eye = np.eye(len(x))
        matrix = np.concatenate([self.matrix, eye, -eye])
        room = np.concatenate([self.rhs, upper, -lower]) - matrix @ x
        size = np.abs(matrix).sum(axis=1)
        size[size == 0] = 1.0
        reach = max(float(-(room / size).min(initial=0.0)), np.finfo(float).tiny)  # in these units the nearest point is about 1 away
        system = np.concatenate([-(matrix / size[:, None]).T, -(room / size / reach)[None]])
        try:
            weights = nnls(system, np.append(np.zeros(len(x)), 1.0))[0]
        except RuntimeError:  # too many steps
            return self.inside.copy()
        residual = system @ weights
        residual[-1] -= 1.0
        if not residual[-1] < 0:
            return self.inside.copy()
        return np.asarray(np.clip(x - reach * residual[:-1] / residual[-1], lower, upper))

    def misses(self, lower: Array, upper: Array) -> Mask:
        """Return which boxes ``(n, inputs)`` have no point in common with one of the half-spaces, for certain."""
        up, down = np.maximum(self.matrix, 0.0), np.minimum(self.matrix, 0.0)
        least = lower @ up.T + upper @ down.T
        size = np.maximum(np.abs(lower), np.abs(upper)) @ np.abs(self.matrix).T + np.abs(self.rhs)
        return np.asarray((least - POLYTOPE_ROUNDING_RELATIVE * size > self.rhs).any(axis=1))

    def same(self, other: object) -> bool:
        """Return whether another polytope has the same half-spaces."""
        return isinstance(other, HalfSpaces) and np.array_equal(self.matrix, other.matrix) and np.array_equal(self.rhs, other.rhs)

    @property
    def parts(self) -> tuple[Array, ...]:
        """The numbers that the set is made of."""
        return self.matrix, self.rhs


@dataclass(frozen=True, eq=False)
class Hull(_Labelled):
    """The convex hull of ``points`` ``(points, inputs)``, and all x within ``enlarge`` ``(inputs,)`` of it, by feature.

    x = sum_k w_k points_k + s,   w >= 0,   sum_k w_k = 1,   |s| <= enlarge
    """

    points: Array
    enlarge: Array

    @cached_property
    def ranges(self) -> Array:
        """The range of each input over the points and the enlargement; 1 where it is 0."""
        found = np.ptp(self.points, axis=0) + 2 * self.enlarge
        return np.where(found > 0, found, 1.0)

    @property
    def inside(self) -> Array:
        """The mean of the points."""
        return np.asarray(self.points.mean(axis=0))

    def __str__(self) -> str:
        return f"the {'enlarged ' * bool(self.enlarge.any())}convex hull of {len(self.points):,} points"

    def ordered(self, order: Ints) -> Self:
        """Return the same set for inputs in another order."""
        return replace(self, points=self.points[:, order], enlarge=self.enlarge[order], input_names=self._names_in(order))

    def weights(self, x: Array) -> Array:
        """Return the weights ``(points,)`` of the point of the hull that is nearest to an input ``(inputs,)``, in units of the ranges.

        With an enlargement, distances count from its end.  The weights v of non-negative least squares in ``[P - x; 1] v = [0; 1]``,
        divided by their sum, are those of the nearest point.
        """
        sides = [((self.points - x) / self.ranges).T, np.ones((1, len(self.points)))]
        if self.enlarge.any():  # s = enlarge (p - q) with p + q + r = sum(w); the last rows have a large weight
            wide, eye, count = np.diag(self.enlarge / self.ranges), 1e3 * np.eye(len(x)), len(x)
            sides[0] = np.concatenate([sides[0], wide, -wide, np.zeros((count, count))], axis=1)
            sides[1] = np.concatenate([sides[1], np.zeros((1, 3 * count))], axis=1)
            sides.append(np.concatenate([np.full((count, len(self.points)), -1e3), eye, eye, eye], axis=1))
        system = np.concatenate(sides)
        wanted = np.zeros(len(system))
        wanted[len(x)] = 1.0
        try:
            found = nnls(system, wanted)[0][: len(self.points)]
        except RuntimeError:  # too many steps
            found = np.zeros(len(self.points))
        if not found.sum() > 0:
            found[int(np.abs((self.points - x) / self.ranges).sum(axis=1).argmin())] = 1.0
        return np.asarray(found / found.sum())

    def _nearest_of_hull(self, x: Array) -> Array:
        """Return the nearest point of the enlarged hull for each input; a point on the way to it if there are many numbers."""
        exact = x.size * len(self.points) <= PROJECTION_NUMBERS_MAX or len(x) == 1
        return self._enlarged(x, self._projected(x) if exact else self._approached(x))

    def _enlarged(self, x: Array, hull: Array) -> Array:
        return np.asarray(hull + np.clip(x - hull, -self.enlarge, self.enlarge))

    def _projected(self, x: Array) -> Array:
        return np.array([self.weights(each) @ self.points for each in x]).reshape(x.shape)

    def _approached(self, x: Array) -> Array:
        """Return a point of the hull near each input: from the nearest of its points, by steps towards others."""
        points, scaled = self.points / self.ranges, x / self.ranges
        distance = (points**2).sum(axis=1) - 2 * scaled @ points.T
        found = points[distance.argmin(axis=1)]
        for _ in range(PROJECTION_STEPS):
            slope = found - scaled
            step = points[(slope @ points.T).argmin(axis=1)] - found
            length = (step**2).sum(axis=1)
            share = -(slope * step).sum(axis=1) / np.where(length > 0, length, 1.0)
            found = found + np.clip(share, 0.0, 1.0)[:, None] * step
        return np.asarray(found * self.ranges)

    def violation(self, x: Array) -> Array:
        """Return how far each input lies outside of the set, in the maximum norm: ``(n,)``, 0 inside."""
        away = np.abs(x - self._enlarged(x, self._projected(x)))
        return np.asarray(np.where(away <= HULL_RESIDUAL_RELATIVE * self.ranges, 0.0, away).max(axis=1, initial=0.0))

    def nearest(self, x: Array, lower: Array, upper: Array) -> Array:
        """Return a point of the set near each input, and in the box ``lower <= x <= upper`` where projections in turn lead to both."""
        found = self._nearest_of_hull(np.clip(x, lower, upper))
        low, high = self.ends
        if (lower <= low).all() and (upper >= high).all():
            return np.asarray(np.clip(found, lower, upper))  # by rounding errors alone
        for _ in range(ALTERNATING_STEPS_MAX):
            outside = ((found < lower) | (found > upper)).any(axis=1)
            if not outside.any():
                break
            found[outside] = self._nearest_of_hull(np.clip(found, lower, upper)[outside])
        return found

    @cached_property
    def ends(self) -> tuple[Array, Array]:
        """The smallest and the largest value of each input."""
        return self.points.min(axis=0) - self.enlarge, self.points.max(axis=0) + self.enlarge

    def misses(self, lower: Array, upper: Array) -> Mask:
        """Return which boxes ``(n, inputs)`` a hyperplane separates from the set, for certain: one through their centre is tried."""
        centre = (lower + upper) / 2
        slope = (centre - self._nearest_of_hull(centre)) / self.ranges**2
        most = (slope @ self.points.T).max(axis=1) + np.abs(slope) @ self.enlarge
        least = np.where(slope > 0, lower, upper)
        size = np.abs(slope) @ (np.abs(self.points).max(axis=0) + self.enlarge) + (np.abs(slope) * np.abs(least)).sum(axis=1)
        return np.asarray((slope * least).sum(axis=1) - most > POLYTOPE_ROUNDING_RELATIVE * size)

    def same(self, other: object) -> bool:
        """Return whether another polytope is the hull of the same points."""
        return isinstance(other, Hull) and np.array_equal(self.points, other.points) and np.array_equal(self.enlarge, other.enlarge)

    @property
    def parts(self) -> tuple[Array, ...]:
        """The numbers that the set is made of."""
        return self.points, self.enlarge


InputPolytope = HalfSpaces | Hull
"""A polytope that an input set may be cut with."""
