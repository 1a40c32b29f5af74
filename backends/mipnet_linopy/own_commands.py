"""The processes of solvers that linopy runs as commands: which ones belong to a run, and their end.

linopy does not show them, so they are found by the folder of the run, which is in their arguments.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

END_SECONDS_MAX = 0.3
"""Seconds that a command gets to write its solution after SIGINT; then it is killed."""

LOOK_SECONDS = 0.02
"""Seconds between two looks at the processes."""

PS_COMMAND = ("ps", "-axww", "-o", "pid=,ppid=,args=")
"""The command that lists processes where there is no ``/proc``."""


def end_commands(folder: Path, over: Callable[[], bool]) -> None:
    """End the commands of a run in a folder: SIGINT, and SIGKILL if they have not ended soon; until the run is ``over``.

    A command that starts meanwhile is ended as well.  Nothing happens on Windows.
    """
    if os.name == "nt":
        return
    told, kill_at = set[int](), time.monotonic() + END_SECONDS_MAX
    while not over():
        late = time.monotonic() >= kill_at
        for process in commands_in(folder):
            if late or process not in told:
                told.add(process)
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL if late else signal.SIGINT)
        if late:
            return
        time.sleep(LOOK_SECONDS)


def commands_in(folder: Path) -> list[int]:
    """Return the ids of the processes below this one that have the folder in their arguments."""
    parents, found = dict[int, int](), list[int]()
    for process, parent, arguments in _from_proc() if Path("/proc/self/stat").exists() else _from_ps():
        parents[process] = parent
        if str(folder) in arguments:
            found.append(process)
    return [process for process in found if _is_below(process, parents)]


def _is_below(process: int, parents: dict[int, int]) -> bool:
    seen = set[int]()
    while (process := parents.get(process, 0)) not in seen:
        if process == os.getpid():
            return True
        seen.add(process)
    return False


def _from_proc() -> list[tuple[int, int, str]]:
    """Return id, parent and arguments of each process, from ``/proc``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
                parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                found.append((int(entry.name), parent, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")))
    return found


def _from_ps() -> list[tuple[int, int, str]]:
    """Return id, parent and arguments of each process, from ``ps``."""
    try:
        done = subprocess.run(PS_COMMAND, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = (line.split(None, 2) for line in done.stdout.decode(errors="replace").splitlines())
    return [(int(line[0]), int(line[1]), line[2]) for line in lines if len(line) == 3]
