"""The leaf formulation of tree ensembles: one binary per threshold, shared by all trees, and one variable per leaf.

With y_k = 1 where ``x <= t_k``, for the sorted thresholds of a feature, and z_l = 1 for the leaf that x reaches (Mišić, "Optimization of
tree ensembles", Operations Research 2020, section 2.2)::

    y_k <= y_{k+1},   sum of the z of a tree = 1,   sum of the z left of a threshold in a tree <= y_k,   right of it <= 1 - y_k

The y cut the range of the feature into cells, which x is tied to by the hull of these cells::

    lo_0 + sum_k (1 - y_k) (lo_k - lo_{k-1})  <=  x  <=  hi_K + sum_k y_k (hi_{k-1} - hi_k)

Cell k ends at ``hi_k = t_{k+1}``, and begins at the float64 number after ``t_k``, or a gap above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from mipnet.arrays import Array, Csr, Ints, Mask
from mipnet.errors import UnsupportedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import TREES_PART, Block, CutVariables, Phases
from mipnet.formulations.registry import encoding
from mipnet.layers.trees import TreeEnsemble

GAP_MAX = 0.1
"""Largest gap at a threshold, so that whole numbers on both sides of a large one stay."""

SHORT_DECIMALS = 4
"""Decimals of the numbers that a gap leaves out only if they are the threshold itself."""


@dataclass(frozen=True, eq=False)
class TreeTables:
    """What all samples share: the different thresholds by feature, and which leaves lie on which side of a threshold in a tree.

    ``cut_feature`` and ``cut_value`` are sorted, by feature and then by value.  ``row_cut`` is the threshold of each pair of a threshold
    and a tree that uses it, and ``row_of_split`` the pair of each node that splits.  ``left`` and ``right`` have one row per pair and one
    column per leaf.
    """

    splits: Ints
    cut_feature: Ints
    cut_value: Array
    row_cut: Ints
    row_of_split: Ints
    left: Csr
    right: Csr

    @staticmethod
    def of(layer: TreeEnsemble) -> TreeTables:
        """Return the tables of an ensemble."""
        nodes, thresholds = layer.splits.numpy(), layer.thresholds.numpy()
        splits = np.flatnonzero(nodes[:, 0] >= 0)
        keys = np.stack([nodes[splits, 0].astype(np.float64), thresholds[splits]], axis=1)
        cuts, cut = np.unique(keys, axis=0, return_inverse=True)
        rows, row = np.unique(np.stack([cut.reshape(-1), layer.tree.numpy()[splits]], axis=1), axis=0, return_inverse=True)
        row_of_node = np.full(len(nodes), -1)
        row_of_node[splits] = row.reshape(-1)
        sides = _sides(layer, row_of_node, len(rows))
        return TreeTables(splits, cuts[:, 0].astype(np.int64), cuts[:, 1], rows[:, 0], row.reshape(-1), *sides)


def _sides(layer: TreeEnsemble, row_of_node: Ints, rows: int) -> tuple[Csr, Csr]:
    """Return which leaves are left and right of each pair of a threshold and a tree: climb from all leaves to the roots."""
    nodes = layer.splits.numpy()
    parent, is_left = np.full(len(nodes), -1), np.zeros(len(nodes), dtype=np.bool_)
    inner = np.flatnonzero(nodes[:, 0] >= 0)
    parent[nodes[inner, 1]] = parent[nodes[inner, 2]] = inner
    is_left[nodes[inner, 1]] = True
    leaf, at, found = np.arange(len(layer.leaves)), layer.leaves, list[tuple[Ints, Ints, Mask]]()
    while (has := parent[at] >= 0).any():
        leaf, at = leaf[has], at[has]
        found.append((row_of_node[parent[at]], leaf, is_left[at]))
        at = parent[at]
    row, column, left = (np.concatenate(part) for part in zip(*found, strict=True)) if found else (np.zeros(0, np.int64),) * 3
    left = left.astype(np.bool_)
    made = []
    for side in (left, ~left):
        matrix = sparse.csr_array((np.ones(int(side.sum())), (row[side], column[side])), shape=(rows, len(layer.leaves)))
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        made.append(Csr(matrix))
    return made[0], made[1]


@dataclass(frozen=True, eq=False)
class TreeSamples:
    """What is open in the boxes of the samples.

    ``leaf`` marks the leaves that some input of a sample reaches, ``row`` the pairs of a threshold and a tree with inputs on both sides,
    and ``cut`` the thresholds of such pairs.
    """

    leaf: Mask
    row: Mask
    cut: Mask

    @staticmethod
    def of(layer: TreeEnsemble, tables: TreeTables, block: Block) -> TreeSamples:
        """Return what is open for the bounds of a block's input."""
        box = block.bounds.before[0]
        reach = layer.possible(box)
        lower, upper = box.lower.numpy(), box.upper.numpy()
        within = (lower[:, tables.cut_feature] <= tables.cut_value) & (upper[:, tables.cut_feature] > tables.cut_value)
        opened = reach[:, tables.splits] & within[:, tables.row_cut[tables.row_of_split]]
        row = np.zeros((len(reach), len(tables.row_cut)), dtype=np.bool_)
        sample, split = np.nonzero(opened)
        row[sample, tables.row_of_split[split]] = True
        cut = np.zeros_like(within)
        sample, pair = np.nonzero(row)
        cut[sample, tables.row_cut[pair]] = True
        return TreeSamples(reach[:, layer.leaves], row, cut)


@encoding(TreeEnsemble, "leaves")
def encode_trees(layer: TreeEnsemble, block: Block, x: Affine) -> Affine:
    """Write one binary per threshold that the bounds leave open and one variable per leaf that they leave reachable."""
    block.finite()
    if block.bounds.paper:
        raise UnsupportedError(
            f"node `{block.node.name}` is a tree ensemble, for which the published bounds hold for no gate: write `bounds='sound'`"
        )
    tables = TreeTables.of(layer)
    return TreeProgram(layer, block, x, tables, TreeSamples.of(layer, tables, block)).write()


@dataclass(frozen=True, eq=False)
class TreeProgram:
    """The variables and rows of an ensemble in a block, for all samples at once."""

    layer: TreeEnsemble
    block: Block
    x: Affine
    tables: TreeTables
    open: TreeSamples

    @cached_property
    def several(self) -> Mask:
        """True for the trees of each sample that can reach several leaves, ``(samples, trees)``."""
        return np.asarray(np.add.reduceat(self.open.leaf, self.layer.first_leaves, axis=1, dtype=np.int64) > 1)

    def write(self) -> Affine:
        """Write the ensemble, and return its value."""
        layer, tree = self.layer, self.layer.tree.numpy()[self.layer.leaves]
        values = layer.values.numpy()[layer.leaves]
        own = self.open.leaf & self.several[:, tree]
        constant = (self.open.leaf & ~own).astype(np.float64) @ values + layer.constant.numpy()
        undecided = int(self.several.sum())
        self.block.notes.phases[TREES_PART] = Phases(self.several.size - undecided, 0, undecided)
        if not own.any():
            return Affine.fixed(constant)
        y = self.cuts()
        z = self.block.variable(
            "leaf", 0.0, 1.0, where=own, value=self._reached, dims=("sample", f"{self.block.name}_leaf_number"), shape=own.shape
        )
        trees = Csr(
            (np.ones(len(tree)), np.arange(len(tree)), np.append(layer.first_leaves, len(tree))), shape=(len(layer.roots), len(tree))
        )
        self.block.rows("one_leaf", self._through(z, trees)[self.several], "=", 1.0)
        sample, pair = np.nonzero(self.open.row)
        switch = y[sample * y.shape[1] + self.tables.row_cut[pair]]
        self.block.rows("left", self._through(z, self.tables.left)[self.open.row] - switch, "<=")
        self.block.rows("right", self._through(z, self.tables.right)[self.open.row] + switch, "<=", 1.0)
        value: Affine = self._through(z, Csr(sparse.csr_array(values.T))) + constant
        return value

    def _through(self, z: Affine, matrix: Csr) -> Affine:
        return z.through(matrix, np.zeros((z.shape[0], matrix.shape[0])))

    def _reached(self, point: Array) -> Array:
        hot = np.zeros((self.x.shape[0], len(self.layer.splits)))
        np.put_along_axis(hot, self.layer.reached(torch.as_tensor(self.x.evaluate(point))).numpy(), 1.0, axis=1)
        return np.asarray(hot[:, self.layer.leaves])

    def cuts(self) -> Affine:
        """Add the binaries of the open thresholds, their order, and the rows that tie the input to them."""
        feature, value, used = self.tables.cut_feature, self.tables.cut_value, self.open.cut
        y = self.block.variable(
            "at_most",
            0,
            1,
            where=used,
            binary=True,
            value=lambda p: (self.x.evaluate(p)[:, feature] <= value).astype(np.float64),
            dims=("sample", f"{self.block.name}_threshold"),
            shape=used.shape,
        )
        labels = self.block.variables["at_most"].labels.values
        self.block.notes.cuts = CutVariables(labels, feature, value)
        sample, cut = np.nonzero(used)
        group = sample * self.x.shape[1] + feature[cut]
        first = np.append(True, np.diff(group) != 0)
        flat = y[sample * used.shape[1] + cut]
        later = np.flatnonzero(~first)
        self.block.rows("order", flat[later - 1] - flat[later], "<=")
        self._tie(flat, sample, cut, first)
        return y

    def _tie(self, y: Affine, sample: Ints, cut: Ints, first: Mask) -> None:
        """Add the rows that tie the input to the cells between the open thresholds, sorted by sample and feature."""
        feature, at = self.tables.cut_feature[cut], self.tables.cut_value[cut]
        lower, upper = (end.numpy()[sample, feature] for end in (self.block.bounds.before[0].lower, self.block.bounds.before[0].upper))
        last = np.append(first[1:], True)
        before, after = np.where(first, lower, np.roll(at, 1)), np.where(last, upper, np.roll(at, -1))
        ends, starts = cell_ends(at, before, after, first, self.block.threshold_gap, strict=self.layer.strict)
        next_end, previous_start = np.where(last, upper, np.roll(ends, -1)), np.where(first, lower, np.roll(starts, 1))
        groups = np.append(np.flatnonzero(first), len(first))
        x = self.x[sample[first] * self.x.shape[1] + feature[first]]
        for suffix, factors, sense, constant in (
            ("below", ends - next_end, "<=", upper[first]),
            ("above", previous_start - starts, ">=", starts[last]),
        ):
            sums = Affine(Csr((factors, y.terms.indices, groups), shape=(len(groups) - 1, y.terms.shape[1])), np.zeros(len(groups) - 1))
            self.block.rows(f"input_{suffix}", x - sums, sense, constant)  # type: ignore[arg-type]


def cell_ends(at: Array, before: Array, after: Array, first: Mask, gap: float, *, strict: bool) -> tuple[Array, Array]:
    """Return the end of the cell at each threshold and the start of the next cell, within ``before`` and ``after``.

    ``before`` and ``after`` are the thresholds on both sides, or the ends of the input's range.  Without a gap, the start is the float64
    number after the threshold.  A gap of ``gap max(1, |t|)``, at most `GAP_MAX` and half of a cell, lies above the threshold, or with
    ``strict`` below it; on the other side if it would leave out a number of few decimals there.
    """
    width = np.minimum(gap * np.maximum(1.0, np.abs(at)), GAP_MAX)
    short, next_number = np.round(at, SHORT_DECIMALS), np.nextafter(at, np.inf)
    below = (short >= at - width) & (short <= at)
    above = (short > at) & (short <= at + width)
    under = ~below if strict else above
    ends = np.where(under, np.minimum(at, np.maximum(at - width, before + (at - before) / 2)), at)
    ends = np.where(first, ends, np.maximum(ends, np.nextafter(before, np.inf)))
    starts = np.where(under, next_number, np.maximum(next_number, np.minimum(at + width, at + (after - at) / 2)))
    return ends, starts
