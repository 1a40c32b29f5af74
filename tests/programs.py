"""Programs for tests/solving/test_parallel.py, where a spawned process can import them."""

from __future__ import annotations

import os
import time
from pathlib import Path


def square(folder: Path, number: int, victim: int | None = None) -> int:
    """The square, with a file for every time it is finished; the victim waits for its end the first time."""
    pid = folder / "pid"
    if number == victim and not pid.exists():
        pid.with_suffix(".new").write_text(str(os.getpid()))
        pid.with_suffix(".new").rename(pid)
        time.sleep(600)
    (folder / f"done-{number}-{time.time_ns()}").touch()
    return number * number


def fail(error: Exception) -> None:
    """Raise the error."""
    raise error


def die() -> None:
    """End the process at once, as the kernel does when memory runs out."""
    os.kill(os.getpid(), 9)
