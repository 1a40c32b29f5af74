"""Affine maps per channel and per element: batch norm in evaluation mode, and multiplication and addition of constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mipnet.arrays import Csr, Shape
from mipnet.bounds.interval import Interval, interval, linear
from mipnet.bounds.linear_rules import adjoint, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.network.graph import Layer, constant, require, size


@suggest_keywords
@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """``y[c] = factor[c] x[c] + shift[c]`` for each channel c: a batch norm with fixed statistics.

    ``factor = gamma / sqrt(variance + eps)`` and ``shift = beta - factor * mean``; both have shape ``(channels,)``.
    """

    factor: Tensor
    shift: Tensor

    unitwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", constant(self.factor, "the factor of a batch norm"))
        object.__setattr__(self, "shift", constant(self.shift, "the shift of a batch norm"))
        require(self.factor.ndim == 1 and self.factor.shape == self.shift.shape, "factor and shift must be vectors of one length")

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        (given,) = inputs
        require(given[0] == len(self.factor), f"its input has shape {given}; expected {len(self.factor)} channels first")
        return given

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return each channel of a batch times its factor plus its shift."""
        (x,) = inputs
        over = (-1, *[1] * (x.ndim - 2))
        return x * self.factor.to(x.dtype).reshape(over) + self.shift.to(x.dtype).reshape(over)


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Scale(Layer):
    """``y = factor * x + shift`` with constants that broadcast against the input; they are not trained."""

    factor: Tensor
    shift: Tensor

    unitwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", constant(self.factor, "a constant factor"))
        object.__setattr__(self, "shift", constant(self.shift, "a constant shift"))

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input, broadcast against the constants."""
        (given,) = inputs
        try:
            return tuple(np.broadcast_shapes(given, self.factor.shape, self.shift.shape))
        except ValueError:
            shapes = f"{tuple(self.factor.shape)} and {tuple(self.shift.shape)}"
            require(False, f"constants of shapes {shapes} do not broadcast against an input of shape {given}")
            raise

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return a batch times the factor plus the shift."""
        (x,) = inputs
        rank = max(x.ndim - 1, self.factor.ndim, self.shift.ndim)
        wide = x.reshape(len(x), *[1] * (rank - (x.ndim - 1)), *x.shape[1:])
        return wide * self.factor.to(x.dtype) + self.shift.to(x.dtype)

    def weights(self) -> dict[str, Tensor]:
        """Return an empty dictionary, because the constants are not trained."""
        return {}


def _absolute(layer: BatchNorm | Scale) -> BatchNorm | Scale:
    return type(layer)(layer.factor.abs(), torch.zeros_like(layer.shift))


@interval.register(BatchNorm)
@interval.register(Scale)
def _(layer: BatchNorm | Scale, x: Interval) -> Interval:
    return linear(layer.forward, _absolute(layer).forward, x)


backward.register(BatchNorm)(adjoint)
backward.register(Scale)(adjoint)


@linear_map.register(BatchNorm)
@linear_map.register(Scale)
def _(layer: BatchNorm | Scale, *shapes: Shape) -> tuple[Csr, ...]:
    """Return a matrix with one entry per output element: the factor, in the column of the input element that it is computed from."""
    (given,) = shapes
    out = layer.shape(given)
    factor = type(layer)(layer.factor, torch.zeros_like(layer.shift)).forward(torch.ones(1, *given, dtype=torch.float64))
    data = factor.expand(1, *out).reshape(-1).numpy()
    rank = len(out)
    columns = np.broadcast_to(np.arange(size(given)).reshape(*[1] * (rank - len(given)), *given), out).reshape(-1)
    return (Csr(sparse.csr_array((data, columns, np.arange(size(out) + 1)), shape=(size(out), size(given)))),)
