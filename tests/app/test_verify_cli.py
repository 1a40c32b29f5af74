"""`mipnet verify` of one question: the result file as VNN-COMP checks it, exit statuses, and who confirms."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from rich.console import Console

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.runs.vnncomp import verdict_record
from mipnet.app.screen.progress import StageProgress
from mipnet.app.screen.verify_tables import verdict_report
from tests.readers.onnx_graphs import model, numbers
from tests.verification.questions import asked, distance, hard, outputs_of, point_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with a network."""
    monkeypatch.chdir(tmp_path)
    distance(tmp_path / "net.onnx")
    return tmp_path


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_sat_with_a_point(backend: str, capsys: Capture) -> None:
    asked(Path("p.vnnlib"), "(>= Y_0 0.9)", "(<= Y_1 0)")
    assert main(["verify", "net.onnx", "p.vnnlib", "--backend", backend, "--results-file", "out.txt"]) == 0
    x, y = point_of(Path("out.txt").read_text())
    assert (x >= 0).all()
    assert (x <= 1).all()
    assert (outputs_of(Path("net.onnx"), x) == y).all()
    assert y[0] >= 0.9
    assert y[1] <= 0
    said = capsys.readouterr()
    assert "verdict: sat" in said.out
    assert "confirmed: by onnxruntime" in said.out
    assert "interval: 1 clause open" in said.err
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize(("backend", "other"), [("highs", "scip"), ("scip", "highs")])
def test_unsat_in_json_with_a_second_opinion(backend: str, other: str, capsys: Capture) -> None:
    asked(Path("p.vnnlib"), "(or (and (>= Y_0 1.25)) (and (<= Y_1 -1.5)))")  # |x_0 - x_1| <= 1, which intervals do not see
    command = ["verify", "net.onnx", "p.vnnlib", "--json", "--backend", backend, "--cross-check", other, "--results-file", "out.txt"]
    assert main(command) == 0
    assert Path("out.txt").read_text() == "unsat\n"
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["backend"], found["note"]) == ("unsat", backend, f"{other} agrees")
    assert 0 < found["bound"] <= 0.25
    assert sum(found["refuted"].values()) == len(found["clauses"]) == 2
    assert found["counterexample"] is None


def test_a_file_in_gzip(elsewhere: Path) -> None:
    asked(Path("p.vnnlib"), "(>= Y_0 0.9)")
    for name in ("net.onnx", "p.vnnlib"):
        Path(f"{name}.gz").write_bytes(gzip.compress(Path(name).read_bytes()))
    assert main(["verify", "net.onnx.gz", "p.vnnlib.gz", "--results-file", "out.txt", "-q"]) == 0
    x, y = point_of(Path("out.txt").read_text())
    assert (outputs_of(Path("net.onnx"), x) == y).all()


def test_timeout_is_a_verdict(capsys: Capture) -> None:
    hard(Path("hard.onnx"))
    asked(Path("p.vnnlib"), "(>= Y_0 60)", inputs=30, outputs=1, low=-1)
    assert main(["verify", "hard.onnx", "p.vnnlib", "--timeout", "0.5", "--results-file", "out.txt"]) == 0
    assert Path("out.txt").read_text() == "timeout\n"
    assert "verdict: timeout, not decided in the time given" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c(elsewhere: Path) -> None:
    hard(Path("hard.onnx"))
    asked(Path("p.vnnlib"), "(>= Y_0 60)", inputs=30, outputs=1, low=-1)
    words = [sys.executable, "-m", "mipnet", "verify", "hard.onnx", "p.vnnlib", "--timeout", "1000", "--results-file", "out.txt"]
    command = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert command.stderr is not None
    assert any("branching" in line for line in command.stderr)
    os.kill(command.pid, signal.SIGINT)
    out, err = command.communicate(timeout=240)
    assert command.returncode == 130, err
    assert Path("out.txt").read_text() == "unknown\n"
    assert "(interrupted)" in out
    assert "Traceback" not in err


def test_a_point_counts_in_the_numbers_of_the_file() -> None:
    """At the only input, 0.1, output 0 is exactly 0.1 - 0; in float32 it is larger than that."""
    lines = ["(<= Y_1 0.1)"]
    asked(Path("p.vnnlib"), *lines)
    text = Path("p.vnnlib").read_text().replace("(>= X_0 0)", "(>= X_0 0.1)").replace("(<= X_0 1)", "(<= X_0 0.1)")
    Path("p.vnnlib").write_text(text.replace("(<= X_1 1)", "(<= X_1 0)"))
    assert main(["verify", "net.onnx", "p.vnnlib", "--results-file", "out.txt", "-q", "--timeout", "20"]) == 0
    assert float(np.float32(0.1)) > 0.1
    assert Path("out.txt").read_text() == "unknown\n"


def test_without_onnxruntime_torch_confirms_and_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    asked(Path("p.vnnlib"), "(>= Y_0 0.9)")
    assert main(["verify", "net.onnx", "p.vnnlib", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["confirmed_by"]) == ("sat", "torch")
    x = np.array(found["counterexample"])
    assert abs(x[0] - x[1]) >= 0.9


def test_a_softmax_in_the_file_is_what_the_property_speaks_of(capsys: Capture) -> None:
    net = distance(Path("soft.onnx"), "Softmax")
    asked(Path("order.vnnlib"), "(>= Y_1 Y_0)")  # x_0 >= x_1
    assert main(["verify", "soft.onnx", "order.vnnlib", "--results-file", "out.txt", "-q"]) == 0
    x, y = point_of(Path("out.txt").read_text())
    assert abs(y.sum() - 1) < 1e-6
    assert np.allclose(y, outputs_of(net, x))
    asked(Path("share.vnnlib"), "(>= Y_1 0.7)")  # true of what goes into the softmax, never of what comes out
    assert main(["verify", "soft.onnx", "share.vnnlib", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "unsat"
    asked(Path("share.vnnlib"), "(>= Y_0 0.7)")
    assert main(["verify", "soft.onnx", "share.vnnlib", "--results-file", "out.txt", "-q"]) == 0
    x, y = point_of(Path("out.txt").read_text())
    assert y[0] >= 0.7
    assert np.allclose(y, outputs_of(net, x))
    distance(Path("log.onnx"), "LogSoftmax")
    asked(Path("sum.vnnlib"), "(>= (+ Y_0 Y_1) -1)")
    assert main(["verify", "log.onnx", "sum.vnnlib"]) == 2
    assert "log_softmax" in capsys.readouterr().err


def test_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with StageProgress(console) as progress:
        progress.stage("crown", 3)
        assert progress.view().plain.endswith("  crown: 3 clauses open")
    shown = Console(file=io.StringIO(), force_terminal=True, width=80)
    net = mn.from_onnx("net.onnx")
    asked(Path("p.vnnlib"), "(>= Y_0 0.9)")
    verdict = mn.verify(net, mn.read_vnnlib("p.vnnlib"))
    shown.print(verdict_report(verdict_record(verdict, "sat")))
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown.file.getvalue()).splitlines()  # type: ignore[attr-defined]
    assert lines[0].split() == ["verdict", *["sat,", "an", "input", "of", "the", "set", "satisfies", "it:", "a", "counterexample"]]
    assert any(line.split() == ["confirmed", "by", "torch"] for line in lines)
    assert max(map(len, lines)) <= 80


BAD = {
    "nothing": ([], "expected NET.ONNX and PROP.VNNLIB"),
    "no property": (["net.onnx"], "expected NET.ONNX and PROP.VNNLIB"),
    "no such network": (["none.onnx", "p.vnnlib"], "no file `none.onnx`"),
    "no such property": (["net.onnx", "none.vnnlib"], "no file `none.vnnlib`"),
    "the wrong way round": (["p.vnnlib", "net.onnx"], "`p.vnnlib` has the suffix `.vnnlib`"),
    "no network": (["text.onnx", "p.vnnlib"], "`text.onnx` is no ONNX file"),
    "no formula": (["net.onnx", "text.onnx"], "stands outside of brackets"),
    "too many inputs": (["net.onnx", "wide.vnnlib"], "is written for 3 inputs; the network has 2"),
    "too many outputs": (["net.onnx", "tall.vnnlib"], "is written for 3 outputs; the network has 2"),
    "no comparison": (["net.onnx", "unlike.vnnlib"], "unlike.vnnlib`, line 9"),
    "no time": (["net.onnx", "p.vnnlib", "--timeout", "0"], "--timeout 0: expected a positive number of seconds"),
    "nan time": (["net.onnx", "p.vnnlib", "--timeout", "nan"], "--timeout nan"),
    "no such backend": (["net.onnx", "p.vnnlib", "--backend", "abacus"], "abacus"),
    "no such second": (["net.onnx", "p.vnnlib", "--cross-check", "abacus"], "abacus"),
    "no such folder": (["net.onnx", "p.vnnlib", "--results-file", "no/out.txt"], "`no/out.txt` cannot be written"),
    "a folder": (["net.onnx", "p.vnnlib", "--results-file", "."], "it is a folder"),
    "output without instances": (["net.onnx", "p.vnnlib", "--output", "out"], "--output is for --instances"),
    "set without a file": (["net.onnx", "p.vnnlib", "--set", "a=1"], "--set changes keys of a YAML file"),
    "both": (["net.onnx", "p.vnnlib", "--instances", "i.csv", "--output", "out"], "--instances brings its own"),
    "no output": (["--instances", "i.csv"], "--instances needs --output DIR"),
    "no instances": (["--instances", "none.csv", "--output", "out"], "no file `none.csv`"),
    "empty instances": (["--instances", "empty.csv", "--output", "out"], "`empty.csv` is empty"),
    "two cells": (["--instances", "two.csv", "--output", "out"], "`two.csv`, line 2: got `net.onnx,p.vnnlib`; expected network,property"),
    "a decimal comma": (["--instances", "comma.csv", "--output", "out"], "is there a decimal comma? write 1.5"),
    "no seconds": (["--instances", "soon.csv", "--output", "out"], "line 1: `soon` is no positive number of seconds"),
    "binary": (["--instances", "net.onnx", "--output", "out"], "net.onnx`"),
    "another folder": (["--instances", "i.csv", "--output", "."], "no `results.csv`; expected a folder that is new"),
    "a file as folder": (["--instances", "i.csv", "--output", "p.vnnlib"], "`p.vnnlib` is a file"),
    "another table": (["--instances", "i.csv", "--output", "other"], "was not written by this version"),
    "instances' backend": (["--instances", "i.csv", "--output", "out", "--backend", "abacus"], "abacus"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(name: str, elsewhere: Path, capsys: Capture) -> None:
    asked(Path("p.vnnlib"), "(>= Y_0 0.9)")
    asked(Path("wide.vnnlib"), "(>= Y_0 0.9)", inputs=3)
    asked(Path("tall.vnnlib"), "(>= Y_0 0.9)", outputs=3)
    asked(Path("unlike.vnnlib"), "(!= Y_0 0.9)")
    files = {"text.onnx": "hello", "empty.csv": "\n", "two.csv": "net.onnx,p.vnnlib,1\nnet.onnx,p.vnnlib\n", "soon.csv": "a,b,soon\n"}
    files |= {"comma.csv": "net.onnx,p.vnnlib,1,5\n"}
    for file, text in {**files, "i.csv": "net.onnx,p.vnnlib,5\n"}.items():
        Path(file).write_text(text)
    Path("other").mkdir()
    Path("other/results.csv").write_text("a,b\n1,2\n")
    before = {path: path.read_bytes() for path in sorted(elsewhere.rglob("*")) if path.is_file()}
    arguments, phrase = BAD[name]
    status, said = main(["verify", *arguments]), capsys.readouterr()
    assert status == 2, said.err
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1, said.err
    assert phrase in said.err
    assert {path: path.read_bytes() for path in sorted(elsewhere.rglob("*")) if path.is_file()} == before


def test_the_result_file_of_a_broken_question_says_error(capsys: Capture) -> None:
    asked(Path("p.vnnlib"), "(>= Y_0 0.9)", inputs=3)
    assert main(["verify", "net.onnx", "p.vnnlib", "--results-file", "out.txt"]) == 2
    assert Path("out.txt").read_text() == "error\n"
    assert "3 inputs" in capsys.readouterr().err


def unrunnable(kind: str) -> onnx.ModelProto:
    """A graph that follows the rules of onnx, and that onnxruntime does not load or not run."""
    dense = [("Gemm", ["x", "w"], "h", {}), ("Relu", ["h"], "r", {}), ("Gemm", ["r", "v"], "y", {})]
    if kind == "no sample":
        return model(dense, {"w": numbers(4, 6), "v": numbers(6, 2)}, (0, 4))
    if kind == "same names":
        built = model(dense, {"w": numbers(4, 6), "v": numbers(6, 2)}, (1, 4))
        for node in built.graph.node:
            node.name = "node"
        return built
    double = kind == "float64"
    weights = {"k": numbers(1, 1, 2, 2), "v": numbers(4 if not double else 1, 2)}
    pads = {} if double else {"auto_pad": "SAME_LOWER", "dilations": [2, 2]}
    nodes = [("Conv", ["x", "k"], "c", pads), ("Relu", ["c"], "r", {}), ("Flatten", ["r"], "f", {}), ("Gemm", ["f", "v"], "y", {})]
    kinds = {name: array.astype(np.float64) for name, array in weights.items()} if double else weights
    return model(nodes, kinds, (1, 1, 2, 2), kind=TensorProto.DOUBLE if double else TensorProto.FLOAT)


@pytest.mark.parametrize("kind", ["no sample", "same names", "float64", "gaps"])
@pytest.mark.parametrize("word", ["sat", "unsat"])
def test_a_file_that_onnxruntime_cannot_run_is_verified_in_torch(kind: str, word: str, capsys: Capture) -> None:
    Path("odd.onnx").write_bytes(unrunnable(kind).SerializeToString())
    network = mn.read("odd.onnx")
    assert "not compared with onnxruntime, which cannot run it" in "".join(network.notes)
    asked(Path("p.vnnlib"), "(>= Y_0 Y_1)" if word == "sat" else "(>= Y_0 1e6)", inputs=4, low=-1)
    assert main(["verify", "odd.onnx", "p.vnnlib", "--results-file", "out.txt", "--json"]) == 0
    assert Path("out.txt").read_text().split()[0] == word
    assert json.loads(capsys.readouterr().out)["confirmed_by"] == ("torch" if word == "sat" else None)
    if word == "sat":
        x, y = point_of(Path("out.txt").read_text())
        assert (network.forward(x.reshape(1, *network.input_shape)) == y).all()
        assert y[0] >= y[1]
