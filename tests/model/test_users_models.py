"""A user's own linopy model means the same before and after every call, and mipnet writes the same rows under each semantics of linopy."""

from __future__ import annotations

import inspect
import itertools
import os
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from linopy.config import LinopySemanticsWarning
from sklearn.linear_model import LinearRegression

import mipnet as mn
from mipnet.model.to_program import from_model
from mipnet.pruning.labelled_images import LabelledImages
from mipnet.testing import check_layer

OPTIONS = dict(linopy.options._current_values)

NETWORK = mn.Network.build(
    (2,),
    [
        ("fc1", mn.Dense([[1.0, -1.0], [2.0, 1.0], [-1.0, 0.5]], [0.1, 0.2, 0.3])),
        ("r", mn.ReLU()),
        ("fc2", mn.Dense([[1.0, 1.0, 1.0], [1.0, -1.0, 0.5]])),
    ],
)
BOX = mn.Box(-np.ones((1, 2)), np.ones((1, 2)))
IMAGES, CLASSES = np.array([[0.2, 0.8], [-0.5, 0.1]]), np.array([0, 1])


@pytest.fixture(params=["legacy", "v1"])
def semantics(request: pytest.FixtureRequest) -> Iterator[str]:
    with linopy.options:
        linopy.options["semantics"] = request.param
        yield request.param


def users_optimum() -> tuple[float, float]:
    """The largest production with ramps, the first hour of which has none under `v1`; and one with capacities over other hours.

    Capacities over the hours 2 to 5 are added to those over 0 to 3 by position under `legacy`; under `v1` they cannot be added.
    """
    hours, later = (pd.RangeIndex(first, first + 4, name="time") for first in (0, 2))
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinopySemanticsWarning)
        for rows in ("ramp", "sum"):
            m = linopy.Model()
            q = m.add_variables(lower=0, upper=10, coords=[hours], name="q")
            r = m.add_variables(lower=0, upper=10, coords=[later], name="r")
            if rows == "ramp":
                m.add_constraints(q - q.shift(time=1) <= 3, name="ramp")
            else:
                try:
                    m.add_constraints(q + r <= pd.Series([4.0, 5.0, 6.0, 7.0], hours), name="sum")
                except ValueError:
                    found.append(float("nan"))
                    continue
            m.add_objective(1 * q.sum() + 1 * r.sum(), sense="max")
            found.append(mn.solve(m).objective)
    return found[0], found[1]


EXPECTED = {"legacy": (28.0 + 40.0, 22.0), "v1": (40.0 + 40.0, float("nan"))}


def embedded() -> tuple[linopy.Model, linopy.Variable, mn.Encoding]:
    model = linopy.Model()
    x = model.add_variables(lower=-1, upper=1, coords=[pd.RangeIndex(3, name="sample"), pd.Index([0, 1], name="input_unit")], name="x")
    handle = mn.add_network(model, NETWORK, x)
    model.add_objective(handle.output.sum())
    return model, x, handle


def opened() -> None:
    model, x, _ = embedded()
    with mn.open_problem(model) as problem:
        problem.set_objective(x, sense="max")
        problem.set_bounds(x, upper=0.5)
        assert problem.solve().objective == pytest.approx(3.0)


MODULE = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).double()


def module() -> torch.nn.Sequential:
    return deepcopy(MODULE)


def scores() -> xr.Dataset:
    return xr.Dataset({"fc1": ("fc1_unit", [0.2, 0.9, 0.5])})


def data() -> Any:
    return LabelledImages(IMAGES, CLASSES)


def posed() -> mn.Importance:
    return mn.Importance(NETWORK, IMAGES, CLASSES)


def winning() -> None:
    model, _, handle = embedded()
    mn.argmax_is(handle, 0)
    mn.solve(model)
    assert handle.error() < 1e-6
    handle.summary()
    model.remove_constraints([name for name in model.constraints if "argmax" in name])


def removed() -> None:
    model, x, handle = embedded()
    model.add_objective(1 * x.sum(), overwrite=True)
    handle.remove()
    assert mn.solve(model).objective == pytest.approx(-6.0)


def estimator() -> None:
    mn.from_sklearn(LinearRegression().fit(IMAGES, CLASSES))


def kept() -> None:
    with tempfile.TemporaryDirectory() as folder, mn.keep_parts(folder), mn.memory_limit("1000 GB"):
        mn.reach(NETWORK, mn.Box(np.zeros((1, 2)), np.zeros((1, 2))))


def exported() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mn.from_onnx(mn.export(module().float(), f"{folder}/net.onnx", np.zeros((1, 2), dtype=np.float32)))


def stored() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bounds = mn.propagate(NETWORK, BOX)
        bounds.save(f"{folder}/bounds.npz")
        mn.load_bounds(f"{folder}/bounds.npz", NETWORK, BOX)


def asked() -> None:
    mn.verify(NETWORK, mn.robustness_property(NETWORK, IMAGES[0], radius=0.01))
    mn.verify(NETWORK, mn.property_of(lambda x, y: y[0] <= 100, BOX, 2))


GATES = mn.find_gates(NETWORK)

CALLS: dict[str, Callable[[], Any]] = {
    "encode": lambda: mn.encode(NETWORK, BOX, gates="all"),
    "ball": lambda: mn.encode(NETWORK, mn.L1(np.zeros((1, 2)), 0.5)),
    "polytopes": lambda: [mn.encode(NETWORK, region) for region in (mn.Polytope([[1.0, 1.0]], [1.0], 0.0, 1.0), mn.ConvexHull(IMAGES))],
    "solve": lambda: mn.solve(embedded()[0]),
    "explain": lambda: mn.explain(embedded()[2]),
    "open_problem": opened,
    "argmax_is": winning,
    "remove": removed,
    "importance": lambda: mn.importance(NETWORK, IMAGES, CLASSES),
    "weight_path": lambda: mn.weight_path(posed(), mn.spaced_weights(0.1, 1.0, 2)),
    "prune_stepwise": lambda: mn.prune_stepwise(NETWORK, IMAGES, CLASSES, shares=[0.4]),
    "prune": lambda: mn.prune(module(), xr.Dataset({"fc1": ("fc1_unit", [True, False, True])}), np.zeros((1, 2))),
    "masks": lambda: mn.random_masks(mn.critical_masks(mn.make_masks(NETWORK, GATES, scores()), scores()), 1),
    "accuracy": lambda: mn.accuracy(NETWORK, IMAGES, CLASSES),
    "compare": lambda: mn.compare(NETWORK, GATES, mn.make_masks(NETWORK, GATES, scores()), data(), data(), rivals=["random", "magnitude"]),
    "train": lambda: (mn.train(module(), IMAGES, CLASSES, epochs=1), mn.fine_tune(module(), IMAGES, CLASSES, epochs=1)),
    "measure": lambda: mn.measure(module(), np.zeros((1, 2)), batch=2, repeats=1),
    "tighten": lambda: mn.tighten(NETWORK, BOX),
    "reach": lambda: mn.reach(NETWORK, BOX),
    "verify": lambda: mn.robustness(NETWORK, IMAGES[0], radius=0.1),
    "properties": asked,
    "minimum_distortion": lambda: mn.minimum_distortion(NETWORK, IMAGES[0], upper=0.5),
    "maximum_margin": lambda: mn.maximum_margin(NETWORK, BOX, 0),
    "counterfactual": lambda: mn.counterfactual(NETWORK, IMAGES[0], 1, backend=mn.CounterfactualSettings(within=mn.LInf(IMAGES[:1], 1.0))),
    "activation_maximisation": lambda: mn.activation_maximisation(NETWORK, 0, BOX),
    "agree": lambda: mn.agree(NETWORK, NETWORK, BOX, within=0.1),
    "agree_on_class": lambda: mn.agree_on_class(NETWORK, NETWORK, BOX),
    "compress": lambda: mn.compress(NETWORK, BOX),
    "from_torch": lambda: mn.from_torch(module(), np.zeros((1, 2))),
    "from_sklearn": estimator,
    "from_onnx": exported,
    "load_bounds": stored,
    "load": lambda: mn.load("digits"),
    "keep_parts": kept,
    "backends": lambda: (mn.backends(), mn.get_backend("scip").version()),
    "check_layer": lambda: check_layer(mn.ReLU(), (2,)),
}
"""Calls of the public functions; each is in one of them, see `ALSO`."""

ALSO = {
    "masks": {"make_masks", "critical_masks", "random_masks"}, "prune": set(), "train": {"fine_tune"}, "weight_path": {"spaced_weights"},
    "verify": {"robustness"}, "properties": {"verify", "property_of", "robustness_property"}, "ball": {"L1", "L2", "LInf", "Samples"},
    "polytopes": {"Polytope", "ConvexHull"},
    "solve": {"add_network", "add_predictor"}, "from_onnx": {"export", "read"}, "load_bounds": {"propagate"}, "accuracy": {"find_gates"},
    "keep_parts": {"memory_limit"}, "backends": {"get_backend"},
}  # fmt: skip
"""Further functions by call."""

RULES = {"backward", "interval", "lines", "linear_map", "encoding", "rival", "read_vnnlib"}
"""Functions of one layer, registrations, and a reader of text: they see no linopy model and no module."""

FAST = ("encode", "solve", "argmax_is")
"""Those that run in each test run."""


def test_every_public_function_is_called() -> None:
    functions = {name for name in mn.__all__ if inspect.isroutine(getattr(mn, name))}
    assert functions <= {*CALLS, *RULES, *itertools.chain(*ALSO.values())}


def globals_of_others() -> dict[str, Any]:
    """What other libraries and the process keep, which no call may change; torch itself names a folder in the environment."""
    return {
        "linopy": dict(linopy.options._current_values),
        "numpy": np.geterr(),
        "numpy's numbers": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "numbers": random.getstate(),
        "torch's numbers": torch.get_rng_state().tolist(),
        "torch": (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
        ),
        "xarray": dict(xr.get_options()),
        "pandas": (pd.get_option("display.max_rows"), pd.get_option("display.max_columns")),
        "environment": ({name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")}, os.getcwd()),
    }


@pytest.mark.parametrize("call", [pytest.param(name, marks=[pytest.mark.sweep] * (name not in FAST)) for name in CALLS])
def test_a_users_model_means_the_same_after_a_call(call: str, semantics: str) -> None:
    before = globals_of_others()
    assert before["linopy"] == OPTIONS | {"semantics": semantics}
    assert linopy.options._defaults == OPTIONS
    CALLS[call]()
    assert globals_of_others() == before
    assert users_optimum() == pytest.approx(EXPECTED[semantics], nan_ok=True)


RAMPS = """
import warnings; warnings.simplefilter("ignore")
import linopy, pandas as pd
def optimum():
    m = linopy.Model()
    q = m.add_variables(lower=0, upper=10, coords=[pd.RangeIndex(4, name="time")], name="q")
    m.add_constraints(q - q.shift(time=1) <= 3, name="ramp")
    m.add_objective(1 * q.sum(), sense="max")
    m.solve("highs", io_api="direct", output_flag=False)
    return float(m.objective.value)
before = optimum()
import mipnet as mn
[getattr(mn, name) for name in mn.__all__]
print("optima", before, optimum())
"""


@pytest.mark.sweep
def test_a_users_model_means_the_same_before_and_after_the_import() -> None:
    done = subprocess.run([sys.executable, "-c", RAMPS], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "optima 28.0 28.0"


@pytest.mark.parametrize("relu", ["auto", "big-m", "sos1", "indicator", "partition", "hull", "anderson"])
def test_the_rows_of_a_network_are_the_same_under_each_semantics(relu: str) -> None:
    found = []
    for semantics in ("legacy", "v1"):
        with linopy.options:
            linopy.options["semantics"] = semantics
            _, _, handle = embedded()
            other = mn.encode(NETWORK, BOX, formulation={"relu": relu})
            other.model.add_objective(other.output.sum())
            found.append([from_model(each.model) for each in (handle, other)])
    for one, two in zip(*found, strict=True):
        assert (one.rows.matrix != two.rows.matrix).nnz == 0
        for first, second in (
            (one.rows.lower, two.rows.lower), (one.rows.upper, two.rows.upper), (one.cost, two.cost), (one.lower, two.lower),
            (one.upper, two.upper), (one.integer, two.integer),
        ):  # fmt: skip
            assert np.array_equal(first, second)
        assert [s.tolist() for s in one.sos1] == [s.tolist() for s in two.sos1]
        assert (one.indicators is None) == (two.indicators is None)
        if one.indicators is not None:
            assert (one.indicators.rows.matrix != two.indicators.rows.matrix).nnz == 0
            assert np.array_equal(one.indicators.rows.upper, two.indicators.rows.upper)
