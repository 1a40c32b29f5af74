"""The files and commands of counterfactual and activation, on a network whose answers are known by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.app.cli.main import main
from tests.readers.onnx_graphs import dense_model
from tests.sweep import sweep


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """relu(a) - relu(b) + relu(c) - relu(-c) against 0.25 as two classes."""
    folder = tmp_path_factory.mktemp("answers")
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    weights = ([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1]], [0.0] * 4, [[0.0] * 4, [1.0, -1, 1, -1]], [0.25, 0.0])
    with torch.no_grad():
        for value, given in zip(module.parameters(), weights, strict=True):
            value.copy_(torch.tensor(given))
    (folder / "net.onnx").write_bytes(dense_model(module).SerializeToString())
    np.save(folder / "points.npy", [[0.0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 1]])
    (folder / "points.csv").write_text("c,a,b\n0,0,0\n0,2,0\n0,0,1\n1,0,0\n")
    (folder / "words.csv").write_text("a,b,c\nx,y,z\n")
    return folder


def written(folder: Path, text: str) -> str:
    path = folder / "file.yaml"
    path.write_text(f"mipnet: 1\nnetwork: {{file: net.onnx}}\n{text}")
    return str(path)


QUESTION = "task: counterfactual\ntarget: 1\nfeatures: {names: [a, b, c], immutable: [c]}\ninput: {a: 0.5, b: 1, c: 0}\n"


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_counterfactual(networks, tmp_path, capsys, backend):
    path = written(networks, f"{QUESTION}answers: {{margin: 0, count: 2}}\nsolve: {{backend: {backend}}}\n")
    assert main(["counterfactual", path, "--json", "--output", str(tmp_path / "run")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == record
    assert record["x"] == {"a": 0.5, "b": 1.0, "c": 0.0}
    first, second = record["answers"]
    assert first["status"] == second["status"] == "optimal"
    for each in (first, second):
        assert each["distance"] == pytest.approx(0.75, abs=1e-3)
        assert each["point"]["a"] - each["point"]["b"] == pytest.approx(0.25, abs=1e-3)
    assert main(["counterfactual", str(tmp_path / "run" / "counterfactual.yaml"), "--set", "features.immutable=[a, b, c]"]) == 0
    assert "answer 1: there is none, which is proven" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["points.csv", "points.npy"])
def test_answers_near_data(networks, capsys, file):
    """The hull has a / 2 + b + c <= 1; the columns of the table stand in another order than the inputs."""
    path = written(networks, f"{QUESTION}hull: {{file: {file}}}\nanswers: {{margin: 0}}\n")
    assert main(["counterfactual", path, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    a, b = answer["point"]["a"], answer["point"]["b"]
    assert a / 2 + b <= 1 + 1e-6
    assert a - b >= 0.25 - 1e-9
    grid = np.stack(np.meshgrid(np.linspace(0, 2, 401), np.linspace(0, 1, 401)), -1).reshape(-1, 2)
    good = grid[(grid[:, 0] / 2 + grid[:, 1] <= 1) & (grid[:, 0] - grid[:, 1] >= 0.25)]
    assert answer["distance"] == pytest.approx(np.abs(good - [0.5, 1.0]).sum(axis=1).min(), abs=5e-3)


def test_activation(networks, tmp_path, capsys):
    path = written(networks, "task: activation\nunit: {class: 1}\nbox: {lower: [-1, -1, -2], upper: [1, 2, 2]}\n")
    assert main(["activation", path, "--json", "--output", str(tmp_path / "run")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["value"] == pytest.approx(2.75)
    assert record["bound"] >= 2.75
    first = mn.read(networks / "net.onnx").nodes[0].name
    assert main(["activation", path, "--set", f"unit={{node: {first}, element: 3}}"]) == 0
    assert f"element 3 of `{first}`: 2 <= largest <= 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("within", "largest"), sweep([("hull: {file: points.npy}", 1.75), ("polytope: {matrix: [[1, 1, 1]], rhs: [1], lower: 0}", 0.75)], 2)
)
def test_other_input_sets(networks, capsys, within, largest):
    assert main(["activation", written(networks, f"task: activation\nunit: {{class: 1}}\n{within}\n"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(largest, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (QUESTION + "hull: {file: missing.csv}\n", "hull.file: no file"),
        (QUESTION + "hull: {file: words.csv}\n", "hull: the array of points"),
        (QUESTION + "hull: {file: net.onnx}\n", "hull.file: .* has no suffix .csv or .npy"),
        (QUESTION + "hull: {file: points.csv}\nbox: {lower: 0, upper: 1}\n", "2 input sets are given"),
        (QUESTION + "polytope: {matrix: [[1, 1], [1]], rhs: [1, 2]}\n", "polytope: the rows of `matrix` have \\[1, 2\\] numbers"),
        (QUESTION + "polytope: {matrix: [[1, 1, 1]], rhs: [-1], lower: 0}\n", "polytope: the polytope is empty"),
        (QUESTION.replace("[c]", "[z]"), "input: `immutable` has the feature 'z'; the features are a, b, c"),
        (QUESTION.replace("[a, b, c]", "[a, b]"), "features.names: .*expected one for each of its elements"),
        (QUESTION.replace("target: 1", "target: two"), "target: got 'two'; expected a class, a list of classes"),
        (QUESTION.replace("target: 1", "target: 7"), "expected a class from 0 to 1"),
        (QUESTION + "distance: {nrm: l1}\n", "distance.nrm: unknown key; did you mean `norm`"),
        ("task: activation\nbox: {lower: 0, upper: 1}\nunit: {class: 1, node: fc1}\n", "both `class` and `node` are given"),
        ("task: activation\nbox: {lower: 0, upper: 1}\nunit: {node: gemm}\n", "unit: no node is called `gemm`"),
        ("task: activation\nunit: {class: 1}\n", "neither of `region` and `box` is given; expected either"),
    ],
)
def test_wrong_files(networks, capsys, text, message):
    assert main([text.split()[1], written(networks, text)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said), said
