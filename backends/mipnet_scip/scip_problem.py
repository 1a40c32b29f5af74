"""A `Program` as a SCIP problem, with native SOS1 sets, indicators and log-sum-exp."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from pyscipopt import exp, quicksum
from pyscipopt.scip import Expr, ExprCons, Term

from mipnet.arrays import Array, Csr
from mipnet.backend import Indicators, LogSumExp, Program, Rows
from mipnet.backend.checks import warn_dropped
from mipnet_scip import native


@dataclass(frozen=True, eq=False)
class ScipVariables:
    """SCIP's variables: one per column, and one per summand of log-sum-exp that equals ``x[column] - x[epigraph]``.

    ``pointers`` are the addresses of the columns' variables in ``model``.  ``pairs[i]`` is ``(column, epigraph)`` of ``differences[i]``.
    ``square`` is at least the quadratic part of the objective.
    """

    model: Any
    pointers: native.Pointers
    differences: list[Any] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    square: Any = None
    quadratic: Csr | None = None

    @cached_property
    def columns(self) -> list[Any]:
        """PySCIPOpt's variables of the columns, which take more memory than SCIP's own."""
        by_pointer = {v.ptr(): v for v in self.model.getVars(transformed=False)}
        return [by_pointer[each] for each in self.pointers.tolist()]

    @property
    def further(self) -> list[Any]:
        """The variables that belong to no column: ``square``, then ``differences``."""
        return ([] if self.square is None else [self.square]) + self.differences

    @property
    def every_pointer(self) -> native.Pointers:
        """The addresses of all variables: those of the columns, and of `further` ones."""
        return np.concatenate([self.pointers, np.array([v.ptr() for v in self.further], dtype=np.uintp)])

    def values(self, x: Array) -> Array:
        """Return the values of all variables at ``x``, in the order of `every_pointer`."""
        square = [] if self.quadratic is None else [float(x @ (self.quadratic @ x)) / 2]
        return np.concatenate([x, square, [x[k] - x[t] for k, t in self.pairs]])

    def set_values(self, solution: Any, x: Array) -> None:
        """Set the values of a solution of PySCIPOpt to those at ``x``."""
        for variable, value in zip([*self.columns, *self.further], self.values(x).tolist(), strict=True):
            self.model.setSolVal(solution, variable, value)


def write_program(model: Any, program: Program, fast: bool = True) -> ScipVariables:
    """Write the program into an empty model and return its variables; ``fast`` uses SCIP's C functions, if available."""
    lib = native.library() if fast else None
    pointers = _slow_variables(model, program) if lib is None else native.add_variables(lib, model, program)
    variables = ScipVariables(model, pointers)
    if program.quadratic is not None:
        variables = _with_quadratic(model, variables, program.quadratic)
    model.addObjoffset(program.offset)
    add_rows(model, variables, program.rows, fast)
    if lib is not None:
        native.add_sos1(lib, model, pointers, program.sos1)
    else:
        for members in program.sos1:
            model.addConsSOS1([variables.columns[j] for j in members])
    if program.indicators is not None:
        _indicators(model, variables, program.indicators)
    for term in program.convex:
        _log_sum_exp(model, variables, program, term)
    return variables


def _with_quadratic(model: Any, variables: ScipVariables, quadratic: Csr) -> ScipVariables:
    """Add a variable that is at least the quadratic part of the objective, with cost 1: SCIP's objectives are linear."""
    square, entries, x = model.addVar("", "C", None, None, 1.0), quadratic.tocoo(), variables.columns
    terms = (0.5 * a * x[i] * x[j] for i, j, a in zip(entries.row.tolist(), entries.col.tolist(), entries.data.tolist(), strict=True))
    model.addCons(quicksum(terms) <= square)
    return replace(variables, square=square, quadratic=quadratic)


def finite(value: float) -> float | None:
    """Return the bound for PySCIPOpt: None if it is infinite."""
    return value if abs(value) < native.SCIP_INFINITY else None


def _slow_variables(model: Any, p: Program) -> native.Pointers:
    low, high = np.minimum(p.lower, p.upper).tolist(), np.maximum(p.lower, p.upper).tolist()
    kinds, costs = np.where(p.integer, "I", "C").tolist(), p.cost.tolist()
    made = [model.addVar("", k, finite(a), finite(b), c) for k, a, b, c in zip(kinds, low, high, costs, strict=True)]
    return np.array([v.ptr() for v in made], dtype=np.uintp)


def add_rows(model: Any, variables: ScipVariables, rows: Rows, fast: bool = True) -> None:
    """Add linear rows; ``fast`` uses SCIP's C functions, if available."""
    rows = Rows(rows.matrix, np.minimum(rows.lower, rows.upper), np.maximum(rows.lower, rows.upper))
    warn_dropped("SCIP", int((np.abs(rows.matrix.data) <= 1e-9).sum()))
    lib = native.library() if fast else None
    if lib is not None:
        native.add_rows(lib, model, variables.pointers, rows)
    else:
        _add_rows_slowly(model, variables, rows)


def _add_rows_slowly(model: Any, variables: ScipVariables, rows: Rows) -> None:
    for row in range(len(rows)):
        expression, lower, upper = _row(variables, rows, row)
        if lower is None and upper is None:
            continue
        if not expression.terms:  # SCIP has no constraints without a variable: write x - x
            one = variables.columns[0]
            cons = model.addCons(ExprCons(Expr({Term(one): 1.0}), lower, upper))
            model.addCoefLinear(cons, one, -1.0)
        else:
            model.addCons(ExprCons(expression, lower, upper))


class LinearRow(NamedTuple):
    """``lower <= expression <= upper``, with None for an infinite side."""

    expression: Any
    lower: float | None
    upper: float | None


def _row(variables: ScipVariables, rows: Rows, row: int) -> LinearRow:
    begin, end = rows.matrix.indptr[row], rows.matrix.indptr[row + 1]
    columns, data = rows.matrix.indices[begin:end].tolist(), rows.matrix.data[begin:end].tolist()
    terms = {Term(variables.columns[j]): a for j, a in zip(columns, data, strict=True)}
    return LinearRow(Expr(terms), finite(float(rows.lower[row])), finite(float(rows.upper[row])))


def _indicators(model: Any, variables: ScipVariables, indicators: Indicators) -> None:
    rows = indicators.rows
    for row, (column, active) in enumerate(zip(indicators.column.tolist(), indicators.active.tolist(), strict=True)):
        expression, lower, upper = _row(variables, rows, row)
        switch = variables.columns[column]
        if not expression.terms:
            if (lower or 0.0) > 0 or (upper or 0.0) < 0:
                model.addCons(ExprCons(Expr({Term(switch): 1.0}), 1.0 - active, 1.0 - active))
            continue
        # SCIP's indicator constraints have one side
        if upper is not None:
            model.addConsIndicator(ExprCons(expression, None, upper), switch, bool(active))
        if lower is not None:
            model.addConsIndicator(ExprCons(expression, lower, None), switch, bool(active))


def _log_sum_exp(model: Any, variables: ScipVariables, p: Program, term: LogSumExp) -> None:
    """Add ``sum_k exp(d_k) <= 1`` with ``d_k = x_k - t <= 0``, which SCIP solves much faster than the log; exp cannot overflow."""
    for columns, epigraph in zip(term.columns.tolist(), term.epigraph.tolist(), strict=True):
        differences = []
        for k in columns:
            lowest = finite(float(p.lower[k] - p.upper[epigraph]))
            d = model.addVar("", "C", None if lowest is None else min(lowest, 0.0), 0.0)
            model.addCons(d - variables.columns[k] + variables.columns[epigraph] == 0)
            differences.append(d)
            variables.pairs.append((k, epigraph))
        variables.differences.extend(differences)
        model.addCons(quicksum(exp(d) for d in differences) <= 1)
