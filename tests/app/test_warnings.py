"""Warnings of a result stand on the screen and in the JSON of every command, and nothing stands there when all is fine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mipnet.app.cli.main import main
from tests.limits.room import readings

Capture = pytest.CaptureFixture[str]

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "digits.yaml"


@pytest.fixture
def spoiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the digits, with a network that was trained on images 255 times as large, so that it guesses."""
    weights = load_file(EXAMPLES / "digits.safetensors")
    weights["fc1.weight"] = weights["fc1.weight"] / 255
    save_file(weights, tmp_path / "digits.safetensors")
    (tmp_path / "digits.yaml").write_text(DIGITS.read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "digits.yaml"


FAST = ["--set", "formulation={relu: frozen}", "--set", "output=null"]


def record(capsys: Capture, *command: str) -> tuple[dict, str]:
    """The JSON that a command prints, and what it prints on standard error."""
    capsys.readouterr()
    main([*command, "--json", *(["--quiet"] if command[0] != "bounds" else [])])
    out, error = capsys.readouterr()
    return json.loads(out), error


def test_solve_is_silent_when_all_is_fine(capsys: Capture) -> None:
    found, error = record(capsys, "solve", str(DIGITS), *FAST)
    assert found["warnings"] == []
    assert error == ""


def test_solve_says_that_images_look_unscaled(spoiled: Path, capsys: Capture) -> None:
    found, error = record(capsys, "solve", str(spoiled), *FAST)
    text = found["warnings"][0]
    assert text.startswith("the images look unscaled: the network names the label of ")
    assert text.endswith(" % if they are multiplied by 255")
    assert f"warning: {text}\n" in error
    main(["solve", str(spoiled), *FAST])
    assert "warning: the images look unscaled" in capsys.readouterr().out


def test_solve_says_that_it_stopped_and_that_its_mask_is_no_better_than_random(tmp_path: Path, capsys: Capture) -> None:
    """The held-out images are all the same and each label stands equally often: every mask is right for one in ten of them."""
    np.savez(tmp_path / "train.npz", images=np.random.default_rng(0).random((4, 64)), labels=np.arange(4))
    np.savez(tmp_path / "test.npz", images=np.full((100, 64), 0.5), labels=np.arange(100) % 10)
    data = f"data={{source: npz, root: {tmp_path}, file: '{{split}}.npz', total: 4, classes: 10, holdout: test}}"
    options = ["--set", data, "--set", "output=null", "--set", "prune.threshold={params: 0.6}"]
    found, _ = record(capsys, "solve", str(DIGITS), *options, "--set", "formulation={bounds: sound}", "--set", "solve.nodes=1")
    assert found["status"] == "node limit"
    kinds = ("the solve stopped (node limit) with ", "the mask does no better than random ones ")
    assert [sum(text.startswith(kind) for text in found["warnings"]) for kind in kinds] == [1, 1]


def test_a_path_names_the_point(capsys: Capture) -> None:
    found, _ = record(capsys, "solve", str(DIGITS), *FAST, "--path", "lambda=0.01:5:2", "--set", "prune.threshold={params: 0.85}")
    assert all(text.startswith("at lambda ") for text in found["warnings"])


@pytest.mark.sweep
def test_compare_says_it_too(spoiled: Path, capsys: Capture) -> None:
    (spoiled.parent / "compare.yaml").write_text((EXAMPLES / "compare.yaml").read_text())
    few = ["--set", "compare.rivals=[random]", "--set", "compare.shares=[0.4]", "--set", "output=null"]
    found, _ = record(capsys, "compare", str(spoiled.parent / "compare.yaml"), *few)
    assert any("the images look unscaled" in text for text in found["warnings"])
    main(["compare", str(spoiled.parent / "compare.yaml"), *few])
    assert "warning: the images look unscaled" in " ".join(capsys.readouterr().out.split())
    found, error = record(capsys, "compare", str(EXAMPLES / "compare.yaml"), *few)
    assert found["warnings"] == []
    assert "warning" not in error


REGION = "region: {data: {source: digits, split: test}, index: 0, radius: 0.05, clip: [0, 1]}\n"


@pytest.mark.parametrize("task", ["reach", "verify", "margin", "distortion", "compress"])
def test_commands_about_one_image(task: str, spoiled: Path, capsys: Capture) -> None:
    """The images around which something is proven are tested as well; the network of the example is fine."""
    network = DIGITS.read_text().partition("network:\n")[2].partition("# The program")[0]
    for folder, expected in ((EXAMPLES, 0), (spoiled.parent, 1)):
        text = network.replace("digits.safetensors #", f"{folder}/digits.safetensors #")
        path = spoiled.parent / f"{task}.yaml"
        path.write_text(f"mipnet: 1\ntask: {task}\nnetwork:\n{text}{REGION.replace('0.05', '0.001')}solve: {{time_limit: 60}}\n")
        found, error = record(capsys, task, str(path))
        unscaled = [text for text in found["warnings"] if text.startswith("the images look unscaled")]
        assert len(unscaled) == expected
        assert error.count("warning: the images look unscaled") == expected
        main([task, str(path)])
        out = " ".join(capsys.readouterr().out.split())
        assert out.count("the images look unscaled") == expected


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of 64-1500-1500-10, and images for it."""
    torch.manual_seed(0)
    layers = [("a", 64, 1500), ("b", 1500, 1500), ("c", 1500, 10)]
    weights = {f"{name}.weight": torch.randn(rows, columns) * (2 / columns) ** 0.5 for name, columns, rows in layers}
    save_file(weights | {f"{name}.bias": torch.zeros(rows) for name, _, rows in layers}, tmp_path / "wide.safetensors")
    np.savez(tmp_path / "images.npz", images=np.random.default_rng(0).random((20, 64)), labels=np.arange(20) % 10)
    parts = ", ".join(f"{{name: {name}, type: Linear, in_features: {i}, out_features: {o}}}" for name, i, o in layers)
    parts = parts.replace("}, ", "}, {name: RELU, type: ReLU}, ").replace("RELU", "relu1", 1).replace("RELU", "relu2", 1)
    network = f"network: {{file: wide.safetensors, input_shape: [64], layers: [{parts}]}}\n"
    monkeypatch.chdir(tmp_path)
    data = "data: {source: npz, file: images.npz, total: 20, holdout: none}\n"
    (tmp_path / "model.yaml").write_text(f"mipnet: 1\ntask: importance\n{network}{data}")
    (tmp_path / "reach.yaml").write_text(
        f"mipnet: 1\ntask: reach\n{network}box: {{lower: 0.4, upper: 0.6}}\ndirections: [{[1] + [0] * 9}]\n"
    )
    return tmp_path


def test_a_program_that_does_not_fit_is_one_line_and_exit_status_2(wide: Path, capsys: Capture) -> None:
    with readings() as told:
        assert main(["solve", "model.yaml", "--memory-limit", str(int(told.used + 300e6)), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "the program of the network on 20 samples (" in error
    assert error.count("\n") == 1
    assert "give fewer samples, or raise `memory_limit`" in error


@pytest.mark.sweep
def test_reach_leaves_the_solver_out_and_says_so(wide: Path, capsys: Capture) -> None:
    record(capsys, "reach", "reach.yaml", "--time-limit", "1")  # loads what is loaded once
    with readings() as told:
        found, error = record(capsys, "reach", "reach.yaml", "--memory-limit", str(int(told.used + 130e6)), "--time-limit", "6")
    assert any(text.startswith("the solver was left out: the program of the network on one sample (") for text in found["warnings"]), found
    assert any(text.startswith("2 of 2 minima and maxima are not found") for text in found["warnings"])
    assert error.count("warning: ") == len(found["warnings"])


def test_bounds_name_what_is_looser(wide: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["bounds", "model.yaml", "--epsilon", "0.01", "--method", "alpha", "--set", "data.total=1"]
    monkeypatch.setattr("mipnet.bounds.alpha_crown.ALPHA_ELEMENT_BYTES", 10**9)
    found, error = record(capsys, *command)
    (text, *_) = found["warnings"]
    assert "keeps looser bounds: optimised linear bounds of " in text
    assert f"warning: {text}\n" in error
    assert main(command) == 0
    assert "warning: `" in capsys.readouterr().out
