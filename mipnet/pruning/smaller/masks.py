"""Masks: which units stay.  A masked unit is silenced after its activation, and its bias with it.

Masks are Datasets of booleans with one variable per gate, labelled like the scores; True units are kept, False ones are removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.errors import InputError, described, shown, suggest_keywords
from mipnet.errors.argument_kinds import is_number
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.model.losses import check_labels
from mipnet.network.gates import Gate, by_unit, mask_actions
from mipnet.network.given_arrays import in_label_order, matched, numbers
from mipnet.network.graph import Network
from mipnet.network.labelled_samples import align_samples
from mipnet.network.pass_cost import samples_at_once
from mipnet.pruning.smaller.parameter_counts import pruned_share

Threshold = float | str | dict[str, float]

ACCURACY_IMAGES_AT_ONCE = 1024
"""Largest number of images between two looks at the clock."""


@suggest_keywords
def make_masks(network: Network, gates: Sequence[Gate], scores: xr.Dataset, threshold: Threshold = 0.1) -> xr.Dataset:
    """Return masks that keep the units with a score of at least the threshold; every layer keeps at least its best unit.

    ``threshold`` is a number; ``"mean"`` for the mean score of each layer; or ``{"params": share}`` for the smallest number that
    prunes at least that share of the parameters (see `mipnet.pruning.smaller.parameter_counts`).
    """
    scores = by_unit(gates, scores, "scores", some=True)
    if isinstance(threshold, dict):
        return _for_share(network, gates, scores, threshold)
    if isinstance(threshold, str) and threshold == "mean":
        return _keep(scores, {str(name): float(values.mean()) for name, values in scores.items()})
    if not (is_number(threshold) and 0 <= threshold <= 1):
        raise InputError(f"the threshold is {shown(threshold)}; expected a number in [0, 1], `mean`, or {{params: share}}")
    return _keep(scores, {str(name): float(threshold) for name in scores})


def _keep(scores: xr.Dataset, limits: dict[str, float]) -> xr.Dataset:
    def one(values: xr.DataArray, limit: float) -> xr.DataArray:
        stays = values >= limit
        return stays if bool(stays.any()) else values == values.max()

    return xr.Dataset({name: one(scores[name], limit) for name, limit in limits.items()}, attrs={"title": "True = kept"})


def _for_share(network: Network, gates: Sequence[Gate], scores: xr.Dataset, threshold: dict[str, float]) -> xr.Dataset:
    share = threshold.get("params")
    if share is None or len(threshold) > 1 or not (is_number(share) and 0 <= share < 1):
        raise InputError(f"the threshold is {shown(threshold)}; expected {{params: share}} with a share in [0, 1)")
    levels = np.unique(np.concatenate([values.values for values in scores.values()]))
    levels = np.append(levels, np.nextafter(levels[-1], np.inf))
    low, high = 0, len(levels) - 1
    while low < high:  # the share grows with the threshold
        middle = (low + high) // 2
        enough = pruned_share(network, gates, _keep(scores, {str(n): levels[middle] for n in scores})) >= share
        low, high = (low, middle) if enough else (middle + 1, high)
    return _keep(scores, {str(name): float(levels[low]) for name in scores})


@suggest_keywords
def random_masks(masks: xr.Dataset, seed: int) -> xr.Dataset:
    """Return masks that remove as many units per layer as ``masks``, drawn without replacement."""
    generator = np.random.default_rng(seed)
    return masks.map(lambda kept: kept.copy(data=generator.permutation(kept.values)))


@suggest_keywords
def critical_masks(masks: xr.Dataset, scores: xr.Dataset) -> xr.Dataset:
    """Return masks that remove as many units per layer as ``masks``, but those with the highest scores, by the labels of the units."""

    def one(kept: xr.DataArray) -> xr.DataArray:
        if kept.name not in scores or scores[kept.name].shape != kept.shape:
            raise InputError(
                f"the masks are of `{kept.name}` with {kept.size} units, the scores of {dict(scores.sizes)}; expected the same"
            )
        own, kept = (in_label_order(each, f"the array `{kept.name}`", InputError) for each in (scores[kept.name], kept))
        own = matched(own, kept, f"the scores and masks of `{kept.name}`", InputError)
        if not np.isfinite(own).all():
            raise InputError(f"the scores of `{kept.name}` are not all finite numbers; expected numbers in [0, 1]")
        gone = np.argsort(-own.values, kind="stable")[: int((~kept).sum())]
        data = np.ones(kept.size, dtype=bool)
        data[gone] = False
        return kept.copy(data=data)

    return masks.map(one)


@suggest_keywords
@align_samples
def accuracy(
    network: Network,
    images: ArrayLike,
    labels: ArrayLike,
    gates: Sequence[Gate] = (),
    masks: xr.Dataset | None = None,
    *,
    time_limit: TimeLimit = None,
) -> float:
    """Return the share of images, in percent, whose largest output is at their label, with or without masks.

    Raises `TimeLimitReached` if it is not known after ``time_limit`` seconds, None for no limit.
    """
    deadline, given = Deadline.after(time_limit), numbers(images, "the images")
    if not given.ndim:
        raise InputError(f"`accuracy` was given {described(images)} as `images`; expected an array of shape (samples, *input shape)")
    after = None if masks is None else mask_actions(gates, masks)
    at_once, parts = min(ACCURACY_IMAGES_AT_ONCE, samples_at_once(network)), []
    for first in range(0, max(1, len(given)), at_once):
        deadline.check("run the network on all images")
        parts.append(network.forward(given[first : first + at_once], after))
    outputs: Array = np.concatenate(parts)
    if outputs.ndim != 2:
        raise InputError(f"accuracy needs one vector of logits per sample; the network's output has shape {outputs.shape[1:]}")
    truth = check_labels(labels, len(outputs), outputs.shape[1])
    return 100.0 * float((outputs.argmax(axis=1) == truth).mean()) if len(truth) else float("nan")
