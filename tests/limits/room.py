"""Memory for tests: what is in use and what is free are told, so that no test depends on what a process or machine holds besides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from mipnet.limits import memory

BYTES_IN_USE = 10**9
"""What the process holds in the tests that open a `room`."""

BYTES_FREE = 10**15
"""What the machine has free in them: so much that only the limit counts."""


@dataclass
class MemoryReadings:
    """What mipnet reads as the memory in use by the process, and as the free memory of the machine, in bytes."""

    used: float = BYTES_IN_USE
    free: float = BYTES_FREE


@contextmanager
def readings(used: float = BYTES_IN_USE, free: float = BYTES_FREE) -> Iterator[MemoryReadings]:
    """Let mipnet read these figures in place of those of the process and the machine; a test may change them while the block runs."""
    told = MemoryReadings(used, free)
    with patch.object(memory, "used_memory", lambda: told.used), patch.object(memory, "free_memory", lambda: told.free):
        yield told


@contextmanager
def room(size: float) -> Iterator[MemoryReadings]:
    """Limit the memory of this process to ``size`` bytes more than it uses, which stays as it is whatever is made in the block."""
    with readings() as told, memory.memory_limit(told.used + size):
        yield told
