"""ONNX's linear and arithmetic operators; see `mipnet.readers.onnx_call`, and `mipnet.readers.operators` for what they are read as."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mipnet.arrays import Shape
from mipnet.readers.onnx_call import ONNX_FLOAT_TYPES, OnnxCall, OnnxConstant, OnnxTensor, attributes_of, axes_of, reads, together
from mipnet.readers.operators import arithmetic, dense, shapes
from mipnet.readers.operators.dense import NormStatistics

# Affine layers with weights


@reads("Gemm", operator="linear")
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


@reads("MatMul", operator="linear")
def matmul(call: OnnxCall, a: Any, b: Any) -> OnnxTensor:
    """Convert ``x @ W`` or ``W @ x`` for a constant W; a constant that the only consumer adds becomes the layer's bias."""
    row = isinstance(a, OnnxTensor)
    x = a if row else call.value(b, "both factors")
    weight = call.array(b if row else a, "the second factor" if row else "the first factor")
    while weight.ndim > 2 and weight.shape[0] == 1 and weight.ndim <= len(x.dims):
        weight = weight[0]
    if weight.ndim > 2 or (weight.ndim == 1 and not row):
        return _batched(call, x, weight, row=row)
    vector = weight.ndim == 1
    weight = weight[:, None] if vector else weight
    shift = _added_next(call, len(x.dims), int(weight.shape[1])) if row and not vector else None
    found = _affine(call, x, x.dims, weight.T if row else weight, shift, row=row)
    return call.view(found, found.dims[:-1]) if vector else found


def _batched(call: OnnxCall, x: OnnxTensor, weight: Tensor, *, row: bool) -> OnnxTensor:
    """Convert the product with a batch of matrices, column by column."""
    pair = (torch.zeros(x.dims, dtype=torch.float64), weight)
    try:
        dims = tuple(int(n) for n in torch.matmul(*(pair if row else pair[::-1])).shape)
    except RuntimeError:
        call.refuse(f"it multiplies shapes {list(x.dims)} and {list(weight.shape)}, which do not fit together")

    def function(given: Tensor) -> Tensor:
        parts = [each.reshape(x.dims) for each in given]
        return torch.stack([(part @ weight if row else weight @ part).reshape(dims[x.lead :]) for part in parts])

    return call.view(dense.by_columns(call, x, function), dims)


@reads("Einsum", operator="by_columns")
def einsum(call: OnnxCall, *given: Any) -> OnnxTensor:
    """Convert a sum of products of one value and constants."""
    (x,) = [each for each in given if isinstance(each, OnnxTensor)] if sum(isinstance(each, OnnxTensor) for each in given) == 1 else [None]
    if x is None:
        call.refuse("it multiplies two values that depend on the network input, which is not linear")
    equation = str(call.get("equation"))
    constants = [None if each is x else call.array(each, "a factor") for each in given]

    def once(part: Tensor) -> Tensor:
        return torch.einsum(equation, *(part if each is None else each for each in constants))

    dims = tuple(int(n) for n in once(torch.zeros(x.dims, dtype=torch.float64)).shape)

    def function(batch: Tensor) -> Tensor:
        return torch.stack([once(part.reshape(x.dims)).reshape(dims[x.lead :]) for part in batch])

    return call.view(dense.by_columns(call, x, function), dims)


def _affine(call: OnnxCall, x: OnnxTensor, dims: Shape, weight: Tensor, shift: Tensor | None, *, row: bool) -> OnnxTensor:
    """Convert ``W x + b`` for values that the graph holds as rows or as columns of shape ``dims``."""
    if weight.ndim != 2:
        call.refuse(f"its constant factor has shape {list(weight.shape)}; expected a matrix")
    outputs, inputs = weight.shape
    along = -1 if row or len(dims) == 1 else -2
    several = math.prod(dims) != inputs
    if dims[along] != inputs or (several and (dims != x.dims or (len(call.graph.dims) > 1 and call.graph.dims[0] != 1))):
        call.refuse(
            f"its input has shape {list(dims)} and its constant {list(weight.shape if not row else weight.shape[::-1])};"
            " expected one vector per sample: flatten before it, and export for one sample or for any number of them"
        )
    after = list(dims)
    after[along] = outputs
    if shift is not None:
        try:
            shift = shift.broadcast_to(after)
        except RuntimeError:
            call.refuse(f"its shift has shape {list(shift.shape)}; expected one that fits {after}")
        spread = shift.movedim(along, -1).reshape(-1, outputs)
        if not torch.equal(spread, spread[:1].expand_as(spread)):
            return call.view(
                arithmetic.add(call, _affine(call, x, dims, weight, None, row=row), 1.0, shift[(0,) * x.lead], 1.0), tuple(after)
            )
        shift = spread[0]
    if several:
        return call.view(dense.linear(call, x, weight, shift, along), tuple(after))
    flat = call.view(x, (1, inputs))
    return call.view(dense.linear(call, flat, weight, shift), tuple(after))


def _added_next(call: OnnxCall, rank: int, width: int) -> Tensor | None:
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


@reads("BatchNormalization", operator="batch_norm")
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
    sizes = [list(each.shape) for each in norm if each is not None]
    if any(shape != [value.dims[1]] for shape in sizes):
        call.refuse(f"its statistics have shapes {sizes}; expected {[value.dims[1]]}")
    eps = float(call.get("epsilon", 1e-5))
    if not bool((norm.variance + eps > 0).all()):
        call.refuse(f"its smallest variance is {float(norm.variance.min())}, and epsilon {eps}; expected a positive sum")
    return dense.batch_norm(call, value, norm, eps)


# Constants and sums


@reads("Add", operator="add")
def add(call: OnnxCall, x: Any, y: Any) -> OnnxTensor:
    """Convert ``x + y``."""
    return _sum(call, x, 1.0, y, 1.0)


@reads("Sub", operator="add")
def subtract(call: OnnxCall, x: Any, y: Any) -> OnnxTensor:
    """Convert ``x - y``."""
    return _sum(call, x, 1.0, y, -1.0)


@reads("Sum", operator="add")
def add_all(call: OnnxCall, first: Any, *rest: Any) -> OnnxTensor:
    """Convert ``x + y + ...``."""
    parts = sorted((first, *rest), key=lambda each: not isinstance(each, OnnxTensor))
    found = call.value(parts[0])
    for part in parts[1:]:
        found = _sum(call, found, 1.0, part, 1.0)
    return found


@reads("Mean", operator="add")
def mean_of_all(call: OnnxCall, *given: Any) -> OnnxTensor:
    """Convert ``(x + y + ...) / n``."""
    found = add_all(call, *given)
    return arithmetic.multiply(call, found, torch.tensor(1 / len(given), dtype=torch.float64))


@reads("Neg", operator="multiply")
def negate(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert ``-x``."""
    return arithmetic.multiply(call, call.value(x), torch.tensor(-1.0))


@reads("Mul", operator="multiply")
def multiply(call: OnnxCall, x: Any, y: Any) -> OnnxTensor:
    """Convert the product of a value and a constant."""
    if isinstance(x, OnnxTensor) and isinstance(y, OnnxTensor):
        call.refuse("it multiplies two values that depend on the network input, which is not linear")
    value, factor = (x, y) if isinstance(x, OnnxTensor) else (y, x)
    dims = together(call, value.dims, tuple(call.array(factor, "the factor").shape))
    return call.view(arithmetic.multiply(call, value, call.constant_of_sample(value, factor, "the factor")), dims)


@reads("Div", operator="divide")
def divide(call: OnnxCall, x: Any, y: Any) -> OnnxTensor:
    """Convert the quotient of a value and a constant."""
    divisor = call.array(y, "the divisor")
    value = call.value(x)
    dims = together(call, value.dims, tuple(divisor.shape))
    return call.view(arithmetic.divide(call, value, call.constant_of_sample(value, y, "the divisor")), dims)


def _sum(call: OnnxCall, x: Any, a: float, y: Any, b: float) -> OnnxTensor:
    """Convert ``a x + b y``, where one of the two may be a constant."""
    if isinstance(x, OnnxTensor) and isinstance(y, OnnxTensor):
        dims = together(call, x.dims, y.dims)
        return call.view(arithmetic.add(call, x, a, y, b), dims)
    value, factor, shift, times = (x, a, y, b) if isinstance(x, OnnxTensor) else (y, b, x, a)
    dims = together(call, value.dims, tuple(call.array(shift, "a summand").shape))
    return call.view(arithmetic.add(call, value, factor, call.constant_of_sample(value, shift, "a summand"), times), dims)


@reads("ReduceMean", operator="mean")
def mean(call: OnnxCall, x: Any, axes: Any = None) -> OnnxTensor:
    """Convert the mean over axes of one sample."""
    return reduced(call, x, axes, 18, arithmetic.mean)


@reads("ReduceSum", operator="total")
def total(call: OnnxCall, x: Any, axes: Any = None) -> OnnxTensor:
    """Convert the sum over axes of one sample."""
    return reduced(call, x, axes, 13, arithmetic.total)


def reduced(call: OnnxCall, x: Any, axes: Any, opset: int, rule: Any) -> OnnxTensor:
    """Convert an operator over axes, which are an input from version ``opset`` on."""
    value, keep = call.value(x), call.flag("keepdims", True)
    given = axes_of(call, axes, opset)
    if call.flag("noop_with_empty_axes") and not given:
        return value
    if not given and value.lead:
        call.refuse(f"it acts on {list(value.dims)} over axes all; the first axis numbers the samples")
    over = call.axes(value, given) if given else list(range(len(value.shape)))
    found: OnnxTensor = rule(call, value, over, keep=keep)
    sizes = [1 if axis in over else n for axis, n in enumerate(value.shape) if keep or axis not in over]
    return call.view(found, value.dims_of(tuple(sizes)) or (1,))


@reads("CumSum", operator="cumulative_sum")
def cumulative_sum(call: OnnxCall, x: Any, axis: Any) -> OnnxTensor:
    """Convert the cumulative sum along an axis, also backwards or without the element itself."""
    value = call.value(x)
    (place,) = call.axes(value, call.integers(axis, "the axis"))
    found = arithmetic.cumulative_sum(call, value, place, exclusive=call.flag("exclusive"), backwards=call.flag("reverse"))
    return call.view(found, value.dims)


@reads("Cast", operator="same")
def cast(call: OnnxCall, x: Any) -> OnnxTensor:
    """Return the input of a cast to floating-point numbers: mipnet reads all of them in float64."""
    call.get("saturate"), call.get("round_mode")
    if call.get("to") not in ONNX_FLOAT_TYPES:
        call.refuse(f"it casts to type {call.get('to')} of ONNX; expected floating-point numbers ({', '.join(map(str, ONNX_FLOAT_TYPES))})")
    return shapes.same(call, call.view(x, x.dims))
