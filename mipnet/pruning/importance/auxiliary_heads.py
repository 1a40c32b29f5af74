"""Auxiliary heads: small classifiers on the values of one node, trained while the network itself stays as it is.

Decoupled greedy learning (Belilovsky, Eickenberg and Oyallon, ICML 2020), in the form of ElAraby et al. (CPAIOR 2023).  After a
convolution with F channels: average pooling to a quarter of the size (rounded up), a 1x1 convolution F -> F, batch norm, ReLU, average
pooling to 2x2, dense 4F -> 4F, batch norm, ReLU, dense 4F -> classes.  After a dense layer the head is linear.  In trials, batch norm
improved the masks of a deep network considerably; a hidden layer in the head after a dense layer did not improve them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mipnet.arrays import Shape
from mipnet.errors import DataError, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.memory import check_memory
from mipnet.model.losses import check_labels
from mipnet.network.given_arrays import numbers
from mipnet.network.graph import INPUT_NODE, Network, size
from mipnet.network.labelled_samples import align_images_and_labels
from mipnet.network.named_inputs import Names, check_input_order
from mipnet.network.pass_cost import samples_at_once
from mipnet.pruning.importance.network_cuts import between
from mipnet.pruning.training import TrainingSettings, evaluate, train
from mipnet.readers.torch import from_torch

HEAD_IMAGES_PER_BATCH = 128
"""Images per batch, in training and in forward passes of the network (which hold the values of all nodes)."""

FEATURE_BYTES = 8
"""Bytes per number that a head reads, in float32, with a copy of it."""

HEAD_EPOCHS_MIN = 5
"""Epochs of training, unless `HeadTraining` gives another number."""

HEAD_STEPS_MIN = 1_000
"""Training goes on after `HEAD_EPOCHS_MIN` epochs until it has taken this number of steps.  With many more of both, a head fits its
images by heart, and then no unit seems to matter."""


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head.

    ``network`` maps the value of one node to logits; ``losses`` holds the mean loss of each epoch; ``accuracy`` is that on the training
    images, in percent.
    """

    network: Network
    losses: tuple[float, ...]
    accuracy: float


@suggest_keywords
@dataclass(frozen=True, eq=False)
class HeadTraining:
    """How heads are trained.

    Parameters
    ----------
    images, labels
        The training images, of shape ``(samples, *input shape of the network)``, and their classes.
    epochs
        Passes over the images; if None, at least `HEAD_EPOCHS_MIN` epochs and `HEAD_STEPS_MIN` steps.
    seed
        The same seed gives the same heads.
    lr
        The step size of RMSprop.
    trained
        Heads of an earlier call (`LayerScores.heads`), by the node that they read; these are not trained again.
    """

    images: ArrayLike
    labels: ArrayLike
    epochs: int | None = None
    seed: int = 0
    lr: float = 1e-3
    trained: Mapping[str, Head] = field(default_factory=dict)
    input_names: Names = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        align_images_and_labels(self)


def train_heads(network: Network, places: Sequence[str], training: HeadTraining, deadline: Deadline = NO_DEADLINE) -> dict[str, Head]:
    """Return a head for each of the named nodes, trained on cross-entropy by RMSprop in batches of 128, independently of each other.

    The values that the heads read are computed once, in float32, and kept in memory after the first pooling.  At the deadline, the heads
    keep the weights that they have, with a warning; raises `TimeLimitReached` if these values are not computed before.
    """
    if not places:
        return {}
    check_input_order(training.input_names, network.input_names, "the array of training images")
    images, classes = numbers(training.images, "the array of training images"), network.output_shape[0]
    if images.shape[1:] != network.input_shape or not len(images):
        raise DataError(
            f"the training images have shape {images.shape}; the network takes (samples, {', '.join(map(str, network.input_shape))})"
        )
    truth = torch.tensor(check_labels(training.labels, len(images), classes))
    passes = training.epochs
    if passes is None:
        passes = max(HEAD_EPOCHS_MIN, math.ceil(HEAD_STEPS_MIN * HEAD_IMAGES_PER_BATCH / len(images)))
    settings = TrainingSettings(epochs=passes, lr=training.lr, batch=HEAD_IMAGES_PER_BATCH, seed=training.seed)
    heads = {place: make_head(network.shape_of(place), classes, training.seed) for place in places}
    numbers_kept = len(images) * sum(size(tuple(heads[place][:1](torch.zeros(1, *network.shape_of(place))).shape)) for place in places)
    check_memory(f"what {len(places)} heads read of {len(images):,} images", FEATURE_BYTES * numbers_kept, "give fewer training images")
    found = {}
    for left, (place, features) in zip(range(len(heads), 0, -1), _features(network, heads, images, deadline).items(), strict=True):
        layers = heads[place][1:]
        losses = train(layers, features, truth, settings=replace(settings, time_limit=deadline.share(1 / left)))
        if len(losses) < passes:
            text = f"the head after `{place}` was trained for {len(losses)} of {passes} epochs, because of the time limit"
            warnings.warn(f"{text}: its scores may mislead", RuntimeWarning, stacklevel=3)
        whole = from_torch(heads[place], torch.zeros(1, *network.shape_of(place)))
        found[place] = Head(whole, tuple(losses), evaluate(layers, features, truth)[1])
    return found


def make_head(shape: Shape, classes: int, seed: int = 0) -> nn.Sequential:
    """Return an untrained head for values of a shape; its first module, pooling or flattening, has no weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if len(shape) != 3:
            return nn.Sequential(nn.Flatten(), nn.Linear(size(shape), classes))
        channels, *sides = shape
        pooled = tuple(math.ceil(side / 4) for side in sides)
        small = tuple(min(2, side) for side in pooled)
        width = channels * math.prod(small)
        mixed = [nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        dense = [nn.Flatten(), nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, classes)]
        return nn.Sequential(nn.AdaptiveAvgPool2d(pooled), *mixed, nn.AdaptiveAvgPool2d(small), *dense)


def _features(network: Network, heads: dict[str, nn.Sequential], images: NDArray[Any], deadline: Deadline) -> dict[str, Tensor]:
    """Return the output of the first module of each head, for all images."""
    last = next(node.name for node in reversed(network.nodes) if node.name in heads)
    trunk = between(network, INPUT_NODE, last)
    parts: dict[str, list[Tensor]] = {place: [] for place in heads}
    with torch.no_grad():
        at_once = min(HEAD_IMAGES_PER_BATCH, samples_at_once(trunk))
        for first in range(0, len(images), at_once):
            deadline.check("compute what the auxiliary heads read")
            values = trunk.values(torch.tensor(images[first : first + at_once], dtype=torch.float32))
            for place, head in heads.items():
                parts[place].append(head[0](values[place]))
    return {place: torch.cat(given) for place, given in parts.items()}
