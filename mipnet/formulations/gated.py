"""Gated values: the encoding of `mipnet.network.gates`, with one score s in [0, 1] per unit, shared by all samples and positions."""

from __future__ import annotations

import numpy as np

from mipnet.arrays import Array
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block
from mipnet.formulations.relu import positive_part


def gated_relu(block: Block, z: Affine, score: Affine) -> Affine:
    """Write ``h = max(0, z - (1 - s) U)`` with U = max(u, 0), the ReLU for s = 1 and 0 for s = 0, with the valid row ``h <= U s``.

    ``score`` has the shape of z.  Where z is a positive constant, ``h = s z`` needs no variable.
    """
    lower, upper = block.finite()
    return _gated_positive_part(block, "", "above", z, score, lower, upper)


def gated(block: Block, y: Affine, score: Affine, lower: Array, upper: Array) -> Affine:
    """Write the soft threshold of a value y in [lower, upper]: y for s = 1, 0 for s = 0 (see `mipnet.network.gates`)."""
    above = _gated_positive_part(block, "above", "above", y, score, lower, upper) if (upper > 0).any() else None
    below = _gated_positive_part(block, "below", "below", -y, score, -upper, -lower) if (lower < 0).any() else None
    if above is None:
        return y * 0.0 if below is None else -below
    return above if below is None else above - below


def published_linear(block: Block, y: Affine, score: Affine, upper: Array) -> Affine:
    """Write ``h = y - (1 - s) U``, the published form for a layer without an activation; for s = 0 it is 0 only where y = U."""
    block.notes.gate_thresholds["published"] = upper
    return y - (score * -1.0 + 1.0) * upper


def _gated_positive_part(block: Block, suffix: str, side: str, z: Affine, score: Affine, lower: Array, upper: Array) -> Affine:
    """Write ``max(0, z - (1 - s) max(upper, 0))``; where z is constant it equals ``s max(z, 0)``."""
    constant = (z.row_sizes == 0).reshape(z.shape)
    lower, upper = np.where(constant, np.minimum(z.constant, 0.0), lower), np.where(constant, z.constant, upper)
    threshold = block.notes.gate_thresholds[side] = np.maximum(upper, 0.0)
    shifted = z - (score * -1.0 + 1.0) * threshold
    if block.bounds.paper:  # the published big-Ms are those of the ungated network, see docs/formulations.md
        return positive_part(block, suffix, shifted, lower, upper, always_valid=constant)
    return positive_part(block, suffix, shifted, np.where(constant, lower, lower - threshold), upper, ceiling=score * threshold)
