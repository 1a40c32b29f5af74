"""The files and commands of reach, agree and compress, on networks whose answers are known by hand."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.files.values import decimal_comma_hint
from mipnet.app.runs import reach as runs_reach
from mipnet.errors import OutOfMemory, SolverFailure, TimeLimitReached

DIGITS = "region: {data: {source: digits}, index: 3, radius: 0.01, clip: [0, 1]}\n"


@pytest.fixture
def folder(tmp_path):
    """relu(x0) + 0.5 relu(x1 + 9) as net.pt2, and the same with 0.6 as other.pt2."""
    for name, factor in (("net", 0.5), ("other", 0.6)):
        module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
        with torch.no_grad():
            for value, given in zip(module.parameters(), (torch.eye(2), [0.0, 9.0], [[1.0, factor]], [0.0]), strict=True):
                value.copy_(torch.as_tensor(given))
        batch = torch.export.Dim("batch")
        program = torch.export.export(module, (torch.zeros(4, 2, dtype=torch.float64),), dynamic_shapes=({0: batch},))
        torch.export.save(program, tmp_path / f"{name}.pt2")
    return tmp_path


def written(folder, text):
    path = folder / "file.yaml"
    path.write_text(f"mipnet: 1\nnetwork: {{file: net.pt2}}\n{text}")
    return str(path)


BOX = "box: {lower: [-1, -2], upper: [2, 2]}\n"


def test_reach(folder, capsys):
    path = written(folder, f"task: reach\n{BOX}directions: [[2]]\noutput: {folder}/run\n")
    assert main(["reach", path, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    (row,) = record["functions"]
    assert row["least"]["value"] == pytest.approx(7.0)  # 2 (0 + 0.5 * 7)
    assert row["largest"]["value"] == pytest.approx(15.0)  # 2 (2 + 0.5 * 11)
    assert row["least"]["bound"] <= 7.0
    assert row["largest"]["bound"] >= 15.0
    assert json.loads((folder / "run" / "result.json").read_text()) == record
    assert main(["reach", str(folder / "run" / "reach.yaml"), "--quiet", "--output", str(folder / "again")]) == 0


def test_agree(folder, capsys):
    path = written(folder, f"task: agree\n{BOX}second: {{file: other.pt2}}\n")
    assert main(["agree", path, "--json", "--backend", "scip"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["largest"] == pytest.approx(1.1)  # 0.1 * 11
    assert 1.1 - 1e-9 <= record["bound"] <= 1.1 + 2e-4
    assert main(["agree", path, "--set", "agree.within=1"]) == 1
    assert "they do not agree" in capsys.readouterr().out
    assert main(["agree", path, "--set", "agree.about=class"]) == 2
    assert "classes need at least two" in capsys.readouterr().err


def test_compress(folder, capsys):
    saved = folder / "small.pt2"
    path = written(folder, f"task: compress\n{BOX}save: {saved}\n")
    assert main(["compress", path]) == 0
    assert "2 units, 0 always inactive, 1 always active, 1 unstable, 2 kept" in capsys.readouterr().out
    x = np.random.default_rng(0).uniform(-1, 2, (50, 2))
    np.testing.assert_allclose(mn.read(saved).forward(x), np.maximum(x[:, :1], 0) + 0.5 * (x[:, 1:] + 9), atol=1e-12)


def test_around_an_image(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))
    mn.export(module, tmp_path / "net.pt2", torch.zeros(1, 1, 8, 8))
    path = written(tmp_path, f"task: reach\n{DIGITS}solve: {{tolerance: 0.01}}\n")
    assert main(["reach", path, "--quiet"]) == 0


@pytest.mark.parametrize(
    ("task", "own"),
    [
        ("reach", {"box", "polytope", "hull", "directions"}),
        ("agree", {"box", "polytope", "hull", "second", "agree"}),
        ("compress", {"box", "polytope", "hull", "save"}),
        ("distortion", {"robust"}),
        ("margin", {"robust"}),
    ],
)
def test_the_schema_knows_the_keys(task, own, capsys):
    assert main(["schema", task]) == 0
    keys = json.loads(capsys.readouterr().out)["properties"]
    assert set(keys) == {"mipnet", "task", "network", "region", "solve", "output"} | own
    if task == "reach":
        assert main(["schema", "--reach"]) == 0
        assert json.loads(capsys.readouterr().out)["properties"] == keys


WRONG = {
    "another task": (f"task: reach\n{BOX}", "agree", "got 'reach'; such a file is for `mipnet reach`"),
    "no set": ("task: reach\n", "reach", "expected either `region`, around an image, or `box`"),
    "no second": (f"task: agree\n{BOX}", "agree", "second: this key is missing"),
    "idle key": (f"task: compress\n{BOX}directions: [[1]]\n", "compress", "line 5: directions: unknown key; expected one of mipnet, task"),
    "inputs": ("task: reach\nbox: {lower: [0], upper: 1}\n", "reach", "box.lower: got 1 numbers; the network has 2 inputs"),
    "empty box": ("task: reach\nbox: {lower: 1, upper: 0}\n", "reach", "the box is empty"),
    "rows": (f"task: reach\n{BOX}directions: [[1, 2]]\n", "reach", r"row 0 has 2 numbers; the network has 1 outputs"),
    "solver": (f"task: reach\n{BOX}solve: {{backend: none}}\n", "reach", "solve.backend"),
    "no folder": (f"task: compress\n{BOX}save: /nowhere/at/all.pt2\n", "compress", "no folder"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_end_in_one_line(what, folder, capsys):
    text, command, message = WRONG[what]
    assert main([command, written(folder, text)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def hand_worked(folder):
    """Class 1 gets ahead of class 0 as x0 - x1 > 0: one image (0.2, 0.8), so 0.3 away in linf, 0.6 in l1, 0.6 / sqrt 2 in l2."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        for value, given in zip(module.parameters(), (torch.eye(2), [0.0, 0.0], [[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0]), strict=True):
            value.copy_(torch.as_tensor(given))
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (torch.zeros(4, 2, dtype=torch.float64),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "net.pt2")
    np.savez(folder / "data.npz", images=np.array([[0.2, 0.8]]), labels=np.array([0]))


def region(norm, radius):
    return (
        f"region: {{data: {{source: npz, file: data.npz, images: images, labels: labels}}, norm: {norm}, radius: {radius}, clip: [0, 1]}}\n"
    )


@pytest.mark.parametrize("backend", ["highs", "scip"])
@pytest.mark.parametrize(("norm", "least"), [("linf", 0.3), ("l1", 0.6), ("l2", 0.6 / np.sqrt(2))])
def test_distortion(tmp_path, capsys, backend, norm, least):
    hand_worked(tmp_path)
    path = written(tmp_path, f"task: distortion\n{region(norm, 0.9)}solve: {{tolerance: 0.001, backend: {backend}}}\n")
    assert main(["distortion", path, "--json", "--output", str(tmp_path / "run")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["lower"] <= least + 1e-9 <= record["upper"] + 2e-9
    assert record["upper"] - record["lower"] <= 0.003
    x = np.array(record["point"])
    assert x[0] >= x[1]
    assert np.linalg.norm(x - [0.2, 0.8], {"linf": np.inf, "l1": 1, "l2": 2}[norm]) == pytest.approx(record["upper"])
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == record
    assert main(["distortion", path, "--set", "region.radius=0.1"]) == 0  # nothing that near
    assert "no other class within 0.1 in " + norm in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_margin(tmp_path, capsys, backend):
    hand_worked(tmp_path)
    path = written(tmp_path, f"task: margin\n{region('linf', 0.5)}solve: {{tolerance: 0.001}}\n")
    assert main(["margin", path, "--json", "--backend", backend]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["lower"] == pytest.approx(0.4)  # 0.7 - 0.3
    assert 0.4 - 1e-9 <= record["upper"] <= 0.402
    assert record["target"] == 1


def test_questions_about_an_image_take_no_box(tmp_path, capsys):
    hand_worked(tmp_path)
    assert main(["margin", written(tmp_path, f"task: margin\n{BOX}")]) == 2
    assert "line 4: box: unknown key; expected one of mipnet, task, network, solve, region, robust, output" in capsys.readouterr().err
    assert main(["margin", written(tmp_path, f"task: margin\n{region('linf', 0.5)}robust: {{label: 7}}\n")]) == 2
    assert "robust" in capsys.readouterr().err
    assert main(["reach", written(tmp_path, f"task: reach\n{BOX}robust: {{label: 1}}\n")]) == 2
    assert "robust: unknown key; expected one of" in capsys.readouterr().err
    for command in ("solve", "verify"):
        assert main([command, written(tmp_path, f"task: distortion\n{region('linf', 0.5)}")]) == 2
        assert "such a file is for `mipnet distortion`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("box: {lower: [0,5, 1], upper: [1, 2]}\n", "got 3 numbers; the network has 2 inputs; is there a decimal comma? .* such as 0.5"),
        (f"{BOX}directions: [[0,5]]\n", "row 0 has 2 numbers; the network has 1 outputs; is there a decimal comma?"),
        ("region: {data: {source: digits}, radius: 0.1, clip: [0, 0,5]}\n", r"region.clip: got \[0, 0, 5\]; .*; is there a decimal comma?"),
        ("box: {lower: [0, 1, 2, 3, 4], upper: [1, 2]}\n", "got 5 numbers; the network has 2 inputs$"),
    ],
)
def test_a_decimal_comma_in_a_list_is_named(folder, capsys, text, said):
    assert main(["reach", written(folder, f"task: reach\n{text}")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said.replace("?", r"\?"), line), line


@pytest.mark.parametrize(
    ("values", "wanted", "hint"),
    [
        ([0, 5, 1, 5], 2, "0.5"),
        ([2.5, 1, 7], 2, "1.7"),
        ((0.0, 5.0, 1.0), 2, "0.5"),
        ([0, 2, 0, 4], None, "0.2"),
        ([0, 1], 2, ""),
        ([0, 1, 2, 3], 1, ""),
        ([1.5, 2.5, 3.5], 2, ""),
        ([1, -1, 3.5], 2, ""),
        ([1, 2], None, ""),
        ("0,5", 1, ""),
    ],
)
def test_decimal_commas_are_guessed_from_pairs_of_whole_numbers(values, wanted, hint):
    assert decimal_comma_hint(values, wanted).endswith(f"such as {hint}" if hint else "")
    assert bool(decimal_comma_hint(values, wanted)) == bool(hint)


@pytest.mark.parametrize("error", [SolverFailure("it failed"), TimeLimitReached("no time"), OutOfMemory("no memory")])
def test_what_the_machine_could_not_do_is_status_1(folder, capsys, monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(runs_reach, "reach", failing)
    assert main(["reach", written(folder, f"task: reach\n{BOX}output: {folder}/run\n")]) == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    assert not (folder / "run").exists()


def test_a_time_limit_that_is_over_at_once_is_status_1_in_one_line(folder, capsys):
    path = written(folder, f"task: agree\n{BOX}second: {{file: other.pt2}}\nsolve: {{time_limit: 1.0e-9}}\n")
    status = main(["agree", path, "--quiet"])
    said = capsys.readouterr()
    assert status == 1
    assert "Traceback" not in said.err + said.out
