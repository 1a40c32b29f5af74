"""The rows of a property as outputs of a network: a clause holds at an input where none of its rows is exceeded.

The excess of a row ``a . y <= b`` is ``a . y - b``.  The excesses are one more dense layer after the network.  So they are bounded,
searched and optimised like any output, and a difference of outputs is bounded as such, not from bounds of the single outputs.

A `LogSumRow` is a function of differences ``z_ij = y_i - y_j + shift_ij`` that increases in each of them, so lower bounds of these rows
give a lower bound of its excess::

    log sum_i exp(y_i + a_i) - log sum_j exp(y_j + b_j)  =  log sum_i exp(-log sum_j exp(-z_ij))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipnet.arrays import Array
from mipnet.errors import InputError
from mipnet.layers.dense import Dense
from mipnet.layers.shape import Reshape
from mipnet.network.graph import Network, free_name, size
from mipnet.network.properties import Clause
from mipnet.verification.softmax_rows import LogitClause, LogSumRow

LOG_SUM_ROUNDING_RELATIVE = 1e-15
"""Rounding error of a log-sum per term, relative to 1 + its absolute value."""


@dataclass(frozen=True)
class LogSumBlock:
    """The differences ``z_ij`` of one `LogSumRow` among the rows of an `Excess`: those from ``first`` on, ``plus`` times ``minus`` many."""

    first: int
    plus: int
    minus: int

    @property
    def rows(self) -> slice:
        """The rows."""
        return slice(self.first, self.first + self.plus * self.minus)

    def value(self, rows: Tensor) -> Tensor:
        """Return the excess ``(n,)``, rounded down, for the differences of ``rows`` ``(n, rows)``."""
        z = rows[:, self.rows].reshape(len(rows), self.plus, self.minus)
        found = torch.logsumexp(-torch.logsumexp(-z, 2), 1)
        return found - LOG_SUM_ROUNDING_RELATIVE * (8 + self.plus + self.minus) * (1 + found.abs())


@dataclass(frozen=True, eq=False)
class Excess:
    """A network that returns the excess of every row of some clauses; ``owner`` ``(rows,)`` is the number of each row's clause.

    The rows of a ``log_sums`` block are no rows of the clause, but what its `LogSumRow` is computed from.
    """

    network: Network
    owner: NDArray[np.int64]
    log_sums: tuple[LogSumBlock, ...] = ()

    @staticmethod
    def of(network: Network, clauses: Sequence[Clause]) -> Excess:
        """Append the rows of all clauses to a network, in order; each clause needs at least one row.

        The clauses are written for the last node of the network: for the logits if it ends in a softmax.
        """
        width = size(network.output_shape)
        for clause in clauses:
            if clause.matrix.shape[1] != width:
                raise InputError(f"a row of the property has {clause.matrix.shape[1]} coefficients; the network has {width} outputs")
        layers = [(node.name, node.layer, node.inputs) for node in network.nodes]
        last, taken = network.output.name, {node.name for node in network.nodes}
        if len(network.output_shape) > 1:
            last = free_name("flat_output", taken)
            layers.append((last, Reshape((width,)), (network.output.name,)))
        matrices, shifts, owner, blocks = list[Array](), list[Array](), list[int](), list[LogSumBlock]()
        for k, clause in enumerate(clauses):
            for matrix, shift, log_sum in _parts(clause, width):
                if log_sum is not None:
                    blocks.append(LogSumBlock(len(owner), len(log_sum.plus), len(log_sum.minus)))
                matrices.append(matrix)
                shifts.append(shift)
                owner += [k] * len(shift)
        matrix, shift = np.concatenate(matrices), np.concatenate(shifts)
        layers.append((free_name("excess", taken), Dense(torch.tensor(matrix), torch.tensor(shift)), (last,)))
        return Excess(Network.build(network.input_shape, layers), np.array(owner, dtype=np.int64), tuple(blocks))

    @property
    def clauses(self) -> int:
        """The number of clauses."""
        return int(self.owner[-1]) + 1 if len(self.owner) else 0

    @cached_property
    def linear(self) -> NDArray[np.bool_]:
        """The rows that belong to no block, as a mask."""
        mask = np.ones(len(self.owner), dtype=np.bool_)
        for block in self.log_sums:
            mask[block.rows] = False
        return mask

    @cached_property
    def refuting(self) -> NDArray[np.bool_]:
        """The rows whose excess alone refutes their clause where it is above 0, as a mask."""
        mask = self.linear.copy()
        for block in self.log_sums:
            mask[block.rows] = block.minus == 1
        return mask

    def largest(self, rows: Tensor) -> Tensor:
        """Return the largest excess per clause, from ``(n, rows)`` to ``(n, clauses)``: a clause holds where it is at most 0."""
        if self.clauses == len(self.owner) and not self.log_sums:
            return rows
        values = torch.cat([rows[:, torch.tensor(self.linear)], *(block.value(rows)[:, None] for block in self.log_sums)], 1)
        numbers = np.concatenate([self.owner[self.linear], self.owner[[block.first for block in self.log_sums]]])
        owner = torch.tensor(numbers).expand(len(rows), -1)
        return rows.new_full((len(rows), self.clauses), -torch.inf).scatter_reduce(1, owner, values, "amax")

    def __call__(self, x: Tensor) -> Tensor:
        """Return the largest excess per clause at inputs ``(n, *input_shape)``: shape ``(n, clauses)``, differentiable."""
        return self.largest(self.network.values(x)[self.network.output.name])


def _parts(clause: Clause, width: int) -> list[tuple[Array, Array, LogSumRow | None]]:
    """Return the linear rows of a clause, and the differences of each log-sum: matrix, shift, and the log-sum."""
    parts: list[tuple[Array, Array, LogSumRow | None]] = [(clause.matrix, -clause.rhs, None)]
    for each in clause.log_sums if isinstance(clause, LogitClause) else ():
        matrix = np.zeros((len(each.plus), len(each.minus), width))
        matrix[np.arange(len(each.plus)), :, each.plus] += 1.0
        matrix[:, np.arange(len(each.minus)), each.minus] -= 1.0
        parts.append((matrix.reshape(-1, width), each.shift.reshape(-1), each))
    return parts
