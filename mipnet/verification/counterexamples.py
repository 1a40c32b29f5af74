"""Gradient search for an input at which a clause holds: projected sign steps that decrease its largest excess, from many starting points.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR 2018), with decreasing steps.  A failed search proves
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipnet.arrays import Array
from mipnet.network.sets import Box
from mipnet.verification.clause_network import Excess

SEARCH_STEPS = 40
"""Number of gradient steps per starting point."""

SEARCH_STEP_FIRST, SEARCH_STEP_LAST = 0.5, 0.005
"""The first and the last step size, relative to the width of the box in each coordinate."""

STARTS_PER_CLAUSE = 16
"""Number of starting points per clause in one round."""


@dataclass(frozen=True, eq=False)
class CounterexampleSearch:
    """Gradient search in a set; its starting points are the centre, corners, and points in between, drawn from its own generator."""

    excess: Excess
    region: Box
    generator: torch.Generator

    @staticmethod
    def of(excess: Excess, region: Box, seed: int = 0) -> CounterexampleSearch:
        """Return a search in the box of the first sample."""
        return CounterexampleSearch(excess, region, torch.Generator().manual_seed(seed))

    def candidates(self, wanted: NDArray[np.bool_], end: float, rounds: int) -> Iterator[Array]:
        """Yield, once per round, the inputs ``(n, *input_shape)`` at which a wanted clause holds in float64, smallest excess first."""
        clauses = torch.tensor(np.flatnonzero(wanted))
        for _ in range(rounds if len(clauses) else 0):
            if time.monotonic() >= end:
                return
            x, worst = self.descend(clauses, end)
            found = worst <= 0
            if found.any():
                yield x[found][worst[found].argsort()].numpy()

    def descend(self, clauses: Tensor, end: float) -> tuple[Tensor, Tensor]:
        """Return the best point from every starting point, and the largest excess of its clause there."""
        low, high = torch.tensor(self.region.lower[:1]), torch.tensor(self.region.upper[:1])
        own = clauses.repeat(STARTS_PER_CLAUSE)[:, None]
        x = self._starts(len(own), low, high)
        best, smallest = x.clone(), torch.full((len(own),), torch.inf, dtype=torch.float64)
        for step in np.geomspace(SEARCH_STEP_FIRST, SEARCH_STEP_LAST, SEARCH_STEPS):
            x.requires_grad_()
            worst = self.excess(x).gather(1, own)[:, 0]
            (slope,) = torch.autograd.grad(worst.sum(), x)
            x, better = x.detach(), worst.detach() < smallest
            best[better], smallest[better] = x[better], worst.detach()[better]
            if time.monotonic() >= end:
                break
            x = torch.tensor(self.region.nearest((x - step * (high - low) * self._direction(slope)).numpy()))
        return best, smallest

    def _direction(self, slope: Tensor) -> Tensor:
        """Return the step of length 1 in the norm of the set that increases the excess most: signs in a box, the slope in a ball."""
        if self.region.ball is None:
            return slope.sign()
        flat = slope.flatten(1)
        length = flat.abs().amax(1) if self.region.ball.norm == "l1" else torch.linalg.vector_norm(flat, dim=1)
        return (flat / length.clamp(min=1e-300)[:, None]).reshape(slope.shape)

    def _starts(self, count: int, low: Tensor, high: Tensor) -> Tensor:
        share = torch.rand((count, *low.shape[1:]), generator=self.generator, dtype=torch.float64)
        share[: count // 4] = share[: count // 4].round()
        share[-1] = 0.5
        return torch.tensor(self.region.nearest((low + share * (high - low)).numpy()))
