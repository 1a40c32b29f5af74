"""Pooling over two dimensions: maximum, average, adaptive average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from mipnet.arrays import Array, Csr, Ints, Shape
from mipnet.bounds.interval import interval, monotone_sum
from mipnet.bounds.linear_rules import adjoint, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.maxpool import WINDOW_MAXIMUM
from mipnet.formulations.registry import linear_map
from mipnet.layers.maximum import WindowMaximum, encode_max
from mipnet.layers.window import Pair, Window
from mipnet.network.graph import Layer, require


@suggest_keywords
@dataclass(frozen=True, eq=False)
class MaxPool2d(WindowMaximum):
    """``y = max`` over each window of each channel; padding is never the maximum."""

    window: Window

    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(channels, rows, cols)``."""
        (given,) = inputs
        require(len(given) == 3, f"its input has shape {given}; expected (channels, rows, cols)")
        out = (given[0], *self.window.out(given))
        require((self.window.places(given) >= 0).any(axis=1).all(), "a pooling window lies in the padding entirely")
        return out

    def candidates(self, given: Shape) -> Ints:
        """Return the flat positions that each window reads, shape ``(channels, positions, kernel)``; -1 for padding."""
        places = self.window.places(given)
        planes = np.arange(given[0]) * (given[1] * given[2])
        return np.where(places >= 0, planes[:, None, None] + places, -1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the maxima of a batch."""
        (x,) = inputs
        return F.max_pool2d(self.window.pad(x, -torch.inf), self.window.kernel, self.window.stride, 0, self.window.dilation)


@suggest_keywords
@dataclass(frozen=True, eq=False)
class AvgPool2d(Layer):
    """``y = sum / divisor`` over each window of each channel.

    Without a ``divisor``, it is the number of positions in the window, including padding if ``count_padding`` is True.
    """

    window: Window
    count_padding: bool = True
    divisor: float | None = None

    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(channels, rows, cols)``."""
        (given,) = inputs
        require(len(given) == 3, f"its input has shape {given}; expected (channels, rows, cols)")
        return (given[0], *self.window.out(given))

    def divisors(self, given: Shape) -> Array:
        """Return the divisor of each output position, shape ``(rows, cols)``."""
        out = self.window.out(given)
        if self.divisor is not None:
            return np.full(out, float(self.divisor))
        if self.count_padding:
            top, bottom, left, right = self.window.padding
            padded = (1, given[1] + top + bottom, given[2] + left + right)
            inside = Window(self.window.kernel, self.window.stride, ceil=self.window.ceil)._axis  # on the padded plane
            sizes = [inside(axis, padded)[1].sum(axis=1)[: out[axis]] for axis in (0, 1)]
            return np.asarray(np.outer(*sizes), dtype=np.float64)
        return np.asarray((self.window.places(given) >= 0).sum(axis=1).reshape(out), dtype=np.float64)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the averages of a batch."""
        (x,) = inputs
        total = F.avg_pool2d(self.window.pad(x, 0.0), self.window.kernel, self.window.stride, divisor_override=1)
        return total / torch.from_numpy(self.divisors(tuple(x.shape[1:]))).to(x.dtype)


@suggest_keywords
@dataclass(frozen=True, eq=False)
class AdaptiveAvgPool2d(Layer):
    """Averages over windows ``floor(i n / out) .. ceil((i+1) n / out)``; the output has ``out`` rows and columns."""

    out: Pair

    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(channels, *out)``."""
        (given,) = inputs
        require(len(given) == 3, f"its input has shape {given}; expected (channels, rows, cols)")
        return (given[0], *self.out)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the averages of a batch."""
        return F.adaptive_avg_pool2d(inputs[0], self.out)


WINDOW_MAXIMUM.encodes(MaxPool2d)(encode_max)
for kind in (AvgPool2d, AdaptiveAvgPool2d):
    interval.register(kind)(monotone_sum)
    backward.register(kind)(adjoint)


@linear_map.register(AvgPool2d)
def _(layer: AvgPool2d, *shapes: Shape) -> tuple[Csr, ...]:
    (given,) = shapes
    places = layer.window.places(given)
    inside = places >= 0
    indptr = np.append(0, np.cumsum(inside.sum(axis=1)))
    data = np.repeat(1.0 / layer.divisors(given).reshape(-1), inside.sum(axis=1))
    plane = Csr((data, places[inside], indptr), shape=(len(places), given[1] * given[2]))
    return (_every_channel(plane, given[0]),)


@linear_map.register(AdaptiveAvgPool2d)
def _(layer: AdaptiveAvgPool2d, *shapes: Shape) -> tuple[Csr, ...]:
    (given,) = shapes
    rows, cols = (adaptive_axis(given[axis + 1], layer.out[axis]) for axis in (0, 1))
    return (_every_channel(Csr(sparse.kron(rows, cols, format="csr")), given[0]),)


def adaptive_axis(length: int, out: int) -> Csr:
    """Return the averages along one axis, a matrix of shape ``(out, length)``."""
    start, end = np.arange(out) * length // out, -(-(np.arange(1, out + 1) * length) // out)
    inside = (np.arange(length) >= start[:, None]) & (np.arange(length) < end[:, None])
    return Csr(inside / inside.sum(axis=1, keepdims=True))


def _every_channel(plane: Csr, channels: int) -> Csr:
    return Csr(sparse.kron(sparse.eye_array(channels), plane, format="csr"))
