"""HiGHS: linear and mixed-integer programs, handed over as arrays and kept in one `highspy.Highs` object.

Two things to know.  The solver runs in a thread of its own, so handlers are called there, and Ctrl-C reaches it.  SOS1 sets,
indicators and log-sum-exp are not HiGHS's: `mipnet.backend.rewrites` rewrites them.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import highspy
import numpy as np
from numpy.typing import NDArray

from mipnet.backend import Backend, Feature, Limits, OnEvent, Options, Outcome, Program, Rows, Session, Source, Status
from mipnet.backend.helpers import (
    DEFAULT,
    Raw,
    canonical,
    check_limits,
    check_point,
    check_program,
    check_rows,
    checked,
    finish,
    trivial,
    warn_dropped,
    with_bounds,
    with_cost,
)
from mipnet.backend.progress import Progress, run_apart
from mipnet.errors import BackendError, SolverFailure
from mipnet_highs.options import expect_ok, set_option, set_options
from mipnet_highs.words import NO_LIMIT, STATUS, UNDECIDED, Word, arrays

Array = NDArray[np.float64]


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
        """HiGHS's own version."""
        return str(highspy.Highs().version())

    def open(self, program: Program, options: Options | None = None) -> Session:
        """Hand a program over; ``options`` by HiGHS's own names."""
        check_program(self, program)
        return HighsSession(self, program, options or {})


class HighsSession(Session):
    """One `highspy.Highs` object; bases and incumbents that still fit are used again by the next solve."""

    def __init__(self, backend: HiGHS, program: Program, options: Options) -> None:
        self._backend, self._program, self._start = backend, program, None
        self._progress = Progress(Limits(), None)
        self._mip = bool(program.integer.any())
        self._highs: Any = highspy.Highs()
        set_options(self._highs, options, self._mip)
        self._pass()
        self._subscribe()

    _start: Array | None
    _source: Source | None = None

    def _pass(self) -> None:
        p, matrix = self._program, canonical(self._program.rows.matrix)
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
            *arrays(matrix),
            p.integer.astype(np.int32),
        )  # fmt: skip  (2: by rows, 1: minimise)
        expect_ok(status, "the program")
        warn_dropped("HiGHS", matrix.nnz - self._highs.getNumNz())

    def _subscribe(self) -> None:
        h = self._highs
        h.cbLogging += self._on_log
        h.cbMipImprovingSolution += self._on_incumbent
        h.cbMipInterrupt += self._on_check
        h.cbMipUserSolution += self._on_question
        h.cbSimplexInterrupt += self._on_lp_check
        h.cbIpmInterrupt += self._on_lp_check

    def _on_log(self, event: Any) -> None:
        # the one place where HiGHS says what became of a start
        if "MIP start solution is feasible" in event.message:
            self._accepted = True
        self._progress.log(event.message)

    def _on_incumbent(self, event: Any) -> None:
        data = event.data_out
        self._progress.incumbent(data.objective_function_value, data.mip_node_count, np.array(data.mip_solution))

    def _on_check(self, event: Any) -> None:
        data = event.data_out
        self._progress.incumbent(data.mip_primal_bound, data.mip_node_count)
        self._progress.bound(data.mip_dual_bound, data.mip_node_count)
        self._on_lp_check(event)

    def _on_question(self, event: Any) -> None:
        # HiGHS shows no point of its relaxation here, and checks what it is given
        point = None if self._source is None else self._progress.ask(self._source, None)
        if point is not None:
            event.data_in.setSolution(np.ascontiguousarray(point, dtype=np.float64))

    def _on_lp_check(self, event: Any) -> None:
        # said every time, also when False: HiGHS keeps the flag of an earlier, interrupted solve
        event.interrupt(self._progress.stop)

    def solve(self, limits: Limits = DEFAULT, on_event: OnEvent | None = None) -> Outcome:
        """Solve the program as it stands now."""
        self._check_open()
        check_limits(self._backend, limits)
        self._progress = progress = Progress(limits, on_event)
        try:
            raw = trivial(self._program) or self._solve(limits, progress)
        finally:
            self._start = self._source = None
        return finish(self._program, progress, raw)

    def _solve(self, limits: Limits, progress: Progress) -> Raw:
        self._limit(limits, limits.time)
        self._accepted = False
        if self._start is not None and self._mip:
            every = np.arange(self._program.columns, dtype=np.int32)
            self._highs.setSolution(len(every), every, self._start)
        word = self._run()
        if word == Word.kUnknown:  # from the basis of an earlier solve it may lose its way
            self._highs.clearSolver()
            self._limit(limits, limits.time - progress.time)
            word = self._run()
        if word == UNDECIDED:
            return self._which(limits, progress)
        if word not in STATUS:
            raise SolverFailure(f"HiGHS ended with `{self._highs.modelStatusToString(word)}`; try another `solver` or `presolve` option")
        return self._raw(word)

    def _limit(self, limits: Limits, time: float) -> None:
        # an LP's clock runs on from solve to solve, a MIP's starts anew
        begun = 0.0 if self._mip else self._highs.getRunTime()
        set_option(self._highs, "time_limit", begun + max(0.0, time))
        set_option(self._highs, "mip_rel_gap", limits.gap)
        set_option(self._highs, "mip_abs_gap", limits.gap)  # so that the gap is relative to max(1, |objective|)
        set_option(self._highs, "mip_max_nodes", NO_LIMIT if limits.nodes is None else min(limits.nodes, NO_LIMIT))
        target = -math.inf if limits.objective_stop is None else limits.objective_stop
        set_option(self._highs, "objective_target", target)

    def _run(self) -> Any:
        def work() -> None:
            self._highs.run()
            self._highs.resetGlobalScheduler(False)  # its threads belong to this one

        run_apart(work, self.interrupt)
        return self._highs.getModelStatus()

    def _raw(self, word: Any) -> Raw:
        info, status = self._highs.getInfo(), STATUS[word]
        x = np.array(self._highs.getSolution().col_value) if info.primal_solution_status == 2 else None
        lp_bound = info.objective_function_value if status is Status.OPTIMAL else -math.inf
        return Raw(
            status,
            x,
            info.mip_dual_bound if self._mip else lp_bound,
            info.mip_node_count if self._mip else 0,
            info.simplex_iteration_count + info.ipm_iteration_count,
            None if self._start is None else self._accepted,
            str(self._highs.modelStatusToString(word)),
        )

    def _which(self, limits: Limits, progress: Progress) -> Raw:
        """Unbounded or infeasible: HiGHS often cannot say, the same rows without a cost can."""
        p, quiet = self._program, Progress(Limits(gap=math.inf), None)
        quiet.interrupted, self._progress = progress.interrupted, quiet
        self._limit(Limits(gap=math.inf), limits.time - progress.time)
        self._cost(np.zeros(p.columns))
        word = self._run()
        self._cost(p.cost)
        self._progress, progress.interrupted = progress, quiet.interrupted
        found = {Word.kOptimal: Status.UNBOUNDED, Word.kInfeasible: Status.INFEASIBLE, Word.kTimeLimit: Status.TIME_LIMIT}
        return Raw(found.get(word, Status.STALLED), message="unbounded or infeasible, told apart by a solve without cost")

    def _cost(self, cost: Array) -> None:
        expect_ok(self._highs.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost), "the costs")

    def start(self, x: Array) -> None:
        """Give a full point to the next solve; an LP has no use for it."""
        self._check_open()
        self._start = check_point(self._program, x)

    def suggest(self, source: Source) -> None:
        """Ask for points at HiGHS's own moments: before the root, around its cuts and its heuristics, now and then in the tree."""
        self._check_open()
        self._source = checked(self._program, source)

    def add_rows(self, rows: Rows) -> None:
        """Append rows; the basis and an incumbent that still fits are kept."""
        self._check_open()
        rows = check_rows(self._program, rows)
        before = self._highs.getNumNz()
        begin, index, data = arrays(rows.matrix)
        if self._program.columns:
            expect_ok(self._highs.addRows(len(rows), rows.lower, rows.upper, len(data), begin[:-1], index, data), "the rows")
            warn_dropped("HiGHS", before + len(data) - self._highs.getNumNz())
        self._program = self._program.with_rows(rows)

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace costs and offset."""
        self._check_open()
        self._program = with_cost(self._program, cost, offset)
        self._cost(self._program.cost)
        self._highs.changeObjectiveOffset(self._program.offset)

    def set_bounds(self, columns: NDArray[np.int64], lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns."""
        self._check_open()
        index = np.asarray(columns, dtype=np.int32)
        self._program = p = with_bounds(self._program, np.asarray(columns), lower, upper)
        expect_ok(self._highs.changeColsBounds(len(index), index, p.lower[index], p.upper[index]), "the bounds")

    def interrupt(self) -> None:
        """Stop the solve under way at HiGHS's next check."""
        self._progress.interrupted = True

    def close(self) -> None:
        """Give HiGHS's memory back."""
        if self._highs is not None:
            self._highs.clearCallbacks()
            self._highs.clear()
            self._highs = None

    def _check_open(self) -> None:
        if self._highs is None:
            raise BackendError("this session is closed; open the program again")
