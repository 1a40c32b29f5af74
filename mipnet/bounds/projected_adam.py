"""Adam on tensors that stay in an interval, for the lines of linear bounds.

Kingma and Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), algorithm 1, followed by a projection.  `torch.optim` does the
same, but loads torch's compiler first, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

FIRST_MOMENT_DECAY, SECOND_MOMENT_DECAY, ADAM_EPSILON = 0.9, 0.999, 1e-8


@dataclass(eq=False)
class AdamVariable:
    """A tensor that is changed in place: the first step size, and the largest value of its elements, which are at least 0."""

    value: Tensor
    rate: float
    upper: float
    first: Tensor = field(init=False)
    second: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.second = torch.zeros_like(self.value), torch.zeros_like(self.value)


class ProjectedAdam:
    """Steps of Adam; ``decay`` is the factor of all step sizes after each step."""

    def __init__(self, variables: Sequence[AdamVariable], decay: float) -> None:
        self.variables, self.decay, self.steps = variables, decay, 0

    @torch.no_grad()
    def step(self, slopes: Sequence[Tensor | None]) -> None:
        """Step against the slopes, one per variable, and project; a variable without a slope stays."""
        self.steps += 1
        first_scale, second_scale = (1 - decay**self.steps for decay in (FIRST_MOMENT_DECAY, SECOND_MOMENT_DECAY))
        for variable, slope in zip(self.variables, slopes, strict=True):
            if slope is None:
                continue
            variable.first.lerp_(slope, 1 - FIRST_MOMENT_DECAY)
            variable.second.mul_(SECOND_MOMENT_DECAY).addcmul_(slope, slope, value=1 - SECOND_MOMENT_DECAY)
            move = (variable.first / first_scale) / ((variable.second / second_scale).sqrt() + ADAM_EPSILON)
            variable.value.sub_(variable.rate * self.decay ** (self.steps - 1) * move).clamp_(0.0, variable.upper)
