"""The positive part h = max(z, 0) of an affine value, the one nonlinearity that all piecewise-linear layers are made of.

Each element is one of three: z >= 0 for every allowed input (h is z itself), z <= 0 (h is 0), or undecided.  An undecided
element is written with the pair (h, g) of its positive and negative part::

    h - g = z,     0 <= h <= u,     0 <= g <= -l,     h = 0 or g = 0

in one long row.  How the last condition is said is a `Link`, registered under the name of a formulation: see `pairs` and
`partition`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mipnet.arrays import Array, Mask
from mipnet.errors import UnboundedError, UnsupportedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import RELAXED, Block, Phases
from mipnet.formulations.linopy_rows import Sense

Link = Callable[["Part"], Affine]

LINKS: dict[str, Link] = {}
"""How ``h = 0 or g = 0`` is written, by formulation name."""


def link(name: str, *, relaxed: bool = False) -> Callable[[Link], Link]:
    """Register a function from a `Part` to its h as a formulation; ``relaxed``: it leaves out that h = 0 or g = 0."""

    def register(function: Link) -> Link:
        LINKS[name] = function
        RELAXED.update({name} if relaxed else ())
        return function

    return register


@dataclass(frozen=True, eq=False)
class Part:
    """What a link is to write: ``h = max(z, 0)`` over ``lower <= z <= upper``, for all elements of a block that need variables.

    ``own`` are the elements with a variable h, ``undecided`` those among them that may have either sign; h is 0 elsewhere.
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
    def least(self) -> Array:
        """The lower bound of h: the paper's active units range over [0, u]."""
        return np.zeros(self.own.shape) if self.block.paper else np.maximum(self.lower, 0.0)

    @property
    def most(self) -> Array:
        """The upper bound of g."""
        return np.maximum(-self.lower, 0.0)

    def split(self) -> tuple[Affine, Affine]:
        """Variables h and g, and the rows ``h - g = z``."""
        z = self.z
        h = self.block.variable(self.suffix, self.least, self.upper, where=self.own, value=lambda p: np.maximum(z.evaluate(p), 0))
        g = self.block.variable(f"{self.tag}negative", 0.0, self.most, where=self.undecided, value=lambda p: np.maximum(-z.evaluate(p), 0))
        self.balance(h, g)
        return h, g

    def balance(self, h: Affine, g: Affine) -> None:
        """The rows ``h - g = z``; the long rows of z are neither negated nor merged."""
        self.block.rows(f"{self.tag}split", (self.z - (h - g))[self.own], "=")

    def switch(self) -> Affine:
        """A binary v for each undecided element: 1 where z > 0."""
        return self.block.variable(
            f"{self.tag}on", 0, 1, where=self.undecided, binary=True, value=lambda p: (self.z.evaluate(p) > 0).astype(float)
        )

    def rows(self, suffix: str, value: Affine, sense: Sense, right: Array | float = 0.0) -> None:
        """Rows ``value sense right`` for the undecided elements."""
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
    block.phases[suffix] = Phases(*(int(kind.sum()) for kind in (active, ~active & ~undecided, undecided)))
    if block.paper:
        doubtful = ~known if sure is None else ~known & ~sure
        _keep_pattern(block, suffix, z, lower, upper, doubtful & active, doubtful & ~active & ~undecided)
    own = undecided | (active & ~known if _worth_a_variable(z, active & ~known) else False)
    folded = z[active & ~own].place(active & ~own)
    if not own.any():
        return folded
    part = Part(block, f"{suffix}_" if suffix else "", suffix, z, lower, upper, own, undecided)
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


def _written(part: Part, ceiling: Affine | None) -> Affine:
    undecided, name = part.undecided, part.block.node.name
    if not undecided.any():
        return part.split()[0]
    if not (np.isfinite(part.lower[undecided]).all() and np.isfinite(part.upper[undecided]).all()):
        raise UnboundedError(f"node `{name}` needs a finite big-M and has none: give the network's input finite bounds")
    if part.block.formulation not in LINKS:
        raise UnsupportedError(
            f"node `{name}` is gated, which formulation `{part.block.formulation}` is not made for; use {', '.join(LINKS)}"
        )
    h = LINKS[part.block.formulation](part)
    if ceiling is not None and not part.block.paper:
        part.rows("ceiling", h - ceiling, "<=")
    return h
