"""Sets of values that users' models have and networks have not: semi-continuous variables and SOS2 sets.

No backend takes them: they become binaries and rows.  A semi-continuous variable is 0 or between its ends.  In an SOS2 set at most two
members are nonzero, and these are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipnet.arrays import Array, Columns
from mipnet.errors.expectations import expects


@dataclass(frozen=True, eq=False)
class SemiContinuous:
    """``x[column[i]] = 0`` or ``lower[i] <= x[column[i]] <= upper[i]``; the bounds of the columns themselves contain 0."""

    columns: Columns
    lower: Array
    upper: Array

    @expects("a number for each variable")
    def excess(self, x: Array) -> Array:
        """Return the distance of each value from 0 or its interval, whichever is nearer."""
        return np.asarray(np.minimum(*self._distances(x)))

    @expects("a number for each variable")
    def binaries(self, x: Array) -> Array:
        """Return 1 for each value that is in its interval rather than at 0."""
        from_zero, from_interval = self._distances(x)
        return (from_interval < from_zero).astype(np.float64)

    def _distances(self, x: Array) -> tuple[Array, Array]:
        """Return the distance of each value from 0, and that from its interval."""
        value = x[self.columns]
        return np.abs(value), np.maximum(np.maximum(self.lower - value, value - self.upper), 0.0)


def best_pair(x: Array, members: Columns) -> int:
    """Return the position of the first of two neighbours of an SOS2 set that hold most of its absolute values."""
    size = np.abs(x[members])
    return int(np.argmax(size[:-1] + size[1:]))


def sos2_excess(x: Array, members: Columns) -> float:
    """Return the largest absolute value of a member that would have to be 0."""
    size, first = np.abs(x[members]), best_pair(x, members)
    return float(np.delete(size, [first, first + 1]).max(initial=0.0))


def sos2_binaries(x: Array, members: Columns) -> Array:
    """Return the binaries of an SOS2 set: 1 for the pair of neighbours that may be nonzero."""
    binaries = np.zeros(len(members) - 1)
    binaries[best_pair(x, members)] = 1.0
    return binaries
