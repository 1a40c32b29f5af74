"""The command line: what it prints and where, how it ends, and that it answers at once."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import mipnet
import mipnet.backend
from mipnet.app.cli.main import main
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs import solve as runs
from mipnet.app.screen import progress as progress_module
from mipnet.app.screen.progress import LineProgress, ProgramsProgress
from mipnet.app.tasks import TASKS_BY_NAME
from mipnet.backend import Event, FoundBackend, Status
from tests.clock import TickingClock
from tests.sweep import marked

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = str(EXAMPLES / "digits.yaml")
HEAVY = {"torch", "numpy", "linopy", "xarray", "pydantic", "rich", "yaml", "highspy", "pyscipopt", "sklearn"}
KEYS = (
    "status objective bound gap runtime_s build_s verified max_error backend version size nodes rounds cuts rewritten layers "
    "params_pruned_percent parameters accuracy notes"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_loads_next_to_nothing() -> None:
    code = "import sys\nfrom mipnet.app.cli.main import main\nmain(['--help'])\n"
    code += "print('LOADED', *sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=240, check=True)
    said, _, loaded = done.stdout.partition("LOADED")
    assert not set(loaded.split()) & HEAVY
    for command in ("solve", "inspect", "backends", "init", "schema"):
        assert command in said


def test_no_line_of_the_help_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage")]
    assert all(0 < len(task.summary) <= 55 for task in TASKS_BY_NAME.values())


def test_an_unknown_command_may_be_a_task_that_is_not_imported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "x.yaml"]) == 2
    assert "'count'" in (said := capsys.readouterr().err)
    assert "one of your own must be imported in this process" in said


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mipnet {mipnet.__version__}\n"
    assert main(["solve", "--help"]) == 0
    assert "--time-limit" in capsys.readouterr().out
    assert main([]) == 0
    assert "Usage: mipnet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "solver"), [("digits", "scip"), ("digits_cnn", "highs"), marked(("digits", "highs")), marked(("digits_cnn", "scip"))]
)
def test_json_is_one_object_on_standard_output(name: str, solver: str, capfd: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    """The streams are those of the process, so that what a solver prints by itself is seen too."""
    words = ["--backend", solver, "--json", "--output", "out", "--set", "solve.time_limit=null"]
    assert main(["solve", str(EXAMPLES / f"{name}.yaml"), *words]) == 0
    out, err = capfd.readouterr()
    data = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert set(KEYS.split()) <= set(data)
    assert (data["verified"], data["backend"], data["status"]) == (True, solver, "optimal")
    assert set(data["accuracy"]) == {"reference", "masked", "random", "critical"}
    assert all(set(layer) == {"kept", "total"} for layer in data["layers"].values())
    assert json.loads((elsewhere / "out" / "result.json").read_text()) == data
    assert "warning" not in err
    assert "incumbent" in err


SOLVE_HERE = ["solve", str(EXAMPLES / "digits_cnn.yaml"), "--set", "output=null"]


@pytest.mark.sweep
@pytest.mark.parametrize("words", [["backends"], *([*SOLVE_HERE, "--backend", name] for name in ("highs", "cbc"))])
def test_a_process_prints_json_alone(words: list[str]) -> None:
    """In a process of its own: a solver may print its name once per process."""
    done = subprocess.run(
        [sys.executable, "-m", "mipnet", *words, "--json"], cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0
    json.loads(done.stdout)


def test_tables_fit_eighty_columns(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["solve", DIGITS, "--output", "a long name of a folder/run"]) == 0
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 80
    for words in ("status", "optimal", "verified", "fc1", "4,480", "Accuracy on 359 held-out images", "written to a long name"):
        assert words in said.out
    assert "\x1b" not in said.out + said.err
    assert (elsewhere / "a long name of a folder" / "run" / "scores.nc").is_file()


def test_a_decoupled_run_fits_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", DIGITS, "--set", "solve.decouple=class", "--workers", "0", "--output", "run"]) == 0
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 80
    for words in ("10 in 10 programs", "Programs, one per class", "verified"):
        assert words in said.out
    assert "10 programs, one per class" in said.err
    assert "(10 of 10)" in said.err


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["solve", DIGITS, "--quiet", "--output", "run", "--time-limit", "30", "--set", "objective.weight=1"]) == 0
    assert capsys.readouterr() == ("", "")
    assert json.loads((elsewhere / "run" / "result.json").read_text())["params_pruned_percent"] > 0


def test_no_run_folder_unless_asked_for(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["solve", DIGITS, "--set", "output=null"]) == 0
    assert "written to" not in capsys.readouterr().out
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"verified": False, "max_error": 0.5}, 1, "does not survive its replay"),
        ({"x": None, "objective": None, "gap": float("inf"), "verified": False, "max_error": None}, 1, "no point was found"),
        ({"status": Status.INTERRUPTED, "interrupted": True}, 130, "interrupted"),
        ({"status": Status.TIME_LIMIT, "gap": 0.4}, 0, "time limit"),
    ],
)
def test_exit_status(
    change: dict[str, Any], status: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solve = runs.solve
    monkeypatch.setattr(runs, "solve", lambda *given, **options: replace(solve(*given, **options), **change))
    assert main(["solve", DIGITS]) == status
    said = capsys.readouterr()
    assert words in " ".join(said.out.split())
    assert main(["solve", DIGITS, "--json"]) == status
    json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("number", [signal.SIGINT, marked(signal.SIGTERM)])
def test_ctrl_c_shows_the_best_point(number: signal.Signals, elsewhere: Path) -> None:
    sets = ("--set", "formulation.bounds=sound", "--set", "data.per_class=2")
    command = [sys.executable, "-m", "mipnet", "solve", DIGITS, *sets, "--output", "run", "--time-limit", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "incumbent" in line
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in out
    assert "Accuracy on" in out
    assert json.loads((elsewhere / "run" / "result.json").read_text())["status"] == "interrupted"


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warn_and_build(*given: Any) -> Any:
        warnings.simplefilter("always")
        warnings.warn("two\nlines", RuntimeWarning, stacklevel=1)
        return build_program(*given)

    build_program = runs.build_program
    monkeypatch.setattr(runs, "build_program", warn_and_build)
    assert main(["solve", DIGITS, "--quiet"]) == 0
    assert capsys.readouterr().err == "warning: two lines\n"


@pytest.mark.sweep
def test_a_closed_pipe_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "mipnet", "schema"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=240, check=False
    )
    os.close(writer)
    assert "Traceback" not in done.stderr


def test_backends_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["backends"]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    assert "highs 1." in table
    assert "scip 10" in table
    assert main(["backends", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["backends"]}
    assert listed["scip"]["available"]
    assert "log-sum-exp" in listed["scip"]["features"]
    monkeypatch.setattr(mipnet.backend, "backends", lambda: [FoundBackend("mine", None, "cannot be loaded: no licence")])
    assert main(["backends"]) == 0
    assert capsys.readouterr().out == "mine: cannot be loaded: no licence\n"
    assert main(["backends", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backends"][0]["problem"] == "cannot be loaded: no licence"


def test_inspect_a_yaml_file(capsys: pytest.CaptureFixture[str]) -> None:
    cnn = str(EXAMPLES / "digits_cnn.yaml")
    assert main(["inspect", cnn]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    for words in ("1 x 8 x 8", "MaxPool2d", "1,226 parameters", "Gates", "Program"):
        assert words in table
    assert main(["inspect", cnn, "--json", "--set", "formulation.bounds=sound"]) == 0
    sound = json.loads(capsys.readouterr().out)["program"]
    assert sound["bounds"] == "sound"
    assert sum(sound["unstable"].values()) > 0
    assert sound["size"]["integers"] > 0


def test_inspect_ends_with_the_time(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    TickingClock(monkeypatch)
    assert main(["inspect", DIGITS, "--json", "--time-limit", "40"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "program" not in found
    assert [gate["name"] for gate in found["gates"]] == ["fc1", "fc2"]
    assert found["notes"][-1].startswith("the program is not shown: the time limit ended before mipnet could ")
    assert main(["inspect", DIGITS, "--time-limit", "1"]) == 1
    assert "the time limit ended before mipnet could read `" in capsys.readouterr().err
    assert main(["inspect", DIGITS, "--time-limit", "-1"]) == 2
    assert "expected a positive number of seconds" in capsys.readouterr().err


def test_inspect_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(2, 3),)), "net.pt2")
    assert main(["inspect", "net.pt2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [gate["units"] for gate in data["gates"]] == [4]
    assert main(["inspect", "net.pt2"]) == 0
    assert "Program" not in capsys.readouterr().out


def test_init_writes_a_file_that_runs(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["init"]) == 0
    assert "mipnet solve model.yaml" in capsys.readouterr().out
    assert main(["init", "--force"]) == 0
    shutil.copy(EXAMPLES / "digits.safetensors", elsewhere)
    assert main(["solve", "model.yaml"]) == 0
    assert (elsewhere / "runs" / "model" / "result.json").is_file()
    assert main(["solve", "model.yaml"]) == 0


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["solve"]


@pytest.mark.sweep
@pytest.mark.parametrize("terminal", [False, True])
def test_the_state_of_every_program_is_shown(terminal: bool) -> None:
    sets = ("solve.decouple=class", "solve.workers=0", "output=null", "formulation.relu=frozen")
    parts = {part.label: part for part in runs.run_importance(load_spec(DIGITS, sets)).decoupled.solved}
    keys = list(parts)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, highlight=False)
    with ProgramsProgress(console, "class") as progress:
        assert "reading network and images" in str(progress.view())
        progress.programs_begin(keys, {keys[0]: parts[keys[0]]}, 2)
        assert [progress.state(key) for key in keys] == ["resumed", "running", "running", *["waiting"] * 7]
        progress.program_done(keys[2], parts[keys[2]])
        assert [progress.state(key) for key in keys] == ["resumed", "running", "done", "running", *["waiting"] * 6]
        with console.capture() as shown:
            console.print(progress.view())
        assert max(map(len, shown.get().splitlines())) <= 80 or terminal
        assert "2 of 10 done, 2 optimal" in shown.get()
        progress.programs_begin(keys, {}, None)
        assert {progress.state(key) for key in keys} == {"at the scheduler"}


def test_progress_is_a_line_a_second_without_a_terminal_and_live_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty events, an eighth of a second apart by a clock of the test's own: every eighth one is printed."""
    now = 128.0
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=lambda: now))
    events = [Event("incumbent", k / 8, -1.0, -1.5 + 0.01 * k, k, f"round {k}: {k} cuts") for k in range(20)]
    for terminal in (False, True):
        out = io.StringIO()
        with LineProgress(Console(file=out, force_terminal=terminal, width=80, highlight=False)) as progress:
            for k, event in enumerate(events):
                now = 128.0 + k / 8
                progress.solver_event(event)
            progress.solver_event(Event("log", 3.0, text="noise"))
            line = progress.view().plain
        assert "incumbent -1  bound -1.31  gap 31 %  19 nodes  round 19: 19 cuts" in line
        assert "noise" not in out.getvalue()
        if not terminal:
            lines = out.getvalue().splitlines()
            assert [line.partition("round ")[2] for line in lines] == ["0: 0 cuts", "8: 8 cuts", "16: 16 cuts"]


def test_inspect_lists_the_operators_on_request(capsys):
    assert main(["inspect", "--operators"]) == 0
    out = capsys.readouterr().out
    assert "conv_transpose" in out
    assert "ConvTranspose" in out
    assert main(["inspect", "--operators", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["operators"]
    assert {"about", "torch", "onnx", "layers", "exact"} == set(rows[0])
    assert main(["inspect"]) == 2
    assert "expected a YAML file or an exported network, or --operators" in capsys.readouterr().err
