"""`mipnet compare` from file to folder: the table, the curve, no second solve for stored scores, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import xarray as xr
import yaml

from mipnet.app import figures as plots
from mipnet.app.cli.main import main
from mipnet.app.files.base import load_as
from mipnet.app.files.compare_file import CompareFile
from mipnet.app.runs import compare as comparison
from mipnet.app.runs import solve as runs
from mipnet.app.runs.compare import run_comparison, save_comparison
from mipnet.app.tasks import TASKS_BY_NAME
from mipnet.backend import Status

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "compare.yaml"
SMALL = ("--set", "data.per_class=3", "--set", "compare.rivals=[random, fisher]", "--set", "compare.shares=[0.3, 0.5]")
COMPARE_FILES = TASKS_BY_NAME["compare"].folder
STORED = "mipnet: 1\ntask: compare\nscores: runs/digits\ncompare: {rivals: [magnitude], shares: [0.4]}\noutput: runs/compared\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_seconds(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in record["rows"]]


def test_the_example(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["compare", str(EXAMPLE)]) == 0
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 80
    for words in (
        "Accuracy on 359 held-out images, 97.77 % without masks",
        "fisher",
        "Rivals that mip equals or beats: 8 of 8 at 20 %",
        "written to runs/compare",
    ):
        assert words in said.out
    assert "comparing with" in said.err
    folder = elsewhere / "runs" / "compare"
    assert {path.name for path in folder.iterdir()} == set(COMPARE_FILES)
    assert "| **mip** | given | 5" in (folder / "table.md").read_text()
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    drawn = "".join(ElementTree.parse(folder / "curve.svg").getroot().itertext())
    for word in ("mip", "random", "without masks", "parameters pruned (%)"):
        assert word in drawn
    record = json.loads((folder / "result.json").read_text())
    assert record["run"]["verified"]
    assert record["beaten"]["0.5"]["random"]


@pytest.mark.sweep
def test_json_is_what_is_written_and_the_written_file_runs_again(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["compare", str(EXAMPLE), *SMALL, "--output", "out", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert json.loads((elsewhere / "out" / "result.json").read_text()) == said
    assert {row["rival"] for row in said["rows"]} == {"mip", "random", "fisher"}
    assert len(said["rows"]) == 2 * (1 + 2 * 2)
    again = run_comparison(load_as(CompareFile, elsewhere / "out" / "compare.yaml"))
    assert without_seconds(again.record) == without_seconds(said)
    save_comparison(again)
    assert yaml.safe_load((elsewhere / "out" / "compare.yaml").read_text())["output"] == str(elsewhere / "out")
    assert [path.name for path in elsewhere.iterdir()] == ["out"]


def test_stored_scores_are_not_solved_again(capsys: pytest.CaptureFixture[str], elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--quiet"]) == 0
    monkeypatch.setattr(comparison, "run_importance", lambda *given: pytest.fail("it is solved again"))
    (elsewhere / "compare.yaml").write_text(STORED)
    assert main(["compare", "compare.yaml", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    with (
        xr.open_dataset("runs/digits/scores.nc", engine="netcdf4") as one,
        xr.open_dataset("runs/compared/scores.nc", engine="netcdf4") as other,
    ):
        xr.testing.assert_identical(one.load(), other.load())
    record = json.loads(Path("runs/compared/result.json").read_text())
    assert record["run"]["objective"] == json.loads(Path("runs/digits/result.json").read_text())["objective"]
    written = yaml.safe_load(Path("runs/compared/compare.yaml").read_text())
    assert written["scores"] == str(elsewhere / "runs" / "digits")
    assert "network" not in written


def test_scores_of_a_wrong_point_are_told(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--quiet"]) == 0
    result = elsewhere / "runs" / "digits" / "result.json"
    record = json.loads(result.read_text())
    (elsewhere / "compare.yaml").write_text(STORED)
    for change, status in (({"status": "interrupted"}, 0), ({"verified": False}, 1)):
        result.write_text(json.dumps(record | change))
        assert main(["compare", "compare.yaml"]) == status
        assert ("did not survive its replay" in " ".join(capsys.readouterr().out.split())) == bool(status)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"x": None, "objective": None, "gap": float("inf"), "verified": False, "max_error": None}, 1, "no point was found"),
        ({"status": Status.INTERRUPTED, "interrupted": True}, 130, "the comparison was interrupted"),
    ],
)
def test_exit_status(
    change: dict[str, Any],
    status: int,
    words: str,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    solve = runs.solve
    monkeypatch.setattr(runs, "solve", lambda *given, **options: replace(solve(*given, **options), **change))
    assert main(["compare", str(EXAMPLE), *SMALL, "--output", "out"]) == status
    assert words in " ".join(capsys.readouterr().out.split())
    assert (elsewhere / "out").exists() == (status == 130)


def test_a_failure_while_writing_leaves_the_finished_parts_alone(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device", "curve.svg")

    monkeypatch.setattr(comparison, "save_curve", full)
    assert main(["compare", str(EXAMPLE), *SMALL, "--quiet"]) == 1
    assert capsys.readouterr().err == "error: `runs/compare`: no space left on device\n"
    assert [path.name for path in elsewhere.glob("runs/*")] == ["compare.parts"]  # for --resume


@pytest.mark.filterwarnings("always")
def test_without_matplotlib_there_is_no_curve_but_all_else(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert main(["compare", str(EXAMPLE), *SMALL, "--quiet"]) == 0
    assert capsys.readouterr().err == "warning: there is no curve: matplotlib is not installed: pip install mipnet[plots]\n"
    assert {path.name for path in (elsewhere / "runs" / "compare").iterdir()} == {name for name in COMPARE_FILES if "curve" not in name}


GOOD = EXAMPLE.read_text() if EXAMPLE.is_file() else ""
CASES: dict[str, tuple[str, str]] = {
    "a solve file": (
        GOOD.replace("task: compare", "task: importance"),
        "bad.yaml, line 4: task: got 'importance'; such a file is for `mipnet solve`",
    ),
    "no network": (
        GOOD.replace("network:", "model:"),
        "bad.yaml, line 7: model: unknown key; expected one of mipnet, task, scores, network, data",
    ),
    "neither": ("mipnet: 1\ntask: compare\n", "line 1: network: this key is missing; a comparison needs `network` and `data`, or"),
    "unknown key": (GOOD.replace("repeats: 5", "repeat: 5"), "line 24: compare.repeat: unknown key; did you mean `repeats`?"),
    "unknown key below": (GOOD.replace("per_class", "perclass"), "data.perclass: unknown key; did you mean `per_class`?"),
    "unknown rival": (
        GOOD.replace("fisher", "fishers"),
        "line 22: compare.rivals: got ['random', ",
    ),
    "misspelt rival": (GOOD.replace("fisher", "fishers"), "; no rival is called `fishers`; expected one of random, magnitude"),
    "no rival": (GOOD.replace("[random,", "[] # [random"), "compare.rivals: got []; expected `all` or a list of random, magnitude"),
    "a share of one": (GOOD.replace("0.6]", "1]"), "line 23: compare.shares.4: got 1; expected a share between 0 and 1"),
    "no shares": (GOOD.replace("[0.2, 0.3, 0.4, 0.5, 0.6]", "0.5"), "compare.shares: got 0.5; expected a list of shares"),
    "a share out of reach": (
        GOOD.replace("0.6]", "0.999]"),
        "line 23: compare.shares: a share of 0.999 cannot be pruned: with one unit per layer",
    ),
    "normalize": (GOOD.replace("repeats: 5", "normalize: median"), "compare.normalize: got 'median'; expected `none`, `mean`"),
    "no repeats": (GOOD.replace("repeats: 5", "repeats: 0"), "compare.repeats: got 0; expected a whole number of at least 1"),
    "nothing held out": (GOOD.replace("holdout: test", "holdout: none"), "data.holdout: got none; expected `train` or `test`: masks are"),
    "scores and network": (GOOD.replace("network:", "scores: runs/x\nnetwork:"), "line 8: network: `scores` brings this section"),
    "no run folder": (STORED, "bad.yaml, line 3: scores: `runs/digits` has no `model.yaml`; expected a run folder"),
    "two alike": (GOOD.replace("[random, magnitude", "[random, random"), "random is in it twice; expected each once"),
    "output": (GOOD.replace("output: runs/compare", "output: digits.safetensors"), "output: `digits.safetensors` is a file"),
    "weights": (GOOD.replace("digits.safetensors #", "none.safetensors #"), "network.file: no file"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_in_one_line(
    name: str, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "run_importance", lambda *given: pytest.fail("it is solved before it is refused"))
    shutil.copy(EXAMPLES / "digits.safetensors", elsewhere)
    content, phrase = CASES[name]
    Path("bad.yaml").write_text(content)
    before = sorted(elsewhere.rglob("*"))
    assert main(["compare", "bad.yaml"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1, said.err
    assert phrase in said.err
    assert sorted(elsewhere.rglob("*")) == before


def test_a_broken_run_folder_is_told(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--quiet"]) == 0
    (elsewhere / "compare.yaml").write_text(STORED)
    folder = elsewhere / "runs" / "digits"
    good = {name: (folder / name).read_bytes() for name in ("scores.nc", "result.json", "model.yaml")}
    for name, broken, phrase in (
        ("scores.nc", b"no netcdf", "cannot be read"),
        ("result.json", b"{", "cannot be read"),
        ("result.json", b"{}", "cannot be read"),
        ("model.yaml", b"mipnet: 1\n", "model.yaml, line 1"),
        ("scores.nc", None, "has no `scores.nc`"),
    ):
        if broken is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(broken)
        assert main(["compare", "compare.yaml"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert phrase in said
        (folder / name).write_bytes(good[name])
    assert main(["compare", "compare.yaml", "--quiet"]) == 0


def test_a_compare_file_is_not_for_solve(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(EXAMPLE)]) == 2
    assert "such a file is for `mipnet compare`" in capsys.readouterr().err


def test_the_schema_is_that_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--compare"]) == 0
    assert {"scores", "compare", "network"} <= set(json.loads(capsys.readouterr().out)["properties"])


def test_a_solve_folder_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--quiet"]) == 0
    assert main(["compare", str(EXAMPLE), *SMALL, "--output", "runs/digits"]) == 2
    assert "is no run folder" in capsys.readouterr().err
