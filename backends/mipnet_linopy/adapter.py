"""The backend of every solver that linopy runs: a program is converted to a linopy model, again after every change.

linopy cannot change a model in a solver, has no events and cannot interrupt a solve.  A session therefore keeps its program and builds
a new model after a change; it ends the commands CBC and GLPK itself.  `SolverInterface.read` corrects what linopy or a solver reports;
its points and bounds are checked here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import linopy
import numpy as np
from linopy.solvers import Solver

from mipnet.arrays import Array, Columns, Csr
from mipnet.backend import Backend, Feature, Limits, OnEvent, Options, Outcome, Program, Rows, Session, Status, ToleranceKind
from mipnet.backend.checks import (
    DEFAULT_LIMITS,
    POINT_TOLERANCE,
    RawOutcome,
    check_limits,
    check_point,
    check_program,
    check_rows,
    finish,
    scaled_violation,
    trivial_outcome,
    with_bounds,
    with_cost,
)
from mipnet.backend.progress import SolveProgress
from mipnet.errors import BackendError, MipnetError, OptionError, SolverFailure
from mipnet_linopy.command_solvers import find_command, run_command
from mipnet_linopy.interface import SolverInterface, SolverOutput
from mipnet_linopy.linopy_model import BuiltModel, build_model
from mipnet_linopy.own_commands import end_commands

LINOPY_FEATURES = frozenset({Feature.INTEGER, Feature.ADD_ROWS, Feature.CHANGE, Feature.LOG_EVENTS, Feature.TIME_LIMIT, Feature.GAP_LIMIT})
"""Features of all solvers of this package."""

ONE_COLUMN_PROGRAM = Program(
    np.ones(1), Rows(Csr(np.ones((1, 1))), np.ones(1), np.ones(1)), np.zeros(1), np.ones(1), np.ones(1, dtype=bool)
)
"""A program with one column, on which options are tried."""


LINOPY_TOLERANCE_OPTIONS: dict[str, ToleranceKind] = {
    **dict.fromkeys(("primalTolerance", "integerTolerance"), "rows"),  # CBC
    **dict.fromkeys(("FeasibilityTol", "IntFeasTol"), "rows"),  # Gurobi
    **dict.fromkeys(("feastol", "miptol"), "rows"),  # Xpress
    **dict.fromkeys(("simplex.tolerances.feasibility", "mip.tolerances.integrality"), "rows"),  # CPLEX
    **dict.fromkeys(("FeasTol", "IntTol"), "rows"),  # COPT
    **dict.fromkeys(("dualTolerance", "OptimalityTol", "optimalitytol", "simplex.tolerances.optimality", "DualTol"), "reduced costs"),
}
"""Options of these solvers that set tolerances."""


class Linopy(Backend):
    """A solver that linopy runs; a subclass per solver sets its ``interface``."""

    interface: ClassVar[SolverInterface]
    tolerance_options: ClassVar[Mapping[str, ToleranceKind]] = LINOPY_TOLERANCE_OPTIONS

    def version(self) -> str:
        """Return the version of the solver, or of its Python package."""
        return self.interface.version()

    def open(self, program: Program, options: Options | None = None) -> Session:
        """Open a session on a program; ``options`` have the solver's own names."""
        check_program(self, program)
        if self.problem:
            raise BackendError(self.problem)
        if self.interface.command is None and self.name not in linopy.available_solvers:
            linopy.available_solvers.refresh()  # linopy caches which solvers it has not found
        if options:
            self._check(dict(options))
        return LinopySession(self, program, dict(options or {}))

    def _check(self, options: dict[str, Any]) -> None:
        for name in options:
            limit = next((limit for own, limit in self.interface.limits.names.items() if own.lower().startswith(name.lower())), None)
            if limit is not None:
                raise OptionError(f"`{name}` is set by every solve from its limits: pass Limits({limit}=...) instead")
        if self.interface.check is not None:
            self.interface.check(options)
        else:
            self._try(options)

    def _try(self, options: dict[str, Any]) -> None:
        """Solve a program of one column with each option: these solvers reject options only when they solve."""
        with LinopySession(self, ONE_COLUMN_PROGRAM, {}) as session:
            session.solve()
        for name, value in options.items():
            with LinopySession(self, ONE_COLUMN_PROGRAM, {name: value}) as session:
                try:
                    session.solve()
                except SolverFailure as error:
                    raise OptionError(f"{self.interface.title} does not take {value!r} for `{name}`: {error.__cause__ or error}") from error

    @property
    def available(self) -> bool:
        """True if the solver's package or command can be found (it is not run, and no licence is checked)."""
        return (find_command if self.interface.command else find_spec)(self.module) is not None


class LinopySession(Session):
    """A program, and its linopy model, which is built again after a change."""

    def __init__(self, backend: Linopy, program: Program, options: dict[str, Any]) -> None:
        self._backend, self._program, self._options = backend, program, options
        self._built: BuiltModel | None = build_model(program)
        self._start: Array | None = None
        self._open = True
        self._folder: Path | None = None
        self._interrupted = False

    def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
        """Solve the program in its current form; the log is reported after the solve."""
        self._check_open()
        check_limits(self._backend, limits)
        progress, self._interrupted = SolveProgress(limits, on_event), False
        raw = trivial_outcome(self._program) or self._solve(limits, progress)
        self._start = None
        return finish(self._program, progress, raw)

    def _solve(self, limits: Limits, progress: SolveProgress) -> RawOutcome:
        built = self._built = self._built or build_model(self._program)
        raw = self._run(self._program, built, limits, progress)
        return self._unbounded_or_infeasible(limits, progress, raw.message) if raw.status is Status.UNBOUNDED else raw

    def _unbounded_or_infeasible(self, limits: Limits, progress: SolveProgress, message: str) -> RawOutcome:
        """Tell unbounded from infeasible by a solve without cost: few solvers can tell, and some report on the relaxation only."""
        self._start = None
        flat = with_cost(self._program, np.zeros(self._program.columns), 0.0)
        raw = self._run(flat, build_model(flat), replace(limits, gap=math.inf), progress)
        found = {Status.OPTIMAL: Status.STALLED, Status.UNBOUNDED: Status.STALLED}.get(raw.status or Status.STALLED, raw.status)
        return RawOutcome(Status.UNBOUNDED if raw.x is not None else found, message=f"{message}; without cost: {raw.message}")

    def _run(self, program: Program, built: BuiltModel, limits: Limits, progress: SolveProgress) -> RawOutcome:
        """Run the solver once and return the result for the program."""
        if built.infeasible:
            return RawOutcome(Status.INFEASIBLE, message="an integer column has no integer between its bounds, or an empty row excludes 0")
        seconds = limits.time - progress.time
        if seconds <= 0:
            return RawOutcome(Status.TIME_LIMIT, message="no time was left")
        with _folder() as folder, contextlib.ExitStack() as stack:
            self._folder = folder
            try:
                output, error = self._call_linopy(built, limits, seconds, folder, stack)
            finally:
                self._folder = None
            progress.log(output.log)
            progress.interrupted |= self._interrupted
            try:
                raw = self._read(output, error)
            except SolverFailure:  # a command that was ended may leave incomplete output
                if not self._interrupted:
                    raise
                raw = RawOutcome(Status.STALLED)
        return _checked(program, built, raw, limits, progress)

    def _call_linopy(
        self, built: BuiltModel, limits: Limits, seconds: float, folder: Path, stack: contextlib.ExitStack
    ) -> tuple[SolverOutput, Exception | None]:
        """Return the output of linopy and the solver, and the exception that they raised, if any."""
        interface, log = self._backend.interface, folder / "log"
        solver, result, error = None, None, None
        try:
            with _without_output(silent=interface.command is None):
                file = folder / "program.lp"
                if interface.command is None:
                    build: Mapping[str, Any] = interface.build if interface.io_api == "direct" else {"problem_fn": file, "progress": False}
                    solver = Solver.from_name(self._backend.name, built.model, io_api=interface.io_api, **build)
                    stack.callback(solver.close)
                else:
                    built.model.to_file(file, progress=False)
                options = {**interface.defaults, **self._options, **interface.limits.values(limits, seconds)}
                if self._start is not None and interface.start is not None and self._program.integer.any():
                    options |= interface.start(solver, built.values(self._start), folder)
                if not self._interrupted and solver is not None:
                    solver.options = options
                    result = solver.solve(log_fn=log)
                elif not self._interrupted and interface.command is not None:
                    run_command(self._backend.module, interface.command(folder, options), folder)
        except Exception as caught:
            error = caught
        text = log.read_text(errors="replace") if log.exists() else ""
        return SolverOutput(result, None if solver is None else solver.solver_model, folder, text, built.size, seconds), error

    def _read(self, output: SolverOutput, error: Exception | None) -> RawOutcome:
        """Read the result of a run; raises `SolverFailure` if there is none."""
        try:
            raw = self._backend.interface.read(output)
        except MipnetError:
            raise
        except Exception as unread:  # a failed run may leave incomplete output
            error, raw = error or unread, RawOutcome(Status.STALLED)
        if error is not None and raw.status is Status.STALLED and raw.x is None:
            raise SolverFailure(f"{self._backend.interface.title} broke down: {error}; try other options, or another backend") from error
        return raw

    def start(self, x: Array) -> None:
        """Set the start point of the next solve; solvers without start points ignore it."""
        self._check_open()
        self._start = check_point(self._program, x)

    def add_rows(self, rows: Rows) -> None:
        """Append rows."""
        self._check_open()
        self._change(self._program.with_rows(check_rows(self._program, rows)))

    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace costs and offset."""
        self._check_open()
        self._change(with_cost(self._program, cost, offset))

    def set_bounds(self, columns: Columns, lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns."""
        self._check_open()
        self._change(with_bounds(self._program, np.asarray(columns), lower, upper))

    def _change(self, program: Program) -> None:
        self._program, self._built = program, None

    def interrupt(self) -> None:
        """End the command of the current solve, if the solver is one.

        `Feature.INTERRUPT` is not among the features: linopy cannot interrupt a library, and GLPK ends without its point.
        """
        if not self._backend.interface.command:
            return
        self._interrupted = True
        if (folder := self._folder) is not None:
            end_commands(folder, lambda: self._folder != folder)

    def close(self) -> None:
        """Release the model; no solver is held open between solves."""
        self._open, self._built = False, None

    def _check_open(self) -> None:
        if not self._open:
            raise BackendError("this session is closed; open the program again")


def _checked(program: Program, built: BuiltModel, raw: RawOutcome, limits: Limits, progress: SolveProgress) -> RawOutcome:
    """Return the result for the program: the point if it is feasible, the bound without the shift, and the bound that optimality proves."""
    x, status, bound = built.point(raw.x), raw.status, raw.bound - built.shift
    if status in (None, Status.STALLED) and progress.time >= limits.time:
        status = Status.TIME_LIMIT
    if x is not None and status is not Status.OPTIMAL:
        clipped = np.clip(x, program.lower, program.upper)
        # drop the point of a relaxation, and zeros instead of no point
        x = x if scaled_violation(program, clipped) <= POINT_TOLERANCE else None
    if x is not None and status is Status.OPTIMAL:
        objective = float(program.cost @ x) + program.offset
        bound = max(bound, objective - (limits.tolerated(objective) if program.integer.any() else 0.0))
    return replace(raw, status=status, x=x, bound=bound)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder for one run."""
    with tempfile.TemporaryDirectory(prefix="mipnet-", ignore_cleanup_errors=True) as name:
        if " " in name:
            raise BackendError(f"no command can be run on files in `{name}`: set TMPDIR to a folder without blanks in its name")
        yield Path(name)


_output_lock = threading.Lock()
_outputs: list[tuple[int, int]] = []
"""Standard output and the level of linopy's log before each current run."""


@contextlib.contextmanager
def _without_output(*, silent: bool) -> Iterator[None]:
    """Hide the log of linopy and, if ``silent``, what a library prints in spite of its options.

    Standard output belongs to the whole process: what other threads print during the run is lost too.
    """
    logger = logging.getLogger("linopy")
    with _output_lock:
        _outputs.append((os.dup(1), logger.level))
        logger.setLevel(logging.CRITICAL)
        if silent:
            sys.stdout.flush()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        with _output_lock:
            sys.stdout.flush()
            output, level = _outputs.pop()
            os.dup2(output, 1)
            os.close(output)
            logger.setLevel(level)
