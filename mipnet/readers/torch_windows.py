"""Torch's pools and resampling; see `mipnet.readers.torch_call`, and `mipnet.readers.operators.windows` for their layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mipnet.readers.conversion import Value
from mipnet.readers.operators import windows
from mipnet.readers.operators.windows import WindowForm
from mipnet.readers.torch_call import TorchCall, reads
from mipnet.readers.torch_ops import per_axis


@reads("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default", operator="max_pool")
def max_pool(call: TorchCall, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False) -> Value:
    """Convert max pooling."""
    return windows.max_pool(call, x, _form(call, kernel, stride, padding, dilation, ceil))


@reads("aten.max_pool2d_with_indices.default", "aten.max_pool3d_with_indices.default", operator="max_pool")
@reads("aten.max_pool1d_with_indices.default", operator="max_pool")
def max_pool_and_places(call: TorchCall, *given: Any) -> list[Value | None]:
    """Convert max pooling; the places of the maxima are not read."""
    return [max_pool(call, *given), None]


@reads("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default", operator="average_pool")
def average_pool(
    call: TorchCall, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, count: bool = True, divisor: Any = None
) -> Value:
    """Convert average pooling."""
    return windows.average_pool(call, x, _form(call, kernel, stride, padding, 1, ceil), count_padding=count, divisor=divisor)


def _form(call: TorchCall, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> WindowForm:
    axes = call.rank - 2
    sizes, steps = per_axis(kernel, axes), per_axis(stride, axes) if stride else per_axis(kernel, axes)
    return WindowForm(sizes, steps, [(n, n) for n in per_axis(padding, axes)], per_axis(dilation, axes), bool(ceil))


@reads("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", operator="adaptive_average")
@reads("aten._adaptive_avg_pool2d.default", "aten.adaptive_avg_pool3d.default", operator="adaptive_average")
@reads("aten._adaptive_avg_pool3d.default", operator="adaptive_average")
def adaptive_average(call: TorchCall, x: Value, out: Any) -> Value:
    """Convert adaptive average pooling."""
    return windows.adaptive_average(call, x, per_axis(out, call.rank - 2))


@reads("aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default", operator="adaptive_maximum")
@reads("aten.adaptive_max_pool3d.default", operator="adaptive_maximum")
def adaptive_maximum(call: TorchCall, x: Value, out: Any) -> list[Value | None]:
    """Convert adaptive max pooling; the places of the maxima are not read."""
    return [windows.adaptive_maximum(call, x, per_axis(out, call.rank - 2)), None]


@reads("aten.upsample_linear1d.default", "aten.upsample_bilinear2d.default", operator="resample")
@reads("aten.upsample_trilinear3d.default", operator="resample")
def upsample(call: TorchCall, x: Value, out: Any, corners: bool, *scales: Any) -> Value:
    """Convert linear resampling of the last axes."""
    lengths = x.shape[-len(out) :]
    factors = (*scales, *[None] * len(lengths))[: len(lengths)]
    return windows.resample(call, x, [_along(n, int(m), corners, f) for n, m, f in zip(lengths, out, factors, strict=True)])


@reads("aten.upsample_linear1d.vec", "aten.upsample_bilinear2d.vec", "aten.upsample_trilinear3d.vec", operator="resample")
def upsample_by(call: TorchCall, x: Value, out: Any, corners: bool, scales: Any) -> Value:
    """Convert linear resampling of the last axes to a size, or by factors."""
    return upsample(call, x, out if out is not None else call.shape[1:], corners, *(() if scales is None else scales))


def _along(length: int, out: int, corners: bool, factor: float | None) -> Tensor:
    """Return the matrix of linear resampling along one axis: torch's own operator on unit vectors."""
    units = torch.eye(length, dtype=torch.float64)[None]
    found: Tensor = torch.ops.aten.upsample_linear1d.default(units, [out], corners, factor)
    return found[0].T.contiguous()
