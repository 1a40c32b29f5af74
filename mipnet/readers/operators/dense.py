"""Affine layers with weights: dense layers, convolutions, batch norm, and affine operators read column by column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Csr
from mipnet.errors import NetworkError
from mipnet.layers import AxisDense, BatchNorm, Conv2d, Conv3d, ConvTranspose2d, Dense, Scale, SparseMap
from mipnet.layers.window import Sides, pair
from mipnet.network.graph import size
from mipnet.readers.conversion import AnyValue, ConversionCall
from mipnet.readers.operators.table import operator

COLUMN_INPUTS_MAX = 2**13
"""Largest number of elements of an input whose columns are read one by one."""

COLUMN_ELEMENTS_MAX = 2**22
"""Largest number of elements of the outputs that are computed at once."""

COLUMN_DIFFERENCE_MAX = 1e-9
"""Largest difference between a map that was read by its columns and the operator, relative to the largest output or to 1."""


@operator("Dense for vectors; AxisDense")
def linear(call: ConversionCall[AnyValue], x: AnyValue, weight: Tensor, bias: Tensor | None, axis: int = -1) -> AnyValue:
    """``W x + b`` along an axis, the last one in a linear layer; ``W @ x`` and ``x @ W``."""
    if weight.ndim != 2:
        call.refuse(f"its constant factor has shape {list(weight.shape)}; expected a matrix")
    if len(x.shape) == 1:
        return call.emit(Dense(weight, bias), x)
    return call.emit(AxisDense(weight, bias, axis), x)


class ConvolutionForm(NamedTuple):
    """Stride, ``(before, after)`` padding and dilation per axis, and the number of groups of a convolution.

    Of a transposed convolution, ``padding`` is what is cut off.
    """

    stride: Sequence[int]
    padding: Sequence[tuple[int, int]]
    dilation: Sequence[int]
    groups: int

    @property
    def sides(self) -> Sides:
        """The padding as ``(top, bottom, left, right)``, for two axes."""
        (up, down), (left, right) = self.padding
        return up, down, left, right


@operator("Conv2d, of one row for one axis; Conv3d")
def convolution(call: ConversionCall[AnyValue], x: AnyValue, weight: Tensor, bias: Tensor | None, form: ConvolutionForm) -> AnyValue:
    """A convolution over one, two or three axes."""
    if len(x.shape) == 4 and weight.ndim == 5:
        sides = tuple((int(a), int(b)) for a, b in form.padding)
        stride, dilation = (tuple(int(n) for n in each) for each in (form.stride, form.dilation))
        return call.emit(Conv3d(weight, bias, stride, sides, dilation, form.groups), x)  # type: ignore[arg-type]
    plane, kernel, flat = on_plane(call, x, weight, form)
    layer = Conv2d(kernel, bias, pair(flat.stride), flat.sides, pair(flat.dilation), form.groups)
    return off_plane(call, call.emit(layer, plane), x)


@operator("ConvTranspose2d, of one row for one axis")
def transposed_convolution(
    call: ConversionCall[AnyValue], x: AnyValue, weight: Tensor, bias: Tensor | None, form: ConvolutionForm
) -> AnyValue:
    """A transposed convolution over one or two axes."""
    plane, kernel, flat = on_plane(call, x, weight, form)
    layer = ConvTranspose2d(kernel, bias, pair(flat.stride), flat.sides, pair(flat.dilation), form.groups)
    return off_plane(call, call.emit(layer, plane), x)


class PlaneConvolution(NamedTuple, Generic[AnyValue]):
    """A convolution over rows and columns: its input, kernel and form."""

    x: AnyValue
    kernel: Tensor
    form: ConvolutionForm


def on_plane(call: ConversionCall[AnyValue], x: AnyValue, weight: Tensor, form: ConvolutionForm) -> PlaneConvolution[AnyValue]:
    """Return an input of one axis as one row, its kernel, and the convolution over rows and columns; one of two axes stays."""
    axes = len(x.shape) - 1
    if axes not in (1, 2) or weight.ndim != axes + 2 or min(len(form.stride), len(form.padding), len(form.dilation)) != axes:
        call.refuse(f"its input has shape {list(x.shape)} for one sample and its weight {list(weight.shape)}, which do not fit")
    if axes == 2:
        return PlaneConvolution(x, weight, form)
    row = ConvolutionForm((1, *form.stride), ((0, 0), *form.padding), (1, *form.dilation), form.groups)
    return PlaneConvolution(call.reshape(x, (x.shape[0], 1, x.shape[1])), weight[:, :, None], row)


def off_plane(call: ConversionCall[AnyValue], found: AnyValue, x: AnyValue) -> AnyValue:
    """Return a result ``(channels, rows, columns)`` with as many axes as the input ``x``."""
    return found if len(x.shape) == 3 else call.reshape(found, (found.shape[0], found.shape[2]))


class NormStatistics(NamedTuple):
    """The tensors of a batch norm, one number per channel each; ``gamma`` and ``beta`` are None if the norm is not trained."""

    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor
    variance: Tensor


@operator("BatchNorm; Scale if it is not trained")
def batch_norm(call: ConversionCall[AnyValue], x: AnyValue, norm: NormStatistics, eps: float) -> AnyValue:
    """``gamma (x - mean) / sqrt(variance + eps) + beta`` with running statistics."""
    factor = 1 / torch.sqrt(norm.variance + eps) * (1.0 if norm.gamma is None else norm.gamma)
    shift = (0.0 if norm.beta is None else norm.beta) - factor * norm.mean
    if norm.gamma is None and norm.beta is None:
        over = (-1, *[1] * (len(x.shape) - 1))
        return call.emit(Scale(factor.reshape(over), shift.reshape(over)), x)
    return call.emit(BatchNorm(factor, shift), x)


@operator("SparseMap")
def by_columns(call: ConversionCall[AnyValue], x: AnyValue, function: Callable[[Tensor], Tensor]) -> AnyValue:
    """Other affine operators with constants: products with batches of matrices, sums of overlapping windows, cubic resampling.

    ``function`` is the operator itself on a batch.  Column k of the matrix is its value at the k-th unit vector minus that at 0; the map is
    compared with the operator at random inputs.
    """
    count = size(x.shape)
    if count > COLUMN_INPUTS_MAX:
        call.refuse(f"its input has {count:,} elements; mipnet reads this operator for at most {COLUMN_INPUTS_MAX:,}")
    shift = function(torch.zeros(1, *x.shape, dtype=torch.float64))[0]
    step = max(1, COLUMN_ELEMENTS_MAX // max(1, shift.numel()))
    rows, columns, entries = [], [], []
    for start in range(0, count, step):
        unit = torch.zeros(min(step, count - start), count, dtype=torch.float64)
        unit[torch.arange(len(unit)), start + torch.arange(len(unit))] = 1.0
        part = (function(unit.reshape(len(unit), *x.shape)) - shift).flatten(1)
        column, row = part.nonzero(as_tuple=True)
        rows.append(row)
        columns.append(column + start)
        entries.append(part[column, row])
    at = (torch.cat(entries).numpy(), (torch.cat(rows).numpy(), torch.cat(columns).numpy()))
    layer = SparseMap.of(Csr(at, shape=(shift.numel(), count)), shift)
    _check_map(call, layer, x, function)
    return call.emit(layer, x)


def _check_map(call: ConversionCall[AnyValue], layer: SparseMap, x: AnyValue, function: Callable[[Tensor], Tensor]) -> None:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(5, *x.shape)) * 10)
    wanted, found = function(points), layer.forward(points)
    error = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1.0))
    if not error <= COLUMN_DIFFERENCE_MAX:
        raise NetworkError(f"the map that was read from an operator differs from it by {error:.1e}, relatively; it is not affine")
