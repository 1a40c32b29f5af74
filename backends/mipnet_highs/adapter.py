"""HiGHS: linear and mixed-integer programs, handed over as arrays and kept in one `highspy.Highs` object.

The solver runs in another thread, so that Ctrl-C can stop it; event handlers are called in that thread.  HiGHS has no SOS1 sets,
indicators or log-sum-exp: `mipnet.backend.rewrites` rewrites them.

A start point is handed over by a callback, after presolve, and no solution of an earlier solve is left in HiGHS.  A start that is there
before presolve may be called optimal although it is not (HiGHS 1.15.1): presolve leaves columns out that have their best value, and the
cutoff is then rounded as if the start had these values too.  With a point from outside only the root is presolved: presolve of the
smaller programs inside a solve may cut off better points than such a point (HiGHS 1.15.1).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import highspy
import numpy as np

from mipnet.arrays import Array, Columns
from mipnet.backend import Backend, Feature, Limits, OnEvent, Options, Outcome, PointSource, Program, Rows, Session, Status
from mipnet.backend.checks import (
    DEFAULT_LIMITS,
    RawOutcome,
    check_limits,
    check_point,
    check_program,
    check_rows,
    checked_source,
    finish,
    trivial_outcome,
    warn_dropped,
    with_bounds,
    with_cost,
)
from mipnet.backend.progress import SolveProgress, run_in_thread
from mipnet.errors import BackendError, SolverFailure
from mipnet_highs.options import expect_ok, set_option, set_options
from mipnet_highs.statuses import HIGHS_NODES_MAX, HIGHS_STATUSES, UNBOUNDED_OR_INFEASIBLE, ModelStatus, csr_arrays

ROOT_PRESOLVE_ONLY = "mip_root_presolve_only"
"""The option of HiGHS that switches presolve of all programs but the first one off."""


class HiGHS(Backend):
    """HiGHS through highspy."""

    name: ClassVar[str] = "highs"
    module: ClassVar[str] = "highspy"
    install: ClassVar[str] = "pip install highspy"
    features: ClassVar[frozenset[Feature]] = frozenset(Feature) - {
        Feature.SOS1,
        Feature.INDICATOR,
        Feature.LOG_SUM_EXP,
        Feature.MEMORY_LIMIT,
        Feature.LAZY,
    }

    def version(self) -> str:
        """Return the version of HiGHS."""
        return str(highspy.Highs().version())

    def open(self, program: Program, options: Options | None = None) -> Session:
        """Open a session on a program; ``options`` have HiGHS's own names."""
        check_program(self, program)
        return HighsSession(self, program, options or {})


class HighsSession(Session):
    """One `highspy.Highs` object; the next solve reuses bases and incumbents that are still valid."""

    def __init__(self, backend: HiGHS, program: Program, options: Options) -> None:
        self._backend, self._program, self._start = backend, program, None
        self._progress = SolveProgress(Limits(), None)
        self._mip = bool(program.integer.any())
        self._presolve_chosen = ROOT_PRESOLVE_ONLY in options
        self._highs: Any = highspy.Highs()
        set_options(self._highs, options, self._mip, program.rows.matrix.nnz)
        self._pass()
        self._subscribe()

    _start: Array | None
    _source: PointSource | None = None
    _waiting: Array | None = None
    _last: Array | None = None
    _accepted: bool | None = None

    def _pass(self) -> None:
        p, matrix = self._program, self._program.rows.matrix
        status = self._highs.passModel(
            p.columns,
            len(p.rows),
            matrix.nnz,
            2,
            1,
            p.offset,
            p.cost,
            p.lower,
            p.upper,
            p.rows.lower,
            p.rows.upper,
            *csr_arrays(matrix),
            p.integer.astype(np.int32),
        )  # fmt: skip  (2: by rows, 1: minimise)
        expect_ok(status, "the program")
        warn_dropped("HiGHS", matrix.nnz - self._highs.getNumNz())

    def _subscribe(self) -> None:
        h = self._highs
        h.cbLogging += self._on_log
        h.cbMipImprovingSolution += self._on_incumbent
        h.cbMipInterrupt += self._on_mip_check
        h.cbMipUserSolution += self._on_user_solution
        h.cbSimplexInterrupt += self._on_lp_check
        h.cbIpmInterrupt += self._on_lp_check

    def _on_log(self, event: Any) -> None:
        self._progress.log(event.message)

    def _on_incumbent(self, event: Any) -> None:
        data = event.data_out
        self._progress.incumbent(data.objective_function_value, data.mip_node_count, np.array(data.mip_solution))

    def _on_mip_check(self, event: Any) -> None:
        data = event.data_out
        self._progress.incumbent(data.mip_primal_bound, data.mip_node_count)
        self._progress.bound(data.mip_dual_bound, data.mip_node_count)
        self._on_lp_check(event)

    def _on_user_solution(self, event: Any) -> None:
        # HiGHS does not show the solution of its relaxation here, and checks the points that it gets
        point, self._waiting = self._waiting, None
        if point is None and self._source is not None:
            point = self._progress.call(self._source, None)
        if point is not None:
            event.data_in.setSolution(np.ascontiguousarray(point, dtype=np.float64))

    def _on_lp_check(self, event: Any) -> None:
        # set in every call, also to False: HiGHS keeps the flag of an earlier, interrupted solve
        event.interrupt(self._progress.should_stop)

    def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
        """Solve the program in its current form."""
        self._check_open()
        check_limits(self._backend, limits)
        self._progress = progress = SolveProgress(limits, on_event)
        try:
            raw = trivial_outcome(self._program) or self._solve(limits, progress)
        finally:
            self._start = self._source = None
        return finish(self._program, progress, raw)

    def _solve(self, limits: Limits, progress: SolveProgress) -> RawOutcome:
        self._limit(limits, limits.time)
        if self._mip:
            self._highs.clearSolver()
            self._waiting = self._last if self._start is None else self._start
            if not self._presolve_chosen:
                set_option(self._highs, ROOT_PRESOLVE_ONLY, self._waiting is not None or self._source is not None)
            self._accepted = None if self._start is None else self._feasible(self._start)
            if self._start is not None and self._accepted:
                progress.incumbent(float(self._program.cost @ self._start) + self._program.offset, 0, self._start)
        status = self._run()
        if status == ModelStatus.kUnknown:  # a start from the basis of an earlier solve may fail
            self._highs.clearSolver()
            self._limit(limits, limits.time - progress.time)
            status = self._run()
        if status == ModelStatus.kInfeasible and self._highs.getInfo().simplex_iteration_count <= 0:
            status = self._without_presolve(limits, progress)
        if status == UNBOUNDED_OR_INFEASIBLE:
            return self._unbounded_or_infeasible(limits, progress)
        if status not in HIGHS_STATUSES:
            raise SolverFailure(f"HiGHS ended with `{self._highs.modelStatusToString(status)}`; try another `solver` or `presolve` option")
        return self._raw(status)

    def _without_presolve(self, limits: Limits, progress: SolveProgress) -> Any:
        """Solve again without presolve, whose word that a program is infeasible may be wrong by rounding; return the status."""
        presolve = self._highs.getOptionValue("presolve")[1]
        if presolve == "off":
            return ModelStatus.kInfeasible
        self._highs.clearSolver()
        self._waiting = self._start if self._mip else None
        self._limit(limits, limits.time - progress.time)
        set_option(self._highs, "presolve", "off")
        status = self._run()
        set_option(self._highs, "presolve", presolve)
        return status

    def _limit(self, limits: Limits, time: float) -> None:
        # the clock of LPs runs on from solve to solve, that of MIPs starts at 0
        begun = 0.0 if self._mip else self._highs.getRunTime()
        set_option(self._highs, "time_limit", begun + max(0.0, time))
        set_option(self._highs, "mip_rel_gap", limits.gap)
        set_option(self._highs, "mip_abs_gap", limits.gap_abs)
        set_option(self._highs, "mip_max_nodes", HIGHS_NODES_MAX if limits.nodes is None else min(limits.nodes, HIGHS_NODES_MAX))
        target = -math.inf if limits.objective_stop is None else limits.objective_stop
        set_option(self._highs, "objective_target", target)

    def _run(self) -> Any:
        def work() -> None:
            self._highs.run()
            self._highs.resetGlobalScheduler(False)  # its worker threads belong to this thread

        run_in_thread(work, self.interrupt)
        return self._highs.getModelStatus()

    def _raw(self, model_status: Any) -> RawOutcome:
        info, status = self._highs.getInfo(), HIGHS_STATUSES[model_status]
        found = self._highs.getSolution()
        x = np.array(found.col_value) if info.primal_solution_status == 2 else None
        duals = np.array(found.row_dual) if not self._mip and found.dual_valid else None
        if self._mip:
            if self._start is not None and self._accepted and self._better(self._start, x):
                x = self._start
            self._last = x
        lp_bound = info.objective_function_value if status is Status.OPTIMAL else -math.inf
        return RawOutcome(
            status,
            x,
            info.mip_dual_bound if self._mip else lp_bound,
            info.mip_node_count if self._mip else 0,
            info.simplex_iteration_count + info.ipm_iteration_count,
            self._accepted,
            str(self._highs.modelStatusToString(model_status)),
            duals,
        )

    def _feasible(self, x: Array) -> bool:
        """Return True if HiGHS counts a start as feasible, by its tolerance."""
        return self._program.violation(x) <= float(self._highs.getOptionValue("mip_feasibility_tolerance")[1])

    def _better(self, start: Array, x: Array | None) -> bool:
        """Return True if a start has a smaller objective than the point of HiGHS: it may stop before it sees the start."""
        return x is None or bool(self._program.cost @ start < self._program.cost @ x)

    def _unbounded_or_infeasible(self, limits: Limits, progress: SolveProgress) -> RawOutcome:
        """Tell unbounded from infeasible by a solve without cost, if HiGHS cannot tell."""
        p, quiet = self._program, SolveProgress(Limits(gap=math.inf), None)
        quiet.interrupted, self._progress = progress.interrupted, quiet
        self._limit(Limits(gap=math.inf), limits.time - progress.time)
        self._cost(np.zeros(p.columns))
        status = self._run()
        self._cost(p.cost)
        self._progress, progress.interrupted = progress, quiet.interrupted
        without_cost = {
            ModelStatus.kOptimal: Status.UNBOUNDED,
            ModelStatus.kInfeasible: Status.INFEASIBLE,
            ModelStatus.kTimeLimit: Status.TIME_LIMIT,
        }
        return RawOutcome(without_cost.get(status, Status.STALLED), message="unbounded or infeasible, decided by a solve without cost")

    def _cost(self, cost: Array) -> None:
        expect_ok(self._highs.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost), "the costs")

    def start(self, x: Array) -> None:
        """Set the start point of the next solve; LPs do not use it."""
        self._check_open()
        self._start = check_point(self._program, x)

    def suggest(self, source: PointSource) -> None:
        """Ask for points when HiGHS calls back: before the root, around its cuts and heuristics, and at some nodes of the tree."""
        self._check_open()
        self._source = checked_source(self._program, source)

    def add_rows(self, rows: Rows) -> None:
        """Append rows; the basis, and an incumbent that is still feasible, are kept."""
        self._check_open()
        rows = check_rows(self._program, rows)
        before = self._highs.getNumNz()
        csr = csr_arrays(rows.matrix)
        if self._program.columns:
            expect_ok(
                self._highs.addRows(len(rows), rows.lower, rows.upper, len(csr.values), csr.starts[:-1], csr.columns, csr.values),
                "the rows",
            )
            warn_dropped("HiGHS", before + len(csr.values) - self._highs.getNumNz())
        self._program = self._program.with_rows(rows)

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace costs and offset."""
        self._check_open()
        self._program = with_cost(self._program, cost, offset)
        self._cost(self._program.cost)
        self._highs.changeObjectiveOffset(self._program.offset)

    def set_bounds(self, columns: Columns, lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns."""
        self._check_open()
        index = np.asarray(columns, dtype=np.int32)
        self._program = p = with_bounds(self._program, np.asarray(columns), lower, upper)
        expect_ok(self._highs.changeColsBounds(len(index), index, p.lower[index], p.upper[index]), "the bounds")

    def interrupt(self) -> None:
        """Stop the current solve at HiGHS's next check."""
        self._progress.interrupted = True

    def close(self) -> None:
        """Release HiGHS's memory."""
        if self._highs is not None:
            self._highs.clearCallbacks()
            self._highs.clear()
            self._highs = None

    def _check_open(self) -> None:
        if self._highs is None:
            raise BackendError("this session is closed; open the program again")
