"""SparseMap: any affine map that reads few elements for each output, given by the entries of its matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mipnet.arrays import Csr, Shape, row_of_entry
from mipnet.bounds.interval import Interval, interval, linear
from mipnet.bounds.linear_rules import BackwardBound, affine, backward
from mipnet.errors import suggest_keywords
from mipnet.errors.expectations import expects
from mipnet.formulations.registry import linear_map
from mipnet.network.graph import Layer, constant, require, size, whole_constant


@suggest_keywords
@dataclass(frozen=True, eq=False)
class SparseMap(Layer):
    """``y[rows[e]] = sum entries[e] x[columns[e]] + shift``, with x and y flat in C order; ``shift`` has shape ``target``.

    ``target`` is the shape of one sample of the output.  `SparseMap.of` makes it of a sparse matrix.
    """

    entries: Tensor
    rows: Tensor
    columns: Tensor
    shift: Tensor
    target: Shape

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", constant(self.entries, "the entries of a sparse map"))
        object.__setattr__(self, "shift", constant(self.shift, "the shift of a sparse map"))
        for name in ("rows", "columns"):
            object.__setattr__(self, name, whole_constant(getattr(self, name), f"the {name} of a sparse map"))
        same = self.entries.shape == self.rows.shape == self.columns.shape and self.entries.ndim == 1
        require(same, "its entries, rows and columns are not vectors of one length")
        require(tuple(self.shift.shape) == self.target, f"its shift has shape {tuple(self.shift.shape)}; expected {self.target}")
        high = int(self.rows.max()) if len(self.rows) else 0
        count = size(self.target)
        require(high < count, f"its largest row is {high}, and its output of shape {self.target} has {count} elements")

    @staticmethod
    @expects("a matrix, and a tensor with a number for each of its rows")
    def of(matrix: Csr, shift: Tensor) -> SparseMap:
        """Return the map ``matrix @ x + shift``; the output has the shape of ``shift``."""
        found = Csr(matrix)
        found.eliminate_zeros()
        rows, columns = (torch.as_tensor(each.astype("int64")) for each in (row_of_entry(found), found.indices))
        return SparseMap(torch.as_tensor(found.data), rows, columns, shift, tuple(int(n) for n in shift.shape))

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``target``."""
        (given,) = inputs
        high = int(self.columns.max()) if len(self.columns) else 0
        require(high < size(given), f"its largest column is {high}, and its input of shape {given} has {size(given)} elements")
        return self.target

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the map of a batch."""
        (x,) = inputs
        return self._apply(x, self.entries) + self.shift.to(x.dtype)

    def _apply(self, x: Tensor, entries: Tensor) -> Tensor:
        terms = x.flatten(1)[:, self.columns] * entries.to(x.dtype)
        return terms.new_zeros(len(x), size(self.target)).index_add(1, self.rows, terms).reshape(len(x), *self.target)

    def weights(self) -> dict[str, Tensor]:
        """Return an empty dictionary, because the entries are not trained."""
        return {}


@interval.register(SparseMap)
def _(layer: SparseMap, x: Interval) -> Interval:
    return linear(layer.forward, lambda r: layer._apply(r, layer.entries.abs()), x)


@backward.register(SparseMap)
@affine
def _(layer: SparseMap, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Return the coefficients times the matrix."""
    given, flat = x.lower.shape[1:], coefficients.flatten(1)
    matrix = torch.sparse_coo_tensor(
        torch.stack([layer.columns, layer.rows]), layer.entries, (given.numel(), flat.shape[1]), check_invariants=False
    )
    return (torch.sparse.mm(matrix, flat.T).T.reshape(len(flat), *given),), flat @ layer.shift.flatten()


@linear_map.register(SparseMap)
def _(layer: SparseMap, *shapes: Shape) -> tuple[Csr, ...]:
    entries = (layer.entries.numpy(), (layer.rows.numpy(), layer.columns.numpy()))
    return (Csr(entries, shape=(size(layer.target), size(shapes[0]))),)
