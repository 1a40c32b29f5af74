"""SCIP: mixed-integer programs with SOS1 sets, indicators and log-sum-exp, all native, held in one PySCIPOpt model.

The solver runs in a thread of its own, so handlers are called there, and Ctrl-C reaches it.  Its log arrives line by line while
it solves; where SCIP's C functions cannot be reached (see `mipnet_scip.native`) it arrives in one piece after the solve.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyscipopt
from numpy.typing import NDArray
from pyscipopt import SCIP_EVENTTYPE, SCIP_STAGE, quicksum

from mipnet.backend import Backend, Feature, Lazy, Limits, OnEvent, Options, Outcome, Program, Rows, Session, Source, Status
from mipnet.backend.helpers import (
    DEFAULT,
    Raw,
    check_limits,
    check_point,
    check_program,
    check_rows,
    finish,
    trivial,
    with_bounds,
    with_cost,
)
from mipnet.backend.progress import Progress, run_apart
from mipnet.errors import BackendError, SolverFailure
from mipnet_scip import native
from mipnet_scip.handover import Handles, add_rows, finite, hand_over
from mipnet_scip.options import STATUS, set_limits, set_options
from mipnet_scip.plugins import Hooks

Array = NDArray[np.float64]

INTERRUPTIBLE = frozenset(range(SCIP_STAGE.PROBLEM, SCIP_STAGE.INITSOLVE)) | {SCIP_STAGE.SOLVING, SCIP_STAGE.SOLVED}
"""SCIP's stages that allow an interrupt; asked in another one, the next event or line of the log asks again."""


class SCIP(Backend):
    """SCIP through PySCIPOpt."""

    name: ClassVar[str] = "scip"
    module: ClassVar[str] = "pyscipopt"
    install: ClassVar[str] = "pip install pyscipopt"
    features: ClassVar[frozenset[Feature]] = frozenset(Feature)

    def version(self) -> str:
        """SCIP's own version, not PySCIPOpt's."""
        model = pyscipopt.Model()
        return f"{model.getMajorVersion()}.{model.getMinorVersion()}.{model.getTechVersion()}"

    def open(self, program: Program, options: Options | None = None) -> Session:
        """Hand a program over; ``options`` are SCIP's parameters by their full names."""
        check_program(self, program)
        return ScipSession(self, program, options or {})


class ScipSession(Session):
    """One PySCIPOpt model; good solutions that still fit are candidates of the next solve."""

    def __init__(self, backend: SCIP, program: Program, options: Options) -> None:
        self._backend, self._program = backend, program
        self._start: Array | None = None
        self._source: Source | None = None
        self._lazy: Lazy | None = None
        self._progress, self._solving = Progress(Limits(), None), False
        self._model: Any = pyscipopt.Model()
        self._log_key: int | None = None
        self._redirect()
        self._handles = Handles([])
        try:
            set_options(self._model, options, nonlinear=bool(program.convex), sets=bool(program.sos1))
            self._memory = float(self._model.getParam("limits/memory"))
            self._handles = hand_over(self._model, program) if program.columns else self._handles
        except BaseException:
            self.close()
            raise
        kinds = [SCIP_EVENTTYPE.BESTSOLFOUND, SCIP_EVENTTYPE.DUALBOUNDIMPROVED, SCIP_EVENTTYPE.NODESOLVED]
        self._hooks = Hooks(self._model, self._stop_if_asked)
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
        # inside BESTSOLFOUND the primal bound is still that of the point before
        if model.getNSols() > 0:
            self._progress.incumbent(_infinite(model.getSolObjVal(model.getBestSol())), nodes)
        # once a limit or an interrupt has ended the search, SCIP prunes its tree and calls the incumbent a bound
        if model.getStatus() == "unknown":
            self._progress.bound(_infinite(model.getDualbound()), nodes)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._solving and self._progress.stop and self._model.getStage() in INTERRUPTIBLE:
            self._model.interruptSolve()

    def solve(self, limits: Limits = DEFAULT, on_event: OnEvent | None = None) -> Outcome:
        """Solve the program as it stands now."""
        self._check_open()
        check_limits(self._backend, limits)
        self._progress = progress = Progress(limits, on_event)
        self._hooks.begin(self._program, self._handles, progress, self._source, self._lazy)
        try:
            raw = trivial(self._program) or self._solve(limits, progress)
        finally:
            self._start = self._source = self._lazy = None
            self._model.freeTransform()
            self._hooks.end()
        return finish(self._program, progress, raw)

    def _solve(self, limits: Limits, progress: Progress) -> Raw:
        set_limits(self._model, limits, limits.time, self._memory)
        accepted = self._offer_start()
        word = self._run(progress)
        if word == "inforunbd":
            return self._which(limits, progress)
        if word not in STATUS:
            raise SolverFailure(f"SCIP ended with status `{word}`; try other parameters, or another backend")
        return self._raw(word, accepted)

    def _offer_start(self) -> bool | None:
        if self._start is None:
            return None
        solution = self._model.createSol()
        for variable, value in self._handles.values(self._start):
            self._model.setSolVal(solution, variable, value)
        # SCIP stores any point at this stage; what it will accept is told by the check
        feasible = bool(self._model.checkSol(solution, printreason=False, original=True))
        self._model.addSol(solution)
        return feasible

    def _run(self, progress: Progress) -> str:
        self._model.hideOutput(self._log_key is None or progress.quiet)
        self._solving = True
        try:
            self._optimise(progress)
        except Exception as error:  # PySCIPOpt turns every return code into a plain exception
            if progress.error is not None:
                raise progress.error from error
            raise SolverFailure(f"SCIP broke down: {error}; try other parameters, or another backend") from error
        finally:
            self._solving = False
        return str(self._model.getStatus())

    def _optimise(self, progress: Progress) -> None:
        if self._log_key is not None or progress.quiet:
            run_apart(self._model.optimizeNogil, self.interrupt)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log"
            self._model.setLogfile(str(path))
            run_apart(self._model.optimizeNogil, self.interrupt)
            self._model.setLogfile(None)
            progress.log(path.read_text(errors="replace"))

    def _raw(self, word: str, accepted: bool | None) -> Raw:
        m = self._model
        x = None
        if m.getNSols() > 0:
            best = m.getBestSol()
            x = np.array([m.getSolVal(best, v) for v in self._handles.columns])
        return Raw(STATUS[word], x, _infinite(m.getDualbound()), int(m.getNTotalNodes()), int(m.getNLPIterations()), accepted, word)

    def _which(self, limits: Limits, progress: Progress) -> Raw:
        """Unbounded or infeasible: SCIP often cannot say, the same rows without a cost can."""
        quiet = Progress(Limits(gap=math.inf), None)
        quiet.interrupted, self._progress = progress.interrupted, quiet
        self._model.freeTransform()
        set_limits(self._model, Limits(gap=math.inf), limits.time - progress.time, self._memory)
        self._model.setObjective(0.0)
        word = self._run(quiet)
        points = self._model.getNSols()
        self._model.freeTransform()
        self._cost()
        self._progress, progress.interrupted = progress, quiet.interrupted
        found = {"infeasible": Status.INFEASIBLE, "timelimit": Status.TIME_LIMIT}.get(word, Status.STALLED)
        message = "unbounded or infeasible, told apart by a solve without cost"
        return Raw(Status.UNBOUNDED if points else found, message=message)

    def _cost(self) -> None:
        terms = (c * v for c, v in zip(self._program.cost.tolist(), self._handles.columns, strict=True) if c)
        self._model.setObjective(quicksum(terms) + self._program.offset, "minimize")

    def start(self, x: Array) -> None:
        """Give a full point to the next solve."""
        self._check_open()
        self._start = check_point(self._program, x)

    def suggest(self, source: Source) -> None:
        """Ask for points after every LP of every node."""
        self._check_open()
        self._source = source

    def lazy(self, rows: Lazy) -> None:
        """Take lazy rows by a constraint handler, with SCIP's reductions by symmetry, dominance and independent parts off meanwhile."""
        self._check_open()
        self._lazy = rows

    def add_rows(self, rows: Rows) -> None:
        """Append rows."""
        self._check_open()
        rows = check_rows(self._program, rows)
        if self._program.columns:
            add_rows(self._model, self._handles, rows)
        self._program = self._program.with_rows(rows)

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace costs and offset."""
        self._check_open()
        self._program = with_cost(self._program, cost, offset)
        self._cost()

    def set_bounds(self, columns: NDArray[np.int64], lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns."""
        self._check_open()
        self._program = p = with_bounds(self._program, np.asarray(columns), lower, upper)
        for j in np.asarray(columns).tolist():
            self._bound(self._handles.columns[j], float(p.lower[j]), float(p.upper[j]))
        for v, (k, t) in zip(self._handles.shifted, self._handles.of, strict=True):
            self._model.chgVarLb(v, finite(min(0.0, float(p.lower[k] - p.upper[t]))))

    def _bound(self, variable: Any, lower: float, upper: float) -> None:
        low, high = min(lower, upper), max(lower, upper)
        if variable.vtype() == "BINARY" and (low < 0 or high > 1):
            self._model.chgVarType(variable, "I")
        self._model.chgVarLb(variable, finite(low))
        self._model.chgVarUb(variable, finite(high))

    def interrupt(self) -> None:
        """Stop the solve under way at SCIP's next check."""
        self._progress.interrupted = True
        self._stop_if_asked()

    def close(self) -> None:
        """Give SCIP's memory back."""
        if self._model is None:
            return
        self._handles = Handles([])
        self._model.free()
        self._model = None
        if self._log_key is not None:
            native.release_log(self._log_key)

    def _check_open(self) -> None:
        if self._model is None:
            raise BackendError("this session is closed; open the program again")


def _infinite(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= native.INFINITY else float(value)
