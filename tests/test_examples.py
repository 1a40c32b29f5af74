"""The examples run as they stand, with warnings as errors, and what they print is true."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
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


def test_student_enrollment(run: Run) -> None:
    """The best scholarships beat none and equal ones, and together they are within the budget."""
    said = run("student_enrollment.py")
    found = re.match(
        r"expected students: (\S+) without scholarships, (\S+) with equal ones, (\S+) with the best ones\noptimal, verified: True, ", said
    )
    assert found is not None, said
    none, even, best = map(float, found.groups())
    assert none < even < best
    given = [float(line.split()[-1]) for line in said.splitlines()[4:]]
    assert 0 < sum(given) <= 0.2 * 20 + 0.01 * len(given)


def test_regional_prices(capfd: pytest.CaptureFixture[str]) -> None:
    """The optimum is that of all prices at which the trees' demand changes, sold where they earn most."""
    made = runpy.run_path(str(EXAMPLES / "regional_prices.py"), run_name="__main__")
    found = re.match(r"income (\S+), optimal, verified: True, error of the trees (\S+)\n", capfd.readouterr().out)
    assert found is not None
    assert float(found[2]) < 1e-6
    trees, freight, supply = made["trees"], made["FREIGHT"].values, made["SUPPLY"]
    splits = [each.tree_.threshold[each.tree_.feature == 0] for each in trees.estimators_[:, 0]]
    prices = np.append(np.unique(np.concatenate(splits)), made["MOST"])  # the highest price of each demand
    wanted = [trees.predict(pd.DataFrame({"price": prices, "size": size, "season": 1.0})) for size in made["SIZE"]]
    margins = np.stack(np.meshgrid(*(prices - each for each in freight), indexing="ij"), axis=-1).reshape(-1, 3)
    most = np.stack(np.meshgrid(*wanted, indexing="ij"), axis=-1).reshape(-1, 3)
    order = np.argsort(-margins, axis=1)
    margins, most = (np.take_along_axis(each, order, axis=1) for each in (margins, most))
    sold = np.diff(np.minimum(np.cumsum(most, axis=1), supply), axis=1, prepend=0.0)
    assert float(found[1]) == pytest.approx((margins * sold).sum(axis=1).max(), rel=1.5e-3)


@pytest.mark.sweep
def test_loan_counterfactual(run: Run) -> None:
    lines = run("loan_counterfactual.py").splitlines()
    assert len(lines) == 2
    for line in lines:
        said = re.fullmatch(r"\d: (.*); distance (\S+), proven at least (\S+), score (\S+)", line)
        assert said is not None
        assert "age" not in said[1]
        assert float(said[2]) == pytest.approx(float(said[3]), rel=2e-3)
        assert float(said[4]) >= 0.1


def test_every_script_is_run() -> None:
    """`pypsa_dispatch.py` is run by tests/embedding/test_pypsa.py, so that PyPSA is imported once."""
    here = {"own_backend.py", "own_layer.py", "own_property.py", "train_digits.py"}
    here |= {"loan_counterfactual.py", "student_enrollment.py", "regional_prices.py"}
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
