"""How things are measured: CPU time, the best of several runs in turn; peak memory in a process that does nothing else."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPEATS = 5


def cpu_times(*actions: Callable[[], object], rounds: int = REPEATS) -> list[float]:
    """The least CPU seconds that each action took, over some rounds in which they take turns."""
    best = [float("inf")] * len(actions)
    for _ in range(rounds):
        for i, action in enumerate(actions):
            gc.collect()
            began = time.process_time()
            kept = action()
            best[i] = min(best[i], time.process_time() - began)
            del kept
    return best


def peak(action: Callable[[], object]) -> int:
    """By how many bytes this process outgrew itself at most while the action ran, its result kept alive (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = _status("VmRSS")
    kept = action()
    after = _status("VmHWM")
    del kept
    return after - before


def peak_apart(module: str, *arguments: str) -> int | None:
    """What `peak` says in a fresh process: ``python -m module arguments`` prints it as its last word.  None where there is no /proc."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout.split()[-1])  # a solver may print its name before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
