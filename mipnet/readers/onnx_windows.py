"""ONNX's convolutions, pools and resampling, with all forms of padding; see `mipnet.readers.onnx_call` and `mipnet.readers.operators`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mipnet.arrays import Shape
from mipnet.readers.onnx_call import OnnxCall, OnnxTensor, reads
from mipnet.readers.operators import dense, resampling, shapes, windows
from mipnet.readers.operators.dense import ConvolutionForm
from mipnet.readers.operators.windows import WindowForm


@reads("Conv", operator="convolution")
def conv(call: OnnxCall, x: Any, weight: Any, bias: Any = None) -> OnnxTensor:
    """Convert a convolution over one to three axes."""
    x, kernel = call.value(x), call.array(weight, "the weight")
    shift = None if bias is None else call.array(bias, "the bias")
    form = window_form(call, x, _kernel_of(call, x, kernel))
    found = dense.convolution(call, x, kernel, shift, ConvolutionForm(form.stride, form.padding, form.dilation, _groups(call, kernel)))
    return call.view(found, x.dims_of(found.shape))


@reads("ConvTranspose", operator="transposed_convolution")
def conv_transpose(call: OnnxCall, x: Any, weight: Any, bias: Any = None) -> OnnxTensor:
    """Convert a transposed convolution over one or two axes."""
    x, kernel = call.value(x), call.array(weight, "the weight")
    shift = None if bias is None else call.array(bias, "the bias")
    sizes = _kernel_of(call, x, kernel)
    auto, shape = str(call.get("auto_pad", "NOTSET") or "NOTSET"), call.get("output_shape")
    if auto not in ("NOTSET", "VALID") or shape is not None:
        call.refuse(f"its auto_pad is {auto} and its output_shape {shape}; expected pads and output_padding")
    form = window_form(call, x, sizes)
    longer = [int(n) for n in call.get("output_padding", [0] * len(sizes))]
    cut = [(before, after - more) for (before, after), more in zip(form.padding, longer, strict=True)]
    groups = int(call.get("group", 1))
    if groups < 1 or kernel.shape[0] % groups:
        call.refuse(f"{kernel.shape[0]} input channels do not divide into {groups} groups")
    found = dense.transposed_convolution(call, x, kernel, shift, ConvolutionForm(form.stride, cut, form.dilation, groups))
    return call.view(found, x.dims_of(found.shape))


def _kernel_of(call: OnnxCall, x: OnnxTensor, kernel: torch.Tensor) -> Shape:
    if kernel.ndim != len(x.dims):
        call.refuse(f"its input has shape {list(x.dims)} and its weight {list(kernel.shape)}; expected the same number of axes")
    sizes = tuple(int(n) for n in kernel.shape[2:])
    if tuple(call.get("kernel_shape", sizes)) != sizes:
        call.refuse(f"its kernel_shape is {call.get('kernel_shape')} and its weight has shape {list(kernel.shape)}")
    return sizes


def _groups(call: OnnxCall, kernel: torch.Tensor) -> int:
    groups = int(call.get("group", 1))
    if groups < 1 or kernel.shape[0] % groups:
        call.refuse(f"{kernel.shape[0]} output channels do not divide into {groups} groups")
    return groups


def window_form(call: OnnxCall, x: OnnxTensor, kernel: Shape) -> WindowForm:
    """Return the windows of an operator over the axes after samples and channels."""
    axes = len(x.dims) - 2
    if axes not in (1, 2, 3) or x.dims[0] != 1:
        call.refuse(f"its input has shape {list(x.dims)}; expected (1, channels, rows, columns), one axis less or one more")
    if len(kernel) != axes or min(kernel) < 1:
        call.refuse(f"its kernel has shape {list(kernel)} and its input {list(x.dims)}; expected {axes} positive sizes")
    strides, dilations = (tuple(int(n) for n in call.get(name, [1] * axes)) for name in ("strides", "dilations"))
    if len(strides) != axes or len(dilations) != axes or min(strides + dilations) < 1:
        call.refuse(f"its strides are {list(strides)} and its dilations {list(dilations)}; expected {axes} positive numbers each")
    return WindowForm(kernel, strides, _sides(call, x.dims[2:], kernel, strides, dilations), dilations)


def _sides(call: OnnxCall, lengths: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> list[tuple[int, int]]:
    """Return the padding as ``(begin, end)`` per axis, in order, from `pads` or `auto_pad`."""
    axes, auto = len(lengths), str(call.get("auto_pad", "NOTSET") or "NOTSET")
    given = [int(n) for n in call.get("pads", [0] * 2 * axes)]
    if len(given) != 2 * axes or min(given) < 0 or (auto != "NOTSET" and any(given)):
        call.refuse(f"its pads are {given} and its auto_pad is {auto}; expected {2 * axes} numbers of at least 0, or an auto_pad")
    sides = [(given[axis], given[axis + axes]) for axis in range(axes)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for axis, (n, k, step, wide) in enumerate(zip(lengths, kernel, strides, dilations, strict=True)):
            total = max(0, (-(-n // step) - 1) * step + (k - 1) * wide + 1 - n)
            small, large = total // 2, total - total // 2
            sides[axis] = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto not in ("NOTSET", "VALID"):
        call.refuse(f"its auto_pad is {auto}; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    return sides


@reads("MaxPool", operator="max_pool")
def max_pool(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert max pooling; the order of its indices has no effect, since no operator that mipnet has reads them."""
    call.flag("storage_order")
    found = windows.max_pool(call, x, _pool_form(call, x))
    return call.view(found, x.dims_of(found.shape))


@reads("AveragePool", operator="average_pool")
def average_pool(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert average pooling, with or without the padding in the count."""
    form = _pool_form(call, x)
    if any(gap != 1 for gap in form.dilation):
        call.refuse(f"its dilations are {call.get('dilations')}; mipnet reads averages over windows without gaps")
    found = windows.average_pool(call, x, form, count_padding=call.flag("count_include_pad"))
    return call.view(found, x.dims_of(found.shape))


def _pool_form(call: OnnxCall, x: Any) -> WindowForm:
    form = window_form(call, call.value(x), tuple(int(n) for n in call.get("kernel_shape", ())))
    auto, gaps = str(call.get("auto_pad", "")), list(form.dilation)
    if any(gap != 1 for gap in gaps) and auto.startswith("SAME"):
        call.refuse(f"its dilations are {gaps} and its auto_pad is {auto}, which runtimes read in different ways; expected pads")
    if any(max(sides) >= size for sides, size in zip(form.padding, form.kernel, strict=True)):
        pads = [n for sides in form.padding for n in sides]
        call.refuse(f"its pads {pads} are as large as its kernel {list(form.kernel)}; expected smaller ones")
    return form._replace(ceil=call.flag("ceil_mode"))


@reads("GlobalAveragePool", operator="adaptive_average")
def global_average(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert the mean of each channel."""
    window_form(call, call.value(x), (1,) * (len(x.dims) - 2))
    found = windows.adaptive_average(call, x, [1] * (len(x.dims) - 2))
    return call.view(found, x.dims_of(found.shape))


@reads("GlobalMaxPool", operator="max_pool")
def global_max(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert the maximum of each channel."""
    form = window_form(call, call.value(x), tuple(x.dims[2:]))
    found = windows.max_pool(call, x, form)
    return call.view(found, x.dims_of(found.shape))


@reads("Resize", "Upsample", operator="resample")
def resize(call: OnnxCall, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> OnnxTensor:
    """Convert nearest and linear resampling; the region of interest and the cubic coefficients have no part in them."""
    value = call.value(x)
    if call.node.op_type == "Upsample" or call.opset < 11:
        scales = roi if roi is not None else call.get("scales")
    old, mode = call.opset < 11, str(call.get("mode", "nearest"))
    place = str(call.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel"))
    rounding = str(call.get("nearest_mode", "floor" if old else "round_prefer_floor"))
    _ = call.get("cubic_coeff_a"), call.get("exclude_outside"), call.get("extrapolation_value")
    policy, axes = str(call.get("keep_aspect_ratio_policy", "stretch")), call.get("axes")
    if (
        mode not in ("nearest", "linear")
        or place not in resampling.RESAMPLING_COORDINATES
        or policy != "stretch"
        or axes
        or call.flag("antialias")
    ):
        known = ", ".join(resampling.RESAMPLING_COORDINATES)
        call.refuse(f"its mode is {mode}, its coordinates are {place}; expected nearest or linear resampling by {known}")
    factors = _factors(call, value, scales, sizes)
    if any(factor != 1 for factor, _ in factors[: value.lead]):
        call.refuse("it resamples along the sample axis")
    axes_of_sample = list(zip(value.shape, factors[value.lead :], strict=True))
    if mode == "linear":
        matrices = [torch.from_numpy(resampling.linear_matrix(n, out, factor, place)) for n, (factor, out) in axes_of_sample]
        return call.view(windows.resample(call, value, matrices), value.dims_of(tuple(len(matrix) for matrix in matrices)))
    index = [resampling.nearest(n, out, factor, place, rounding) for n, (factor, out) in axes_of_sample]
    places = torch.from_numpy(np.arange(int(np.prod(value.shape))).reshape(value.shape)[np.ix_(*index)])
    return call.view(shapes.copies(call, [value], places, torch.tensor(0.0)), value.dims_of(tuple(places.shape)))


def _factors(call: OnnxCall, x: OnnxTensor, scales: Any, sizes: Any) -> Sequence[tuple[float, int]]:
    """Return the factor and the new length of every axis."""
    if sizes is not None:
        lengths = call.integers(sizes, "its sizes")
        return [(m / n, m) for n, m in zip(x.dims, lengths, strict=True)]
    given = scales if isinstance(scales, list | tuple) else call.array(scales, "its scales").tolist()
    if len(given) != len(x.dims):
        call.refuse(f"its scales are {list(given)} and its input has shape {list(x.dims)}")
    return [(float(f), int(np.floor(n * f))) for n, f in zip(x.dims, given, strict=True)]
