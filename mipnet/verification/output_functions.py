"""Functions of a network's outputs, the largest of several linear ones each, and what was found about their minima."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.network.graph import Network
from mipnet.network.properties import Clause
from mipnet.verification.softmax_rows import LogitClause, LogSumRow


@dataclass(frozen=True, eq=False)
class FoundMinimum:
    """The minimum over the box lies in ``[bound, value]``; ``value`` is attained at ``point``, ``method`` is the stage of the bound.

    ``size`` is the largest absolute value of the functions that was found in the box.
    """

    bound: float
    value: float
    point: Array
    method: str
    size: float


@dataclass(frozen=True, eq=False)
class OutputFunctions:
    """The functions ``matrix @ y + offset`` of the value y of the last node, with shapes ``(rows, outputs)`` and ``(rows,)``.

    ``group`` ``(rows,)`` is the number of each function's group.  The minimum of a group is that over all of its functions.
    The functions with the numbers in ``log_sums`` are not linear: they are the excess of that row of the logits.
    """

    matrix: Array
    offset: Array
    group: NDArray[np.int64]
    log_sums: Mapping[int, LogSumRow] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self.group.max()) + 1

    def values(self, network: Network, x: Array) -> Array:
        """Return the value of every function at inputs ``(n, *input_shape)``: ``(n, rows)``."""
        y = network.forward(x).reshape(len(x), -1)
        found: Array = y @ self.matrix.T + self.offset
        for k, row in self.log_sums.items():
            found[:, k] = row.excess(y)
        return found

    def clauses(self, rows: Iterable[int]) -> list[Clause]:
        """Return one clause per function with these numbers, whose excess is the function."""
        some = [(k, self.log_sums.get(int(k))) for k in rows]
        return [
            Clause(self.matrix[[k]], -self.offset[[k]]) if row is None else LogitClause(self.matrix[:0], self.offset[:0], log_sums=(row,))
            for k, row in some
        ]

    def gap(self, value: Array, size: Array, tolerance: float) -> Array:
        """Return the gap at which each group is finished, from its value and its size: ``tolerance * size``."""
        return tolerance * size
