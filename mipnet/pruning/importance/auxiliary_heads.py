"""Auxiliary heads: small classifiers on what a network's layers say half-way, trained while the network itself stays as it is.

Decoupled greedy learning (Belilovsky, Eickenberg and Oyallon, ICML 2020), in the form in which ElAraby et al. (CPAIOR 2023) put it
behind a convolution with F channels: average pooling to a quarter of the size (rounded up), a 1x1 convolution F -> F, batch norm,
ReLU, average pooling to 2x2, dense 4F -> 4F, batch norm, ReLU, dense 4F -> classes.  Behind a dense layer the head is linear.  In
trials batch norm made the masks of a deep network much better, and a hidden layer behind a dense one made them no better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mipnet.arrays import Shape
from mipnet.errors import DataError
from mipnet.model.losses import check_labels
from mipnet.network.graph import INPUT, Network, size
from mipnet.pruning.importance.network_cuts import between
from mipnet.pruning.training import evaluate, train
from mipnet.readers.torch import from_torch

BATCH = 128
"""Images at a time, through the network (all values between its layers are held) and in training."""

EPOCHS, STEPS = 5, 1_000
"""So many epochs a head trains if none are given, or more: until it has taken so many steps.  Far more of both, and it knows the images
by heart, so that no unit seems to matter."""


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head: ``network`` takes the value of one node to logits; mean loss of each epoch, accuracy in percent on its images."""

    network: Network
    losses: tuple[float, ...]
    accuracy: float


def train_heads(
    network: Network,
    places: Sequence[str],
    images: ArrayLike,
    labels: ArrayLike,
    *,
    epochs: int | None = None,
    seed: int = 0,
    lr: float = 1e-3,
) -> dict[str, Head]:
    """A head behind each of the named nodes, trained on cross-entropy by RMSprop in batches of 128, each by itself.

    All values that heads read are computed once, in float32, and held pooled.  The same seed gives the same heads.
    """
    if not places:
        return {}
    given, classes = np.asarray(images), network.output_shape[0]
    if given.shape[1:] != network.input_shape or not len(given):
        raise DataError(
            f"the training images have shape {given.shape}; the network takes (samples, {', '.join(map(str, network.input_shape))})"
        )
    truth = torch.tensor(check_labels(labels, len(given), classes))
    passes = max(EPOCHS, math.ceil(STEPS * BATCH / len(given))) if epochs is None else epochs
    heads = {place: make_head(network.shape_of(place), classes, seed) for place in places}
    found = {}
    for place, features in _features(network, heads, given).items():
        trained = heads[place][1:]
        losses = train(trained, features, truth, epochs=passes, batch=BATCH, seed=seed, lr=lr)
        whole = from_torch(heads[place], torch.zeros(1, *network.shape_of(place)))
        found[place] = Head(whole, tuple(losses), evaluate(trained, features, truth)[1])
    return found


def make_head(shape: Shape, classes: int, seed: int = 0) -> nn.Sequential:
    """An untrained head for values of a shape; its first module, pooling or flattening, has no weights."""
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


def _features(network: Network, heads: dict[str, nn.Sequential], images: NDArray[Any]) -> dict[str, Tensor]:
    """What the first module of each head makes of the value at its place, for all images."""
    last = next(node.name for node in reversed(network.nodes) if node.name in heads)
    trunk = between(network, INPUT, last)
    parts: dict[str, list[Tensor]] = {place: [] for place in heads}
    with torch.no_grad():
        for first in range(0, len(images), BATCH):
            values = trunk.values(torch.tensor(images[first : first + BATCH], dtype=torch.float32))
            for place, head in heads.items():
                parts[place].append(head[0](values[place]))
    return {place: torch.cat(given) for place, given in parts.items()}
