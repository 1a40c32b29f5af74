"""`mipnet verify --instances`: one line an answer, which survives a kill; broken questions; the table at the end."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mipnet.app.cli.main import main
from mipnet.app.runs import results_table as table
from mipnet.app.runs import vnncomp_instances
from mipnet.app.runs.vnncomp_instances import Instance, VerifySettings
from tests.programs import run_pickled
from tests.sweep import marked
from tests.verification.questions import asked, distance, hard, listed, outputs_of, point_of

Capture = pytest.CaptureFixture[str]
RUN = ["verify", "--instances", "bench/instances.csv", "--output", "out"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder with four questions: sat, a missing file, unsat, and a property of another network."""
    monkeypatch.chdir(tmp_path)
    Path("bench").mkdir()
    distance(Path("bench/net.onnx"))
    asked(Path("bench/far.vnnlib"), "(>= Y_0 0.9)")
    asked(Path("bench/farther.vnnlib"), "(>= Y_0 1.25)")
    asked(Path("bench/wide.vnnlib"), "(>= Y_0 0.9)", inputs=3)
    names = ("far", "none", "farther", "wide")
    listed(Path("bench/instances.csv"), *(("net.onnx", f"{name}.vnnlib", 20.0) for name in names))
    return tmp_path


def rows() -> list[dict[str, str]]:
    with Path("out/results.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_one_line_an_instance_and_a_table(capsys: Capture) -> None:
    assert main(RUN) == 1
    assert [row["verdict"] for row in rows()] == ["sat", "error", "unsat", "error"]
    sat, missing, unsat, wide = rows()
    assert "none.vnnlib" in missing["note"]
    assert "3 inputs" in wide["note"]
    assert 0 < float(unsat["bound"]) <= 0.25
    assert unsat["refuted"].endswith(":1")
    x, y = point_of((Path("out") / sat["point"]).read_text())
    assert (outputs_of(Path("bench/net.onnx"), x) == y).all()
    assert y[0] >= 0.9
    assert len(list(Path("out/counterexamples").iterdir())) == 1
    said = capsys.readouterr()
    assert "bench: 2 of 4 instances decided, 2 error" in said.out
    assert "4 of 4" in said.err
    assert max(map(len, said.out.splitlines())) <= 80


def test_what_is_done_is_not_asked_again(capsys: Capture) -> None:
    main([*RUN, "-q"])
    before, at = Path("out/results.csv").read_bytes(), Path("out/results.csv").stat().st_mtime_ns
    assert main([*RUN, "--json"]) == 1
    assert (Path("out/results.csv").read_bytes(), Path("out/results.csv").stat().st_mtime_ns) == (before, at)
    said = capsys.readouterr()
    assert "4 instances of 4 done before" in said.err
    found = json.loads(said.out)
    assert found["summary"]["bench"]["unsat"] == 1
    assert [answer["verdict"] for answer in found["answers"]] == ["sat", "error", "unsat", "error"]
    assert found["answers"][1]["bound"] is None


def test_a_question_that_changed_is_asked_again(capsys: Capture) -> None:
    main([*RUN, "-q"])
    asked(Path("bench/farther.vnnlib"), "(>= Y_0 0.5)")
    main(RUN)
    assert "3 instances of 4 done before" in capsys.readouterr().err
    assert [row["verdict"] for row in rows()] == ["sat", "error", "unsat", "error", "sat"]
    main([*RUN, "-q", "--timeout", "9"])
    assert len(rows()) == 9
    assert {row["timeout"] for row in rows()[5:]} == {"9"}


def test_a_line_that_was_cut_off_is_taken_away() -> None:
    main([*RUN, "-q"])
    path = Path("out/results.csv")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:17])
    main([*RUN, "-q"])
    assert path.read_bytes().splitlines()[:-1] == whole.splitlines()[:-1]
    assert [row["verdict"] for row in rows()] == ["sat", "error", "unsat", "error"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, marked(signal.SIGINT)])
def test_it_goes_on_after_a_kill(how: signal.Signals) -> None:
    hard(Path("bench/hard.onnx"))
    asked(Path("bench/hard.vnnlib"), "(>= Y_0 60)", inputs=30, outputs=1, low=-1)
    first = (("net.onnx", "far.vnnlib", 20.0), ("net.onnx", "none.vnnlib", 20.0))
    listed(Path("bench/instances.csv"), *first, ("hard.onnx", "hard.vnnlib", 100.0), ("net.onnx", "farther.vnnlib", 20.0))
    words = [sys.executable, "-m", "mipnet", *RUN]
    command = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert command.stderr is not None
    assert any("2 of 4" in line for line in command.stderr)
    before = Path("out/results.csv").read_bytes()
    os.kill(command.pid, how)
    err = command.communicate(timeout=240)[1]
    assert command.returncode == (130 if how is signal.SIGINT else -how), err
    assert "Traceback" not in err
    assert how is signal.SIGKILL or "error: interrupted; the results so far are kept in `out`" in err
    assert Path("out/results.csv").read_bytes() == before
    assert [row["verdict"] for row in rows()] == ["sat", "error"]
    listed(Path("bench/instances.csv"), *first, ("net.onnx", "farther.vnnlib", 20.0))
    assert main([*RUN, "-q"]) == 1
    assert Path("out/results.csv").read_bytes().startswith(before)
    assert [row["verdict"] for row in rows()] == ["sat", "error", "unsat"]


KILLED_AFTER_LINES = """
import os, signal, sys
from mipnet.app.cli.main import run_and_exit
from mipnet.app.runs import results_table
plain, lines = results_table.append, int(sys.argv.pop(1))
def append(*given):
    global lines
    plain(*given)
    lines -= 1
    if not lines:
        os.kill(os.getpid(), signal.SIGKILL)
results_table.append = append
run_and_exit()
"""


def untimed() -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in rows()]


@pytest.mark.sweep
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("after", [1, 2, 3])
def test_every_number_is_that_of_a_run_that_was_not_killed(after: int) -> None:
    main([*RUN, "-q"])
    os.rename("out", "whole")
    words = [sys.executable, "-c", KILLED_AFTER_LINES, str(after), *RUN, "-q"]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert len(rows()) == after
    main([*RUN, "-q"])
    found = untimed()
    os.rename("out", "resumed")
    os.rename("whole", "out")
    assert found == untimed()
    for path in Path("out/counterexamples").iterdir():
        assert (Path("resumed/counterexamples") / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("real", [False, marked(True)], ids=["pickled", "processes"])
def test_side_by_side(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two processes, or in this one with questions that were pickled as for another one."""
    pytest.importorskip("distributed")
    if not real:
        monkeypatch.setattr(vnncomp_instances, "run_all", run_pickled)
    assert main([*RUN, "--workers", "2"]) == 1
    found = {row["question"]: row["verdict"] for row in rows()}
    assert found == {"far.vnnlib": "sat", "none.vnnlib": "error", "farther.vnnlib": "unsat", "wide.vnnlib": "error"}


def test_compressed_files_are_found() -> None:
    for name, suffix, pack in (
        ("net.onnx", ".gz", gzip.compress),
        ("far.vnnlib", ".xz", lzma.compress),
        ("farther.vnnlib", ".bz2", bz2.compress),
    ):
        path = Path("bench") / name
        Path(f"{path}{suffix}").write_bytes(pack(path.read_bytes()))
        path.unlink()
    main([*RUN, "-q"])
    assert [row["verdict"] for row in rows()] == ["sat", "error", "unsat", "error"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_as_windows_editors_write_them(encoding: str) -> None:
    """A byte order mark and \\r\\n at the ends of lines, in the instances, the property and the table of an earlier run."""
    for name in ("instances.csv", "far.vnnlib"):
        path = Path("bench") / name
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    main([*RUN, "-q"])
    first = rows()
    assert [(row["network"], row["verdict"]) for row in first] == [("net.onnx", word) for word in ("sat", "error", "unsat", "error")]
    saved = Path("out/results.csv")
    saved.write_bytes(saved.read_text().encode("utf-8-sig"))
    main([*RUN, "-q"])
    assert len(rows()) == len(first)  # nothing is asked again


def test_counts_of_a_summary() -> None:
    """Three answers of one benchmark and one of another, counted by hand."""
    one = table.InstanceResult("a", "n", "p", 60, "unsat", "crown", 1.0)
    answers = [
        one,
        table.InstanceResult("a", "n", "q", 60, "sat", "search", 3.0),
        table.InstanceResult("a", "n", "r", 60, "timeout", "", 60.0),
        table.InstanceResult("b", "n", "p", 60, "unsat", "mip", 7.0),
    ]
    found = table.summary(answers)
    assert list(found) == ["a", "b"]
    assert {key: found["a"][key] for key in ("instances", "unsat", "sat", "timeout", "unknown", "error", "median_s", "total_s")} == {
        **{"instances": 3, "unsat": 1, "sat": 1, "timeout": 1, "unknown": 0, "error": 0},
        **{"median_s": 3.0, "total_s": 64.0},
    }
    assert found["a"]["stages"]["crown"] == {"unsat": 1, "sat": 0}
    assert found["a"]["stages"]["search"] == {"unsat": 0, "sat": 1}
    assert sum(sum(counts.values()) for counts in found["b"]["stages"].values()) == 1


def test_instances_listed_twice_are_asked_once() -> None:
    listed(Path("bench/instances.csv"), *[("net.onnx", "far.vnnlib", 20.0)] * 3)
    assert len(vnncomp_instances.read_instances("bench/instances.csv")) == 1


def test_the_digest_of_an_instance_depends_on_all_that_its_result_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(network: str = "net.onnx", question: str = "far.vnnlib", seconds: float = 20.0, **settings: Any) -> str:
        return VerifySettings(**settings).digest(Instance(Path("bench").absolute(), network, question, seconds))

    shutil.copy("bench/net.onnx", "bench/same.onnx")
    shutil.copy("bench/far.vnnlib", "bench/same.vnnlib")
    found = {
        "as it is": digest(),
        "network": digest(network="same.onnx"),
        "property": digest(question="same.vnnlib"),
        "seconds of the line": digest(seconds=30.0),
        "seconds": VerifySettings(seconds=40.0).digest(Instance(Path("bench").absolute(), "net.onnx", "far.vnnlib", 20.0)),
        "solver": digest(backend="scip"),
        "cross-check": digest(cross_check="scip"),
        "seed": digest(seed=1),
    }
    for name in ("net.onnx", "far.vnnlib"):
        content = Path("bench", name).read_bytes()
        for changed in (content + b" ", content[:-1]):
            Path("bench", name).write_bytes(changed)
            found[f"{name} with {len(changed)} bytes"] = digest()
        Path("bench", name).unlink()
        found[f"no {name}"] = digest()
        Path("bench", name).write_bytes(content)
    assert found["as it is"] == digest(seconds=20.0)
    monkeypatch.setattr("mipnet.app.runs.vnncomp_instances.__version__", "0.0")
    found["version"] = digest()
    assert len(set(found.values())) == len(found)
