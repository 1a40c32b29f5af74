"""Converting a linopy model into a `Program`, the arrays that a backend takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import linopy
import numpy as np
from scipy import sparse

from mipnet.arrays import Array, Columns, Csr, Ints
from mipnet.backend import Indicators, LogSumExp, Program, Rows, SemiContinuous
from mipnet.formulations.linopy_rows import NODE_ATTRIBUTE
from mipnet.formulations.program_size import ProgramSize
from mipnet.limits.memory import making

COPIES_OF_ARRAYS = 2
"""Copies of a program that exist while its arrays are made of a model."""


def from_model(model: linopy.Model, convex: Sequence[tuple[Ints, Ints]] = ()) -> Program:
    """Return the program of a linopy model, with log-sum-exp terms ``t >= logsumexp(y)``.

    A term is given by the labels of y, ``(samples, classes)``, and of t, ``(samples,)``.  Raises `MemoryLimitReached` if the arrays
    would not fit into memory.
    """
    size = model_size(model)
    with making(f"the arrays of the program ({size})", COPIES_OF_ARRAYS * size.bytes, "write a smaller model"):
        return _program(model, convex)


def model_size(model: linopy.Model) -> ProgramSize:
    """Return the size of a model; the nonzeros of labelled constraints include the padding of their terms."""
    constraints: list[Any] = [model.constraints[name] for name in model.constraints]
    nonzeros = sum(each._csr.nnz if isinstance(each, linopy.CSRConstraint) else each.data.coeffs.size for each in constraints)
    return ProgramSize(int(model.nvars), int(model.ncons), int(nonzeros))


def _program(model: linopy.Model, convex: Sequence[tuple[Ints, Ints]]) -> Program:
    m = model.matrices
    maximise = model.objective.sense == "max"
    cost = np.zeros(len(m.lb)) if m.c is None else np.asarray(m.c, dtype=np.float64)
    labels = np.asarray(m.vlabels, dtype=np.int64)
    units = np.asarray(m.var_scaling, dtype=np.float64)  # linopy's arrays are in the units of its argument `scaling`
    cost = cost * units / model.objective.scaling
    matrix = Csr((0, len(labels))) if m.A is None else _in_own_units(Csr(m.A), units)
    sense, right = np.asarray(m.sense), np.asarray(m.b, dtype=np.float64)
    where = column_lookup(labels)
    lower, upper = np.asarray(m.lb, dtype=np.float64) / units, np.asarray(m.ub, dtype=np.float64) / units
    kinds = np.asarray(m.vtypes)
    semi = np.flatnonzero(kinds == "S")
    intervals = SemiContinuous(semi, lower[semi], upper[semi]) if len(semi) else None
    lower[semi], upper[semi] = np.minimum(lower[semi], 0.0), np.maximum(upper[semi], 0.0)
    return Program(
        cost=-cost if maximise else cost,
        rows=Rows(matrix, np.where(sense != "<", right, -np.inf), np.where(sense != ">", right, np.inf)),
        lower=lower,
        upper=upper,
        integer=np.isin(kinds, ["B", "I"]),
        maximise=maximise,
        labels=labels,
        sos1=_sos_sets(model, where, 1),
        sos2=_sos_sets(model, where, 2),
        semi=intervals,
        quadratic=_quadratic(model, m, units),
        indicators=_indicators(m, units),
        convex=tuple(LogSumExp(where[np.asarray(c)], where[np.asarray(t)]) for c, t in convex),
        steps=_steps(model, where)[labels],
    )


def _steps(model: linopy.Model, where: Columns) -> Columns:
    """Return the number of the step that computes each label: one step per node, and per later variable of no node, in their order.

    Variables before the first node, such as inputs and scores, are not computed: they have -1.
    """
    steps, step, before = np.zeros(len(where), dtype=np.int64), -1, ""
    for variable in map(model.variables.__getitem__, model.variables):
        node = str(variable.attrs.get(NODE_ATTRIBUTE, ""))
        step += node != before if node else step >= 0
        before, labels = node, variable.labels.values
        steps[labels[labels >= 0]] = step
    return steps


def column_lookup(labels: Columns) -> Columns:
    """Return an array that maps a linopy label to its column, or to -1 if it has none."""
    lookup = np.full(int(labels.max(initial=-1)) + 1, -1, dtype=np.int64)
    lookup[labels] = np.arange(len(labels))
    return lookup


def _quadratic(model: linopy.Model, m: linopy.matrices.MatrixAccessor, units: Array) -> Csr | None:
    """Return the matrix of the quadratic part of the objective as it is minimised, or None without one."""
    found = m.Q
    if found is None or not found.nnz:
        return None
    factor = sparse.diags_array(units)
    sign = (-1.0 if model.objective.sense == "max" else 1.0) / model.objective.scaling
    matrix = Csr(factor @ Csr(found) @ factor * sign)
    matrix.eliminate_zeros()
    return matrix if matrix.nnz else None


def _sos_sets(model: linopy.Model, where: Columns, kind: int) -> tuple[Columns, ...]:
    """Return the sets of a kind in the order of their dimension; sets that are too small to mean anything are left out."""
    sets: list[Columns] = []
    for name in model.variables.sos:
        variable = model.variables[name]
        if variable.attrs["sos_type"] != kind:
            continue
        labels = variable.labels.transpose(..., variable.attrs["sos_dim"]).values
        members = (row[row >= 0] for row in labels.reshape(-1, labels.shape[-1]))
        sets += [where[row] for row in members if len(row) > kind]
    return tuple(sets)


def _in_own_units(matrix: Csr, units: Array) -> Csr:
    return matrix if (units == 1).all() else Csr((matrix.data * units[matrix.indices], matrix.indices, matrix.indptr), shape=matrix.shape)


def _indicators(m: linopy.matrices.MatrixAccessor, units: Array) -> Indicators | None:
    if m.indicator_A is None or m.indicator_A.shape[0] == 0:
        return None
    sense, right = np.asarray(m.indicator_sense), np.asarray(m.indicator_b, dtype=np.float64)
    rows = Rows(_in_own_units(Csr(m.indicator_A), units), np.where(sense != "<", right, -np.inf), np.where(sense != ">", right, np.inf))
    return Indicators(rows, np.asarray(m.indicator_binvar, dtype=np.int64), np.asarray(m.indicator_binval, dtype=np.int64))
