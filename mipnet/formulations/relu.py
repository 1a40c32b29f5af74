"""ReLU: the positive part h = max(z, 0) of an affine value, with which all piecewise-linear activations are written.

Each element is active (z >= 0 for every allowed input, so h = z), inactive (z <= 0, so h = 0) or undecided.  An undecided element is
written with the pair (h, g) of its positive and negative part::

    h - g = z,     0 <= h <= u,     0 <= g <= -l,     h = 0 or g = 0

The first row is the only one with the terms of z.  A formulation, registered with `link`, writes the last condition.  Those that use
the pair (h, g) alone are in this module: big-m, sos1, indicator, triangle.  Over ``l <= z <= u`` and ``h - g = z`` all four have the
same linear relaxation, the triangle ``h >= 0``, ``h >= z``, ``h <= u (z - l) / (u - l)``; they differ in what a solver branches on.
Those that use the terms of the sum z = w x + b are in `mipnet.formulations.relu_partition`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipnet.arrays import Array, Mask, distinct
from mipnet.errors import UnboundedError, UnsupportedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import PARTITION_PARTS_DEFAULT, Block, Phases
from mipnet.formulations.linopy_rows import Sense
from mipnet.formulations.program_size import ProgramSize, big_m_size, pair_size
from mipnet.formulations.registry import Family

POSITIVE_PART = Family("h = 0 or g = 0")
"""The formulations of the positive part, for activations and gates."""

link = POSITIVE_PART.register
"""Register a function from a `PositivePart` to its h as a formulation of ReLU, leaky ReLU, Clip and gates: ``@link("my-name")``.

With ``relaxed=True`` it may leave out the condition that h = 0 or g = 0.
"""


@dataclass(frozen=True, eq=False)
class PositivePart:
    """The positive part ``h = max(z, 0)`` over ``lower <= z <= upper`` of some elements of a block, as a formulation writes it.

    ``own`` marks the elements with a variable h, and ``undecided`` those among them whose sign the bounds do not decide; elsewhere, h is
    0.  All arrays have the shape of the block.  Names of variables and rows begin with ``tag``, and ``suffix`` is the name of h.
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
        """The lower bound of h; with the published bounds it is 0 for active elements too."""
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
        """Add the rows ``h - g = z``."""
        self.block.rows(f"{self.tag}split", (self.z - (h - g))[self.own], "=")

    def switch(self) -> Affine:
        """Add one binary v per undecided element, which is 1 where z > 0."""
        return self.block.variable(
            f"{self.tag}on", 0, 1, where=self.undecided, binary=True, value=lambda p: (self.z.evaluate(p) > 0).astype(float)
        )

    def rows(self, suffix: str, value: Affine, sense: Sense, right: Array | float = 0.0) -> None:
        """Add rows ``value sense right`` for the undecided elements."""
        selected = np.broadcast_to(np.asarray(right, dtype=np.float64), self.own.shape)[self.undecided]
        self.block.rows(f"{self.tag}{suffix}", value[self.undecided], sense, selected)


def positive_part(
    block: Block, suffix: str, z: Affine, lower: Array, upper: Array, *, ceiling: Affine | None = None, always_valid: Mask | None = None
) -> Affine:
    """Write h = max(z, 0), where ``lower <= z <= upper``, and return h; ``ceiling`` is a further valid upper bound of h (U s at a gate).

    The published bounds are not valid for every gate value.  With them, rows keep each decided element in its phase: ``lower <= z <= 0``
    or ``0 <= z <= upper`` (ElAraby et al. 2023, the ReLU constraints with v fixed by its big-M).  Elements whose bounds are valid for
    every gate value, marked by ``always_valid``, need no such rows.
    """
    known = (z.row_sizes == 0).reshape(z.shape)
    lower, upper = np.where(known, z.constant, lower), np.where(known, z.constant, upper)
    active, undecided = lower >= 0, (lower < 0) & (upper > 0)
    block.notes.phases[suffix] = Phases(*(int(kind.sum()) for kind in (active, ~active & ~undecided, undecided)))
    if block.bounds.paper:
        uncertain = ~known if always_valid is None else ~known & ~always_valid
        _add_phase_rows(block, suffix, z, lower, upper, uncertain & active, uncertain & ~active & ~undecided)
    own = undecided | (active & ~known if _needs_variables(z, active & ~known) else False)
    folded = z[active & ~own].place(active & ~own)
    if not own.any():
        return folded
    part = PositivePart(block, f"{suffix}_" if suffix else "", suffix, z, lower, upper, own, undecided)
    return folded + _write(part, ceiling)


def _needs_variables(z: Affine, active: Mask) -> bool:
    """Return True if active elements get one variable each, instead of passing their terms on to later nodes.

    They do if at least one element has more than one term, and all together have more different variables than there are elements.
    """
    long = bool((z.row_sizes[active.reshape(-1)] > 1).any())
    return long and len(distinct(z[active].terms.indices)) > int(active.sum())


def _add_phase_rows(block: Block, suffix: str, z: Affine, lower: Array, upper: Array, active: Mask, inactive: Mask) -> None:
    """Add rows that keep decided elements in their phase for every gate value."""
    tag, on, off = f"{suffix}_" if suffix else "", z[active], z[inactive]
    block.rows(f"{tag}on_above", on, ">=")
    block.rows(f"{tag}on_below", on, "<=", upper[active])
    block.rows(f"{tag}off_above", off, ">=", lower[inactive])
    block.rows(f"{tag}off_below", off, "<=")


def _write(part: PositivePart, ceiling: Affine | None) -> Affine:
    """Write the elements with the chosen formulation, and return h."""
    undecided, name = part.undecided, part.block.node.name
    if not undecided.any():
        return part.split()[0]
    if not (np.isfinite(part.lower[undecided]).all() and np.isfinite(part.upper[undecided]).all()):
        raise UnboundedError(f"node `{name}` needs a finite big-M and has none: give the network's input finite bounds")
    if part.block.chosen_of(POSITIVE_PART) is None:
        raise UnsupportedError(
            f"node `{name}` has a gate, which formulation `{part.block.formulation}` does not support;"
            f" use {', '.join(POSITIVE_PART.formulations)}"
        )
    h = part.block.write_with(POSITIVE_PART, part)
    if ceiling is not None and not part.block.bounds.paper:
        part.rows("ceiling", h - ceiling, "<=")
    return h


@link("big-m", size=big_m_size)
def big_m(part: PositivePart) -> Affine:
    """Write ``h <= u v`` and ``g <= -l (1 - v)`` with v binary (Fischetti and Jo 2018, section 2, with g in place of h - z)."""
    h, g = part.split()
    add_big_m_rows(part, h, g, part.switch())
    return h


def add_big_m_rows(part: PositivePart, h: Affine, g: Affine, v: Affine) -> None:
    """Add the rows ``h <= u v`` and ``g <= -l (1 - v)``."""
    part.rows("positive_only_if_on", h - v * part.upper, "<=")
    part.rows("negative_only_if_off", g - v * part.lower, "<=", -part.lower)


@link("sos1", size=pair_size)
def sos1(part: PositivePart) -> Affine:
    """Write (h, g) as an SOS1 set: at most one of the two is nonzero.  It needs no binary.

    For a solver without SOS1 sets it is rewritten as big-m (`mipnet.backend.rewrites`).
    """
    z, block = part.z, part.block
    where = np.stack([part.own, part.undecided], axis=-1)
    lower = np.stack([part.h_lower, np.zeros(part.own.shape)], axis=-1)

    def values(point: np.ndarray) -> np.ndarray:
        z_value = z.evaluate(point)
        return np.stack([np.maximum(z_value, 0.0), np.maximum(-z_value, 0.0)], axis=-1)

    dims = (*block.dims, f"{block.name}_{part.tag}part")
    pair = block.sets(
        f"{part.tag}parts", lower, np.stack([part.upper, part.g_upper], axis=-1), value=values, where=where, dims=dims, shape=where.shape
    )
    places = np.arange(where.size).reshape(where.shape)
    h, g = (pair[places[..., i]].reshape(*part.own.shape) for i in (0, 1))
    part.balance(h, g)
    return h


@link("indicator", size=lambda terms, parts: pair_size(terms) + ProgramSize(len(terms), 2 * len(terms), 2 * len(terms)))
def indicator(part: PositivePart) -> Affine:
    """Write ``v = 0 -> h <= 0`` and ``v = 1 -> g <= 0`` with v binary, without a big-M.

    For a solver without indicator rows it is rewritten as big-m (`mipnet.backend.rewrites`).
    """
    h, g = part.split()
    v = part.switch()[part.undecided]
    part.block.rows_if(f"{part.tag}positive_only_if_on", v, 0, h[part.undecided], "<=")
    part.block.rows_if(f"{part.tag}negative_only_if_off", v, 1, g[part.undecided], "<=")
    return h


@link("triangle", relaxed=True, size=lambda terms, parts: pair_size(terms) + ProgramSize(0, len(terms), 2 * len(terms)))
def triangle(part: PositivePart) -> Affine:
    """Write ``h / u + g / -l <= 1``, the convex hull of h = max(z, 0) over [l, u], without a binary (Ehlers 2017, section 4).

    This is a relaxation: its optimum is a bound, and its solutions may differ from the network.  The row is scaled so that its
    coefficients sum to 1.
    """
    h, g = part.split()
    width = np.where(part.undecided, part.upper - part.lower, 1.0)
    part.rows("below_chord", h * (-part.lower / width) + g * (part.upper / width), "<=", -part.lower * part.upper / width)
    return h
