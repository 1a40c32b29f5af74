"""Independent programs: each runs until it is finished, and not once more, whatever happens to the processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from mipnet.errors import DataError, InputError, SolverFailure
from mipnet.limits.memory import current_limit
from mipnet.solving import dask_client
from mipnet.solving.parallel import Workers, run_all
from tests.limits.room import room
from tests.programs import die, fail, square
from tests.sweep import marked

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 240
"""Seconds until something that hangs is given up: many times what it takes on a busy machine."""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawned processes find `tests.programs` too."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def finishes(folder: Path) -> list[int]:
    """Which programs were finished, as often as they were."""
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("done-*"))


def process_of_the_victim(folder: Path) -> int:
    """The process that runs the program that waits, once it does."""
    until = time.monotonic() + SECONDS_MAX
    while not (folder / "pid").exists():
        assert time.monotonic() < until, "no program waits"
        time.sleep(0.02)
    return int((folder / "pid").read_text())


def programs(folder: Path, victim: int | None = None) -> dict[str, partial[int]]:
    return {f"p{n}": partial(square, folder, n, victim) for n in range(5)}


SQUARES = {f"p{n}": n * n for n in range(5)}


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_finished_does_not_run(tmp_path: Path, workers: int) -> None:
    told: dict[str, int] = {}
    found = run_all(programs(tmp_path), workers=workers, on_done=told.__setitem__, finished={"p3": -1, "other": 7})
    assert found == SQUARES | {"p3": -1}
    assert list(found) == list(SQUARES)
    assert told == {key: value for key, value in SQUARES.items() if key != "p3"}
    assert finishes(tmp_path) == [0, 1, 2, 4]


@pytest.mark.parametrize("workers", [marked(1), 2])
def test_a_killed_program_runs_again_and_a_finished_one_does_not(tmp_path: Path, workers: int) -> None:
    received: dict[str, int] = {}

    def kill() -> None:
        process, until = process_of_the_victim(tmp_path), time.monotonic() + SECONDS_MAX
        while {f"p{n}" for n in finishes(tmp_path)} != set(received) and time.monotonic() < until:
            time.sleep(0.02)  # a result that was not received yet dies with its process, and its program runs again
        os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert run_all(programs(tmp_path, victim=2), workers=workers, on_done=received.__setitem__) == SQUARES
    killer.join(SECONDS_MAX)
    assert finishes(tmp_path) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_names_its_program(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError, match=r"^program p7: no images$"):
        run_all({"p7": partial(fail, DataError("no images"))}, workers=workers)
    with pytest.raises(KeyError) as caught:
        run_all({"p8": partial(fail, KeyError("x"))}, workers=workers)
    assert caught.value.__notes__ == ["raised by program p8"]


@pytest.mark.sweep
def test_a_program_that_kills_every_process_fails() -> None:
    with pytest.raises(SolverFailure, match=r"^program p: 4 processes died while they ran it"):
        run_all({"p": die}, workers=1)


def test_wrong_workers_and_schedulers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="`workers` is -1"):
        run_all({}, workers=-1)
    monkeypatch.setattr(dask_client, "SCHEDULER_SECONDS_MAX", 0.2)
    for address in ("nonsense://x", "tcp://127.0.0.1:9"):
        with pytest.raises(InputError, match=f"`{address}` cannot be used"):
            run_all({"p": die}, workers=Workers(scheduler=address))


def test_a_port_where_something_else_answers_is_no_scheduler_and_not_out_of_memory() -> None:
    """The greeting of a web server, read as the sizes that dask sends, asks for exabytes."""
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 5)
                connection.recv(1000)

        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(
            InputError, match=rf"`{address}` cannot be used \(what answers there is no dask scheduler\); expected the address"
        ):
            run_all({"p": die}, workers=Workers(scheduler=address))


def test_processes_share_the_memory_that_this_one_may_take() -> None:
    with room(3e9) as told:
        assert run_all({1: current_limit}, workers=0)[1] == told.used + 3e9
        found = run_all({1: current_limit, 2: current_limit}, workers=2)
    assert found == {1: 1.5e9, 2: 1.5e9}


def test_a_scheduler_of_ones_own_runs_the_programs(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        found = run_all(programs(tmp_path), workers=Workers(scheduler=cluster.scheduler_address))
        assert cluster.workers, "a scheduler of one's own stays"
    assert found == SQUARES
    assert finishes(tmp_path) == [0, 1, 2, 3, 4]


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    code = (
        "import sys; from functools import partial; from pathlib import Path\n"
        "from mipnet.solving.parallel import run_all; from tests.programs import square\n"
        "if __name__ == '__main__':\n"
        "    run_all({1: partial(square, Path(sys.argv[1]), 1, 1)}, workers=1)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    worker = process_of_the_victim(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=SECONDS_MAX)[1]
    assert error.rstrip().endswith("KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.sweep
def test_ctrl_c_while_workers_start_prints_no_traceback_of_theirs(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the whole process group: here the first thing that each of two workers does is to send it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'multiprocessing.spawn' in ' '.join(sys.orig_argv): os.killpg(0, signal.SIGINT)\n"
    )
    words = ["solve", str(ROOT / "examples" / "digits.yaml"), "--set", "solve.decouple=class", "--set", "output=null", "--workers", "2"]
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "mipnet", *words],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "error: interrupted, and nothing is kept, because there is no `output`\n")


def test_in_this_process_distributed_is_not_needed() -> None:
    code = "import sys; from mipnet.solving.parallel import run_all; assert run_all({1: int}, workers=0) == {1: 0}"
    check = "; assert 'distributed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code + check], check=True, timeout=SECONDS_MAX)
