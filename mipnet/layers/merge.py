"""Layers with several inputs: weighted sums (residual connections) and concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Csr, Shape
from mipnet.bounds.interval import Interval, interval, monotone
from mipnet.bounds.linear_rules import adjoint, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.layers.shape import selection
from mipnet.network.graph import Layer, require, size


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Add(Layer):
    """``y = sum_i coefficients[i] x_i`` for inputs of one shape; ``(1, 1)`` adds, ``(1, -1)`` subtracts."""

    coefficients: tuple[float, ...] = (1.0, 1.0)

    def shape(self, *inputs: Shape) -> Shape:
        """Return the common shape of the inputs."""
        require(len(inputs) == len(self.coefficients), f"it has {len(inputs)} inputs and {len(self.coefficients)} coefficients")
        require(len(set(inputs)) == 1, f"its inputs have shapes {inputs}; expected the same shape")
        return inputs[0]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the weighted sum of the batches."""
        total = inputs[0] * self.coefficients[0]
        for factor, x in zip(self.coefficients[1:], inputs[1:], strict=True):
            total = total + factor * x
        return total


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """The inputs joined along ``axis``, which is an axis of one sample."""

    axis: int = 0

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the inputs, with their lengths along the axis added up."""
        require(all(len(s) == len(inputs[0]) for s in inputs), f"its inputs have shapes {inputs}; expected the same number of axes")
        require(-len(inputs[0]) <= self.axis < len(inputs[0]), f"axis {self.axis} is not one of the {len(inputs[0])} axes of its inputs")
        rest = {tuple(np.delete(s, self.axis)) for s in inputs}
        require(len(rest) == 1, f"its inputs have shapes {inputs}; expected equal lengths except along axis {self.axis}")
        out = list(inputs[0])
        out[self.axis] = sum(s[self.axis] for s in inputs)
        return tuple(out)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the joined batches."""
        return torch.cat(inputs, dim=self.axis + 1 if self.axis >= 0 else self.axis)


interval.register(Concat)(monotone)
backward.register(Concat)(adjoint)
backward.register(Add)(adjoint)


@interval.register(Add)
def _(layer: Add, *inputs: Interval) -> Interval:
    ends: Sequence[tuple[Tensor, Tensor]] = [
        (c * x.lower, c * x.upper) if c >= 0 else (c * x.upper, c * x.lower) for c, x in zip(layer.coefficients, inputs, strict=True)
    ]
    lower, upper = (torch.stack(side) for side in zip(*ends, strict=True))
    return Interval(lower.sum(0), upper.sum(0)).rounded(lower.abs().sum(0), upper.abs().sum(0))


@linear_map.register(Add)
def _(layer: Add, *shapes: Shape) -> tuple[Csr, ...]:
    count = size(shapes[0])
    return tuple(Csr(selection(np.arange(count), count) * c) for c in layer.coefficients)


@linear_map.register(Concat)
def _(layer: Concat, *shapes: Shape) -> tuple[Csr, ...]:
    numbers = [np.full(s, i) for i, s in enumerate(shapes)]
    source = np.concatenate(numbers, axis=layer.axis).reshape(-1)
    place = np.concatenate([np.arange(size(s)).reshape(s) for s in shapes], axis=layer.axis).reshape(-1)
    maps = []
    for i, shape in enumerate(shapes):
        from_i = source == i
        indptr = np.concatenate([[0], np.cumsum(from_i)])
        maps.append(Csr((np.ones(int(from_i.sum())), place[from_i], indptr), shape=(len(source), size(shape))))
    return tuple(maps)
