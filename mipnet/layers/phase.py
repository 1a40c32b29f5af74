"""The positive part h = max(z, 0) of an affine value, the one nonlinearity that all piecewise-linear layers are made of.

Each element is one of three: z >= 0 for every allowed input (h is z itself), z <= 0 (h is 0), or undecided.  An undecided
element is written with the pair (h, g) of its positive and negative part and one binary v::

    h - g = z,     h >= 0,     g >= 0,     h <= u v,     g <= -l (1 - v)                                   (big-m)

which is the usual big-M formulation h >= z, h <= z - l(1-v), h <= u v with g = h - z, in one long row instead of two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mipnet.affine import Affine, Mask
from mipnet.block import Block
from mipnet.errors import UnboundedError
from mipnet.ir import Array

Link = Callable[[Block, str, Affine, Affine, Array, Array, Mask, Affine], None]


def positive_part(
    block: Block, suffix: str, z: Affine, lower: Array, upper: Array, *, ceiling: Affine | None = None, sure: Mask | None = None
) -> Affine:
    """h = max(z, 0), where ``lower <= z <= upper``; ``ceiling`` is a further valid upper bound of h (U s at a gate).

    Under the paper's bounds, which do not hold for every gate value, decided elements keep their pattern by rows:
    ``lower <= z <= 0`` or ``0 <= z <= upper`` (ElAraby et al. 2023, the ReLU constraints with v fixed by its big-M), except
    where ``sure`` says that the bounds hold for every gate value after all.
    """
    known = (z.row_sizes == 0).reshape(z.shape)
    lower, upper = np.where(known, z.constant, lower), np.where(known, z.constant, upper)
    active, undecided = lower >= 0, (lower < 0) & (upper > 0)
    if block.paper:
        doubtful = ~known if sure is None else ~known & ~sure
        _keep_pattern(block, suffix, z, lower, upper, doubtful & active, doubtful & ~active & ~undecided)
    own = undecided | (active & ~known if _worth_a_variable(z, active & ~known) else False)
    folded = z[active & ~own].place(active & ~own)
    if not own.any():
        return folded
    return folded + _pair(block, suffix, z, lower, upper, own, undecided, ceiling)


def _worth_a_variable(z: Affine, active: Mask) -> bool:
    """True if passing on the rows of decided elements would spread more variables than it saves."""
    count = int(active.sum())
    return count > 0 and bool((z[active].row_sizes > 1).any()) and len(np.unique(z[active].terms.indices)) > count


def _keep_pattern(block: Block, suffix: str, z: Affine, lower: Array, upper: Array, active: Mask, inactive: Mask) -> None:
    tag = f"{suffix}_" if suffix else ""
    block.rows(f"{tag}on_above", z[active], ">=")
    block.rows(f"{tag}on_below", z[active], "<=", upper[active])
    block.rows(f"{tag}off_above", z[inactive], ">=", lower[inactive])
    block.rows(f"{tag}off_below", z[inactive], "<=")


def _pair(block: Block, suffix: str, z: Affine, lower: Array, upper: Array, own: Mask, undecided: Mask, ceiling: Affine | None) -> Affine:
    if not (np.isfinite(lower[undecided]).all() and np.isfinite(upper[undecided]).all()):
        raise UnboundedError(f"node `{block.node.name}` needs a finite big-M and has none: give the network's input finite bounds")
    tag = f"{suffix}_" if suffix else ""
    least = np.zeros(1) if block.paper else np.maximum(lower, 0)  # the paper's active units range over [0, u]
    h = block.variable(suffix, least, upper, where=own, value=lambda p: np.maximum(z.evaluate(p), 0))
    g = block.variable(f"{tag}negative", 0.0, np.maximum(-lower, 0), where=undecided, value=lambda p: np.maximum(-z.evaluate(p), 0))
    block.rows(f"{tag}split", (z - (h - g))[own], "=")  # the long rows are neither negated nor merged
    if undecided.any():
        LINKS[block.formulation](block, tag, h, g, lower, upper, undecided, z)
        if ceiling is not None and not block.paper:
            block.rows(f"{tag}ceiling", (h - ceiling)[undecided], "<=")
    return h


def big_m(block: Block, tag: str, h: Affine, g: Affine, lower: Array, upper: Array, undecided: Mask, z: Affine) -> None:
    """``h <= u v`` and ``g <= -l (1 - v)`` with v binary."""
    v = block.variable(f"{tag}on", 0, 1, where=undecided, binary=True, value=lambda p: (z.evaluate(p) > 0).astype(float))
    block.rows(f"{tag}positive_only_if_on", (h - v * upper)[undecided], "<=")
    block.rows(f"{tag}negative_only_if_off", (g - v * lower)[undecided], "<=", -lower[undecided])


LINKS: dict[str, Link] = {"big-m": big_m}
"""How ``h = 0 or g = 0`` is written, by formulation name."""
