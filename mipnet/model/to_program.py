"""Converting a linopy model into a `Program`, the arrays that a backend takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import linopy
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mipnet.arrays import Array, Columns, Csr, Ints, Mask
from mipnet.backend import Indicators, LogSumExp, Program, Rows, SemiContinuous
from mipnet.errors import InputError
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
    index = model.variables.label_index
    labels, where = np.asarray(index.vlabels, dtype=np.int64), column_lookup(np.asarray(index.vlabels))
    variables = list(model.variables.data.values())
    active = [variable.labels.values.reshape(-1) != -1 for variable in variables]
    lower, upper = (_joined(ends, active) for ends in ([v.lower for v in variables], [v.upper for v in variables]))
    integer, semi = (_marked(variables, active, kinds) for kinds in (("binary", "integer"), ("semi_continuous",)))
    semi_columns = np.flatnonzero(semi)
    intervals = SemiContinuous(semi_columns, lower[semi], upper[semi]) if len(semi_columns) else None
    lower[semi], upper[semi] = np.minimum(lower[semi], 0.0), np.maximum(upper[semi], 0.0)
    maximise, cost = model.objective.sense == "max", np.zeros(len(labels))
    given, coefficients = model.objective.linear_terms()
    np.add.at(cost, where[given], -coefficients if maximise else coefficients)
    constraints = list(model.constraints.data.values())
    return Program(
        cost=cost,
        rows=_rows([each for each in constraints if not each.is_indicator], index),
        lower=lower,
        upper=upper,
        integer=integer,
        maximise=maximise,
        labels=labels,
        sos1=_sos_sets(model, where, 1),
        sos2=_sos_sets(model, where, 2),
        semi=intervals,
        quadratic=_quadratic(model, labels),
        indicators=_indicators([each for each in constraints if each.is_indicator], index, where),
        convex=tuple(LogSumExp(where[np.asarray(c)], where[np.asarray(t)]) for c, t in convex),
        steps=_steps(model, where)[labels],
    )


def _joined(arrays: Sequence[xr.DataArray], active: Sequence[Mask]) -> Array:
    parts = [array.values.reshape(-1)[mask] for array, mask in zip(arrays, active, strict=True)]
    return np.concatenate([np.empty(0), *parts])


def _marked(variables: Sequence[linopy.Variable], active: Sequence[Mask], kinds: tuple[str, ...]) -> Mask:
    """Return which columns belong to variables of some kinds."""
    which = [any(bool(variable.attrs.get(kind)) for kind in kinds) for variable in variables]
    return np.repeat(np.array(which, dtype=np.bool_), [int(np.count_nonzero(mask)) for mask in active])


def _rows(constraints: Sequence[Any], index: Any) -> Rows:
    """Return the rows of constraints, each with its coefficients in the units of the model.

    linopy's own arrays (`linopy.Model.matrices`) take twice the time and memory for rows that are stored as sparse matrices.
    """
    parts = [_stored(each, index) for each in constraints]
    nonzeros, count = sum(part.matrix.nnz for part in parts), sum(len(part.right) for part in parts)
    kind: Any = np.int32 if nonzeros < 2**31 else np.int64
    data, columns, starts = np.empty(nonzeros), np.empty(nonzeros, dtype=kind), np.zeros(count + 1, dtype=kind)
    lower, upper, lookup = np.empty(count), np.empty(count), np.asarray(index.label_to_pos, dtype=kind)
    entry = row = 0
    for part in parts:
        entries, rows = slice(entry, entry + part.matrix.nnz), slice(row, row + len(part.right))
        data[entries] = part.matrix.data
        columns[entries] = lookup[part.matrix.indices] if part.by_label else part.matrix.indices
        starts[row + 1 : rows.stop + 1] = part.matrix.indptr[1:]
        starts[row + 1 : rows.stop + 1] += entry
        for ends, sign, infinity in ((lower, "<", -np.inf), (upper, ">", np.inf)):
            if part.sense.ndim:
                ends[rows] = np.where(np.strings.startswith(part.sense, sign), infinity, part.right)
            else:
                ends[rows] = infinity if str(part.sense).startswith(sign) else part.right
        entry, row = entries.stop, rows.stop
    if columns.min(initial=0) < 0:
        raise InputError(f"{np.count_nonzero(columns < 0)} coefficients of constraints are on variables that were removed from the model")
    return Rows(Csr((data, columns, starts), shape=(count, len(index.vlabels))), lower, upper)


class StoredRows(NamedTuple):
    """The rows of a constraint; columns are variable labels if ``by_label``.  ``sense`` is one for all rows, or one for each."""

    matrix: Csr
    by_label: bool
    sense: NDArray[np.str_]
    right: Array


def _stored(constraint: Any, index: Any) -> StoredRows:
    if isinstance(constraint, linopy.CSRConstraint):
        return StoredRows(constraint._csr, True, np.asarray(constraint._sign), constraint._rhs)
    matrix, _, right, sense = constraint.to_matrix_with_rhs(index)
    return StoredRows(Csr(matrix), False, np.asarray(sense), right)


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


def _quadratic(model: linopy.Model, labels: Columns) -> Csr | None:
    """Return the matrix of the quadratic part of the objective as it is minimised, or None without one."""
    expression = model.objective.expression
    if not isinstance(expression, linopy.QuadraticExpression):
        return None
    matrix = Csr(expression.to_matrix()[labels][:, labels] * (-1.0 if model.objective.sense == "max" else 1.0))
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


def _indicators(constraints: Sequence[Any], index: Any, where: Columns) -> Indicators | None:
    stored = [each if isinstance(each, linopy.CSRConstraint) else each.freeze() for each in constraints]
    stored = [each for each in stored if len(each._rhs)]
    if not stored:
        return None
    switches = np.concatenate([where[np.asarray(each._binvar_labels)] for each in stored])
    active = np.concatenate([np.broadcast_to(np.asarray(each._binval), len(each._rhs)) for each in stored])
    return Indicators(_rows(stored, index), switches.astype(np.int64), active.astype(np.int64))
