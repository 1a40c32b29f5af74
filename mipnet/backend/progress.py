"""Events during a solve: `SolveProgress` turns a solver's callbacks into ordered events, `run_in_thread` runs the solver."""

from __future__ import annotations

import atexit
import math
import queue
import threading
from collections.abc import Callable
from contextvars import copy_context
from time import monotonic, perf_counter
from typing import Literal, NamedTuple, TypeVar

from mipnet.arrays import Array
from mipnet.backend.contract import Event, Limits, OnEvent
from mipnet.limits.memory import MemoryWatch

CallArgument = TypeVar("CallArgument")
CallResult = TypeVar("CallResult")


class SolveProgress:
    """The progress of one solve, reported as ordered events: the objective never increases, the dual bound decreases only if withdrawn.

    An exception of the event handler is kept in ``error``, because it must not pass through the solver's C code.  ``should_stop`` is
    True after such an exception, after an interrupt, and once a target, the gap or the memory limit is reached.  Objectives are those of
    the minimisation, with the offset.
    """

    def __init__(self, limits: Limits, on_event: OnEvent | None) -> None:
        self.limits, self._on_event = limits, on_event
        self._begin, self._text = perf_counter(), ""
        self._lock = threading.RLock()
        self.objective, self.best_bound, self.nodes = math.inf, -math.inf, 0
        self.error: BaseException | None = None
        self.interrupted = False
        self._memory = MemoryWatch()

    @property
    def time(self) -> float:
        """Seconds since the start of the solve."""
        return perf_counter() - self._begin

    @property
    def quiet(self) -> bool:
        """True if there is no event handler."""
        return self._on_event is None

    @property
    def target_reached(self) -> bool:
        """True once ``bound_stop`` or ``objective_stop`` of the limits is reached."""
        bound, objective = self.limits.bound_stop, self.limits.objective_stop
        return (bound is not None and self.best_bound >= bound) or (objective is not None and self.objective <= objective)

    @property
    def gap_closed(self) -> bool:
        """True once objective and bound are within the gap limit."""
        return self.objective < math.inf and self.limits.closed(self.objective, self.best_bound)

    @property
    def should_stop(self) -> bool:
        """True if the solver should stop now."""
        return self.interrupted or self.error is not None or self.target_reached or self.gap_closed or self.memory_reached

    @property
    def memory_reached(self) -> bool:
        """True once the process has taken the memory that it was allowed to take when the solve began (`mipnet.limits.memory`)."""
        return self._memory.reached()

    def incumbent(self, objective: float, nodes: int = 0, x: Array | None = None) -> None:
        """Report a feasible point with this objective; ``x`` is the point, if the solver shows it."""
        if objective < self.objective:
            self.objective = objective
            self._emit("incumbent", nodes, x=x)

    def bound(self, bound: float, nodes: int = 0) -> None:
        """Report a dual bound."""
        if self.best_bound < bound < math.inf:
            self.best_bound = bound
            self._emit("bound", nodes)

    def withdraw_bound(self) -> None:
        """Forget the dual bound, which a feasible point contradicts; the events that follow have the bounds of another solve."""
        self.best_bound = -math.inf

    def log(self, text: str) -> None:
        """Report a part of the solver's log; each complete line becomes an event."""
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            if line.strip():
                self._emit("log", 0, line)

    def call(self, function: Callable[[CallArgument], CallResult], argument: CallArgument) -> CallResult | None:
        """Return the result of a user's function during a solve; None after an exception, which ends the solve and is raised by it."""
        if self.error is not None:
            return None
        try:
            with self._lock:
                return function(argument)
        except BaseException as error:  # raised again by `finish`
            self.error = error
            return None

    def _emit(self, kind: Literal["incumbent", "bound", "log"], nodes: int, text: str = "", x: Array | None = None) -> None:
        self.nodes = max(self.nodes, nodes)
        if self._on_event is None or self.error is not None:
            return
        objective = self.objective if self.objective < math.inf else None
        bound = min(self.best_bound, self.objective) if self.best_bound > -math.inf else None
        try:
            with self._lock:
                self._on_event(Event(kind, self.time, objective, bound, self.nodes, text, x))
        except BaseException as error:  # raised again by `finish`
            self.error = error


class _SolverThread:
    """A thread that runs one function after another."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="solver", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._work.get()()

    def run(self, work: Callable[[], None]) -> None:
        """Start a function; this returns immediately."""
        self._work.put(work)


_idle_threads: list[_SolverThread] = []
"""Threads are reused: SCIP's library for derivatives supports 64 threads per process and crashes at the next one."""


_running_solves: dict[threading.Event, Callable[[], None]] = {}
"""The functions that interrupt the solves under way, by the event that is set when a solve ends."""

EXIT_SECONDS_MAX = 10.0
"""Longest wait for each solve under way when the interpreter exits, in seconds."""


_exiting = threading.Event()


def solver_runs() -> bool:
    """Return True if a solve is under way, such as one that did not react to Ctrl-C."""
    return bool(_running_solves)


@atexit.register
def _interrupt_running_solves() -> None:
    """End the solves under way when the interpreter exits: a solver that calls Python after that aborts the process."""
    _exiting.set()
    running = list(_running_solves.items())
    for _, interrupt in running:
        interrupt()
    for done, _ in running:
        done.wait(EXIT_SECONDS_MAX)


class ThreadedRun(NamedTuple):
    """How a run in another thread was left: whether the work ``ended``, whether Ctrl-C came meanwhile, and whether its time was up."""

    ended: bool
    ctrl_c: bool
    late: bool


def run_in_thread(
    work: Callable[[], object],
    interrupt: Callable[[], None],
    *,
    seconds: float = math.inf,
    patience: float = math.inf,
    when_left: Callable[[], object] | None = None,
) -> ThreadedRun:
    """Run a solver in another thread, so that Ctrl-C, or the end of its ``seconds``, can call ``interrupt``.

    ``work`` has to release the interpreter lock; its exception is raised here.  Event handlers are called in its thread.  If it has not
    ended ``patience`` seconds after ``interrupt``, or at a second Ctrl-C with a finite patience, this returns while ``work`` goes on;
    ``when_left`` is called in its thread once it has ended.  The exit of the interpreter waits for work with infinite patience.
    """
    run = _Work(work, when_left)
    try:
        run.thread = _idle_threads.pop()
    except IndexError:
        run.thread = _SolverThread()
    if math.isinf(patience):
        _running_solves[run.done] = interrupt
    presses = answered = 0
    end, leave_at, late = monotonic() + seconds, math.inf, False
    while not run.done.is_set():
        try:
            if presses > answered:
                answered = presses
                interrupt()
            run.thread.run(run)  # again after Ctrl-C, without effect unless Ctrl-C came before it
            while not run.done.wait(min(0.1, max(0.0, end - monotonic())) if not late else 0.1):
                if not late and monotonic() >= end:
                    late, leave_at = True, min(leave_at, monotonic() + patience)
                    interrupt()
                if monotonic() >= leave_at and run.leave():
                    return ThreadedRun(False, presses > 0, late)
        except KeyboardInterrupt:
            leave_at = monotonic() + (0.0 if presses and patience < math.inf else patience)
            presses += 1
    if _exiting.is_set() and threading.current_thread().daemon:
        threading.Event().wait()  # forever: compiled code that waits for the interpreter lock during the exit aborts the process
    _idle_threads.append(run.thread)
    if run.failed:
        raise run.failed[0]
    return ThreadedRun(True, presses > 0, late)


class _Work:
    """Work in another thread, which may be left before it has ended; then its thread is free again once it has."""

    thread: _SolverThread

    def __init__(self, work: Callable[[], object], when_left: Callable[[], object] | None) -> None:
        self.work, self.when_left = work, when_left
        self.context = copy_context()  # a memory limit holds in that thread as well
        self.failed: list[BaseException] = []
        self.begun, self.done = threading.Event(), threading.Event()  # after Ctrl-C, `Thread.join` treats a running thread as finished
        self.left, self.lock = False, threading.Lock()

    def __call__(self) -> None:
        if self.begun.is_set():
            return
        self.begun.set()
        try:
            self.context.run(self.work)
        except BaseException as error:  # raised in the calling thread
            self.failed.append(error)
        with self.lock:
            ended_alone = self.left
            _running_solves.pop(self.done, None)
            self.done.set()
        if ended_alone:
            if self.when_left is not None:
                self.when_left()
            _idle_threads.append(self.thread)

    def leave(self) -> bool:
        """Leave the work to itself; returns False if it has ended."""
        with self.lock:
            self.left = not self.done.is_set()
            return self.left
