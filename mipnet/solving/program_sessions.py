"""A program with open sessions: rows are added, objective and bounds change, and a session is updated when it is used.

A session is a copy of the program.  It may be closed at any time, and is opened again when it is needed: after an exception that may have
interrupted a change, or for a backend that does not support the change.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Backend, Feature, Options, Program, Rows, Session
from mipnet.backend.progress import run_in_thread
from mipnet.backend.scaling import open_scaled
from mipnet.errors import TimeLimitReached
from mipnet.formulations.program_size import ProgramSize
from mipnet.limits.deadline import NO_DEADLINE, Deadline, time_limit_text
from mipnet.limits.memory import making
from mipnet.solving.interruptible_session import REACTION_SECONDS_MAX, InterruptibleSession

SOLVER_COPIES = 13
"""Copies of a program that a solver holds at least: the scaled one, its own by rows and by columns, and those of its presolve.

HiGHS took 200 to 360 bytes for each nonzero, presolve and the first linear program included, in three programs of 1 to 4 million nonzeros.
"""

BINDING_SLACK_MAX = 1e-6
"""Largest slack of a binding row."""


@dataclass(eq=False)
class OpenSession:
    """A session with the program that it has, and the number of added row blocks that it has."""

    session: InterruptibleSession
    program: Program
    rows: int


@dataclass(eq=False)
class OpenProgram:
    """A program, the ``rows`` that were added to it, and its open sessions by whether they are without integrality.

    To change it, assign a ``program`` with another objective or other bounds, or append to ``rows``.  ``deadline`` is that of the call: a
    solver that is at work after it is left to itself, and no session is opened after it.
    """

    program: Program
    backend: Backend
    options: Options | None = None
    rows: list[Rows] = field(default_factory=list)
    opened: dict[bool, OpenSession] = field(default_factory=dict)
    deadline: Deadline = NO_DEADLINE

    def session(self, *, relaxed: bool = False) -> Session:
        """Return a session on the current program with all rows, without integrality if ``relaxed`` is True.

        Raises `TimeLimitReached` if it is not open at the deadline.
        """
        opened = self.opened.get(relaxed)
        if opened is not None and (opened.session.left or not self._required_features(opened) <= self.backend.features):
            self.opened.pop(relaxed).session.close()
            opened = None
        if opened is None:
            program = self.program.with_cuts(*self.rows)
            program = replace(program, integer=np.zeros_like(program.integer)) if relaxed else program
            opened = self.opened[relaxed] = OpenSession(self.open(program, self.deadline), self.program, len(self.rows))
        self._update(opened)
        opened.session.deadline = self.deadline
        return opened.session

    def open(self, program: Program, deadline: Deadline) -> InterruptibleSession:
        """Open a session of its own on another program.

        Raises `TimeLimitReached` if it is not open at the deadline, and `MemoryLimitReached` if the solver would need too much memory.
        """
        size = ProgramSize(program.columns, len(program.rows), program.rows.matrix.nnz)
        remedy = "write a smaller program, such as one of fewer samples"
        with making(f"the program in {self.backend.name} ({size})", SOLVER_COPIES * size.bytes, remedy):
            return self._open(program, deadline)

    def _open(self, program: Program, deadline: Deadline) -> InterruptibleSession:
        work = f"hand the program to {self.backend.name}"
        deadline.check(work)
        made = list[Session]()
        run = run_in_thread(
            lambda: made.append(open_scaled(self.backend, program, self.options)),
            lambda: None,
            seconds=deadline.seconds,
            patience=REACTION_SECONDS_MAX,
            when_left=lambda: [session.close() for session in made],
        )
        if run.ended and not run.ctrl_c:
            return InterruptibleSession(made[0], deadline)
        if run.ended:
            made[0].close()
        if run.ctrl_c:
            raise KeyboardInterrupt
        raise TimeLimitReached(time_limit_text(work))

    def trim(self, x: Array) -> None:
        """Remove the added rows that are not binding at ``x``, if there are more added rows than rows and columns of the program.

        Every row costs time in every simplex iteration, and few of the removed rows are needed again.  The sessions are closed.
        """
        if sum(len(rows) for rows in self.rows) > len(self.program.rows) + self.program.columns:
            self.close()
            self.rows[:] = [rows.part(rows.slack(x) <= BINDING_SLACK_MAX) for rows in self.rows]

    def close(self) -> None:
        """Close the sessions; the next use opens them again."""
        while self.opened:
            self.opened.popitem()[1].session.close()

    def _required_features(self, opened: OpenSession) -> set[Feature]:
        """Return the features that a backend needs to update the session."""
        changed, grown = opened.program is not self.program, opened.rows < len(self.rows)
        return ({Feature.CHANGE} if changed else set()) | ({Feature.ADD_ROWS} if grown else set())

    def _update(self, opened: OpenSession) -> None:
        """Pass the changes since its last use on to a session."""
        session, before, now = opened.session, opened.program, self.program
        if before.cost is not now.cost or before.offset != now.offset:
            session.set_objective(now.cost, now.offset)
        if before is not now:
            moved = np.flatnonzero((before.lower != now.lower) | (before.upper != now.upper))
            session.set_bounds(moved, now.lower[moved], now.upper[moved])
        for rows in self.rows[opened.rows :]:
            session.add_rows(rows)
        opened.program, opened.rows = now, len(self.rows)
