"""Two commands at once with one place to write: one has it, the other is refused by name; a killed one leaves nothing in the way."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mipnet.app.cli.main import main
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.folder import save_result
from mipnet.app.runs.solve import run_importance
from tests.app.endless import BEGINS
from tests.limits.test_output_lock import holder
from tests.verification.questions import asked, distance, hard, listed

EXAMPLES = Path(__file__).parents[2] / "examples"
INSTANCES = ["verify", "--instances", "bench/instances.csv", "--output", "out"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(*words: str, module: str = "mipnet") -> subprocess.Popen[str]:
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", module, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, start_new_session=True, env=os.environ | {"PYTHONPATH": path}, **pipes)


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    assert any(words in line for line in process.stderr), "the command ended"


def refused(process: subprocess.Popen[str], place: str, holder: int) -> None:
    """The process ends with status 1 and one line that names the process that holds the place."""
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(
        rf"error: (--output run: output: )?`{place}` is being written by process {holder} on \S+ since 20[-0-9: ]{{17}}; .*\n", err
    ), err


def questions() -> list[str]:
    with Path("out/results.csv").open() as stream:
        return [row["question"] for row in csv.DictReader(stream)]


def bench() -> None:
    """Two easy questions, a hard one, and an easy one."""
    Path("bench").mkdir()
    distance(Path("bench/net.onnx"))
    hard(Path("bench/hard.onnx"))
    asked(Path("bench/hard.vnnlib"), "(>= Y_0 60)", inputs=30, outputs=1, low=-1)
    for name, bound in (("far", 0.9), ("farther", 1.25), ("near", 0.5)):
        asked(Path(f"bench/{name}.vnnlib"), f"(>= Y_0 {bound})")


@pytest.mark.sweep
def test_two_runs_over_instances(capsys: Capture) -> None:
    """The second one is refused while the first one works; after a kill the next one goes on, and no question is asked twice."""
    bench()
    easy = [("net.onnx", f"{name}.vnnlib", 20.0) for name in ("far", "farther")]
    listed(Path("bench/instances.csv"), *easy, ("hard.onnx", "hard.vnnlib", 100.0), ("net.onnx", "near.vnnlib", 20.0))
    first = start(*INSTANCES)
    wait_for(first, "2 of 4")
    refused(start(*INSTANCES), "out/results.csv", first.pid)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=240)
    assert questions() == ["far.vnnlib", "farther.vnnlib"]
    listed(Path("bench/instances.csv"), *easy, ("net.onnx", "near.vnnlib", 20.0))
    assert main([*INSTANCES, "-q"]) == 0
    assert questions() == ["far.vnnlib", "farther.vnnlib", "near.vnnlib"]
    assert sorted(each.name for each in Path("out").iterdir()) == ["counterexamples", "results.csv"]


@pytest.mark.sweep
def test_two_runs_over_instances_that_start_at_once() -> None:
    """Whichever comes first: each question is asked once, and a run that does not finish is refused by name."""
    bench()
    listed(Path("bench/instances.csv"), *(("net.onnx", f"{name}.vnnlib", 20.0) for name in ("far", "farther", "near")))
    both = [start(*INSTANCES, "-q") for _ in range(2)]
    said = [process.communicate(timeout=240) for process in both]
    assert sorted(questions()) == ["far.vnnlib", "farther.vnnlib", "near.vnnlib"]
    assert 0 in [process.returncode for process in both]
    for process, other, (_, err) in zip(both, both[::-1], said, strict=True):
        assert (process.returncode, err) == (0, "") or (process.returncode == 1 and f"is being written by process {other.pid} on" in err)


@pytest.mark.sweep
def test_two_solves_into_one_run_folder() -> None:
    settings = [part for each in ("decouple=class", "workers=0", "time_limit=600") for part in ("--set", f"solve.{each}")]
    words = ["solve", str(EXAMPLES / "digits.yaml"), *settings, "--output", "run"]
    first = start("0", *words, module="tests.app.endless")
    wait_for(first, BEGINS)
    refused(start("solve", str(EXAMPLES / "digits.yaml"), "--output", "run"), "run", first.pid)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=240)
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--output", "run", "--quiet"]) == 0
    assert [each.name for each in Path().iterdir()] == ["run"]


COMMANDS = {
    "solve": (["solve", str(EXAMPLES / "digits.yaml"), "--output", "place"], "output"),
    "reach": (["reach", "reach.yaml", "--output", "place"], "output"),
    "verify": (["verify", str(EXAMPLES / "verify.yaml"), "--output", "place"], "output"),
    "results file": (["verify", "net.onnx", "far.vnnlib", "--results-file", "place"], ""),
    "results file of a file": (["verify", str(EXAMPLES / "verify.yaml"), "--set", "output=null", "--results-file", "place"], ""),
    "compress": (["compress", "compress.yaml", "--set", "save=place.onnx"], "save"),
    "bounds": (["bounds", str(EXAMPLES / "digits.yaml"), "--save", "place"], ""),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_place_that_is_written(command: str, capsys: Capture) -> None:
    distance(Path("net.onnx"))
    asked(Path("far.vnnlib"), "(>= Y_0 0.9)")
    words, key = COMMANDS[command]
    box = {"network": {"file": "net.onnx"}, "box": {"lower": 0, "upper": 1}}
    for task in ("reach", "compress"):
        Path(f"{task}.yaml").write_text(yaml.safe_dump({"mipnet": 1, "task": task, **box}))
    before = sorted(each.name for each in Path().iterdir())
    place = "place.onnx" if command == "compress" else "place"
    with holder(Path(place)) as process:
        assert main([*words, "-q"] if command != "bounds" else words) == 1
    said = capsys.readouterr().err.strip()
    assert f"`{place}` is being written by process {process.pid} on" in said
    assert key in said
    assert "\n" not in said
    assert sorted(each.name for each in Path().iterdir()) == before


@pytest.mark.parametrize("old", [False, True])
def test_what_a_killed_process_has_left_is_removed(old: bool) -> None:
    """Also if it had moved the old run folder away: that comes back first, and is replaced as a whole."""
    spec = load_spec(EXAMPLES / "digits.yaml", ["output=run", "formulation.relu=frozen"])
    run = run_importance(spec)
    save_result(run)
    shutil.copytree("run", ".run.0123abcd.new")
    if old:
        Path("run").rename(".run.0123abcd.old")
    foreign = [Path(".run.0123.new"), Path(".other.0123abcd.new"), Path(".run.0123abcd.new.bak")]
    for each in foreign:
        each.mkdir()
    save_result(run)
    assert sorted(each.name for each in Path().iterdir()) == sorted(["run", *(each.name for each in foreign)])
    assert json.loads(Path("run/result.json").read_text())["status"] == "optimal"


def test_an_old_run_folder_that_was_moved_away_comes_back() -> None:
    """If the next run fails, the last whole result is in its place again."""
    spec = load_spec(EXAMPLES / "digits.yaml", ["output=run", "formulation.relu=frozen"])
    save_result(run_importance(spec))
    before = Path("run/result.json").read_bytes()
    Path("run").rename(".run.0123abcd.old")
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--output", "run", "--set", "network.file=none.pt2"]) == 2
    assert Path("run/result.json").read_bytes() == before
    assert [each.name for each in Path().iterdir()] == ["run"]


def test_what_a_killed_process_has_left_of_a_file_is_removed() -> None:
    distance(Path("net.onnx"))
    asked(Path("far.vnnlib"), "(>= Y_0 0.9)")
    Path("out").mkdir()
    left = [Path(".answer-0123abcd.txt"), Path(".answer-0123abcd.probe"), Path("out/.results-0123abcd.csv")]
    foreign = [Path(".answer-0123.txt"), Path("answer-0123abcd.txt"), Path(".answer-0123abcd.csv")]
    for each in [*left, *foreign]:
        each.write_text("sa")
    assert main(["verify", "net.onnx", "far.vnnlib", "--results-file", "answer.txt", "-q"]) == 0
    listed(Path("instances.csv"), ("net.onnx", "far.vnnlib", 20.0))
    assert main(["verify", "--instances", "instances.csv", "--output", "out", "-q"]) == 0
    assert not any(each.exists() for each in left)
    assert all(each.exists() for each in foreign)
    assert Path("answer.txt").read_text().startswith("sat\n")
