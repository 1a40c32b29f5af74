"""Layers that only move elements: reshape (flatten, view), permute (transpose) and select."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mipnet.arrays import Csr, Ints, Shape
from mipnet.bounds.interval import interval, monotone
from mipnet.bounds.linear_rules import adjoint, backward, rearranged
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.network.graph import Layer, require, size


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """The same elements in the same order with shape ``target``, which is the shape of one sample."""

    target: Shape

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``target``."""
        (given,) = inputs
        require(size(given) == size(self.target), f"{size(given)} elements of shape {given} do not fill shape {self.target}")
        return self.target

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the batch with the new shape."""
        (x,) = inputs
        return x.reshape(len(x), *self.target)


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Permute(Layer):
    """The axes of one sample in another order: axis k of the output is axis ``order[k]`` of the input."""

    order: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input in the new order."""
        (given,) = inputs
        require(sorted(self.order) == list(range(len(given))), f"order {self.order} does not permute the axes of shape {given}")
        return tuple(given[axis] for axis in self.order)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the batch with its axes in the new order."""
        (x,) = inputs
        return x.permute(0, *(axis + 1 for axis in self.order))


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Select(Layer):
    """``y_i = x[elements[i]]`` for a vector x: some of its elements, in any order; an element may occur several times."""

    elements: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(number of selected elements,)``."""
        (given,) = inputs
        require(len(given) == 1, f"its input has shape {given}; expected a vector")
        inside = all(0 <= each < given[0] for each in self.elements)
        require(inside and self.elements, f"it selects the elements {self.elements} of a vector of length {given[0]}")
        return (len(self.elements),)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the selected elements of a batch."""
        (x,) = inputs
        return x[:, list(self.elements)]


for kind in (Reshape, Permute, Select):
    interval.register(kind)(monotone)
for kind in (Reshape, Permute):
    backward.register(kind)(rearranged)
backward.register(Select)(adjoint)


def selection(columns: Ints, width: int) -> Csr:
    """Return the matrix of shape ``(len(columns), width)`` whose row i selects element ``columns[i]``."""
    return Csr((np.ones(len(columns)), columns, np.arange(len(columns) + 1)), shape=(len(columns), width))


@linear_map.register(Reshape)
def _(layer: Reshape, *shapes: Shape) -> tuple[Csr, ...]:
    count = size(shapes[0])
    return (selection(np.arange(count), count),)


@linear_map.register(Permute)
def _(layer: Permute, *shapes: Shape) -> tuple[Csr, ...]:
    (given,) = shapes
    moved = np.arange(size(given)).reshape(given).transpose(layer.order)
    return (selection(moved.reshape(-1), size(given)),)


@linear_map.register(Select)
def _(layer: Select, *shapes: Shape) -> tuple[Csr, ...]:
    return (selection(np.array(layer.elements), size(shapes[0])),)
