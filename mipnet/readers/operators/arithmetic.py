"""Sums, products with constants, and sums over axes; see `mipnet.readers.operators.table`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Shape
from mipnet.layers import AdaptiveAvgPool2d, Add, AxisDense, Scale
from mipnet.layers.axis_dense import sum_weight
from mipnet.readers.conversion import AnyValue, ConversionCall, Value
from mipnet.readers.operators.table import operator


@operator("Add; Scale")
def add(call: ConversionCall[AnyValue], x: AnyValue | Tensor, a: float, y: AnyValue | Tensor, b: float) -> AnyValue:
    """``a x + b y`` of two values, or of a value and a constant."""
    if isinstance(x, Value) and isinstance(y, Value):
        shape = together(call, x.shape, y.shape)
        return call.emit(Add((a, b)), *(broadcast(call, each, shape) for each in (x, y)))
    value, factor, shift, times = (x, a, y, b) if isinstance(x, Value) else (y, b, x, a)
    if not isinstance(value, Value) or not isinstance(shift, Tensor):
        call.refuse("it adds constants alone")
    return scale(call, value, torch.tensor(factor), shift * times)


@operator("Scale")
def multiply(call: ConversionCall[AnyValue], x: AnyValue, factor: Tensor) -> AnyValue:
    """``c x`` for a constant c, also ``-x``."""
    return scale(call, x, factor, torch.tensor(0.0))


@operator("Scale")
def divide(call: ConversionCall[AnyValue], x: AnyValue, divisor: Tensor) -> AnyValue:
    """``x / c`` for a constant c."""
    if (divisor == 0).any():
        call.refuse("it divides by 0")
    return multiply(call, x, 1 / divisor)


@operator("AxisDense; AdaptiveAvgPool2d for the mean of each channel")
def mean(call: ConversionCall[AnyValue], x: AnyValue, axes: Sequence[int], *, keep: bool) -> AnyValue:
    """The mean over any axes."""
    if len(x.shape) == 3 and sorted(axes) == [1, 2]:
        found = call.emit(AdaptiveAvgPool2d((1, 1)), x)
        return found if keep else call.reshape(found, x.shape[:1])
    return over_axes(call, x, axes, 1 / math.prod(x.shape[axis] for axis in axes), keep=keep)


@operator("AxisDense")
def total(call: ConversionCall[AnyValue], x: AnyValue, axes: Sequence[int], *, keep: bool) -> AnyValue:
    """The sum over any axes."""
    return over_axes(call, x, axes, 1.0, keep=keep)


def over_axes(call: ConversionCall[AnyValue], x: AnyValue, axes: Sequence[int], factor: float, *, keep: bool) -> AnyValue:
    """Convert ``factor`` times the sum over some axes; adjacent ones are summed at once."""
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    left = sorted(axes)
    value = x
    while left:
        last = first = left.pop()
        while left and left[-1] == first - 1:
            first = left.pop()
        shape = value.shape
        merged = call.reshape(value, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))
        weight = sum_weight(merged.shape[first]) * (factor if not left else 1.0)
        value = call.emit(AxisDense(weight, None, first, trained=False), merged)
    return call.reshape(value, kept if keep else tuple(n for axis, n in enumerate(x.shape) if axis not in axes) or (1,))


@operator("AxisDense")
def cumulative_sum(call: ConversionCall[AnyValue], x: AnyValue, axis: int, *, exclusive: bool = False, backwards: bool = False) -> AnyValue:
    """The cumulative sum along an axis."""
    weight = torch.ones(x.shape[axis], x.shape[axis], dtype=torch.float64).tril(-1 if exclusive else 0)
    return call.emit(AxisDense(weight.T if backwards else weight, None, axis, trained=False), x)


def scale(call: ConversionCall[AnyValue], x: AnyValue, factor: Tensor, shift: Tensor) -> AnyValue:
    """Convert ``factor x + shift``; no layer if that is x."""
    same = together(call, x.shape, np.broadcast_shapes(factor.shape, shift.shape)) == x.shape
    if same and bool((factor == 1).all()) and bool((shift == 0).all()):
        return x
    return call.emit(Scale(factor, shift), x)


def broadcast(call: ConversionCall[AnyValue], x: AnyValue, shape: Shape) -> AnyValue:
    """Return a value copied along the axes in which ``shape`` is longer."""
    return x if x.shape == shape else call.emit(Scale(torch.ones(shape), torch.tensor(0.0)), x)


def together(call: ConversionCall[AnyValue], one: Shape, other: Shape) -> Shape:
    """Return the shape that two shapes of one sample broadcast to."""
    try:
        return tuple(int(n) for n in np.broadcast_shapes(one, other))
    except ValueError:
        return call.refuse(f"shapes {list(one)} and {list(other)} do not fit together")
