"""The memory limit of a call: what is large is estimated before it is made, and refused, or made in another way, if it does not fit.

The limit is that of the whole process.  It holds inside of ``with memory_limit("4 GB"):``, in this thread alone, and ends with the
block; programs that `mipnet.solving.parallel` runs in other processes get their share of it.  Without a limit, mipnet may take
`FREE_MEMORY_SHARE` of the memory that is free when something is made.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mipnet.errors import InputError, MemoryLimitReached, OutOfMemory, shown, suggest_keywords
from mipnet.errors.argument_kinds import is_number
from mipnet.limits.free_memory import free_memory, used_memory

FREE_MEMORY_SHARE = 0.8
"""The share of the free memory that mipnet may take if no limit is set."""

UNCHECKED_BYTES_MAX = 2**24
"""What is not larger than this, and within the limit, is made without asking how much the machine has free (16 MiB)."""

WATCH_SECONDS = 0.2
"""Seconds between two looks of a `MemoryWatch`."""

MEMORY_LIMIT_BYTES_MIN = 10**6
"""The smallest limit that is taken: smaller numbers are meant in another unit."""

BYTE_UNITS: dict[str, int] = {
    "": 1,
    **{unit: 1000 ** (k + 1) for k, unit in enumerate("kmgt")},
    **{f"{u}i": 1024 ** (k + 1) for k, u in enumerate("kmgt")},
}
"""Bytes by unit, in lower case and without the B."""

BYTES_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)

MEMORY_LIMIT_EXPECTED = 'a number of bytes, or a size such as "4 GB" or "500 MiB", of at least 1 MB'

_limit: ContextVar[float] = ContextVar("memory limit of mipnet", default=math.inf)


@suggest_keywords
@contextmanager
def memory_limit(limit: float | str | None) -> Iterator[None]:
    """Limit the memory of this process while the block runs: ``with mn.memory_limit("4 GB"): mn.verify(...)``.

    ``limit`` is a number of bytes, or a size such as ``"4 GB"`` or ``"500 MiB"``; None sets no limit.  Inside of another limit, the
    smaller one of the two holds.  What would not fit is refused with `mipnet.errors.MemoryLimitReached` before it is made, or computed by
    a method that needs less, which the result names.  Raises `InputError` for anything that is no size.
    """
    token = _limit.set(min(_limit.get(), math.inf if limit is None else bytes_of(limit)))
    try:
        yield
    finally:
        _limit.reset(token)


def bytes_of(limit: float | str) -> float:
    """Return a size such as ``"4 GB"`` (1000^3 bytes) or ``"4 GiB"`` (1024^3 bytes) in bytes; raises `InputError` if it is none."""
    found = BYTES_PATTERN.fullmatch(limit) if isinstance(limit, str) else None
    if found is not None:
        size = float(found[1]) * BYTE_UNITS[(found[2] or "").lower()]
    elif not is_number(limit):
        raise InputError(f"the memory limit is {shown(limit)}; expected {MEMORY_LIMIT_EXPECTED}")
    else:
        size = float(limit)
    if size < MEMORY_LIMIT_BYTES_MIN:
        raise InputError(f"the memory limit is {shown(limit)}, which is {size:g} bytes; expected {MEMORY_LIMIT_EXPECTED}")
    return size


def current_limit() -> float:
    """Return the limit that was set, in bytes; infinite if there is none."""
    return _limit.get()


def memory_left() -> float:
    """Return the bytes that mipnet may still take: to the limit that was set, or else `FREE_MEMORY_SHARE` of what is free."""
    if math.isfinite(_limit.get()):
        return max(0.0, min(_limit.get() - used_memory(), free_memory()))
    return FREE_MEMORY_SHARE * free_memory()


def fits(size: float) -> bool:
    """Return True if something of this size, in bytes, may be made."""
    small = size <= UNCHECKED_BYTES_MAX and (math.isinf(_limit.get()) or size <= _limit.get() - used_memory())
    return small or size <= memory_left()


def count_in_memory(each: float, most: int) -> int:
    """Return how many things of a size, in bytes, may be made at once: at least one, and at most ``most``."""
    return most if fits(each * most) else max(1, min(most, int(memory_left() / each)))


def check_memory(what: str, size: float, remedy: str) -> None:
    """Raise `MemoryLimitReached` unless something of this size, in bytes, may be made.

    ``what`` names it, with its figures, and ``remedy`` says what the user can do besides raising the limit, such as "give fewer images".
    """
    if not fits(size):
        raise MemoryLimitReached(f"{what} would take about {shown_bytes(size)}; {_room()}: {remedy}, or raise `memory_limit`")


@contextmanager
def making(what: str, size: float, remedy: str) -> Iterator[None]:
    """Make something of about this size, in bytes, in the block: `check_memory`, and one clear line if memory ends nevertheless."""
    check_memory(what, size, remedy)
    try:
        yield
    except MemoryLimitReached:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise OutOfMemory(f"memory ended while mipnet made {what} (about {shown_bytes(size)}); {remedy}") from error


class MemoryWatch:
    """Watches the memory of the process while something grows whose size nobody knows before, such as the tree of a solver."""

    def __init__(self) -> None:
        self._allowed, self._next, self._reached = used_memory() + memory_left(), 0.0, False

    def reached(self) -> bool:
        """Return True once the process holds more than it was allowed to when the watch began; it looks a few times per second."""
        now = time.monotonic()
        if not self._reached and now >= self._next:
            self._next = now + WATCH_SECONDS
            self._reached = used_memory() > self._allowed
        return self._reached


def is_memory_error(error: BaseException) -> bool:
    """Return True for a MemoryError, and for the RuntimeError that torch raises in its place."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def shown_bytes(size: float) -> str:
    """Return a size in words: ``5.1 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB" if size < 1000 else f"{size:,.0f} TB"


def _room() -> str:
    """Return in words how much may be taken, and why no more."""
    used, left, limit = used_memory(), memory_left(), _limit.get()
    if math.isinf(limit):
        return f"{shown_bytes(free_memory())} are free, of which mipnet takes {FREE_MEMORY_SHARE:.0%} at most"
    if left < limit - used:
        return f"the memory limit is {shown_bytes(limit)}, and {shown_bytes(left)} are free"
    return f"the memory limit is {shown_bytes(limit)}, and {shown_bytes(used)} are in use"
