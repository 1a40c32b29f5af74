"""The arguments and the result of a score: checks of gates, images and labels, and scores as a Dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.errors import DataError, InputError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.memory import count_in_memory
from mipnet.model.losses import check_labels
from mipnet.network.gates import Gate
from mipnet.network.given_arrays import layout_hint, numbers
from mipnet.network.graph import Network
from mipnet.network.pass_cost import GRADIENT_PASSES, gradient_bytes, samples_at_once

IMAGES_PER_PASS = 256
"""Images in one pass through the network."""

_deadline: ContextVar[Deadline] = ContextVar("deadline of the scores of mipnet", default=NO_DEADLINE)


@contextmanager
def scored_until(deadline: Deadline) -> Iterator[None]:
    """End the scores that are computed in the block at a deadline: `slices` then raises `TimeLimitReached`."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raise `TimeLimitReached` after the deadline of `scored_until`."""
    _deadline.get().check("score the units")


def check_gates(gates: Sequence[Gate]) -> None:
    """Raise `InputError` if there is nothing to score."""
    if not gates:
        raise InputError("no gates were given; expected at least one, from `find_gates`")


def check_images(network: Network, images: ArrayLike | Tensor) -> Tensor:
    """Return images as a float64 tensor ``(n, *input_shape)``; raises `DataError` unless n >= 1 and every number is finite."""
    x = torch.from_numpy(np.require(numbers(images, "the array of images"), np.float64, "W"))
    if tuple(x.shape[1:]) != network.input_shape or not len(x):
        shape, hint = ", ".join(map(str, network.input_shape)), layout_hint(tuple(x.shape), network.input_shape)
        raise DataError(f"the images have shape {tuple(x.shape)}; expected (n, {shape}) with n >= 1{hint}")
    if not bool(torch.isfinite(x).all()):
        raise DataError("the images hold NaN or infinite numbers; expected finite ones")
    return x


def check_classes(network: Network, labels: ArrayLike, samples: int) -> Tensor:
    """Return labels as a tensor ``(samples,)``; raises `InputError` unless the network gives logits that they fit."""
    if len(network.output_shape) != 1:
        raise InputError(f"a loss needs one vector of logits per sample; the network's output has shape {network.output_shape}")
    return torch.as_tensor(check_labels(labels, samples, network.output_shape[0]))


def as_scores(gates: Sequence[Gate], found: Mapping[str, Tensor], title: str) -> xr.Dataset:
    """Return scores as a Dataset with one variable per gate, along its dimension; larger is more important."""
    return xr.Dataset({gate.name: (gate.dim, found[gate.name].numpy().copy()) for gate in gates}, attrs={"title": title})


def images_at_once(network: Network, most: int, more: float = 0.0) -> int:
    """Return how many images are passed through the network at once: at most ``most``, few if it is large, no more than fit into memory.

    ``more`` are the bytes per image beside those of a pass that is differentiated.
    """
    return count_in_memory(gradient_bytes(network) + more, min(most, samples_at_once(network, GRADIENT_PASSES)))


def slices(count: int, step: int) -> Iterator[slice]:
    """Yield ``range(count)`` in slices of at most ``step``; raises `TimeLimitReached` after the deadline of `scored_until`."""
    for a, b in pairwise([*range(0, count, max(1, step)), count]):
        check_time()
        yield slice(a, b)
