"""The examples run as they stand, with warnings as errors, and what they print is true."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.sweep import marked

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are part of a checkout")


Run = Callable[[str], str]


@pytest.fixture(params=["here", marked("apart")])
def run(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Run:
    """Gives what a script prints: in this process, where warnings are errors, too, or in one of its own."""

    def run_here(name: str) -> str:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        out, err = capfd.readouterr()
        assert not err
        return out

    return run_here if request.param == "here" else run_apart


def run_apart(name: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_own_layer(run: Run) -> None:
    said = re.fullmatch(r"the largest output .* is (\S+), proven to (\S+), verified: True\n", run("own_layer.py"))
    assert said is not None
    assert float(said[1]) == pytest.approx(float(said[2]), abs=1e-3)


@pytest.mark.sweep
def test_own_backend(run: Run) -> None:
    assert run("own_backend.py") == "SciPy's milp keeps the contract of a backend\n"


@pytest.mark.sweep
def test_own_property(run: Run) -> None:
    said = re.fullmatch(
        r"digit (\d): with two free pixels the margin of (\d) is at most (\S+)\n"
        r"attained (\S+) at pixels \[(.*)\]\noptimal, verified: True\n",
        run("own_property.py"),
    )
    assert said is not None
    assert said[1] != said[2]
    assert float(said[3]) == pytest.approx(float(said[4]), abs=1e-3)
    assert len(said[5].split(",")) <= 2


def test_every_script_is_run() -> None:
    """`pypsa_dispatch.py` is run by tests/embedding/test_pypsa.py, so that PyPSA is imported once."""
    here = {"own_backend.py", "own_layer.py", "own_property.py", "train_digits.py"}
    assert {p.name for p in EXAMPLES.glob("*.py")} == here | {"pypsa_dispatch.py"}


@pytest.mark.parametrize("name", ["digits", "digits_cnn"])
def test_the_weights_reach_the_accuracy_that_is_stated(name: str) -> None:
    spec = importlib.util.spec_from_file_location("train_digits", EXAMPLES / "train_digits.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    build, shape = {"digits": (script.mlp, (64,)), "digits_cnn": (script.cnn, (1, 8, 8))}[name]
    model = build().eval()
    model.load_state_dict(load_file(EXAMPLES / f"{name}.safetensors"))
    stated = re.search(rf"([\d.]+) % \(`{name}`\)", (EXAMPLES / "README.md").read_text())
    assert stated is not None
    assert 100 * script.accuracy(model, *script.tensors("test", shape)) == pytest.approx(float(stated[1]), abs=0.05)
