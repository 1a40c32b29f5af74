"""A program held open: its rows grow, its objective and bounds change, and sessions catch up with it when they are used.

What is held is the truth and a session is a copy of it, so a session may be closed at any time and is opened again when it is
needed: after an exception that may have left it half-way through a change, or for a backend that takes no changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Backend, Feature, Options, Program, Rows, Session

BINDING_SLACK_MAX = 1e-6
"""A row with at most this slack is binding."""


@dataclass(eq=False)
class OpenSession:
    """A session, and what it has been told so far: a program and a number of rows."""

    session: Session
    program: Program
    rows: int


@dataclass(eq=False)
class OpenProgram:
    """A program, the ``rows`` that were added to it, and the sessions that are open on it: as it is, and without integrality.

    Replace ``program`` by one with another objective or other bounds, and append to ``rows``.
    """

    program: Program
    backend: Backend
    options: Options | None = None
    rows: list[Rows] = field(default_factory=list)
    opened: dict[bool, OpenSession] = field(default_factory=dict)

    def session(self, *, relaxed: bool = False) -> Session:
        """The session on the program as it stands now, with all rows; ``relaxed``: without integrality."""
        known = self.opened.get(relaxed)
        if known is not None and not self._missed(known) <= self.backend.features:
            self.opened.pop(relaxed).session.close()
            known = None
        if known is None:
            program = self.program.with_rows(*self.rows) if self.rows else self.program
            program = replace(program, integer=np.zeros_like(program.integer)) if relaxed else program
            known = self.opened[relaxed] = OpenSession(self.backend.open(program, self.options), self.program, len(self.rows))
        self._catch_up(known)
        return known.session

    def trim(self, x: Array) -> None:
        """Forget the added rows that are slack at ``x``, if there are more of them than of all else; sessions are opened anew.

        Every simplex iteration costs time for every row, and few of them are ever needed again.
        """
        if sum(len(rows) for rows in self.rows) > len(self.program.rows) + self.program.columns:
            self.close()
            self.rows[:] = [rows.part(rows.slack(x) <= BINDING_SLACK_MAX) for rows in self.rows]

    def close(self) -> None:
        """Close the sessions; the next use opens them again."""
        while self.opened:
            self.opened.popitem()[1].session.close()

    def _missed(self, known: OpenSession) -> set[Feature]:
        """What a session has to be able to do to catch up."""
        changed, grown = known.program is not self.program, known.rows < len(self.rows)
        return ({Feature.CHANGE} if changed else set()) | ({Feature.ADD_ROWS} if grown else set())

    def _catch_up(self, known: OpenSession) -> None:
        session, before, now = known.session, known.program, self.program
        if before.cost is not now.cost or before.offset != now.offset:
            session.set_objective(now.cost, now.offset)
        if before is not now:
            moved = np.flatnonzero((before.lower != now.lower) | (before.upper != now.upper))
            session.set_bounds(moved, now.lower[moved], now.upper[moved])
        for rows in self.rows[known.rows :]:
            session.add_rows(rows)
        known.program, known.rows = now, len(self.rows)
