"""Formulations of the positive part that use the terms of the sum z = w x + b: partition, hull and anderson.

With v = 1 where z > 0, the sum is divided into parts ``z_k = sum over i in S_k of w_i x_i``.  Each part has a copy q_k that equals z_k
if v = 1 and 0 otherwise.  The bounds ``L_k <= z_k <= U_k`` follow from those of the variables::

    h = sum_k q_k + b v,     L_k v <= q_k <= U_k v,     L_k (1-v) <= z_k - q_k <= U_k (1-v)

With one part this is big-m; with one part per variable it is the convex hull of the neuron over its box.  Each further part tightens
the linear relaxation, and costs one variable and four rows per neuron (Tsay, Kronqvist, Thebelt and Misener 2021, section 3).
"""

from __future__ import annotations

import numpy as np

from mipnet.arrays import Array, Csr, Ints, activity
from mipnet.errors import UnboundedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import BigMNeurons
from mipnet.formulations.linopy_rows import column_bounds
from mipnet.formulations.program_size import ProgramSize, big_m_size
from mipnet.formulations.relu import PositivePart, add_big_m_rows, link


def _size_in_parts(terms: Array, parts: Array | int) -> ProgramSize:
    """Return the size of big-m with ``parts`` parts per neuron: one variable and four rows per part, two of which hold its terms."""
    count = float(np.minimum(terms, parts).sum())
    return big_m_size(terms) + ProgramSize(count, 4 * count + len(terms), 9 * count + 2 * float(terms.sum()) + 2 * len(terms))


@link("partition", size=_size_in_parts)
def partition(part: PositivePart) -> Affine:
    """Write z in ``part.parts`` parts of equal size, with the variables in the order of their weights (Tsay et al. 2021, section 3)."""
    return _write_in_parts(part, part.parts)


@link("hull", size=lambda terms, parts: _size_in_parts(terms, terms))
def hull(part: PositivePart) -> Affine:
    """Write z with one part per variable: ideal for each single neuron (the extended formulation of Anderson et al. 2020)."""
    return _write_in_parts(part, None)


@link("anderson", size=big_m_size)
def anderson(part: PositivePart) -> Affine:
    """Write big-m, and mark the neurons for which inequalities of the hull are added in rounds (`mipnet.solving.separators`)."""
    h, g = part.split()
    v = part.switch()
    add_big_m_rows(part, h, g, v)
    where = part.undecided
    part.block.notes.neurons.append(BigMNeurons(part.z[where], h[where], v[where]))
    return h


def _write_in_parts(part: PositivePart, count: int | None) -> Affine:
    """Write the rows of the module's docstring with ``count`` parts per neuron, or one part per variable if it is None."""
    h, g = part.split()
    v = part.switch()
    add_big_m_rows(part, h, g, v)
    z, on = part.z[part.undecided], v[part.undecided]
    sums, neuron = divide_rows(z.terms, count)
    value = Affine(sums, np.zeros(len(neuron)))
    lower, upper = activity(sums, *finite_variable_bounds(part, sums))
    v_of = on[neuron]
    q = part.block.variable(
        f"{part.tag}on_part",
        np.minimum(lower, 0.0),
        np.maximum(upper, 0.0),
        value=lambda p: value.evaluate(p) * (z.evaluate(p) > 0)[neuron],
        dims=(f"{part.block.name}_{part.tag}part",),
        shape=neuron.shape,
    )
    rest = value - q
    part.block.rows(f"{part.tag}on_part_below", q - v_of * upper, "<=")
    part.block.rows(f"{part.tag}on_part_above", q - v_of * lower, ">=")
    part.block.rows(f"{part.tag}off_part_below", rest + v_of * upper, "<=", upper)
    part.block.rows(f"{part.tag}off_part_above", rest + v_of * lower, ">=", lower)
    starts = np.searchsorted(neuron, np.arange(len(z.constant) + 1))
    total = Affine(Csr((q.terms.data, q.terms.indices, starts), shape=(len(z.constant), q.terms.shape[1])), np.zeros(len(z.constant)))
    part.block.rows(f"{part.tag}parts", h[part.undecided] - total - on * z.constant, "=")
    return h


def divide_rows(terms: Csr, count: int | None) -> tuple[Csr, Ints]:
    """Divide each row into ``count`` parts of equal size in the order of its coefficients, or into one part per variable if it is None.

    Returns a matrix with one row per part, and the number of the original row per part.
    """
    sizes = np.diff(terms.indptr)
    row = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((terms.data, row))
    rank = np.arange(terms.nnz) - np.repeat(terms.indptr[:-1], sizes)
    place = rank if count is None else rank * count // np.repeat(sizes, sizes)
    first = np.append(True, (np.diff(row) != 0) | (np.diff(place) != 0))[: terms.nnz]
    starts = np.append(np.flatnonzero(first), terms.nnz)
    return Csr((terms.data[order], terms.indices[order], starts), shape=(len(starts) - 1, terms.shape[1])), row[starts[:-1]]


def finite_variable_bounds(part: PositivePart, terms: Csr) -> tuple[Array, Array]:
    """Return lower and upper bounds per column of ``terms``; raises `UnboundedError` if a variable with a term has an infinite one."""
    lower, upper = (end[: terms.shape[1]] for end in column_bounds(part.block.model))
    used = np.unique(terms.indices)
    if not (np.isfinite(lower[used]).all() and np.isfinite(upper[used]).all()):
        name, formulation = part.block.node.name, part.block.formulation
        raise UnboundedError(f"node `{name}` reads variables without finite bounds; formulation `{formulation}` needs them: bound them")
    unused = np.isinf(lower) | np.isinf(upper)
    return np.where(unused, 0.0, lower), np.where(unused, 0.0, upper)
