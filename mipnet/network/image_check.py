"""Do images, labels and network belong together?  Tests of how many of some labelled images the network names right.

Images of 0 to 255 in a network that was trained on 0 to 1 give numbers that look like any others.  What shows it are the labels: the
network does no better than chance, or it does much better on the same images in another scale.  Without large biases, a ReLU network names
nearly the same classes in every scale; then its losses show it, because wrong answers are given with certainty: the temperature at which
the labels are likeliest is that of the wrong scale.  All tests are at the levels that the constants say; none was set by trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrc, chdtri

from mipnet.arrays import Array, Mask
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.result_warnings import add_warning, left_out_if_late
from mipnet.network.graph import Network
from mipnet.network.labelled_samples import align_samples
from mipnet.network.pass_cost import multiplications

CHECKED_IMAGES_MAX, CHECKED_IMAGES_MIN = 500, 4
"""Number of images on which a network is tested, drawn from all; with fewer than the least, nothing is said."""

CHECK_MULTIPLICATIONS_MAX = 2**32
"""Largest number of multiplications in the forward passes of one test, which take some seconds at most."""

OTHER_SCALE_PROBABILITY_MAX = 1e-4
"""Images look unscaled if another scale is so much better by chance with at most this probability."""

OTHER_SCALE_GAIN_MIN = 0.05
"""Images look unscaled only if another scale names this share of them right in addition."""

CHANCE_PROBABILITY_MAX = 0.01
"""A network is better than chance if as many right answers by chance have at most this probability."""

KNOWLEDGE_SHARE = 1 / 3
"""A network is close to chance if it is unlikely to know the label of even this share of the images, beside those that it guesses."""

SCALE_DIVISORS = (255.0, 16.0, 1 / 255.0)
"""Numbers by which images are divided to try another scale."""

STORED_MAXIMA = (255.0, 16.0)
"""The largest numbers of images as they are stored: bytes, and the digits of scikit-learn."""

TEMPERATURES_TRIED = 33
"""Number of temperatures at which the likelihood of the labels is computed, between the square root of a divisor and its 3/2 power."""


@align_samples
def warn_of_images(network: Network, images: ArrayLike, labels: ArrayLike, deadline: Deadline = NO_DEADLINE) -> None:
    """Add a warning (`mipnet.limits.result_warnings`) if images look unscaled, or if the network does no better than chance on them.

    A check that is not finished at the deadline is left out, with a warning.
    """
    x, y = drawn_images(network, np.asarray(images), np.asarray(labels), passes=2 + len(SCALE_DIVISORS))
    chance = most_frequent_share(y)
    if len(y) < CHECKED_IMAGES_MIN or len(network.output_shape) != 1 or network.output_shape[0] < 2 or chance == 1.0:
        return
    with left_out_if_late("images and labels were not checked against the network"):
        _warn_of_scale(network, x, y, chance, deadline)


def _warn_of_scale(network: Network, x: Array, y: NDArray[np.int64], chance: float, deadline: Deadline) -> None:
    right = named_right(network, x, y, deadline)
    better = _better_scale(network, x, y, right, deadline) or _likelier_scale(network, x, y, right, chance, deadline)
    asked = f"the network names the label of {100 * right.mean():.1f} % of {len(y)} labelled images"
    if better:
        add_warning(f"the images look unscaled: {asked}, and {better}")
    elif is_chance(right, chance):
        ends = f"the images range from {x.min():.4g} to {x.max():.4g}"
        guess = f"no more than always naming the most frequent one would ({100 * chance:.1f} %)"
        add_warning(f"{asked}, {guess}: is it trained, and are images and labels those of its training? {ends}")


@align_samples
def drawn_images(network: Network, images: Array, labels: NDArray[np.int64], passes: int) -> tuple[Array, NDArray[np.int64]]:
    """Return some images with their labels, always the same ones, as many as can be passed through the network several times."""
    most = CHECK_MULTIPLICATIONS_MAX // (passes * multiplications(network))
    some = np.random.default_rng(0).permutation(len(labels))[: min(CHECKED_IMAGES_MAX, most)]
    return images[some], labels[some]


def named_right(network: Network, x: Array, y: NDArray[np.int64], deadline: Deadline = NO_DEADLINE) -> Mask:
    """Return which images the network names right; raises `TimeLimitReached` after the deadline."""
    return np.asarray(_logits(network, x, deadline).argmax(axis=1) == y)


def most_frequent_share(y: NDArray[np.int64]) -> float:
    """Return the share of the images that always naming the most frequent label gets right."""
    return float(np.unique(y, return_counts=True)[1].max() / len(y)) if len(y) else 1.0


def is_chance(right: Mask, chance: float) -> bool:
    """Return True if so few right answers show that the network does little more than guess."""
    count, known = len(right), int(right.sum())
    by_chance = float(bdtrc(known - 1, count, chance)) if known else 1.0
    some_knowledge = float(bdtr(known, count, chance + KNOWLEDGE_SHARE * (1 - chance)))
    return by_chance > CHANCE_PROBABILITY_MAX and some_knowledge <= CHANCE_PROBABILITY_MAX


def _better_scale(network: Network, x: Array, y: NDArray[np.int64], right: Mask, deadline: Deadline) -> str:
    """Return in words the scale in which the network names significantly more images right, the best one; empty if there is none."""
    found = []
    for words, scaled in _other_scales(x):
        other = named_right(network, scaled, y, deadline)
        gained, lost = int((other & ~right).sum()), int((right & ~other).sum())
        chance = float(bdtrc(gained - 1, gained + lost, 0.5)) if gained else 1.0
        if chance <= OTHER_SCALE_PROBABILITY_MAX and gained - lost >= OTHER_SCALE_GAIN_MIN * len(y):
            found.append((float(other.mean()), f"{100 * other.mean():.1f} % if they are {words}"))
    return max(found, default=(0.0, ""))[1]


def _likelier_scale(network: Network, x: Array, y: NDArray[np.int64], right: Mask, chance: float, deadline: Deadline) -> str:
    """Return in words that images which range like stored ones make the network far too certain; empty if they do not.

    Without biases, images that are d times too large give logits z that are d times too large, and the likeliest temperature T of
    softmax(z / T), see Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, is d; for images as in training it is near 1.
    The images look unscaled if T is nearer to d than to 1 on a scale of factors, T > sqrt(d), by a test of the likelihood ratio.  The
    network must name more images right than by chance, and not significantly fewer in the other scale.
    """
    largest, by_chance = float(np.abs(x).max()), float(bdtrc(int(right.sum()) - 1, len(y), chance)) if right.any() else 1.0
    for divisor in STORED_MAXIMA:
        if not divisor / 2 < largest <= divisor or by_chance > CHANCE_PROBABILITY_MAX:
            continue
        logits = _logits(network, x, deadline)
        least, *others = (float(cross_entropy(logits / t, y).sum()) for t in divisor ** np.linspace(0.5, 1.5, TEMPERATURES_TRIED))
        if 2 * (least - min(others)) < chdtri(1, 2 * CHANCE_PROBABILITY_MAX):
            continue
        scaled = _logits(network, x / divisor, deadline)
        lost, gained = (int((one & ~other).sum()) for one, other in permutations((right, scaled.argmax(axis=1) == y)))
        given, other = (float(cross_entropy(each, y).mean()) for each in (logits, scaled))
        if other < given and (not lost or bdtrc(lost - 1, lost + gained, 0.5) > CHANCE_PROBABILITY_MAX):
            loss = f"with a mean cross-entropy of {given:.3g}, but of {other:.3g} if they are divided by {divisor:g}"
            return f"as many in another scale: {loss}"
    return ""


def cross_entropy(logits: Array, y: NDArray[np.int64]) -> Array:
    """Return the cross-entropy of each image, of its logits and its label."""
    return np.asarray(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y])


def _logits(network: Network, x: Array, deadline: Deadline) -> Array:
    deadline.check("check the images")
    return network.forward(x)


def _other_scales(x: Array) -> Iterator[tuple[str, Array]]:
    for divisor in SCALE_DIVISORS:
        yield f"divided by {divisor:g}" if divisor >= 1 else f"multiplied by {1 / divisor:g}", x / divisor
    mean, spread = float(x.mean()), float(x.std())
    if spread > 0:
        yield f"standardised, (x - {mean:.4g}) / {spread:.4g}", (x - mean) / spread
