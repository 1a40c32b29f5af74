"""A `Program` as a SCIP problem: variables, rows, SOS1 sets, indicators and log-sum-exp, all native."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscipopt import exp, quicksum
from pyscipopt.scip import Expr, ExprCons, Term

from mipnet.backend import Indicators, LogSumExp, Program, Rows
from mipnet.backend.helpers import canonical, warn_dropped
from mipnet_scip import native

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Handles:
    """SCIP's variables: one a column, and for every log-sum-exp term one that holds ``x[column] - x[epigraph]``."""

    columns: list[Any]
    shifted: list[Any] = field(default_factory=list)
    of: list[tuple[int, int]] = field(default_factory=list)

    def values(self, x: Array) -> list[tuple[Any, float]]:
        """Every variable with its value at ``x``, the helpers included."""
        own = list(zip(self.columns, x.tolist(), strict=True))
        return own + [(v, float(x[k] - x[t])) for v, (k, t) in zip(self.shifted, self.of, strict=True)]


def hand_over(model: Any, program: Program, fast: bool = True) -> Handles:
    """Writes the program into an empty model."""
    handles = Handles(_variables(model, program))
    model.addObjoffset(program.offset)
    add_rows(model, handles, program.rows, fast)
    for members in program.sos1:
        model.addConsSOS1([handles.columns[j] for j in members])
    if program.indicators is not None:
        _indicators(model, handles, program.indicators)
    for term in program.convex:
        _log_sum_exp(model, handles, program, term)
    return handles


def finite(value: float) -> float | None:
    """The bound as PySCIPOpt takes it: None for infinite."""
    return value if abs(value) < native.INFINITY else None


def _variables(model: Any, p: Program) -> list[Any]:
    # bounds that cross by no more than rounding are put in order: SCIP refuses them
    low, high = np.minimum(p.lower, p.upper).tolist(), np.maximum(p.lower, p.upper).tolist()
    kinds, costs = np.where(p.integer, "I", "C").tolist(), p.cost.tolist()
    return [model.addVar("", k, finite(a), finite(b), c) for k, a, b, c in zip(kinds, low, high, costs, strict=True)]


def add_rows(model: Any, handles: Handles, rows: Rows, fast: bool = True) -> None:
    """Adds linear rows, by SCIP's own functions if they are to be had."""
    rows = Rows(canonical(rows.matrix), np.minimum(rows.lower, rows.upper), np.maximum(rows.lower, rows.upper))
    warn_dropped("SCIP", int((np.abs(rows.matrix.data) <= 1e-9).sum()))
    lib = native.library() if fast else None
    if lib is not None:
        native.add_rows(lib, model, handles.columns, rows)
    else:
        _add_rows_slowly(model, handles, rows)


def _add_rows_slowly(model: Any, handles: Handles, rows: Rows) -> None:
    for row in range(len(rows)):
        expression, lower, upper = _row(handles, rows, row)
        if lower is None and upper is None:
            continue
        if not expression.terms:  # SCIP takes no constraint without a variable: x - x
            one = handles.columns[0]
            cons = model.addCons(ExprCons(Expr({Term(one): 1.0}), lower, upper))
            model.addCoefLinear(cons, one, -1.0)
        else:
            model.addCons(ExprCons(expression, lower, upper))


def _row(handles: Handles, rows: Rows, row: int) -> tuple[Any, float | None, float | None]:
    begin, end = rows.matrix.indptr[row], rows.matrix.indptr[row + 1]
    columns, data = rows.matrix.indices[begin:end].tolist(), rows.matrix.data[begin:end].tolist()
    terms = {Term(handles.columns[j]): a for j, a in zip(columns, data, strict=True)}
    return Expr(terms), finite(float(rows.lower[row])), finite(float(rows.upper[row]))


def _indicators(model: Any, handles: Handles, indicators: Indicators) -> None:
    rows = Rows(canonical(indicators.rows.matrix), indicators.rows.lower, indicators.rows.upper)
    for row, (column, active) in enumerate(zip(indicators.column.tolist(), indicators.active.tolist(), strict=True)):
        expression, lower, upper = _row(handles, rows, row)
        switch = handles.columns[column]
        if not expression.terms:
            if (lower or 0.0) > 0 or (upper or 0.0) < 0:
                model.addCons(ExprCons(Expr({Term(switch): 1.0}), 1.0 - active, 1.0 - active))
            continue
        # SCIP's indicators are one-sided
        if upper is not None:
            model.addConsIndicator(ExprCons(expression, None, upper), switch, bool(active))
        if lower is not None:
            model.addConsIndicator(ExprCons(expression, lower, None), switch, bool(active))


def _log_sum_exp(model: Any, handles: Handles, p: Program, term: LogSumExp) -> None:
    """``sum_k exp(d_k) <= 1`` with ``d_k = x_k - t <= 0``: far better for SCIP than the log, and exp cannot overflow."""
    for columns, epigraph in zip(term.columns.tolist(), term.epigraph.tolist(), strict=True):
        shifted = []
        for k in columns:
            lowest = finite(float(p.lower[k] - p.upper[epigraph]))
            d = model.addVar("", "C", None if lowest is None else min(lowest, 0.0), 0.0)
            model.addCons(d - handles.columns[k] + handles.columns[epigraph] == 0)
            shifted.append(d)
            handles.of.append((k, epigraph))
        handles.shifted.extend(shifted)
        model.addCons(quicksum(exp(d) for d in shifted) <= 1)
