"""How a process of the command line ends: Ctrl-C, SIGTERM and SIGHUP, in the work, in an import, and while results are written."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mipnet.app.cli.endings import ENDING_SIGNALS, OwnProcess, finish_writing
from mipnet.app.cli.main import main
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs import bounds as bounds_run
from mipnet.app.runs import holdout_accuracy
from mipnet.app.runs.solve import run_importance

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The handlers of this process come back after the test, which leaves no function for its exit."""
    monkeypatch.setattr(atexit, "register", lambda function: function)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING_SIGNALS)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_that_ends_a_process_raises_like_ctrl_c(number: int, handlers: None) -> None:
    signal.signal(number, signal.SIG_DFL)
    OwnProcess()
    with pytest.raises(KeyboardInterrupt):
        send(number)


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_an_ignored_signal_stays_ignored(number: int, handlers: None) -> None:
    """As those of `nohup`, and those that a program which calls mipnet handles itself."""
    signal.signal(number, signal.SIG_IGN)
    OwnProcess()
    send(number)


def test_a_program_that_calls_the_command_line_keeps_its_handlers() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING_SIGNALS)}
    assert main(["backends", "--json"]) == 0
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING_SIGNALS])
def test_results_are_written_to_the_end(number: int, handlers: None) -> None:
    """The first signal waits for nothing and ends nothing; the second one ends the writing."""
    OwnProcess()
    assert signals_taken(number, 1) == 1
    assert signals_taken(number, 2) == 1
    with pytest.raises(KeyboardInterrupt):
        send(number)


def signals_taken(number: int, count: int) -> int:
    """How many of the signals do not end the writing."""
    taken = 0
    with suppress(KeyboardInterrupt), finish_writing():
        for _ in range(count):
            send(number)
            taken += 1
    return taken


def test_an_interrupt_outside_of_every_solve_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bounds_run, "read_network", interrupted)
    assert main(["bounds", str(EXAMPLES / "digits.yaml")]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING_SIGNALS])
def test_a_process_that_is_interrupted_in_an_import(number: signal.Signals, tmp_path: Path) -> None:
    """In the middle of code that `exec` runs, which CPython takes for the end of the whole process."""
    (tmp_path / "pydantic.py").write_text(f"exec('import os; os.kill(os.getpid(), {int(number)}); [0 for _ in range(9)]')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "mipnet", "solve", str(EXAMPLES / "digits.yaml")]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_an_interrupt_during_the_evaluation_keeps_the_scores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C while accuracies are measured: the solved program is written, and what is not measured in time is left out."""
    calls = []

    def interrupted(*given: object, **more: object) -> float:
        calls.append(given)
        if len(calls) == 2:
            send(signal.SIGINT)
        return plain(*given, **more)

    plain = holdout_accuracy.accuracy
    monkeypatch.setattr(holdout_accuracy, "accuracy", interrupted)
    monkeypatch.setattr(holdout_accuracy, "SECONDS_AFTER_INTERRUPT", 0.0)
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--output", str(tmp_path / "run"), "--quiet"]) == 130
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (record["status"], record["interrupted"], record["verified"]) == ("optimal", True, True)
    assert record["accuracy"]["reference"] is not None
    assert record["accuracy"] == {"reference": record["accuracy"]["reference"], "masked": None, "random": None, "critical": None}
    assert record["notes"] == ["the run was interrupted, so accuracies that take long were not measured"]
    assert (tmp_path / "run" / "scores.nc").is_file()


def test_an_interrupt_during_the_evaluation_of_a_point_ends_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*given: object, **more: object) -> float:
        calls.append(given)
        if len(calls) == 2:
            send(signal.SIGINT)
        return plain(*given, **more)

    calls, plain = list[object](), holdout_accuracy.accuracy
    monkeypatch.setattr(holdout_accuracy, "accuracy", interrupted)
    monkeypatch.chdir(tmp_path)
    run = run_importance(load_spec(EXAMPLES / "digits.yaml", ["formulation.relu=frozen", "solve.path={lambda: [0.5, 20], points: 4}"]))
    assert (run.interrupted, run.record["interrupted"], run.status) == (True, True, 130)
    assert len(run.path.points) == 2
    assert run.masks is not None
    assert run.scores is not None
    assert run.masks.sizes["weight"] == run.scores.sizes["weight"] == 2
