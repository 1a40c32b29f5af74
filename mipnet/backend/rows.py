"""Rows of a program: `lower <= matrix @ x <= upper`, and rows that hold where a binary has a value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from mipnet.arrays import Array, Columns, Csr, Ints, Mask, activity, parts_of, row_of_entry
from mipnet.errors import InputError, described
from mipnet.errors.expectations import expects


@dataclass(frozen=True, eq=False)
class Rows:
    """``lower <= matrix @ x <= upper``; duplicate entries of the matrix are added, and zeros left out, in a copy."""

    matrix: Csr
    lower: Array
    upper: Array

    def __post_init__(self) -> None:
        if not isinstance(self.matrix, Csr):
            raise InputError(f"the matrix of the rows is {described(self.matrix)}; expected a scipy.sparse.csr_array")
        for name, values in (("lower", self.lower), ("upper", self.upper)):
            if not isinstance(values, np.ndarray) or values.shape != self.matrix.shape[:1]:
                raise InputError(f"the {name} ends of the rows are {described(values)}; expected an array of shape {self.matrix.shape[:1]}")
        if not self.matrix.has_canonical_format or not self.matrix.data.all():
            matrix = self.matrix.copy()
            matrix.sum_duplicates()
            matrix.eliminate_zeros()
            object.__setattr__(self, "matrix", matrix)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    @expects("True or False for each row")
    def part(self, which: Mask) -> Rows:
        """Return some of the rows."""
        return Rows(Csr(self.matrix[np.flatnonzero(which)]), self.lower[which], self.upper[which])

    def terms(self, sizes: Array, entries: slice = slice(None)) -> Array:
        """Return ``|row_j| sizes_j`` of some entries, for a size per column."""
        found: Array = np.abs(self.matrix.data[entries])
        found *= sizes[self.matrix.indices[entries]]
        return found

    @expects("a size for each variable")
    def largest_terms(self, sizes: Array) -> Array:
        """Return ``max_j |row_j| sizes_j`` of each row, for a size per column; 0 for a row without entries."""
        starts, largest = self.matrix.indptr, np.zeros(len(self))
        for rows, entries in parts_of(self.matrix):
            first, ends = starts[rows] - starts[rows.start], starts[rows.start + 1 : rows.stop + 1] - starts[rows.start]
            filled = ends > first
            if filled.any():
                largest[rows][filled] = np.maximum.reduceat(self.terms(sizes, entries), first[filled])
        return largest

    @property
    def row_of_entry(self) -> Ints:
        """The row of each entry of the matrix."""
        return row_of_entry(self.matrix)

    @expects("a scale for each variable, and a factor for each row or None")
    def scaled(self, columns: Array, factors: Array | None = None) -> Rows:
        """Return ``f_i row_ij c_j`` with its bounds times f_i, for a scale c per column and a factor f per row (1 where it is None)."""
        own = factors is not None and bool((factors != 1).any())
        if not own and (columns == 1).all():
            return self
        data, sizes = np.empty_like(self.matrix.data), np.diff(self.matrix.indptr)
        for rows, entries in parts_of(self.matrix):
            np.multiply(self.matrix.data[entries], columns[self.matrix.indices[entries]], out=data[entries])
            if factors is not None and own:
                data[entries] *= np.repeat(factors[rows], sizes[rows])
        lower, upper = (self.lower, self.upper) if factors is None else (self.lower * factors, self.upper * factors)
        # the indices are sorted, so that scipy does not sort those that matrices share
        return Rows(Csr((data, self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape), lower, upper)

    @expects("a number for each variable")
    def moved(self, shifts: Array) -> Rows:
        """Return the rows on ``x - shifts``: the same matrix, with bounds less its value at the shifts."""
        if not shifts.any():
            return self
        value = self.matrix @ shifts
        return Rows(self.matrix, self.lower - value, self.upper - value)

    @expects("a number, and a lower and an upper bound for each variable")
    def without(self, negligible: float, lower: Array, upper: Array, *, cuts: int = 0) -> Rows:
        """Return rows without the entries that are, or change a row by, less than ``negligible``, over columns with these ranges.

        The rows allow whatever these entries may add, so no point is cut off.  Entries of fixed columns stay.  The last ``cuts`` rows are
        left out, with infinite bounds, where such an entry has no limit; other rows then raise `InputError`.
        """
        widths = upper - lower
        places = [np.zeros(0, dtype=np.int64)]
        for _, part in parts_of(self.matrix):
            with np.errstate(invalid="ignore"):
                little = self.terms(widths, part) < negligible
            little |= np.abs(self.matrix.data[part]) <= negligible
            if little.any():
                places.append(np.flatnonzero(little) + part.start)
        at = np.concatenate(places)
        at = at[(self.matrix.data[at] != 0) & (widths[self.matrix.indices[at]] > 0)]
        if not len(at):
            return self
        small = np.zeros(self.matrix.nnz, dtype=np.bool_)
        small[at] = True
        entries = [
            Csr((np.where(mask, self.matrix.data, 0.0), self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape)
            for mask in (small, ~small)
        ]
        least, most = activity(entries[0], lower, upper)
        found = Rows(entries[1], self.lower - most, self.upper - least)
        lost = (np.isfinite(self.lower) & np.isinf(found.lower)) | (np.isfinite(self.upper) & np.isinf(found.upper))
        lost[len(self) - cuts :] = False
        if lost.any():
            terms = np.count_nonzero(small & np.isinf(widths[self.matrix.indices]) & lost[self.row_of_entry])
            raise InputError(
                f"{terms} coefficients are less than {negligible:g} of the size of their rows, on variables without finite bounds, and"
                " solvers would drop them; give these variables bounds"
            )
        return found

    @expects("a number for each variable")
    def slack(self, x: Array) -> Array:
        """Return the distance of each row at ``x`` from the nearer one of its bounds, negative where ``x`` violates it."""
        value = self.matrix @ x
        distance: Array = np.minimum(value - self.lower, self.upper - value)
        return distance

    @expects("a number for each variable")
    def violation(self, x: Array) -> Array:
        """Return by how much each row violates its bounds at ``x``, 0 where it holds."""
        value = self.matrix @ x
        excess: Array = np.maximum(np.maximum(self.lower - value, value - self.upper), 0.0)
        return excess


@dataclass(frozen=True, eq=False)
class Indicators:
    """``x[column[i]] = active[i]`` implies row i; ``active`` contains 0 or 1."""

    rows: Rows
    column: Columns
    active: Columns


def stack_rows(*rows: Rows) -> Rows:
    """Return the rows of all arguments, in order."""
    matrix = Csr(sparse.vstack([r.matrix for r in rows], format="csr"))
    return Rows(matrix, np.concatenate([r.lower for r in rows]), np.concatenate([r.upper for r in rows]))
