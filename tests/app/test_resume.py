"""A decoupled run that is killed goes on from its finished parts: none of them is solved twice, and the scores are the same."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import xarray as xr

from mipnet.app.cli.main import main
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.decoupled import parts_store, run_decoupled
from mipnet.app.runs.folder import save_result
from mipnet.app.runs.inputs import read_inputs
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.resume import run_store
from mipnet.app.runs.solve import run_importance
from mipnet.backend import Event, OnEvent
from mipnet.errors import InputError
from mipnet.pruning.importance import by_class, decoupled_parts
from mipnet.pruning.importance.decoupled_parts import PartLabel, SolvedPart
from tests.app.endless import BEGINS, run_some
from tests.interrupts import CtrlC

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SECONDS_MAX = 240
"""Seconds until a process that hangs is given up: many times what any of them takes on a busy machine."""

Command = subprocess.Popen[str]


def words(folder: Path, *more: str) -> list[str]:
    """Arguments that solve ten small programs, one per class."""
    sets = ("--set", "solve.decouple=class", "--set", "data.per_class=3", "--set", "solve.time_limit=100000")
    return ["solve", str(EXAMPLES / "digits.yaml"), *sets, "--output", str(folder / "run"), "--json", *more]


def start(folder: Path, count: int, *more: str) -> Command:
    """The command in a process group of its own; only ``count`` of its programs ever end."""
    command = [sys.executable, "-m", "tests.app.endless", str(count), *words(folder, *more)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)


def solve(folder: Path, *more: str) -> tuple[dict[str, Any], str]:
    """What the command prints when it runs to its end in this process, and what it says meanwhile."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert main(words(folder, *more)) == 0
    return json.loads(out.getvalue()), err.getvalue()


def parts_in(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """The files of finished parts, with the times they were written at and what is in them."""
    found = {path.with_suffix(suffix) for path in folder.glob("run.parts/*/part-*.json") for suffix in (".json", ".nc")}
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def wait_for_parts(folder: Path, count: int, command: Command) -> None:
    until = time.monotonic() + SECONDS_MAX
    while len(list(folder.glob("run.parts/*/part-*.json"))) < count:
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < until, "no parts came"
        time.sleep(0.02)


def wait_for_endless(command: Command, killed: int) -> None:
    """Wait until both workers are in a program that does not end, and none is still starting in place of the one that was killed."""
    begun: set[str] = set()
    assert command.stderr is not None
    for line in iter(command.stderr.readline, ""):
        begun |= {line.removeprefix(BEGINS).strip()} if line.startswith(BEGINS) else set()
        if len(begun - {str(killed)}) == 2:
            return
    raise AssertionError("the command ended")


def kill(command: Command, sent: signal.Signals = signal.SIGKILL) -> str:
    os.killpg(command.pid, sent)
    return command.communicate(timeout=SECONDS_MAX)[1]


def numbers(found: dict[Path, tuple[int, bytes]]) -> dict[PartLabel, float]:
    """The solve time of each finished part, which no second solve would repeat."""
    records = [json.loads(content) for path, (_, content) in found.items() if path.suffix == ".json"]
    return {record["key"]: record["result"]["runtime"] for record in records}


def keys(folder: Path) -> set[PartLabel]:
    """The keys of the finished parts."""
    return set(numbers(parts_in(folder)))


def same_scores(one: Path, other: Path) -> None:
    for name in ("scores.nc", "masks.nc"):
        with xr.open_dataset(one / name) as a, xr.open_dataset(other / name) as b:
            xr.testing.assert_allclose(a, b, atol=1e-9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The run folder of a command that is not interrupted, and its output."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "run", solve(folder, "--workers", "0")[0]


@pytest.mark.sweep
def test_the_run_folder_has_every_part(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, data = whole
    assert [(part["key"], part["samples"], part["status"]) for part in data["parts"]] == [(c, 3, "optimal") for c in range(10)]
    assert not any(part["resumed"] for part in data["parts"])
    assert all(part["verified"] and part["bound"] <= part["objective"] and part["build_s"] > 0 for part in data["parts"])
    assert data["objective"] == pytest.approx(sum(part["objective"] for part in data["parts"]) / 10)
    assert json.loads((folder / "result.json").read_text()) == data
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    each = [xr.load_dataset(folder / "parts.nc", group=str(c)) for c in range(10)]
    with xr.open_dataset(folder / "scores.nc") as scores:
        xr.testing.assert_allclose(sum(each) / 10, scores, atol=1e-12)
    assert (folder / "solver.log").read_text().startswith("--- class 0 ---\n")


@pytest.mark.sweep
def test_a_command_that_is_interrupted_and_then_killed_is_taken_up(tmp_path: Path, whole: tuple[Path, dict[str, Any]]) -> None:
    """Interrupted after three programs, on two workers of which one was killed; killed after two more, which it solved by itself."""
    command = start(tmp_path, 3, "--workers", "2")
    wait_for_parts(tmp_path, 1, command)
    workers = [p for p in psutil.Process(command.pid).children() if "multiprocessing.spawn" in " ".join(p.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    wait_for_parts(tmp_path, 3, command)
    wait_for_endless(command, killed=workers[0].pid)
    said = kill(command, signal.SIGINT)
    assert command.returncode == 130, said
    check_interrupted(tmp_path, said, 3)
    first = parts_in(tmp_path)
    assert keys(tmp_path) == {0, 1, 2}

    command = start(tmp_path, 5, "--workers", "0", "--resume")
    wait_for_parts(tmp_path, 5, command)
    kill(command)
    second = parts_in(tmp_path)
    assert keys(tmp_path) == {0, 1, 2, 3, 4}
    assert {path: second[path] for path in first} == first
    assert not (tmp_path / "run").exists()

    data, said = solve(tmp_path, "--workers", "0", "--resume")
    assert "10 programs, one per class, 5 of them resumed" in said
    resumed = {part["key"]: part["runtime_s"] for part in data["parts"] if part["resumed"]}
    assert resumed == numbers(second)
    assert (len(data["parts"]), data["verified"]) == (10, True)
    same_scores(tmp_path / "run", whole[0])
    assert data["objective"] == pytest.approx(whole[1]["objective"], abs=1e-9)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def check_interrupted(folder: Path, said: str, count: int) -> None:
    """The last line tells how many parts are kept."""
    assert "Traceback" not in said
    last, parts = said.strip().splitlines()[-1], folder / "run.parts"
    assert last == f"error: interrupted; {count} finished parts are kept in `{parts}`: the same command with --resume goes on from there"


def test_ctrl_c_in_a_solve_keeps_the_finished_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the third program, which never ends, at the first line of its log."""
    numbers, plain, err = itertools.count(1), decoupled_parts.solve, io.StringIO()

    def listened(*given: Any, on_event: OnEvent, **how: Any) -> Any:
        ctrl_c = CtrlC(armed=next(numbers) == 3)

        def hear(event: Event) -> None:
            on_event(event)
            ctrl_c(event)

        return plain(*given, on_event=hear, **how)

    monkeypatch.setattr(by_class, "run_all", partial(run_some, count=2))
    monkeypatch.setattr(decoupled_parts, "solve", listened)
    with redirect_stderr(err):
        assert main(words(tmp_path, "--workers", "0")) == 130
    check_interrupted(tmp_path, err.getvalue(), 2)
    assert keys(tmp_path) == {0, 1}


@pytest.mark.sweep
def test_a_scheduler_of_ones_own(tmp_path: Path, whole: tuple[Path, dict[str, Any]]) -> None:
    with scheduler(tmp_path / "dask") as address:
        (tmp_path / "here").mkdir()
        data, said = solve(tmp_path / "here", "--scheduler", address)
    assert "10 of 10" in said
    assert data["verified"]
    same_scores(tmp_path / "here" / "run", whole[0])


@contextmanager
def scheduler(folder: Path) -> Iterator[str]:
    """The address of a scheduler with one worker, both processes of their own."""
    from distributed import Client

    folder.mkdir()
    dask = [sys.executable, "-m", "dask"]
    file, quiet = folder / "scheduler.json", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    where = ["--host", "127.0.0.1", "--no-dashboard"]
    commands = [[*dask, "scheduler", *where, "--port", "0"], [*dask, "worker", *where, "--nthreads", "1", "--no-nanny"]]
    processes = [subprocess.Popen([*command, "--scheduler-file", str(file)], **quiet) for command in commands]  # type: ignore[call-overload]
    try:
        until = time.monotonic() + SECONDS_MAX
        while not (file.exists() and file.read_text().rstrip().endswith("}")):
            assert time.monotonic() < until, "no scheduler came"
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        with Client(address, timeout=SECONDS_MAX, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=SECONDS_MAX)
        yield address
    finally:
        for process in processes[::-1]:
            process.terminate()
            process.wait(SECONDS_MAX)


# parts, one by one


@pytest.fixture(scope="module")
def three_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that was stopped when three of its ten parts were finished."""
    folder = tmp_path_factory.mktemp("stopped")

    class Enough(Exception):
        pass

    class Stop(RunListener):
        def __init__(self) -> None:
            self.count = 0

        def programs_begin(self, keys: list[PartLabel], finished: dict[PartLabel, SolvedPart], at_once: int | None) -> None:
            assert at_once == 1

        def program_done(self, key: PartLabel, part: SolvedPart) -> None:
            self.count += 1
            if self.count == 3:
                raise Enough

    spec = load_spec(EXAMPLES / "digits.yaml", sets(folder))
    with pytest.raises(Enough):
        run_importance(spec, Stop())
    return folder / "run.parts"


@pytest.fixture
def stopped(tmp_path: Path, three_parts: Path) -> Path:
    """The same in a folder of the test's own; gives the folder that the three parts are in."""
    shutil.copytree(three_parts, tmp_path / "run.parts")
    (own,) = (tmp_path / "run.parts").iterdir()
    return own


def sets(folder: Path, *more: str) -> list[str]:
    return ["solve.decouple=class", "solve.workers=0", f"output={folder / 'run'}", "formulation.relu=frozen", *more]


def again(folder: Path, *more: str) -> list[PartLabel]:
    """The keys of the parts that are resumed."""
    run = run_importance(load_spec(EXAMPLES / "digits.yaml", sets(folder, *more)), resume=True)
    save_result(run)
    assert not (folder / "run.parts").exists()
    return [part["key"] for part in run.record["parts"] if part["resumed"]]


def test_finished_parts_are_taken_up(tmp_path: Path, stopped: Path) -> None:
    assert {path.name for path in stopped.glob("part-*")} == {f"part-{c}.{kind}" for c in range(3) for kind in ("nc", "json")}
    assert again(tmp_path, "prune.threshold=mean", "data.holdout=none") == [0, 1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda own: (own / "part-1.json").write_bytes((own / "part-1.json").read_bytes()[:100]),
        lambda own: (own / "part-1.json").write_text("[]"),
        lambda own: (own / "part-1.json").write_bytes((own / "part-0.json").read_bytes()),
        lambda own: (own / "part-1.nc").unlink(),
        lambda own: (own / "part-1.nc").write_bytes((own / "part-1.nc").read_bytes()[:-1]),
        lambda own: shutil.copy(own / "part-0.nc", own / "part-1.nc"),
    ],
)
def test_a_damaged_part_is_none(tmp_path: Path, stopped: Path, damage: Callable[[Path], Any]) -> None:
    damage(stopped)
    spec = load_spec(EXAMPLES / "digits.yaml", sets(tmp_path))
    store = parts_store(spec, read_inputs(spec))
    assert store is not None
    with pytest.warns(RuntimeWarning, match=r"part-1\.json` or its arrays are damaged"):
        assert list(store.finished(range(10))) == [0, 2]


@pytest.mark.sweep
def test_a_damaged_part_is_solved_again(tmp_path: Path, stopped: Path) -> None:
    (stopped / "part-1.json").write_text("[]")
    with pytest.warns(RuntimeWarning, match=r"part-1\.json` or its arrays are damaged"):
        assert again(tmp_path) == [0, 2]


@pytest.mark.sweep
def test_scores_without_numbers_are_no_part(tmp_path: Path, stopped: Path) -> None:
    (stopped / "part-1.json").unlink()
    assert again(tmp_path) == [0, 2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("objective.weight=4", "`objective.weight`"),
        ("data.pick=first", "`data.pick`"),
        ("solve={mip_gap: 0, start: none, time_limit: 60, decouple: class}", "`solve.mip_gap` and `solve.start`"),
    ],
)
def test_parts_of_another_question_are_refused(tmp_path: Path, stopped: Path, change: str, named: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run.parts").rglob("*")}
    with pytest.raises(InputError, match=f"holds parts of another run, with a different {named}: change it back, or remove that folder"):
        again(tmp_path, change)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run.parts").rglob("*")} == before


def test_other_weights_are_another_question(tmp_path: Path, stopped: Path) -> None:
    spec = load_spec(EXAMPLES / "digits.yaml", sets(tmp_path))
    (tmp_path / "copy").mkdir()
    for name in ("digits.yaml", "digits.safetensors"):
        shutil.copy(EXAMPLES / name, tmp_path / "copy")
    moved = load_spec(tmp_path / "copy" / "digits.yaml", sets(tmp_path / "copy"))
    one, other = parts_store(spec, read_inputs(spec)), parts_store(moved, read_inputs(moved))
    assert one is not None
    assert other is not None
    assert one.own == stopped
    changed = {key for key in one.question if one.question[key] != other.question[key]}
    assert changed == {"spec"}
    with (tmp_path / "copy" / "digits.safetensors").open("ab") as stream:
        stream.write(b" ")
    assert parts_store(moved, read_inputs(spec)).question["weights"] != one.question["weights"]  # type: ignore[union-attr]


def test_other_images_are_another_question(tmp_path: Path) -> None:
    spec = load_spec(EXAMPLES / "digits.yaml", sets(tmp_path))
    inputs = read_inputs(spec)
    own = inputs.split
    darker, swapped = replace(own, images=own.images / 2), replace(own, labels=own.labels[::-1].copy())
    folders = set()
    for images in (own, darker, swapped):
        store = parts_store(spec, replace(inputs, images=images, split=images))
        assert store is not None
        folders.add(store.own)
    assert len(folders) == 3


PARTS_DEPEND_ON = {
    "weight": "objective.weight=4",
    "loss": "objective.loss=margin",
    "normalize": "objective.normalize=paper",
    "objective layers": "objective.layers=all",
    "kind": "gates.kind=binary",
    "gates": "gates.layers=[fc1]",
    "pattern": "formulation.pattern=upper",
    "backend": "solve.backend=scip",
    "time limit": "solve.time_limit=59",
    "gap": "solve.mip_gap=0",
    "absolute gap": "solve.mip_gap_abs=1e-9",
    "nodes": "solve.nodes=7",
    "start": "solve.start=none",
    "options": "solve.options={mip_rel_gap: 0.1}",
    "decouple": "solve.decouple=layer",
    "split": "data.split=test",
    "images": "data.per_class=2",
    "seed": "data.seed=1",
}
PARTS_DO_NOT_DEPEND_ON = ("prune.threshold=mean", "data.holdout=none", "solve.workers=3", "solve.scheduler='tcp://10.0.0.1:8786'")


def test_parts_depend_on_every_key_that_may_change_them(tmp_path: Path) -> None:
    def own(*more: str) -> Path:
        spec = load_spec(EXAMPLES / "digits.yaml", sets(tmp_path, *more))
        store = run_store(spec)
        assert store is not None
        return store.open("decoupled", {}).own  # type: ignore[return-value]

    found = {name: own(key) for name, key in PARTS_DEPEND_ON.items()}
    assert not [name for name, folder in found.items() if folder == own()]
    assert len(set(found.values())) == len(found)
    assert {own(key) for key in PARTS_DO_NOT_DEPEND_ON} == {own()}


def test_parts_depend_on_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec(EXAMPLES / "digits.yaml", sets(tmp_path))
    before = run_store(spec)
    monkeypatch.setattr("mipnet.app.runs.resume.__version__", "0.0")
    after = run_store(spec)
    assert before is not None
    assert after is not None
    assert before.open("decoupled", {}).own != after.open("decoupled", {}).own


@pytest.mark.sweep
def test_resume_without_parts_just_starts(tmp_path: Path) -> None:
    assert again(tmp_path) == []
    (tmp_path / "run.parts").mkdir()
    assert again(tmp_path) == []


@pytest.mark.sweep
def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    spec = load_spec(EXAMPLES / "digits.yaml", sets(tmp_path))
    run = run_decoupled(spec, read_inputs(spec))
    (tmp_path / "run.parts" / "notes.txt").write_text("mine")
    save_result(run)
    assert [path.name for path in (tmp_path / "run.parts").iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match=r"holds `notes\.txt`, which mipnet did not write"):
        again(tmp_path)


def test_a_part_without_a_point_is_a_part(tmp_path: Path) -> None:
    """No start and no node: SCIP finds nothing, and knows no bound."""
    nothing = ("solve.backend=scip", "formulation.relu=big-m", "solve.start=none", "solve.nodes=0")
    spec = load_spec(EXAMPLES / "digits.yaml", sets(tmp_path, *nothing))
    asked = read_inputs(spec)
    first = run_decoupled(spec, asked)
    store = parts_store(spec, asked)
    assert store is not None
    read = store.finished(range(10))
    for part in first.decoupled.solved:
        kept = read[part.label]
        assert (kept.scores, part.scores) == (None, None)
        assert (kept.result.bound, kept.result.gap, kept.result.status) == (-math.inf, math.inf, part.result.status)


@pytest.mark.sweep
def test_layers_are_taken_up_too(tmp_path: Path) -> None:
    more = ("solve.decouple=layer", "data.holdout=none")
    spec = load_spec(EXAMPLES / "digits.yaml", sets(tmp_path, *more))
    asked = read_inputs(spec)
    one = run_decoupled(spec, asked)
    assert [part.label for part in one.decoupled.solved] == ["fc1", "fc2"]
    assert one.decoupled.folder is not None
    (one.decoupled.folder / "part-fc2.json").unlink()
    other = run_decoupled(spec, asked)
    assert other.decoupled.resumed == {"fc1"}
    assert one.scores is not None
    xr.testing.assert_allclose(other.scores, one.scores, atol=1e-9)
    save_result(other)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["decouple"] == "layer"
