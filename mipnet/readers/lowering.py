"""What readers share: values of the network being built, and operators that become layers in the same way whoever wrote them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

import torch
from torch import Tensor

from mipnet.arrays import Shape
from mipnet.errors import NetworkError
from mipnet.layers import BatchNorm, Clip, LeakyReLU, ReLU, Scale
from mipnet.network.graph import Layer

TAKEN_OFF = {kind: f"the final {kind} was taken off: the network's output is what goes into it" for kind in ("softmax", "log_softmax")}
"""What `Network.notes` say of a last layer that is not part of the network."""


@dataclass(frozen=True)
class Value:
    """What a node computes for each sample: the node's name and the shape of one sample."""

    name: str
    shape: Shape


V = TypeVar("V", bound=Value)


class Lowering(Protocol[V]):
    """One operator of a file or a module, as its rule sees it."""

    def emit(self, layer: Layer, *inputs: V) -> V:
        """A new node that computes ``layer`` from ``inputs``."""

    def refuse(self, why: str) -> NoReturn:
        """Raise `UnsupportedError` that names the operator and its place."""


def lower_norm(call: Lowering[V], x: V, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, variance: Tensor, eps: float) -> V:
    """``gamma (x - mean) / sqrt(variance + eps) + beta``; without gamma and beta nothing is trained, so it is a constant map."""
    factor = 1 / torch.sqrt(variance + eps) * (1.0 if gamma is None else gamma)
    shift = (0.0 if beta is None else beta) - factor * mean
    if gamma is None and beta is None:
        over = (-1, *[1] * (len(x.shape) - 1))
        return call.emit(Scale(factor.reshape(over), shift.reshape(over)), x)
    return call.emit(BatchNorm(factor, shift), x)


def lower_leaky(call: Lowering[V], x: V, slope: float) -> V:
    """``x`` for x > 0, ``slope x`` else."""
    try:
        layer = LeakyReLU(slope)
    except NetworkError as error:
        call.refuse(str(error))
    return call.emit(layer, x)


def lower_clip(call: Lowering[V], x: V, low: float, high: float) -> V:
    """``min(max(x, low), high)``; either end may be infinite."""
    if low > high:
        call.refuse(f"it clips to [{low}, {high}]; expected low <= high")
    return call.emit(ReLU() if (low, high) == (0.0, math.inf) else Clip(low, high), x)


def one_line(error: BaseException) -> str:
    """An exception in one line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")
