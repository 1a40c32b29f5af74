"""Ctrl-C at a place in a solve, not after a number of seconds."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

from mipnet_highs import HiGHS

from mipnet.app.runs.importance_run import EvaluatedPoint
from mipnet.app.runs.listener import RunListener
from mipnet.backend import Event, Limits, Outcome


@dataclass
class CtrlC:
    """A listener that sends SIGINT to this process once, with the first line of a solver's log while ``armed``: that solver runs then."""

    armed: bool = True

    def arm(self) -> None:
        """Wait for the next line."""
        self.armed = True

    def __call__(self, event: Event) -> None:
        if self.armed and event.kind == "log":
            self.armed = False
            os.kill(os.getpid(), signal.SIGINT)


class CtrlCInRun(RunListener):
    """The same for a run; with ``after_point`` in the solve that follows the first point of a path."""

    def __init__(self, *, after_point: bool = False) -> None:
        self.ctrl_c = CtrlC(armed=not after_point)

    def solver_event(self, event: Event) -> None:
        self.ctrl_c(event)

    def point_done(self, parameter: str, point: EvaluatedPoint) -> None:
        self.ctrl_c.arm()


SECONDS_MAX = 240.0
"""Seconds until something that hangs is given up: many times what it takes on a busy machine."""


class CtrlCAtTheEnd(HiGHS):
    """HiGHS that is sent SIGINT once, when its solve number ``count`` has closed its gap and before its result is returned."""

    def __init__(self, count: int = 1) -> None:
        self.count, self.solves = count, 0

    def open(self, program: Any, options: Any = None) -> Any:
        session = super().open(program, options)
        plain, noticed = session.solve, threading.Event()

        def solve(*given: Any) -> Outcome:
            outcome = plain(*given)
            self.solves += 1
            if self.solves == self.count:
                os.kill(os.getpid(), signal.SIGINT)
                assert noticed.wait(SECONDS_MAX), "Ctrl-C was not noticed"
            return outcome

        session.solve, session.interrupt = solve, noticed.set
        return session


class Stubborn(HiGHS):
    """HiGHS whose first solve sends SIGINT at the first line of its log, and does not return before ``let_go`` is set."""

    def __init__(self) -> None:
        self.let_go, self.closed, self.opened = threading.Event(), threading.Event(), 0

    def open(self, program: Any, options: Any = None) -> Any:
        session = super().open(program, options)
        self.opened += 1
        if self.opened == 1:
            plain, close = session.solve, session.close

            def solve(limits: Limits, on_event: Any) -> Outcome:
                outcome = plain(limits, on_event)
                os.kill(os.getpid(), signal.SIGINT)
                assert self.let_go.wait(SECONDS_MAX), "nobody let go"
                return outcome

            def end() -> None:
                close()
                self.closed.set()

            session.solve, session.close = solve, end
        return session
