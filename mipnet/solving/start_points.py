"""Points that a solve is given: those of a search before it, and answers to a solver that asks for some."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from mipnet.arrays import Array
from mipnet.solving.gradient_search import Search

SHARE, MOST = 0.1, 2.0
"""A search takes this share of the time at most, and before a solve so many seconds."""

LEAST = 0.05
"""So many seconds are always there."""

STARTS, STEPS = 16, 40
"""So many starts at once take so many steps before a solve."""

AGAIN, FEW = 6, 12
"""So many starts take so many steps for an answer."""

TRIED = 4
"""So many of the best points that came of the starts are completed and checked."""


@dataclass(eq=False)
class StartPoints:
    """Points of a search, made true and checked by ``repair``; ``seconds`` is the time limit of the solve that they are for."""

    search: Search
    repair: Callable[[Array], Array | None]
    seconds: float
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    began: float = field(default_factory=time.perf_counter)
    spent: float = 0.0

    def before(self) -> Iterator[Array]:
        """The points to start from, the best first."""
        begin = np.vstack([self.search.starts, self.search.random(STARTS - 1, self.rng)])
        yield from self._true(self.search.descend(begin, STEPS, max(LEAST, min(MOST, SHARE * self.seconds))))

    def answer(self, x: Array | None, best: Array | None) -> Array | None:
        """A point near that of a relaxation, near the best known one, or near none, within a share of the time since the beginning."""
        now = time.perf_counter()
        if self.spent > LEAST + SHARE * (now - self.began):
            return None
        free = self.search.free
        near = [point[free] for point in (x, best) if point is not None]
        begin = np.vstack([*near, self.search.random(AGAIN - len(near), self.rng)])
        found = next(self._true(self.search.descend(begin, FEW, LEAST), x if x is not None else best), None)
        self.spent += time.perf_counter() - now
        return found

    def _true(self, found: Array, x: Array | None = None) -> Iterator[Array]:
        repaired = (self.repair(self.search.completed(free, x)) for free in found[:TRIED])
        yield from (point for point in repaired if point is not None)
