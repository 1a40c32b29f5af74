"""Conv2d: a two-dimensional cross-correlation with stride, padding, dilation and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mipnet.arrays import Csr, Ints, Shape
from mipnet.bounds.interval import Interval, interval, linear
from mipnet.bounds.linear_rules import BackwardBound, affine, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.layers.window import Pair, Sides, Window
from mipnet.network.graph import Layer, constant, require, size


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Conv2d(Layer):
    """``y[o, r, c] = b[o] + sum W[o, i, u, v] x[i, r*stride + u*dilation - top, c*stride + v*dilation - left]``.

    ``weight`` has shape ``(outputs, inputs / groups, rows, cols)``, and ``bias`` has shape ``(outputs,)`` or is None.  ``padding`` is the
    number of zeros added at ``(top, bottom, left, right)``; it may be asymmetric, as with 'same'.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    prunable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", constant(self.weight, "the weight of a convolution"))
        if self.bias is not None:
            object.__setattr__(self, "bias", constant(self.bias, "the bias of a convolution"))
        require(self.weight.ndim == 4, f"the weight has shape {tuple(self.weight.shape)}; expected (outputs, inputs/groups, rows, cols)")
        ok = self.bias is None or self.bias.shape == self.weight.shape[:1]
        require(ok, f"the bias has shape {tuple(getattr(self.bias, 'shape', ()))}; expected ({len(self.weight)},)")
        require(len(self.weight) % self.groups == 0, f"{len(self.weight)} output channels do not divide into {self.groups} groups")

    @property
    def window(self) -> Window:
        """The sliding window of the kernel."""
        kernel = (int(self.weight.shape[2]), int(self.weight.shape[3]))
        return Window(kernel, self.stride, self.padding, self.dilation)

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(outputs, rows, cols)``."""
        (given,) = inputs
        wanted = int(self.weight.shape[1]) * self.groups
        require(len(given) == 3 and given[0] == wanted, f"its input has shape {given}; expected ({wanted}, rows, cols)")
        return (int(self.weight.shape[0]), *self.window.out(given))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the convolution of a batch."""
        (x,) = inputs
        return self._apply(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(self.window.pad(x, 0.0), weight, bias, self.stride, 0, self.dilation, self.groups)


@interval.register(Conv2d)
def _(layer: Conv2d, x: Interval) -> Interval:
    return linear(layer.forward, lambda r: layer._apply(r, layer.weight.abs(), None), x)


@backward.register(Conv2d)
@affine
def _(layer: Conv2d, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Return the transposed convolution of the coefficients without the padding; elements that no window reads have coefficient 0."""
    rows, cols = (int(n) for n in x.lower.shape[2:])
    top, bottom, left, right = layer.padding
    full = F.conv_transpose2d(coefficients, layer.weight, None, layer.stride, 0, 0, layer.groups, layer.dilation)
    unread = [max(0, n + a + b - int(m)) for n, a, b, m in zip((rows, cols), (top, left), (bottom, right), full.shape[2:], strict=True)]
    part = F.pad(full, (0, unread[1], 0, unread[0]))[:, :, top : top + rows, left : left + cols]
    return (part,), bias_constant(layer.bias, coefficients)


@linear_map.register(Conv2d)
def _(layer: Conv2d, *shapes: Shape) -> tuple[Csr, ...]:
    """Return a matrix with one row per output element, whose entries come from its window; the dense matrix is never built."""
    (given,) = shapes
    return (convolution_matrix(layer.weight, layer.groups, layer.window.places(given), given),)


def convolution_matrix(weight: Tensor, groups: int, places: Ints, given: Shape) -> Csr:
    """Return the matrix of a convolution over any number of axes.

    ``places`` ``(positions, kernel)`` are the flat positions that each window reads in one channel of the input, -1 outside.
    """
    outputs, per_group = int(weight.shape[0]), int(weight.shape[1])
    group = np.arange(outputs) // (outputs // groups)
    channels = group[:, None] * per_group + np.arange(per_group)  # (outputs, inputs / groups)
    shape = (outputs, len(places), per_group, places.shape[1])
    columns = np.broadcast_to(channels[:, None, :, None] * size(given[1:]) + places[None, :, None, :], shape)
    entries = weight.reshape(outputs, 1, per_group, -1).expand(torch.Size(shape)).numpy()
    inside = np.broadcast_to(places[None, :, None, :] >= 0, shape) & (entries != 0)
    indptr = np.append(0, np.cumsum(inside.sum(axis=(2, 3)).reshape(-1)))
    return Csr((entries[inside], columns[inside], indptr), shape=(outputs * len(places), size(given)))


def bias_constant(bias: Tensor | None, coefficients: Tensor) -> Tensor:
    """Return ``coefficients . b`` for a bias per channel, and coefficients ``(rows, channels, *positions)``: ``(rows,)``."""
    return coefficients.new_zeros(len(coefficients)) if bias is None else coefficients.flatten(2).sum(2) @ bias
