"""The contract of a backend: a `Backend` opens a `Session` on a `Program`, and the session solves it any number of times.

A backend is a class in any installed package, announced by an entry point (`mipnet.backend.installed_backends`); an instance may
also be passed wherever a name is accepted.  `mipnet.testing.check_backend` tests a backend against this contract:

* ``x`` is None if the solver has no feasible point, and never a point of zeros instead.
* Infinite bounds are IEEE infinities; ``bound`` is never above the optimal objective.
* `Status.OPTIMAL` means that `Limits.closed` holds for objective and bound, for every backend.
* An unknown option, or an invalid value, raises `OptionError` before anything is solved.
* The objective includes the program's offset and refers to the minimisation that `Program` stores.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.util import find_spec
from types import TracebackType
from typing import ClassVar, Literal

from mipnet.arrays import Array, Columns
from mipnet.backend.program import Program
from mipnet.backend.rows import Rows
from mipnet.backend.tolerances import SolverTolerances, ToleranceKind
from mipnet.errors import BackendError, InputError, shown, suggest_keywords
from mipnet.errors.argument_kinds import is_number
from mipnet.errors.expectations import expects

Options = Mapping[str, object]
"""The options of a solver, by the solver's own names."""


class Feature(Enum):
    """A capability of a backend; its value is the name in tables."""

    INTEGER = "integer variables"
    SOS1 = "SOS1 sets"
    INDICATOR = "indicator rows"
    LOG_SUM_EXP = "log-sum-exp"
    QUADRATIC = "quadratic objective"
    START = "start point"
    SUGGEST = "suggested points"
    LAZY = "lazy rows"
    ADD_ROWS = "added rows"
    CHANGE = "changed objective and bounds"
    INCUMBENT_EVENTS = "incumbent events"
    BOUND_EVENTS = "bound events"
    LOG_EVENTS = "log events"
    TIME_LIMIT = "time limit"
    GAP_LIMIT = "gap limit"
    NODE_LIMIT = "node limit"
    MEMORY_LIMIT = "memory limit"
    BOUND_STOP = "stop on a bound"
    OBJECTIVE_STOP = "stop on an objective"
    INTERRUPT = "interrupt"


class Status(Enum):
    """Why a solve stopped.  There may be a feasible point with any status; `Outcome.x` is None if there is none."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    TIME_LIMIT = "time limit"
    NODE_LIMIT = "node limit"
    MEMORY_LIMIT = "memory limit"
    TARGET = "target reached"
    INTERRUPTED = "interrupted"
    STALLED = "stalled"


@suggest_keywords
@dataclass(frozen=True)
class Limits:
    """The limits of a solve: ``time`` in seconds, ``gap`` as in `relative_gap`, ``nodes``, and ``memory`` in MiB.

    A ``time`` of None means no limit, as infinity does.
    A solve is optimal once the gap of objective and bound is at most ``gap``, relative to the objective, or their difference is at most
    ``gap_abs``, in the units of the objective.
    The solve stops once the dual bound reaches ``bound_stop``, or an incumbent reaches ``objective_stop``; in `mipnet.solve` both are
    given in the sense of the model.  A backend raises `BackendError` for a limit that is not among its features.
    """

    time: float = math.inf
    gap: float = 1e-4
    nodes: int | None = None
    memory: float | None = None
    bound_stop: float | None = None
    objective_stop: float | None = None
    gap_abs: float = 0.0

    def __post_init__(self) -> None:
        if vars(self)["time"] is None:
            object.__setattr__(self, "time", math.inf)
        for name, value, minimum in (
            ("time", self.time, 0.0),
            ("gap", self.gap, 0.0),
            ("absolute gap", self.gap_abs, 0.0),
            ("nodes", self.nodes, 0),
            ("memory", self.memory, 1),
        ):
            if value is not None and not (is_number(value) and value >= minimum):
                raise InputError(f"the {name} limit is {shown(value)}; expected a number of at least {minimum}")

    @expects("a number")
    def tolerated(self, objective: float) -> float:
        """Return the largest difference of an objective and a bound at which the solve is optimal."""
        return max(self.gap * abs(objective), self.gap_abs)

    @expects("two numbers, the objective and a bound of it")
    def closed(self, objective: float, bound: float) -> bool:
        """Return True if objective and bound are within one of the two gaps."""
        rounding = 1e-12 * max(abs(objective), abs(bound)) if math.isfinite(bound) else 0.0
        return objective - bound <= self.tolerated(objective) + rounding


@dataclass(frozen=True)
class Event:
    """An event of a solve: a new incumbent, a new dual bound, or a line of the solver's log.

    ``time`` is in seconds since the start of the solve; ``objective`` and ``bound`` are the best so far, None if there is none yet;
    ``x`` is the incumbent, if the solver shows it.
    """

    kind: Literal["incumbent", "bound", "log"]
    time: float
    objective: float | None = None
    bound: float | None = None
    nodes: int | None = None
    text: str = ""
    x: Array | None = field(default=None, repr=False)


OnEvent = Callable[[Event], None]
"""An event handler.  The solver waits for it and may call it in another thread; it must be fast, and may call only `Session.interrupt`."""

PointSource = Callable[[Array | None], Array | None]
"""A function that a solver asks for feasible points during a solve.  Its argument is the solution of a relaxation, or None if the
solver does not show one.  It returns a point with a value per column, which the solver checks, or None.  The solver waits for it."""


@dataclass(frozen=True, eq=False)
class LazyRows:
    """Rows of the program that are added only when a point violates them.

    ``separate(x)`` returns rows that ``x`` violates, none if it satisfies all; ``columns`` are all columns that such rows may contain;
    ``written`` is called with the rows that the solver added.
    """

    separate: Callable[[Array], Rows]
    columns: Columns
    written: Callable[[Rows], object] = lambda rows: None


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of one solve.  ``bound`` is ``-inf`` if no dual bound is known; ``objective`` is None if and only if ``x`` is.

    ``interrupted`` is True if an interrupt was requested, even if the solve ended for another reason before.  ``duals`` are the dual values
    of the rows of an optimal linear program, in their order: the change of the objective per unit of a row's bound.  It is None for
    programs with integers or special constraints, and from a solver that has none.
    """

    status: Status
    x: Array | None
    objective: float | None
    bound: float
    runtime: float
    nodes: int = 0
    iterations: int = 0
    start_accepted: bool | None = None
    message: str = ""
    interrupted: bool = False
    duals: Array | None = None

    @property
    def gap(self) -> float:
        """The `relative_gap` of objective and bound; infinite without a point."""
        return math.inf if self.objective is None else relative_gap(self.objective, self.bound)


@expects("two numbers, the objective and a bound of it")
def relative_gap(objective: float, bound: float) -> float:
    """Return ``max(0, objective - bound) / |objective|``, the gap of every backend; infinite for an objective of 0 with a bound below."""
    missing = max(0.0, objective - bound)
    return 0.0 if missing == 0.0 else missing / abs(objective) if objective else math.inf


class Session(ABC):
    """A program held open in a solver, to be changed and solved again.  Use it as a context manager, which closes it."""

    @abstractmethod
    def solve(self, limits: Limits = Limits(), on_event: OnEvent | None = None) -> Outcome:
        """Solve the program in its current form.  An exception of ``on_event`` stops the solve and is raised here.

        Ctrl-C, and `interrupt` from a handler or another thread, end the solve with `Status.INTERRUPTED` and the best point so far.
        """

    @abstractmethod
    def start(self, x: Array) -> None:
        """Set the first incumbent of the next solve, a value per column; the solver ignores an infeasible point."""

    def suggest(self, source: PointSource) -> None:
        """Ask ``source`` for points during the next solve, which raises the exceptions of ``source``.

        Needed for `Feature.SUGGEST` only.
        """
        raise BackendError(f"a session of `{type(self).__name__}` asks for no points; look for `Feature.SUGGEST` first")

    def lazy(self, rows: LazyRows) -> None:
        """Use these lazy rows in the next solve only.

        Needed for `Feature.LAZY` only.
        """
        raise BackendError(f"a session of `{type(self).__name__}` takes no lazy rows; look for `Feature.LAZY` first")

    @abstractmethod
    def add_rows(self, rows: Rows) -> None:
        """Append rows for all later solves."""

    @abstractmethod
    def set_objective(self, cost: Array, offset: float = 0.0) -> None:
        """Replace the objective for all later solves (to be minimised)."""

    @abstractmethod
    def set_bounds(self, columns: Columns, lower: Array, upper: Array) -> None:
        """Replace the bounds of some columns for all later solves."""

    @abstractmethod
    def interrupt(self) -> None:
        """Stop the current solve as soon as the solver can; without a current solve this has no effect."""

    @abstractmethod
    def close(self) -> None:
        """Release the solver's memory; a second call has no effect."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Backend(ABC):
    """A solver: its ``name`` for users, the ``module`` that must be importable, and how to ``install`` it."""

    name: ClassVar[str]
    module: ClassVar[str]
    install: ClassVar[str]
    features: ClassVar[frozenset[Feature]]
    fine_tolerance: ClassVar[float] = 1e-6
    """How far a solver may violate a row, a column or an integer of a program that is `fine`."""

    tolerance_options: ClassVar[Mapping[str, ToleranceKind]] = {}
    """The options that set tolerances of the solver, and which ones."""

    @abstractmethod
    def version(self) -> str:
        """Return the version of the solver."""

    @abstractmethod
    def open(self, program: Program, options: Options | None = None) -> Session:
        """Open a session on a program.  ``options`` have the solver's own names; an unknown one raises `OptionError`.

        Solvers run with one thread and seed 0, unless an option sets others.
        """

    @suggest_keywords
    def tolerances(self, options: Options | None = None, *, fine: bool = False) -> SolverTolerances:
        """Return the tolerances with which the solver works on a program with these options; ``fine`` is that of the program."""
        own = SolverTolerances().at_most(self.fine_tolerance) if fine else SolverTolerances()
        return own.with_options(options or {}, self.tolerance_options)

    @property
    def available(self) -> bool:
        """True if the solver's module can be found (it is not imported)."""
        return find_spec(self.module) is not None

    @property
    def problem(self) -> str:
        """What prevents the use of the solver here, with the command that mends it; empty if nothing does."""
        return "" if self.available else f"`{self.module}` is not installed: {self.install}"
