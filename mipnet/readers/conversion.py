"""What the PyTorch and the ONNX reader share: values of the network under construction, and the conversion of some operators to layers."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol, TypeVar

import torch
from torch import Tensor

from mipnet.arrays import Shape
from mipnet.errors import NetworkError
from mipnet.layers import BatchNorm, Clip, LeakyReLU, ReLU, Scale
from mipnet.limits.memory import check_memory, making, shown_bytes
from mipnet.network.graph import Layer

PARAMETER_BYTES = 45
"""Bytes per parameter while a network is read: copies in the type of the file and in float64, of the network and of its source."""

FILE_COPIES = 3
"""Copies of a file's content while it is read."""


@dataclass(frozen=True)
class Value:
    """The result of a node for each sample: the node's name and the shape of one sample."""

    name: str
    shape: Shape


AnyValue = TypeVar("AnyValue", bound=Value)


class ConversionCall(Protocol[AnyValue]):
    """One operator of a file or a module, as its conversion rule sees it."""

    def emit(self, layer: Layer, *inputs: AnyValue) -> AnyValue:
        """Add a node that computes ``layer`` from ``inputs``, and return its value."""

    def refuse(self, why: str) -> NoReturn:
        """Raise `UnsupportedError` that names the operator and its place."""


class NormStatistics(NamedTuple):
    """The tensors of a batch norm, one number per channel each; ``gamma`` and ``beta`` are None if the norm is not trained."""

    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor
    variance: Tensor


def convert_batch_norm(call: ConversionCall[AnyValue], x: AnyValue, norm: NormStatistics, eps: float) -> AnyValue:
    """Convert ``gamma (x - mean) / sqrt(variance + eps) + beta``; without gamma and beta, which are trained, to a constant map."""
    factor = 1 / torch.sqrt(norm.variance + eps) * (1.0 if norm.gamma is None else norm.gamma)
    shift = (0.0 if norm.beta is None else norm.beta) - factor * norm.mean
    if norm.gamma is None and norm.beta is None:
        over = (-1, *[1] * (len(x.shape) - 1))
        return call.emit(Scale(factor.reshape(over), shift.reshape(over)), x)
    return call.emit(BatchNorm(factor, shift), x)


def convert_leaky_relu(call: ConversionCall[AnyValue], x: AnyValue, slope: float) -> AnyValue:
    """Convert ``x`` for x > 0, ``slope x`` otherwise."""
    try:
        layer = LeakyReLU(slope)
    except NetworkError as error:
        call.refuse(str(error))
    return call.emit(layer, x)


def convert_clip(call: ConversionCall[AnyValue], x: AnyValue, low: float, high: float) -> AnyValue:
    """Convert ``min(max(x, low), high)``; either end may be infinite."""
    if low > high:
        call.refuse(f"it clips to [{low}, {high}]; expected low <= high")
    return call.emit(ReLU() if (low, high) == (0.0, math.inf) else Clip(low, high), x)


def one_line(error: BaseException) -> str:
    """Return an exception as one line: its type and the first line of its message, cut after 200 characters."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def reading(source: str, parameters: int) -> AbstractContextManager[None]:
    """Return the context in which a network of this number of parameters is read; raises `MemoryLimitReached` if it would not fit."""
    return making(f"the network of {source} ({parameters:,} parameters)", PARAMETER_BYTES * parameters, "give a smaller network")


def check_file(path: Path, size: float) -> None:
    """Raise `MemoryLimitReached` if the content of a file of this size, in bytes, would not fit into memory."""
    check_memory(f"the content of `{path}` ({shown_bytes(size)})", FILE_COPIES * size, "give a smaller network")
