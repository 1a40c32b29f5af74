"""Masks of a given size from scores, in two ways: with the layer counts of another mask, or by one ranking over all layers.

Masks are Datasets of booleans as in `mipnet.pruning.smaller.masks`.  Ties are resolved by position, so a mask has exactly the given size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import xarray as xr

from mipnet.arrays import Array
from mipnet.errors import InputError, check_choice
from mipnet.network.gates import Gate, by_unit
from mipnet.network.graph import Network
from mipnet.pruning.smaller.masks import make_masks
from mipnet.pruning.smaller.parameter_counts import pruned_share

ScoreNormalization = Literal["none", "mean", "l2", "max", "sum"]

SCALE_OF_NORMALIZATION: dict[str, Callable[[Array], float]] = {
    "none": lambda s: 1.0,
    "mean": lambda s: float(np.abs(s).mean()),
    "l2": lambda s: float(np.linalg.norm(s)),
    "max": lambda s: float(np.abs(s).max()),
    "sum": lambda s: float(np.abs(s).sum()),
}


def checked_scores(gates: Sequence[Gate], scores: xr.Dataset) -> xr.Dataset:
    """Return scores with the units in their order; raises `InputError` unless there is one finite number for each unit of each gate."""
    if not gates:
        raise InputError("no gates were given; expected at least one, from `find_gates`")
    scores = by_unit(gates, scores, "scores")
    for gate in gates:
        given = scores[gate.name]
        if given.dtype.kind not in "biuf":
            raise InputError(f"for gate `{gate.name}` there is {given.dtype}; expected one number for each of {gate.units} units")
        if not np.isfinite(given.values).all():
            raise InputError(f"the scores of gate `{gate.name}` hold NaN or infinite numbers; expected finite ones")
    return scores


def same_counts(gates: Sequence[Gate], scores: xr.Dataset, like: xr.Dataset) -> xr.Dataset:
    """Return masks that keep the best units of each layer: as many as ``like`` keeps there, and at least one."""
    scores, like = checked_scores(gates, scores), checked_scores(gates, like)
    masks = {}
    for gate in gates:
        values = scores[gate.name].values
        kept = np.zeros(gate.units, dtype=bool)
        kept[np.argsort(-values, kind="stable")[: max(1, int(like[gate.name].values.astype(bool).sum()))]] = True
        masks[gate.name] = (gate.dim, kept)
    return xr.Dataset(masks, attrs={"title": "True = kept"})


def normalised(gates: Sequence[Gate], scores: xr.Dataset, how: ScoreNormalization) -> xr.Dataset:
    """Return the scores of each layer divided by their mean, l2 norm, maximum or sum (of absolute values), or unchanged (``none``).

    A layer of zeros stays as it is.
    """
    scores = checked_scores(gates, scores)
    check_choice("`normalize`", how, get_args(ScoreNormalization))

    def one(values: Array) -> Array:
        scale = SCALE_OF_NORMALIZATION[how](values)
        return values / scale if scale > 0 else values

    return xr.Dataset({gate.name: (gate.dim, one(scores[gate.name].values.astype(np.float64))) for gate in gates}, attrs=scores.attrs)


def at_share(
    network: Network, gates: Sequence[Gate], scores: xr.Dataset, share: float, normalize: ScoreNormalization = "none"
) -> xr.Dataset:
    """Return masks by one ranking over all layers that prune at least ``share`` of the parameters, and as little more as possible.

    Units are removed in the order of their normalised scores, one by one, but never the best of a layer.  Raises `InputError` for a share
    outside [0, 1), or one that cannot be reached with one unit per layer.
    """
    if not 0 <= share < 1:
        raise InputError(f"the share is {share}; expected a number in [0, 1)")
    masks = make_masks(network, gates, _ranks(gates, normalised(gates, scores, normalize)), {"params": share})
    if (reached := pruned_share(network, gates, masks)) < share:
        raise InputError(f"a share of {share:g} cannot be pruned: with one unit per layer it is {reached:.4f}")
    return masks


def _ranks(gates: Sequence[Gate], scores: xr.Dataset) -> xr.Dataset:
    """Return the place of each unit in the order of all scores, 0 for the smallest: numbers without ties."""
    values = np.concatenate([scores[gate.name].values for gate in gates])
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    parts = np.split(ranks, np.cumsum([gate.units for gate in gates])[:-1])
    return xr.Dataset({gate.name: (gate.dim, part) for gate, part in zip(gates, parts, strict=True)})
