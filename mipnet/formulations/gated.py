"""Gated values: the encoding of `mipnet.network.gates`, one score s in [0, 1] a unit, shared by all samples and positions."""

from __future__ import annotations

import numpy as np

from mipnet.arrays import Array
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block
from mipnet.formulations.relu import positive_part


def gated_relu(block: Block, z: Affine, score: Affine) -> Affine:
    """``h = max(0, z - (1 - s) U)`` with U = max(u, 0): the ReLU for s = 1, silent for s = 0; ``h <= U s`` strengthens it.

    ``score`` has the shape of z.  Where nothing is left to decide (z = U fixed and positive) it folds to ``h = s z``.
    """
    lower, upper = block.finite()
    return _opened(block, "", "above", z, score, lower, upper)


def gated(block: Block, y: Affine, score: Affine, lower: Array, upper: Array) -> Affine:
    """The soft threshold of any value y in [lower, upper]: y for s = 1, 0 for s = 0 (see `mipnet.network.gates`)."""
    above = _opened(block, "above", "above", y, score, lower, upper) if (upper > 0).any() else None
    below = _opened(block, "below", "below", -y, score, -upper, -lower) if (lower < 0).any() else None
    if above is None:
        return y * 0.0 if below is None else -below
    return above if below is None else above - below


def published_linear(block: Block, y: Affine, score: Affine, upper: Array) -> Affine:
    """``h = y - (1 - s) U``: the published form where no activation follows; it does not silence a unit unless y = U."""
    block.notes.gate_thresholds["published"] = upper
    return y - (score * -1.0 + 1.0) * upper


def _opened(block: Block, suffix: str, side: str, z: Affine, score: Affine, lower: Array, upper: Array) -> Affine:
    """``max(0, z - (1 - s) max(upper, 0))``; for a fixed z it is ``s max(z, 0)``, with nothing left to decide."""
    known = (z.row_sizes == 0).reshape(z.shape)
    lower, upper = np.where(known, np.minimum(z.constant, 0.0), lower), np.where(known, z.constant, upper)
    top = block.notes.gate_thresholds[side] = np.maximum(upper, 0.0)
    shifted = z - (score * -1.0 + 1.0) * top
    if block.bounds.paper:  # the published big-Ms are those of the ungated network, see docs/formulations.md
        return positive_part(block, suffix, shifted, lower, upper, sure=known)
    return positive_part(block, suffix, shifted, np.where(known, lower, lower - top), upper, ceiling=score * top)
