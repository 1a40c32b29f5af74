"""What ONNX's linear, arithmetic and activation operators mean in mipnet's layers; see `mipnet.readers.onnx_call`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from mipnet.arrays import Shape
from mipnet.layers import Add, Dense, ReLU, Scale
from mipnet.readers.lowering import lower_clip, lower_leaky, lower_norm
from mipnet.readers.onnx_call import FLOATS, Call, Constant, Tensor, attributes_of, one_sample, reads

LARGEST = 3.4028234e38
"""Ends of a range of this size or beyond are infinite: they are the largest float32, written out."""


# Affine layers with weights


@reads("Gemm")
def gemm(call: Call, a: Any, b: Any, c: Any = None) -> Tensor:
    """``alpha a' @ b' + beta c``, of which one factor is constant; a prime is a transpose if asked for."""
    alpha, beta = float(call.get("alpha", 1.0)), float(call.get("beta", 1.0))
    flipped = call.flag("transA"), call.flag("transB")
    x = a if isinstance(a, Tensor) else call.value(b, "both factors")
    weight = call.array(b if isinstance(a, Tensor) else a, "the second factor" if isinstance(a, Tensor) else "the first factor") * alpha
    shift = None if c is None else call.array(c, "the shift") * beta
    if len(x.dims) != 2:
        call.refuse(f"its input has shape {list(x.dims)}; expected (1, inputs)")
    if isinstance(a, Tensor):
        dims = x.dims[::-1] if flipped[0] else x.dims
        return _affine(call, x, dims, weight if flipped[1] else weight.T, shift, row=True)
    dims = x.dims[::-1] if flipped[1] else x.dims
    return _affine(call, x, dims, weight.T if flipped[0] else weight, shift, row=False)


@reads("MatMul")
def matmul(call: Call, a: Any, b: Any) -> Tensor:
    """``x @ W`` for one row, or ``W @ x`` for one column; a constant that is added next, and to nothing else, is the layer's bias."""
    row = isinstance(a, Tensor)
    x = a if row else call.value(b, "both factors")
    weight = call.array(b if row else a, "the second factor" if row else "the first factor")
    if weight.ndim != 2:
        call.refuse(f"it multiplies shapes {list(x.dims)} and {list(weight.shape)}; expected one vector a sample and a matrix of constants")
    shift = _added_next(call, len(x.dims), int(weight.shape[1])) if row else None
    return _affine(call, x, x.dims, weight.T if row else weight, shift, row=row)


def _affine(call: Call, x: Tensor, dims: Shape, weight: torch.Tensor, shift: torch.Tensor | None, *, row: bool) -> Tensor:
    """``W x + b`` for a vector x that the graph holds as a row, or as a column, of ``dims``."""
    if weight.ndim != 2:
        call.refuse(f"its constant factor has shape {list(weight.shape)}; expected a matrix")
    outputs, inputs = weight.shape
    along = -1 if row or len(dims) == 1 else -2
    if dims[along] != inputs or math.prod(dims) != inputs:
        call.refuse(
            f"its input has shape {list(dims)} and its constant {list(weight.shape if not row else weight.shape[::-1])};"
            " expected one vector a sample: flatten before it, and export for one sample or for any number of them"
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


def _added_next(call: Call, rank: int, width: int) -> torch.Tensor | None:
    """The constant vector that the only reader of the result adds to it, or subtracts; that reader is done then."""
    reading, out = call.reading, call.node.output[0]
    reader = reading.sole_reader(out)
    if reader is None or reader.op_type not in ("Add", "Sub") or reader.domain not in ("", "ai.onnx") or attributes_of(reader):
        return None
    other = reading.values.get(next((name for name in reader.input if name != out), ""))
    if not isinstance(other, Constant) or other.array.ndim > rank or other.array.shape[-1:] not in ((), (1,), (width,)):
        return None
    if other.array.size not in (1, width):
        return None
    if reader.op_type == "Sub" and reader.input[0] != out:
        return None
    reading.fuse(call.node, reader)
    call.paths |= other.paths
    return call.array(other, "the shift") * (-1 if reader.op_type == "Sub" else 1)


@reads("BatchNormalization")
def batch_norm(call: Call, x: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> Tensor:
    """``scale (x - mean) / sqrt(variance + epsilon) + shift`` for each channel; the momentum concerns training alone."""
    call.get("momentum")
    if call.flag("training_mode") or not call.flag("spatial", True) or any(call.node.output[1:]):
        call.refuse("it normalises by the batch's own statistics, or by position; expected running statistics of each channel")
    value = call.value(x)
    if len(value.dims) < 2 or value.dims[0] != 1:
        call.refuse(f"its input has shape {list(value.dims)}; expected (1, channels, ...)")
    names = ("the scale", "the shift", "the mean", "the variance")
    gamma, beta, middle, spread = (call.array(each, name) for each, name in zip((scale, shift, mean, variance), names, strict=True))
    if any(each.shape != (value.dims[1],) for each in (gamma, beta, middle, spread)):
        shapes = [list(each.shape) for each in (gamma, beta, middle, spread)]
        call.refuse(f"its statistics have shapes {shapes}; expected {[value.dims[1]]}")
    eps = float(call.get("epsilon", 1e-5))
    if not bool((spread + eps > 0).all()):
        call.refuse(f"its smallest variance is {float(spread.min())}, and epsilon {eps}; expected a positive sum")
    return lower_norm(call, value, gamma, beta, middle, spread, eps)


# Constants and sums


@reads("Add")
def add(call: Call, x: Any, y: Any) -> Tensor:
    """``x + y``."""
    return _sum(call, x, 1.0, y, 1.0)


@reads("Sub")
def subtract(call: Call, x: Any, y: Any) -> Tensor:
    """``x - y``."""
    return _sum(call, x, 1.0, y, -1.0)


@reads("Sum")
def total(call: Call, first: Any, *rest: Any) -> Tensor:
    """``x + y + ...``."""
    parts = [*(each for each in (first, *rest) if isinstance(each, Tensor)), *(e for e in (first, *rest) if not isinstance(e, Tensor))]
    found = call.value(parts[0])
    for part in parts[1:]:
        found = _sum(call, found, 1.0, part, 1.0)
    return found


@reads("Neg")
def negate(call: Call, x: Any) -> Tensor:
    """``-x``."""
    return call.emit(Scale(torch.tensor(-1.0), torch.tensor(0.0)), x)


@reads("Mul")
def multiply(call: Call, x: Any, y: Any) -> Tensor:
    """``x`` times a constant."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        call.refuse("it multiplies two values that depend on the network input, which is not linear")
    value, factor = (x, y) if isinstance(x, Tensor) else (y, x)
    return _scale(call, value, call.array(factor, "the factor"), torch.zeros(()))


@reads("Div")
def divide(call: Call, x: Any, y: Any) -> Tensor:
    """``x`` divided by a constant."""
    divisor = call.array(y, "the divisor")
    if (divisor == 0).any():
        call.refuse("it divides by 0")
    return _scale(call, call.value(x), 1 / divisor, torch.zeros(()))


def _sum(call: Call, x: Any, a: float, y: Any, b: float) -> Tensor:
    """``a x + b y``, where one of the two may be a constant."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        dims = _together(call, x.dims, y.dims)
        wide = [each if each.dims == dims else _scale(call, each, torch.ones(dims), torch.zeros(())) for each in (x, y)]
        return call.emit(Add((a, b)), *wide)
    value, factor, shift, times = (x, a, y, b) if isinstance(x, Tensor) else (y, b, x, a)
    return _scale(call, value, torch.tensor(factor), call.array(shift, "a summand") * times)


def _scale(call: Call, x: Tensor, factor: torch.Tensor, shift: torch.Tensor) -> Tensor:
    dims = _together(call, x.dims, tuple(np.broadcast_shapes(factor.shape, shift.shape)))
    if dims == x.dims and bool((factor == 1).all()) and bool((shift == 0).all()):
        return x
    shape = one_sample(dims)
    thin = [each.reshape(each.shape[max(0, each.ndim - len(shape)) :]) for each in (factor, shift)]
    return call.emit(Scale(*thin), x, dims=dims)


def _together(call: Call, one: Shape, other: Shape) -> Shape:
    """The shape of a result that broadcasts two; the sample axis must keep its length of 1."""
    try:
        dims = tuple(int(n) for n in np.broadcast_shapes(one, other))
    except ValueError:
        call.refuse(f"shapes {list(one)} and {list(other)} do not fit together")
    if len(dims) == len(one) > 1 and one[0] == 1 != dims[0]:
        call.refuse(f"shape {list(other)} differs from sample to sample; expected a first axis of length 1")
    return dims


# Activations


@reads("Relu")
def relu(call: Call, x: Any) -> Tensor:
    """``max(x, 0)``."""
    return call.emit(ReLU(), x)


@reads("LeakyRelu")
def leaky_relu(call: Call, x: Any) -> Tensor:
    """``x`` for x > 0, ``alpha x`` else."""
    return lower_leaky(call, call.value(x), float(call.get("alpha", 0.01)))


@reads("PRelu")
def prelu(call: Call, x: Any, slope: Any) -> Tensor:
    """A leaky ReLU whose slope was trained."""
    return lower_leaky(call, call.value(x), call.number(slope, "the slope", 0.0))


@reads("Clip")
def clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Tensor:
    """``min(max(x, low), high)``; either end may be missing.  Before opset 11 the ends are attributes."""
    if call.opset < 11:
        return _clip(call, x, float(call.get("min", -math.inf)), float(call.get("max", math.inf)))
    return _clip(call, x, call.number(low, "the lower end", -math.inf), call.number(high, "the upper end", math.inf))


@reads("Max")
def maximum(call: Call, *given: Any) -> Tensor:
    """``max(x, constant)``."""
    x, end = _against(call, given)
    return _clip(call, x, end, math.inf)


@reads("Min")
def minimum(call: Call, *given: Any) -> Tensor:
    """``min(x, constant)``."""
    x, end = _against(call, given)
    return _clip(call, x, -math.inf, end)


def _against(call: Call, given: tuple[Any, ...]) -> tuple[Tensor, float]:
    values = [each for each in given if isinstance(each, Tensor)]
    ends = [each for each in given if isinstance(each, Constant)]
    if len(given) != 2 or len(values) != 1 or len(ends) != 1:
        call.refuse("it compares several values that depend on the network input; expected one of them and one constant")
    if _together(call, values[0].dims, ends[0].array.shape) != values[0].dims:
        call.refuse(f"a constant of shape {list(ends[0].array.shape)} makes {list(values[0].dims)} larger")
    return values[0], call.number(ends[0], "the constant", 0.0)


def _clip(call: Call, x: Any, low: float, high: float) -> Tensor:
    if low >= LARGEST or high <= -LARGEST:
        call.refuse(f"it clips to [{low}, {high}]; expected ends between which a number may lie")
    return lower_clip(call, call.value(x), low if low > -LARGEST else -math.inf, high if high < LARGEST else math.inf)


@reads("Cast")
def cast(call: Call, x: Any) -> Tensor:
    """The input, if it is cast to floating-point numbers: mipnet reads all of them in float64."""
    call.get("saturate"), call.get("round_mode")
    if call.get("to") not in FLOATS:
        call.refuse(f"it casts to type {call.get('to')} of ONNX; expected floating-point numbers ({', '.join(map(str, FLOATS))})")
    return call.view(x, x.dims)
