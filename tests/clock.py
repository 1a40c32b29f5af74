"""A clock for tests of time limits: it moves on by one second each time that a deadline reads it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mipnet.limits import deadline


class TickingClock:
    """The clock of `mipnet.limits.deadline`, with ``readings`` so far; ``moves`` is 0.0 while it stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.readings, self.now, self.moves = 0, 1000.0, 1.0
        monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=self))

    def __call__(self) -> float:
        self.readings += 1
        self.now += self.moves
        return self.now
