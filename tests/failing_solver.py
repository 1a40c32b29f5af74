"""A solver that breaks down at its n-th solve."""

from __future__ import annotations

from mipnet_highs.adapter import HiGHS, HighsSession

from mipnet.backend import Limits, OnEvent, Options, Outcome, Program, Session
from mipnet.backend.checks import DEFAULT_LIMITS
from mipnet.errors import SolverFailure

WORDS = "status `Solve error`"


class Failing(HiGHS):
    """HiGHS that breaks down at its ``at``-th solve and at all later ones."""

    def __init__(self, at: int) -> None:
        self.at, self.solves = at, 0

    def open(self, program: Program, options: Options | None = None) -> Session:
        backend = self

        class Breaking(HighsSession):
            def solve(self, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
                backend.solves += 1
                if backend.solves >= backend.at:
                    raise SolverFailure(WORDS)
                return super().solve(limits, on_event)

        return Breaking(self, program, options or {})
