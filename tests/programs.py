"""Programs for tests/solving/test_parallel.py, where a spawned process can import them."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mipnet.solving.parallel import run_all


def square(folder: Path, number: int, victim: int | None = None) -> int:
    """The square, with a file for every time it is finished; the victim waits for its end the first time."""
    pid = folder / "pid"
    if number == victim and not pid.exists():
        pid.with_suffix(".new").write_text(str(os.getpid()))
        pid.with_suffix(".new").rename(pid)
        time.sleep(600)
    (folder / f"done-{number}-{time.time_ns()}").touch()
    return number * number


def run_pickled(programs: Mapping[Any, Callable[[], Any]], *, workers: Any, **how: Any) -> dict[Any, Any]:
    """`run_all` in this process, with programs and values that are pickled as on their way to another process and back."""
    return run_all({key: partial(call_pickled, pickle.dumps(program)) for key, program in programs.items()}, workers=0, **how)


def call_pickled(program: bytes, *arguments: Any) -> Any:
    """Unpickle and call a function; its arguments and its value are pickled and unpickled, too."""
    return pickle.loads(pickle.dumps(pickle.loads(program)(*pickle.loads(pickle.dumps(arguments)))))


def fail(error: Exception) -> None:
    """Raise the error."""
    raise error


def die() -> None:
    """End the process at once, as the kernel does when memory runs out."""
    os.kill(os.getpid(), 9)
