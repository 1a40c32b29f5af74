"""`mipnet bounds`: what the command shows, saves and refuses."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.bounds import compute_bounds, input_set
from mipnet.app.runs.inputs import read_data, read_network
from mipnet.errors import InputError
from tests.clock import TickingClock

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.yaml")

pytestmark = pytest.mark.skipif(not Path(DIGITS).is_file(), reason="the examples are part of a checkout")


def record(capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    assert main(["bounds", DIGITS, "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_methods_in_turn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = TickingClock(monkeypatch)
    found = []
    for method, seconds in {"interval": 0.0, "crown": 0.0, "alpha": 0.0, "lp": 0.0, "mip": 0.02}.items():
        clock.moves = seconds
        options = "--method", method, "--epsilon", "0.03", "--time-limit", "1", "--set", "data={source: digits, total: 1}"
        found.append(record(capsys, *options))
    assert [each["method"] for each in found] == ["interval", "crown", "alpha", "lp", "mip"]
    assert found[0]["over"] == "0.03 around 1 image, cut to [0, 1]"
    assert found[0]["gates"] == []
    assert [each["stopped"] for each in found] == [False, False, False, False, True]
    assert [layer["name"] for layer in found[0]["layers"]] == ["relu1", "relu2", "fc3"]
    for looser, tighter in pairwise(found[:3]):
        assert tighter["unstable"] <= looser["unstable"]
        assert tighter["layers"][-1]["width"] <= looser["layers"][-1]["width"] + 1e-9
    assert found[3]["layers"][-1]["width"] <= found[2]["layers"][-1]["width"] + 1e-9
    assert found[4]["layers"][-1]["width"] <= found[0]["layers"][-1]["width"] + 1e-9


def test_a_table_that_fits_and_a_file_that_loads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "bounds.npz"
    assert main(["bounds", DIGITS, "--epsilon", "0.01", "--save", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Bounds by crown over 0.01 around 10 images, cut to [0, 1]")
    spec = load_spec(DIGITS)
    network = read_network(spec)
    region, _ = input_set(read_data(spec, network).images.images, 0.01)
    bounds = mn.load_bounds(path, network, region)
    assert bounds.method == "crown"
    assert bounds.width() == mn.propagate(network, region, method="crown").width()


def test_gates_are_in_unless_there_is_an_epsilon(capsys: pytest.CaptureFixture[str]) -> None:
    images, ball = record(capsys), record(capsys, "--epsilon", "0.01")
    assert (images["gates"], ball["gates"]) == (["fc1", "fc2"], [])
    assert images["over"] == "10 images, any scores of fc1, fc2"
    assert images["unstable"] > 0
    plain, gated = record(capsys, "--no-gates"), record(capsys, "--gates", "--epsilon", "0.01")
    assert plain["unstable"] == 0
    assert all(layer["width"] < 1e-9 for layer in plain["layers"])
    assert gated["unstable"] > ball["unstable"]


def test_images_beyond_the_usual_range_are_not_cut() -> None:
    region, said = input_set(np.array([[-1.0, 3.0]]), 0.5)
    assert said == "0.5 around 1 image"
    np.testing.assert_array_equal(region.upper, [[-0.5, 3.5]])


def test_what_is_wrong_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for options, told in (
        (["--method", "magic"], "the method is `magic`; expected one of interval, crown, alpha, lp, mip"),
        (["--epsilon", "-1"], "epsilon is -1; expected a finite number of at least 0"),
        (["--save", "/nowhere/at/all.npz"], "there is no folder"),
        (["--set", "gates.layers=[fc9]"], "gates asked for ['fc9']"),
    ):
        assert main(["bounds", DIGITS, *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert told in error
    with pytest.raises(InputError, match="the time limit is 0"):
        compute_bounds(load_spec(DIGITS), "lp", epsilon=0.1, time_limit=0)
