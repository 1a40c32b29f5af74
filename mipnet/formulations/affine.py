"""Affine values: the value of each node as an affine function of the model's variables.

For every sample and element::

    value = terms @ variables + constant

``terms`` is a sparse matrix with one row per (sample, element), flat in C order, and one column per variable label of the linopy
model.  A constant has no terms, and a new variable has one.  An affine layer only multiplies ``terms`` by its matrix, so a chain of
affine layers needs no variables; only nonlinear layers add some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mipnet.arrays import ENTRIES_AT_ONCE, Array, Csr, Ints, Mask, Shape, distinct, parts_of, row_of_entry, widen
from mipnet.errors.expectations import expects
from mipnet.limits.deadline import NO_DEADLINE, Deadline

PRODUCT_MULTIPLICATIONS_MAX = 2**25
"""Largest number of multiplications of a product of sparse matrices between two looks at the clock."""

COEFFICIENTS_AT_ONCE = 2**24
"""Largest number of coefficients that are copied from sample to sample between two looks at the clock."""

DENSE_PRODUCT_VARIABLES_MAX = 64
"""Largest number of different variables in all inputs of a layer, such as scores, for which the product is computed with a dense array."""


@dataclass(frozen=True, eq=False)
class Affine:
    """``terms @ variables + constant`` with ``constant`` of shape ``(sample, *shape)``."""

    terms: Csr
    constant: Array

    @staticmethod
    @expects("an array of shape (sample, *shape)")
    def fixed(value: Array) -> Affine:
        """Return a constant value, without variables."""
        return Affine(Csr((value.size, 0)), np.asarray(value, dtype=np.float64))

    @staticmethod
    @expects("whole labels of shape (sample, *shape), and a number or an array of numbers of that shape")
    def of(labels: NDArray[Any], coefficient: float | Array = 1.0) -> Affine:
        """Return ``coefficient`` times one variable per element, given by label; an element with label -1 is 0."""
        flat = labels.reshape(-1)
        present = flat >= 0
        width = int(flat.max(initial=-1)) + 1
        data = np.broadcast_to(coefficient, labels.shape).reshape(-1)[present].astype(np.float64)
        indptr = np.concatenate([[0], np.cumsum(present)])
        return Affine(
            Csr((data, flat[present].astype(np.int32), indptr.astype(np.int32)), shape=(flat.size, width)), np.zeros(labels.shape)
        )

    @property
    def shape(self) -> Shape:
        """``(sample, *shape)``."""
        return self.constant.shape

    @property
    def is_fixed(self) -> bool:
        """True if the value is constant."""
        return self.terms.nnz == 0

    @property
    def row_sizes(self) -> Ints:
        """Number of variables per element, flat."""
        return np.diff(self.terms.indptr).astype(np.int64)

    def __add__(self, other: Affine | Array | float) -> Affine:
        if not isinstance(other, Affine):
            return Affine(self.terms, self.constant + other)
        if other.is_fixed or self.is_fixed:
            return Affine(self.terms if other.is_fixed else other.terms, self.constant + other.constant)
        return Affine(add_terms(self.terms, other.terms), self.constant + other.constant)

    __radd__ = __add__
    __array_ufunc__ = None  # so that numpy leaves ``array + value`` and ``array * value`` to this class

    def __neg__(self) -> Affine:
        return self * -1.0

    def __sub__(self, other: Affine | Array | float) -> Affine:
        return self + (-other)

    def __rsub__(self, other: Array | float) -> Affine:
        return -self + other

    def __truediv__(self, divisor: Array | float) -> Affine:
        return self * (1.0 / np.asarray(divisor, dtype=np.float64))

    def __mul__(self, factor: Array | float) -> Affine:
        """Multiply element by element; ``factor`` broadcasts against ``shape``."""
        each = np.asarray(factor, dtype=np.float64)
        if each.ndim:
            each = np.repeat(np.broadcast_to(each, self.shape).reshape(-1), self.row_sizes)
        terms = self.terms.copy()  # indices of its own: scipy sorts them and eliminates zeros in place
        terms.data = terms.data * each
        if (each == 0).any():
            terms.eliminate_zeros()
        return Affine(terms, self.constant * factor)

    __rmul__ = __mul__

    def reshape(self, *shape: int) -> Affine:
        """Return the same elements, in the same order, with another shape."""
        return Affine(self.terms, self.constant.reshape(shape))

    def __getitem__(self, where: Mask | Ints) -> Affine:
        """Return the elements at flat positions, or those where a mask of shape ``shape`` is True, as a flat value."""
        if where.dtype == np.bool_ and where.all():
            return self.reshape(-1)
        flat = np.flatnonzero(where) if where.dtype == np.bool_ else where.reshape(-1)
        return Affine(self.terms[flat], self.constant.reshape(-1)[flat])

    @expects("True or False for each element, with as many True as there are values")
    def place(self, where: Mask) -> Affine:
        """Return a value of the mask's shape: the flat elements of this value where ``where`` is True, 0 elsewhere.

        It reverses the selection by a mask.
        """
        sizes = np.zeros(where.size, dtype=np.int64)
        sizes[where.reshape(-1)] = self.row_sizes
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(self.terms.indptr.dtype)
        constant = np.zeros(where.shape)
        constant[where] = self.constant
        return Affine(Csr((self.terms.data, self.terms.indices, indptr), shape=(where.size, self.terms.shape[1])), constant)

    @expects("a matrix, scipy.sparse.csr_array, that is as wide as a sample has elements, and a constant of the shape of the result")
    def through(self, matrix: Csr, constant: Array, deadline: Deadline = NO_DEADLINE) -> Affine:
        """Apply a linear layer to every sample: the terms are ``(I kron matrix) @ terms``; the new constant is given.

        Raises `TimeLimitReached` after the deadline.
        """
        return Affine(per_sample(matrix, self.shape[0], self.terms, deadline), constant)

    def total(self) -> Affine:
        """Return the sum of all elements, of shape ``()``."""
        row = Csr((self.terms.data, self.terms.indices, np.array([0, self.terms.nnz])), shape=(1, self.terms.shape[1])).copy()
        row.sum_duplicates()
        return Affine(row, np.asarray(self.constant.sum()))

    @expects("a number for each label")
    def evaluate(self, point: Array) -> Array:
        """Return the value at a point, where the variable with label i has the value ``point[i]``; shape ``shape``."""
        if self.is_fixed:
            return self.constant
        value: Array = self.constant + (widen(self.terms, len(point)) @ point).reshape(self.shape)
        return value


def add_terms(a: Csr, b: Csr) -> Csr:
    """Return the sum of two sparse matrices, each widened to the columns of both.

    If all columns of one lie after those of the other, as those of new variables do, the two are stacked side by side, which is faster.
    """
    width = max(a.shape[1], b.shape[1])
    for first, last in ((a, b), (b, a)):
        start = first.shape[1]
        if last.nnz < first.nnz and last.indices.min() >= start:
            return _side_by_side(first, last)
    return Csr(widen(a, width) + widen(b, width))


def _side_by_side(first: Csr, last: Csr) -> Csr:
    """Return the sum of two matrices, where all columns of the second lie after those of the first."""
    size = first.nnz + last.nnz
    starts: NDArray[Any] = _as_int32(first.indptr.astype(np.int64) + last.indptr)
    data, columns = np.empty(size), np.empty(size, dtype=np.result_type(first.indices, last.indices))
    for rows, entries in parts_of(first):
        ends = slice(rows.start + 1, rows.stop + 1)
        more, here = (slice(int(each[rows.start]), int(each[rows.stop])) for each in (last.indptr, starts))
        places = (
            np.arange(more.start, more.stop) + np.repeat(first.indptr[ends], np.diff(last.indptr[rows.start : rows.stop + 1])) - here.start
        )
        of_first = np.ones(here.stop - here.start, dtype=np.bool_)
        of_first[places] = False
        for joined, own, added in ((data, first.data, last.data), (columns, first.indices, last.indices)):
            joined[here][of_first], joined[here][places] = own[entries], added[more]
    return Csr((data, columns, starts), shape=(first.shape[0], last.shape[1]))


def concatenate(values: Sequence[Affine], axis: int) -> Affine:
    """Return several values joined along one axis of ``(sample, *shape)``."""
    order = np.concatenate([start + np.arange(v.constant.size).reshape(v.shape) for v, start in _with_starts(values)], axis=axis)
    width = max(v.terms.shape[1] for v in values)
    terms = Csr(sparse.vstack([widen(v.terms, width) for v in values], format="csr"))
    return Affine(terms[order.reshape(-1)], np.concatenate([v.constant for v in values], axis=axis))


def _with_starts(values: Sequence[Affine]) -> list[tuple[Affine, int]]:
    starts = np.cumsum([0, *(v.constant.size for v in values)])
    return [(v, int(start)) for v, start in zip(values, starts, strict=False)]


def per_sample(matrix: Csr, samples: int, terms: Csr, deadline: Deadline = NO_DEADLINE) -> Csr:
    """Return ``(I_samples kron matrix) @ terms``, without the Kronecker product where possible.

    Raises `TimeLimitReached` after the deadline.
    If every row of ``terms`` has at most one variable of its own, as after a nonlinear layer, the product only renames the columns of
    ``matrix``.
    """
    if terms.nnz == 0:
        return Csr((samples * matrix.shape[0], terms.shape[1]))
    n_in = matrix.shape[1]
    variables = distinct(terms.indices)
    sizes = np.diff(terms.indptr)
    if len(variables) == terms.nnz and sizes.max() == 1:
        return _renamed_terms(matrix, samples, terms, (sizes == 1).reshape(samples, n_in), deadline)
    dense = len(variables) <= DENSE_PRODUCT_VARIABLES_MAX
    most = PRODUCT_MULTIPLICATIONS_MAX // len(variables) if dense else COEFFICIENTS_AT_ONCE
    at_once = max(1, int(most // max(1, matrix.nnz)))
    parts = list[Csr]()
    for first in range(0, samples, at_once):
        deadline.check("multiply the affine functions of a layer by its weights")
        count, part = min(at_once, samples - first), terms[first * n_in : (first + at_once) * n_in]
        parts.append(_dense_product(matrix, count, part, variables) if dense else _product(_block_diagonal(matrix, count), part, deadline))
    return parts[0] if len(parts) == 1 else Csr(sparse.vstack(parts, format="csr"))


def _block_diagonal(matrix: Csr, samples: int) -> Csr:
    """Return ``I_samples kron matrix``."""
    (n_out, n_in), first = matrix.shape, np.arange(samples, dtype=np.int64)[:, None]
    columns = (matrix.indices[None, :] + n_in * first).reshape(-1)
    return Csr((np.tile(matrix.data, samples), columns, _starts(matrix, samples)), shape=(samples * n_out, samples * n_in))


def _renamed_terms(matrix: Csr, samples: int, terms: Csr, own: Mask, deadline: Deadline) -> Csr:
    """Return the product for rows that have a variable of their own where ``own``, ``(sample, input)``, is True, and none elsewhere.

    As many samples are filled at a time as have temporary arrays in a cache.
    """
    (n_out, n_in), ones, every = matrix.shape, bool((terms.data == 1).all()), bool(own.all())
    factors, columns = np.ones(own.shape), np.full(own.shape, -1, dtype=terms.indices.dtype)
    factors[own], columns[own] = terms.data, terms.indices
    size = int(own.sum(axis=0) @ np.bincount(matrix.indices, minlength=n_in))
    data, found, filled = np.empty(size), np.empty(size, dtype=columns.dtype), 0
    starts = np.zeros(samples * n_out + 1, dtype=np.int32 if size < 2**31 else np.int64)
    at_once = max(1, ENTRIES_AT_ONCE // max(1, matrix.nnz))
    for first in range(0, samples, at_once):
        deadline.check("rename the columns of a layer's weights")
        part = slice(first, first + at_once)
        labels = columns[part].take(matrix.indices, axis=1)
        values = np.broadcast_to(matrix.data, labels.shape) if ones else matrix.data * factors[part].take(matrix.indices, axis=1)
        before = np.arange(0, labels.size + 1)
        if not every:
            kept = labels >= 0
            before[1:] = np.cumsum(kept)
            labels, values = labels[kept], values[kept]
        data[filled : filled + labels.size] = values.reshape(-1)
        found[filled : filled + labels.size] = labels.reshape(-1)
        ends = matrix.indptr[None, 1:] + matrix.nnz * np.arange(len(columns[part]))[:, None]
        starts[first * n_out + 1 : (first + len(ends)) * n_out + 1] = before[ends.reshape(-1)] + filled
        filled += labels.size
    return Csr((data, found, starts), shape=(samples * n_out, terms.shape[1]))


def _product(matrix: Csr, terms: Csr, deadline: Deadline) -> Csr:
    """Return ``matrix @ terms``, as many rows at a time as take some tenths of a second."""
    count, multiplications = matrix.shape[0], matrix.nnz * terms.nnz / max(1, terms.shape[0])
    at_once = max(1, int(count * PRODUCT_MULTIPLICATIONS_MAX / max(1, multiplications)))
    parts = []
    for first in range(0, count, at_once):
        deadline.check("multiply the affine functions of a layer by its weights")
        parts.append(matrix[first : first + at_once] @ terms if at_once < count else matrix @ terms)
    product = Csr(parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr"))
    product.sum_duplicates()
    return product


def _dense_product(matrix: Csr, samples: int, terms: Csr, variables: NDArray[Any]) -> Csr:
    """Return ``(I_samples kron matrix) @ terms``, with the coefficients of ``variables`` in a dense array."""
    (n_out, n_in), k = matrix.shape, len(variables)
    row = row_of_entry(terms)
    dense = np.zeros((n_in, samples, k))
    dense[row % n_in, row // n_in, np.searchsorted(variables, terms.indices)] = terms.data
    product = (matrix @ dense.reshape(n_in, samples * k)).reshape(n_out, samples, k).transpose(1, 0, 2).reshape(samples * n_out, k)
    present = product != 0
    indptr = np.append(0, np.cumsum(present.sum(axis=1)))
    return Csr((product[present], np.broadcast_to(variables, present.shape)[present], indptr), shape=(samples * n_out, terms.shape[1]))


def _starts(matrix: Csr, samples: int) -> NDArray[Any]:
    """Return the row pointers of ``I_samples kron matrix`` in CSR format."""
    starts = (matrix.indptr[None, :-1] + matrix.nnz * np.arange(samples, dtype=np.int64)[:, None]).reshape(-1)
    return _as_int32(np.append(starts, samples * matrix.nnz))


def _as_int32(indptr: Ints) -> NDArray[Any]:
    """Return row pointers as int32 if they fit."""
    return indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr
