"""The number of variables of each element of a value, followed from node to node without making the value.

Counts are added up where an element reads several others.  A variable that reaches it on several paths is then counted once per path,
which is many times too much where layers of a convolution overlap.  So counts may be corrected: for a few elements of the first sample the
variables themselves are followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
import torch
import torch.nn.functional as F

from mipnet.arrays import Array, Csr, Ints, Mask, widen
from mipnet.formulations.registry import linear_map
from mipnet.layers import Conv2d, Dense
from mipnet.network.graph import Layer, size

FOLLOWED_ELEMENTS_MAX = 8
"""Number of elements of the first sample whose variables are followed to correct the counts of a node."""

TermPattern = Callable[[Ints], Csr]
"""A function from flat elements of the first sample to a matrix with one row per element, and ones at the numbers of its variables."""


@dataclass(frozen=True, eq=False)
class TermCounts:
    """The number of variables of each element of a value, ``(sample, *shape)``.

    One sample has ``own`` different variables that no other sample has, and ``shared`` ones that all have, such as scores.  ``pattern``
    follows the variables of some elements.
    """

    each: Array
    own: float
    shared: float
    pattern: TermPattern

    @property
    def total(self) -> float:
        """The number of terms of all elements."""
        return float(self.each.sum())

    def capped(self) -> TermCounts:
        """Return the same counts, none above the number of different variables."""
        return replace(self, each=np.minimum(self.each, self.own + self.shared))

    def corrected(self) -> TermCounts:
        """Return the counts times the share that is right for a few elements of the first sample."""
        first = self.each[0].reshape(-1)
        filled = np.flatnonzero(first)
        if not len(filled):
            return self
        some = filled[np.linspace(0, len(filled) - 1, min(FOLLOWED_ELEMENTS_MAX, len(filled))).astype(np.int64)]
        return replace(self, each=self.each * (self.pattern(some).nnz / first[some].sum()))

    def __add__(self, other: TermCounts) -> TermCounts:
        """Return the counts of a sum of two values; their variables count as different."""

        def pattern(elements: Ints) -> Csr:
            return _union(self.pattern(elements), other.pattern(elements))

        return TermCounts(self.each + other.each, self.own + other.own, max(self.shared, other.shared), pattern).capped()


class VariableNumbers:
    """The numbers of the variables of the first sample, in the order in which nodes add them."""

    def __init__(self) -> None:
        self.count = 0

    def new(self, where: Mask) -> TermPattern:
        """Return the pattern of a value with one new variable in the elements ``where`` of the first sample, and nothing elsewhere."""
        flat = where.reshape(-1)
        numbers = np.where(flat, self.count + np.cumsum(flat) - 1, -1)
        self.count += int(flat.sum())
        return lambda elements: _rows(numbers[elements])


def no_terms(shape: Sequence[int]) -> TermCounts:
    """Return the counts of a constant of shape ``(sample, *shape)``."""
    return TermCounts(np.zeros(shape), 0.0, 0.0, lambda elements: Csr((len(elements), 0)))


def passed_on(pattern: TermPattern, places: Ints) -> TermPattern:
    """Return the pattern of a value whose elements are those of another one at these flat places, or nothing where a place is -1."""

    def follow(elements: Ints) -> Csr:
        at = places.reshape(-1)[elements]
        if not (at >= 0).any():
            return Csr((len(elements), 0))
        found = pattern(at[at >= 0])
        starts = np.concatenate([[0], np.cumsum(at >= 0)])
        return Csr((found.data, found.indices, found.indptr[starts]), shape=(len(elements), found.shape[1]))

    return follow


def either(first: TermPattern, second: TermPattern) -> TermPattern:
    """Return the pattern of a value that has the variables of both."""
    return lambda elements: _union(first(elements), second(elements))


def _rows(numbers: Ints) -> Csr:
    filled = numbers >= 0
    width = int(numbers.max(initial=-1)) + 1
    return Csr((np.ones(int(filled.sum())), numbers[filled], np.concatenate([[0], np.cumsum(filled)])), shape=(len(numbers), width))


def _union(first: Csr, second: Csr) -> Csr:
    width = max(first.shape[1], second.shape[1])
    return Csr(widen(first, width) + widen(second, width))


def terms_through(layer: Layer, inputs: Sequence[TermCounts]) -> TermCounts:
    """Return the counts after an affine layer: the sum over all elements that an element reads, at most the number of variables."""
    shapes = [tuple(x.each.shape[1:]) for x in inputs]
    each = _added_up(layer, *(x.each for x in inputs))

    def pattern(elements: Ints) -> Csr:
        found = Csr((len(elements), 0))
        for rows, x in zip(rows_of_map(layer, elements, *shapes), inputs, strict=True):
            read = np.unique(rows.indices).astype(np.int64)
            terms = x.pattern(read)
            found = _union(found, Csr(Csr(rows[:, read]) @ terms) if terms.nnz else found)
        return found

    return TermCounts(each, sum(x.own for x in inputs), max(x.shared for x in inputs), pattern).capped()


@singledispatch
def _added_up(layer: Layer, *each: Array) -> Array:
    """Return the sum of the counts that each output element reads."""
    shapes, samples = [tuple(x.shape[1:]) for x in each], len(each[0])
    maps = linear_map(layer, *shapes)
    parts = [(_ones(one) @ x.reshape(samples, -1).T).T for one, x in zip(maps, each, strict=True)]
    return np.asarray(sum(parts[1:], start=parts[0])).reshape(samples, *layer.shape(*shapes))


@_added_up.register
def _(layer: Dense, each: Array) -> Array:
    return np.asarray(F.linear(torch.tensor(each), (layer.weight != 0).double()).numpy())


@_added_up.register
def _(layer: Conv2d, each: Array) -> Array:
    return np.asarray(layer._apply(torch.tensor(each), (layer.weight != 0).double(), None).numpy().round())


@singledispatch
def rows_of_map(layer: Layer, elements: Ints, *shapes: tuple[int, ...]) -> tuple[Csr, ...]:
    """Return the rows of some output elements of an affine layer's matrices, with ones as entries."""
    return tuple(_ones(Csr(one[elements])) for one in linear_map(layer, *shapes))


@rows_of_map.register
def _(layer: Dense, elements: Ints, *shapes: tuple[int, ...]) -> tuple[Csr, ...]:
    return (Csr((layer.weight.numpy()[elements] != 0).astype(np.float64)),)


@rows_of_map.register
def _(layer: Conv2d, elements: Ints, *shapes: tuple[int, ...]) -> tuple[Csr, ...]:
    (given,) = shapes
    places = layer.window.places(given)
    output, position = np.divmod(elements, len(places))
    per_group = int(layer.weight.shape[1])
    channels = (output // (len(layer.weight) // layer.groups))[:, None] * per_group + np.arange(per_group)
    columns = channels[:, :, None] * (given[1] * given[2]) + places[position][:, None, :]
    read = (places[position][:, None, :] >= 0) & (layer.weight.numpy()[output].reshape(len(elements), per_group, places.shape[1]) != 0)
    starts = np.concatenate([[0], np.cumsum(read.sum(axis=(1, 2)))])
    return (Csr((np.ones(int(read.sum())), columns[read], starts), shape=(len(elements), size(given))),)


def _ones(matrix: Csr) -> Csr:
    return Csr((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
