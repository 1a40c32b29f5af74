"""Gather: some elements of the input in any order and shape, among them constants; padding, slices, copies, flips and the like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Csr, Shape
from mipnet.bounds.interval import Interval, interval, monotone
from mipnet.bounds.linear_rules import BackwardBound, affine, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.network.graph import Layer, constant, require, size, whole_constant


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Gather(Layer):
    """``y[k] = x[places[k]]``, with x flat in C order, and ``y[k] = fill[k]`` where ``places[k]`` is -1.

    ``places`` are whole numbers and have the shape of one sample of the output; an element may occur several times.  ``fill`` is a
    constant that broadcasts to that shape.
    """

    places: Tensor
    fill: Tensor | float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", whole_constant(self.places, "the places of a gather"))
        object.__setattr__(self, "fill", constant(self.fill, "the constants of a gather"))
        shape = tuple(self.places.shape)
        fits = len(fill := self.fill.shape) <= len(shape) and all(n in (1, m) for n, m in zip(fill[::-1], shape[::-1], strict=False))  # type: ignore[union-attr]
        require(fits and self.places.numel(), f"the constants do not broadcast to the shape {shape} of its places")

    @property
    def inside(self) -> Tensor:
        """True where an element of the input is read."""
        return self.places >= 0

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of ``places``."""
        (given,) = inputs
        check_places(self.places, given)
        return tuple(int(n) for n in self.places.shape)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the elements of a batch."""
        (x,) = inputs
        found = x.flatten(1)[:, self.places.clamp(min=0)]
        return found if bool(self.inside.all()) else torch.where(self.inside, found, torch.as_tensor(self.fill, dtype=x.dtype))

    def weights(self) -> dict[str, Tensor]:
        """Return an empty dictionary, because the constants are not trained."""
        return {}


def check_places(places: Tensor, given: Shape) -> None:
    """Raise `NetworkError` unless places are -1 or flat positions in an input of this shape."""
    low, high, count = int(places.min()), int(places.max()), size(given)
    require(low >= -1 and high < count, f"its places range from {low} to {high}, and its input of shape {given} has {count} elements")


interval.register(Gather)(monotone)


@backward.register(Gather)
@affine
def _(layer: Gather, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Return at each input element the sum of the coefficients of its copies."""
    inside = layer.inside.flatten()
    given, rows = x.lower.shape[1:], coefficients.flatten(1)
    found = rows.new_zeros(len(rows), given.numel()).index_add(1, layer.places.flatten()[inside], rows[:, inside])
    fill = torch.as_tensor(layer.fill).expand(layer.places.shape).flatten()[~inside]
    return (found.reshape(len(rows), *given),), rows[:, ~inside] @ fill


@linear_map.register(Gather)
def _(layer: Gather, *shapes: Shape) -> tuple[Csr, ...]:
    places = layer.places.flatten().numpy()
    inside = places >= 0
    starts = np.append(0, np.cumsum(inside))
    return (Csr((np.ones(int(inside.sum())), places[inside], starts), shape=(len(places), size(shapes[0]))),)
