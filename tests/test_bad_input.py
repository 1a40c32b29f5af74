"""Every mistake in the input of a user is reported in one line, with exit status 2, and no file is left."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import mipnet.backend.contract
from mipnet.app.cli.main import main

EXAMPLES = Path(__file__).parents[1] / "examples"
GOOD = (EXAMPLES / "digits.yaml").read_text()
Arguments = list[str]
Prepare = Callable[[], Arguments]


def solve(*sets: str) -> Prepare:
    """`mipnet solve` of the good file with some keys set."""
    return lambda: ["solve", "model.yaml", *(word for each in sets for word in ("--set", each))]


def content(new: str | bytes) -> Prepare:
    """`mipnet solve` of a file with this content."""

    def prepare() -> Arguments:
        Path("bad.yaml").write_bytes(new if isinstance(new, bytes) else new.encode())
        return ["solve", "bad.yaml"]

    return prepare


def edited(old: str, new: str) -> Prepare:
    assert old in GOOD
    return content(GOOD.replace(old, new, 1))


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Prepare:
    """`mipnet solve` with changed weights."""

    def prepare() -> Arguments:
        save_file(change(load_file("digits.safetensors")), "digits.safetensors")
        return ["solve", "model.yaml"]

    return prepare


def path(given: str, *more: str) -> Prepare:
    """`mipnet solve --path` of the good file."""
    return lambda: ["solve", "model.yaml", "--path", given, *more]


def file(name: str, made: bytes, *arguments: str) -> Prepare:
    def prepare() -> Arguments:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(made)
        return list(arguments) or ["solve", "model.yaml"]

    return prepare


def npz(**arrays: np.ndarray) -> Prepare:
    """`mipnet solve` on images of one's own; twenty good ones with labels unless given otherwise."""

    def prepare() -> Arguments:
        good = {"images": np.random.default_rng(0).random((20, 64)), "labels": np.arange(20) % 10}
        np.savez("mine.npz", **{key: value for key, value in (good | arrays).items() if value.size})
        data = "{source: npz, file: mine.npz, per_class: 1, holdout: none}"
        return ["solve", "model.yaml", "--set", f"data={data}"]

    return prepare


def layer(text: str) -> Prepare:
    return edited("- {name: relu1, type: ReLU}", f"- {text}")


DECOUPLED = ("solve", "model.yaml", "--set", "solve.decouple=class", "--set", "solve.workers=0")


def decoupled(*more: str) -> Prepare:
    return lambda: [*DECOUPLED, *more]


NAN = {"fc2.bias": torch.full((20,), float("nan"))}

CASES: dict[str, tuple[Prepare, str]] = {
    # the file
    "no such file": (lambda: ["solve", "none.yaml"], "no file `none.yaml`"),
    "a directory": (lambda: ["solve", "."], "is a directory"),
    "empty": (content(""), "bad.yaml is empty"),
    "only a comment": (content("# nothing\n"), "is empty"),
    "binary": (content(bytes(range(256))), "`bad.yaml` is no text; expected a YAML file"),
    "not utf-8": (content(b"mipnet: 1\ntask: \xff\xfe\n"), "not YAML"),
    "weights as a file": (lambda: ["solve", "digits.safetensors"], "`digits.safetensors` is no text; expected a YAML file"),
    "syntax": (content("mipnet: 1\ndata: [1, 2\n"), "bad.yaml, line 2: not YAML (a bracket is opened here and never closed)"),
    "a list": (content("- 1\n- 2\n"), "expected a mapping that begins with `mipnet: 1`"),
    "a word": (content("hello"), "got 'hello'; expected a mapping"),
    "two documents": (content(GOOD + "---\nmipnet: 1\n"), "expected a single document"),
    "code": (
        content("mipnet: !!python/object/apply:os.system ['touch hacked']\n"),
        "line 1: mipnet: the tag `!!python/object/apply:os.system` is not known",
    ),
    "too deep": (content("[" * 20_000), "nested too deeply"),
    "a date": (edited("per_class: 1", "per_class: 2026-99-99"), "data.per_class: got '2026-99-99'; expected a whole number"),
    "unhashable key": (content("mipnet: 1\n[1, 2]: 3\n? {a: 1}\n: 2\n"), "line 2: a key is a list; expected a word"),
    "refers to itself": (
        content("mipnet: 1\ntask: importance\nnetwork: {file: x}\ndata: &d\n  source: *d\n"),
        "line 4: it contains itself; expected plain mappings",
    ),
    # keys
    "unknown key": (edited("prune:", "colour: red\nprune:"), "bad.yaml, line 22: colour: unknown key; expected one of mipnet, task"),
    "misspelt key": (edited("time_limit", "time_limt"), "bad.yaml, line 20: solve.time_limt: unknown key; did you mean `time_limit`?"),
    "duplicate key": (edited("seed: 0", "seed: 0, seed: 1"), "line 15: data: `seed` is given twice (first in line 15)"),
    "section twice": (edited("gates:", "data: {source: digits}\ngates:"), "`data` is given twice"),
    "missing key": (edited("source: digits, ", ""), "line 15: data.source: this key is missing"),
    "no data": (lambda: content(GOOD.replace("data: {", "prune: {").replace("prune: {threshold: 0.1}", ""))(), "unknown key"),
    "key without value": (edited("weight: 5", "weight: "), "objective.weight: got nothing; expected a number of at least 0"),
    "wrong version": (solve("mipnet=2"), "mipnet: got 2; expected 1"),
    "boolean version": (solve("mipnet=true"), "mipnet: got true; expected 1"),
    "unknown task": (solve("task=dance"), "task: got 'dance'; expected `importance`"),
    "later task": (solve("task=compress"), "got 'compress'; such a file is for `mipnet compress`"),
    "another command": (solve("task=verify"), "got 'verify'; such a file is for `mipnet verify`"),
    # numbers and words
    "wrong type": (
        edited("time_limit: 60", "time_limit: fast"),
        "solve.time_limit: got 'fast'; expected a number of seconds greater than 0",
    ),
    "negative limit": (solve("solve.time_limit=-1"), "got -1; expected a number of seconds greater than 0"),
    "boolean limit": (solve("solve.time_limit=true"), "got true; expected a number of seconds greater than 0"),
    "nan limit": (solve("solve.time_limit=.nan"), "got nan"),
    "nan gap": (solve("solve.mip_gap=.nan"), "got nan; expected a number of at least 0"),
    "negative gap": (solve("solve.mip_gap=-1e-4"), "solve.mip_gap: got -0.0001"),
    "half a node": (solve("solve.nodes=1.5"), "expected a whole number of at least 0"),
    "memory": (solve("solve.memory=0"), "at least 1"),
    "infinite weight": (solve("objective.weight=.inf"), "objective.weight: got inf"),
    "negative weight": (solve("objective.weight=-1"), "objective.weight: got -1; expected a number of at least 0"),
    "unknown loss": (solve("objective.loss=hinge"), "expected `cross-entropy` or `margin`"),
    "threshold": (solve("prune.threshold=1.5"), "prune.threshold: got 1.5; expected a number in [0, 1]"),
    "threshold share": (solve("prune.threshold={params: 1}"), "with a share in [0, 1)"),
    "epsilon": (solve("formulation.epsilon=-1e-5"), "formulation.epsilon"),
    "bounds": (solve("formulation.bounds=loose"), "`paper`, `sound`, `interval`, `crown` or `alpha`"),
    "parts of nothing": (solve("formulation.parts=2"), "`parts` is for formulation `partition`, and no layer has it"),
    "unknown formulation": (solve("formulation.relu=magic"), "formulation.relu: got 'magic'; expected one of big-m, sos1"),
    "misspelt formulation": (solve("formulation.relu=bigm"), "formulation.relu: got 'bigm'; did you mean `big-m`?"),
    "formulation of no layer": (solve("formulation.rellu=big-m"), "formulation.rellu: unknown key; did you mean `relu`?"),
    "formulation of a layer without one": (solve("formulation.linear=big-m"), "formulation.linear: unknown key; expected one of relu,"),
    "formulation of another layer": (solve("formulation.maxpool2d=sos1"), "formulation.maxpool2d: got 'sos1'; expected one of big-m,"),
    "formulation a number": (solve("formulation.relu=3"), "formulation.relu: got 3; expected a string that is not empty"),
    "unknown gate layer": (solve("gates.layers=[fc9]"), "gates: gates asked for ['fc9']; the layers that can carry gates are"),
    "gate on the output": (solve("gates.layers=[fc3]"), "the layers that can carry gates are ['fc1', 'fc2']"),
    "no gates": (solve("gates.layers=[]"), "expected `all` or a list of layer names"),
    # what YAML reads differently from people
    "decimal comma": (edited("time_limit: 60", "time_limit: {a: 1,5}"), "line 20: solve.time_limit.a: got `1,5`, which is two values;"),
    "decimal comma in a string": (solve("solve.mip_gap='1,5'"), "got '1,5'; expected a number of at least 0; write a decimal with a point"),
    "thousands": (edited("per_class: 1", "total: 1,000"), "line 15: data.total: got `1,000`, which is two values"),
    "octal": (
        edited("time_limit: 60", "time_limit: 060"),
        "line 20: solve.time_limit: got 060, whose leading zero may mean octal; write 60",
    ),
    "minutes": (edited("time_limit: 60", "time_limit: 1:30"), "got '1:30'; expected a number of seconds greater than 0"),
    "unit": (
        edited("time_limit: 60", "time_limit: 60s"),
        "got '60s'; expected a number of seconds greater than 0, such as 60; write the number",
    ),
    "percent": (solve("prune.threshold=50%"), "write a share of 1, such as 0.05"),
    "number in quotes": (edited("time_limit: 60", "time_limit: '60'"), "write it without quotes"),
    "tab": (edited("  file: digits", "\tfile: digits"), "a tab stands where YAML takes spaces only"),
    "space missing": (content(GOOD + "colour:red\n"), "is the space after the colon missing?"),
    "no colon": (edited("per_class: 1,", "per_class,"), "data: `per_class` has no value; expected `key: value`"),
    "no-break space": (edited("per_class: 1", "per_class:\u00a01"), "a no-break space (U+00A0) stands in"),
    "typographic quotes": (solve("output=\u201cruns\u201d"), "in typographic quotes"),
    "no quotes": (solve("solve.start=no"), "got 'no'; expected `forward`, `search` or `none`; did you mean `none`?"),
    "huge number": (edited("input_shape: [64]", f"input_shape: [{'9' * 400}]"), "(400 characters); expected a whole number of at most"),
    "too large for a float": (solve("objective.weight=1e400"), "--set objective.weight=1e400: got 1e400; expected a number below 1.8e308"),
    "zero character": (solve('output="a\\0b"'), "it holds the character U+0000"),
    "section without keys": (content(GOOD + "gates:\n") if "gates:" not in GOOD else solve("gates=null"), "leave the key out, or write {}"),
    "task by its command": (solve("task=slve"), "task: got 'slve'; expected `importance`; did you mean `importance`?"),
    "word in capitals": (solve("solve.backend=HIGHS"), "did you mean `highs`?"),
    "choice in capitals": (solve("objective.loss=Margin"), "did you mean `margin`?"),
    "no as a folder": (solve("output=no"), "leave `output` out for no run folder"),
    # the command line
    "set without value": (solve("solve.time_limit"), "--set solve.time_limit: expected key=value"),
    "set without key": (solve("=3"), "expected key=value"),
    "set not yaml": (solve("solve.time_limit=[1"), "the value is not YAML"),
    "set below a number": (solve("mipnet.x=1"), "`mipnet` is 1, which has no keys"),
    "set outside a list": (solve("network.layers.9.type=ReLU"), "a list of 5; expected a place from 0 to 4"),
    "bad flag": (lambda: ["solve", "model.yaml", "--time-limit", "-3"], "--time-limit -3.0: solve.time_limit: got -3.0"),
    "flag not a number": (lambda: ["solve", "model.yaml", "--time-limit", "soon"], "--time-limit: got `soon`; expected a number"),
    "no such flag": (lambda: ["solve", "model.yaml", "--fast"], "--fast"),
    "no such command": (lambda: ["dance"], "dance"),
    "no file given": (lambda: ["solve"], "Missing argument"),
    "init over a file": (lambda: ["init", "model.yaml"], "`model.yaml` exists"),
    "init into nothing": (lambda: ["init", "no/such/model.yaml"], "`no/such/model.yaml` cannot be written: there is no folder"),
    "inspect with set": (lambda: ["inspect", "x.pt2", "--set", "a=1"], "leave it out"),
    # the network
    "no weights file": (
        solve("network.file=none.safetensors"),
        "--set network.file=none.safetensors: network.file: no file",
    ),
    "weights a directory": (solve("network.file=."), "suffix"),
    "weights missing": (weights(lambda w: {k: v for k, v in w.items() if k != "fc2.bias"}), "line 11: network.layers.2: `"),
    "weights unexpected": (weights(lambda w: w | {"fc4.bias": torch.zeros(3)}), "has `fc4.bias` in addition"),
    "weights of another shape": (weights(lambda w: w | {"fc1.weight": torch.zeros(50, 63)}), "(50, 63); the layers expect (50, 64)"),
    "nan weights": (weights(lambda w: w | NAN), "20 NaN or infinite"),
    "no safetensors": (file("digits.safetensors", b"hello"), "holds no tensors that can be read safely"),
    "empty weights": (file("digits.safetensors", b""), "holds no tensors that can be read safely"),
    "pickle": (file("net.pt", b"\x80\x04cos\nsystem\n.", "solve", "model.yaml", "--set", "network.file=net.pt"), "could run code"),
    "no archive": (file("net.pt2", b"PK", "inspect", "net.pt2"), "is no archive"),
    "onnx": (file("net.onnx", b"x", "inspect", "net.onnx"), "no ONNX file"),
    "weights alone": (lambda: ["inspect", "digits.safetensors"], "holds weights only; give `layers`"),
    "unknown layer": (layer("{name: relu1, type: Swish}"), "layer `relu1` has type `Swish`; expected one of Linear"),
    "layer without type": (layer("{name: relu1}"), "expected a mapping with `name`, `type` and arguments"),
    "layer a word": (layer("ReLU"), "line 10: network.layers.1: got 'ReLU'; expected a mapping"),
    "wrong argument": (
        edited("out_features: 50", "out_channels: 50"),
        "line 9: network.layers.0.out_channels: layer `fc1`: Linear has no argument `out_channels`",
    ),
    "wrong value": (
        edited("out_features: 50", "out_features: many"),
        "layer `fc1`: Linear got out_features='many'; expected a whole number",
    ),
    "negative size": (edited("out_features: 50", "out_features: -5"), "layer `fc1`: Linear got out_features=-5; expected a size from 1 to"),
    "sizes do not fit": (edited("in_features: 50", "in_features: 49"), "line 11: network.layers.2: `fc2.weight` of "),
    "two of a name": (layer("{name: fc1, type: ReLU}"), "is called `fc1`; expected a name of its own"),
    "input shape": (solve("network.input_shape=[0]"), "expected the positive sizes of one sample"),
    "input shape too large": (
        solve("network.input_shape=[99999999999999]"),
        "expected sizes of one sample with at most 2,147,483,648 elements",
    ),
    "input shape misfits": (solve("network.input_shape=[63]"), "layer `fc1`: Linear cannot take an input of shape (63,)"),
    # the data
    "unknown source": (solve("data.source=imagenet"), "data.source: got 'imagenet'; expected `digits`, `mnist`"),
    "no root": (solve("data.source=mnist"), "set `root`, or the environment variable MIPNET_DATA"),
    "root is missing": (solve("data.source=mnist", "data.root=nowhere"), "no file `train-images-idx3-ubyte[.gz]` of `mnist`"),
    "idle key": (solve("data.root=here"), "data.root: got 'here'; it has no effect for source `digits`"),
    "split": (solve("data.split=all"), "expected `train` or `test`"),
    "holdout": (solve("data.holdout=rest"), "expected `train`, `test` or `none`"),
    "pick": (solve("data.pick=best"), "expected `first`, `random`, `confident` or `uncertain`"),
    "per_class 0": (solve("data.per_class=0"), "expected a whole number of at least 1"),
    "per_class too large": (solve("data.per_class=1000"), "1000 are asked for"),
    "both sizes": (solve("data.total=5"), "both `per_class` and `total` are given"),
    "neither size": (edited("per_class: 1, ", ""), "neither of `per_class` and `total` is given"),
    "label out of range": (npz(labels=np.arange(20) % 13), "expected 0 to 9, one for each output"),
    "negative label": (npz(labels=np.arange(20) - 1), "label -1"),
    "no labels": (npz(labels=np.array([])), "has no array `labels`"),
    "nan pixels": (npz(images=np.full((20, 64), np.nan)), "NaN or infinite pixels"),
    "images of another shape": (npz(images=np.zeros((20, 8, 9))), "which cannot be reshaped to (64,)"),
    "no npz file": (solve("data={source: npz, file: none.npz, total: 1, holdout: none}"), "none.npz`; expected an .npz file"),
    # the solver
    "unknown backend": (solve("solve.backend=minos"), "solve.backend: no backend is called `minos`; known: cbc, copt, cplex, glpk, gurobi"),
    "unknown option of highs": (solve("solve.options={presolv: off}"), "did you mean `presolve`"),
    "unknown option of scip": (solve("solve.backend=scip", "solve.options={presolving/maxround: 1}"), "presolving/maxrounds"),
    "option value of highs": (solve("solve.options={threads: many}"), "HiGHS does not take 'many' for `threads`"),
    "option value of scip": (solve("solve.backend=scip", "solve.options={presolving/maxrounds: 1.5}"), "SCIP does not take 1.5"),
    "option that is a limit": (solve("solve.options={time_limit: 3}"), "set by every solve from its limits"),
    "option that is a list": (solve("solve.options={threads: [1]}"), "solve.options.threads: got [1]; expected a number"),
    "limit that highs lacks": (solve("solve.memory=1000"), "--set solve.memory=1000: solve: backend `highs` has no memory limit"),
    # decoupled runs
    "unknown way": (solve("solve.decouple=unit"), "solve.decouple: got 'unit'; expected `none`, `class` or `layer`"),
    "workers of one program": (
        lambda: ["solve", "model.yaml", "--workers", "2"],
        "--workers 2: solve.workers: got 2; it is for many programs",
    ),
    "scheduler of one program": (
        lambda: ["solve", "model.yaml", "--scheduler", "tcp://x:1"],
        "solve.scheduler: got 'tcp://x:1'; it is for many programs",
    ),
    "negative workers": (decoupled("--workers", "-1"), "--workers -1: solve.workers: got -1; expected a whole number of at least 0"),
    "workers not a number": (decoupled("--workers", "all"), "--workers: got `all`; expected a whole number"),
    "boolean workers": (solve("solve.decouple=class", "solve.workers=true"), "solve.workers: got true"),
    "scheduler of no kind": (decoupled("--scheduler", "nonsense://x"), "the scheduler at `nonsense://x` cannot be used"),
    "resume of one program": (lambda: ["solve", "model.yaml", "--resume"], "--resume keeps the parts of a decoupled run or a path, and"),
    "resume without output": (decoupled("--resume", "--set", "output=null"), "no `output` is given; name it, or leave --resume out"),
    "parts of before": (file("runs/digits.parts/x/part-1.json", b"{}", *DECOUPLED), "was not finished; continue it with --resume"),
    "parts not ours": (
        file("runs/digits.parts/x", b"", *DECOUPLED, "--resume"),
        "line 23: output: `runs/digits.parts` holds `x`, which mipnet did not write: move it away, or remove that folder",
    ),
    "parts a file": (file("runs/digits.parts", b"", *DECOUPLED, "--resume"), "`runs/digits.parts` is a file"),
    "no place to cut": (
        decoupled("--set", "solve.decouple=layer", "--set", "gates.layers=[fc1]"),
        "solve.decouple: the network has no place to",
    ),
    "decoupled formulation": (
        decoupled("--set", "formulation.relu=magic"),
        "formulation.relu: got 'magic'; expected one of big-m",
    ),
    # paths
    "path of two words": (path("0.5:20"), "--path 0.5:20: expected NAME=FIRST:LAST or NAME=FIRST:LAST:POINTS, such as lambda=0.5:20"),
    "path of one end": (path("lambda=0.5"), "--path lambda=0.5: expected NAME=FIRST:LAST"),
    "path of four numbers": (path("lambda=1:2:3:4"), "--path lambda=1:2:3:4: expected NAME=FIRST:LAST"),
    "path along nothing known": (path("lamda=1:2"), "--path lamda=1:2: solve.path.lamda: unknown key; did you mean `lambda`?"),
    "path of words": (path("lambda=low:high"), "solve.path.lambda: got ['low', 'high']; expected two different numbers greater than 0"),
    "path from 0": (path("lambda=0:1"), "solve.path.lambda: got [0, 1]; expected two different numbers greater than 0"),
    "path without length": (path("lambda=2:2"), "solve.path.lambda: got [2, 2]; expected two different numbers"),
    "path to infinity": (solve("solve.path={lambda: [1, .inf]}"), "solve.path.lambda: got [1, inf]; expected two different numbers"),
    "path of one point": (path("lambda=1:2:1"), "--path lambda=1:2:1: solve.path.points: got 1; expected a whole number of at least 2"),
    "path of half a point": (path("lambda=1:2:2.5"), "solve.path.points: got 2.5; expected a whole number of at least 2"),
    "path that is a number": (solve("solve.path=3"), "solve.path: got 3; expected a mapping with lambda, points"),
    "path along nothing": (solve("solve.path={points: 3}"), "solve.path: got {'points': 3}; expected one parameter, such as `lambda"),
    "path of many programs": (
        path("lambda=1:2", "--set", "solve.decouple=class"),
        "`path` is for a task that is solved as one program, and `decouple` makes many; leave one of them out",
    ),
    "path and resume without output": (path("lambda=1:2", "--resume", "--set", "output=null"), "no `output` is given; name it"),
    "path with a formulation of no kind": (path("lambda=1:2", "--set", "formulation.relu=magic"), "formulation.relu: got 'magic'"),
    # the run folder
    "output is a file": (file("runs", b"", "solve", "model.yaml", "--output", "runs"), "`runs` is a file"),
    "output below a file": (file("mine", b"", "solve", "model.yaml", "--output", "mine/run"), "`mine/run` cannot be made"),
    "output not ours": (file("mine/notes.txt", b"", "solve", "model.yaml", "--output", "mine"), "holds `notes.txt` and is no run folder"),
    "output empty": (solve("output=''"), "output: got ''; expected a string that is not empty"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "digits.safetensors", tmp_path)
    (tmp_path / "model.yaml").write_text(GOOD)
    prepare, phrase = CASES[name]
    arguments = prepare()
    before = sorted(tmp_path.rglob("*"))
    status = main(arguments)
    said = capsys.readouterr()
    assert status == 2, said.err
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.endswith("\n")
    assert said.err.count("\n") == 1, said.err
    assert phrase in said.err
    assert "Traceback" not in said.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_solver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mipnet.backend.contract, "find_spec", lambda name: None)
    assert main(["solve", str(EXAMPLES / "digits.yaml"), "--backend", "scip"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: --backend scip: solve.backend: backend `scip`: `pyscipopt` is not installed: pip install")
    assert not list(tmp_path.iterdir())


def test_the_good_file_is_good() -> None:
    assert yaml.safe_load(GOOD)["data"]["source"] == "digits"
    assert len(CASES) > 60
