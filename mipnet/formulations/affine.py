"""Affine values: what flows between layers while a network is being written down.

The value of a node is, for every sample and element, an affine function of the variables that exist so far::

    value = terms @ variables + constant

``terms`` is a sparse matrix with a row for each (sample, element), flat in C order, and a column for each variable label of
the linopy model.  A constant has no terms, a fresh variable has one, a convolution of a convolution is still one row an
element: constants and affine chains fold by themselves, and only a nonlinear layer makes variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mipnet.arrays import Array, Csr, Ints, Mask, Shape, widen


@dataclass(frozen=True, eq=False)
class Affine:
    """``terms @ variables + constant`` with ``constant`` of shape ``(sample, *shape)``."""

    terms: Csr
    constant: Array

    @staticmethod
    def fixed(value: Array) -> Affine:
        """A value without variables."""
        return Affine(Csr((value.size, 0)), np.asarray(value, dtype=np.float64))

    @staticmethod
    def of(labels: NDArray[Any], coefficient: float | Array = 1.0) -> Affine:
        """One variable an element, given by label; a label of -1 means zero."""
        flat = labels.reshape(-1)
        there = flat >= 0
        width = int(flat.max(initial=-1)) + 1
        data = np.broadcast_to(coefficient, labels.shape).reshape(-1)[there].astype(np.float64)
        indptr = np.concatenate([[0], np.cumsum(there)])
        return Affine(Csr((data, flat[there].astype(np.int32), indptr.astype(np.int32)), shape=(flat.size, width)), np.zeros(labels.shape))

    @property
    def shape(self) -> Shape:
        """``(sample, *shape)``."""
        return self.constant.shape

    @property
    def is_fixed(self) -> bool:
        """True if no variable takes part."""
        return self.terms.nnz == 0

    @property
    def row_sizes(self) -> Ints:
        """Number of variables in each element's row, flat."""
        return np.diff(self.terms.indptr).astype(np.int64)

    def __add__(self, other: Affine | Array | float) -> Affine:
        if not isinstance(other, Affine):
            return Affine(self.terms, self.constant + other)
        if other.is_fixed or self.is_fixed:
            return Affine(self.terms if other.is_fixed else other.terms, self.constant + other.constant)
        return Affine(add_terms(self.terms, other.terms), self.constant + other.constant)

    def __neg__(self) -> Affine:
        return self * -1.0

    def __sub__(self, other: Affine | Array | float) -> Affine:
        return self + (-other)

    def __mul__(self, factor: Array | float) -> Affine:
        """Every element times its own number, broadcast against ``shape``."""
        each = np.asarray(factor, dtype=np.float64)
        if each.ndim:
            each = np.repeat(np.broadcast_to(each, self.shape).reshape(-1), self.row_sizes)
        terms = Csr((self.terms.data * each, self.terms.indices, self.terms.indptr), shape=self.terms.shape)
        if (each == 0).any():  # in place, so on arrays of its own
            terms = terms.copy()
            terms.eliminate_zeros()
        return Affine(terms, self.constant * factor)

    __rmul__ = __mul__

    def reshape(self, *shape: int) -> Affine:
        """The same elements in the same order under another shape."""
        return Affine(self.terms, self.constant.reshape(shape))

    def __getitem__(self, where: Mask | Ints) -> Affine:
        """The elements at flat positions, or where a mask of ``shape`` holds, as a flat value."""
        if where.dtype == np.bool_ and where.all():
            return self.reshape(-1)
        flat = np.flatnonzero(where) if where.dtype == np.bool_ else where.reshape(-1)
        return Affine(self.terms[flat], self.constant.reshape(-1)[flat])

    def place(self, where: Mask) -> Affine:
        """The opposite of selecting by a mask: the flat elements put where ``where`` holds, zero elsewhere."""
        sizes = np.zeros(where.size, dtype=np.int64)
        sizes[where.reshape(-1)] = self.row_sizes
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(self.terms.indptr.dtype)
        constant = np.zeros(where.shape)
        constant[where] = self.constant
        return Affine(Csr((self.terms.data, self.terms.indices, indptr), shape=(where.size, self.terms.shape[1])), constant)

    def through(self, matrix: Csr, constant: Array) -> Affine:
        """A linear layer applied to every sample: terms of ``(I kron matrix) @ self``, with the constant already computed."""
        return Affine(per_sample(matrix, self.shape[0], self.terms), constant)

    def total(self) -> Affine:
        """The sum of all elements, of shape ``()``."""
        row = Csr((self.terms.data, self.terms.indices, np.array([0, self.terms.nnz])), shape=(1, self.terms.shape[1])).copy()
        row.sum_duplicates()
        return Affine(row, np.asarray(self.constant.sum()))

    def evaluate(self, point: Array) -> Array:
        """The value where the variable with label i has the value ``point[i]``."""
        if self.is_fixed:
            return self.constant
        value: Array = self.constant + (widen(self.terms, len(point)) @ point).reshape(self.shape)
        return value


def add_terms(a: Csr, b: Csr) -> Csr:
    """The sum, row by row.  Where all variables of one side are later ones, as fresh ones are, its terms only go behind the others."""
    rows, width = a.shape[0], max(a.shape[1], b.shape[1])
    for first, last in ((a, b), (b, a)):
        start = first.shape[1]
        if last.nnz < first.nnz and last.indices.min() >= start:
            behind = Csr((last.data, last.indices - start, last.indptr), shape=(rows, width - start))
            return Csr(sparse.hstack([first, behind], format="csr"))
    return Csr(widen(a, width) + widen(b, width))


def concatenate(values: Sequence[Affine], axis: int) -> Affine:
    """Values side by side along one axis of ``(sample, *shape)``."""
    order = np.concatenate([start + np.arange(v.constant.size).reshape(v.shape) for v, start in _with_starts(values)], axis=axis)
    width = max(v.terms.shape[1] for v in values)
    terms = Csr(sparse.vstack([widen(v.terms, width) for v in values], format="csr"))
    return Affine(terms[order.reshape(-1)], np.concatenate([v.constant for v in values], axis=axis))


def _with_starts(values: Sequence[Affine]) -> list[tuple[Affine, int]]:
    starts = np.cumsum([0, *(v.constant.size for v in values)])
    return [(v, int(start)) for v, start in zip(values, starts, strict=False)]


def per_sample(matrix: Csr, samples: int, terms: Csr) -> Csr:
    """``(I_samples kron matrix) @ terms`` without building what is not needed.

    Where every row of ``terms`` is one variable (the usual case behind a nonlinear layer) the product is a renaming of columns.
    """
    if terms.nnz == 0:
        return Csr((samples * matrix.shape[0], terms.shape[1]))
    n_out, n_in = matrix.shape
    if (np.diff(terms.indptr) == 1).all() and len(np.unique(terms.indices)) == len(terms.indices):
        data = np.tile(matrix.data, samples)
        variables = terms.indices.reshape(samples, n_in).take(matrix.indices, axis=1).reshape(-1)
        if not (terms.data == 1).all():
            data *= terms.data.reshape(samples, n_in).take(matrix.indices, axis=1).reshape(-1)
        return Csr((data, variables, _starts(matrix, samples)), shape=(samples * n_out, terms.shape[1]))
    variables = np.unique(terms.indices)
    if len(variables) <= FEW:
        return _few_variables(matrix, samples, terms, variables)
    columns = (matrix.indices[None, :] + n_in * np.arange(samples, dtype=np.int64)[:, None]).reshape(-1)
    blocks = Csr((np.tile(matrix.data, samples), columns, _starts(matrix, samples)), shape=(samples * n_out, samples * n_in))
    product = blocks @ terms
    product.sum_duplicates()
    return Csr(product)


FEW = 64
"""Where no more variables than these lie behind all of a layer's inputs, as scores do, their coefficients are held densely."""


def _few_variables(matrix: Csr, samples: int, terms: Csr, variables: NDArray[Any]) -> Csr:
    (n_out, n_in), k = matrix.shape, len(variables)
    row = np.repeat(np.arange(samples * n_in), np.diff(terms.indptr))
    dense = np.zeros((n_in, samples, k))
    dense[row % n_in, row // n_in, np.searchsorted(variables, terms.indices)] = terms.data
    product = (matrix @ dense.reshape(n_in, samples * k)).reshape(n_out, samples, k).transpose(1, 0, 2).reshape(samples * n_out, k)
    there = product != 0
    indptr = np.append(0, np.cumsum(there.sum(axis=1)))
    return Csr((product[there], np.broadcast_to(variables, there.shape)[there], indptr), shape=(samples * n_out, terms.shape[1]))


def _starts(matrix: Csr, samples: int) -> NDArray[Any]:
    """Where the rows of ``I_samples kron matrix`` begin."""
    starts = (matrix.indptr[None, :-1] + matrix.nnz * np.arange(samples, dtype=np.int64)[:, None]).reshape(-1)
    return _small(np.append(starts, samples * matrix.nnz))


def _small(indptr: Ints) -> NDArray[Any]:
    return indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr
