"""Mistakes that a new user makes are answered in one line: the key and its line, what was given, what was expected, and what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.runs import solve as solve_run
from mipnet.errors import MipnetError, TimeLimitReached
from tests.readers.onnx_graphs import dense_model

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = (EXAMPLES / "digits.yaml").read_text()
OWN = "mipnet: 1\ntask: importance\nnetwork: {file: net.onnx}\ndata: {source: npz, file: d.npz, total: 2, holdout: none}\n"
REACH = "mipnet: 1\ntask: reach\nnetwork: {file: net.onnx}\nregion: {data: {source: npz, file: d.npz}, radius: 0.1}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks, images and files of other kinds."""
    found = tmp_path_factory.mktemp("mistakes")
    shutil.copy(EXAMPLES / "digits.safetensors", found)
    module, g = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), np.random.default_rng(0)
    onnx.save(dense_model(module), found / "net.onnx")
    torch.save(module, found / "whole.pt")
    torch.save(module.state_dict(), found / "weights.pt")
    images, labels = g.random((20, 4)), np.arange(20) % 2
    np.savez(found / "d.npz", images=images, labels=labels)
    np.savez(found / "words.npz", images=images, labels=np.array(["cat", "dog"] * 10))
    np.savez(found / "bytes.npz", images=(255 * images).astype(int), labels=labels)
    np.savez(found / "swapped.npz", images=labels, labels=images)
    np.savez(found / "negative.npz", images=images, labels=-labels)
    np.save(found / "one.npy", images)
    (found / "folder.onnx").mkdir()
    return found


FILES = {
    "a key of another program": (GOOD, "  file:", "  path:", r"line 6: network\.path: unknown key; did you mean `file`\?"),
    "a solver": (GOOD, "backend: highs", "solver: highs", r"solve\.solver: unknown key; did you mean `backend`\?"),
    "a timeout": (GOOD, "time_limit:", "timeout:", r"solve\.timeout: unknown key; did you mean `time_limit`\?"),
    "an epsilon": (REACH, "radius:", "epsilon:", r"region\.epsilon: unknown key; did you mean `radius`\?"),
    "no limit": (
        GOOD,
        "time_limit: 60",
        "time_limit: none",
        r"got 'none'; .*; leave the key out, or write null",
    ),
    "a quotient": (
        REACH,
        "radius: 0.1",
        "radius: 8/255",
        r"got '8/255'; .*; write the quotient as a decimal",
    ),
    "a name of a layer": (GOOD, "name: fc1", "nme: fc1", r"network\.layers\.0\.nme: .*; did you mean `name`\?"),
    "upper case": (
        GOOD,
        "digits.saf",
        "Digits.saf",
        r"line 6: network\.file: no file .* \(there is `digits\.safetensors`\)",
    ),
    "a suffix": (
        GOOD,
        ".safetensors",
        ".safetensor",
        r"network\.file: .* `\.safetensor`; .*; did you mean `\.safetensors`\?",
    ),
    "a folder": (OWN, "net.onnx", "folder.onnx", r"network\.file: `.*folder\.onnx` is a folder, not a file; expected an \.onnx file"),
    "an address": (OWN, "net.onnx", "https://x.org/net.onnx", r"network\.file: .*mipnet reads no addresses: fetch the file first"),
    "no folder": (OWN, "net.onnx", "nets/net.onnx", r"no file `.*net\.onnx` \(there is no folder `.*nets`\)"),
    "a whole module": (OWN, "net.onnx", "whole.pt", r"network\.file: .* holds a pickle of more than tensors"),
    "weights alone": (OWN, "net.onnx", "weights.pt", r"network\.file: .* holds weights only; give `layers` and `input_shape`"),
    "layers of a network": (
        OWN,
        "net.onnx",
        "net.onnx, input_shape: [4]",
        r"network\.input_shape: .* holds a whole network",
    ),
    "words as labels": (OWN, "d.npz", "words.npz", r"of type <U3, text, .*: write the classes as 0, 1, 2"),
    "whole numbers": (OWN, "d.npz", "bytes.npz", r"are of type int64; .*, or a `scale` to divide by"),
    "swapped arrays": (OWN, "d.npz", "swapped.npz", r"shape \(20,\) and labels of shape \(20, 4\); are the two swapped\?"),
    "negative labels": (OWN, "d.npz", "negative.npz", r"label -1 of sample 1 .*; expected a whole number of at least 0"),
    "a single array": (OWN, "d.npz", "one.npy", r"`.*one\.npy` is a single array \(\.npy\) and not an \.npz file; write one with"),
    "a network as data": (OWN, "d.npz", "net.onnx", r"data: `.*net\.onnx` is not an \.npz file, or it is cut off"),
    "no input set": (
        REACH,
        "region: {data: {source: npz, file: d.npz}, radius: 0.1}",
        "",
        r"bad\.yaml: neither of `region` and `box`",
    ),
}
COMMANDS = {
    "a network in place of a YAML file": (["solve", "net.onnx"], r"`net\.onnx` is no text; expected a YAML file, which names the network"),
    "data in place of a property": (["verify", "net.onnx", "d.npz"], r"`d\.npz` is no text; expected a \.vnnlib file"),
    "a word in place of a number": (["solve", "bad.yaml", "--time-limit", "abc"], r"--time-limit: got `abc`; expected a number"),
    "a number behind an equals sign": (["solve", "bad.yaml", "--workers=x"], r"--workers: got `x`; expected a whole number"),
    "a negative epsilon": (["bounds", "bad.yaml", "--epsilon", "-1"], r"epsilon is -1; expected a finite number of at least 0"),
}
FIRST_FILES, FIRST_COMMANDS = ("a key of another program", "upper case", "a folder", "words as labels"), ("a word in place of a number",)


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert re.search(message, said[0]), said[0]


@pytest.mark.parametrize("name", [name if name in FIRST_FILES else pytest.param(name, marks=pytest.mark.sweep) for name in FILES])
def test_a_file(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text, old, new, message = FILES[name]
    assert old in text
    monkeypatch.chdir(folder)
    Path("bad.yaml").write_text(text.replace(old, new, 1))
    refused(["reach" if text is REACH else "solve", "bad.yaml"], message, capsys)


@pytest.mark.parametrize("name", [name if name in FIRST_COMMANDS else pytest.param(name, marks=pytest.mark.sweep) for name in COMMANDS])
def test_a_command(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    Path("bad.yaml").write_text(OWN)
    refused(*COMMANDS[name], capsys)


@pytest.mark.parametrize("given", [{"layers": []}, {"input_shape": (4,)}, {"layers": [{"type": "ReLU"}], "input_shape": (4,)}])
def test_layers_of_a_whole_network_are_refused(given: dict[str, object], folder: Path) -> None:
    name = next(iter(given))
    with pytest.raises(MipnetError, match=f"holds a whole network, and `{name}` is for files of weights; leave it out"):
        mn.read(folder / "net.onnx", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "given"),
    [("digits", "root"), ("digits", "scale"), ("digits", "channels"), ("mnist", "file"), ("mnist", "names"), ("idx", "file")],
)
def test_arguments_that_a_source_does_not_take_are_refused(source: str, given: str) -> None:
    value = {"scale": 16.0, "channels": "last", "names": ("a", "b")}.get(given, "a")
    with pytest.raises(MipnetError, match=f"`{given}` is .*, and has no effect for source `{source}`; leave it out"):
        mn.load(source, **{given: value})  # type: ignore[arg-type]


def test_a_program_that_was_not_written_in_time_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def late(*given: object) -> None:
        raise TimeLimitReached("the time limit ended before mipnet could write the program")

    monkeypatch.setattr(solve_run, "build_program", late)
    monkeypatch.chdir(EXAMPLES)
    words = ["solve", "digits.yaml", "--set", "data.holdout=none", "--set", "output=null"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "not written" in out
    assert "mipnet failed" not in err
