"""Room in memory for tests: a limit a little above what this process uses."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from mipnet.limits import memory
from mipnet.limits.free_memory import used_memory


@contextmanager
def room(size: float) -> Iterator[None]:
    """Limit the memory of this process to ``size`` bytes more than it uses now, after what nobody needs any more was freed.

    Pages that the machine takes back meanwhile, such as those of libraries that are not in use, make no further room.
    """
    gc.collect()
    used = used_memory()
    with patch.object(memory, "used_memory", lambda: max(used, used_memory())), memory.memory_limit(used + size):
        yield
