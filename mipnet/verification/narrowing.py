"""Best-first search over the input: the boxes with the lowest bounds are halved until none is below the best value that is known."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from mipnet.arrays import Array
from mipnet.bounds.interval import Interval
from mipnet.network.sets import Box
from mipnet.verification.clause_network import Excess
from mipnet.verification.input_splitting import BATCH, THINNEST, Parts, Splitting

HELD = 200_000
"""As many boxes are kept at most."""


def narrow(excess: Excess, region: Box, level: Callable[[], float], learn: Callable[[Array], None], end: float) -> tuple[float, int]:
    """A bound below the least excess of any clause, and how many boxes were looked at.

    Boxes whose bound is above ``level()`` are done with.  ``learn`` is called with inputs of every box, and may lower the level.
    """
    splitting = Splitting(excess, region, 0.0, lambda x: None)
    whole = Interval(torch.tensor(region.lower[:1]), torch.tensor(region.upper[:1]))
    waiting, done = Parts(whole, {}, torch.full((1,), -torch.inf, dtype=torch.float64), whole.width), torch.inf
    while len(waiting) and time.monotonic() < end and len(waiting) < HELD:
        order = waiting.least.argsort()
        rest, parts = waiting[order[BATCH:]], splitting.bounded(waiting[order[:BATCH]])
        learn(np.concatenate([parts.box.centre.numpy(), splitting.corners]))
        reach = torch.where(parts.box.width > THINNEST * whole.width, parts.reach, -1.0).flatten(1)
        over = (parts.least >= level()) | (reach.amax(1) < 0)
        done = min(done, float(parts.least[over].min())) if over.any() else done
        halves = parts[~over].halved(reach[~over].argmax(1))
        waiting = rest + halves if len(rest) else halves
    return min([done, *waiting.least.tolist()]), splitting.boxes
