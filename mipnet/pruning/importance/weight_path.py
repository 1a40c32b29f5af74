"""A path along the loss weight: the scores of one importance question at many weights, from one open problem.

The program is written once.  Between two points only its objective changes, the cuts stay, and each solve starts from the point at which
the previous one ended, in a new session of the solver: so a path that goes on from kept points has the same numbers as one without a
break.  The result is the curve of accuracy against sparsity, from heavily to barely pruned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mipnet.backend import Backend, Limits, OnEvent, Status
from mipnet.errors import InputError, SolverFailure, suggest_keywords
from mipnet.limits.array_dataset import array_dataset, dataset_arrays, dataset_beside
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.limits.kept_parts import PackedPart, kept_parts
from mipnet.limits.result_warnings import add_warning, carries_warnings
from mipnet.network.gates import Gate
from mipnet.pruning.importance.program import Importance, Scores
from mipnet.pruning.importance.solve_settings import SolveSettings
from mipnet.solving.carried_state import CarriedState
from mipnet.solving.open_problem import open_problem
from mipnet.solving.result_records import result_numbers, result_of


@dataclass(frozen=True, eq=False)
class PathPoint:
    """The scores at one value of the parameter, with the result of its solve."""

    value: float
    found: Scores


@dataclass(frozen=True, eq=False)
class WeightPath:
    """The points of a path; ``along`` is the name of the parameter.

    If the path was ``interrupted`` by Ctrl-C, the points are those solved before and the one during which it was interrupted.
    ``warnings`` say whether a solver that failed ended it.
    """

    along: str
    gates: tuple[Gate, ...]
    points: tuple[PathPoint, ...]
    build_seconds: float
    interrupted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def scores(self) -> xr.Dataset | None:
        """The scores of all points that have scores, with the parameter as a dimension."""
        return stacked(self.along, [(point.value, point.found.scores) for point in self.points])


def stacked(along: str, parts: Iterable[tuple[float, xr.Dataset | None]]) -> xr.Dataset | None:
    """Return the datasets as one, with the parameter as a dimension; None if all of them are None."""
    known = [(value, data) for value, data in parts if data is not None]
    if not known:
        return None
    values = xr.DataArray([value for value, _ in known], dims=along, name=along)
    return xr.concat([data for _, data in known], dim=values, combine_attrs="override")


class SolvedPoints(NamedTuple):
    """The points of a path so far, and whether Ctrl-C ended it."""

    points: tuple[PathPoint, ...]
    interrupted: bool


def solve_points(
    values: Iterable[float], solve_at: Callable[[float], Scores], on_point: Callable[[PathPoint], None] | None
) -> SolvedPoints:
    """Solve at one value after another until Ctrl-C.

    Ctrl-C during a solve makes its best point the last one; Ctrl-C between two solves keeps the points before.
    """
    points: list[PathPoint] = []
    try:
        for value in values:
            point = PathPoint(value, solve_at(value))
            points.append(point)
            if on_point is not None:
                on_point(point)
            if point.found.result.interrupted:
                return SolvedPoints(tuple(points), True)
    except KeyboardInterrupt:
        if not points:
            raise
        return SolvedPoints(tuple(points), True)
    except SolverFailure as error:
        if not points:
            raise
        add_warning(f"the path ends after {len(points)} points, because the solver failed: {error}")
    return SolvedPoints(tuple(points), False)


@suggest_keywords(moved={name: f"write `backend=mn.SolveSettings(..., {name}=...)`" for name in ("options", "start")})
@carries_warnings
def weight_path(
    question: Importance,
    weights: Sequence[float],
    *,
    backend: str | Backend | SolveSettings = "highs",
    time_limit: TimeLimit = None,
    mip_gap: float = 1e-4,
    limits: Limits | None = None,
    on_event: OnEvent | None = None,
    on_point: Callable[[PathPoint], None] | None = None,
) -> WeightPath:
    """Return the scores of a question at each of these loss weights, in their order; the question's own weight is not used.

    Parameters
    ----------
    backend
        The solver, or `SolveSettings` with its options and the start as well.
    time_limit
        Seconds of the whole call, None for no limit, divided among the weights.  Weights that are not reached in time have no point.
    mip_gap, limits
        The relative gap at which a solve stops, or further limits of each solve.
    on_event
        Called with every `Event`.
    on_point
        Called with each point once it is known.

    The program is written once.  Each solve has the cuts and starts from the point of the one before, in a new session of the solver.
    Inside `mipnet.keep_parts` each point is kept with them, so that a path that goes on has the numbers of one without a break, unless a
    limit by time ends a solve.  Ctrl-C ends the path at the best point so far of the weight being solved.  Raises `TimeLimitReached` if
    the time ends before the program is written.
    """
    wrong = [weight for weight in weights if not (np.isfinite(weight) and weight >= 0)]
    if wrong or not len(weights):
        raise InputError(f"the loss weights are {list(weights)}; expected at least one, and each of at least 0")
    deadline = Deadline.after(time_limit)
    settings, stop = SolveSettings.of(backend), limits or Limits(gap=mip_gap)
    began = time.perf_counter()
    posed, objective = question.pose_weighted(time_limit=deadline)
    values, seconds = [float(weight) for weight in weights], None if isinstance(time_limit, Deadline) else time_limit
    on = {"question": question, "weights": values, "settings": settings, "limits": stop, "time_limit": seconds}
    kept = kept_parts("weight_path", on)
    with open_problem(posed, settings.backend, options=settings.options, time_limit=deadline) as opened:
        built, state = time.perf_counter() - began, CarriedState()

        def solve_at(weight: float, remaining: int, state: CarriedState) -> _CarriedScores:
            opened.restart(state)
            opened.set_objective(objective(weight))
            rest = stop if deadline == NO_DEADLINE else replace(stop, time=min(stop.time, deadline.seconds / remaining))
            result = opened.solve(time_limit=deadline, limits=rest, start=settings.start, on_event=on_event)
            return _CarriedScores(question.read(posed, result), opened.carried())

        def known_at(weight: float) -> Scores:
            nonlocal state
            point = kept.once(weight, partial(solve_at, weight, next(left), state), _packed, partial(_read_back, posed.gates))
            state = point.state
            return point.found

        left = iter(range(len(weights), 0, -1))
        in_time = takewhile(lambda _: not deadline.passed, values)
        solved = solve_points(in_time, known_at, on_point)
    return WeightPath("weight", posed.gates, solved.points, built, solved.interrupted)


class _CarriedScores(NamedTuple):
    """The scores at one weight, and what the solve at the next one starts from."""

    found: Scores
    state: CarriedState


def _packed(point: _CarriedScores) -> PackedPart | None:
    """Return what is kept of a point; None if Ctrl-C ended its solve, or its time ended without a solution."""
    scores, result = point.found.scores, point.found.result
    if result.interrupted or (scores is None and result.status is Status.TIME_LIMIT):
        return None
    return PackedPart({"result": result_numbers(result)}, array_dataset(point.state.arrays(), scores))


def _read_back(gates: tuple[Gate, ...], record: Mapping[str, Any], arrays: xr.Dataset | None) -> _CarriedScores:
    """Return the scores of a point that was kept; its result has the scores alone, and no full point."""
    scores = dataset_beside(arrays)
    return _CarriedScores(Scores(gates, scores, result_of(record["result"], scores)), CarriedState.of(dataset_arrays(arrays)))


@suggest_keywords
def spaced_weights(first: float, last: float, points: int = 8) -> tuple[float, ...]:
    """Return loss weights from the first to the last, evenly spaced on a logarithmic scale."""
    if not (0 < first < math.inf and 0 < last < math.inf) or points < 2:
        raise InputError(f"a path runs from {first:g} to {last:g} in {points} points; expected two positive numbers and 2 points or more")
    return tuple(float(weight) for weight in np.geomspace(first, last, points))
