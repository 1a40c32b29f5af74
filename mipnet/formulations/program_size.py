"""The size of a program, or of a part of it: how many columns, rows and nonzeros are written, counted or estimated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mipnet.arrays import Array, Ints

NONZERO_BYTES, LINE_BYTES = 16, 64
"""Bytes of a nonzero, and of a column or a row with its bounds and labels, in one copy of a program."""


@dataclass(frozen=True)
class ProgramSize:
    """Numbers of columns, rows and nonzeros; special constraints, such as indicator rows, count as rows."""

    columns: float = 0.0
    rows: float = 0.0
    nonzeros: float = 0.0

    def __add__(self, other: ProgramSize) -> ProgramSize:
        return ProgramSize(self.columns + other.columns, self.rows + other.rows, self.nonzeros + other.nonzeros)

    @property
    def bytes(self) -> float:
        """The bytes of one copy."""
        return NONZERO_BYTES * self.nonzeros + LINE_BYTES * (self.columns + self.rows)

    def __str__(self) -> str:
        return f"{self.rows:,.0f} rows, {self.columns:,.0f} columns, {self.nonzeros:,.0f} nonzeros"


PositivePartSize = Callable[[Array, int], ProgramSize]
"""The size of a formulation of the positive part, given the number of variables of each undecided element and the number of parts."""

WindowSize = Callable[[Ints, Array], ProgramSize]
"""The size of a formulation of max pooling, given the number of candidates of each window, and of variables of each candidate."""


def pair_size(terms: Array, parts: int = 1) -> ProgramSize:
    """Return the size of the pair (h, g) and its row ``h - g = z``."""
    return ProgramSize(2 * len(terms), len(terms), float(terms.sum()) + 2 * len(terms))


def big_m_size(terms: Array, parts: int = 1) -> ProgramSize:
    """Return the size of the pair, a binary, and two rows with two entries each."""
    return pair_size(terms) + ProgramSize(len(terms), 2 * len(terms), 4 * len(terms))


def max_big_m_size(counts: Ints, terms: Array) -> ProgramSize:
    """Return the size of the maximum and one binary per candidate, with two rows per candidate and one per window."""
    each, long = len(terms), float(terms.sum())
    return ProgramSize(len(counts) + each, 2 * each + len(counts), 2 * long + 4 * each)
