"""A solver of your own: SciPy's `milp` as a backend, without an edit to mipnet.

To announce it to others, put the class into a package with the entry point

    [project.entry-points."mipnet.backends"]
    scipy = "your_package:SciPy"

or pass an instance wherever mipnet takes a backend's name.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import scipy
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from mipnet.arrays import Array, Columns
from mipnet.backend import Backend, Feature, Limits, OnEvent, Options, Outcome, Program, Rows, Session, Status
from mipnet.backend.checks import (
    DEFAULT_LIMITS,
    RawOutcome,
    check_limits,
    check_program,
    check_rows,
    finish,
    trivial_outcome,
    unknown_option,
    with_bounds,
    with_cost,
)
from mipnet.backend.progress import SolveProgress
from mipnet.errors import BackendError

KNOWN_OPTIONS = {"presolve"}
STATUS_BY_CODE = {0: Status.OPTIMAL, 1: Status.TIME_LIMIT, 2: Status.INFEASIBLE, 3: Status.UNBOUNDED}


class SciPy(Backend):
    name: ClassVar[str] = "scipy"
    module: ClassVar[str] = "scipy"
    install: ClassVar[str] = "pip install scipy"
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.INTEGER, Feature.TIME_LIMIT, Feature.GAP_LIMIT, Feature.NODE_LIMIT, Feature.ADD_ROWS, Feature.CHANGE}
    )

    def version(self) -> str:
        return scipy.__version__

    def open(self, program: Program, options: Options | None = None) -> Session:
        check_program(self, program)
        for name in set(options or {}) - KNOWN_OPTIONS:
            unknown_option("SciPy's milp", name, KNOWN_OPTIONS)
        return SciPySession(self, program, options or {})


class SciPySession(Session):
    def __init__(self, backend: SciPy, program: Program, options: Options) -> None:
        self._backend, self._program, self._options, self._open = backend, program, dict(options), True

    def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
        if not self._open:
            raise BackendError("this session is closed; open the program again")
        check_limits(self._backend, limits)
        progress = SolveProgress(limits, on_event)
        return finish(self._program, progress, trivial_outcome(self._program) or self._solve(limits))

    def _solve(self, limits: Limits) -> RawOutcome:
        p = self._program
        options = self._options | {"mip_rel_gap": limits.gap} | ({} if limits.time == math.inf else {"time_limit": limits.time})
        options |= {} if limits.nodes is None else {"node_limit": limits.nodes}
        r = _milp(p, p.cost, options)
        nodes = int(r.mip_node_count or 0)
        stopped = limits.nodes is not None and nodes >= limits.nodes and r.status in (1, 4)
        if r.status == 4 and not stopped:  # it often cannot tell infeasible from unbounded: ask again without a cost
            again = _milp(p, np.zeros(p.columns), options)
            return RawOutcome({0: Status.UNBOUNDED, 2: Status.INFEASIBLE}.get(again.status, Status.STALLED))
        status = Status.NODE_LIMIT if stopped else STATUS_BY_CODE[r.status]
        bound = r.mip_dual_bound if p.integer.any() else (r.fun if status is Status.OPTIMAL else None)
        return RawOutcome(status, None if r.x is None else r.x[:-1], -math.inf if bound is None else bound, nodes, message=r.message)

    def start(self, x: Array) -> None:
        raise BackendError("SciPy's milp takes no start point")

    def add_rows(self, rows: Rows) -> None:
        self._program = self._program.with_rows(check_rows(self._program, rows))

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        self._program = with_cost(self._program, cost, offset)

    def set_bounds(self, columns: Columns, lower: Array, upper: Array) -> None:
        self._program = with_bounds(self._program, columns, lower, upper)

    def interrupt(self) -> None:
        """Milp cannot be stopped; the features say so."""

    def close(self) -> None:
        self._open = False


def _milp(p: Program, cost: Array, options: dict[str, object]) -> scipy.optimize.OptimizeResult:
    """Milp has no offset, and its gap is relative: one more column, fixed at 1, costs the offset."""
    matrix = sparse.hstack([p.rows.matrix, sparse.csr_array((len(p.rows), 1))], format="csr")
    bounds = Bounds(np.append(p.lower, 1.0), np.append(p.upper, 1.0))
    rows = [LinearConstraint(matrix, p.rows.lower, p.rows.upper)] if len(p.rows) else []
    whole = np.append(p.integer, False).astype(int)
    return milp(np.append(cost, p.offset), integrality=whole, bounds=bounds, constraints=rows, options=options)


if __name__ == "__main__":
    from mipnet.testing import check_backend

    check_backend(SciPy())
    print("SciPy's milp keeps the contract of a backend")
