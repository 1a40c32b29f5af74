"""Formulations of the positive part that speak of the pair (h, g) alone: big-m, sos1, indicator, triangle.

Over ``l <= z <= u`` and ``h - g = z`` all four have the same linear relaxation, which is the triangle ``h >= 0``, ``h >= z``,
``h <= u (z - l) / (u - l)``: they differ in what a solver branches on.
"""

from __future__ import annotations

import numpy as np

from mipnet.formulations.affine import Affine
from mipnet.formulations.relu import Part, link


@link("big-m")
def big_m(part: Part) -> Affine:
    """``h <= u v`` and ``g <= -l (1 - v)`` with v binary (Fischetti and Jo 2018, section 2, in one long row instead of two)."""
    h, g = part.split()
    switched(part, h, g, part.switch())
    return h


def switched(part: Part, h: Affine, g: Affine, v: Affine) -> None:
    """The rows of big-m."""
    part.rows("positive_only_if_on", h - v * part.upper, "<=")
    part.rows("negative_only_if_off", g - v * part.lower, "<=", -part.lower)


@link("sos1")
def sos1(part: Part) -> Affine:
    """At most one of h and g is not zero: a set of two, and no binary.

    A solver without such sets gets big-m (`mipnet.backend.rewrites`).
    """
    z, block = part.z, part.block
    where = np.stack([part.own, part.undecided], axis=-1)
    lower = np.stack([part.least, np.zeros(part.own.shape)], axis=-1)

    def values(point: np.ndarray) -> np.ndarray:
        at = z.evaluate(point)
        return np.stack([np.maximum(at, 0.0), np.maximum(-at, 0.0)], axis=-1)

    dims = (*block.dims, f"{block.name}_{part.tag}part")
    pair = block.sets(
        f"{part.tag}parts", lower, np.stack([part.upper, part.most], axis=-1), value=values, where=where, dims=dims, shape=where.shape
    )
    places = np.arange(where.size).reshape(where.shape)
    h, g = (pair[places[..., i]].reshape(*part.own.shape) for i in (0, 1))
    part.balance(h, g)
    return h


@link("indicator")
def indicator(part: Part) -> Affine:
    """``v = 0 -> h <= 0`` and ``v = 1 -> g <= 0`` with v binary, without a big-M; a solver without such rows gets big-m."""
    h, g = part.split()
    v = part.switch()[part.undecided]
    part.block.rows_if(f"{part.tag}positive_only_if_on", v, 0, h[part.undecided], "<=")
    part.block.rows_if(f"{part.tag}negative_only_if_off", v, 1, g[part.undecided], "<=")
    return h


@link("triangle", relaxed=True)
def triangle(part: Part) -> Affine:
    """``h / u + g / -l <= 1``: the convex hull of h = max(z, 0) over [l, u], and no binary (Ehlers 2017, section 4).

    A relaxation: its bound is a bound, and its point need not be the network's.  The row is scaled to coefficients that sum to 1.
    """
    h, g = part.split()
    width = np.where(part.undecided, part.upper - part.lower, 1.0)
    part.rows("below_chord", h * (-part.lower / width) + g * (part.upper / width), "<=", -part.lower * part.upper / width)
    return h
