"""Torch's linear and arithmetic operators; see `mipnet.readers.torch_call`, and `mipnet.readers.operators` for what they are read as."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from mipnet.readers.conversion import Value
from mipnet.readers.operators import arithmetic, dense
from mipnet.readers.operators.dense import ConvolutionForm, NormStatistics
from mipnet.readers.torch_call import TorchCall, reads

# Affine layers with weights


@reads("aten.linear.default", operator="linear")
def linear(call: TorchCall, x: Value, weight: Any, bias: Any = None) -> Value:
    """Convert ``W x + b`` along the last axis."""
    return dense.linear(call, call.value(x), call.array(weight, "the weight"), _bias(call, bias))


@reads("aten.matmul.default", "aten.mm.default", "aten.bmm.default", "aten.mv.default", operator="linear")
def matmul(call: TorchCall, x: Any, weight: Any) -> Value:
    """Convert ``x @ W`` and ``W @ x`` for a constant W; refuses two factors that depend on the input."""
    if isinstance(x, Value) and isinstance(weight, Value):
        call.refuse("it multiplies two values that depend on the input, which is not linear")
    right = isinstance(x, Value)
    value = call.value(x if right else weight)
    matrix = call.array(weight if right else x, "the second factor" if right else "the first factor")
    if matrix.ndim == 3 and torch.equal(matrix, matrix[:1].expand_as(matrix)):
        matrix = matrix[0]
    if right and matrix.ndim <= 2 and call.rank > 1:
        found = dense.linear(call, value, matrix.T if matrix.ndim == 2 else matrix[None], None)
        return call.reshape(found, call.shape)
    if not right and matrix.ndim == 2 and len(value.shape) > 1:
        return dense.linear(call, value, matrix, None, -2)
    return product(call)


@reads("aten.addmm.default", operator="linear")
def addmm(call: TorchCall, bias: Any, x: Value, weight: Any, beta: float = 1, alpha: float = 1) -> Value:
    """Convert ``beta b + alpha x @ W``."""
    shift, matrix = call.array(bias, "the shift") * beta, call.array(weight, "the second factor") * alpha
    return dense.linear(call, call.value(x), matrix.T, shift.expand(matrix.shape[1]))


@reads("aten.einsum.default", "aten.baddbmm.default", operator="by_columns")
@reads("aten.upsample_bicubic2d.default", "aten.upsample_bicubic2d.vec", operator="by_columns")
@reads("aten.col2im.default", "aten.conv_transpose3d.input", operator="by_columns")
def product(call: TorchCall, *given: Any) -> Value:
    """Convert an affine operator of one value and constants, column by column."""
    found = {
        each for argument in given for each in (argument if isinstance(argument, list | tuple) else (argument,)) if isinstance(each, Value)
    }
    found = found or {each for each in (call.values.get(node) for node in call.node.all_input_nodes) if isinstance(each, Value)}
    if len(found) != 1:
        call.refuse("it multiplies two values that depend on the input, which is not linear")
    (value,) = found
    (source,) = {tuple(node.meta["val"].shape) for node in call.node.all_input_nodes if call.values[node] == value}

    def function(x: Tensor) -> Tensor:
        """Return the operator on a batch, in parts of as many samples as the graph has."""
        parts = []
        for part in torch.split(x, call.samples):
            padded = torch.cat([part, part.new_zeros(call.samples - len(part), *part.shape[1:])]).reshape(call.samples, *source[1:])
            parts.append(call.evaluate(partial(_the, padded), lambda constant: constant, {})[: len(part)])
        return torch.cat(parts).reshape(len(x), *call.shape)

    return dense.by_columns(call, value, function)


@reads("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", operator="convolution")
def convolution(
    call: TorchCall, x: Value, weight: Any, bias: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Value:
    """Convert a convolution with equal padding on opposite sides."""
    axes = call.rank - 2
    sides = [(n, n) for n in per_axis(padding, axes)]
    return _convolution(call, x, weight, bias, ConvolutionForm(per_axis(stride, axes), sides, per_axis(dilation, axes), groups))


@reads("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding", operator="convolution")
def padded_convolution(
    call: TorchCall, x: Value, weight: Any, bias: Any, stride: Any = 1, padding: str = "valid", dilation: Any = 1, groups: int = 1
) -> Value:
    """Convert a convolution with padding by name: 'same' pads the odd element of an even kernel at the end, 'valid' does not pad."""
    gaps, sides = per_axis(dilation, call.rank - 2), [(0, 0)] * (call.rank - 2)
    if padding == "same":
        totals = [gap * (size - 1) for gap, size in zip(gaps, call.array(weight, "the weight").shape[2:], strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    return _convolution(call, x, weight, bias, ConvolutionForm(per_axis(stride, call.rank - 2), sides, gaps, groups))


def _convolution(call: TorchCall, x: Value, weight: Any, bias: Any, form: ConvolutionForm) -> Value:
    return dense.convolution(call, call.value(x), call.array(weight, "the weight"), _bias(call, bias), form)


@reads("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", operator="transposed_convolution")
def transposed_convolution(call: TorchCall, x: Value, weight: Any, bias: Any, *settings: Any) -> Value:
    """Convert a transposed convolution; ``settings`` are stride, padding, output padding, groups and dilation."""
    axes = call.rank - 2
    stride, padding, more, groups, dilation = settings
    cut = [(n, n - longer) for n, longer in zip(per_axis(padding, axes), per_axis(more, axes), strict=True)]
    form = ConvolutionForm(per_axis(stride, axes), cut, per_axis(dilation, axes), groups)
    return dense.transposed_convolution(call, call.value(x), call.array(weight, "the weight"), _bias(call, bias), form)


def _the(tensor: Tensor, _: Value) -> Tensor:
    return tensor


def per_axis(given: Any, axes: int) -> list[int]:
    """Return an argument of a window as one number per axis."""
    numbers = [given] if isinstance(given, int) else [int(n) for n in given]
    return numbers * axes if len(numbers) == 1 else numbers


def _bias(call: TorchCall, given: Any) -> Tensor | None:
    return None if given is None else call.array(given, "the bias")


@reads("aten.batch_norm.default", operator="batch_norm")
def batch_norm(call: TorchCall, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *settings: Any) -> Value:
    """Convert a batch norm with running statistics; ``settings`` are the momentum, epsilon and whether cuDNN is used."""
    if training or mean is None or variance is None:
        call.refuse("it normalises by the batch's own statistics; expected running statistics (eval mode, track_running_stats=True)")
    return running_norm(call, x, weight, bias, mean, variance, *settings[:2])


@reads("aten._native_batch_norm_legit_no_training.default", operator="batch_norm")
def running_norm(call: TorchCall, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float) -> Value:
    """Convert ``gamma (x - mean) / sqrt(variance + eps) + beta``."""
    gamma = None if weight is None else call.array(weight, "the weight")
    beta = None if bias is None else call.array(bias, "the bias")
    norm = NormStatistics(gamma, beta, call.array(mean, "the running mean"), call.array(variance, "the running variance"))
    return dense.batch_norm(call, call.value(x), norm, eps)


@reads("aten.instance_norm.default", operator="batch_norm")
def instance_norm(call: TorchCall, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, own: bool, *settings: Any) -> Value:
    """Convert an instance norm with running statistics; ``settings`` are the momentum, epsilon and whether cuDNN is used."""
    if own or mean is None or variance is None:
        call.refuse("it normalises by the statistics of each sample, which is not linear; replace it by a batch norm")
    return running_norm(call, x, weight, bias, mean, variance, *settings[:2])


# Constants and sums


@reads("aten.add.Tensor", "aten.add_.Tensor", "aten.add.Scalar", "aten.add_.Scalar", operator="add")
def add(call: TorchCall, x: Any, y: Any, alpha: float = 1) -> Value:
    """Convert ``x + alpha y``: a sum of two values, or a constant shift."""
    return _sum(call, x, 1.0, y, float(alpha))


@reads("aten.sub.Tensor", "aten.sub_.Tensor", "aten.sub.Scalar", "aten.sub_.Scalar", operator="add")
def subtract(call: TorchCall, x: Any, y: Any, alpha: float = 1) -> Value:
    """Convert ``x - alpha y``."""
    return _sum(call, x, 1.0, y, -float(alpha))


@reads("aten.rsub.Scalar", "aten.rsub.Tensor", operator="add")
def subtract_from(call: TorchCall, x: Any, y: Any, alpha: float = 1) -> Value:
    """Convert ``y - alpha x``."""
    return _sum(call, x, -float(alpha), y, 1.0)


@reads("aten.lerp.Scalar", operator="add")
def lerp(call: TorchCall, x: Any, y: Any, share: float) -> Value:
    """Convert ``(1 - share) x + share y``."""
    return _sum(call, x, 1.0 - float(share), y, float(share))


def _sum(call: TorchCall, x: Any, a: float, y: Any, b: float) -> Value:
    if isinstance(x, Value) and isinstance(y, Value):
        ranks = {node.meta["val"].ndim for node in call.node.all_input_nodes}
        if len(ranks) > 1:
            call.refuse(f"it adds shapes of {min(ranks)} and {max(ranks)} axes; expected the same number of axes")
        return arithmetic.add(call, x, a, y, b)
    one, other = (_part(call, each, "a summand") for each in (x, y))
    found: Value = arithmetic.add(call, one, a, other, b)
    return found


def _part(call: TorchCall, given: Any, what: str) -> Any:
    return given if isinstance(given, Value) else call.constant_of_sample(given, what, _sample_rank(call))


def _sample_rank(call: TorchCall) -> int:
    """Return the number of axes of one sample of the argument that depends on the input."""
    return max(int(node.meta["val"].ndim) for node in call.node.all_input_nodes if isinstance(call.values.get(node), Value)) - 1


@reads("aten.neg.default", "aten.neg_.default", operator="multiply")
def negate(call: TorchCall, x: Value) -> Value:
    """Convert ``-x``."""
    return arithmetic.multiply(call, call.value(x), torch.tensor(-1.0))


@reads("aten.mul.Tensor", "aten.mul_.Tensor", "aten.mul.Scalar", "aten.mul_.Scalar", operator="multiply")
def multiply(call: TorchCall, x: Any, y: Any) -> Value:
    """Convert the product of a value and a constant."""
    if isinstance(x, Value) and isinstance(y, Value):
        call.refuse("it multiplies two values that depend on the input, which is not linear")
    value, factor = (x, y) if isinstance(x, Value) else (y, x)
    return arithmetic.multiply(call, call.value(value), _part(call, factor, "the factor"))


@reads("aten.div.Tensor", "aten.div_.Tensor", "aten.div.Scalar", "aten.div_.Scalar", operator="divide")
def divide(call: TorchCall, x: Any, y: Any) -> Value:
    """Convert the quotient of a value and a constant."""
    if isinstance(y, Value):
        call.refuse("the divisor depends on the network's input; expected a constant")
    return arithmetic.divide(call, call.value(x), _part(call, y, "the divisor"))


@reads("aten.mean.dim", "aten.mean.default", operator="mean")
def mean(call: TorchCall, x: Value, axes: Any = None, keep: bool = False, dtype: Any = None) -> Value:
    """Convert the mean over axes of one sample."""
    return call.reshape(arithmetic.mean(call, x, call.axes(axes), keep=keep), call.shape)


@reads("aten.sum.dim_IntList", "aten.sum.default", operator="total")
def total(call: TorchCall, x: Value, axes: Any = None, keep: bool = False, dtype: Any = None) -> Value:
    """Convert the sum over axes of one sample."""
    return call.reshape(arithmetic.total(call, x, call.axes(axes), keep=keep), call.shape)


@reads("aten.cumsum.default", "aten.cumsum_.default", operator="cumulative_sum")
def cumulative_sum(call: TorchCall, x: Value, axis: int, dtype: Any = None) -> Value:
    """Convert the cumulative sum along an axis."""
    return arithmetic.cumulative_sum(call, x, call.axis(axis))
