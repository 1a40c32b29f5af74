"""Conversion rules of torch's linear, arithmetic and activation operators; see `mipnet.readers.torch_call`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mipnet.layers import Add, Conv2d, Dense, ReLU, Scale
from mipnet.layers.window import Sides, pair
from mipnet.readers.conversion import NormStatistics, Value, convert_batch_norm, convert_clip, convert_leaky_relu
from mipnet.readers.torch_call import IntOrPair, TorchCall, TorchConstant, reads

# Affine layers with weights


@reads("aten.linear.default")
def linear(call: TorchCall, x: Value, weight: Any, bias: Any = None) -> Value:
    """Convert ``W x + b``."""
    return _dense(call, x, call.array(weight, "the weight"), bias)


@reads("aten.matmul.default", "aten.mm.default")
def matmul(call: TorchCall, x: Any, weight: Any) -> Value:
    """Convert ``x @ W`` to a dense layer of the transposed weight; refuses two factors that depend on the input."""
    weight = call.array(weight, "the second factor")
    if not isinstance(x, Value) or weight.ndim != 2:
        call.refuse("it reads `x @ W` for a matrix W of constants on the right")
    return _dense(call, x, weight.T, None)


@reads("aten.addmm.default")
def addmm(call: TorchCall, bias: Any, x: Value, weight: Any, beta: float = 1, alpha: float = 1) -> Value:
    """Convert ``beta b + alpha x @ W``."""
    shift, matrix = call.array(bias, "the shift") * beta, call.array(weight, "the second factor") * alpha
    return _dense(call, call.value(x), matrix.T, TorchConstant(shift.expand(matrix.shape[1])))


def _dense(call: TorchCall, x: Value, weight: Tensor, bias: Any) -> Value:
    x = call.value(x)
    if len(x.shape) != 1:
        call.refuse(f"it acts on the last axis of {x.shape}; mipnet reads linear layers on vectors, so flatten before it")
    shift = None if bias is None else call.array(bias, "the bias")
    return call.emit(Dense(weight, shift), x)


@reads("aten.conv2d.default")
def conv2d(
    call: TorchCall, x: Value, weight: Any, bias: Any, stride: IntOrPair, padding: IntOrPair, dilation: IntOrPair, groups: int = 1
) -> Value:
    """Convert a convolution with equal padding on opposite sides."""
    rows, cols = pair(padding)
    return _conv(call, x, weight, bias, stride, (rows, rows, cols, cols), dilation, groups)


@reads("aten.conv2d.padding")
def conv2d_padding(
    call: TorchCall, x: Value, weight: Any, bias: Any, stride: IntOrPair, padding: str, dilation: IntOrPair, groups: int = 1
) -> Value:
    """Convert a convolution with padding by name: 'same' pads the odd row and column of an even kernel at the end, 'valid' does not pad."""
    sides = [0, 0, 0, 0]
    if padding == "same":
        for axis, size in enumerate(call.array(weight, "the weight").shape[2:]):
            total = pair(dilation)[axis] * (size - 1)
            sides[2 * axis], sides[2 * axis + 1] = total // 2, total - total // 2
    return _conv(call, x, weight, bias, stride, (sides[0], sides[1], sides[2], sides[3]), dilation, groups)


def _conv(call: TorchCall, x: Value, weight: Any, bias: Any, stride: IntOrPair, padding: Sides, dilation: IntOrPair, groups: int) -> Value:
    kernel = call.array(weight, "the weight")
    shift = None if bias is None else call.array(bias, "the bias")
    return call.emit(Conv2d(kernel, shift, pair(stride), padding, pair(dilation), groups), call.value(x))


@reads("aten.batch_norm.default")
def batch_norm(call: TorchCall, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *settings: Any) -> Value:
    """Convert a batch norm with running statistics; ``settings`` are the momentum, epsilon and whether cuDNN is used."""
    if training or mean is None or variance is None:
        call.refuse("it normalises by the batch's own statistics; expected running statistics (eval mode, track_running_stats=True)")
    return running_norm(call, x, weight, bias, mean, variance, *settings[:2])


@reads("aten._native_batch_norm_legit_no_training.default")
def running_norm(call: TorchCall, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float) -> Value:
    """Convert ``gamma (x - mean) / sqrt(variance + eps) + beta``."""
    gamma = None if weight is None else call.array(weight, "the weight")
    beta = None if bias is None else call.array(bias, "the bias")
    norm = NormStatistics(gamma, beta, call.array(mean, "the running mean"), call.array(variance, "the running variance"))
    return convert_batch_norm(call, call.value(x), norm, eps)


# Constants and sums


@reads("aten.add.Tensor", "aten.add_.Tensor", "aten.add.Scalar")
def add(call: TorchCall, x: Any, y: Any, alpha: float = 1) -> Value:
    """Convert ``x + alpha y``: a sum of two values, or a constant shift."""
    return _sum(call, x, 1.0, y, float(alpha))


@reads("aten.sub.Tensor", "aten.sub_.Tensor", "aten.sub.Scalar")
def subtract(call: TorchCall, x: Any, y: Any, alpha: float = 1) -> Value:
    """Convert ``x - alpha y``."""
    return _sum(call, x, 1.0, y, -float(alpha))


@reads("aten.rsub.Scalar", "aten.rsub.Tensor")
def subtract_from(call: TorchCall, x: Any, y: Any, alpha: float = 1) -> Value:
    """Convert ``y - alpha x``."""
    return _sum(call, x, -float(alpha), y, 1.0)


@reads("aten.neg.default", "aten.neg_.default")
def negate(call: TorchCall, x: Value) -> Value:
    """Convert ``-x``."""
    return _scale(call, x, torch.tensor(-1.0), torch.tensor(0.0))


@reads("aten.mul.Tensor", "aten.mul_.Tensor", "aten.mul.Scalar")
def multiply(call: TorchCall, x: Any, y: Any) -> Value:
    """Convert the product of a value and a constant."""
    if isinstance(x, Value) and isinstance(y, Value):
        call.refuse("it multiplies two values that depend on the input, which is not linear")
    value, factor = (x, y) if isinstance(x, Value) else (y, x)
    return _scale(call, value, call.array(factor, "the factor"), torch.tensor(0.0))


@reads("aten.div.Tensor", "aten.div_.Tensor", "aten.div.Scalar")
def divide(call: TorchCall, x: Any, y: Any) -> Value:
    """Convert the quotient of a value and a constant."""
    divisor = call.array(y, "the divisor")
    if (divisor == 0).any():
        call.refuse("it divides by 0")
    return _scale(call, call.value(x), 1 / divisor, torch.tensor(0.0))


def _sum(call: TorchCall, x: Any, a: float, y: Any, b: float) -> Value:
    """Convert ``a x + b y``, where one of the two may be a constant."""
    if isinstance(x, Value) and isinstance(y, Value):
        inputs = [_broadcast(call, value) for value in (x, y)]
        return call.emit(Add((a, b)), *inputs)
    value, factor, shift, times = (x, a, y, b) if isinstance(x, Value) else (y, b, x, a)
    return _scale(call, value, torch.tensor(factor), call.array(shift, "a summand") * times)


def _broadcast(call: TorchCall, value: Value) -> Value:
    """Return a summand, copied along the axes in which the result is longer."""
    if value.shape == call.shape:
        return value
    if len(value.shape) != len(call.shape):
        call.refuse(f"it adds shapes of {len(value.shape)} and {len(call.shape)} axes; expected the same number of axes")
    return call.emit(Scale(torch.ones(call.shape), torch.tensor(0.0)), value)


def _scale(call: TorchCall, x: Value, factor: Tensor, shift: Tensor) -> Value:
    x = call.value(x)
    return call.emit(Scale(_one_sample(call, x, factor), _one_sample(call, x, shift)), x)


def _one_sample(call: TorchCall, x: Value, given: Tensor) -> Tensor:
    """Return a constant without its sample axis, along which it must not change."""
    axes = len(x.shape) + 1
    if given.ndim > axes or (given.ndim == axes and not torch.equal(given, given[:1].expand_as(given))):
        call.refuse(f"a constant of shape {tuple(given.shape)} differs from sample to sample")
    return given[0] if given.ndim == axes else given


# Activations


@reads("aten.relu.default", "aten.relu_.default")
def relu(call: TorchCall, x: Value) -> Value:
    """Convert ``max(x, 0)``."""
    return call.emit(ReLU(), x)


@reads("aten.leaky_relu.default", "aten.leaky_relu_.default")
def leaky_relu(call: TorchCall, x: Value, slope: float = 0.01) -> Value:
    """Convert ``x`` for x > 0, ``slope x`` otherwise."""
    return convert_leaky_relu(call, x, float(slope))


@reads("aten.prelu.default")
def prelu(call: TorchCall, x: Value, weight: Any) -> Value:
    """Convert a leaky ReLU with a trained slope."""
    slope = call.array(weight, "the slope")
    if slope.numel() != 1:
        call.refuse(f"it has {slope.numel()} slopes; expected one slope for all channels (num_parameters=1)")
    return leaky_relu(call, call.value(x), float(slope))


@reads("aten.threshold.default", "aten.threshold_.default")
def threshold(call: TorchCall, x: Value, limit: float, value: float) -> Value:
    """Convert ``x`` for x > limit, ``value`` otherwise, if both are 0 (a ReLU); refuses other numbers."""
    if limit != 0 or value != 0:
        call.refuse(f"it has threshold {limit} and value {value}; expected 0 and 0 (a ReLU)")
    return call.emit(ReLU(), x)


@reads("aten.relu6.default", "aten.relu6_.default")
def relu6(call: TorchCall, x: Value) -> Value:
    """Convert ``min(max(x, 0), 6)``."""
    return _clip(call, x, 0.0, 6.0)


@reads("aten.hardtanh.default", "aten.hardtanh_.default")
@reads("aten.clamp.default", "aten.clamp_.default", "aten.clip.default", "aten.clip_.default")
@reads("aten.clamp.Tensor", "aten.clamp_.Tensor", "aten.clip.Tensor")
def clamp(call: TorchCall, x: Value, low: Any = None, high: Any = None) -> Value:
    """Convert ``min(max(x, low), high)``; either end may be missing."""
    return _clip(call, x, -math.inf if low is None else low, math.inf if high is None else high)


@reads("aten.clamp_min.default", "aten.clamp_min_.default", "aten.clamp_min.Tensor", "aten.maximum.default", "aten.max.other")
def clamp_min(call: TorchCall, x: Any, low: Any) -> Value:
    """Convert ``max(x, low)``."""
    value, end = (x, low) if isinstance(x, Value) else (low, x)
    return _clip(call, value, end, math.inf)


@reads("aten.clamp_max.default", "aten.clamp_max_.default", "aten.clamp_max.Tensor", "aten.minimum.default", "aten.min.other")
def clamp_max(call: TorchCall, x: Any, high: Any) -> Value:
    """Convert ``min(x, high)``."""
    value, end = (x, high) if isinstance(x, Value) else (high, x)
    return _clip(call, value, -math.inf, end)


def _clip(call: TorchCall, x: Value, low: Any, high: Any) -> Value:
    return convert_clip(call, call.value(x), *(_number(call, end) for end in (low, high)))


def _number(call: TorchCall, end: Any) -> float:
    """Return an end of a range as one number, which may be infinite."""
    if isinstance(end, TorchConstant) and end.tensor.numel() and (end.tensor == end.tensor.reshape(-1)[0]).all():
        return float(end.tensor.reshape(-1)[0])
    if isinstance(end, int | float):
        return float(end)
    return call.refuse("an end of the range is no single constant")
