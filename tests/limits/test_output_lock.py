"""One writer at a time: among processes that start at once, after a kill, after a fork, and among threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mipnet.errors import OutputInUse
from mipnet.limits import output_lock
from mipnet.limits.output_lock import lock_path, only_writer

HOLD = """
import os, sys
from pathlib import Path
from mipnet.limits.output_lock import only_writer
with only_writer(Path(sys.argv[1])):
    forked = "fork" in sys.argv and os.fork()
    if not forked:
        print("held", flush=True)
    sys.stdin.read()
    if forked == 0 and "fork" in sys.argv:
        os._exit(0)
"""
"""Holds a lock until its standard input ends; with ``fork``, a forked process waits for that as well."""

RACE = """
import os, sys, time
from pathlib import Path
from mipnet.errors import OutputInUse
from mipnet.limits.output_lock import only_writer
folder, count = Path(sys.argv[1]), 0
print("ready", flush=True)
sys.stdin.readline()
while count < 25:
    try:
        with only_writer(folder / "deep" / "out"):
            (folder / "inside").mkdir()
            time.sleep(0.0005)
            (folder / "inside").rmdir()
            count += 1
    except OutputInUse:
        pass
print("done", flush=True)
"""
"""Takes a lock 25 times and makes a folder inside, which fails if another process is inside as well."""


def start(script: str, *words: str) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", script, *words], text=True, **pipes)


@contextmanager
def holder(path: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a path."""
    process = start(HOLD, str(path), *words)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.communicate(timeout=240)


def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with holder(path) as process, pytest.raises(OutputInUse) as caught, only_writer(path):
        pass
    said = str(caught.value)
    assert said.startswith(f"`{path}` is being written by process {process.pid} on {os.uname().nodename} since 20")
    assert said.endswith("; wait until that has ended, or name another place")
    with only_writer(path) as held:
        assert held
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no fork and no SIGKILL")
@pytest.mark.parametrize("words", [(), ("fork",)])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Also while a process that it had forked goes on; and a number of a process that now belongs to another one does not matter."""
    path = tmp_path / "run"
    with holder(path, *words) as process:
        with pytest.raises(OutputInUse, match=f"process {process.pid} on"), only_writer(path):
            pass
        process.kill()
        process.wait(240)
        assert lock_path(path).exists()
        lock_path(path).write_text(lock_path(path).read_text().replace(str(process.pid), "1"))
        with only_writer(path) as held:
            assert held
            assert f'"process": {os.getpid()}' in lock_path(path).read_text()
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_at_once_enter_one_by_one(tmp_path: Path) -> None:
    processes = [start(RACE, str(tmp_path)) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert (out, err, process.returncode) == ("done\n", "", 0)
    assert [each for each in tmp_path.rglob("*") if not each.is_dir()] == []


def test_a_thread_enters_twice_and_another_one_does_not(tmp_path: Path) -> None:
    path, refused = tmp_path / "a" / "b" / "run", list[str]()

    def other() -> None:
        try:
            with only_writer(path):
                pass
        except OutputInUse as error:
            refused.append(str(error))

    with only_writer(path):
        with only_writer(tmp_path / "a" / ".." / "a" / "b" / "run"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert f"is being written by this process {os.getpid()} on" in refused[0]
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_stays(tmp_path: Path) -> None:
    with only_writer(tmp_path / "a" / "run"):
        (tmp_path / "a" / "run").mkdir()
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["run"]


def test_a_place_without_locks_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network file systems."""

    def refuse(descriptor: int) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(output_lock, "_try_lock", refuse)
    with pytest.warns(RuntimeWarning, match=r"run` cannot be locked \(operation not supported\)"), only_writer(tmp_path / "run") as held:
        assert not held


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_releases(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        stack.enter_context(only_writer(tmp_path / "run"))
        os.kill(os.getpid(), signal.SIGINT)
    with only_writer(tmp_path / "run") as held:
        assert held
