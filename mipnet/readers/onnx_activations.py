"""ONNX's piecewise-linear functions; see `mipnet.readers.onnx_call`, and `mipnet.readers.operators.activations` for their layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mipnet.readers.onnx_call import OnnxCall, OnnxConstant, OnnxTensor, reads, together
from mipnet.readers.onnx_ops import reduced
from mipnet.readers.operators import activations

FLOAT32_MAX = 3.4028234e38
"""The largest float32, as exporters write it.  An end of a range whose absolute value is this large counts as infinite."""


@reads("Relu", operator="relu")
def relu(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``max(x, 0)``."""
    return activations.relu(call, call.value(x))


@reads("LeakyRelu", operator="leaky_relu")
def leaky_relu(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``x`` for x > 0, ``alpha x`` otherwise."""
    return activations.leaky_relu(call, call.value(x), float(call.get("alpha", 0.01)))


@reads("PRelu", operator="prelu")
def prelu(call: OnnxCall, x: Any, slope: Any) -> OnnxTensor:
    """Convert a leaky ReLU with trained slopes, which broadcast to its input."""
    value = call.value(x)
    slopes = call.constant_of_sample(value, slope, "the slope")
    if together(call, value.shape, tuple(slopes.shape)) != value.shape:
        call.refuse(f"its slopes have shape {list(slopes.shape)}, and its input {list(value.dims)}")
    return activations.prelu(call, value, slopes)


@reads("Abs", operator="absolute")
def absolute(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``|x|``."""
    return activations.absolute(call, call.value(x))


@reads("HardSigmoid", operator="hard_sigmoid")
def hard_sigmoid(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``min(max(alpha x + beta, 0), 1)``."""
    return activations.hard_sigmoid(call, call.value(x), float(call.get("alpha", 0.2)), float(call.get("beta", 0.5)))


@reads("ThresholdedRelu", operator="threshold")
def threshold(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``x`` for x > alpha, 0 otherwise."""
    return activations.threshold(call, call.value(x), float(call.get("alpha", 1.0)), 0.0)


@reads("Shrink", operator="soft_shrink")
def shrink(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``x - min(max(x, -lambd), lambd)``; refuses a bias other than lambd, with which it jumps."""
    width, bias = float(call.get("lambd", 0.5)), float(call.get("bias", 0.0))
    if width != bias:
        call.refuse(f"it jumps: its lambd is {width} and its bias {bias}; expected the same number")
    return activations.soft_shrink(call, call.value(x), width)


@reads("Clip", operator="clip")
def clip(call: OnnxCall, x: Any, low: Any = None, high: Any = None) -> OnnxTensor:
    """Convert ``min(max(x, low), high)``; either end may be missing.  Before opset 11 the ends are attributes."""
    if call.opset < 11:
        return _clip(call, x, float(call.get("min", -math.inf)), float(call.get("max", math.inf)))
    return _clip(call, x, call.number(low, "the lower end", -math.inf), call.number(high, "the upper end", math.inf))


@reads("Max", operator="maximum")
def maximum(call: OnnxCall, *given: Any) -> OnnxTensor:
    """Convert ``max(x, y, ...)`` of values and constants."""
    return _extreme(call, given, lowest=False)


@reads("Min", operator="minimum")
def minimum(call: OnnxCall, *given: Any) -> OnnxTensor:
    """Convert ``min(x, y, ...)`` of values and constants."""
    return _extreme(call, given, lowest=True)


def _extreme(call: OnnxCall, given: tuple[Any, ...], *, lowest: bool) -> OnnxTensor:
    values = [each for each in given if isinstance(each, OnnxTensor)]
    found = values[0]
    for each in values[1:]:
        dims = together(call, found.dims, each.dims)
        found = call.view((activations.minimum if lowest else activations.maximum)(call, found, each), dims)
    for each in given:
        if isinstance(each, OnnxConstant):
            if together(call, found.dims, each.array.shape) != found.dims:
                call.refuse(f"a constant of shape {list(each.array.shape)} makes {list(found.dims)} larger")
            end = _end(call, found, each)
            found = call.view(_clip(call, found, -math.inf, end) if lowest else _clip(call, found, end, math.inf), found.dims)
    return found


def _end(call: OnnxCall, x: OnnxTensor, given: OnnxConstant) -> Tensor | float:
    """Return a constant as one number, which may be infinite, or as one per element of a sample."""
    flat = given.array.reshape(-1)
    return float(flat[0]) if flat.size and bool((flat == flat[0]).all()) else call.constant_of_sample(x, given, "the constant")


@reads("ReduceMax", operator="largest")
def largest(call: OnnxCall, x: Any, axes: Any = None) -> OnnxTensor:
    """Convert the maximum over axes of one sample."""
    return reduced(call, x, axes, 18, activations.largest)


@reads("ReduceMin", operator="smallest")
def smallest(call: OnnxCall, x: Any, axes: Any = None) -> OnnxTensor:
    """Convert the minimum over axes of one sample."""
    return reduced(call, x, axes, 18, activations.smallest)


def _clip(call: OnnxCall, x: Any, low: Tensor | float, high: Tensor | float) -> OnnxTensor:
    ends = [torch.as_tensor(end, dtype=torch.float64) for end in (low, high)]
    if bool((ends[0] >= FLOAT32_MAX).any()) or bool((ends[1] <= -FLOAT32_MAX).any()):
        call.refuse(f"it clips to [{low}, {high}]; expected low < infinity and high > -infinity")
    bounded = (torch.where(ends[0] > -FLOAT32_MAX, ends[0], -torch.inf), torch.where(ends[1] < FLOAT32_MAX, ends[1], torch.inf))
    return activations.clip(call, call.value(x), *bounded)
