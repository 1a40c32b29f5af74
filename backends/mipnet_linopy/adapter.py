"""Any solver that linopy drives, as a backend: a program becomes a linopy model, anew after every change.

linopy keeps no rows open, knows no events and does not stop when asked, so a session remembers its program and hands it over again.
What linopy or a solver leaves out or gets wrong is the business of `mipnet_linopy.words` and its neighbours; what they claim is
checked here.
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
from numpy.typing import NDArray

from mipnet.arrays import Csr
from mipnet.backend import Backend, Feature, Limits, OnEvent, Options, Outcome, Program, Rows, Session, Status
from mipnet.backend.helpers import (
    DEFAULT,
    TOLERANCE,
    Raw,
    check_limits,
    check_point,
    check_program,
    check_rows,
    finish,
    misses,
    trivial,
    with_bounds,
    with_cost,
)
from mipnet.backend.progress import Progress
from mipnet.errors import BackendError, MipnetError, OptionError, SolverFailure
from mipnet_linopy.commands import find_command
from mipnet_linopy.handover import Handed, hand_over
from mipnet_linopy.words import Dialect, Said

Array = NDArray[np.float64]

COMMON = frozenset({Feature.INTEGER, Feature.ADD_ROWS, Feature.CHANGE, Feature.LOG_EVENTS, Feature.TIME_LIMIT, Feature.GAP_LIMIT})
"""What every one of these solvers does."""

ONE = Program(np.ones(1), Rows(Csr(np.ones((1, 1))), np.ones(1), np.ones(1)), np.zeros(1), np.ones(1), np.ones(1, dtype=bool))
"""A program of one column, to try options on."""


class Linopy(Backend):
    """A solver that linopy drives; a subclass says which one, and its ``dialect`` what that one calls things."""

    dialect: ClassVar[Dialect]

    def version(self) -> str:
        """The version of the solver, or of its Python package."""
        return self.dialect.version()

    def open(self, program: Program, options: Options | None = None) -> Session:
        """Hand a program over; ``options`` by the solver's own names."""
        check_program(self, program)
        if not self.available:
            raise BackendError(f"`{self.module}` is not installed: {self.install}")
        if self.name not in linopy.available_solvers:
            linopy.available_solvers.refresh()  # it remembers what it did not find
        if options:
            self._check(dict(options))
        return LinopySession(self, program, dict(options or {}))

    def _check(self, options: dict[str, Any]) -> None:
        for name in options:
            limit = next((limit for own, limit in self.dialect.owned.items() if own.lower().startswith(name.lower())), None)
            if limit is not None:
                raise OptionError(f"`{name}` is set by every solve from its limits: pass Limits({limit}=...) instead")
        if self.dialect.check is not None:
            self.dialect.check(options)
        else:
            self._try(options)

    def _try(self, options: dict[str, Any]) -> None:
        """Solves a program of one column with each option: these solvers refuse what they do not take, but only then."""
        with LinopySession(self, ONE, {}) as session:
            session.solve()
        for name, value in options.items():
            with LinopySession(self, ONE, {name: value}) as session:
                try:
                    session.solve()
                except SolverFailure as error:
                    raise OptionError(f"{self.dialect.title} does not take {value!r} for `{name}`: {error.__cause__ or error}") from error

    @property
    def available(self) -> bool:
        """True if the solver's package or command can be found (it is not run; a licence is not asked for)."""
        return (find_command if self.dialect.command else find_spec)(self.module) is not None


class LinopySession(Session):
    """A program, and the linopy model of it until it changes."""

    def __init__(self, backend: Linopy, program: Program, options: dict[str, Any]) -> None:
        self._backend, self._program, self._options = backend, program, options
        self._handed: Handed | None = hand_over(program)
        self._start: Array | None = None
        self._open = True

    def solve(self, limits: Limits = DEFAULT, on_event: OnEvent | None = None) -> Outcome:
        """Solve the program as it stands now; the log arrives in one piece when it is done."""
        self._check_open()
        check_limits(self._backend, limits)
        progress = Progress(limits, on_event)
        raw = trivial(self._program) or self._solve(limits, progress)
        self._start = None
        return finish(self._program, progress, raw)

    def _solve(self, limits: Limits, progress: Progress) -> Raw:
        handed = self._handed = self._handed or hand_over(self._program)
        raw = self._run(self._program, handed, limits, progress)
        return self._which(limits, progress, raw.message) if raw.status is Status.UNBOUNDED else raw

    def _which(self, limits: Limits, progress: Progress, message: str) -> Raw:
        """Unbounded or infeasible: few solvers know, and some speak of the relaxation alone; the same rows without a cost can say."""
        self._start = None
        flat = with_cost(self._program, np.zeros(self._program.columns), 0.0)
        raw = self._run(flat, hand_over(flat), replace(limits, gap=math.inf), progress)
        found = {Status.OPTIMAL: Status.STALLED, Status.UNBOUNDED: Status.STALLED}.get(raw.status or Status.STALLED, raw.status)
        return Raw(Status.UNBOUNDED if raw.x is not None else found, message=f"{message}; without cost: {raw.message}")

    def _run(self, program: Program, handed: Handed, limits: Limits, progress: Progress) -> Raw:
        """One run of the solver, in terms of the program."""
        if handed.impossible:
            return Raw(Status.INFEASIBLE, message="an integer column has no integer between its bounds, or an empty row excludes 0")
        seconds = limits.time - progress.time
        if seconds <= 0:
            return Raw(Status.TIME_LIMIT, message="no time was left")
        with _folder() as folder, contextlib.ExitStack() as stack:
            said, error = self._drive(handed, limits, seconds, folder, stack)
            progress.log(said.log)
            raw = self._words(said, error)
        return _checked(program, handed, raw, limits, progress)

    def _drive(
        self, handed: Handed, limits: Limits, seconds: float, folder: Path, stack: contextlib.ExitStack
    ) -> tuple[Said, Exception | None]:
        """What linopy and the solver leave behind, and what they raise, which may be anything."""
        dialect, log = self._backend.dialect, folder / "log"
        solver, result, error = None, None, None
        try:
            with _hushed(silent=not dialect.command):
                build: Mapping[str, Any] = (
                    dialect.build if dialect.io_api == "direct" else {"problem_fn": folder / "program.lp", "progress": False}
                )
                solver = Solver.from_name(self._backend.name, handed.model, io_api=dialect.io_api, **build)
                stack.callback(solver.close)
                options = {**dialect.always, **self._options, **dialect.limits(limits, seconds)}
                if self._start is not None and dialect.start is not None and self._program.integer.any():
                    options |= dialect.start(solver, handed.values(self._start), folder)
                solver.options = dialect.pack(options)
                files: dict[str, Any] = {"solution_fn": folder / "solution", "basis_fn": folder / "exact"} if dialect.command else {}
                result = solver.solve(log_fn=log, **files)
        except Exception as caught:
            error = caught
        text = log.read_text(errors="replace") if log.exists() else ""
        return Said(result, None if solver is None else solver.solver_model, folder, text, handed.size, seconds), error

    def _words(self, said: Said, error: Exception | None) -> Raw:
        """The dialect's reading of it; raises `SolverFailure` where there is nothing to read."""
        try:
            raw = self._backend.dialect.read(said)
        except MipnetError:
            raise
        except Exception as unread:  # a broken run leaves broken things
            error, raw = error or unread, Raw(Status.STALLED)
        if error is not None and raw.status is Status.STALLED and raw.x is None:
            raise SolverFailure(f"{self._backend.dialect.title} broke down: {error}; try other options, or another backend") from error
        return raw

    def start(self, x: Array) -> None:
        """Give a full point to the next solve; a solver that takes none does without."""
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

    def set_bounds(self, columns: NDArray[np.int64], lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns."""
        self._check_open()
        self._change(with_bounds(self._program, np.asarray(columns), lower, upper))

    def _change(self, program: Program) -> None:
        self._program, self._handed = program, None

    def interrupt(self) -> None:
        """Nothing: linopy does not stop when asked, and the features say so."""

    def close(self) -> None:
        """Forget the program: no solver is held open between solves."""
        self._open, self._handed = False, None

    def _check_open(self) -> None:
        if not self._open:
            raise BackendError("this session is closed; open the program again")


def _checked(program: Program, handed: Handed, raw: Raw, limits: Limits, progress: Progress) -> Raw:
    """The words in terms of the program: a point only if it is one, a bound without the shift, and what `optimal` proves."""
    x, status, bound = handed.point(raw.x), raw.status, raw.bound - handed.shift
    if status in (None, Status.STALLED) and progress.time >= limits.time:
        status = Status.TIME_LIMIT
    if x is not None and status is not Status.OPTIMAL and misses(program, np.clip(x, program.lower, program.upper)) > TOLERANCE:
        x = None  # the point of a relaxation, or zeros in place of none
    if x is not None and status is Status.OPTIMAL:
        objective = float(program.cost @ x) + program.offset
        gap = limits.gap if program.integer.any() else 0.0
        bound = max(bound, objective - gap * max(1.0, abs(objective)))
    return replace(raw, status=status, x=x, bound=bound)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for one run, gone after it."""
    with tempfile.TemporaryDirectory(prefix="mipnet-", ignore_cleanup_errors=True) as name:
        if " " in name:
            raise BackendError(f"linopy cannot run a command on files in `{name}`: set TMPDIR to a folder without blanks in its name")
        yield Path(name)


_hush = threading.Lock()
_before: list[tuple[int, int]] = []
"""Standard output and the level of linopy's log as they were, once for each run under way."""


@contextlib.contextmanager
def _hushed(*, silent: bool) -> Iterator[None]:
    """linopy logs nothing of what it will not do; ``silent``: nor does a library print, whatever its options say.

    Standard output is that of the whole process: what others write there meanwhile is lost too.
    """
    logger = logging.getLogger("linopy")
    with _hush:
        _before.append((os.dup(1), logger.level))
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
        with _hush:
            sys.stdout.flush()
            output, level = _before.pop()
            os.dup2(output, 1)
            os.close(output)
            logger.setLevel(level)
