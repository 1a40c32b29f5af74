"""HiGHS: linear, mixed-integer and convex quadratic programs, handed over as arrays and kept in one `highspy.Highs` object.

The solver runs in another thread, so that Ctrl-C can stop it; event handlers are called in that thread.  HiGHS has no SOS1 sets,
indicators or log-sum-exp: `mipnet.backend.rewrites` rewrites them.

A start point is handed over by a callback, after presolve, and no solution of an earlier solve is left in HiGHS.  HiGHS 1.15.1 could
call a start that was there before presolve optimal although it was not: presolve left columns out that had their best value, and the
cutoff was then rounded as if the start had these values too.

The proofs of HiGHS 1.15.1 could be wrong whether it had a point from outside or not: a cut could exclude all points that were better
than the best one so far.  No wrong proof of HiGHS 1.16 is known.  Still, every proof is compared with all points that are known and with
the ends of descents from some of them (`mipnet_highs.better_points`); one that they contradict is replaced by that of another solve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import highspy
import numpy as np

from mipnet.arrays import Array, Columns
from mipnet.backend import Backend, Feature, Limits, OnEvent, Options, Outcome, PointSource, Program, Rows, Session, Status, ToleranceKind
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
from mipnet_highs.better_points import Descent, contradicts
from mipnet_highs.highs_calls import HighsCalls
from mipnet_highs.options import HIGHS_FINE_TOLERANCE, HIGHS_TOLERANCE_OPTIONS, expect_ok
from mipnet_highs.program_arrays import csr_arrays
from mipnet_highs.quadratic import check_quadratic
from mipnet_highs.silent_highs import SilentHighs
from mipnet_highs.statuses import HIGHS_STATUSES, UNBOUNDED_OR_INFEASIBLE, ModelStatus

SECOND_SOLVES: tuple[dict[str, object], ...] = ({"presolve": "off", "random_seed": 1}, {"presolve": "off", "random_seed": 2})
"""The options of the solves that replace one whose proof is contradicted."""

DESCENT_SECONDS_MIN, DESCENT_TIME_SHARE = 0.5, 0.1
"""A descent takes at most this long, or this share of the time of the solve before it if that is longer."""


HIGHS_VERSION_MIN = (1, 16)
"""The oldest version of HiGHS that is used: 1.15.1 proved wrong bounds."""


def highs_version() -> tuple[int, int]:
    """Return the major and the minor version of the installed HiGHS; versions too old to tell are 0.0."""
    return getattr(highspy, "HIGHS_VERSION_MAJOR", 0), getattr(highspy, "HIGHS_VERSION_MINOR", 0)


class HiGHS(Backend):
    """HiGHS through highspy."""

    name: ClassVar[str] = "highs"
    module: ClassVar[str] = "highspy"
    install: ClassVar[str] = "pip install highspy"
    fine_tolerance: ClassVar[float] = HIGHS_FINE_TOLERANCE
    tolerance_options: ClassVar[Mapping[str, ToleranceKind]] = HIGHS_TOLERANCE_OPTIONS
    features: ClassVar[frozenset[Feature]] = frozenset(Feature) - {
        Feature.SOS1,
        Feature.INDICATOR,
        Feature.LOG_SUM_EXP,
        Feature.MEMORY_LIMIT,
        Feature.LAZY,
    }

    def version(self) -> str:
        """Return the version of HiGHS."""
        return str(SilentHighs().version())

    @property
    def problem(self) -> str:
        """What prevents the use of HiGHS here; a version that is known for wrong proofs does as well."""
        if super().problem or highs_version() >= HIGHS_VERSION_MIN:
            return super().problem
        have, need = (".".join(map(str, version)) for version in (highs_version(), HIGHS_VERSION_MIN))
        return f"`highspy` {have} is installed, which may prove what is wrong; mipnet needs {need} or newer: pip install --upgrade highspy"

    def open(self, program: Program, options: Options | None = None) -> Session:
        """Open a session on a program; ``options`` have HiGHS's own names."""
        check_program(self, program)
        check_quadratic(program)
        return HighsSession(self, program, options or {})


class HighsSession(HighsCalls):
    """One `highspy.Highs` object; the next solve reuses bases and incumbents that are still valid."""

    _start: Array | None = None
    _last: Array | None = None
    _accepted: bool | None = None

    def __init__(self, backend: HiGHS, program: Program, options: Options) -> None:
        super().__init__(program, options)
        self._backend = backend

    def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
        """Solve the program in its current form."""
        self._check_open()
        check_limits(self._backend, limits)
        self._progress = progress = SolveProgress(limits, on_event)
        try:
            raw = trivial_outcome(self._program) or self._proven(self._solve(limits, progress), limits, progress)
        finally:
            self._start = self._source = None
        return finish(self._program, progress, raw)

    def _proven(self, raw: RawOutcome, limits: Limits, progress: SolveProgress) -> RawOutcome:
        """Return the result of a solve, or that of another one if a known point contradicts its bound; then the bound never holds."""
        if not self._mip or raw.status is Status.UNBOUNDED:
            return raw
        for options in (*SECOND_SOLVES, None):
            self._look_for_better_points(raw, limits, progress)
            bound = math.inf if raw.status is Status.INFEASIBLE else max(raw.bound, progress.best_bound)
            if self._known is None or not contradicts(self._program, bound, self._known):
                return raw
            progress.withdraw_bound()
            progress.incumbent(float(self._program.cost @ self._known) + self._program.offset, raw.nodes, self._known)
            status = Status.STALLED if raw.status in (Status.OPTIMAL, Status.INFEASIBLE) else raw.status
            raw = replace(raw, status=status, x=self._known, bound=-math.inf, message="a known point contradicts the bound of HiGHS")
            if options is None or progress.should_stop or progress.time >= limits.time:
                break
            raw = self._once_more(raw, options, limits, progress)
        return raw

    def _look_for_better_points(self, raw: RawOutcome, limits: Limits, progress: SolveProgress) -> None:
        """Keep the best point of a solve; if the solve has proven something, also the ends of descents from the points seen in it."""
        self._remember(raw.x)
        proven = raw.status in (Status.OPTIMAL, Status.INFEASIBLE) or progress.gap_closed or progress.target_reached
        firsts = [x for x in (self._known, raw.x, *self._seen) if x is not None]
        if proven and firsts and not progress.interrupted:
            seconds = min(limits.time - progress.time, max(DESCENT_SECONDS_MIN, DESCENT_TIME_SHARE * progress.time))
            ends: list[Array] = []
            descent = Descent(self._program, max(self._tolerance / 2, 1e-10), seconds, lambda: progress.interrupted)
            run_in_thread(lambda: ends.extend(descent.ends(firsts)), self.interrupt)
            for end in ends:
                self._remember(end)

    def _once_more(self, before: RawOutcome, options: dict[str, object], limits: Limits, progress: SolveProgress) -> RawOutcome:
        """Return the result of another solve, without points from outside, with the better one of its point and that before."""
        self._highs.clearSolver()
        self._waiting, self._source = None, None
        self._limit(limits, limits.time - progress.time)
        with self._options(options):
            status = self._run()
        raw = self._raw(status) if status in HIGHS_STATUSES else before
        x = before.x if before.x is not None and self._better(before.x, raw.x) else raw.x
        return replace(raw, x=x, nodes=before.nodes + raw.nodes, iterations=before.iterations + raw.iterations)

    def _solve(self, limits: Limits, progress: SolveProgress) -> RawOutcome:
        self._limit(limits, limits.time)
        self._forget()
        if self._mip:
            self._highs.clearSolver()
            self._waiting = self._last if self._start is None else self._start
            self._remember(self._start)
            self._accepted = None if self._start is None else self._known is not None
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
        if self._highs.getOptionValue("presolve")[1] == "off":
            return ModelStatus.kInfeasible
        self._highs.clearSolver()
        self._waiting = self._start if self._mip else None
        self._limit(limits, limits.time - progress.time)
        with self._options({"presolve": "off"}):
            return self._run()

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
