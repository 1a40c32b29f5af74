"""The table of tasks: every row fits its file class, and a task from outside needs one file class, one run function and one row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.files.base import NetworkFile, SpecFile
from mipnet.app.files.sections import BoxSpec
from mipnet.app.files.values import Section, Whole
from mipnet.app.runs.inputs import read_box, read_network
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import TaskResult, task_record
from mipnet.app.tasks import TASKS_BY_NAME, Task, find_task, register_task
from mipnet.errors import InputError
from mipnet.limits.memory import current_limit

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", TASKS_BY_NAME)
def test_a_row_fits_its_file_class(name: str) -> None:
    task = find_task(name)
    kind = task.file_class()
    assert find_task(task.command) is task
    assert issubclass(kind, SpecFile)
    assert get_args(kind.model_fields["task"].annotation) == (name,)
    assert callable(task.run_function())
    assert callable(task.save_function())
    assert {"result.json", task.folder[0]} <= set(task.folder)
    assert task.folder[0].endswith(".yaml")


# a task from outside: how often does the output change its sign along the diagonal of a box?


class SegmentSpec(Section):
    """How the segment is sampled."""

    points: Whole = 101
    scale: float = 1.0


class CrossingsFile(NetworkFile):
    """A YAML file for `mipnet crossings`: a network, a box, and how its diagonal is sampled."""

    task: Literal["crossings"]
    box: BoxSpec
    segment: SegmentSpec = SegmentSpec()
    allowed: Whole | None = None


def run_crossings(file: CrossingsFile, listener: RunListener) -> TaskResult:
    """Count the sign changes of the output along the diagonal of the box."""
    network = read_network(file)
    region = read_box(file, file.box, network)
    listener.activity("walking along the diagonal")
    t = np.linspace(0, file.segment.scale, file.segment.points).reshape(-1, *(1,) * len(network.input_shape))
    values = network.forward(region.lower + t * (region.upper - region.lower))[:, 0]
    crossings = int((np.diff(np.sign(values)) != 0).sum())
    success = file.allowed is None or crossings <= file.allowed
    return TaskResult(file, task_record(file, {"crossings": crossings}), [f"{crossings} sign changes [on the diagonal]"], success)


@pytest.fixture
def crossings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The path of a file of the task, which is registered until the test ends: |x0 + x1 - 1| - 0.5 has two zeros on the diagonal."""
    monkeypatch.chdir(tmp_path)
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    values = ([[1.0, 1.0], [-1.0, -1.0]], [-1.0, 1.0], [[1.0, 1.0]], [-0.5])
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(torch.as_tensor(value))
    mn.export(module, tmp_path / "net.pt2", torch.zeros(1, 2, dtype=torch.float64))
    path = tmp_path / "crossings.yaml"
    path.write_text("mipnet: 1\ntask: crossings\nnetwork: {file: net.pt2}\nbox: {lower: 0, upper: 1}\nsegment: {points: 1000}\n")
    task = Task("crossings", CrossingsFile, run_crossings, help="Count sign changes along a diagonal.", success="not more than allowed")
    register_task(task)
    yield path
    del TASKS_BY_NAME["crossings"]


def test_a_task_from_outside_is_a_command(crossings: Path, capsys: Capture) -> None:
    assert main(["crossings", str(crossings)]) == 0
    said = capsys.readouterr()
    assert said.out == "2 sign changes [on the diagonal]\n"
    assert "walking along the diagonal" in said.err
    assert main(["--help"]) == 0
    assert "Count sign changes" in capsys.readouterr().out
    assert main(["crossings", "--help"]) == 0
    assert "Exit status: 0 not more than allowed, 1 otherwise" in " ".join(capsys.readouterr().out.split())


def test_its_options_and_its_record(crossings: Path, capsys: Capture) -> None:
    assert main(["crossings", str(crossings), "--json", "--set", "segment.scale=0.5", "--set", "allowed=0"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record == {"mipnet": mn.__version__, "task": "crossings", "network": str(crossings.parent / "net.pt2"), "crossings": 1}
    assert main(["crossings", str(crossings), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_its_run_folder(crossings: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["crossings", str(crossings), "--output", "run"]) == 0
    assert capsys.readouterr().out.endswith("written to run\n")
    folder = crossings.parent / "run"
    assert {path.name for path in folder.iterdir()} == {"crossings.yaml", "result.json"}
    assert json.loads((folder / "result.json").read_text())["crossings"] == 2
    written = yaml.safe_load((folder / "crossings.yaml").read_text())
    assert written["segment"] == {"points": 1000, "scale": 1.0}
    assert list(written)[-1] == "output"
    (crossings.parent / "elsewhere").mkdir()
    monkeypatch.chdir(crossings.parent / "elsewhere")
    assert main(["crossings", str(folder / "crossings.yaml"), "--quiet"]) == 0
    (folder / "notes.txt").write_text("mine")
    assert main(["crossings", str(crossings), "--output", str(folder)]) == 2
    assert "holds `notes.txt` and is no run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("segment.pionts=3", "segment.pionts: unknown key; did you mean `points`?"),
        ("segment.colour=3", "segment.colour: unknown key; expected one of points, scale"),
        ("segment.points=-1", "segment.points: got -1; expected a whole number of at least 0"),
        ("segment.scale=wide", "segment.scale: got 'wide'; expected a valid number"),
        ("segment=3", "segment: got 3; expected a mapping with points, scale"),
        ("box.lower=[0]", "box.lower: got 1 numbers; the network has 2 inputs"),
        ("task=reach", "task: got 'reach'; such a file is for `mipnet reach`"),
        ("task=crossing", "task: got 'crossing'; expected `crossings`; did you mean `crossings`?"),
    ],
)
def test_its_errors_are_one_line(given: str, message: str, crossings: Path, capsys: Capture) -> None:
    assert main(["crossings", str(crossings), "--set", given]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: --set {given}: {message}")
    assert said.err.count("\n") == 1


def test_its_file_is_for_its_command(crossings: Path, capsys: Capture) -> None:
    for command in ("solve", "verify", "compare", "margin"):
        assert main([command, str(crossings)]) == 2
        assert "task: got 'crossings'; such a file is for `mipnet crossings`" in capsys.readouterr().err


def test_its_schema(crossings: Path, capsys: Capture) -> None:
    assert main(["schema", "crossings"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == {"mipnet", "task", "network", "box", "segment", "allowed", "output"}
    assert schema["properties"]["task"]["const"] == "crossings"


def test_a_name_is_taken_once(crossings: Path) -> None:
    for name, command in (("crossings", ""), ("another", "reach"), ("solve", "another"), ("another", "inspect")):
        with pytest.raises(InputError, match=f"there is a task or a command `{command or name}` already|`solve` already"):
            register_task(Task(name, CrossingsFile, run_crossings, help="", success="", command=command))


class PlainFile(NetworkFile):
    """A file class that does not say of which task it is."""


class TimedSolveSpec(Section):
    """A section ``solve`` with one of the two keys that options set."""

    time_limit: float = 1.0


class TimedFile(NetworkFile):
    """A file with a time limit and without a solver."""

    task: Literal["timed"]
    solve: TimedSolveSpec = TimedSolveSpec()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (CrossingsFile, "the file class `CrossingsFile` does not fit task `another`: `task` is 'crossings'; declare `task: Literal"),
        (PlainFile, "the file class `PlainFile` does not fit task `another`: `task` is not declared"),
        (dict, "the file class of task `another` is `dict`; expected a subclass of"),
    ],
)
def test_a_file_class_takes_the_name_of_its_task(kind: type, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register_task(Task("another", kind, run_crossings, help="", success=""))
    assert "another" not in TASKS_BY_NAME


def test_options_only_for_keys_of_the_file(crossings: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(TASKS_BY_NAME, "timed", Task("timed", TimedFile, run_crossings, help="Timed.", success="always"))
    for command, offered in (("crossings", ()), ("timed", ("--time-limit",)), ("reach", ("--time-limit", "--backend"))):
        assert main([command, "--help"]) == 0
        said = capsys.readouterr().out
        assert tuple(option for option in ("--time-limit", "--backend") if option in said) == offered
        assert "--output" in said
    assert main(["crossings", str(crossings), "--backend", "scip"]) == 2
    assert "No such option: --backend" in capsys.readouterr().err


def test_a_run_has_the_memory_limit_of_its_file(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("mipnet: 1\ntask: reach\nnetwork: {file: net.onnx}\nbox: {lower: 0, upper: 1}\nsolve: {memory_limit: 3 GB}\n")
    before = TASKS_BY_NAME["reach"]
    seen: list[float] = []

    def run(file: Any, listener: Any) -> TaskResult:
        seen.append(current_limit())
        return TaskResult(file, {}, ["done"])

    TASKS_BY_NAME["reach"] = replace(before, run=run)
    try:
        for options in ([], ["--memory-limit", "2 GiB"], ["--set", "solve.memory_limit=5000000"], ["--set", "solve.memory_limit=null"]):
            assert main(["reach", str(path), "--quiet", *options]) == 0
        assert seen == [3e9, 2 * 2**30, 5e6, math.inf]
        assert current_limit() == math.inf
        capsys.readouterr()
        assert main(["reach", str(path), "--memory-limit", "4 gigs"]) == 2
        said = "error: --memory-limit 4 gigs: solve.memory_limit: got '4 gigs'; expected a number of bytes, or a size such as "
        assert capsys.readouterr().err.startswith(said)
    finally:
        TASKS_BY_NAME["reach"] = before


def test_memory_that_ends_is_one_line_and_a_failure_of_the_machine(crossings: Path, capsys: Capture) -> None:
    _run_instead(lambda file, listener: np.empty(2**56))
    assert main(["crossings", str(crossings), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: memory ended in mipnet.app.tasks.run (Unable to allocate ")
    assert error.endswith("; try fewer images or a smaller network, or set --memory-limit\n")


def test_numpy_numbers_in_a_record(crossings: Path, capsys: Capture) -> None:
    record = {"count": np.int64(2), "all": np.bool_(True), "x": np.array([1.0, np.inf]), "y": {"z": np.float32(0.5)}}
    _run_instead(lambda file, listener: TaskResult(file, record, ["done"]))
    assert main(["crossings", str(crossings), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"count": 2, "all": True, "x": [1.0, None], "y": {"z": 0.5}}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda file, listener: None, "the run function of task `crossings` returned None; expected a result"),
        (lambda file, listener: {"count": 1}, "the run function of task `crossings` returned a `dict`; expected a result"),
        (
            lambda file, listener: TaskResult(file, {}, "done"),
            "the result of task `crossings` has lines='done'; expected a list of str",
        ),
        (lambda file, listener: TaskResult(file, {}, [1]), "the result of task `crossings` has lines=[1]; expected a list of strings"),
        (lambda file, listener: TaskResult(file, [], []), "the result of task `crossings` has record=[]; expected a dict"),
        (lambda file, listener: TaskResult(file, {"a": {1}}, []), "the record of task `crossings` is not JSON data: Object of type set"),
    ],
)
def test_wrong_results_are_one_line(run: Callable[..., Any], message: str, crossings: Path, capsys: Capture) -> None:
    _run_instead(run)
    assert main(["crossings", str(crossings), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def _run_instead(run: Callable[..., Any]) -> None:
    """Replace the run function of the task until the fixture `crossings` removes the task."""
    TASKS_BY_NAME["crossings"] = replace(TASKS_BY_NAME["crossings"], run=run)


# schemas


@pytest.mark.parametrize(("words", "same"), [(["--compare"], "compare"), (["--verify"], "verify"), (["--reach"], "reach"), ([], "solve")])
def test_flags_and_names_give_the_same_schema(words: list[str], same: str, capsys: Capture) -> None:
    assert main(["schema", *words]) == 0
    by_flag = capsys.readouterr().out
    assert main(["schema", same]) == 0
    assert capsys.readouterr().out == by_flag


def test_a_schema_of_no_task(capsys: Capture) -> None:
    for words, message in (
        (["reech"], "there is no task `reech`; did you mean `reach`?"),
        (["dance"], "there is no task `dance`; expected one of solve, verify, compare, reach"),
        (["dance"], "one of your own must be imported in this process"),
        (["agree", "--reach"], "got `agree` and `reach`; expected one task"),
    ):
        assert main(["schema", *words]) == 2
        assert message in capsys.readouterr().err


def test_an_unknown_rival_may_be_one_that_is_not_imported(tmp_path: Path, capsys: Capture) -> None:
    (path := tmp_path / "compare.yaml").write_text("mipnet: 1\ntask: compare\nscores: run\ncompare: {rivals: [mine]}\n")
    assert main(["compare", str(path)]) == 2
    said = capsys.readouterr().err
    assert "no rival is called `mine`; expected one of random" in said
    assert said.endswith("; one of your own must be imported in this process\n")
