"""Decision trees as tables of nodes, and their thresholds as the float64 inputs at which the estimator's own comparison changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mipnet.arrays import Array, Ints, Mask
from mipnet.errors import UnsupportedError
from mipnet.layers import TreeEnsemble
from mipnet.network.graph import INPUT_NODE
from mipnet.readers.estimators.columns import InputColumn
from mipnet.readers.estimators.reading import EstimatorReading

LARGEST_NUMBER = float(np.finfo(np.float64).max)
SIGN_BITS = np.int64(np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False)
class TreeTable:
    """One tree: its root is node 0, ``feature`` is the number of a column or -1 at a leaf, ``value`` has shape ``(nodes, outputs)``."""

    feature: Ints
    left: Ints
    right: Ints
    threshold: Array
    value: Array


@dataclass(frozen=True)
class TreeComparison:
    """How a library compares: in float32 if ``single``, with ``<`` in place of ``<=`` if ``strict``, and numbers up to ``zero`` as 0."""

    single: bool = False
    strict: bool = False
    zero: float = 0.0

    def goes_left(self, column: InputColumn, x: Array, thresholds: Array) -> Mask:
        """Return whether values of a column's input go left."""
        value = column.apply(x)
        if self.single:
            with np.errstate(over="ignore"):
                value = value.astype(np.float32).astype(np.float64)
        value = np.where(np.abs(value) <= self.zero, 0.0, value)
        return np.asarray(value < thresholds if self.strict else value <= thresholds)


def largest_left(column: InputColumn, thresholds: Array, comparison: TreeComparison) -> Array:
    """Return the largest float64 input that goes left at each threshold, found by bisection over all float64 numbers.

    No step of a column decreases, and neither does a cast to float32.  So an input goes left if and only if it is at most this number.
    """
    low, high = (np.full(thresholds.shape, _ordered(np.array(end))) for end in (-LARGEST_NUMBER, LARGEST_NUMBER))
    for _ in range(64):
        middle = (low & high) + ((low ^ high) >> 1)
        left = comparison.goes_left(column, _number(middle), thresholds)
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    all_left = comparison.goes_left(column, np.full(thresholds.shape, LARGEST_NUMBER), thresholds)
    return np.where(all_left, LARGEST_NUMBER, _number(low))


def _ordered(number: Array) -> Ints:
    """Return whole numbers in the order of float64 numbers, neighbours for neighbours."""
    bits = number.view(np.int64)
    return np.asarray(np.where(bits < 0, bits ^ SIGN_BITS, bits))


def _number(ordered: Ints) -> Array:
    return np.where(ordered < 0, ordered ^ SIGN_BITS, ordered).view(np.float64)


def emit_trees(
    reading: EstimatorReading,
    columns: Sequence[InputColumn],
    trees: Sequence[TreeTable],
    constant: Array,
    comparison: TreeComparison,
) -> str:
    """Add the sum of trees of columns and a constant, as one node that reads the inputs, and return its name."""
    reading.columns = tuple(columns)
    places = np.array(reading.places(columns))
    falling = [reading.name_of(each.feature) for each in columns if any(line[0] <= 0 for line in each.lines)]
    if falling:
        raise UnsupportedError(f"feature `{falling[0]}` reaches a tree with a factor of at most 0; expected one above 0")
    tables = [_in_levels(tree) for tree in trees]
    starts = np.cumsum([0, *(len(table.feature) for table in tables)])
    feature, threshold = (np.concatenate([getattr(table, key) for table in tables]) for key in ("feature", "threshold"))
    moved = np.zeros(len(feature))
    for number in np.unique(feature[feature >= 0]):
        reading.deadline.check(reading.work)
        here = feature == number
        moved[here] = largest_left(columns[number], threshold[here], comparison)
        source = columns[number].source
        reading.probes[source] = np.append(reading.probes.get(source, np.zeros(0)), moved[here])
    children = [
        np.concatenate([getattr(table, side) + start for table, start in zip(tables, starts, strict=False)]) for side in ("left", "right")
    ]
    splits = np.stack([np.where(feature >= 0, places[feature], -1), *children], axis=1)
    values = np.concatenate([table.value for table in tables])
    return reading.emit(
        TreeEnsemble(
            torch.tensor(splits),
            torch.tensor(moved),
            torch.tensor(values),
            torch.tensor(starts[:-1]),
            torch.tensor(np.asarray(constant, dtype=np.float64)),
            comparison.strict,
        ),
        INPUT_NODE,
    )


def _in_levels(tree: TreeTable) -> TreeTable:
    """Return a tree with its nodes level by level, without those that the root does not reach; a leaf is its own child."""
    order, level = [], np.zeros(1, dtype=np.int64)
    while len(level):
        order.append(level)
        inner = level[tree.feature[level] >= 0]
        level = np.stack([tree.left[inner], tree.right[inner]], axis=1).reshape(-1).astype(np.int64)
    kept = np.concatenate(order)
    number = np.zeros(len(tree.feature), dtype=np.int64)
    number[kept] = np.arange(len(kept))
    own, leaf = np.arange(len(kept)), tree.feature[kept] < 0
    left, right = (np.where(leaf, own, number[np.where(leaf, 0, side[kept])]) for side in (tree.left, tree.right))
    threshold = np.nan_to_num(tree.threshold[kept], nan=0.0)
    return TreeTable(np.where(leaf, -1, tree.feature[kept]).astype(np.int64), left, right, threshold, tree.value[kept])
