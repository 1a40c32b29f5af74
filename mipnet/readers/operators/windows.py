"""Pools over one, two or three axes, and resampling; see `mipnet.readers.operators.table`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array, Csr, Ints, Shape
from mipnet.layers import AdaptiveAvgPool2d, AvgPool2d, AxisDense, Maximum, MaxPool2d, SparseMap, Window
from mipnet.layers.pool import adaptive_axis
from mipnet.layers.window import window_places
from mipnet.network.graph import size
from mipnet.readers.conversion import AnyValue, ConversionCall
from mipnet.readers.operators.dense import off_plane
from mipnet.readers.operators.table import operator


class WindowForm(NamedTuple):
    """Kernel, stride, ``(before, after)`` padding and dilation of windows, one entry per axis, and whether their number is rounded up."""

    kernel: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[tuple[int, int]]
    dilation: Sequence[int]
    ceil: bool = False

    @property
    def window(self) -> Window:
        """The window over rows and columns; one of a single axis has one row."""
        lead, none = (1,) * (2 - len(self.kernel)), ((0, 0),) * (2 - len(self.kernel))
        (up, down), (left, right) = (*none, *self.padding)
        kernel, stride, dilation = ((*lead, *(int(n) for n in each)) for each in (self.kernel, self.stride, self.dilation))
        return Window(kernel, stride, (up, down, left, right), dilation, self.ceil)  # type: ignore[arg-type]

    def places(self, lengths: Shape) -> Ints:
        """Return the flat positions that the windows read, -1 for padding."""
        return window_places(lengths, tuple(self.kernel), tuple(self.stride), self.padding, tuple(self.dilation), ceil=self.ceil)

    def counts(self, lengths: Shape) -> Shape:
        """Return the number of windows along each axis."""
        axes = zip(lengths, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(len(window_places((n,), (k,), (s,), (p,), (d,), ceil=self.ceil)) for n, k, s, p, d in axes)


@operator("MaxPool2d, of one row for one axis; Maximum for three axes")
def max_pool(call: ConversionCall[AnyValue], x: AnyValue, form: WindowForm) -> AnyValue:
    """The maximum of each window over one, two or three axes."""
    check_axes(call, x, form)
    if len(form.kernel) < 3:
        return off_plane(call, call.emit(MaxPool2d(form.window), plane(call, x)), x)
    return _maximum(call, x, form.places(x.shape[1:]), form.counts(x.shape[1:]))


@operator("AvgPool2d, of one row for one axis; SparseMap for three axes")
def average_pool(
    call: ConversionCall[AnyValue], x: AnyValue, form: WindowForm, *, count_padding: bool, divisor: float | None = None
) -> AnyValue:
    """The mean of each window over one, two or three axes."""
    check_axes(call, x, form)
    if len(form.kernel) < 3:
        return off_plane(call, call.emit(AvgPool2d(form.window, count_padding, divisor), plane(call, x)), x)
    if form.ceil and count_padding and divisor is None:
        call.refuse("it rounds the number of windows up and counts padding; take `count_include_pad=False` or `ceil_mode=False`")
    places, lengths = form.places(x.shape[1:]), x.shape[1:]
    counts = (places >= 0).sum(axis=1) if not count_padding else np.full(len(places), math.prod(form.kernel))
    return _channelwise(call, x, places, 1.0 / (counts if divisor is None else np.full(len(places), divisor)), form.counts(lengths))


@operator("AdaptiveAvgPool2d, of one row for one axis; AxisDense for three axes")
def adaptive_average(call: ConversionCall[AnyValue], x: AnyValue, out: Sequence[int | None]) -> AnyValue:
    """Means over windows that divide each axis into ``out`` parts."""
    sizes = [n if size is None else int(size) for n, size in zip(x.shape[-len(out) :], out, strict=True)]
    if len(out) < 3 and len(x.shape) == len(out) + 1:
        rows = (1,) * (2 - len(out))
        return off_plane(call, call.emit(AdaptiveAvgPool2d((*rows, *sizes)), plane(call, x)), x)  # type: ignore[arg-type]
    matrices = [adaptive_axis(n, m).toarray() for n, m in zip(x.shape[-len(out) :], sizes, strict=True)]
    return resample(call, x, [torch.from_numpy(each) for each in matrices])


@operator("Maximum")
def adaptive_maximum(call: ConversionCall[AnyValue], x: AnyValue, out: Sequence[int | None]) -> AnyValue:
    """Maxima over windows that divide each axis into ``out`` parts."""
    lengths = x.shape[-len(out) :]
    sizes = tuple(n if size is None else int(size) for n, size in zip(lengths, out, strict=True))
    flat, inside = np.zeros((1, 1), dtype=np.int64), np.ones((1, 1), dtype=np.bool_)
    for n, m in zip(lengths, sizes, strict=True):
        start, end = np.arange(m) * n // m, -(-(np.arange(1, m + 1) * n) // m)
        index = start[:, None] + np.arange(int((end - start).max()))
        shape = (len(flat) * m, flat.shape[1] * index.shape[1])
        inside = (inside[:, None, :, None] & (index < end[:, None])[None, :, None, :]).reshape(shape)
        flat = (flat[:, None, :, None] * n + index[None, :, None, :]).reshape(shape)
    return _maximum(call, x, np.where(inside, flat, -1), sizes)


@operator("AxisDense along each axis")
def resample(call: ConversionCall[AnyValue], x: AnyValue, matrices: Sequence[Tensor]) -> AnyValue:
    """Linear resampling of the last axes, such as bilinear upsampling: one matrix ``(new length, length)`` per axis."""
    value, first = x, len(x.shape) - len(matrices)
    for place, matrix in enumerate(matrices):
        if not torch.equal(matrix, torch.eye(*matrix.shape, dtype=matrix.dtype)):
            value = call.emit(AxisDense(matrix, None, first + place, trained=False), value)
    return value


def check_axes(call: ConversionCall[AnyValue], x: AnyValue, form: WindowForm) -> None:
    """Refuse windows over another number of axes than the input has after its channels."""
    if len(x.shape) != len(form.kernel) + 1:
        call.refuse(f"its input has shape {list(x.shape)} for one sample; expected channels and {len(form.kernel)} more axes")


def plane(call: ConversionCall[AnyValue], x: AnyValue) -> AnyValue:
    """Return an input of one axis as one row."""
    return x if len(x.shape) == 3 else call.reshape(x, (x.shape[0], 1, x.shape[1]))


def _every_channel(places: Ints, channels: int, elements: int) -> Ints:
    """Return the places in all channels, shape ``(channels, positions, kernel)``."""
    return np.where(places >= 0, np.arange(channels)[:, None, None] * elements + places, -1)


def _maximum(call: ConversionCall[AnyValue], x: AnyValue, places: Ints, counts: Shape) -> AnyValue:
    channels, elements = size(x.shape[: -len(counts)]), size(x.shape[-len(counts) :])
    everywhere = _every_channel(places, channels, elements)
    return call.emit(Maximum(torch.from_numpy(everywhere.reshape(*x.shape[: -len(counts)], *counts, places.shape[1]))), x)


def _channelwise(call: ConversionCall[AnyValue], x: AnyValue, places: Ints, weights: Array, counts: Shape) -> AnyValue:
    """Convert weighted sums over windows of each channel."""
    everywhere = _every_channel(places, x.shape[0], size(x.shape[1:])).reshape(-1, places.shape[1])
    inside = everywhere >= 0
    starts = np.append(0, np.cumsum(inside.sum(axis=1)))
    entries = np.repeat(np.tile(weights, x.shape[0]), inside.sum(axis=1))
    shift = torch.zeros(x.shape[0], *counts, dtype=torch.float64)
    return call.emit(SparseMap.of(Csr((entries, everywhere[inside], starts), shape=(len(everywhere), size(x.shape))), shift), x)
