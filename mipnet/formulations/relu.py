"""ReLU: the positive part h = max(z, 0) of an affine value, of which all piecewise-linear activations are made.

Each element is one of three: z >= 0 for every allowed input (h is z itself), z <= 0 (h is 0), or undecided.  An undecided
element is written with the pair (h, g) of its positive and negative part::

    h - g = z,     0 <= h <= u,     0 <= g <= -l,     h = 0 or g = 0

in one long row.  A formulation says how the last condition is written; it is registered with `link`.  Those that involve the pair
(h, g) alone are here: big-m, sos1, indicator, triangle.  Over ``l <= z <= u`` and ``h - g = z`` all four have the same linear
relaxation, which is the triangle ``h >= 0``, ``h >= z``, ``h <= u (z - l) / (u - l)``: they differ in what a solver branches on.
Those that use the terms of the sum z = w x + b are in `mipnet.formulations.relu_partition`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipnet.arrays import Array, Mask
from mipnet.errors import UnboundedError, UnsupportedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import PARTITION_PARTS_DEFAULT, Block, Phases
from mipnet.formulations.linopy_rows import Sense
from mipnet.formulations.registry import Family

POSITIVE_PART = Family("h = 0 or g = 0")
"""The formulations of the positive part, for every layer that is made of positive parts, and for gates."""

link = POSITIVE_PART.register
"""Register a function from a `PositivePart` to its h as a formulation of ReLU, leaky ReLU, clips and gates: ``@link("mine")``.

With ``relaxed=True`` it may leave out that h = 0 or g = 0.
"""


@dataclass(frozen=True, eq=False)
class PositivePart:
    """What a formulation of the positive part writes: ``h = max(z, 0)`` over ``lower <= z <= upper``, for the elements of a block.

    ``own`` marks the elements with a variable h, ``undecided`` those among them that may have either sign; h is 0 elsewhere.  Names of
    variables and rows begin with ``tag``; ``parts`` is the number of parts for `partition`.
    """

    block: Block
    tag: str
    suffix: str
    z: Affine
    lower: Array
    upper: Array
    own: Mask
    undecided: Mask

    @property
    def parts(self) -> int:
        """The number of parts for `partition`."""
        chosen = self.block.chosen_of(POSITIVE_PART)
        return PARTITION_PARTS_DEFAULT if chosen is None else chosen.parts

    @property
    def h_lower(self) -> Array:
        """The lower bound of h: the active units of the published bounds range over [0, u]."""
        return np.zeros(self.own.shape) if self.block.bounds.paper else np.maximum(self.lower, 0.0)

    @property
    def g_upper(self) -> Array:
        """The upper bound of g."""
        return np.maximum(-self.lower, 0.0)

    def split(self) -> tuple[Affine, Affine]:
        """Add the variables h and g, and the rows ``h - g = z``."""
        z = self.z
        h = self.block.variable(self.suffix, self.h_lower, self.upper, where=self.own, value=lambda p: np.maximum(z.evaluate(p), 0))
        g = self.block.variable(
            f"{self.tag}negative", 0.0, self.g_upper, where=self.undecided, value=lambda p: np.maximum(-z.evaluate(p), 0)
        )
        self.balance(h, g)
        return h, g

    def balance(self, h: Affine, g: Affine) -> None:
        """Add the rows ``h - g = z``; the long rows of z are neither negated nor merged."""
        self.block.rows(f"{self.tag}split", (self.z - (h - g))[self.own], "=")

    def switch(self) -> Affine:
        """Add a binary v per undecided element: 1 where z > 0."""
        return self.block.variable(
            f"{self.tag}on", 0, 1, where=self.undecided, binary=True, value=lambda p: (self.z.evaluate(p) > 0).astype(float)
        )

    def rows(self, suffix: str, value: Affine, sense: Sense, right: Array | float = 0.0) -> None:
        """Add rows ``value sense right`` for the undecided elements."""
        there = np.broadcast_to(np.asarray(right, dtype=np.float64), self.own.shape)[self.undecided]
        self.block.rows(f"{self.tag}{suffix}", value[self.undecided], sense, there)


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
    block.notes.phases[suffix] = Phases(*(int(kind.sum()) for kind in (active, ~active & ~undecided, undecided)))
    if block.bounds.paper:
        doubtful = ~known if sure is None else ~known & ~sure
        _keep_pattern(block, suffix, z, lower, upper, doubtful & active, doubtful & ~active & ~undecided)
    own = undecided | (active & ~known if _worth_a_variable(z, active & ~known) else False)
    folded = z[active & ~own].place(active & ~own)
    if not own.any():
        return folded
    part = PositivePart(block, f"{suffix}_" if suffix else "", suffix, z, lower, upper, own, undecided)
    return folded + _written(part, ceiling)


def _worth_a_variable(z: Affine, active: Mask) -> bool:
    """True if passing on the rows of decided elements would spread more variables than it saves."""
    long = bool((z.row_sizes[active.reshape(-1)] > 1).any())
    return long and len(np.unique(z[active].terms.indices)) > int(active.sum())


def _keep_pattern(block: Block, suffix: str, z: Affine, lower: Array, upper: Array, active: Mask, inactive: Mask) -> None:
    tag, on, off = f"{suffix}_" if suffix else "", z[active], z[inactive]
    block.rows(f"{tag}on_above", on, ">=")
    block.rows(f"{tag}on_below", on, "<=", upper[active])
    block.rows(f"{tag}off_above", off, ">=", lower[inactive])
    block.rows(f"{tag}off_below", off, "<=")


def _written(part: PositivePart, ceiling: Affine | None) -> Affine:
    undecided, name = part.undecided, part.block.node.name
    if not undecided.any():
        return part.split()[0]
    if not (np.isfinite(part.lower[undecided]).all() and np.isfinite(part.upper[undecided]).all()):
        raise UnboundedError(f"node `{name}` needs a finite big-M and has none: give the network's input finite bounds")
    chosen = part.block.chosen_of(POSITIVE_PART)
    if chosen is None:
        raise UnsupportedError(
            f"node `{name}` is gated, which formulation `{part.block.formulation}` is not made for;"
            f" use {', '.join(POSITIVE_PART.formulations)}"
        )
    h = POSITIVE_PART.formulations[chosen.formulation.name].write(part)
    if ceiling is not None and not part.block.bounds.paper:
        part.rows("ceiling", h - ceiling, "<=")
    return h


@link("big-m")
def big_m(part: PositivePart) -> Affine:
    """``h <= u v`` and ``g <= -l (1 - v)`` with v binary (Fischetti and Jo 2018, section 2, in one long row instead of two)."""
    h, g = part.split()
    switched(part, h, g, part.switch())
    return h


def switched(part: PositivePart, h: Affine, g: Affine, v: Affine) -> None:
    """The rows of big-m."""
    part.rows("positive_only_if_on", h - v * part.upper, "<=")
    part.rows("negative_only_if_off", g - v * part.lower, "<=", -part.lower)


@link("sos1")
def sos1(part: PositivePart) -> Affine:
    """At most one of h and g is not zero: a set of two, and no binary.

    A solver without such sets gets big-m (`mipnet.backend.rewrites`).
    """
    z, block = part.z, part.block
    where = np.stack([part.own, part.undecided], axis=-1)
    lower = np.stack([part.h_lower, np.zeros(part.own.shape)], axis=-1)

    def values(point: np.ndarray) -> np.ndarray:
        at = z.evaluate(point)
        return np.stack([np.maximum(at, 0.0), np.maximum(-at, 0.0)], axis=-1)

    dims = (*block.dims, f"{block.name}_{part.tag}part")
    pair = block.sets(
        f"{part.tag}parts", lower, np.stack([part.upper, part.g_upper], axis=-1), value=values, where=where, dims=dims, shape=where.shape
    )
    places = np.arange(where.size).reshape(where.shape)
    h, g = (pair[places[..., i]].reshape(*part.own.shape) for i in (0, 1))
    part.balance(h, g)
    return h


@link("indicator")
def indicator(part: PositivePart) -> Affine:
    """``v = 0 -> h <= 0`` and ``v = 1 -> g <= 0`` with v binary, without a big-M; a solver without such rows gets big-m."""
    h, g = part.split()
    v = part.switch()[part.undecided]
    part.block.rows_if(f"{part.tag}positive_only_if_on", v, 0, h[part.undecided], "<=")
    part.block.rows_if(f"{part.tag}negative_only_if_off", v, 1, g[part.undecided], "<=")
    return h


@link("triangle", relaxed=True)
def triangle(part: PositivePart) -> Affine:
    """``h / u + g / -l <= 1``: the convex hull of h = max(z, 0) over [l, u], and no binary (Ehlers 2017, section 4).

    A relaxation: its bound is a bound, and its point need not be the network's.  The row is scaled to coefficients that sum to 1.
    """
    h, g = part.split()
    width = np.where(part.undecided, part.upper - part.lower, 1.0)
    part.rows("below_chord", h * (-part.lower / width) + g * (part.upper / width), "<=", -part.lower * part.upper / width)
    return h
