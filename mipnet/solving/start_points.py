"""Feasible points from a gradient search: starts before a solve, and suggestions for a solver that asks for points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from mipnet.arrays import Array
from mipnet.limits.deadline import Deadline
from mipnet.solving.gradient_search import GradientSearch

SEARCH_TIME_SHARE = 0.1
"""Largest share of the time of a solve that the search may take."""

SEARCH_SECONDS_MAX = 2.0
"""Largest time of the search before a solve, in seconds."""

SEARCH_SECONDS_MIN = 0.05
"""Time that the search gets in any case, in seconds."""

STARTS_BEFORE_SOLVE, STEPS_BEFORE_SOLVE = 16, 40
"""Number of starting points, and gradient steps per point, of the search before a solve."""

STARTS_PER_REQUEST, STEPS_PER_REQUEST = 6, 12
"""Number of starting points, and gradient steps per point, used when the solver asks for a solution."""

COMPLETED_POINTS_MAX = 4
"""Number of best points of a search that are completed by a forward pass and checked."""


@dataclass(eq=False)
class StartPoints:
    """Feasible points from a gradient search.

    ``repair`` returns a feasible point near a point, or None.  ``deadline`` is that of the solve.  ``spent`` is the time that
    the search has taken during the solve, in seconds.
    """

    search: GradientSearch
    repair: Callable[[Array], Array | None]
    deadline: Deadline
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    began: float = field(default_factory=time.perf_counter)
    spent: float = 0.0

    def before_solve(self) -> Iterator[Array]:
        """Yield feasible points to start from, the best one first; none after the deadline."""
        if self.deadline.passed:
            return
        begin = np.vstack([self.search.starts, self.search.random(STARTS_BEFORE_SOLVE - 1, self.rng)])
        seconds = max(SEARCH_SECONDS_MIN, min(SEARCH_SECONDS_MAX, SEARCH_TIME_SHARE * self.deadline.seconds))
        yield from self._feasible(self.search.descend(begin, STEPS_BEFORE_SOLVE, self.deadline.within(seconds)))

    def during_solve(self, x: Array | None, best: Array | None) -> Array | None:
        """Return a feasible point, or None if there is none or the share of the time is used up.

        The search starts from the solution ``x`` of a relaxation, from the ``best`` known point, and from random points.
        """
        now = time.perf_counter()
        if self.spent > SEARCH_SECONDS_MIN + SEARCH_TIME_SHARE * (now - self.began):
            return None
        free = self.search.free
        near = [point[free] for point in (x, best) if point is not None]
        begin = np.vstack([*near, self.search.random(STARTS_PER_REQUEST - len(near), self.rng)])
        found = self.search.descend(begin, STEPS_PER_REQUEST, self.deadline.within(SEARCH_SECONDS_MIN))
        point = next(self._feasible(found, x if x is not None else best), None)
        self.spent += time.perf_counter() - now
        return point

    def _feasible(self, found: Array, x: Array | None = None) -> Iterator[Array]:
        """Yield feasible points with the free columns ``found``; columns that a forward pass does not compute are those of ``x``."""
        repaired = (self.repair(self.search.completed(free, x)) for free in found[:COMPLETED_POINTS_MAX])
        yield from (point for point in repaired if point is not None)
