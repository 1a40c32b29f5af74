"""Random tree ensembles of two inputs, and the points at which they take all of their values in a box."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from mipnet.layers import TreeEnsemble


def random_ensemble(seed: int, *, trees: int, outputs: int, strict: bool = False) -> TreeEnsemble:
    """Trees of two inputs and depth 3 at most, with thresholds 0.5, 1, ..., 5 that several nodes share.

    Trees of an odd seed may split again where their inputs are on one side already, so that some leaves have no input.
    """
    g = np.random.default_rng(seed)
    splits: list[list[int]] = []
    thresholds: list[float] = []
    roots = []
    for _ in range(trees):
        roots.append(len(splits))
        waiting = [(0, {0: (0, 11), 1: (0, 11)})]
        splits.append([-1, 0, 0])
        thresholds.append(0.0)
        at = roots[-1]
        while waiting:
            depth, ranges = waiting.pop(0)
            feature = int(g.integers(2))
            low, high = ranges[feature] if seed % 2 == 0 else (0, 11)
            if depth < 3 and high > low + 1 and g.uniform() < 0.8:
                cut = int(g.integers(low + 1, high))
                splits[at] = [feature, len(splits), len(splits) + 1]
                thresholds[at] = cut / 2
                splits += [[-1, 0, 0], [-1, 0, 0]]
                thresholds += [0.0, 0.0]
                waiting += [(depth + 1, ranges | {feature: ends}) for ends in ((low, cut), (cut, high))]
            at += 1
    values = g.normal(size=(len(splits), outputs))
    made = [torch.tensor(each) for each in (splits, thresholds, values, roots, g.normal(size=outputs))]
    return TreeEnsemble(*made, strict=strict)


def corners(tree: TreeEnsemble, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The ends of a box and both sides of all thresholds in it, ``(points, inputs)``."""
    axes = []
    for feature, (start, end) in enumerate(zip(low, high, strict=True)):
        at = np.unique(tree.thresholds.numpy()[tree.splits[:, 0].numpy() == feature])
        near = np.concatenate([[start, end], at, np.nextafter(at, np.inf)])
        axes.append(np.unique(near[(near >= start) & (near <= end)]))
    return np.array(list(itertools.product(*axes)))
