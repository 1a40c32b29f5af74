"""The excess of a clause as a variable of a program, to be minimised.

It is at least every linear row of the clause.  A log-sum is convex or concave in parts, and is replaced by linear functions below it
over the bounds ``l <= z <= u`` of its differences (`mipnet.verification.clause_network`)::

    inner   m_i(z) = -log sum_j exp(-z_ij)  >=  1 - log s - (sum_j chord_ij(z_ij)) / s,   with chords of exp(-z) between l and u,
                                                and s their sum in the middle; m_i(z) = z_i1 if there is one j
    outer   log sum_i exp(m_i)  >=  m_i  for each i,   and  >=  sum_i w_i m_i - sum_i w_i log w_i,   w = softmax(m) in the middle

So the minimum of the variable is a lower bound of the smallest excess, and equal to it where a clause has linear rows only.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import linopy
import numpy as np
import torch
from scipy import sparse

from mipnet.arrays import Array, Csr, Ints
from mipnet.bounds.boxes import Bounds
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import add_rows, add_variables
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.model.encoding import Encoding
from mipnet.verification.clause_network import Excess, LogSumBlock

SLOPE_MIN = 1e-7
"""A smaller coefficient of a linear function is replaced by its smallest value, because solvers may drop it."""

MINORANT_ROUNDING_RELATIVE = 1e-12
"""Linear functions are lowered by this, relative to 1 + the size of their terms."""


class Minorants(NamedTuple):
    """Linear functions ``slopes @ z + constants`` of the differences z of a block: ``(functions, plus * minus)`` and ``(functions,)``."""

    slopes: Array
    constants: Array


def clause_objectives(encoding: Encoding, excess: Excess, bounds: Bounds, deadline: Deadline = NO_DEADLINE) -> list[linopy.Variable]:
    """Return one variable per clause, of an encoding of the excess with these bounds: its largest row, or a variable that is added.

    Minimise one variable after another.  In a forward pass an added variable equals the excess.  Raises `TimeLimitReached` if there is no
    time to write them all.
    """
    rows, model = encoding.output.isel(sample=0, drop=True), encoding.model
    box, labels, found = bounds.after[excess.network.output.name], rows.labels.values, []
    lower, upper = (excess.largest(end[:1])[0].numpy() for end in (box.lower, box.upper))
    for clause in range(excess.clauses):
        deadline.check("write the clauses into the model")
        own = np.flatnonzero((excess.owner == clause) & excess.linear)
        blocks = [block for block in excess.log_sums if excess.owner[block.first] == clause]
        if len(own) == 1 and not blocks:
            found.append(rows.isel({rows.dims[0]: own}))
            continue
        name, dim = f"largest_{clause}", f"largest_{clause}_row"
        high = upper[clause] + MINORANT_ROUNDING_RELATIVE * (1 + abs(upper[clause]))
        largest = add_variables(model, name, lower[clause], high, {dim: np.zeros(1, dtype=np.int64)})
        slopes, constants = np.zeros((len(own), len(labels))), [np.zeros(len(own))]
        slopes[np.arange(len(own)), own] = 1.0
        for block in blocks:
            below = minorants(block, *(end[0, block.rows].numpy() for end in (box.lower, box.upper)))
            wide = np.zeros((len(below.slopes), len(labels)))
            wide[:, block.rows] = below.slopes
            slopes, constants = np.concatenate([slopes, wide]), [*constants, below.constants]
        under = Affine(Csr(sparse.csr_array(slopes)) @ Affine.of(labels).terms, np.concatenate(constants))
        above = Affine.of(np.repeat(largest.labels.values, len(slopes))) - under
        add_rows(model, f"{name}_is", above, ">=", 0.0, (dim,), encoding.samples)
        encoding.own_rows.append(f"{name}_is")
        encoding.fills.append((np.asarray(largest.labels.values), partial(_excess_at, excess, clause, labels)))
        found.append(largest)
    return found


def _excess_at(excess: Excess, clause: int, labels: Ints, point: Array) -> Array:
    """Return the excess of a clause, of shape ``(1,)``, from the rows with these labels."""
    return excess.largest(torch.tensor(point[labels])[None])[0, [clause]].numpy()


def minorants(block: LogSumBlock, lower: Array, upper: Array) -> Minorants:
    """Return linear functions of the differences of a block that are at most its excess wherever ``lower <= z <= upper``."""
    low, high = (end.reshape(block.plus, block.minus) for end in (lower, upper))
    if block.minus == 1:
        slopes, constants = np.ones_like(low), np.zeros(block.plus)
    else:
        slopes, constants = _inner(low, high)
    middle = (slopes * (low + high) / 2).sum(axis=1) + constants
    weights = np.exp(middle - middle.max())
    weights /= weights.sum()
    entropy = -float((weights * np.log(np.maximum(weights, 1e-300))).sum())
    each = np.zeros((block.plus, block.plus, block.minus))
    each[np.arange(block.plus), np.arange(block.plus)] = slopes
    rows = np.concatenate([each.reshape(block.plus, -1), (weights[:, None] * slopes).reshape(1, -1)])
    ends = np.concatenate([constants, [float(weights @ constants) + entropy]])
    ends = ends - MINORANT_ROUNDING_RELATIVE * (1 + np.abs(ends) + np.abs(rows) @ np.maximum(np.abs(lower), np.abs(upper)))
    small = np.where((rows > 0) & (rows < SLOPE_MIN), rows, 0.0)
    return Minorants(rows - small, ends + small @ lower)


def _inner(low: Array, high: Array) -> tuple[Array, Array]:
    """Return slopes and constants of linear functions below ``-log sum_j exp(-z_ij)``, one per i, by chords of the exponentials."""
    least = low.min(axis=1, keepdims=True)
    first, last = np.exp(least - low), np.exp(least - high)  # of exp(-z), in units of exp(-least)
    width = high - low
    rise = np.where(width > SLOPE_MIN, (last - first) / np.maximum(width, SLOPE_MIN), 0.0)  # at most 0
    total = (first + rise * width / 2).sum(axis=1)
    slopes = -rise / total[:, None]
    constants = least[:, 0] - np.log(total) + 1 - (first - rise * low).sum(axis=1) / total
    return slopes, constants
