"""A path along the loss weight: scores from heavily pruned to barely pruned, the whole curve of accuracy against sparsity."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from mipnet.backend import Backend, Limits, OnEvent, Options
from mipnet.errors import InputError
from mipnet.pruning.importance.loss_path import Path, PathPoint, walk
from mipnet.pruning.importance.question import Importance, Scores
from mipnet.solving.engine import Start, open_problem


def weight_path(
    question: Importance,
    weights: Sequence[float],
    *,
    backend: str | Backend = "highs",
    time_limit: float = math.inf,
    mip_gap: float = 1e-4,
    limits: Limits | None = None,
    options: Options | None = None,
    start: Start = "forward",
    on_event: OnEvent | None = None,
    on_point: Callable[[PathPoint], None] | None = None,
) -> Path:
    """The scores of a question at each of these loss weights (its own does not matter), in that order.

    The program is posed and handed over once.  Limits hold for every weight by itself; ``on_point`` is called with each point when it
    is known.  Ctrl-C ends the path at the best point so far of the weight under way.
    """
    wrong = [weight for weight in weights if not (np.isfinite(weight) and weight >= 0)]
    if wrong or not len(weights):
        raise InputError(f"the loss weights are {list(weights)}; expected at least one, and each of at least 0")
    until = limits or Limits(time=time_limit, gap=mip_gap)
    began = time.perf_counter()
    posed, objective = question.pose_weighted()
    with open_problem(posed, backend, options=options) as opened:
        built = time.perf_counter() - began

        def solve_at(weight: float) -> Scores:
            opened.set_objective(objective(weight))
            return question.read(posed, opened.solve(limits=until, start=start, on_event=on_event))

        points, interrupted = walk([float(weight) for weight in weights], solve_at, on_point)
    return Path("weight", posed.gates, points, built, interrupted)


def spaced_weights(first: float, last: float, points: int = 8) -> tuple[float, ...]:
    """So many loss weights from the first to the last, each by the same factor from the one before."""
    if not (0 < first < math.inf and 0 < last < math.inf) or points < 2:
        raise InputError(f"a path runs from {first:g} to {last:g} in {points} points; expected two positive numbers and 2 points or more")
    return tuple(float(weight) for weight in np.geomspace(first, last, points))
