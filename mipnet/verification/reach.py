"""Reach: the smallest and the largest value of the outputs of a network, or of linear functions of them, over a box.

The question is that of "Reachability Analysis of Deep Neural Networks with Provable Guarantees" (Ruan, Huang and Kwiatkowska, IJCAI 2018);
`mipnet.verification.certified_minimum` answers it for piecewise-linear networks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.errors import InputError, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import add_warning, carries_warnings
from mipnet.network.given_arrays import numbers
from mipnet.network.graph import Network, size
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.certified_minimum import MinimumSearch, MinimumSettings
from mipnet.verification.output_functions import FoundMinimum
from mipnet.verification.softmax_ends import OutputEnd, softmax_functions


@dataclass(frozen=True, eq=False)
class Extreme:
    """The minimum or the maximum of one function: ``value`` is attained at ``point``, and no value in the box is beyond ``bound``.

    ``size`` is the largest absolute value of the function that was found in the box, or of a probability or log-probability at least 1.
    ``method`` is the stage that proved the bound: interval, crown, splitting, alpha or mip.  Without time for any of them the bound is
    infinite.
    """

    bound: float
    value: float
    point: Array
    method: str
    size: float

    @property
    def gap(self) -> float:
        """The distance of the bound from the attained value."""
        return abs(self.bound - self.value)

    @property
    def relative_gap(self) -> float:
        """The gap divided by the size; 0 if there is none."""
        return self.gap / self.size if self.size else 0.0 if self.gap == 0 else np.inf


@dataclass(frozen=True, eq=False)
class Reached:
    """The minima and maxima of some functions of the outputs; ``directions`` ``(functions, outputs)`` has one row per function.

    ``lowest[k].bound <= min <= lowest[k].value`` and ``highest[k].value <= max <= highest[k].bound``, where min and max are those of
    function k over the box.  ``warnings`` say what was not closed or left out.
    """

    directions: Array
    lowest: tuple[Extreme, ...]
    highest: tuple[Extreme, ...]
    tolerance: float
    seconds: float
    parts: int
    nodes: int
    backend: str
    interrupted: bool
    warnings: tuple[str, ...] = ()

    @cached_property
    def lower(self) -> Array:
        """The certified lower bounds, ``(functions,)``."""
        return np.array([end.bound for end in self.lowest])

    @cached_property
    def upper(self) -> Array:
        """The certified upper bounds, ``(functions,)``."""
        return np.array([end.bound for end in self.highest])

    @property
    def gap(self) -> float:
        """The largest gap of any minimum or maximum, relative to the size of its function."""
        return max(end.relative_gap for end in (*self.lowest, *self.highest))

    @property
    def closed(self) -> bool:
        """True if no gap is larger than the tolerance."""
        return self.gap <= self.tolerance

    def warn_if_open(self) -> None:
        """Add a warning if some gaps are larger than the tolerance."""
        ends = [*self.lowest, *self.highest]
        count = sum(end.relative_gap > self.tolerance for end in ends)
        if count:
            found = f"{count} of {len(ends)} minima and maxima are not found to the tolerance of {self.tolerance:g}"
            largest = f"the largest gap is {self.gap:.3g}" if np.isfinite(self.gap) else "some of them have no bound at all"
            add_warning(f"{found}: the bounds hold, and {largest}")


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS)
@carries_warnings
def reach(
    network: Network,
    region: Box,
    directions: ArrayLike | None = None,
    *,
    backend: str | Backend | MipSettings = "highs",
    time_limit: TimeLimit = 60.0,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Reached:
    """Bound the smallest and the largest value of each output over a box, or of linear functions of the outputs.

    All bounds are certified, and come with inputs that attain values close to them.

    Parameters
    ----------
    region
        One box, of the network's input shape.
    directions
        The functions ``directions @ y`` of the output y, ``(functions, outputs)`` or ``(outputs,)``; every single output if left out.
    backend
        The solver of the last stage, or a `MipSettings` with its options and the formulation as well.
    time_limit
        Seconds of the whole call, None for no limit; then the bounds proven so far are returned.
    tolerance
        A minimum or maximum is found once its gap is at most this, relative to the size of the function: its largest absolute value that
        was found in the box (for a probability or log-probability, at least 1).
    seed
        The seed of the gradient search.

    With at most ten inputs the box is split, in the order of the bounds.  With more inputs, and where splitting takes too long, a solver
    minimises and maximises each function on one open session.  Ctrl-C returns the bounds proven so far.
    """
    began, deadline = time.monotonic(), Deadline.after(time_limit)
    rows = _directions(network, directions)
    region = one_box(network, region)
    check_tolerance(tolerance)
    settings = MinimumSettings(MipSettings.of(backend), deadline, tolerance, seed=seed)
    functions = softmax_functions(network, rows)
    parts, searches, found = functions.parts(), list[MinimumSearch](), list[FoundMinimum]()
    for left, part in zip(range(len(parts), 0, -1), parts, strict=True):
        if (searches and deadline.passed) or any(each.interrupted for each in searches):
            found += [
                FoundMinimum(-np.inf, f, region.centre[0], "interval", abs(f)) for f in part.values(network, region.centre)[0].tolist()
            ]
            continue
        searches.append(MinimumSearch(network, part, region, replace(settings, deadline=deadline.share(1 / left))))
        found += searches[-1].run()
    ends = [_extreme(*each) for each in zip(found, functions.ends, [-1] * len(rows) + [1] * len(rows), strict=True)]
    nodes, interrupted = sum(each.nodes for each in searches), any(each.interrupted for each in searches)
    boxes, seconds, solver = sum(each.parts for each in searches), time.monotonic() - began, settings.mip.solver.name
    reached = Reached(rows, tuple(ends[: len(rows)]), tuple(ends[len(rows) :]), tolerance, seconds, boxes, nodes, solver, interrupted)
    reached.warn_if_open()
    return reached


def _extreme(found: FoundMinimum, end: OutputEnd, sign: int) -> Extreme:
    """Return a minimum (``sign`` -1) or a maximum (1) of an output, from the minimum of its function of the logits."""
    value, bound = end.output(found.value), end.outward(found.bound, sign)
    size = end.size(found.value, found.size)
    return Extreme(max(value, bound) if sign > 0 else min(value, bound), value, found.point, found.method, size)


def one_box(network: Network, region: Box) -> Box:
    """Return the box with a sample axis of length 1; raises `InputError` for several boxes."""
    fitted = region.fit(network.input_shape, network.input_names)
    if fitted.samples != 1:
        raise InputError(f"the set has {fitted.samples} boxes; expected one: call the function once per box")
    return fitted


def check_tolerance(tolerance: float) -> None:
    """Raise `InputError` unless the tolerance is at least 0."""
    if not tolerance >= 0:
        raise InputError(f"the tolerance is {tolerance}; expected a number of at least 0")


def _directions(network: Network, given: ArrayLike | Sequence[Sequence[float]] | None) -> Array:
    width = size(network.output_shape)
    if given is None:
        return np.eye(width)
    rows = np.atleast_2d(np.asarray(numbers(given, "the array of directions", InputError), dtype=np.float64))
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise InputError(f"the directions have shape {rows.shape}; expected (functions, {width}), one number per output")
    if not np.isfinite(rows).all():
        raise InputError("the directions hold NaN or infinite numbers; expected finite ones")
    return rows
