"""What a solver is to mipnet: a `Backend` opens a `Session` on a `Program`, and the session solves it, again and again.

A backend is a class in any installed package, announced by an entry point of the group ``mipnet.backends``; an instance may
also be passed wherever a name is accepted.  `mipnet.testing.check_backend` proves one.  The contract, pinned by that suite:

* ``x is None`` when the solver holds no feasible point; never zeros in its place.
* Infinite bounds are IEEE infinities; ``bound`` is never better than the truth.
* `Status.OPTIMAL` means ``gap <= limits.gap`` with ``gap`` as defined by `relative_gap`, for every backend alike.
* An unknown option, or a value it cannot take, raises `OptionError` before anything is solved.
* The objective includes the program's offset and refers to the minimisation that `Program` stores.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import TracebackType
from typing import ClassVar, Literal

from mipnet.arrays import Array, Columns
from mipnet.backend.program import Program, Rows
from mipnet.errors import BackendError, BackendMissing, InputError

GROUP = "mipnet.backends"

Options = Mapping[str, object]


class Feature(Enum):
    """What a backend can do; the value is how tables say it."""

    INTEGER = "integer variables"
    SOS1 = "SOS1 sets"
    INDICATOR = "indicator rows"
    LOG_SUM_EXP = "log-sum-exp"
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
    """Why a solve stopped.  It says nothing about whether there is a point: look at ``x``."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    TIME_LIMIT = "time limit"
    NODE_LIMIT = "node limit"
    MEMORY_LIMIT = "memory limit"
    TARGET = "target reached"
    INTERRUPTED = "interrupted"
    STALLED = "stalled"


@dataclass(frozen=True)
class Limits:
    """When to stop.  ``time`` in seconds, ``gap`` relative (see `relative_gap`), ``memory`` in MiB.

    ``bound_stop`` stops as soon as the lower bound reaches it, ``objective_stop`` as soon as an incumbent does; to `mipnet.solve`
    they are given in the model's own sense.  A backend whose features lack a limit that is set raises `BackendError`.
    """

    time: float = math.inf
    gap: float = 1e-4
    nodes: int | None = None
    memory: float | None = None
    bound_stop: float | None = None
    objective_stop: float | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("time", self.time, 0.0), ("gap", self.gap, 0.0), ("nodes", self.nodes, 0), ("memory", self.memory, 1)):
            if value is not None and not (isinstance(value, int | float) and value >= least):
                raise InputError(f"the {name} limit is {value}; expected a number of at least {least}")


@dataclass(frozen=True)
class Event:
    """Something that happened during a solve: a new incumbent, a new bound, or a line of the solver's log.

    ``time`` counts seconds from the start of the solve; ``objective`` and ``bound`` are the best so far, None if there is none;
    ``x`` is the incumbent's point where the solver shows it.
    """

    kind: Literal["incumbent", "bound", "log"]
    time: float
    objective: float | None = None
    bound: float | None = None
    nodes: int | None = None
    text: str = ""
    x: Array | None = field(default=None, repr=False)


OnEvent = Callable[[Event], None]
"""Called while the solver waits, and maybe in a thread of the solver's: be quick, and leave the session alone but for `interrupt`."""


Source = Callable[[Array | None], Array | None]
"""Asked during a solve for a feasible point of the program: given the point of a relaxation where the solver shows one, and None where
it does not, it returns a full point, or None if it knows none.  The solver checks it.  As with `OnEvent`, the solver waits meanwhile."""


@dataclass(frozen=True, eq=False)
class Lazy:
    """Rows of the program that are written only where a point violates them.

    ``separate(x)`` gives rows that cut ``x`` off, none if it meets them all; ``columns`` are all columns that such rows may read;
    ``written`` is told of the rows that the solver took.
    """

    separate: Callable[[Array], Rows]
    columns: Columns
    written: Callable[[Rows], object] = lambda rows: None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a session says of one solve.  ``bound`` is ``-inf`` if nothing is known, ``objective`` None exactly when ``x`` is.

    ``interrupted`` is True if an interrupt was asked for, even where the solve had ended by itself before it was heard.
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

    @property
    def gap(self) -> float:
        """`relative_gap` of objective and bound; infinite without a point."""
        return math.inf if self.objective is None else relative_gap(self.objective, self.bound)


def relative_gap(objective: float, bound: float) -> float:
    """``max(0, objective - bound) / max(1, |objective|)``: the one meaning of a gap, for every backend."""
    return max(0.0, objective - bound) / max(1.0, abs(objective))


class Session(ABC):
    """A program held open in a solver.  Use it as a context manager; it is closed once."""

    @abstractmethod
    def solve(self, limits: Limits = Limits(), on_event: OnEvent | None = None) -> Outcome:
        """Solve the program as it stands now.  An exception of ``on_event`` stops the solve and is raised here.

        Ctrl-C, and `interrupt` from a handler or another thread, end it with `Status.INTERRUPTED` and the best point so far.
        """

    @abstractmethod
    def start(self, x: Array) -> None:
        """Give a full point to the next solve as its first incumbent; an infeasible one is ignored by the solver."""

    def suggest(self, source: Source) -> None:
        """Ask ``source`` for points during the next solve; an exception that it raises is raised by that solve.

        For a backend with `Feature.SUGGEST`; others need not write it.
        """
        raise BackendError(f"a session of `{type(self).__name__}` asks for no points; look for `Feature.SUGGEST` first")

    def lazy(self, rows: Lazy) -> None:
        """Solve with these rows next time, each written once a point violates it; later solves know nothing of them.

        For a backend with `Feature.LAZY`; others need not write it.
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
        """Stop the solve under way as soon as the solver can; harmless when there is none."""

    @abstractmethod
    def close(self) -> None:
        """Give the solver's memory back; harmless when done twice."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Backend(ABC):
    """A solver.  ``name`` is what users say, ``module`` what must be importable, ``install`` how to get it."""

    name: ClassVar[str]
    module: ClassVar[str]
    install: ClassVar[str]
    features: ClassVar[frozenset[Feature]]

    @abstractmethod
    def version(self) -> str:
        """The version of the solver itself."""

    @abstractmethod
    def open(self, program: Program, options: Options | None = None) -> Session:
        """Hand a program over.  ``options`` are the solver's own, by its own names; an unknown one raises `OptionError`.

        Solvers run on one thread and with seed 0 unless an option says otherwise.
        """

    @property
    def available(self) -> bool:
        """True if the solver's module can be found (it is not imported)."""
        return find_spec(self.module) is not None


@dataclass(frozen=True)
class Found:
    """A backend as the entry points announce it, loaded or with the reason why not."""

    name: str
    backend: Backend | None
    problem: str = field(default="")


@cache
def _announced() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in found and found[point.name].value != point.value:
            raise BackendError(f"two packages announce a backend `{point.name}`: {found[point.name].value} and {point.value}; remove one")
        found[point.name] = point
    return dict(sorted(found.items()))


def backends() -> list[Found]:
    """Every announced backend; a broken or missing one is listed with its problem and takes nothing down."""
    return [_load(name, point) for name, point in _announced().items()]


def _load(name: str, point: EntryPoint) -> Found:
    try:
        backend = point.load()()
    except Exception as error:  # a plug-in may fail in any way; the others must still work
        return Found(name, None, f"cannot be loaded: {type(error).__name__}: {error}")
    return Found(name, backend, "" if backend.available else f"`{backend.module}` is not installed: {backend.install}")


def get_backend(which: str | Backend) -> Backend:
    """The backend of that name, or the instance itself; raises `BackendMissing` with the line that installs it."""
    if isinstance(which, Backend):
        return which
    if not isinstance(which, str):
        raise BackendMissing(f"the backend is {which!r}; expected a name ({', '.join(_announced())}) or an instance of `Backend`")
    if which not in _announced():
        raise BackendMissing(f"no backend is called `{which}`; known: {', '.join(_announced()) or 'none (is mipnet installed?)'}")
    found = _load(which, _announced()[which])
    if found.backend is None or found.problem:
        raise BackendMissing(f"backend `{which}`: {found.problem}")
    return found.backend
