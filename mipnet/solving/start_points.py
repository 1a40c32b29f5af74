"""Points that a solve is given: those of a search before it, and answers to a solver that asks for some."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from mipnet.arrays import Array
from mipnet.solving.gradient_search import GradientSearch

SEARCH_TIME_SHARE = 0.1
"""Largest share of the time limit of a solve that a search takes."""

SEARCH_SECONDS_MAX = 2.0
"""Longest search before a solve, in seconds."""

SEARCH_SECONDS_MIN = 0.05
"""Time that a search always gets, in seconds."""

STARTS_BEFORE_SOLVE, STEPS_BEFORE_SOLVE = 16, 40
"""Number of starting points, and gradient steps per point, before a solve."""

STARTS_PER_REQUEST, STEPS_PER_REQUEST = 6, 12
"""Number of starting points, and gradient steps per point, used when the solver asks for a solution."""

COMPLETED_POINTS_MAX = 4
"""Number of the best points of a search that are completed by a forward pass and checked."""


@dataclass(eq=False)
class StartPoints:
    """Points of a search, made true and checked by ``repair``; ``seconds`` is the time limit of the solve that they are for."""

    search: GradientSearch
    repair: Callable[[Array], Array | None]
    seconds: float
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    began: float = field(default_factory=time.perf_counter)
    spent: float = 0.0

    def before(self) -> Iterator[Array]:
        """The points to start from, the best first."""
        begin = np.vstack([self.search.starts, self.search.random(STARTS_BEFORE_SOLVE - 1, self.rng)])
        yield from self._true(
            self.search.descend(
                begin, STEPS_BEFORE_SOLVE, max(SEARCH_SECONDS_MIN, min(SEARCH_SECONDS_MAX, SEARCH_TIME_SHARE * self.seconds))
            )
        )

    def answer(self, x: Array | None, best: Array | None) -> Array | None:
        """A point near that of a relaxation, near the best known one, or near none, within a share of the time since the beginning."""
        now = time.perf_counter()
        if self.spent > SEARCH_SECONDS_MIN + SEARCH_TIME_SHARE * (now - self.began):
            return None
        free = self.search.free
        near = [point[free] for point in (x, best) if point is not None]
        begin = np.vstack([*near, self.search.random(STARTS_PER_REQUEST - len(near), self.rng)])
        found = next(self._true(self.search.descend(begin, STEPS_PER_REQUEST, SEARCH_SECONDS_MIN), x if x is not None else best), None)
        self.spent += time.perf_counter() - now
        return found

    def _true(self, found: Array, x: Array | None = None) -> Iterator[Array]:
        repaired = (self.repair(self.search.completed(free, x)) for free in found[:COMPLETED_POINTS_MAX])
        yield from (point for point in repaired if point is not None)
