"""A file of `task: verify`: robustness around an image against a hand-made property, its folder, and what is wrong with others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.files.base import load_as
from mipnet.app.files.verify_file import VerifyFile
from mipnet.app.runs.verify import run_verification
from tests.verification.questions import asked, distance, point_of

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = (EXAMPLES / "verify.yaml").read_text()
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder with the example, and with a question of two files."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "digits.safetensors", tmp_path)
    (tmp_path / "verify.yaml").write_text(GOOD.replace("cross_check: scip", "cross_check: null"))
    distance(tmp_path / "net.onnx")
    asked(tmp_path / "p.vnnlib", "(>= Y_0 0.9)")
    (tmp_path / "files.yaml").write_text("mipnet: 1\ntask: verify\nnetwork: {file: net.onnx}\nproperty: p.vnnlib\n")
    return tmp_path


def module() -> nn.Module:
    """The network of the example in torch."""
    found = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 10)).double()
    stored = load_file(EXAMPLES / "digits.safetensors")
    found.load_state_dict({f"{k}.{part}": stored[f"fc{n}.{part}"] for k, n in ((0, 1), (2, 2), (4, 3)) for part in ("weight", "bias")})
    return found


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.15), ("l1", 4.0), ("l2", 1.2)])
def test_a_point_changes_the_answer_of_torch(norm: str, radius: float) -> None:
    sets = [f"region.norm={norm}", f"region.radius={radius}", "output=null"]
    done = run_verification(load_as(VerifyFile, "verify.yaml", sets))
    assert done.word == "sat"
    image = mn.load("digits", split="test", shape=(64,))
    x, (centre, label) = done.verdict.counterexample, (image.images[3], image.labels[3])
    order = {"linf": np.inf, "l1": 1, "l2": 2}[norm]
    assert np.linalg.norm(x - centre, order) <= radius + 1e-9
    assert (x >= 0).all()
    assert (x <= 1).all()
    y = module()(torch.tensor(x)).detach().numpy()
    assert max(np.delete(y, label)) >= y[label]
    assert np.allclose(centre * 16, np.round(centre * 16))  # an image of scikit-learn's
    assert any((16 * centre == row).all() for row in load_digits().data)


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_unsat_and_the_folder(backend: str, elsewhere: Path, capsys: Capture) -> None:
    assert main(["verify", "verify.yaml", "--backend", backend, "--output", "out", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["backend"]) == ("unsat", backend)
    assert sorted(path.name for path in Path("out").iterdir()) == ["result.json", "result.txt", "verify.yaml"]
    assert json.loads(Path("out/result.json").read_text()) == found
    assert Path("out/result.txt").read_text() == "unsat\n"
    written = yaml.safe_load(Path("out/verify.yaml").read_text())
    assert written["network"]["file"] == str(elsewhere / "digits.safetensors")
    image = mn.load("digits", split="test", shape=(64,))
    near = image.images[3] + np.random.default_rng(0).uniform(-0.05, 0.05, (2000, 64))
    assert (module()(torch.tensor(near.clip(0, 1))).argmax(1) == int(image.labels[3])).all()


def test_what_is_written_can_be_run_again_from_elsewhere(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    assert main(["verify", "files.yaml", "-q", "--set", "output=out"]) == 0
    (elsewhere / "other").mkdir()
    monkeypatch.chdir(elsewhere / "other")
    assert main(["verify", "../out/verify.yaml", "-q", "--results-file", "again.txt"]) == 0
    x, _ = point_of(Path("again.txt").read_text())
    assert abs(x[0] - x[1]) >= 0.9
    assert Path("../out/result.txt").read_text().startswith("sat\n")


def test_targets() -> None:
    """Within 0.15 some class draws level; whether class 0 can beat all is asked alone."""
    label = int(mn.load("digits", split="test", shape=(64,)).labels[3])
    target = 0 if label else 1
    done = run_verification(load_as(VerifyFile, "verify.yaml", ["region.radius=0.4", f"robust.targets=[{target}]", "output=null"]))
    assert done.word == "sat"
    y = module()(torch.tensor(done.verdict.counterexample)).detach().numpy()
    assert y.argmax() == target


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


BAD = {
    "unknown key": (edited("radius:", "radious:"), "bad.yaml, line 13: region.radious: unknown key; did you mean `radius`?"),
    "no radius": (edited("radius: 0.05, ", ""), "line 13: region.radius: this key is missing"),
    "radius 0": (edited("radius: 0.05", "radius: 0"), "line 13: region.radius: got 0; expected a number greater than 0"),
    "norm": (edited("norm: linf", "norm: l7"), "region.norm: got 'l7'; expected `linf`, `l1` or `l2`"),
    "clip": (edited("[0, 1]", "[1, 0]"), "region.clip: got [1, 0]; expected two numbers, the smaller one first"),
    "index": (edited("index: 3", "index: 30000"), "line 13: region.index: got 30000; `digits` has 359 images"),
    "data": (edited("source: digits", "source: letters"), "region.data.source: got 'letters'"),
    "idle": (edited("source: digits", "source: digits, root: x"), "region.data.root: got 'x'; it has no effect for source `digits`"),
    "label": (edited("robust: {}", "robust: {label: 10}"), "line 14: robust: there is no class 10; the network has 10 outputs"),
    "targets": (edited("robust: {}", "robust: {label: 3, targets: [3]}"), "line 14: robust: the targets are [3] and the label is 3"),
    "targets empty": (edited("robust: {}", "robust: {targets: []}"), "robust.targets: got []; expected a list of classes"),
    "both": (edited("robust: {}", "property: p.vnnlib"), "line 13: region: `property` contains the input set already"),
    "neither": ("mipnet: 1\ntask: verify\nnetwork: {file: net.onnx}\n", "property: this key is missing"),
    "no region": ("mipnet: 1\ntask: verify\nnetwork: {file: net.onnx}\nrobust: {}\n", "region: this key is missing"),
    "no property": ("mipnet: 1\ntask: verify\nnetwork: {file: net.onnx}\nproperty: q.vnnlib\n", "line 4: property: no file"),
    "no network": (edited("digits.safetensors", "letters.safetensors"), "network.file: no file"),
    "another network": (
        "mipnet: 1\ntask: verify\nnetwork: {file: net.onnx}\nproperty: wide.vnnlib\n",
        "line 4: property: the property is written for 3 inputs",
    ),
    "backend": (edited("backend: highs", "backend: abacus"), "solve.backend: "),
    "second": (edited("cross_check: scip", "cross_check: abacus"), "solve.cross_check: "),
    "option": (edited("time_limit: 60", "options: {speed: 9}"), "solve.options.speed: HiGHS has no option `speed`"),
    "time": (edited("time_limit: 60", "time_limit: -1"), "solve.time_limit: got -1; expected a number of seconds greater than 0"),
    "another task": (edited("task: verify", "task: importance"), "task: got 'importance'; such a file is for `mipnet solve`"),
    "compare": (edited("task: verify", "task: compare"), "task: got 'compare'; such a file is for `mipnet compare`"),
    "folder": (edited("runs/verified", "."), "holds `bad.yaml` and is no run folder"),
    "not yaml": ("mipnet: [1", "not YAML"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_one_line(name: str, elsewhere: Path, capsys: Capture) -> None:
    text, phrase = BAD[name]
    Path("bad.yaml").write_text(text)
    asked(Path("wide.vnnlib"), "(>= Y_0 0.9)", inputs=3)
    before = sorted(elsewhere.rglob("*"))
    status, said = main(["verify", "bad.yaml"]), capsys.readouterr()
    assert status == 2, said
    assert said.out == ""
    assert said.err.startswith("error: bad.yaml") or "abacus" in said.err or name == "folder"
    assert said.err.count("\n") == 1, said.err
    assert phrase in said.err
    assert sorted(elsewhere.rglob("*")) == before


def test_other_files_beside_it_are_refused(capsys: Capture) -> None:
    assert main(["verify", "files.yaml", "p.vnnlib"]) == 2
    assert "`files.yaml` names its own network and property" in capsys.readouterr().err
    assert main(["verify", "files.yaml", "--timeout", "3", "--set", "solve.time_limt=3"]) == 2
    assert "did you mean `time_limit`?" in capsys.readouterr().err


def test_its_schema(capsys: Capture) -> None:
    assert main(["schema", "--verify"]) == 0
    assert {"network", "property", "region", "robust"} <= set(json.loads(capsys.readouterr().out)["properties"])
