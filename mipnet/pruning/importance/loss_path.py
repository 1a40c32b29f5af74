"""A path: the scores of one question at many values of a parameter, on one open problem, in the order in which they were asked for.

Whatever kind of path it is (see `mipnet.pruning.importance.weights`), the problem is handed to the solver once; between two points only its
objective or its bounds change, the cuts stay, and each solve starts from where the one before it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import xarray as xr

from mipnet.backend import Status
from mipnet.network.gates import Gate
from mipnet.pruning.importance.question import Scores


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
