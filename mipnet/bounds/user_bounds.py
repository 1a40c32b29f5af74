"""Bounds that a user provides: their shapes, order and numbers are checked, and forward passes have to lie inside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from mipnet.bounds.interval import Interval
from mipnet.errors import InputError, NetworkError, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.gates import Gate, scaled
from mipnet.network.given_arrays import aligned, as_labelled, in_label_order, in_order, numbers
from mipnet.network.graph import Network, dims_of
from mipnet.network.sets import Box

BoundsByNode = Mapping[str, Any]
"""By node name: a pair of arrays ``(lower, upper)``, or a Dataset with variables of these names."""


@suggest_keywords
@dataclass(frozen=True, eq=False)
class UserBounds:
    """Bounds that a user knows, and whether they replace the computed ones.

    Parameters
    ----------
    by_node
        By node name: a pair of arrays ``(lower, upper)``, or a Dataset with variables of these names.
    replace
        True: they stand in place of the computed bounds.  False: both are intersected.
    """

    by_node: BoundsByNode
    replace: bool = False


CHECK_PASSES_PER_SAMPLE, CHECK_PASSES_AT_ONCE = 200, 50
"""Number of forward passes per sample by which bounds are checked, and of those computed at once; half of them start at corners of the
input set."""

USER_BOUNDS_SLACK_RELATIVE = 1e-7
"""How far a forward pass may lie outside, relative to 1 + its absolute value: bounds are often written with few digits."""


def read_given(network: Network, region: Box, given: BoundsByNode) -> dict[str, Interval]:
    """Return the user's bounds as boxes for all samples; raises `InputError` naming the node and what is wrong.

    Arrays have the shape of the node, which holds for all samples, or that shape with a sample axis in front.  An infinite end means that
    there is no bound.
    """
    found = {}
    for name, ends in given.items():
        if name not in {node.name for node in network.nodes}:
            raise NetworkError(f"bounds are given for `{name}`; the nodes are {', '.join(node.name for node in network.nodes)}")
        lower, upper = _ends(network, name, ends)
        shape = (region.samples, *network.shape_of(name))
        if any(end.shape not in (shape, shape[1:], ()) for end in (lower, upper)):
            raise InputError(
                f"the bounds of `{name}` have shapes {lower.shape} and {upper.shape}; expected {shape}, or {shape[1:]} for all"
            )
        if np.isnan(lower).any() or np.isnan(upper).any():
            raise InputError(f"the bounds of `{name}` hold NaN; expected numbers, or infinity where nothing is known")
        lower, upper = np.broadcast_to(lower, shape), np.broadcast_to(upper, shape)
        if (lower > upper).any():
            raise InputError(
                f"the bounds of `{name}` are out of order in {np.count_nonzero(lower > upper)} places; expected lower <= upper"
            )
        found[name] = Interval(torch.tensor(lower.copy()), torch.tensor(upper.copy()))
    return found


def _ends(network: Network, name: str, ends: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    try:
        if isinstance(ends, xr.Dataset):
            ends = [ends[end] for end in ("lower", "upper")]
        low, high = ends
        low, high = aligned(low, high, f"the bounds of `{name}`", InputError)
        lower, upper = (np.asarray(_by_label(network, name, end), dtype=np.float64) for end in (low, high))
    except InputError:
        raise
    except (TypeError, ValueError, KeyError):
        raise InputError(f"the bounds of `{name}` are no pair of arrays; expected `(lower, upper)`, or a Dataset with both") from None
    return lower, upper


def _by_label(network: Network, name: str, end: Any) -> NDArray[Any]:
    """Return one end of a node's bounds as a plain array, with the axes of a labelled one as in `Bounds`, in the order of its labels."""
    labelled = as_labelled(end)
    if labelled is None:
        return numbers(end, f"the array of bounds of `{name}`", InputError)
    dims = ("sample", *dims_of(name, network.shape_of(name)))
    if set(labelled.dims) <= set(dims):
        labelled = labelled.transpose(*dims, missing_dims="ignore")
    what = f"the array of bounds of `{name}`"
    return numbers(in_label_order(in_order(labelled, what, InputError), what, InputError), what, InputError)


def check_by_samples(
    network: Network, region: Box, gates: Sequence[Gate], boxes: Mapping[str, Interval], deadline: Deadline = NO_DEADLINE
) -> None:
    """Raise `InputError` if a forward pass from inside the set, with gates open or closed, leaves one of the boxes.

    Passing this check proves nothing, but most wrong bounds fail it.  Raises `TimeLimitReached` if it is not finished before the deadline.
    """
    if not boxes:
        return
    rng = np.random.default_rng(0)
    for sample in range(region.samples):
        own = region.only(sample)
        lower, upper = own.lower[0], own.upper[0]
        for _ in range(CHECK_PASSES_PER_SAMPLE // CHECK_PASSES_AT_ONCE):
            deadline.check("check the bounds that were given")
            share = rng.uniform(-0.5, 1.5, (CHECK_PASSES_AT_ONCE, *lower.shape)).clip(0, 1)
            values = _values(network, torch.tensor(own.inside(lower + share * (upper - lower))), gates, rng)
            _check_values(values, boxes, sample)


def _check_values(values: Mapping[str, Tensor], boxes: Mapping[str, Interval], sample: int) -> None:
    for name, box in boxes.items():
        value, slack = values[name], USER_BOUNDS_SLACK_RELATIVE * (1 + values[name].abs())
        outside = (value < box.lower[sample] - slack) | (value > box.upper[sample] + slack)
        if bool(outside.any()):
            where = tuple(int(i) for i in outside.nonzero()[0])
            ends = f"[{float(box.lower[sample][where[1:]]):g}, {float(box.upper[sample][where[1:]]):g}]"
            raise InputError(
                f"the bounds of `{name}` do not hold: for an input in the set, element {where[1:]} of sample {sample} is"
                f" {float(value[where]):g}, outside {ends}"
            )


def _values(network: Network, x: Tensor, gates: Sequence[Gate], rng: np.random.Generator) -> dict[str, Tensor]:
    """Return the value of each node before its gate acts: with all gates open for half of the points, and random gates for the others."""
    before: dict[str, Tensor] = {}

    def gated(name: str, score: Tensor) -> Callable[[Tensor], Tensor]:
        def act(value: Tensor) -> Tensor:
            before[name] = value
            return scaled(value, score)

        return act

    acts: dict[str, Callable[[Tensor], Tensor]] = {}
    for gate in gates:
        score = torch.tensor(rng.integers(0, 2, (len(x), gate.units)), dtype=torch.float64)
        score[: len(x) // 2] = 1.0
        acts |= {site: gated(site, score) for site in gate.sites}
    with torch.no_grad():
        values = network.values(x, acts)
    return {**values, **before}
