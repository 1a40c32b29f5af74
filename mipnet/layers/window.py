"""Sliding windows of convolution and pooling: the input positions that each output position reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from mipnet.arrays import Ints, Mask, Shape
from mipnet.errors import suggest_keywords
from mipnet.errors.expectations import expects
from mipnet.network.graph import require

Pair = tuple[int, int]
"""``(rows, cols)``."""

Sides = tuple[int, int, int, int]
"""``(top, bottom, left, right)``."""


@suggest_keywords
@dataclass(frozen=True)
class Window:
    """A sliding window: sizes as ``(rows, cols)``, ``padding`` as ``(top, bottom, left, right)``.

    With ``ceil`` the last window may reach beyond the padded input, but must start inside the input or its left padding, as in torch.
    """

    kernel: Pair
    stride: Pair
    padding: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = False

    @expects("a shape (channels, rows, cols)")
    def out(self, given: Shape) -> Pair:
        """Return ``(rows, cols)`` of the output for an input of shape ``(channels, rows, cols)``."""
        rows, cols = (self._count(axis, given[axis + 1]) for axis in (0, 1))
        require(rows > 0 and cols > 0, f"a window of {self.kernel} with padding {self.padding} does not fit an input of shape {given}")
        return rows, cols

    def _count(self, axis: int, length: int) -> int:
        before, after = self.padding[2 * axis : 2 * axis + 2]
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        stride = self.stride[axis]
        room = length + before + after - reach
        count = (-(-room // stride) if self.ceil else room // stride) + 1
        if self.ceil and (count - 1) * stride >= length + before:
            count -= 1
        return count

    @expects("a shape (channels, rows, cols)")
    def beyond(self, given: Shape) -> Pair:
        """Return the number of rows and columns by which the last window reaches beyond the padded input (0 without ``ceil``)."""
        ends = []
        for axis, count in enumerate(self.out(given)):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            padded = given[axis + 1] + sum(self.padding[2 * axis : 2 * axis + 2])
            ends.append(max(0, (count - 1) * self.stride[axis] + reach - padded))
        return ends[0], ends[1]

    def pad(self, x: Tensor, value: float) -> Tensor:
        """Return a batch of images with the padding added, and the rows and columns that ``ceil`` needs beyond it."""
        top, bottom, left, right = self.padding
        down, over = self.beyond(tuple(x.shape[1:])) if self.ceil else (0, 0)
        sides = (left, right + over, top, bottom + down)
        return F.pad(x, sides, value=value) if any(sides) else x

    def places(self, given: Shape) -> Ints:
        """Return the positions that each window reads, shape ``(rows * cols, kernel)``: flat in one input channel, -1 for padding."""
        (rows, row_in), (cols, col_in) = (self._axis(axis, given) for axis in (0, 1))
        flat = rows[:, None, :, None] * given[2] + cols[None, :, None, :]
        inside = row_in[:, None, :, None] & col_in[None, :, None, :]
        return np.where(inside, flat, -1).reshape(len(rows) * len(cols), -1)

    def _axis(self, axis: int, given: Shape) -> tuple[Ints, Mask]:
        """Return the positions that each window reads along an axis, and whether they lie inside the input."""
        starts = np.arange(self.out(given)[axis]) * self.stride[axis] - self.padding[2 * axis]
        index = starts[:, None] + np.arange(self.kernel[axis]) * self.dilation[axis]
        return index, (index >= 0) & (index < given[axis + 1])


def window_places(
    lengths: Shape, kernel: Shape, stride: Shape, padding: Sequence[tuple[int, int]], dilation: Shape, *, ceil: bool = False
) -> Ints:
    """Return the positions that windows over any number of axes read, shape ``(positions, kernel)``: flat in C order, -1 for padding.

    ``padding`` is ``(before, after)`` for each axis.  With ``ceil`` the last window may reach beyond the padding, as in `Window`.
    """
    flat, inside = np.zeros((1, 1), dtype=np.int64), np.ones((1, 1), dtype=np.bool_)
    for n, k, step, (before, after), gap in zip(lengths, kernel, stride, padding, dilation, strict=True):
        room = n + before + after - gap * (k - 1) - 1
        count = (-(-room // step) if ceil else room // step) + 1
        count -= int(ceil and (count - 1) * step >= n + before)
        require(count > 0, f"a window of {kernel} with padding {tuple(padding)} does not fit lengths {lengths}")
        index = np.arange(count)[:, None] * step - before + np.arange(k) * gap
        here = (index >= 0) & (index < n)
        shape = (len(flat) * count, flat.shape[1] * k)
        flat = (flat[:, None, :, None] * n + index[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & here[None, :, None, :]).reshape(shape)
    return np.where(inside, flat, -1)


def pair(value: int | Sequence[int]) -> Pair:
    """Return ``(rows, cols)`` from one number for both axes, or from two."""
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[0])) if len(value) == 1 else (int(value[0]), int(value[1]))
