"""TreeEnsemble: the sum of decision trees, piecewise constant in its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Ints, Mask, Shape
from mipnet.bounds.interval import Interval, interval
from mipnet.bounds.linear_rules import BackwardBound, backward
from mipnet.errors import suggest_keywords
from mipnet.network.graph import Layer, constant, require

REACHED_ELEMENTS_MAX = 2**24
"""Largest number of samples times nodes times outputs for which leaves are compared at once."""


@suggest_keywords
@dataclass(frozen=True, eq=False)
class TreeEnsemble(Layer):
    """``y = constant + sum over trees of the value of the leaf that x reaches``, for a vector x.

    At node n of a tree, x goes to ``splits[n, 1]`` if ``x[splits[n, 0]] <= thresholds[n]``, compared in float64, and to ``splits[n, 2]``
    otherwise.  A leaf has the feature -1.  Readers move the thresholds of libraries that compare in float32, or with ``<``, to the
    float64 numbers that decide in the same way.

    Parameters
    ----------
    splits
        The feature, the left and the right child of every node, ``(nodes, 3)``; children have larger numbers than their parent.
    thresholds
        Shape ``(nodes,)``; those of leaves have no meaning.
    values
        The values of leaves, ``(nodes, outputs)``; those of other nodes have no meaning.
    roots
        The number of the first node of each tree, ``(trees,)``.
    constant
        Shape ``(outputs,)``.
    strict
        True if the thresholds stand for ``x < t``: where a program needs a gap at a threshold, it is then below it and not above it.
    """

    splits: Tensor
    thresholds: Tensor
    values: Tensor
    roots: Tensor
    constant: Tensor
    strict: bool = False

    continuous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for key, what in (("thresholds", "the thresholds"), ("values", "the values"), ("constant", "the constant")):
            object.__setattr__(self, key, constant(getattr(self, key), f"{what} of a tree ensemble"))
        for key in ("splits", "roots"):
            object.__setattr__(self, key, torch.as_tensor(getattr(self, key)).to(torch.int64))
        count = len(self.thresholds)
        require(self.thresholds.ndim == 1 and self.splits.shape == (count, 3), "splits have the shape (nodes, 3), thresholds (nodes,)")
        fits = self.values.ndim == 2 and len(self.values) == count and self.constant.shape == self.values.shape[1:]
        require(fits, "the values of a tree ensemble have the shape (nodes, outputs), its constant has the shape (outputs,)")
        inner, own = self.inner, torch.arange(count)
        children = self.splits[inner, 1:]
        after = bool((children > own[inner, None]).all() and (children < count).all())
        owners = torch.cat([self.roots.reshape(-1), children.reshape(-1)])
        once = bool(((owners >= 0) & (owners < count)).all()) and len(owners) == count == len(set(owners.tolist()))
        require(self.roots.ndim == 1 and after and once, "every node of a tree ensemble is a root or a child of one earlier node")

    @property
    def inner(self) -> Tensor:
        """True for nodes that split."""
        return self.splits[:, 0] >= 0

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(outputs,)``."""
        (given,) = inputs
        largest = int(self.splits[:, 0].max()) if len(self.splits) else -1
        require(len(given) == 1 and given[0] > largest, f"its input has shape {given}; expected a vector with more than {largest} elements")
        return (len(self.constant),)

    def weights(self) -> dict[str, Tensor]:
        """Return the thresholds and the values."""
        return {"thresholds": self.thresholds, "values": self.values}

    @cached_property
    def levels(self) -> tuple[Tensor, ...]:
        """The nodes that split, by their depth."""
        found, level = [], self.roots[self.inner[self.roots]]
        while len(level):
            found.append(level)
            children = self.splits[level, 1:].reshape(-1)
            level = children[self.inner[children]]
        return tuple(found)

    @cached_property
    def tree(self) -> Tensor:
        """The number of the tree of each node."""
        found = torch.zeros(len(self.splits), dtype=torch.int64)
        found[self.roots] = torch.arange(len(self.roots))
        for level in self.levels:
            found[self.splits[level, 1:]] = found[level, None]
        return found

    @cached_property
    def leaves(self) -> Ints:
        """The numbers of all leaves, tree after tree."""
        numbers = torch.nonzero(~self.inner)[:, 0]
        order = torch.argsort(self.tree[numbers], stable=True)
        return np.asarray(numbers[order].numpy())

    @cached_property
    def first_leaves(self) -> Ints:
        """The place in ``leaves`` of the first leaf of each tree."""
        return np.searchsorted(self.tree.numpy()[self.leaves], np.arange(len(self.roots)))

    def reached(self, x: Tensor) -> Tensor:
        """Return the leaf of each tree for a batch, by node number, ``(samples, trees)``."""
        exact = x.detach().to(torch.float64)
        node = self.roots.expand(len(x), -1)
        for _ in self.levels:
            feature, left, right = self.splits[node].unbind(-1)
            goes_left = exact.gather(1, feature.clamp(min=0)) <= self.thresholds[node]
            node = torch.where(feature < 0, node, torch.where(goes_left, left, right))
        return node

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the sum of a batch; its gradient is 0."""
        (x,) = inputs
        total = (self.values[self.reached(x)].sum(1) + self.constant).to(x.dtype)
        return total + 0.0 * x.sum(1, keepdim=True) if x.requires_grad else total

    def possible(self, x: Interval) -> Mask:
        """Return which nodes some x in each box reaches, ``(samples, nodes)``."""
        found = np.zeros((len(x.lower), len(self.splits)), dtype=np.bool_)
        found[:, self.roots.numpy()] = True
        lower, upper, thresholds = x.lower.numpy(), x.upper.numpy(), self.thresholds.numpy()
        for level in self.levels:
            nodes = level.numpy()
            feature, left, right = self.splits.numpy()[nodes].T
            found[:, left] = found[:, nodes] & (lower[:, feature] <= thresholds[nodes])
            found[:, right] = found[:, nodes] & (upper[:, feature] > thresholds[nodes])
        return found

    def extremes(self, x: Interval) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the smallest and the largest value of every tree over boxes, ``(some samples, trees, outputs)``."""
        values = self.values.numpy()[self.leaves]
        at_once = max(1, REACHED_ELEMENTS_MAX // max(1, self.values.numel()))
        for first in range(0, len(x.lower), at_once):
            reach = self.possible(x[slice(first, first + at_once)])[:, self.leaves, None]
            low, high = (np.where(reach, values, end) for end in (np.inf, -np.inf))
            yield (
                torch.from_numpy(np.minimum.reduceat(low, self.first_leaves, axis=1)),
                torch.from_numpy(np.maximum.reduceat(high, self.first_leaves, axis=1)),
            )


@interval.register(TreeEnsemble)
def _(layer: TreeEnsemble, x: Interval) -> Interval:
    """Add up the smallest and the largest value that each tree takes in the box."""
    parts = [(low.sum(1), high.sum(1), torch.maximum(low.abs(), high.abs()).sum(1)) for low, high in layer.extremes(x)]
    lower, upper, size = (torch.cat(part) for part in zip(*parts, strict=True))
    size = size + layer.constant.abs()
    return Interval(lower + layer.constant, upper + layer.constant).rounded(size, size)


@backward.register(TreeEnsemble)
def _(layer: TreeEnsemble, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Bound ``c . y`` by a constant: the sum of the smallest ``c . value`` that each tree takes in the box; the inputs get no part."""
    values = layer.values[torch.from_numpy(layer.leaves)]
    at_once, parts = max(1, REACHED_ELEMENTS_MAX // max(1, len(layer.splits))), []
    for first in range(0, len(coefficients), at_once):
        rows = coefficients[first : first + at_once]
        reach = layer.possible(x if len(x.lower) == 1 else x[slice(first, first + at_once)])[:, layer.leaves]
        found = np.where(reach, (rows @ values.T).detach().numpy(), np.inf)
        parts.append(torch.from_numpy(np.minimum.reduceat(found, layer.first_leaves, axis=1)).sum(1))
    constants = torch.cat(parts) if parts else coefficients.new_zeros(0)
    return (coefficients.new_zeros(len(coefficients), x.lower.shape[1]),), constants + coefficients @ layer.constant
