"""A deadline is made once from a time limit, is shared by several calls, and never waits for the clock in these tests."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from mipnet.errors import InputError, TimeLimitReached
from mipnet.limits.deadline import NO_DEADLINE, Deadline


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The reading of the clock, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_deadline_counts_down(clock: list[float]) -> None:
    deadline = Deadline.after(8)
    assert (deadline.seconds, deadline.passed) == (8.0, False)
    assert Deadline.after(deadline) is deadline
    clock[0] = 105.0
    assert deadline.seconds == 3.0
    assert deadline.within(2).end == 107.0
    assert deadline.within(60) == deadline
    assert deadline.share(1 / 3).end == 106.0
    clock[0] = 108.0
    assert (deadline.seconds, deadline.passed) == (0.0, True)
    with pytest.raises(TimeLimitReached, match=r"^the time limit ended before mipnet could encode layer fc1; raise it, or "):
        deadline.check("encode layer fc1")


def test_none_is_no_limit() -> None:
    for deadline in (Deadline.after(None), NO_DEADLINE, Deadline.after(math.inf), NO_DEADLINE.share(0.5)):
        assert deadline.seconds == math.inf
        assert not deadline.passed
        deadline.check("do anything")


@pytest.mark.parametrize("given", [0, -1.0, math.nan, "8", True])
def test_other_limits_are_refused(given: object) -> None:
    with pytest.raises(InputError, match="expected a positive number of seconds, or None for no limit"):
        Deadline.after(given)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_taken(clock: list[float]) -> None:
    assert Deadline.after(np.float32(2)).end == Deadline.after(np.int64(2)).end == 102.0
