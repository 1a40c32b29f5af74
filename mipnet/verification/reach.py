"""Reach: between which values are the outputs of a network, or linear functions of them, over a box?

What "Reachability Analysis of Deep Neural Networks with Provable Guarantees" (Ruan, Huang and Kwiatkowska, IJCAI 2018) asks, answered
for piecewise-linear networks by `mipnet.verification.minimum`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.errors import InputError, suggest_keywords
from mipnet.network.graph import Network, size
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.minimum import Minimising, MinimumSettings, Rows


@dataclass(frozen=True, eq=False)
class End:
    """One end of the range of one function: ``value`` is attained at ``point``, and nothing in the box is beyond ``bound``.

    ``method`` is the stage that the bound comes from: crown, splitting, alpha or mip (interval without the others).
    """

    bound: float
    value: float
    point: Array
    method: str

    @property
    def gap(self) -> float:
        """How far the true end may be from the value."""
        return abs(self.bound - self.value)


@dataclass(frozen=True, eq=False)
class Reached:
    """The ranges of some functions of the outputs, in order: ``directions`` has a row for each, ``(functions, outputs)``.

    ``lowest[k].bound <= min <= lowest[k].value`` and ``highest[k].value <= max <= highest[k].bound``, where min and max are those of
    function k over the box.
    """

    directions: Array
    lowest: tuple[End, ...]
    highest: tuple[End, ...]
    tolerance: float
    seconds: float
    parts: int
    nodes: int
    backend: str
    interrupted: bool

    @cached_property
    def lower(self) -> Array:
        """The certified lower ends, ``(functions,)``."""
        return np.array([end.bound for end in self.lowest])

    @cached_property
    def upper(self) -> Array:
        """The certified upper ends, ``(functions,)``."""
        return np.array([end.bound for end in self.highest])

    @property
    def gap(self) -> float:
        """The largest gap of any end, relative to its value where that is beyond 1."""
        return max(end.gap / max(1.0, abs(end.value)) for end in (*self.lowest, *self.highest))

    @property
    def closed(self) -> bool:
        """True if every gap is within the tolerance."""
        return self.gap <= self.tolerance


@suggest_keywords
def reach(
    network: Network,
    region: Box,
    directions: ArrayLike | None = None,
    *,
    backend: str | Backend | MipSettings = "highs",
    time_limit: float = 60.0,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Reached:
    """The least and the largest value of each output over a box, or of linear functions of the outputs: certified, with attained points.

    Parameters
    ----------
    region
        One box, of the network's input shape.
    directions
        ``(functions, outputs)`` or ``(outputs,)``: the values of ``directions @ y`` are asked for; each output if left out.
    backend
        The solver of the last stage, or a `MipSettings` with its options and the formulation as well.
    time_limit
        Seconds for everything; what is proven until then is returned.
    tolerance
        An end is found once its gap is at most ``tolerance * max(1, |value|)``.
    seed
        Of the gradient search.

    With at most ten inputs the box is split, best bound first; otherwise, and where that takes too long, a solver minimises and
    maximises each function on one open session.  Ctrl-C returns what is known.
    """
    rows = _directions(network, directions)
    region = one_box(network, region)
    check_numbers(time_limit, tolerance)
    began = time.monotonic()
    settings = MinimumSettings(MipSettings.of(backend), began + time_limit, tolerance, seed=seed)
    both = np.concatenate([rows, -rows])
    found = Minimising(network, Rows(both, np.zeros(len(both)), np.arange(len(both))), region, settings)
    ends = found.run()
    lowest = tuple(End(end.bound, end.value, end.point, end.method) for end in ends[: len(rows)])
    highest = tuple(End(-end.bound, -end.value, end.point, end.method) for end in ends[len(rows) :])
    seconds = time.monotonic() - began
    return Reached(rows, lowest, highest, tolerance, seconds, found.parts, found.nodes, settings.mip.solver.name, found.interrupted)


def one_box(network: Network, region: Box) -> Box:
    """The box with a sample axis of length 1; raises `InputError` for several."""
    fitted = region.fit(network.input_shape)
    if fitted.samples != 1:
        raise InputError(f"the set has {fitted.samples} boxes; expected one: ask for one after another")
    return fitted


def check_numbers(time_limit: float, tolerance: float) -> None:
    """Raise `InputError` unless there is time and the tolerance is not negative."""
    if not time_limit > 0:
        raise InputError(f"the time limit is {time_limit}; expected a positive number of seconds")
    if not tolerance >= 0:
        raise InputError(f"the tolerance is {tolerance}; expected a number of at least 0")


def _directions(network: Network, given: ArrayLike | Sequence[Sequence[float]] | None) -> Array:
    width = size(network.output_shape)
    if given is None:
        return np.eye(width)
    rows = np.atleast_2d(np.asarray(given, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise InputError(f"the directions have shape {rows.shape}; expected (functions, {width}), a number for each output")
    if not np.isfinite(rows).all():
        raise InputError("the directions hold NaN or infinite numbers; expected finite ones")
    return rows
