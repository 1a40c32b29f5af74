"""Formulations of the positive part that look into the sum z = w x + b: partition, hull, and anderson.

With v = 1 where z > 0, the sum is cut into parts ``z_k = sum over i in S_k of w_i x_i``, each with a copy q_k that is z_k where
v = 1 and 0 elsewhere, over the bounds ``L_k <= z_k <= U_k`` that the variables' own give::

    h = sum_k q_k + b v,     L_k v <= q_k <= U_k v,     L_k (1-v) <= z_k - q_k <= U_k (1-v)

One part is big-m; with a part for each variable it is the convex hull of the neuron over its box.  Every part more tightens the
linear relaxation and costs a column and four rows a neuron (Tsay, Kronqvist, Thebelt and Misener 2021, section 3).
"""

from __future__ import annotations

import numpy as np

from mipnet.arrays import Array, Csr, Ints, activity
from mipnet.errors import UnboundedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import BigMNeurons
from mipnet.formulations.linopy_rows import column_bounds
from mipnet.formulations.relu import PositivePart, link, switched


@link("partition")
def partition(part: PositivePart) -> Affine:
    """As many parts as the block says, of equal size, with the inputs in the order of their weights (Tsay et al. 2021, section 3)."""
    return _in_parts(part, part.parts)


@link("hull")
def hull(part: PositivePart) -> Affine:
    """A part for each variable: ideal for every neuron by itself (the extended formulation of Anderson et al. 2020)."""
    return _in_parts(part, None)


@link("anderson")
def anderson(part: PositivePart) -> Affine:
    """big-m, and in rounds before the search the inequalities that make its relaxation the hull (`mipnet.solving.separators`)."""
    h, g = part.split()
    v = part.switch()
    switched(part, h, g, v)
    where = part.undecided
    part.block.notes.neurons.append(BigMNeurons(part.z[where], h[where], v[where]))
    return h


def _in_parts(part: PositivePart, count: int | None) -> Affine:
    h, g = part.split()
    v = part.switch()
    switched(part, h, g, v)
    z, on = part.z[part.undecided], v[part.undecided]
    sums, neuron = grouped(z.terms, count)
    groups, value = len(neuron), Affine(sums, np.zeros(len(neuron)))
    least, most = activity(sums, *finite_columns(part, sums))
    mine = on[neuron]
    q = part.block.variable(
        f"{part.tag}on_part",
        np.minimum(least, 0.0),
        np.maximum(most, 0.0),
        value=lambda p: value.evaluate(p) * (z.evaluate(p) > 0)[neuron],
        dims=(f"{part.block.name}_{part.tag}part",),
        shape=(groups,),
    )
    rest = value - q
    part.block.rows(f"{part.tag}on_part_below", q - mine * most, "<=")
    part.block.rows(f"{part.tag}on_part_above", q - mine * least, ">=")
    part.block.rows(f"{part.tag}off_part_below", rest + mine * most, "<=", most)
    part.block.rows(f"{part.tag}off_part_above", rest + mine * least, ">=", least)
    starts = np.searchsorted(neuron, np.arange(len(z.constant) + 1))
    total = Affine(Csr((q.terms.data, q.terms.indices, starts), shape=(len(z.constant), q.terms.shape[1])), np.zeros(len(z.constant)))
    part.block.rows(f"{part.tag}parts", h[part.undecided] - total - on * z.constant, "=")
    return h


def grouped(terms: Csr, count: int | None) -> tuple[Csr, Ints]:
    """Each row cut into ``count`` parts of equal size (None: one a variable) along its sorted coefficients, and the row each is from."""
    sizes = np.diff(terms.indptr)
    row = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((terms.data, row))
    rank = np.arange(terms.nnz) - np.repeat(terms.indptr[:-1], sizes)
    place = rank if count is None else rank * count // np.repeat(sizes, sizes)
    first = np.append(True, (np.diff(row) != 0) | (np.diff(place) != 0))[: terms.nnz]
    starts = np.append(np.flatnonzero(first), terms.nnz)
    return Csr((terms.data[order], terms.indices[order], starts), shape=(len(starts) - 1, terms.shape[1])), row[starts[:-1]]


def finite_columns(part: PositivePart, terms: Csr) -> tuple[Array, Array]:
    """Lower and upper bounds of the variables so far; raises `UnboundedError` if one that takes part has an infinite one."""
    lower, upper = (end[: terms.shape[1]] for end in column_bounds(part.block.model))
    used = np.unique(terms.indices)
    if not (np.isfinite(lower[used]).all() and np.isfinite(upper[used]).all()):
        name, formulation = part.block.node.name, part.block.formulation
        raise UnboundedError(f"node `{name}` reads variables without finite bounds; formulation `{formulation}` needs them: bound them")
    unused = np.isinf(lower) | np.isinf(upper)
    return np.where(unused, 0.0, lower), np.where(unused, 0.0, upper)
