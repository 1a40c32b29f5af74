"""Torch's piecewise-linear functions; see `mipnet.readers.torch_call`, and `mipnet.readers.operators.activations` for their layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mipnet.readers.conversion import Value
from mipnet.readers.operators import activations
from mipnet.readers.torch_call import TorchCall, TorchConstant, reads


@reads("aten.relu.default", "aten.relu_.default", operator="relu")
def relu(call: TorchCall, x: Value) -> Value:
    """Convert ``max(x, 0)``."""
    return activations.relu(call, x)


@reads("aten.leaky_relu.default", "aten.leaky_relu_.default", operator="leaky_relu")
def leaky_relu(call: TorchCall, x: Value, slope: float = 0.01) -> Value:
    """Convert ``x`` for x > 0, ``slope x`` otherwise."""
    return activations.leaky_relu(call, x, float(slope))


@reads("aten.rrelu.default", "aten.rrelu_.default", operator="leaky_relu")
def random_relu(call: TorchCall, x: Value, low: float = 1 / 8, high: float = 1 / 3, training: bool = False, generator: Any = None) -> Value:
    """Convert a randomised leaky ReLU in eval mode, whose slope is the mean of its range."""
    return call.refuse("it draws slopes at random; export the module in eval mode") if training else leaky_relu(call, x, (low + high) / 2)


@reads("aten.prelu.default", "aten._prelu_kernel.default", operator="prelu")
def prelu(call: TorchCall, x: Value, weight: Any) -> Value:
    """Convert a leaky ReLU with a trained slope, or with one per channel."""
    slope = call.array(weight, "the slope")
    return activations.prelu(call, call.value(x), slope.reshape(-1, *[1] * (len(x.shape) - 1)) if slope.numel() > 1 else slope)


@reads("aten.abs.default", "aten.abs_.default", operator="absolute")
def absolute(call: TorchCall, x: Value) -> Value:
    """Convert ``|x|``."""
    return activations.absolute(call, x)


@reads("aten.threshold.default", "aten.threshold_.default", operator="threshold")
def threshold(call: TorchCall, x: Value, limit: float, value: float) -> Value:
    """Convert ``x`` for x > limit, ``value`` otherwise."""
    return activations.threshold(call, x, float(limit), float(value))


@reads("aten.hardsigmoid.default", "aten.hardsigmoid_.default", operator="hard_sigmoid")
def hard_sigmoid(call: TorchCall, x: Value) -> Value:
    """Convert ``min(max(x / 6 + 1 / 2, 0), 1)``."""
    return activations.hard_sigmoid(call, x, 1 / 6, 0.5)


@reads("aten.softshrink.default", operator="soft_shrink")
def soft_shrink(call: TorchCall, x: Value, width: float = 0.5) -> Value:
    """Convert ``x - min(max(x, -width), width)``."""
    return activations.soft_shrink(call, x, float(width))


@reads("aten.relu6.default", "aten.relu6_.default", operator="clip")
def relu6(call: TorchCall, x: Value) -> Value:
    """Convert ``min(max(x, 0), 6)``."""
    return activations.clip(call, x, 0.0, 6.0)


@reads("aten.hardtanh.default", "aten.hardtanh_.default", operator="clip")
@reads("aten.clamp.default", "aten.clamp_.default", "aten.clip.default", "aten.clip_.default", operator="clip")
@reads("aten.clamp.Tensor", "aten.clamp_.Tensor", "aten.clip.Tensor", operator="clip")
def clamp(call: TorchCall, x: Value, low: Any = None, high: Any = None) -> Value:
    """Convert ``min(max(x, low), high)``; either end may be missing."""
    ends = (_end(call, end, infinite) for end, infinite in ((low, -math.inf), (high, math.inf)))
    return activations.clip(call, call.value(x), *ends)


@reads("aten.clamp_min.default", "aten.clamp_min_.default", "aten.clamp_min.Tensor", operator="clip")
@reads("aten.maximum.default", "aten.max.other", "aten.fmax.default", operator="maximum")
def maximum(call: TorchCall, x: Any, y: Any) -> Value:
    """Convert ``max(x, y)`` of two values, or of a value and a constant."""
    if isinstance(x, Value) and isinstance(y, Value):
        return activations.maximum(call, x, y)
    value, low = (x, y) if isinstance(x, Value) else (y, x)
    return activations.clip(call, value, _end(call, low, -math.inf), math.inf)


@reads("aten.clamp_max.default", "aten.clamp_max_.default", "aten.clamp_max.Tensor", operator="clip")
@reads("aten.minimum.default", "aten.min.other", "aten.fmin.default", operator="minimum")
def minimum(call: TorchCall, x: Any, y: Any) -> Value:
    """Convert ``min(x, y)`` of two values, or of a value and a constant."""
    if isinstance(x, Value) and isinstance(y, Value):
        return activations.minimum(call, x, y)
    value, high = (x, y) if isinstance(x, Value) else (y, x)
    return activations.clip(call, value, -math.inf, _end(call, high, math.inf))


def _end(call: TorchCall, end: Any, missing: float) -> Tensor | float:
    """Return an end of a range, which may be infinite."""
    if end is None:
        return missing
    if isinstance(end, Value):
        call.refuse("both ends and the input depend on the network's input; write it with torch.maximum and torch.minimum")
    if isinstance(end, TorchConstant):
        finite = torch.where(torch.isfinite(end.tensor), end.tensor, 0.0) if end.tensor.is_floating_point() else end.tensor
        found = call.constant_of_sample(TorchConstant(finite), "an end of the range", max(call.rank - 1, 1))
        infinite = end.tensor.reshape(found.shape) if found.shape.numel() == end.tensor.numel() else end.tensor[0]
        return torch.where(torch.isinf(infinite), infinite.to(torch.float64), found)
    return float(end)


@reads("aten.amax.default", operator="largest")
def largest(call: TorchCall, x: Value, axes: Any = None, keep: bool = False) -> Value:
    """Convert the maximum over axes of one sample."""
    return call.reshape(activations.largest(call, x, call.axes(axes), keep=keep), call.shape)


@reads("aten.amin.default", operator="smallest")
def smallest(call: TorchCall, x: Value, axes: Any = None, keep: bool = False) -> Value:
    """Convert the minimum over axes of one sample."""
    return call.reshape(activations.smallest(call, x, call.axes(axes), keep=keep), call.shape)


@reads("aten.max.dim", operator="largest")
def largest_and_place(call: TorchCall, x: Value, axis: int, keep: bool = False) -> list[Value | None]:
    """Convert the maximum along an axis; its place is not read."""
    return [activations.largest(call, x, [call.axis(axis)], keep=keep), None]


@reads("aten.min.dim", operator="smallest")
def smallest_and_place(call: TorchCall, x: Value, axis: int, keep: bool = False) -> list[Value | None]:
    """Convert the minimum along an axis; its place is not read."""
    return [activations.smallest(call, x, [call.axis(axis)], keep=keep), None]
