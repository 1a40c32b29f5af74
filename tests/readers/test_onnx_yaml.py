"""An ONNX file as the network of a YAML file and of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto

from mipnet.app.cli.main import main
from tests.readers.onnx_graphs import model, numbers

HIDDEN = numbers(8, 10)


def digits(scale: float = 1.0) -> ModelProto:
    first = (numbers(64, 8) * scale).astype(np.float32)
    nodes = [("MatMul", ["x", "fc1.weight"], "a", {}), ("Relu", ["a"], "b", {}), ("MatMul", ["b", "fc2.weight"], "y", {})]
    return model(nodes, {"fc1.weight": first, "fc2.weight": HIDDEN}, ("N", 64))


YAML = """
mipnet: 1
task: importance
network: {file: net.onnx}
data: {source: digits, per_class: 1}
objective: {weight: 5}
formulation: {relu: frozen, pattern: free}
solve: {backend: BACKEND, time_limit: 30}
output: run
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(digits().SerializeToString())
    (tmp_path / "model.yaml").write_text(YAML.replace("BACKEND", "highs"))
    return tmp_path


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_solve(folder: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same question about the same weights in a state dict has the same answer."""
    (folder / "model.yaml").write_text(YAML.replace("BACKEND", backend))
    assert main(["solve", "model.yaml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    torch.save({"0.weight": torch.tensor(numbers(64, 8).T), "2.weight": torch.tensor(HIDDEN.T)}, folder / "net.pt")
    first, last = (f"type: Linear, in_features: {i}, out_features: {o}, bias: false" for i, o in ((64, 8), (8, 10)))
    inline = f"network: {{file: net.pt, input_shape: [64], layers: [{{{first}}}, {{type: ReLU}}, {{{last}}}]}}"
    text = YAML.replace("BACKEND", backend).replace("network: {file: net.onnx}", inline).replace("output: run", "output: other")
    (folder / "model.yaml").write_text(text)
    assert main(["solve", "model.yaml", "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)
    assert found["verified"]
    assert abs(found["objective"] - wanted["objective"]) < 1e-6
    assert [layer["total"] for layer in found["layers"].values()] == [8]


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "net.onnx", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [gate["units"] for gate in data["gates"]] == [8]
    assert main(["inspect", "model.yaml"]) == 0
    assert "fc1" in capsys.readouterr().out


def test_layers_do_not_go_with_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = YAML.replace("BACKEND", "highs").replace("{file: net.onnx}", "{file: net.onnx, input_shape: [64]}")
    (folder / "model.yaml").write_text(text)
    assert main(["solve", "model.yaml"]) == 2
    assert "holds a whole network, and `input_shape` is for files of weights; leave" in capsys.readouterr().err


def test_a_wrong_network_names_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net.onnx").write_bytes(digits(np.nan).SerializeToString())
    assert main(["solve", "model.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "model.yaml, line 4: network" in said
    assert "512 NaN or infinite" in said
