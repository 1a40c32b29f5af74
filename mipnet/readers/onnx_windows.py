"""Conversion rules of ONNX's convolutions and pools, with all forms of padding; see `mipnet.readers.onnx_call`."""

from __future__ import annotations

from typing import Any, NamedTuple

from mipnet.arrays import Shape
from mipnet.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, MaxPool2d, Window
from mipnet.layers.window import Pair, Sides
from mipnet.readers.onnx_call import OnnxCall, OnnxTensor, axes_of, reads


@reads("Conv")
def conv(call: OnnxCall, x: Any, weight: Any, bias: Any = None) -> OnnxTensor:
    """Convert a convolution over rows and columns, or over one axis, which is read as a single row."""
    x, kernel = call.value(x), call.array(weight, "the weight")
    shift = None if bias is None else call.array(bias, "the bias")
    if kernel.ndim != len(x.dims):
        call.refuse(f"its input has shape {list(x.dims)} and its weight {list(kernel.shape)}; expected the same number of axes")
    sizes = tuple(int(n) for n in kernel.shape[2:])
    if tuple(call.get("kernel_shape", sizes)) != sizes:
        call.refuse(f"its kernel_shape is {call.get('kernel_shape')} and its weight has shape {list(kernel.shape)}")
    plane, window = planar(call, x, sizes)
    groups = int(call.get("group", 1))
    if groups < 1 or kernel.shape[0] % groups:
        call.refuse(f"{kernel.shape[0]} output channels do not divide into {groups} groups")
    layer = Conv2d(kernel if kernel.ndim == 4 else kernel[:, :, None], shift, window.strides, window.padding, window.dilations, groups)
    return from_plane(call, call.emit(layer, plane), x)


class PlaneWindow(NamedTuple):
    """A window over rows and columns: kernel, strides and dilations as ``(rows, columns)``, padding on all four sides."""

    kernel: Pair
    strides: Pair
    padding: Sides
    dilations: Pair


def planar(call: OnnxCall, x: OnnxTensor, kernel: Shape) -> tuple[OnnxTensor, PlaneWindow]:
    """Return the input as ``(channels, rows, columns)`` and the window over it; a single axis becomes one row."""
    axes = len(x.dims) - 2
    if axes not in (1, 2) or x.dims[0] != 1:
        call.refuse(f"its input has shape {list(x.dims)}; expected (1, channels, rows, columns) or (1, channels, length)")
    if len(kernel) != axes or min(kernel) < 1:
        call.refuse(f"its kernel has shape {list(kernel)} and its input {list(x.dims)}; expected {axes} positive sizes")
    strides, dilations = (tuple(int(n) for n in call.get(name, [1] * axes)) for name in ("strides", "dilations"))
    if len(strides) != axes or len(dilations) != axes or min(strides + dilations) < 1:
        call.refuse(f"its strides are {list(strides)} and its dilations {list(dilations)}; expected {axes} positive numbers each")
    sides = _sides(call, x.dims[2:], kernel, strides, dilations)
    if axes == 2:
        return x, PlaneWindow((kernel[0], kernel[1]), (strides[0], strides[1]), sides, (dilations[0], dilations[1]))
    one = call.view(x, (1, x.dims[1], 1, x.dims[2]))
    return one, PlaneWindow((1, kernel[0]), (1, strides[0]), (0, 0, sides[0], sides[1]), (1, dilations[0]))


def _sides(call: OnnxCall, lengths: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> Sides:
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
    flat = [n for pair in sides for n in pair] + [0, 0]
    return flat[0], flat[1], flat[2], flat[3]


def from_plane(call: OnnxCall, found: OnnxTensor, x: OnnxTensor) -> OnnxTensor:
    """Return a result ``(channels, rows, columns)`` with as many axes as the input ``x``."""
    return found if len(x.dims) == 4 else call.view(found, (1, found.shape[0], found.shape[2]))


@reads("MaxPool")
def max_pool(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert max pooling; the order of its indices has no effect, since no operator that mipnet has reads them."""
    call.flag("storage_order")
    return from_plane(call, call.emit(MaxPool2d(_window(call, x)), planar(call, x, _kernel(call))[0]), x)


@reads("AveragePool")
def average_pool(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert average pooling, with or without the padding in the count."""
    window = _window(call, x)
    if window.dilation != (1, 1):
        call.refuse(f"its dilations are {call.get('dilations')}; mipnet reads averages over windows without gaps")
    layer = AvgPool2d(window, call.flag("count_include_pad"))
    return from_plane(call, call.emit(layer, planar(call, x, _kernel(call))[0]), x)


def _kernel(call: OnnxCall) -> Shape:
    return tuple(int(n) for n in call.get("kernel_shape", ()))


def _window(call: OnnxCall, x: OnnxTensor) -> Window:
    kernel, strides, padding, dilations = planar(call, x, _kernel(call))[1]
    auto, gaps = str(call.get("auto_pad", "")), list(dilations)
    if dilations != (1, 1) and auto.startswith("SAME"):
        call.refuse(f"its dilations are {gaps} and its auto_pad is {auto}, which runtimes read in different ways; expected pads")
    if any(side >= size for side, size in zip(padding, (kernel[0], kernel[0], kernel[1], kernel[1]), strict=True)):
        call.refuse(f"its pads {list(padding)} are as large as its kernel {list(kernel)}; expected smaller ones")
    return Window(kernel, strides, padding, dilations, call.flag("ceil_mode"))


@reads("GlobalAveragePool")
def global_average(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert the mean of each channel."""
    plane, _ = planar(call, x, (1,) * (len(x.dims) - 2))
    return from_plane(call, call.emit(AdaptiveAvgPool2d((1, 1)), plane), x)


@reads("GlobalMaxPool")
def global_max(call: OnnxCall, x: Any) -> OnnxTensor:
    """Convert the maximum of each channel."""
    plane, _ = planar(call, x, (1,) * (len(x.dims) - 2))
    window = Window((plane.shape[1], plane.shape[2]), (1, 1))
    return from_plane(call, call.emit(MaxPool2d(window), plane), x)


@reads("ReduceMean")
def mean(call: OnnxCall, x: Any, axes: Any = None) -> OnnxTensor:
    """Convert the mean over all positions of each channel."""
    value, keep = call.value(x), call.flag("keepdims", True)
    given = axes_of(call, axes, 18)
    if call.flag("noop_with_empty_axes") and not given:
        return value
    rank = len(value.dims)
    if rank not in (3, 4) or sorted(axis % rank for axis in given or range(rank)) != list(range(2, rank)):
        call.refuse(f"it takes the mean of {list(value.dims)} over axes {given or 'all'}; expected all axes after samples and channels")
    found = global_average(call, value)
    return found if keep else call.view(found, found.dims[:2])
