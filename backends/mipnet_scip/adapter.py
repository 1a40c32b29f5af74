"""SCIP: mixed-integer programs with native SOS1 sets, indicators and log-sum-exp, held in one PySCIPOpt model.

The solver runs in another thread, so that Ctrl-C can stop it; event handlers are called in that thread.  The log is reported line by
line during the solve, or as a whole after it if SCIP's C functions are not available (see `mipnet_scip.native`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyscipopt
from pyscipopt import SCIP_EVENTTYPE, SCIP_STAGE, quicksum

from mipnet.arrays import Array, Columns
from mipnet.backend import (
    Backend,
    Feature,
    LazyRows,
    Limits,
    OnEvent,
    Options,
    Outcome,
    PointSource,
    Program,
    Rows,
    Session,
    Status,
    ToleranceKind,
)
from mipnet.backend.checks import (
    DEFAULT_LIMITS,
    RawOutcome,
    check_limits,
    check_point,
    check_program,
    check_rows,
    finish,
    trivial_outcome,
    with_bounds,
    with_cost,
)
from mipnet.backend.progress import SolveProgress, run_in_thread
from mipnet.errors import BackendError, SolverFailure
from mipnet_scip import native
from mipnet_scip.options import SCIP_FINE_TOLERANCE, SCIP_STATUSES, SCIP_TOLERANCE_PARAMETERS, set_limits, set_options
from mipnet_scip.plugins import PluginState
from mipnet_scip.scip_problem import ScipVariables, add_rows, finite, write_program

INTERRUPTIBLE_STAGES = frozenset(range(SCIP_STAGE.PROBLEM, SCIP_STAGE.INITSOLVE)) | {SCIP_STAGE.SOLVING, SCIP_STAGE.SOLVED}
"""SCIP's stages that allow an interrupt; in another stage, the next event or line of the log interrupts."""


class SCIP(Backend):
    """SCIP through PySCIPOpt."""

    name: ClassVar[str] = "scip"
    module: ClassVar[str] = "pyscipopt"
    install: ClassVar[str] = "pip install pyscipopt"
    fine_tolerance: ClassVar[float] = SCIP_FINE_TOLERANCE
    tolerance_options: ClassVar[Mapping[str, ToleranceKind]] = SCIP_TOLERANCE_PARAMETERS
    features: ClassVar[frozenset[Feature]] = frozenset(Feature)

    def version(self) -> str:
        """Return the version of SCIP, not of PySCIPOpt."""
        model = pyscipopt.Model()
        return f"{model.getMajorVersion()}.{model.getMinorVersion()}.{model.getTechVersion()}"

    def open(self, program: Program, options: Options | None = None) -> Session:
        """Open a session on a program; ``options`` are SCIP's parameters by their full names."""
        check_program(self, program)
        return ScipSession(self, program, options or {})


class ScipSession(Session):
    """One PySCIPOpt model; good solutions that are still feasible are candidates of the next solve."""

    def __init__(self, backend: SCIP, program: Program, options: Options) -> None:
        self._backend, self._program = backend, program
        self._start: Array | None = None
        self._source: PointSource | None = None
        self._lazy: LazyRows | None = None
        self._progress, self._solving = SolveProgress(Limits(), None), False
        self._model: Any = pyscipopt.Model()
        self._log_key: int | None = None
        self._redirect()
        self._variables = ScipVariables(self._model, np.empty(0, dtype=np.uintp))
        try:
            set_options(self._model, options, program)
            self._memory = float(self._model.getParam("limits/memory"))
            self._variables = write_program(self._model, program) if program.columns else self._variables
        except BaseException:
            self.close()
            raise
        kinds = [SCIP_EVENTTYPE.BESTSOLFOUND, SCIP_EVENTTYPE.DUALBOUNDIMPROVED, SCIP_EVENTTYPE.NODESOLVED]
        self._plugins = PluginState(self._model, self._stop_if_asked)
        self._model.attachEventHandlerCallback(self._on_event, kinds)

    def _redirect(self) -> None:
        lib = native.library()
        if lib is None:
            self._model.hideOutput()
        else:
            self._log_key = native.redirect_log(lib, self._model, self._on_log)

    def _on_log(self, text: str) -> None:
        self._progress.log(text)
        self._stop_if_asked()

    def _on_event(self, model: Any, event: Any) -> None:
        nodes = int(model.getNTotalNodes())
        # during BESTSOLFOUND the primal bound is still that of the previous point
        if model.getNSols() > 0:
            self._progress.incumbent(_infinite(model.getSolObjVal(model.getBestSol())), nodes)
        # after a limit or an interrupt SCIP prunes its tree and reports the incumbent as the bound
        if model.getStatus() == "unknown":
            self._progress.bound(_infinite(model.getDualbound()), nodes)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._solving and self._progress.should_stop and self._model.getStage() in INTERRUPTIBLE_STAGES:
            self._model.interruptSolve()

    def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
        """Solve the program in its current form."""
        self._check_open()
        check_limits(self._backend, limits)
        self._progress = progress = SolveProgress(limits, on_event)
        self._plugins.begin(self._program, self._variables, progress, self._source, self._lazy)
        try:
            raw = trivial_outcome(self._program) or self._solve(limits, progress)
        finally:
            self._start = self._source = self._lazy = None
            self._model.freeTransform()
            self._plugins.end()
        return finish(self._program, progress, raw)

    def _solve(self, limits: Limits, progress: SolveProgress) -> RawOutcome:
        set_limits(self._model, limits, limits.time, self._memory)
        accepted = self._offer_start()
        status = self._run(progress)
        if status == "inforunbd":
            return self._unbounded_or_infeasible(limits, progress)
        if status not in SCIP_STATUSES:
            raise SolverFailure(f"SCIP ended with status `{status}`; try other parameters, or another backend")
        return self._raw(status, accepted)

    def _offer_start(self) -> bool | None:
        if self._start is None:
            return None
        lib, variables = native.library(), self._variables
        if lib is not None:
            return native.offer_start(lib, self._model, variables.every_pointer, variables.values(self._start))
        solution = self._model.createSol()
        variables.set_values(solution, self._start)
        feasible = bool(self._model.checkSol(solution, printreason=False, original=True))
        self._model.addSol(solution)
        return feasible

    def _run(self, progress: SolveProgress) -> str:
        self._model.hideOutput(self._log_key is None or progress.quiet)
        self._solving = True
        try:
            self._optimise(progress)
        except Exception as error:  # PySCIPOpt turns every return code into an `Exception`
            if progress.error is not None:
                raise progress.error from error
            raise SolverFailure(f"SCIP broke down: {error}; try other parameters, or another backend") from error
        finally:
            self._solving = False
        return str(self._model.getStatus())

    def _optimise(self, progress: SolveProgress) -> None:
        if self._log_key is not None or progress.quiet:
            run_in_thread(self._model.optimizeNogil, self.interrupt)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log"
            self._model.setLogfile(str(path))
            run_in_thread(self._model.optimizeNogil, self.interrupt)
            self._model.setLogfile(None)
            progress.log(path.read_text(errors="replace"))

    def _raw(self, status: str, accepted: bool | None) -> RawOutcome:
        m = self._model
        x = None
        if m.getNSols() > 0:
            lib, best = native.library(), m.getBestSol()
            if lib is not None:
                x = native.best_values(lib, m, self._variables.pointers)
            else:
                x = np.array([m.getSolVal(best, v) for v in self._variables.columns])
        bound, nodes, iterations = _infinite(m.getDualbound()), int(m.getNTotalNodes()), int(m.getNLPIterations())
        return RawOutcome(SCIP_STATUSES[status], x, bound, nodes, iterations, accepted, status)

    def _unbounded_or_infeasible(self, limits: Limits, progress: SolveProgress) -> RawOutcome:
        """Tell unbounded from infeasible by a solve without cost, if SCIP cannot tell."""
        quiet = SolveProgress(Limits(gap=math.inf), None)
        quiet.interrupted, self._progress = progress.interrupted, quiet
        self._model.freeTransform()
        set_limits(self._model, Limits(gap=math.inf), limits.time - progress.time, self._memory)
        self._model.setObjective(0.0)
        status = self._run(quiet)
        points = self._model.getNSols()
        self._model.freeTransform()
        self._cost()
        self._progress, progress.interrupted = progress, quiet.interrupted
        found = {"infeasible": Status.INFEASIBLE, "timelimit": Status.TIME_LIMIT}.get(status, Status.STALLED)
        message = "unbounded or infeasible, decided by a solve without cost"
        return RawOutcome(Status.UNBOUNDED if points else found, message=message)

    def _cost(self) -> None:
        terms = [c * v for c, v in zip(self._program.cost.tolist(), self._variables.columns, strict=True) if c]
        terms += [] if self._variables.square is None else [1.0 * self._variables.square]
        self._model.setObjective(quicksum(terms) + self._program.offset, "minimize")

    def start(self, x: Array) -> None:
        """Set the start point of the next solve."""
        self._check_open()
        self._start = check_point(self._program, x)

    def suggest(self, source: PointSource) -> None:
        """Ask for points after every LP of every node."""
        self._check_open()
        self._source = source

    def lazy(self, rows: LazyRows) -> None:
        """Add lazy rows by a constraint handler; symmetry, dominance and independent components are off in that solve."""
        self._check_open()
        self._lazy = rows

    def add_rows(self, rows: Rows) -> None:
        """Append rows."""
        self._check_open()
        rows = check_rows(self._program, rows)
        if self._program.columns:
            add_rows(self._model, self._variables, rows)
        self._program = self._program.with_rows(rows)

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace costs and offset."""
        self._check_open()
        self._program = with_cost(self._program, cost, offset)
        self._cost()

    def set_bounds(self, columns: Columns, lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns."""
        self._check_open()
        self._program = p = with_bounds(self._program, np.asarray(columns), lower, upper)
        for j in np.asarray(columns).tolist():
            self._bound(self._variables.columns[j], float(p.lower[j]), float(p.upper[j]))
        for v, (k, t) in zip(self._variables.differences, self._variables.pairs, strict=True):
            self._model.chgVarLb(v, finite(min(0.0, float(p.lower[k] - p.upper[t]))))

    def _bound(self, variable: Any, lower: float, upper: float) -> None:
        low, high = min(lower, upper), max(lower, upper)
        if variable.vtype() == "BINARY" and (low < 0 or high > 1):
            self._model.chgVarType(variable, "I")
        self._model.chgVarLb(variable, finite(low))
        self._model.chgVarUb(variable, finite(high))

    def interrupt(self) -> None:
        """Stop the current solve at SCIP's next check."""
        self._progress.interrupted = True
        self._stop_if_asked()

    def close(self) -> None:
        """Release SCIP's memory."""
        if self._model is None:
            return
        self._variables = ScipVariables(None, np.empty(0, dtype=np.uintp))
        self._model.free()
        self._model = None
        if self._log_key is not None:
            native.release_log(self._log_key)

    def _check_open(self) -> None:
        if self._model is None:
            raise BackendError("this session is closed; open the program again")


def _infinite(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= native.SCIP_INFINITY else float(value)
