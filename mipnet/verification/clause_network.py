"""The rows of a property as outputs of a network: a clause holds at an input where none of its rows is exceeded.

The excess of a row ``a . y <= b`` is ``a . y - b``.  The excesses are one more dense layer after the network.  So they are bounded,
searched and optimised like any output, and a difference of outputs is bounded as such, not from bounds of the single outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipnet.errors import InputError
from mipnet.layers.dense import Dense
from mipnet.layers.shape import Reshape
from mipnet.network.graph import Network, free_name, size
from mipnet.network.properties import Clause


@dataclass(frozen=True, eq=False)
class Excess:
    """A network that returns the excess of every row of some clauses; ``owner`` ``(rows,)`` is the number of each row's clause."""

    network: Network
    owner: NDArray[np.int64]

    @staticmethod
    def of(network: Network, clauses: Sequence[Clause]) -> Excess:
        """Append the rows of all clauses to a network, in order; each clause needs at least one row."""
        width = size(network.output_shape)
        for clause in clauses:
            if clause.matrix.shape[1] != width:
                raise InputError(f"a row of the property has {clause.matrix.shape[1]} coefficients; the network has {width} outputs")
        layers = [(node.name, node.layer, node.inputs) for node in network.nodes]
        last, taken = network.output.name, {node.name for node in network.nodes}
        if len(network.output_shape) > 1:
            last = free_name("flat_output", taken)
            layers.append((last, Reshape((width,)), (network.output.name,)))
        matrix, rhs = np.concatenate([c.matrix for c in clauses]), np.concatenate([c.rhs for c in clauses])
        layers.append((free_name("excess", taken), Dense(torch.tensor(matrix), torch.tensor(-rhs)), (last,)))
        owner = np.repeat(np.arange(len(clauses)), [len(c.rhs) for c in clauses])
        return Excess(Network.build(network.input_shape, layers), owner)

    @property
    def clauses(self) -> int:
        """The number of clauses."""
        return int(self.owner[-1]) + 1 if len(self.owner) else 0

    def largest(self, rows: Tensor) -> Tensor:
        """Return the largest excess per clause, from ``(n, rows)`` to ``(n, clauses)``: a clause holds where it is at most 0."""
        if self.clauses == len(self.owner):
            return rows
        owner = torch.tensor(self.owner).expand(len(rows), -1)
        return rows.new_full((len(rows), self.clauses), -torch.inf).scatter_reduce(1, owner, rows, "amax")

    def __call__(self, x: Tensor) -> Tensor:
        """Return the largest excess per clause at inputs ``(n, *input_shape)``: shape ``(n, clauses)``, differentiable."""
        return self.largest(self.network.values(x)[self.network.output.name])
