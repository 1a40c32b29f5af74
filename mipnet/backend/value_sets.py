"""Sets of values that users' models have and networks have not: semi-continuous variables and SOS2 sets.

No backend takes them: they become binaries and rows.  A semi-continuous variable is 0 or between its ends.  In an SOS2 set at most two
members are nonzero, and these are neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mipnet.arrays import Array, Columns, Csr


@dataclass(frozen=True, eq=False)
class SemiContinuous:
    """``x[column[i]] = 0`` or ``lower[i] <= x[column[i]] <= upper[i]``; the bounds of the columns themselves contain 0."""

    columns: Columns
    lower: Array
    upper: Array

    def excess(self, x: Array) -> Array:
        """Return the distance of each value from 0 or its interval, whichever is nearer."""
        value = x[self.columns]
        outside = np.maximum(np.maximum(self.lower - value, value - self.upper), 0.0)
        return np.asarray(np.minimum(np.abs(value), outside))

    def binaries(self, x: Array) -> Array:
        """Return 1 for each value that is in its interval rather than at 0."""
        value = x[self.columns]
        outside = np.maximum(np.maximum(self.lower - value, value - self.upper), 0.0)
        return (outside < np.abs(value)).astype(np.float64)


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


def sos2_rows(sets: Sequence[Columns], lower: Array, upper: Array, columns: int) -> tuple[Csr, Array, Array]:
    """Return matrix, lower and upper bounds of the rows of SOS2 sets, whose binaries are appended to the columns, one per pair.

    With ``s_i`` the sum of the binaries of the pairs that contain member i, ``l_i s_i <= x_i <= u_i s_i``; the binaries of a set sum to 1.
    """
    data, row, column, low, high = list[float](), list[int](), list[int](), list[float](), list[float]()
    start = columns

    def add(entries: dict[int, float], least: float, most: float) -> None:
        row.extend([len(low)] * len(entries))
        column.extend(entries)
        data.extend(entries.values())
        low.append(least)
        high.append(most)

    for members in sets:
        pairs = len(members) - 1
        for i, j in enumerate(members.tolist()):
            own = [start + pair for pair in (i - 1, i) if 0 <= pair < pairs]
            add({j: 1.0, **dict.fromkeys(own, -float(upper[j]))}, -np.inf, 0.0)
            if lower[j] < 0:
                add({j: 1.0, **dict.fromkeys(own, -float(lower[j]))}, 0.0, np.inf)
        add(dict.fromkeys(range(start, start + pairs), 1.0), 1.0, 1.0)
        start += pairs
    return Csr((data, (row, column)), shape=(len(low), start)), np.array(low), np.array(high)
