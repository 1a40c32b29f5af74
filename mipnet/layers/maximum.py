"""Maxima over windows of elements: what all of them share, and `Maximum`, whose windows are any elements of the input."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array, Ints, Mask, Shape
from mipnet.bounds.interval import Interval, interval, monotone
from mipnet.bounds.linear_rules import BackwardBound, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import WINDOWS_PART, Block, Phases
from mipnet.formulations.maxpool import WINDOW_MAXIMUM, MaxWindows
from mipnet.layers.gather import check_places
from mipnet.network.graph import Layer, require, size, whole_constant


@dataclass(frozen=True, eq=False)
class WindowMaximum(Layer):
    """Base class of layers whose outputs are the maxima of windows: fixed sets of elements of the input."""

    @abstractmethod
    def candidates(self, given: Shape) -> Ints:
        """Return the flat positions that each window reads, for an input of this shape; -1 for none.

        The shape is ``(groups, positions, kernel)``, where groups and positions together are the elements of the output in C order.
        """


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Maximum(WindowMaximum):
    """``y[k] = max_j x[places[k, j]]``, with x flat in C order.

    ``places`` are whole numbers of shape ``(*shape of one sample of the output, kernel)``; -1 stands for no element.
    """

    places: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", whole_constant(self.places, "the places of a maximum"))
        ok = self.places.ndim > 1 and self.places.numel() > 0
        require(ok, f"its places have shape {tuple(self.places.shape)}; expected (*output, kernel)")
        require(bool((self.places >= 0).any(-1).all()), "one of its windows is empty")

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of ``places`` without the last axis."""
        (given,) = inputs
        check_places(self.places, given)
        return tuple(int(n) for n in self.places.shape[:-1])

    def candidates(self, given: Shape) -> Ints:
        """Return the places, as windows of one group."""
        places: Ints = self.places.numpy().reshape(1, -1, self.places.shape[-1])
        return places

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the maxima of a batch."""
        (x,) = inputs
        return torch.where(self.places >= 0, x.flatten(1)[:, self.places.clamp(min=0)], -torch.inf).amax(-1)

    def weights(self) -> dict[str, Tensor]:
        """Return an empty dictionary, because nothing is trained."""
        return {}


interval.register(WindowMaximum)(monotone)


@backward.register(WindowMaximum)
def _(layer: WindowMaximum, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Bound the maximum of each window from below by the candidate with the largest lower bound, and from above by a plane.

    With t the largest lower bound, the plane is ``t + sum a_i (x_i - l_i)`` with ``a_i = (u_i - t) / (u_i - l_i)`` over the candidates
    with u_i > t.  It is one of the planes of Boopathy et al., "CNN-Cert" (AAAI 2019), where t may be larger.  Where the constant
    ``max u`` is lower than the plane at the centre of the box, it is used instead.
    """
    given = tuple(int(n) for n in x.lower.shape[1:])
    places = torch.tensor(layer.candidates(given))
    lower, upper = (torch.where(places >= 0, end.flatten(1)[:, places.clamp(min=0)], -torch.inf) for end in (x.lower, x.upper))
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
    c = coefficients.reshape(len(coefficients), *places.shape[:-1])[..., None]
    above = c.clamp(max=0)
    flat = coefficients.new_zeros(len(coefficients), size(given))
    flat = flat.index_add(1, places.clamp(min=0).flatten(), (c.clamp(min=0) * one + above * slope).flatten(1))
    return (flat.reshape(len(coefficients), *given),), (above * shift).flatten(1).sum(1)


@WINDOW_MAXIMUM.encodes(Maximum)
def encode_max(layer: WindowMaximum, block: Block, x: Affine) -> Affine:
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
    """The candidates of all windows, shape ``(sample, group, position, kernel)``.

    ``places`` are their flat positions in the input, -1 for padding; ``keep`` marks those that can be the largest; ``lower`` and ``upper``
    are their bounds.
    """

    places: Ints
    keep: Mask
    lower: Array
    upper: Array


def kept_candidates(layer: WindowMaximum, lower: Array, upper: Array) -> Candidates:
    """Return the candidates of all windows, given bounds of the input, ``(sample, *shape)``.

    A candidate can be the largest unless another one is always at least as large (u_i <= l_j).
    """
    samples, *given = lower.shape
    places = layer.candidates(tuple(given))
    starts = np.arange(samples) * size(tuple(given))
    flat = np.where(places >= 0, starts[:, None, None, None] + places, -1)
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
