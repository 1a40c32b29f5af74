"""Clocks for tests of time limits, which move only when a deadline reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TypeVar

import pytest

from mipnet.limits import deadline

T = TypeVar("T")


class TickingClock:
    """The clock of `mipnet.limits.deadline`, which moves on by one second per reading; ``moves`` is 0.0 while it stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.readings, self.now, self.moves = 0, 1000.0, 1.0
        monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=self))

    def __call__(self) -> float:
        self.readings += 1
        self.now += self.moves
        return self.now


class CountingDeadline(deadline.Deadline):
    """A deadline that never passes, and counts how often it is asked for each work."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "work", Counter[str]())

    work: Counter[str]

    def check(self, work: str) -> None:
        self.work[work] += 1


class StoppingClock:
    """The clock of `mipnet.limits.deadline`, which stands still until it has been read ``looks`` times; then every limit is over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
        self.looks, self.readings = looks, 0
        monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=self))

    def __call__(self) -> float:
        self.readings += 1
        return 0.0 if self.readings <= self.looks else 1e9

    @property
    def stopped(self) -> bool:
        """Whether a limit was over."""
        return self.readings > self.looks


def at_every_moment(monkeypatch: pytest.MonkeyPatch, call: Callable[[], T], wider: int = 6) -> Iterator[T]:
    """Yield the result of a call whose time ends after the first, second, ... reading of the clock, and last one that ends by itself.

    Only the first ``wider`` moments follow one another; the distance of the later ones grows in proportion.
    """
    looks = 1
    while True:
        clock = StoppingClock(monkeypatch, looks)
        yield call()
        if not clock.stopped:
            return
        looks += max(1, looks // wider)
