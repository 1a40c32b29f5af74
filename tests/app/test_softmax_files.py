"""Every command on a network that ends in a softmax: answers about its outputs, as onnxruntime computes them, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import yaml
from onnx import TensorProto
from torch import nn

import mipnet as mn
from mipnet.app.cli.main import main
from tests.readers.onnx_graphs import NODE, model
from tests.sweep import sweep

Capture = pytest.CaptureFixture[str]
BACKENDS = ("highs", "scip")
BOX = {"lower": [-1.0, -0.5], "upper": [1.0, 1.0]}
KINDS = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}


def body(outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, outputs)).double().eval()
    with torch.no_grad():
        module[2].weight.mul_(2)
    return module


def saved(path: Path, module: nn.Sequential, operator: str) -> None:
    """Write a body, and one operator after it, as an ONNX file in float64."""
    first, last = ([value.detach().numpy() for value in (module[k].weight, module[k].bias)] for k in (0, 2))
    constants = {"a": first[0].T, "b": first[1], "c": last[0].T, "d": last[1]}
    nodes: list[NODE] = [("MatMul", ["x", "a"], "p", {}), ("Add", ["p", "b"], "z", {}), ("Relu", ["z"], "h", {})]
    nodes += [("MatMul", ["h", "c"], "q", {}), ("Add", ["q", "d"], "v", {}), (operator, ["v"], "y", {})]
    path.write_bytes(model(nodes, constants, ("N", 2), 13, kind=TensorProto.DOUBLE).SerializeToString())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same layers as logits.onnx, softmax.onnx and log_softmax.onnx, and a data set of four images."""
    monkeypatch.chdir(tmp_path)
    for name, operator in (("logits", "Identity"), *KINDS.items()):
        saved(tmp_path / f"{name}.onnx", body(), operator)
    images = np.array([[0.2, 0.3], [-0.6, 0.4], [0.9, -0.2], [0.1, 0.9]])
    labels = mn.read(tmp_path / "logits.onnx").forward(images).argmax(axis=1)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    return tmp_path


def outputs(path: str | Path, x: Any) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = np.asarray(x, np.float64).reshape(-1, 1, 2)
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: row})[0] for row in rows])


def points() -> np.ndarray:
    low, high = np.array(BOX["lower"]), np.array(BOX["upper"])
    return low + np.random.default_rng(0).uniform(size=(1500, 2)) * (high - low)


def asked(task: str, network: str, **keys: Any) -> str:
    file = {"mipnet": 1, "task": task, "network": {"file": network}, **keys}
    Path(f"{task}.yaml").write_text(yaml.safe_dump(file))
    return f"{task}.yaml"


def record(*command: str, capsys: Capture, status: int = 0) -> dict[str, Any]:
    assert main([*command, "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


DATA = {"source": "npz", "file": "data.npz", "images": "images", "labels": "labels"}
REGION = {"data": DATA, "index": 0, "radius": 0.2, "norm": "linf"}


@pytest.mark.parametrize(("kind", "backend"), sweep([(kind, backend) for kind in KINDS for backend in BACKENDS], every=3))
def test_reach(folder: Path, kind: str, backend: str, capsys: Capture) -> None:
    path = asked("reach", f"{kind}.onnx", box=BOX, solve={"tolerance": 1e-2})
    found = record("reach", path, "--backend", backend, capsys=capsys)
    y = outputs(f"{kind}.onnx", points())
    assert found["softmax"] == kind
    for k, ends in enumerate(found["functions"]):
        assert ends["least"]["bound"] <= y[:, k].min() + 1e-12
        assert y[:, k].max() <= ends["largest"]["bound"] + 1e-12
        assert outputs(f"{kind}.onnx", ends["largest"]["point"])[0, k] == pytest.approx(ends["largest"]["value"], abs=1e-9)
    assert main(["reach", path]) == 0
    assert f"probabilities, the network ends in a {kind}" in capsys.readouterr().out
    asked("reach", f"{kind}.onnx", box=BOX, directions=[[1.0, -1.0, 0.5]])
    assert main(["reach", path]) == 2
    error = capsys.readouterr().err
    assert "directions: direction 0 joins 3 outputs" in error
    assert kind in error


def test_agree(folder: Path, capsys: Capture) -> None:
    for kind in KINDS:
        found = record("agree", asked("agree", f"{kind}.onnx", box=BOX, second={"file": f"{kind}.onnx"}), capsys=capsys)
        assert (found["agree"], found["softmax"]) == (True, kind)
        for second in {"logits", *KINDS} - {kind}:
            path = asked("agree", f"{kind}.onnx", box=BOX, second={"file": f"{second}.onnx"})
            assert main(["agree", path]) == 2
            error = capsys.readouterr().err
            assert "second: the first network ends in a" in error
            assert "different quantities" in error
            found = record("agree", path, "--set", "agree.about=class", capsys=capsys)
            assert found["agree"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_agree_says_how_far_the_outputs_differ(folder: Path, kind: str, capsys: Capture) -> None:
    other = body()
    with torch.no_grad():
        other[0].weight.mul_(1.3)
    saved(folder / "other.onnx", other, KINDS[kind])
    path = asked("agree", f"{kind}.onnx", box=BOX, second={"file": "other.onnx"}, agree={"within": 0.01})
    found = record("agree", path, capsys=capsys, status=1)
    apart = np.abs(outputs(f"{kind}.onnx", points()) - outputs("other.onnx", points())).max()
    assert found["agree"] is False
    assert 0.01 < found["largest"] <= found["bound"]
    assert apart <= found["bound"]
    there = np.abs(outputs(f"{kind}.onnx", found["point"]) - outputs("other.onnx", found["point"])).max()
    assert there == pytest.approx(found["largest"], abs=1e-9)


@pytest.mark.parametrize(("kind", "suffix"), [("softmax", "onnx"), ("log_softmax", "pt2"), ("softmax", "safetensors")])
def test_compress_saves_the_softmax(folder: Path, kind: str, suffix: str, capsys: Capture) -> None:
    small = {"lower": [0.1, 0.2], "upper": [0.3, 0.4]}
    found = record("compress", asked("compress", f"{kind}.onnx", box=small, save=f"small.{suffix}"), capsys=capsys)
    assert found["agreement"]["agree"] is True
    if suffix == "safetensors":
        sheet = yaml.safe_load(Path("small.layers.yaml").read_text())["network"]
        network = mn.read("small.safetensors", sheet["layers"], sheet["input_shape"])
    else:
        network = mn.read(f"small.{suffix}")
    x = 0.1 + 0.2 * np.random.default_rng(0).uniform(size=(100, 2)) + [0, 0.1]
    assert np.abs(network.outputs(x) - outputs(f"{kind}.onnx", x)).max() < 1e-9
    if suffix == "onnx":
        assert np.abs(outputs("small.onnx", x) - outputs(f"{kind}.onnx", x)).max() < 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
def test_margin_says_that_it_is_of_logits(folder: Path, backend: str, capsys: Capture) -> None:
    found = {}
    for name in ("logits", *KINDS):
        path = asked("margin", f"{name}.onnx", region=REGION, solve={"tolerance": 1e-3})
        found[name] = record("margin", path, "--backend", backend, capsys=capsys)
        assert main(["margin", path]) == 0
        assert ("margin: a difference of logits" in capsys.readouterr().out) == (name == "softmax")
        assert np.allclose(found[name]["outputs"], outputs(f"{name}.onnx", found[name]["point"])[0])
    assert [each["scale"] for each in found.values()] == ["outputs", "logits", "outputs"]
    for name in KINDS:
        assert found[name]["lower"] == pytest.approx(found["logits"]["lower"], abs=1e-6)
    p = np.array(found["softmax"]["outputs"])
    assert np.log(p[found["softmax"]["target"]] / p[found["softmax"]["label"]]) == pytest.approx(found["softmax"]["lower"], abs=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_distortion_is_the_same_with_a_softmax(folder: Path, backend: str, capsys: Capture) -> None:
    found = []
    for name in ("logits", *KINDS):
        path = asked("distortion", f"{name}.onnx", region={**REGION, "radius": 2.0}, solve={"tolerance": 1e-3})
        found.append(record("distortion", path, "--backend", backend, capsys=capsys))
        assert np.allclose(found[-1]["outputs"], outputs(f"{name}.onnx", found[-1]["point"])[0])
    assert len({round(each["upper"], 6) for each in found}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_robustness_is_the_same_with_a_softmax(folder: Path, kind: str, capsys: Capture) -> None:
    for radius in (0.01, 1.5):
        region = {**REGION, "radius": radius}
        both = [record("verify", asked("verify", f"{name}.onnx", region=region), capsys=capsys) for name in ("logits", kind)]
        assert both[0]["verdict"] == both[1]["verdict"] == ("unsat" if radius < 1 else "sat")
        assert both[1]["note"] == ""
        if radius > 1:
            assert np.allclose(both[1]["output"], outputs(f"{kind}.onnx", both[1]["counterexample"])[0])


def test_verify_a_threshold_from_every_door(folder: Path, capsys: Capture) -> None:
    """A property about a probability: from two files, from a YAML file, from a list of instances, and from Python."""
    largest = outputs("softmax.onnx", points())[:, 1].max()
    for limit, verdict in ((largest + 0.02, "unsat"), (largest - 0.01, "sat")):
        names = [f"(declare-const {n} Real)" for n in ("X_0", "X_1", "Y_0", "Y_1", "Y_2")]
        box = [f"(assert (>= X_{k} {BOX['lower'][k]})) (assert (<= X_{k} {BOX['upper'][k]}))" for k in range(2)]
        Path("p.vnnlib").write_text("\n".join([*names, *box, f"(assert (>= Y_1 {limit}))"]))
        files = record("verify", "softmax.onnx", "p.vnnlib", capsys=capsys)
        sheet = record("verify", asked("verify", "softmax.onnx", property="p.vnnlib"), capsys=capsys)
        assert files["verdict"] == sheet["verdict"] == verdict
        assert "in whose units the bound is" in files["note"]
        Path("i.csv").write_text("softmax.onnx,p.vnnlib,20\n")
        assert main(["verify", "--instances", "i.csv", "--output", f"run-{verdict}", "-q"]) == 0
        assert verdict in Path(f"run-{verdict}/results.csv").read_text()
        network = mn.read("softmax.onnx")
        region = mn.Box(np.array([BOX["lower"]]), np.array([BOX["upper"]]))
        question = mn.property_of(lambda x, y, limit=limit: y[1] >= limit, region, 3)
        answer = mn.verify(network, question)
        assert answer.status == verdict
        if verdict == "sat":
            assert outputs("softmax.onnx", files["counterexample"])[0, 1] >= limit
            assert outputs("softmax.onnx", answer.counterexample)[0, 1] >= limit - 1e-12


def test_a_property_that_cannot_be_rewritten_names_the_key(folder: Path, capsys: Capture) -> None:
    names = [f"(declare-const {n} Real)" for n in ("X_0", "X_1", "Y_0", "Y_1", "Y_2")]
    box = [f"(assert (>= X_{k} -1)) (assert (<= X_{k} 1))" for k in range(2)]
    Path("p.vnnlib").write_text("\n".join([*names, *box, "(assert (>= (+ Y_0 Y_1) -1))"]))
    assert main(["verify", asked("verify", "log_softmax.onnx", property="p.vnnlib")]) == 2
    error = capsys.readouterr().err
    assert "property: a row of the property joins 2 outputs, and the network ends in a log_softmax" in error


def test_solve_and_inspect_name_it(folder: Path, capsys: Capture) -> None:
    assert record("inspect", "softmax.onnx", capsys=capsys)["softmax"] == {"kind": "softmax", "axes": [0]}
    data = {**DATA, "holdout": "train", "total": 3}
    both = []
    for name in ("logits", "softmax"):
        path = asked("importance", f"{name}.onnx", data=data, solve={"time_limit": 20})
        both.append(record("solve", path, capsys=capsys))
    assert both[0]["objective"] == pytest.approx(both[1]["objective"], abs=1e-5)
    assert any("final softmax was taken off" in note for note in both[1]["notes"])
    assert main(["bounds", "importance.yaml"]) == 0
    assert "of the logits, before the softmax" in capsys.readouterr().out


def asked_of_logits(folder: Path, task: str, rest: str, name: str = "softmax") -> str:
    path = folder / f"{task}.yaml"
    path.write_text(
        f"mipnet: 1\ntask: {task}\nnetwork: {{file: {name}.onnx, outputs: logits}}\nbox: {{lower: [-1, -0.5], upper: [1, 1]}}\n{rest}"
    )
    return str(path)


def test_a_file_may_ask_for_the_logits(folder: Path, capsys: Capture) -> None:
    assert main(["reach", asked_of_logits(folder, "reach", ""), "--json"]) == 0
    asked = json.loads(capsys.readouterr().out)
    wanted = mn.reach(mn.read(folder / "logits.onnx"), mn.Box([[-1.0, -0.5]], [[1.0, 1.0]]))
    for row, low, high in zip(asked["functions"], wanted.lowest, wanted.highest, strict=True):
        assert row["least"]["bound"] == pytest.approx(low.bound, abs=1e-3)
        assert row["largest"]["bound"] == pytest.approx(high.bound, abs=1e-3)
        assert row["largest"]["bound"] > 1 or row["least"]["bound"] < 0, "no probability"


def test_a_property_of_logits_is_confirmed_by_logits(folder: Path, capsys: Capture) -> None:
    least = min(end.value for end in mn.reach(mn.read(folder / "logits.onnx"), mn.Box([[-1.0, -0.5]], [[1.0, 1.0]])).lowest)
    assert least < -0.1, "no probability is so small"
    declared = "\n".join([*(f"(declare-const X_{k} Real)" for k in range(2)), *(f"(declare-const Y_{k} Real)" for k in range(3))])
    ends = "(assert (>= X_0 -1))(assert (<= X_0 1))(assert (>= X_1 -0.5))(assert (<= X_1 1))"
    for threshold, verdict in ((least + 0.05, "sat"), (least - 0.05, "unsat")):
        rows = " ".join(f"(and (<= Y_{k} {threshold:.6f}))" for k in range(3))
        (folder / "p.vnnlib").write_text(f"{declared}\n{ends}\n(assert (or {rows}))\n")
        text = "mipnet: 1\ntask: verify\nnetwork: {file: softmax.onnx, outputs: logits}\nproperty: p.vnnlib\n"
        (folder / "v.yaml").write_text(text)
        main(["verify", "v.yaml", "--json"])
        assert json.loads(capsys.readouterr().out)["verdict"] == verdict


def test_logits_of_a_network_without_softmax_are_refused_in_one_line(folder: Path, capsys: Capture) -> None:
    assert main(["reach", asked_of_logits(folder, "reach", "", "logits")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "line 3: network.outputs: the network has no softmax at its end" in line
    assert main(["reach", asked_of_logits(folder, "reach", ""), "--set", "network.outputs=logit"]) == 2
    assert "expected `file` or `logits`; did you mean `logits`?" in capsys.readouterr().err
