"""Room in memory for tests: a limit a little above what this process uses."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from mipnet.limits.free_memory import used_memory
from mipnet.limits.memory import memory_limit


@contextmanager
def room(size: float) -> Iterator[None]:
    """Limit the memory of this process to ``size`` bytes more than it uses now, after what nobody needs any more was freed."""
    gc.collect()
    with memory_limit(used_memory() + size):
        yield
