"""Agreement of two networks over a box: the largest difference of their outputs.

It proves that a pruned or compressed network can replace the original.  Both networks are joined into one network on a shared input, in
which equal units occur once (`mipnet.verification.two_networks.joint_network`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import CROWN_ROUNDING_RELATIVE
from mipnet.bounds.propagation import propagate
from mipnet.errors import InputError, MemoryLimitReached, TimeLimitReached, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import add_warning, carries_warnings, kept_if_solver_fails, left_out_if_too_large
from mipnet.network.graph import Network, size
from mipnet.network.pass_cost import samples_at_once
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.certified_minimum import MinimumSearch, MinimumSettings
from mipnet.verification.counterexamples import CounterexampleSearch
from mipnet.verification.output_functions import OutputFunctions
from mipnet.verification.reach import check_tolerance, one_box
from mipnet.verification.two_networks.joint_network import check_shapes, join_networks
from mipnet.verification.two_networks.output_difference import DifferenceScale, OutputDifference, largest_difference

AGREEMENT_TIME_SHARES = {"bounds": 0.3, "near": 0.2, "search": 0.1}
"""Share of the remaining time that the bounds of both networks, the bound from nearest units, and a search for probabilities may use."""

NEAREST_UNIT_TOLERANCE = 1e3
"""A tolerance, in place of `SAME_UNIT_TOLERANCE`, with which every unit is identified with its nearest unit."""

SIZE_SAMPLES = 61
"""Number of random inputs at which the size of outputs is computed, besides the centre and both ends of the box."""


SEARCHED_OUTPUTS_MAX = 64
"""Number of outputs whose difference is searched."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """Whether two networks agree: True if proven, False with a ``point`` at which they do not, None if neither was shown in time.

    ``largest`` is the largest difference of an output that was found, at ``point``; ``bound`` is a certified upper bound of that
    difference over the box.  ``size`` is the largest absolute output that was found, to which tolerances are relative; 1 for probabilities.
    ``method`` is the stage that proved the bound, or that the classes agree; ``near`` stands for a bound from the distance of each unit to
    its nearest unit in the other network, ``separate`` for one from the outputs of each network alone.  ``first`` and ``second`` are the
    outputs at the point.  ``shared`` is the number of units of the second network that equal units of the first.  ``warnings`` say what was
    not decided, not closed or left out.
    """

    agree: bool | None
    question: str
    largest: float
    bound: float
    point: Array | None
    first: Array | None
    second: Array | None
    method: str | None
    shared: int
    seconds: float
    parts: int
    nodes: int
    backend: str
    interrupted: bool
    warnings: tuple[str, ...] = ()
    size: float = 1.0

    def warn_if_open(self, tolerance: float) -> None:
        """Add a warning if it is not decided whether the networks agree, or if the largest difference is not found to a tolerance."""
        if self.question == "class" and self.agree is None:
            add_warning("it is not decided whether the networks name the same class: there is neither a proof nor an input")
        if self.question != "class" and not self.bound - self.largest <= tolerance * self.size:
            found = f"the largest difference lies between {self.largest:.6g} and {self.bound:.6g}"
            add_warning(f"{found}: it is not closed to {tolerance:g}")


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS | {"known": "leave it out: the bounds are computed"})
@carries_warnings
def agree(
    first: Network,
    second: Network,
    region: Box,
    *,
    within: float | None = None,
    backend: str | Backend | MipSettings = "highs",
    time_limit: TimeLimit = 60.0,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Agreement:
    """Bound the largest ``|first(x) - second(x)|`` of any output over a box from above, and find an input with a large difference.

    The outputs of networks that end in a softmax are probabilities (or log-probabilities); their difference is bounded from that of the
    logits, see `mipnet.verification.two_networks.output_difference`.  Raises `UnsupportedError` if only one network ends in a softmax, or
    both in different ones.

    Parameters
    ----------
    within
        The networks agree if no difference is larger than this; the search ends with a proof, or with an input with a larger
        difference.  If left out, the largest difference is searched, and the networks agree if it is at most ``tolerance``, relative to
        the size of the outputs.
    tolerance
        The largest difference is found once its gap is at most this, relative to the size of the outputs: the largest absolute output
        of the first network that was found in the box (1 for probabilities and log-probabilities).
    backend, time_limit, seed
        As those of `mipnet.reach`.
    """
    deadline = Deadline.after(time_limit)
    check_shapes(first, second)
    region = one_box(first, region)
    check_tolerance(tolerance)
    if within is not None and not within > 0:
        raise InputError(f"`within` is {within}; expected a number above 0")
    settings = MinimumSettings(MipSettings.of(backend), deadline, tolerance, seed=seed, size_min=output_size(first, region, deadline, seed))
    found = compare_outputs(first, second, region, within, settings)
    if within is None or found.agree is None:
        found.warn_if_open(tolerance)
    return found


def output_size(network: Network, region: Box, deadline: Deadline, seed: int = 0) -> float:
    """Return the size of the outputs over a box, to which tolerances are relative: `largest_value`, or 1 for (log-)probabilities."""
    return largest_value(network, region, deadline, seed) if network.softmax is None else 1.0


def largest_value(network: Network, region: Box, deadline: Deadline, seed: int = 0) -> float:
    """Return the largest absolute value of the last node at the centre and both ends of a box and at random inputs, as time allows."""
    share = np.random.default_rng(seed).uniform(-0.5, 1.5, (SIZE_SAMPLES, *region.lower.shape[1:])).clip(0, 1)
    inside = region.lower + share * (region.upper - region.lower)
    x, at_once, found = region.nearest(np.concatenate([region.centre, region.lower, region.upper, inside])), samples_at_once(network), 0.0
    for first in range(0, len(x), at_once):
        found = max(found, float(np.abs(network.forward(x[first : first + at_once])).max()))
        if deadline.passed:
            break
    return found


def compare_outputs(
    first: Network, second: Network, region: Box, within: float | None, settings: MinimumSettings, known: Bounds | None = None
) -> Agreement:
    """Return the result of `agree`; ``known`` are bounds of the first network's nodes over the box, those of alpha-CROWN if None.

    The size of the outputs is ``settings.size_min``.
    """
    began, scale, unit = time.monotonic(), DifferenceScale.of(first, second), settings.size_min
    found = _FoundDifference(np.inf, region.centre[0])
    try:
        bounds = bounds_of_both(first, second, region, settings.deadline, known)
        found = replace(found, bound=scale.terms * _separate_bound(bounds), method="separate")
        compared = "the comparison of both networks unit by unit"
        with left_out_if_too_large(compared), kept_if_solver_fails(compared):
            joint = _joint_difference(first, second, region, within, settings, bounds)
            found = joint if joint.bound <= found.bound else replace(joint, bound=found.bound, method=found.method)
    except TimeLimitReached:  # what was proven before holds
        pass
    except KeyboardInterrupt:
        if math.isinf(found.bound):
            boxes = propagate(first, region, method="interval"), propagate(second, region, method="interval")
            found = replace(found, bound=scale.terms * _separate_bound(boxes), method="separate")
        found = replace(found, interrupted=True)
    x, bound = found.point[None], scale.outputs(found.bound)
    y = [each.outputs(x).reshape(-1) for each in (first, second)]
    largest, limit = float(np.abs(y[0] - y[1]).max()), settings.tolerance * unit if within is None else within
    return Agreement(
        True if bound <= limit else False if largest > limit else None,
        "difference",
        largest,
        max(bound, largest),
        found.point,
        y[0],
        y[1],
        found.method,
        found.shared,
        time.monotonic() - began,
        found.parts,
        found.nodes,
        settings.mip.solver.name,
        found.interrupted,
        size=unit,
    )


@dataclass(frozen=True, eq=False)
class _FoundDifference:
    """A certified bound on the functions of `DifferenceScale`, the point with the largest difference so far, and how they were found."""

    bound: float
    point: Array
    method: str | None = None
    shared: int = 0
    parts: int = 0
    nodes: int = 0
    interrupted: bool = False


def bounds_of_both(first: Network, second: Network, region: Box, deadline: Deadline, known: Bounds | None = None) -> tuple[Bounds, Bounds]:
    """Return the bounds of alpha-CROWN for both networks; those of the first are given if ``known`` is not None."""
    end = deadline.share(AGREEMENT_TIME_SHARES["bounds"])
    own = known or propagate(first, region, method="alpha", time_limit=end.share(0.5))
    return own, propagate(second, region, method="alpha", time_limit=end)


def _separate_bound(bounds: tuple[Bounds, Bounds]) -> float:
    """Return a bound on the difference from the last nodes of each network alone, rounded outwards."""
    one, other = (each.after[each.network.output.name] for each in bounds)
    ends = [end.numpy().reshape(-1) for end in (one.lower, one.upper, other.lower, other.upper)]
    apart = np.maximum(ends[1] - ends[2], ends[3] - ends[0]).max()
    return float(apart + CROWN_ROUNDING_RELATIVE * max(np.abs(end).max() for end in ends))


def _joint_difference(
    first: Network, second: Network, region: Box, within: float | None, settings: MinimumSettings, bounds: tuple[Bounds, Bounds]
) -> _FoundDifference:
    """Bound the difference on the joint network."""
    joined, scale = join_networks(first, second, region, bounds=bounds, deadline=settings.deadline), DifferenceScale.of(first, second)
    matrix, slack = scale.matrix, scale.terms * float(joined.slack.max())
    rows, settings = len(matrix), replace(settings, target=None if within is None else slack - scale.enough(within))
    functions = OutputFunctions(matrix, np.zeros(rows), np.zeros(rows, dtype=np.int64))
    found = MinimumSearch(joined.network, functions, region, settings, joined.given)
    near = _nearest_unit_bound(first, second, region, bounds, settings.deadline.share(AGREEMENT_TIME_SHARES["near"]))
    found.improve("near", np.arange(rows), np.full(rows, slack - scale.terms * near))
    tried = region.centre if scale.softmax is None else _search(first, second, region, settings)
    found.learn(tried)
    (end,) = found.run()
    (point,) = max((end.point[None], tried), key=lambda x: largest_difference(first, second, x))
    return _FoundDifference(slack - end.bound, point, end.method, joined.shared, found.parts, found.nodes, found.interrupted)


def _search(first: Network, second: Network, region: Box, settings: MinimumSettings) -> Array:
    """Return an input with a large difference of the outputs, ``(1, *input_shape)``, from a gradient search."""
    search = CounterexampleSearch.of(OutputDifference(first, second), region, settings.seed)
    outputs = torch.arange(min(size(first.output_shape), SEARCHED_OUTPUTS_MAX))
    x, value = search.descend(outputs, settings.deadline.share(AGREEMENT_TIME_SHARES["search"]))
    return x[value.argmin()][None].numpy() if len(x) else region.centre


def _nearest_unit_bound(first: Network, second: Network, region: Box, bounds: tuple[Bounds, Bounds], deadline: Deadline) -> float:
    """Return a bound on the difference that identifies each unit of the second network with the nearest unit of the first.

    It is tight if the weights of both networks are close, and infinite if there is no time for it.
    """
    try:
        joined = join_networks(first, second, region, bounds=bounds, same=NEAREST_UNIT_TOLERANCE, deadline=deadline)
        box = propagate(joined.network, region, given=joined.given, time_limit=deadline).after[joined.network.output.name]
    except TimeLimitReached:
        return np.inf
    except MemoryLimitReached as error:
        add_warning(f"the bound from nearest units was left out: {error}")
        return np.inf
    return float((np.maximum(-box.lower.numpy(), box.upper.numpy())[0] + joined.slack).max())
