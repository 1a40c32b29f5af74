"""Piecewise-linear functions of one value or of several; see `mipnet.readers.operators.table`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mipnet.layers import Clip, Concat, LeakyReLU, Maximum, PReLU, ReLU
from mipnet.network.graph import size
from mipnet.readers.conversion import AnyValue, ConversionCall
from mipnet.readers.operators.arithmetic import add, broadcast, multiply, scale, together
from mipnet.readers.operators.table import operator


@operator("ReLU")
def relu(call: ConversionCall[AnyValue], x: AnyValue) -> AnyValue:
    """``max(x, 0)``."""
    return call.emit(ReLU(), x)


@operator("LeakyReLU; PReLU for a negative slope")
def leaky_relu(call: ConversionCall[AnyValue], x: AnyValue, slope: float) -> AnyValue:
    """``x`` for x > 0, ``slope x`` otherwise."""
    if not math.isfinite(slope):
        call.refuse(f"its slope is {slope}; expected a number")
    return call.emit(LeakyReLU(slope) if slope >= 0 else PReLU(torch.tensor(slope)), x)


@operator("PReLU; LeakyReLU for one slope")
def prelu(call: ConversionCall[AnyValue], x: AnyValue, slope: Tensor) -> AnyValue:
    """``x`` for x > 0, ``slope x`` otherwise, with a trained slope, or one per channel."""
    if slope.numel() == 1:
        return leaky_relu(call, x, float(slope))
    return call.emit(PReLU(slope), x)


@operator("PReLU with slope -1")
def absolute(call: ConversionCall[AnyValue], x: AnyValue) -> AnyValue:
    """``|x|``."""
    return call.emit(PReLU(torch.tensor(-1.0)), x)


@operator("Clip; ReLU; between shifts where the ends differ")
def clip(call: ConversionCall[AnyValue], x: AnyValue, low: Tensor | float, high: Tensor | float) -> AnyValue:
    """``min(max(x, low), high)``; either end may be missing, or differ from element to element."""
    ends = [torch.as_tensor(end, dtype=torch.float64) for end in (low, high)]
    single = [float(end.reshape(-1)[0]) if bool((end == end.reshape(-1)[0]).all()) else None for end in ends]
    if any(together(call, x.shape, tuple(end.shape)) != x.shape for end in ends):
        call.refuse(f"an end of its range has shape {[list(end.shape) for end in ends]}, and its input {list(x.shape)}")
    if bool((ends[0] > ends[1]).any()):
        call.refuse(f"it clips to [{single[0]}, {single[1]}]; expected low <= high")
    if single[0] is not None and single[1] is not None:
        return call.emit(ReLU() if single == [0.0, math.inf] else Clip(single[0], single[1]), x)
    value, one = x, torch.tensor(1.0)
    if bool(torch.isfinite(ends[0]).all()):
        value = scale(call, call.emit(ReLU(), scale(call, value, one, -ends[0])), one, ends[0])
    elif not bool((ends[0] == -math.inf).all()):
        call.refuse("some of its lower ends are infinite; expected all or none")
    if bool(torch.isfinite(ends[1]).all()):
        return scale(call, call.emit(ReLU(), scale(call, value, -one, ends[1])), -one, ends[1])
    return value if bool((ends[1] == math.inf).all()) else call.refuse("some of its upper ends are infinite; expected all or none")


@operator("Clip of a Scale")
def hard_sigmoid(call: ConversionCall[AnyValue], x: AnyValue, slope: float, shift: float) -> AnyValue:
    """``min(max(slope x + shift, 0), 1)``."""
    return call.emit(Clip(0.0, 1.0), scale(call, x, torch.tensor(slope, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64)))


@operator("Add of Clips")
def soft_shrink(call: ConversionCall[AnyValue], x: AnyValue, width: float) -> AnyValue:
    """``x - min(max(x, -width), width)``."""
    return add(call, x, 1.0, call.emit(Clip(-width, width), x), -1.0)


@operator("Clip; ReLU")
def threshold(call: ConversionCall[AnyValue], x: AnyValue, limit: float, value: float) -> AnyValue:
    """``x`` for x > limit, ``value`` otherwise, where both are the same number: without a jump."""
    if limit != value:
        call.refuse(f"it jumps at {limit}, to {value}; make the threshold and the value the same number, and it is a clip")
    return clip(call, x, limit, math.inf)


@operator("Maximum after a Concat")
def maximum(call: ConversionCall[AnyValue], x: AnyValue, y: AnyValue) -> AnyValue:
    """``max(x, y)`` of two values."""
    shape = together(call, x.shape, y.shape)
    flat = [call.reshape(broadcast(call, each, shape), (size(shape),)) for each in (x, y)]
    first = torch.arange(size(shape)).reshape(shape)
    return call.emit(Maximum(torch.stack([first, first + size(shape)], dim=-1)), call.emit(Concat(0), *flat))


@operator("Maximum after a Concat, between two signs")
def minimum(call: ConversionCall[AnyValue], x: AnyValue, y: AnyValue) -> AnyValue:
    """``min(x, y)`` of two values: ``-max(-x, -y)``."""
    minus = torch.tensor(-1.0)
    return multiply(call, maximum(call, multiply(call, x, minus), multiply(call, y, minus)), minus)


@operator("Maximum")
def largest(call: ConversionCall[AnyValue], x: AnyValue, axes: Sequence[int], *, keep: bool) -> AnyValue:
    """The maximum over any axes."""
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    places = torch.arange(size(x.shape)).reshape(x.shape).permute(*kept, *sorted(axes))
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape)) if keep else tuple(x.shape[axis] for axis in kept) or (1,)
    return call.emit(Maximum(places.reshape(*shape, -1)), x)


@operator("Maximum between two signs")
def smallest(call: ConversionCall[AnyValue], x: AnyValue, axes: Sequence[int], *, keep: bool) -> AnyValue:
    """The minimum over any axes."""
    minus = torch.tensor(-1.0)
    return multiply(call, largest(call, multiply(call, x, minus), axes, keep=keep), minus)
