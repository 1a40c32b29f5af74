"""Gradient search for an input at which a clause holds: projected sign steps that decrease its largest excess, from many starting points.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR 2018), with decreasing steps.  A failed search proves
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipnet.arrays import Array
from mipnet.limits.deadline import Deadline
from mipnet.network.graph import Network
from mipnet.network.pass_cost import samples_at_once
from mipnet.network.sets import Box
from mipnet.verification.clause_network import Excess

SEARCH_STEPS = 40
"""Number of gradient steps per starting point."""

SEARCH_STEP_FIRST, SEARCH_STEP_LAST = 0.5, 0.005
"""The first and the last step size, relative to the width of the box in each coordinate."""

SEARCH_PASSES_PER_STEP = 3
"""What a gradient step costs, in forward passes."""

STARTS_PER_CLAUSE = 16
"""Number of starting points per clause in one round."""


class OutputFunction(Protocol):
    """A function to be minimised, like an `Excess`."""

    @property
    def network(self) -> Network:
        """The network that is run for it."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the values ``(n, functions)`` at inputs ``(n, *input_shape)``, differentiable."""


@dataclass(frozen=True, eq=False)
class CounterexampleSearch:
    """Gradient search in a set; its starting points are the centre, corners, and points in between, drawn from its own generator."""

    excess: Excess | OutputFunction
    region: Box
    generator: torch.Generator

    @staticmethod
    def of(excess: Excess | OutputFunction, region: Box, seed: int = 0) -> CounterexampleSearch:
        """Return a search in the box of the first sample."""
        return CounterexampleSearch(excess, region, torch.Generator().manual_seed(seed))

    def candidates(self, wanted: NDArray[np.bool_], deadline: Deadline, rounds: int) -> Iterator[Array]:
        """Yield, once per round, the inputs ``(n, *input_shape)`` at which a wanted clause holds in float64, smallest excess first."""
        clauses = torch.tensor(np.flatnonzero(wanted))
        for _ in range(rounds if len(clauses) else 0):
            if deadline.passed:
                return
            x, worst = self.descend(clauses, deadline)
            found = worst <= 0
            if found.any():
                yield x[found][worst[found].argsort()].numpy()

    def descend(self, clauses: Tensor, deadline: Deadline) -> tuple[Tensor, Tensor]:
        """Return the best point from every starting point that was reached in time, and the largest excess of its clause there."""
        low, high = torch.tensor(self.region.lower[:1]), torch.tensor(self.region.upper[:1])
        own = clauses.repeat(STARTS_PER_CLAUSE)[:, None]
        starts = self._starts(len(own), low, high)
        best, smallest = starts.clone(), torch.full((len(own),), torch.inf, dtype=torch.float64)
        at_once = samples_at_once(self.excess.network, SEARCH_PASSES_PER_STEP)
        for first in range(0, len(own), at_once):
            part = slice(first, first + at_once)
            x = starts[part]
            for step in np.geomspace(SEARCH_STEP_FIRST, SEARCH_STEP_LAST, SEARCH_STEPS):
                if deadline.passed:
                    tried = smallest < torch.inf
                    return best[tried], smallest[tried]
                x.requires_grad_()
                worst = self.excess(x).gather(1, own[part])[:, 0]
                (slope,) = torch.autograd.grad(worst.sum(), x)
                x, worst = x.detach(), worst.detach()
                better = worst < smallest[part]
                best[part][better], smallest[part][better] = x[better], worst[better]
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
