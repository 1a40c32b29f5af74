"""Operators of torch that its exporter to ONNX writes wrongly, or in a form that mipnet does not read, written as convolutions and pools.

`adaptive_avg_pool2d` becomes an average pool if its windows are equal, else one convolution over the flat positions of all channels.
torch's exporter ignores the divisor of `avg_pool2d`, which becomes a convolution with one kernel for every channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mipnet.layers import AvgPool2d
from mipnet.layers.pool import adaptive_axis
from mipnet.layers.window import Pair, Window, pair
from mipnet.network.graph import Network

aten = torch.ops.aten


def onnx_translations(network: Network) -> dict[Any, Callable[..., Any]]:
    """Return the table of translations for `torch.onnx.export` of a module with this network."""
    found: dict[Any, Callable[..., Any]] = {
        aten.adaptive_avg_pool2d.default: adaptive_average,
        aten._adaptive_avg_pool2d.default: adaptive_average,
        aten.threshold.default: rectified,
    }
    if any(isinstance(node.layer, AvgPool2d) and node.layer.divisor is not None for node in network.nodes):
        found[aten.avg_pool2d.default] = average
    return found


def adaptive_average(x: Any, output_size: Sequence[int]) -> Any:
    """Write `adaptive_avg_pool2d` for an input of known channels, rows and columns."""
    op = _operators()
    channels, *sides = (int(n) for n in x.shape[1:])
    out = pair([int(n) for n in output_size])
    if out == (1, 1):
        return op.GlobalAveragePool(x)
    windows = [equal_windows(length, count) for length, count in zip(sides, out, strict=True)]
    if all(windows):
        kernel, stride = zip(*windows, strict=True)
        return op.AveragePool(x, kernel_shape=kernel, strides=stride)
    weight = np.kron(*(adaptive_axis(length, count).toarray() for length, count in zip(sides, out, strict=True)))
    flat = op.Transpose(op.Reshape(x, op.Constant(value_ints=[0, channels, sides[0] * sides[1]])), perm=[0, 2, 1])
    means = op.Transpose(op.Conv(flat, _constant(weight[:, :, None], x)), perm=[0, 2, 1])  # the positions are its channels
    return op.Reshape(means, op.Constant(value_ints=[0, channels, *out]))


def equal_windows(length: int, count: int) -> Pair | None:
    """Return the kernel and the stride along an axis if all windows of an adaptive pool have the same ones, else None."""
    inside = adaptive_axis(length, count).toarray() > 0
    kernel, first = inside.sum(axis=1), inside.argmax(axis=1)
    steps = set(np.diff(first).tolist()) or {1}
    return (int(kernel[0]), steps.pop()) if len(set(kernel.tolist())) == len(steps) == 1 else None


def average(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Write `avg_pool2d`: with a divisor as a convolution of each channel."""
    op = _operators()
    kernel, (rows, cols) = pair(list(kernel_size)), pair(list(padding))
    step = pair(list(stride)) if stride else kernel
    if divisor_override is None:
        pads, counted = (rows, cols, rows, cols), int(count_include_pad)
        return op.AveragePool(x, kernel_shape=kernel, strides=step, pads=pads, ceil_mode=int(ceil_mode), count_include_pad=counted)
    given = tuple(int(n) for n in x.shape[1:])
    down, over = Window(kernel, step, (rows, rows, cols, cols), ceil=ceil_mode).beyond(given) if ceil_mode else (0, 0)
    weight = _constant(np.full((given[0], 1, *kernel), 1.0 / divisor_override), x)
    return op.Conv(x, weight, group=given[0], strides=step, pads=(rows, cols, rows + down, cols + over))


def rectified(x: Any, limit: float, value: float) -> Any:
    """Write `threshold` with limit and value 0, the only one that mipnet reads."""
    return _operators().Relu(x)


def _constant(values: NDArray[np.float64], like: Any) -> Any:
    """Return a constant in the number type of a value of the graph."""
    from onnx import numpy_helper

    return _operators().Constant(value=numpy_helper.from_array(values.astype(like.dtype.numpy())))


def _operators() -> Any:
    """Return the operators of ONNX as functions of values of the graph that is being written."""
    from onnxscript import opset18

    return opset18
