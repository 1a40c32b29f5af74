"""What happens during a solve, told in order: `Progress` turns a solver's callbacks into the events of `mipnet.backend`."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Literal, TypeVar

from mipnet.arrays import Array
from mipnet.backend.contract import Event, Limits, OnEvent, relative_gap

Given = TypeVar("Given")
Answer = TypeVar("Answer")


class Progress:
    """Events of one solve: in order, with a bound that never falls and an objective that never rises, and never above it.

    An exception of the handler is kept in ``error`` instead of travelling through the solver's C code; ``stop`` then says, as it
    does once a target or the gap is reached or `interrupt` was called, that the solver should end.  Objectives are solver-side,
    the offset included.
    """

    def __init__(self, limits: Limits, on_event: OnEvent | None) -> None:
        self.limits, self._on_event = limits, on_event
        self._begin, self._text = perf_counter(), ""
        self._lock = threading.RLock()
        self.objective, self.best_bound, self.nodes = math.inf, -math.inf, 0
        self.error: BaseException | None = None
        self.interrupted = False

    @property
    def time(self) -> float:
        """Seconds since the solve began."""
        return perf_counter() - self._begin

    @property
    def quiet(self) -> bool:
        """True if nobody listens."""
        return self._on_event is None

    @property
    def target(self) -> bool:
        """True once a bound stop or an objective stop of the limits is reached."""
        bound, objective = self.limits.bound_stop, self.limits.objective_stop
        return (bound is not None and self.best_bound >= bound) or (objective is not None and self.objective <= objective)

    @property
    def closed(self) -> bool:
        """True once objective and bound are within the gap limit."""
        return self.objective < math.inf and relative_gap(self.objective, self.best_bound) <= self.limits.gap

    @property
    def stop(self) -> bool:
        """True if the solver should end now."""
        return self.interrupted or self.error is not None or self.target or self.closed

    def incumbent(self, objective: float, nodes: int = 0, x: Array | None = None) -> None:
        """A feasible point of that objective was found; ``x`` is the point itself, if the solver shows it."""
        if objective < self.objective:
            self.objective = objective
            self._emit("incumbent", nodes, x=x)

    def bound(self, bound: float, nodes: int = 0) -> None:
        """The lower bound is now at least this."""
        if self.best_bound < bound < math.inf:
            self.best_bound = bound
            self._emit("bound", nodes)

    def log(self, text: str) -> None:
        """Part of the solver's log; whole lines become events."""
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            if line.strip():
                self._emit("log", 0, line)

    def ask(self, question: Callable[[Given], Answer], given: Given) -> Answer | None:
        """What a user's function answers in the middle of a solve; None once one has raised, which ends the solve as a handler's does."""
        if self.error is not None:
            return None
        try:
            with self._lock:
                return question(given)
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
        except BaseException as error:  # raised again by `finish`, on the caller's side of the solver
            self.error = error


class _Worker:
    """A thread that runs one piece of work after another."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="solver", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._work.get()()

    def run(self, work: Callable[[], None]) -> None:
        """Have the work done; this returns at once."""
        self._work.put(work)


_idle: list[_Worker] = []
"""Threads are used again: SCIP's library for derivatives knows 64 of them in the life of a process and crashes at the next."""


def run_apart(work: Callable[[], object], interrupt: Callable[[], None]) -> None:
    """Runs a solver in a thread of its own, so that Ctrl-C can call ``interrupt``; raises what the work raised.

    The work has to give the interpreter lock away, and handlers are called in its thread.
    """
    failed: list[BaseException] = []
    done = threading.Event()  # `Thread.join` takes a running thread for a finished one once Ctrl-C has interrupted it

    def run() -> None:
        try:
            work()
        except BaseException as error:  # carried over to the caller's thread
            failed.append(error)
        finally:
            done.set()

    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.run(run)
    ended = False
    while not ended:
        try:
            ended = done.wait(0.1)
        except KeyboardInterrupt:
            interrupt()
    _idle.append(worker)
    if failed:
        raise failed[0]
