"""Conv3d: a three-dimensional cross-correlation with stride, padding, dilation and groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from mipnet.arrays import Csr, Shape
from mipnet.bounds.interval import Interval, interval, linear
from mipnet.bounds.linear_rules import BackwardBound, affine, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.layers.conv import bias_constant, convolution_matrix
from mipnet.layers.window import window_places
from mipnet.network.graph import Layer, constant, require

Triple = tuple[int, int, int]
"""``(depth, rows, cols)``."""


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Conv3d(Layer):
    """A convolution over depth, rows and columns, as `Conv2d` is one over rows and columns.

    ``weight`` has shape ``(outputs, inputs / groups, depth, rows, cols)``, and ``bias`` has shape ``(outputs,)`` or is None.  ``padding``
    is the number of zeros ``(before, after)`` of each of the three axes.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: Triple = (1, 1, 1)
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0), (0, 0))
    dilation: Triple = (1, 1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", constant(self.weight, "the weight of a convolution"))
        if self.bias is not None:
            object.__setattr__(self, "bias", constant(self.bias, "the bias of a convolution"))
        wanted = "(outputs, inputs/groups, depth, rows, cols)"
        require(self.weight.ndim == 5, f"the weight has shape {tuple(self.weight.shape)}; expected {wanted}")
        ok = self.bias is None or self.bias.shape == self.weight.shape[:1]
        require(ok, f"the bias has shape {tuple(getattr(self.bias, 'shape', ()))}; expected ({len(self.weight)},)")
        require(len(self.weight) % self.groups == 0, f"{len(self.weight)} output channels do not divide into {self.groups} groups")

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(outputs, depth, rows, cols)``."""
        (given,) = inputs
        wanted = int(self.weight.shape[1]) * self.groups
        require(len(given) == 4 and given[0] == wanted, f"its input has shape {given}; expected ({wanted}, depth, rows, cols)")
        out = tuple(
            (n + sum(sides) - gap * (int(k) - 1) - 1) // step + 1
            for n, sides, gap, k, step in zip(given[1:], self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True)
        )
        kernel = tuple(self.weight.shape[2:])
        require(min(out) > 0, f"a kernel of {kernel} with padding {self.padding} does not fit an input of shape {given}")
        return (int(self.weight.shape[0]), *out)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the convolution of a batch."""
        (x,) = inputs
        return self._apply(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        sides = [n for pair in reversed(self.padding) for n in pair]
        padded = F.pad(x, sides) if any(sides) else x
        return F.conv3d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)


@interval.register(Conv3d)
def _(layer: Conv3d, x: Interval) -> Interval:
    return linear(layer.forward, lambda r: layer._apply(r, layer.weight.abs(), None), x)


@backward.register(Conv3d)
@affine
def _(layer: Conv3d, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Return the transposed convolution of the coefficients without the padding; elements that no window reads have coefficient 0."""
    lengths = [int(n) for n in x.lower.shape[2:]]
    full = F.conv_transpose3d(coefficients, layer.weight, None, layer.stride, 0, 0, layer.groups, layer.dilation)
    unread = [max(0, n + sum(sides) - int(m)) for n, sides, m in zip(lengths, layer.padding, full.shape[2:], strict=True)]
    part = F.pad(full, [n for each in reversed(unread) for n in (0, each)])
    for axis, (n, (before, _)) in enumerate(zip(lengths, layer.padding, strict=True)):
        part = part.narrow(axis + 2, before, n)
    return (part,), bias_constant(layer.bias, coefficients)


@linear_map.register(Conv3d)
def _(layer: Conv3d, *shapes: Shape) -> tuple[Csr, ...]:
    """Return a matrix with one row per output element, whose entries come from its window."""
    (given,) = shapes
    kernel = tuple(int(n) for n in layer.weight.shape[2:])
    places = window_places(given[1:], kernel, layer.stride, layer.padding, layer.dilation)
    return (convolution_matrix(layer.weight, layer.groups, places, given),)
