"""The deadline of a call: made from its time limit at the start, handed down, and asked in every loop over layers, parts or samples."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TypeAlias

from mipnet.errors import InputError, TimeLimitReached, shown


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock, infinite without a limit."""

    end: float = math.inf
    """Reading of `time.monotonic`, in seconds."""

    @classmethod
    def after(cls, time_limit: TimeLimit) -> Deadline:
        """Return the deadline ``time_limit`` seconds from now; None means no limit, and a `Deadline` is returned as it is.

        Raises
        ------
        InputError
            If the limit is neither None nor a positive number.
        """
        if isinstance(time_limit, Deadline):
            return time_limit
        if time_limit is None:
            return cls()
        try:
            seconds = math.nan if isinstance(time_limit, bool | str) else float(time_limit)
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not seconds > 0:
            raise InputError(f"the time limit is {shown(time_limit)}; expected a positive number of seconds, or None for no limit")
        return cls(time.monotonic() + seconds)

    @property
    def seconds(self) -> float:
        """Seconds that are left, 0 after the deadline."""
        return max(0.0, self.end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.end

    def check(self, work: str) -> None:
        """Raise `TimeLimitReached` if no time is left; ``work`` says what could not be finished, such as "encode layer fc1"."""
        if self.passed:
            raise TimeLimitReached(time_limit_text(work))

    def __reduce__(self) -> tuple[object, tuple[float]]:
        """Pickle the seconds that are left: another machine has another clock."""
        return _deadline_in, (self.seconds,)

    def within(self, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now, or this one if it is earlier."""
        return Deadline(min(self.end, time.monotonic() + seconds))

    def at_least(self, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now, or this one if it is later."""
        return Deadline(max(self.end, time.monotonic() + seconds))

    def extended(self, seconds: float) -> Deadline:
        """Return the deadline this many seconds after this one."""
        return Deadline(self.end + seconds)

    def share(self, part: float) -> Deadline:
        """Return the deadline at which ``part`` of the seconds that are left now (a number from 0 to 1) is used up."""
        return self if math.isinf(self.end) else self.within(part * self.seconds)


def time_limit_text(work: str) -> str:
    """Return the message of `TimeLimitReached` for what could not be finished."""
    return f"the time limit ended before mipnet could {work}; raise it, or give a smaller problem"


def _deadline_in(seconds: float) -> Deadline:
    return Deadline(time.monotonic() + seconds)


TimeLimit: TypeAlias = float | Deadline | None
"""What a parameter ``time_limit`` takes: seconds of the whole call, a deadline that several calls share, or None for no limit."""

NO_DEADLINE = Deadline()
"""The deadline that never passes."""
