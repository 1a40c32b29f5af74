"""Ctrl-C at a place in a solve, not after a number of seconds."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from mipnet.app.runs.importance_run import EvaluatedPoint
from mipnet.app.runs.listener import RunListener
from mipnet.backend import Event


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
