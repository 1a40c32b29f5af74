"""Pickled and copied networks and models: solved, replayed, written back and checked as before, or refused by name."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest

import mipnet as mn
from mipnet.errors import InputError
from mipnet.model.encoding import networks_in
from tests.embedding.test_handle import FEATURES, HOURS, NET, dispatch
from tests.sweep import marked

COPIES: dict[str, Callable[[linopy.Model], linopy.Model]] = {
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "copy": lambda m: m.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle of a copy": lambda m: pickle.loads(pickle.dumps(m.copy())),
    "copy of a pickle": lambda m: pickle.loads(pickle.dumps(m)).copy(),
    "copy of a copy": lambda m: m.copy(include_solution=True).copy(),
}


def spoil(model: linopy.Model) -> None:
    """Take one row of the network away, so that its output is wrong, and only a replay can tell."""
    name = next(name for name in model.constraints if name.startswith("act"))
    model.remove_constraints(name)


@pytest.mark.parametrize(
    "how", ["pickle", "copy", *map(marked, ["copy.copy", "copy.deepcopy", "pickle of a copy", "copy of a pickle", "copy of a copy"])]
)
def test_networks_in_a_copy_of_a_model_are_computed_again(how: str) -> None:
    model, _, handle = dispatch()
    best = mn.solve(model).objective
    other = COPIES[how](model)
    (network,) = networks_in(other)
    assert network.model is other
    assert network is not handle
    result = mn.solve(other)
    assert result.objective == pytest.approx(best)
    assert result.verified
    assert network.error() < 1e-9
    assert float(np.abs(other.variables["output"].solution - model.variables["output"].solution).max()) < 1e-6
    spoil(other)
    assert not mn.solve(other).verified
    assert mn.solve(model).verified
    network.remove()
    assert list(other.variables) == ["x"]
    assert "output" in model.variables


@pytest.mark.parametrize("relu", ["big-m", "sos1", *map(marked, ["indicator", "partition", "hull", "anderson"])])
def test_a_pickled_handle_has_its_model(relu: str) -> None:
    model, _, handle = dispatch(formulation={"relu": relu})
    best = mn.solve(handle).objective
    again, same = pickle.loads(pickle.dumps((model, handle)))
    assert same.model is again
    assert same.output is again.variables["output"]
    (alone,) = pickle.loads(pickle.dumps([handle]))
    for each in (same, alone, copy.deepcopy(handle), copy.copy(handle)):
        result = mn.solve(each, start="search")
        assert result.objective == pytest.approx(best)
        assert result.verified
        assert each.error() < 1e-6
        assert len(networks_in(each.model)) == 1
        at = each.input.solution.dropna("time").values
        np.testing.assert_allclose(each.output.solution.dropna("time"), NET.forward(at), atol=1e-6)
        assert str(each.summary()) == str(handle.summary())


def test_an_encoding_is_pickled_and_copied() -> None:
    enc = mn.encode(NET, mn.Box(-np.ones((2, 3)), np.ones((2, 3))), gates="all")
    enc.model.add_objective(enc.output.sum() + next(iter(enc.scores.values())).sum())
    best = mn.solve(enc).objective
    for each in (pickle.loads(pickle.dumps(enc)), copy.deepcopy(enc)):
        assert each.model is not enc.model
        result = mn.solve(each)
        assert result.objective == pytest.approx(best)
        assert result.verified
        assert result.max_error is not None


def test_inputs_of_expressions_outputs_of_the_users_and_several_networks() -> None:
    model = linopy.Model()
    x = model.add_variables(-1, 1, coords=[HOURS, FEATURES], name="x")
    y = model.add_variables(coords=[HOURS, pd.RangeIndex(2, name="fc2_unit")], name="y")
    handles = [mn.add_network(model, NET, 0.5 * x + 0.1, y, prefix="a_"), mn.add_network(model, NET, x, bounds=(-0.5, 0.9), prefix="b_")]
    model.add_objective(y.sum() + handles[1].output.sum())
    best = mn.solve(model).objective
    again, first, second = pickle.loads(pickle.dumps((model, *handles)))
    assert [each.output.name for each in networks_in(again)] == ["a_output", "b_output"]
    assert networks_in(again) == [first, second]
    result = mn.solve(again, start="search")
    assert (result.verified, result.objective) == (True, pytest.approx(best))
    assert max(first.error(), second.error()) < 1e-9
    np.testing.assert_allclose(again.variables["y"].solution, again.variables["a_output"].solution, atol=1e-9)


def test_a_copy_is_checked_although_its_model_is_gone() -> None:
    model, _, handle = dispatch()
    other = model.copy()
    del model, handle
    gc.collect()
    assert mn.solve(other).verified
    assert mn.solve(other).max_error is not None


@pytest.mark.parametrize("how", ["file", "layer"])
def test_a_network_that_a_copy_lost_is_refused_by_name(how: str, tmp_path: Path) -> None:
    model, _, handle = dispatch()
    if how == "file":
        model.to_netcdf(tmp_path / "model.nc")
        other = linopy.read_netcdf(tmp_path / "model.nc")
    else:
        lock = threading.Lock()
        handle.fills.append((np.zeros(0, np.int64), lambda point: point[: int(lock.locked())]))
        other = pickle.loads(pickle.dumps(model))
    with pytest.raises(InputError, match="variable `output` is the output of a network"):
        mn.solve(other)
    assert mn.solve(model).verified


@pytest.mark.sweep
def test_a_network_is_solved_in_another_process(tmp_path: Path) -> None:
    _, _, handle = dispatch()
    best: Any = mn.solve(handle).objective
    (tmp_path / "handle").write_bytes(pickle.dumps(handle))
    script = (
        "import pickle, sys, mipnet as mn\n"
        "handle = pickle.load(open(sys.argv[1], 'rb'))\n"
        "result = mn.solve(handle)\n"
        "print(result.objective, result.verified, handle.error() < 1e-9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "handle")], capture_output=True, text=True, check=True
    )
    objective, verified, close = done.stdout.split()
    assert (float(objective), verified, close) == (pytest.approx(best), "True", "True")
