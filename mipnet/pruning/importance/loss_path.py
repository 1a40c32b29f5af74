"""A path along the loss weight: the scores of one importance question at many weights, on one open problem.

The problem is handed to the solver once.  Between two points only its objective changes, the cuts stay, and each solve starts from the
point at which the previous one ended.  The result is the curve of accuracy against sparsity, from heavily to barely pruned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mipnet.backend import Backend, Limits, OnEvent, Options, Status
from mipnet.errors import InputError
from mipnet.network.gates import Gate
from mipnet.pruning.importance.question import Importance, Scores
from mipnet.solving.engine import Start, open_problem


@dataclass(frozen=True, eq=False)
class PathPoint:
    """The scores at one value of the parameter."""

    value: float
    found: Scores


@dataclass(frozen=True, eq=False)
class Path:
    """The points of a path along the parameter of that name; ``interrupted`` by Ctrl-C, those that are done and the one it stopped."""

    along: str
    gates: tuple[Gate, ...]
    points: tuple[PathPoint, ...]
    build_seconds: float
    interrupted: bool = False

    @property
    def scores(self) -> xr.Dataset | None:
        """The scores of all points that have some, with the parameter as a dimension."""
        return stacked(self.along, [(point.value, point.found.scores) for point in self.points])


def stacked(along: str, parts: Iterable[tuple[float, xr.Dataset | None]]) -> xr.Dataset | None:
    """Datasets by value as one, with the parameter as a dimension; None if there is none."""
    known = [(value, data) for value, data in parts if data is not None]
    if not known:
        return None
    values = xr.DataArray([value for value, _ in known], dims=along, name=along)
    return xr.concat([data for _, data in known], dim=values, combine_attrs="override")


def walk(
    values: Iterable[float], solve_at: Callable[[float], Scores], on_point: Callable[[PathPoint], None] | None
) -> tuple[tuple[PathPoint, ...], bool]:
    """Solve at one value after another; True if Ctrl-C ended it, in a solve, which is the last point then, or between two of them."""
    points: list[PathPoint] = []
    try:
        for value in values:
            point = PathPoint(value, solve_at(value))
            if on_point is not None:
                on_point(point)
            points.append(point)
            if point.found.result.status is Status.INTERRUPTED:
                return tuple(points), True
    except KeyboardInterrupt:
        if not points:
            raise
        return tuple(points), True
    return tuple(points), False


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
