"""Does a mask do better than chance?  A test of its accuracy against random masks of the same size, by forward passes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mipnet.arrays import Array, Mask
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.result_warnings import add_warning, left_out_if_late
from mipnet.network.gates import Gate, mask_actions
from mipnet.network.graph import Network
from mipnet.network.image_check import CHECKED_IMAGES_MIN, drawn_images, is_chance, most_frequent_share, named_right
from mipnet.network.labelled_samples import align_samples
from mipnet.pruning.smaller.masks import random_masks

RANDOM_MASKS_TRIED = 20
"""Number of random masks that a mask is compared with."""

RANDOM_MASKS_AS_GOOD_MAX = 1
"""A mask does better than random ones if at most this number of them are as good: by chance, that has a probability below 0.1."""


@align_samples
def warn_of_masks(
    network: Network,
    gates: Sequence[Gate],
    masks: xr.Dataset,
    images: ArrayLike,
    labels: ArrayLike,
    seed: int = 0,
    deadline: Deadline = NO_DEADLINE,
) -> None:
    """Add a warning (`mipnet.limits.result_warnings`) if masks do no better than random ones of the same size, or than chance.

    Accuracy is measured on some of the labelled images, which should not be those of the scores.  Masks that keep all units are not
    tested.  A test that is not finished at the deadline is left out, with a warning.
    """
    x, y = drawn_images(network, np.asarray(images), np.asarray(labels), passes=RANDOM_MASKS_TRIED + 2)
    if len(y) < CHECKED_IMAGES_MIN or len(network.output_shape) != 1 or all(bool(kept.all()) for kept in masks.values()):
        return
    with left_out_if_late("the mask was not compared with random ones"):
        _compare(network, gates, [masks, *(random_masks(masks, seed + draw) for draw in range(RANDOM_MASKS_TRIED))], x, y, deadline)


def _compare(
    network: Network, gates: Sequence[Gate], masks: Sequence[xr.Dataset], x: Array, y: NDArray[np.int64], deadline: Deadline
) -> None:
    """Add the warnings about the first masks, the others being random ones; raises `TimeLimitReached` after the deadline."""

    def named(kept: xr.Dataset) -> Mask:
        deadline.check("compare masks with random ones")
        return np.asarray(network.forward(x, mask_actions(gates, kept)).argmax(axis=1) == y)

    right = named(masks[0])
    asked, chance = f"{100 * right.mean():.1f} % of {len(y)} labelled images", most_frequent_share(y)
    if chance < 1 and is_chance(right, chance) and not is_chance(named_right(network, x, y, deadline), chance):
        add_warning(f"the masked network names the label of {asked}, no more than always naming the most frequent one would")
    good = sum(bool(named(each).mean() >= right.mean()) for each in masks[1:])
    if good > RANDOM_MASKS_AS_GOOD_MAX:
        found = f"with it the network names the label of {asked}, and with {good} of {RANDOM_MASKS_TRIED} random masks of as many or more"
        add_warning(f"the mask does no better than random ones that remove as many units of each layer: {found}")
