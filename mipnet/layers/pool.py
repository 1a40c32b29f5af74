"""Pooling over two dimensions: maximum, average, adaptive average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from mipnet.arrays import Array, Csr, Ints, Mask, Shape
from mipnet.bounds.interval import Interval, interval, monotone, monotone_sum
from mipnet.bounds.linear_rules import BackwardBound, adjoint, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import WINDOWS_PART, Block, Phases
from mipnet.formulations.maxpool import WINDOW_MAXIMUM, MaxWindows
from mipnet.formulations.registry import linear_map
from mipnet.layers.window import Pair, Window
from mipnet.network.graph import Layer, require


@suggest_keywords
@dataclass(frozen=True, eq=False)
class MaxPool2d(Layer):
    """``y = max`` over each window of each channel; padding is never the maximum."""

    window: Window

    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(channels, rows, cols)``."""
        (given,) = inputs
        require(len(given) == 3, f"its input has shape {given}; expected (channels, rows, cols)")
        out = (given[0], *self.window.out(given))
        require((self.window.places(given) >= 0).any(axis=1).all(), "a pooling window lies in the padding entirely")
        return out

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the maxima of a batch."""
        (x,) = inputs
        return F.max_pool2d(self.window.pad(x, -torch.inf), self.window.kernel, self.window.stride, 0, self.window.dilation)


@suggest_keywords
@dataclass(frozen=True, eq=False)
class AvgPool2d(Layer):
    """``y = sum / divisor`` over each window of each channel.

    Without a ``divisor``, it is the number of positions in the window, including padding if ``count_padding`` is True.
    """

    window: Window
    count_padding: bool = True
    divisor: float | None = None

    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(channels, rows, cols)``."""
        (given,) = inputs
        require(len(given) == 3, f"its input has shape {given}; expected (channels, rows, cols)")
        return (given[0], *self.window.out(given))

    def divisors(self, given: Shape) -> Array:
        """Return the divisor of each output position, shape ``(rows, cols)``."""
        out = self.window.out(given)
        if self.divisor is not None:
            return np.full(out, float(self.divisor))
        if self.count_padding:
            top, bottom, left, right = self.window.padding
            padded = (1, given[1] + top + bottom, given[2] + left + right)
            inside = Window(self.window.kernel, self.window.stride, ceil=self.window.ceil)._axis  # on the padded plane
            sizes = [inside(axis, padded)[1].sum(axis=1)[: out[axis]] for axis in (0, 1)]
            return np.asarray(np.outer(*sizes), dtype=np.float64)
        return np.asarray((self.window.places(given) >= 0).sum(axis=1).reshape(out), dtype=np.float64)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the averages of a batch."""
        (x,) = inputs
        total = F.avg_pool2d(self.window.pad(x, 0.0), self.window.kernel, self.window.stride, divisor_override=1)
        return total / torch.from_numpy(self.divisors(tuple(x.shape[1:]))).to(x.dtype)


@suggest_keywords
@dataclass(frozen=True, eq=False)
class AdaptiveAvgPool2d(Layer):
    """Averages over windows ``floor(i n / out) .. ceil((i+1) n / out)``; the output has ``out`` rows and columns."""

    out: Pair

    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(channels, *out)``."""
        (given,) = inputs
        require(len(given) == 3, f"its input has shape {given}; expected (channels, rows, cols)")
        return (given[0], *self.out)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the averages of a batch."""
        return F.adaptive_avg_pool2d(inputs[0], self.out)


interval.register(MaxPool2d)(monotone)
for kind in (AvgPool2d, AdaptiveAvgPool2d):
    interval.register(kind)(monotone_sum)
    backward.register(kind)(adjoint)


@backward.register(MaxPool2d)
def _(layer: MaxPool2d, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Bound the maximum of each window from below by the candidate with the largest lower bound, and from above by a plane.

    With t the largest lower bound, the plane is ``t + sum a_i (x_i - l_i)`` with ``a_i = (u_i - t) / (u_i - l_i)`` over the candidates
    with u_i > t.  It is one of the planes of Boopathy et al., "CNN-Cert" (AAAI 2019), where t may be larger.  Where the constant
    ``max u`` is lower than the plane at the centre of the box, it is used instead.
    """
    given = tuple(int(n) for n in x.lower.shape[1:])
    places = torch.tensor(layer.window.places(given))
    lower, upper = (torch.where(places >= 0, end.flatten(2)[:, :, places], -torch.inf) for end in (x.lower, x.upper))
    level, winner = lower.max(-1, keepdim=True)
    rising = upper > level
    slope = torch.where(rising, (upper - level) / torch.where(rising, upper - lower, 1.0), 0.0)
    top = upper.amax(-1, keepdim=True)
    slope = torch.where(torch.where(rising, upper - level, 0.0).sum(-1, keepdim=True) / 2 < top - level, slope, 0.0)
    shift = torch.where(
        (slope > 0).any(-1, keepdim=True), level - (slope * torch.where(places >= 0, lower, 0.0)).sum(-1, keepdim=True), top
    )
    one = torch.zeros_like(lower).scatter_(-1, winner, 1.0)
    certain = ~(rising & (one == 0)).any(-1, keepdim=True)  # no other candidate can be larger than the winner
    slope, shift = torch.where(certain, one, slope), torch.where(certain, 0.0, shift)
    c = coefficients.flatten(2)[..., None]
    above = c.clamp(max=0)
    flat = coefficients.new_zeros(*coefficients.shape[:2], given[1] * given[2])
    flat = flat.index_add(2, places.clamp(min=0).flatten(), (c.clamp(min=0) * one + above * slope).flatten(2))
    return (flat.reshape(len(coefficients), *given),), (above * shift).flatten(1).sum(1)


@linear_map.register(AvgPool2d)
def _(layer: AvgPool2d, *shapes: Shape) -> tuple[Csr, ...]:
    (given,) = shapes
    places = layer.window.places(given)
    inside = places >= 0
    indptr = np.append(0, np.cumsum(inside.sum(axis=1)))
    data = np.repeat(1.0 / layer.divisors(given).reshape(-1), inside.sum(axis=1))
    plane = Csr((data, places[inside], indptr), shape=(len(places), given[1] * given[2]))
    return (_every_channel(plane, given[0]),)


@linear_map.register(AdaptiveAvgPool2d)
def _(layer: AdaptiveAvgPool2d, *shapes: Shape) -> tuple[Csr, ...]:
    (given,) = shapes
    rows, cols = (adaptive_axis(given[axis + 1], layer.out[axis]) for axis in (0, 1))
    return (_every_channel(Csr(sparse.kron(rows, cols, format="csr")), given[0]),)


def adaptive_axis(length: int, out: int) -> Csr:
    """Return the averages along one axis, a matrix of shape ``(out, length)``."""
    start, end = np.arange(out) * length // out, -(-(np.arange(1, out + 1) * length) // out)
    inside = (np.arange(length) >= start[:, None]) & (np.arange(length) < end[:, None])
    return Csr(inside / inside.sum(axis=1, keepdims=True))


def _every_channel(plane: Csr, channels: int) -> Csr:
    return Csr(sparse.kron(sparse.eye_array(channels), plane, format="csr"))


@WINDOW_MAXIMUM.encodes(MaxPool2d)
def encode_max(layer: MaxPool2d, block: Block, x: Affine) -> Affine:
    """Write the maximum of each window as `MaxWindows`, with the formulation of the block.

    A candidate that is never larger than another one (u_i <= l_j) is left out.  The value of a window with one candidate is the candidate.
    """
    candidates, keep, lower, upper = kept_candidates(layer, *block.finite())
    dropped, single = (candidates >= 0) & ~keep, keep.sum(axis=-1) == 1
    block.notes.phases[WINDOWS_PART] = Phases(int(single.sum()), 0, int((~single).sum()))
    value = x[candidates[keep & single[..., None]]].place(single)
    if not single.all():
        keep &= ~single[..., None]
        maxima = block.write_with(WINDOW_MAXIMUM, MaxWindows(block, x[candidates[keep]], keep, lower, upper))
        value = value + maxima.reshape(*single.shape)
    value = value.reshape(*block.shape)
    if block.bounds.paper:
        _add_winner_rows(block, x, value, candidates, dropped)
    return value


class Candidates(NamedTuple):
    """The candidates of all windows, shape ``(sample, channel, position, kernel)``.

    ``places`` are their flat positions in the input, -1 for padding; ``keep`` marks those that can be the largest; ``lower`` and ``upper``
    are their bounds.
    """

    places: Ints
    keep: Mask
    lower: Array
    upper: Array


def kept_candidates(layer: MaxPool2d, lower: Array, upper: Array) -> Candidates:
    """Return the candidates of all windows, given bounds of the input, ``(sample, channels, rows, cols)``.

    A candidate can be the largest unless another one is always at least as large (u_i <= l_j).
    """
    samples, *given = lower.shape
    places = layer.window.places(tuple(given))
    planes = np.arange(samples * given[0]) * (given[1] * given[2])
    flat = np.where(places >= 0, planes[:, None, None] + places, -1).reshape(samples, given[0], *places.shape)
    low, high = (np.where(flat >= 0, end.reshape(-1)[flat], -np.inf) for end in (lower, upper))
    best = low.argmax(axis=-1)[..., None]
    keep = (flat >= 0) & (high > np.take_along_axis(low, best, -1))
    np.put_along_axis(keep, best, True, axis=-1)
    return Candidates(flat, keep, low, high)


def _add_winner_rows(block: Block, x: Affine, value: Affine, candidates: Ints, dropped: Mask) -> None:
    """Add rows ``p >= h_i`` for the candidates that were left out; the published bounds are not valid for every gate value."""
    window = np.broadcast_to(np.arange(value.constant.size).reshape(*dropped.shape[:-1], 1), dropped.shape)[dropped]
    difference = value[window] - x[candidates[dropped]]
    block.rows("stays_ahead", difference[difference.row_sizes > 0], ">=")
