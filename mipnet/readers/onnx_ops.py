"""Conversion rules of ONNX's linear, arithmetic and activation operators; see `mipnet.readers.onnx_call`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from mipnet.arrays import Shape
from mipnet.layers import Add, Dense, ReLU, Scale
from mipnet.readers.conversion import NormStatistics, convert_batch_norm, convert_clip, convert_leaky_relu
from mipnet.readers.onnx_call import ONNX_FLOAT_TYPES, OnnxCall, OnnxConstant, OnnxTensor, attributes_of, one_sample, reads

FLOAT32_MAX = 3.4028234e38
"""The largest float32, as exporters write it.  An end of a range whose absolute value is this large counts as infinite."""


# Affine layers with weights


@reads("Gemm")
def gemm(call: OnnxCall, a: Any, b: Any, c: Any = None) -> OnnxTensor:
    """Convert ``alpha a' @ b' + beta c`` with one constant factor, where a prime is a transpose if the node says so."""
    alpha, beta = float(call.get("alpha", 1.0)), float(call.get("beta", 1.0))
    flipped = call.flag("transA"), call.flag("transB")
    x = a if isinstance(a, OnnxTensor) else call.value(b, "both factors")
    weight = (
        call.array(b if isinstance(a, OnnxTensor) else a, "the second factor" if isinstance(a, OnnxTensor) else "the first factor") * alpha
    )
    shift = None if c is None else call.array(c, "the shift") * beta
    if len(x.dims) != 2:
        call.refuse(f"its input has shape {list(x.dims)}; expected (1, inputs)")
    if isinstance(a, OnnxTensor):
        dims = x.dims[::-1] if flipped[0] else x.dims
        return _affine(call, x, dims, weight if flipped[1] else weight.T, shift, row=True)
    dims = x.dims[::-1] if flipped[1] else x.dims
    return _affine(call, x, dims, weight.T if flipped[0] else weight, shift, row=False)


@reads("MatMul")
def matmul(call: OnnxCall, a: Any, b: Any) -> OnnxTensor:
    """Convert ``x @ W`` for one row, or ``W @ x`` for one column; a constant that the only consumer adds becomes the layer's bias."""
    row = isinstance(a, OnnxTensor)
    x = a if row else call.value(b, "both factors")
    weight = call.array(b if row else a, "the second factor" if row else "the first factor")
    if weight.ndim != 2:
        call.refuse(
            f"it multiplies shapes {list(x.dims)} and {list(weight.shape)}; expected one vector per sample and a matrix of constants"
        )
    shift = _added_next(call, len(x.dims), int(weight.shape[1])) if row else None
    return _affine(call, x, x.dims, weight.T if row else weight, shift, row=row)


def _affine(call: OnnxCall, x: OnnxTensor, dims: Shape, weight: torch.Tensor, shift: torch.Tensor | None, *, row: bool) -> OnnxTensor:
    """Convert ``W x + b`` for a vector x that the graph holds as a row or as a column of shape ``dims``."""
    if weight.ndim != 2:
        call.refuse(f"its constant factor has shape {list(weight.shape)}; expected a matrix")
    outputs, inputs = weight.shape
    along = -1 if row or len(dims) == 1 else -2
    if dims[along] != inputs or math.prod(dims) != inputs:
        call.refuse(
            f"its input has shape {list(dims)} and its constant {list(weight.shape if not row else weight.shape[::-1])};"
            " expected one vector per sample: flatten before it, and export for one sample or for any number of them"
        )
    after = list(dims)
    after[along] = outputs
    if shift is not None:
        try:
            shift = shift.broadcast_to(after).reshape(outputs)
        except RuntimeError:
            call.refuse(f"its shift has shape {list(shift.shape)}; expected one that fits {after}")
    flat = call.view(x, (1, inputs))
    return call.view(call.emit(Dense(weight, shift), flat), tuple(after))


def _added_next(call: OnnxCall, rank: int, width: int) -> torch.Tensor | None:
    """Return the constant that the only consumer of the result adds or subtracts, and fuse that consumer; None if there is none."""
    graph, out = call.graph, call.node.output[0]
    consumer = graph.sole_consumer(out)
    if consumer is None or consumer.op_type not in ("Add", "Sub") or consumer.domain not in ("", "ai.onnx") or attributes_of(consumer):
        return None
    other = graph.values.get(next((name for name in consumer.input if name != out), ""))
    if not isinstance(other, OnnxConstant) or other.array.ndim > rank or other.array.shape[-1:] not in ((), (1,), (width,)):
        return None
    if other.array.size not in (1, width):
        return None
    if consumer.op_type == "Sub" and consumer.input[0] != out:
        return None
    graph.fuse(call.node, consumer)
    call.paths |= other.paths
    return call.array(other, "the shift") * (-1 if consumer.op_type == "Sub" else 1)


@reads("BatchNormalization")
def batch_norm(call: OnnxCall, x: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> OnnxTensor:
    """Convert ``scale (x - mean) / sqrt(variance + epsilon) + shift`` per channel; the momentum is used in training only."""
    call.get("momentum")
    if call.flag("training_mode") or not call.flag("spatial", True) or any(call.node.output[1:]):
        call.refuse("it normalises by the batch's own statistics, or by position; expected running statistics of each channel")
    value = call.value(x)
    if len(value.dims) < 2 or value.dims[0] != 1:
        call.refuse(f"its input has shape {list(value.dims)}; expected (1, channels, ...)")
    norm = NormStatistics(
        call.array(scale, "the scale"), call.array(shift, "the shift"), call.array(mean, "the mean"), call.array(variance, "the variance")
    )
    shapes = [list(each.shape) for each in norm if each is not None]
    if any(shape != [value.dims[1]] for shape in shapes):
        call.refuse(f"its statistics have shapes {shapes}; expected {[value.dims[1]]}")
    eps = float(call.get("epsilon", 1e-5))
    if not bool((norm.variance + eps > 0).all()):
        call.refuse(f"its smallest variance is {float(norm.variance.min())}, and epsilon {eps}; expected a positive sum")
    return convert_batch_norm(call, value, norm, eps)


# Constants and sums


@reads("Add")
def add(call: OnnxCall, x: Any, y: Any) -> OnnxTensor:
    """Convert ``x + y``."""
    return _sum(call, x, 1.0, y, 1.0)


@reads("Sub")
def subtract(call: OnnxCall, x: Any, y: Any) -> OnnxTensor:
    """Convert ``x - y``."""
    return _sum(call, x, 1.0, y, -1.0)


@reads("Sum")
def total(call: OnnxCall, first: Any, *rest: Any) -> OnnxTensor:
    """Convert ``x + y + ...``."""
    parts = [
        *(each for each in (first, *rest) if isinstance(each, OnnxTensor)),
        *(e for e in (first, *rest) if not isinstance(e, OnnxTensor)),
    ]
    found = call.value(parts[0])
    for part in parts[1:]:
        found = _sum(call, found, 1.0, part, 1.0)
    return found


@reads("Neg")
def negate(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``-x``."""
    return call.emit(Scale(torch.tensor(-1.0), torch.tensor(0.0)), x)


@reads("Mul")
def multiply(call: OnnxCall, x: Any, y: Any) -> OnnxTensor:
    """Convert the product of a value and a constant."""
    if isinstance(x, OnnxTensor) and isinstance(y, OnnxTensor):
        call.refuse("it multiplies two values that depend on the network input, which is not linear")
    value, factor = (x, y) if isinstance(x, OnnxTensor) else (y, x)
    return _scale(call, value, call.array(factor, "the factor"), torch.zeros(()))


@reads("Div")
def divide(call: OnnxCall, x: Any, y: Any) -> OnnxTensor:
    """Convert the quotient of a value and a constant."""
    divisor = call.array(y, "the divisor")
    if (divisor == 0).any():
        call.refuse("it divides by 0")
    return _scale(call, call.value(x), 1 / divisor, torch.zeros(()))


def _sum(call: OnnxCall, x: Any, a: float, y: Any, b: float) -> OnnxTensor:
    """Convert ``a x + b y``, where one of the two may be a constant."""
    if isinstance(x, OnnxTensor) and isinstance(y, OnnxTensor):
        dims = _together(call, x.dims, y.dims)
        wide = [each if each.dims == dims else _scale(call, each, torch.ones(dims), torch.zeros(())) for each in (x, y)]
        return call.emit(Add((a, b)), *wide)
    value, factor, shift, times = (x, a, y, b) if isinstance(x, OnnxTensor) else (y, b, x, a)
    return _scale(call, value, torch.tensor(factor), call.array(shift, "a summand") * times)


def _scale(call: OnnxCall, x: OnnxTensor, factor: torch.Tensor, shift: torch.Tensor) -> OnnxTensor:
    dims = _together(call, x.dims, tuple(np.broadcast_shapes(factor.shape, shift.shape)))
    if dims == x.dims and bool((factor == 1).all()) and bool((shift == 0).all()):
        return x
    shape = one_sample(dims)
    thin = [each.reshape(each.shape[max(0, each.ndim - len(shape)) :]) for each in (factor, shift)]
    return call.emit(Scale(*thin), x, dims=dims)


def _together(call: OnnxCall, one: Shape, other: Shape) -> Shape:
    """Return the shape that two shapes broadcast to; the sample axis must keep its length of 1."""
    try:
        dims = tuple(int(n) for n in np.broadcast_shapes(one, other))
    except ValueError:
        call.refuse(f"shapes {list(one)} and {list(other)} do not fit together")
    if len(dims) == len(one) > 1 and one[0] == 1 != dims[0]:
        call.refuse(f"shape {list(other)} differs from sample to sample; expected a first axis of length 1")
    return dims


# Activations


@reads("Relu")
def relu(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``max(x, 0)``."""
    return call.emit(ReLU(), x)


@reads("LeakyRelu")
def leaky_relu(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``x`` for x > 0, ``alpha x`` otherwise."""
    return convert_leaky_relu(call, call.value(x), float(call.get("alpha", 0.01)))


@reads("PRelu")
def prelu(call: OnnxCall, x: Any, slope: Any) -> OnnxTensor:
    """Convert a leaky ReLU with a trained slope."""
    return convert_leaky_relu(call, call.value(x), call.number(slope, "the slope", 0.0))


@reads("Clip")
def clip(call: OnnxCall, x: Any, low: Any = None, high: Any = None) -> OnnxTensor:
    """Convert ``min(max(x, low), high)``; either end may be missing.  Before opset 11 the ends are attributes."""
    if call.opset < 11:
        return _clip(call, x, float(call.get("min", -math.inf)), float(call.get("max", math.inf)))
    return _clip(call, x, call.number(low, "the lower end", -math.inf), call.number(high, "the upper end", math.inf))


@reads("Max")
def maximum(call: OnnxCall, *given: Any) -> OnnxTensor:
    """Convert ``max(x, constant)``."""
    x, end = _value_and_constant(call, given)
    return _clip(call, x, end, math.inf)


@reads("Min")
def minimum(call: OnnxCall, *given: Any) -> OnnxTensor:
    """Convert ``min(x, constant)``."""
    x, end = _value_and_constant(call, given)
    return _clip(call, x, -math.inf, end)


def _value_and_constant(call: OnnxCall, given: tuple[Any, ...]) -> tuple[OnnxTensor, float]:
    values = [each for each in given if isinstance(each, OnnxTensor)]
    ends = [each for each in given if isinstance(each, OnnxConstant)]
    if len(given) != 2 or len(values) != 1 or len(ends) != 1:
        call.refuse("it compares several values that depend on the network input; expected one of them and one constant")
    if _together(call, values[0].dims, ends[0].array.shape) != values[0].dims:
        call.refuse(f"a constant of shape {list(ends[0].array.shape)} makes {list(values[0].dims)} larger")
    return values[0], call.number(ends[0], "the constant", 0.0)


def _clip(call: OnnxCall, x: Any, low: float, high: float) -> OnnxTensor:
    if low >= FLOAT32_MAX or high <= -FLOAT32_MAX:
        call.refuse(f"it clips to [{low}, {high}]; expected low < infinity and high > -infinity")
    return convert_clip(call, call.value(x), low if low > -FLOAT32_MAX else -math.inf, high if high < FLOAT32_MAX else math.inf)


@reads("Cast")
def cast(call: OnnxCall, x: Any) -> OnnxTensor:
    """Return the input of a cast to floating-point numbers: mipnet reads all of them in float64."""
    call.get("saturate"), call.get("round_mode")
    if call.get("to") not in ONNX_FLOAT_TYPES:
        call.refuse(f"it casts to type {call.get('to')} of ONNX; expected floating-point numbers ({', '.join(map(str, ONNX_FLOAT_TYPES))})")
    return call.view(x, x.dims)
