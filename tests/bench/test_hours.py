"""A year of hours of one network in a user's model: from the model to the program in a solver, against arrays written by hand."""

from __future__ import annotations

import sys
from functools import partial

import linopy
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import mipnet as mn
from mipnet.backend import Session, get_backend
from mipnet.backend.rewrites import rewrite
from mipnet.backend.scaling import open_scaled
from mipnet.model.to_program import from_model
from mipnet.solving.problem import Modelled
from tests.bench.measure import cpu_times, peak, peak_apart
from tests.bench.raw import hand_over
from tests.bench.registry import Bench, Row, Section
from tests.bench.test_build import check_same

HOURS = 8760
SIZES = ((4, 16), (16, 16), (16, 1))
COLUMNS = {"rows": "", "nonzeros": "", "by hand": "s", "mipnet": "s", "time": "ratio", "peak memory": "ratio"}
COLUMNS |= {"scaled": "s", "scaled / by hand": "ratio", "SCIP": "s", "SCIP / scaled": "ratio"}


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    g = np.random.default_rng(0)
    return [(g.normal(size=(after, before)) / np.sqrt(before), g.normal(size=after) * 0.3) for before, after in SIZES]


def bounds(hours: int) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(1)
    return -g.uniform(0.2, 1, (hours, 4)), g.uniform(0.2, 1, (hours, 4))


def embedded(hours: int, mode: str) -> mn.Encoding:
    """The model with its four inputs an hour, and the network in it."""
    (w1, b1), (w2, b2), (w3, b3) = weights()
    layers = [("fc1", mn.Dense(w1, b1)), ("relu1", mn.ReLU()), ("fc2", mn.Dense(w2, b2)), ("relu2", mn.ReLU()), ("fc3", mn.Dense(w3, b3))]
    time, feature = pd.date_range("2026-01-01", periods=hours, freq="h", name="time"), pd.Index(list("abcd"), name="feature")
    model = linopy.Model()
    x = model.add_variables(*(xr.DataArray(end, coords=[time, feature]) for end in bounds(hours)), name="x")
    return mn.add_network(model, mn.Network.build((4,), layers), x, bounds=mode)


def by_mipnet(hours: int, mode: str) -> object:
    """To the arrays in HiGHS, as `Model.solve` of linopy has them."""
    handle = embedded(hours, mode)
    return handle, get_backend("highs").open(from_model(handle.model))


def solved_by(backend: str, hours: int, mode: str) -> tuple[mn.Encoding, Session]:
    """To the program that `mn.solve` solves: checked, rewritten and scaled."""
    handle = embedded(hours, mode)
    program = rewrite(Modelled.of(handle).program, get_backend(backend).features).program
    return handle, open_scaled(get_backend(backend), program)


def by_hand(hours: int, _mode: str) -> object:
    return hand_over(weights(), *bounds(hours))


ROUTES = {"mipnet": by_mipnet, "hand": by_hand}


def hours(mode: str) -> Row:
    small = 50
    if mode == "interval":
        check_same(from_model(embedded(small, mode).model), by_hand(small, mode))
    for backend in ("highs", "scip"):
        solved_by(backend, small, mode)
    raw, mine, scaled = cpu_times(partial(by_hand, HOURS, mode), partial(by_mipnet, HOURS, mode), partial(solved_by, "highs", HOURS, mode))
    (scip,) = cpu_times(partial(solved_by, "scip", HOURS, mode), rounds=2)
    size = from_model(embedded(HOURS, mode).model).size
    memory = [peak_apart("tests.bench.test_hours", route, mode) for route in ("mipnet", "hand")]
    found: Row = {"rows": size["rows"], "nonzeros": size["nonzeros"], "by hand": raw, "mipnet": mine, "time": mine / raw}
    ratio = memory[0] / memory[1] if memory[0] and memory[1] else None
    return {**found, "peak memory": ratio, "scaled": scaled, "scaled / by hand": scaled / raw, "SCIP": scip, "SCIP / scaled": scip / scaled}


SECTION = Section(
    "Build and hand-over: 8,760 hours of a network in a model of your own",
    """
The CPU time from a linopy model with four inputs for each hour to a program in a solver, for a 4-16-16-1 ReLU network with random
weights: `mn.add_network` (bounds, variables, rows), and the program. *By hand* is a script (`tests/bench/raw.py`) that computes
interval bounds and writes the same rows into numpy arrays for highspy. *mipnet* ends with these rows in HiGHS, which are those that
linopy's own `model.solve` has. *Scaled* ends with the program that `mn.solve` hands over: it checks the bounds of the inputs, and
scales rows and columns. *SCIP* is the same for SCIP, which takes variables and rows one by one. Bounds by CROWN, the default, take
longer than intervals and leave fewer binaries; *by hand* has interval bounds in both lines. Peak memory is the largest increase of
memory in a new process, of *mipnet* as a multiple of *by hand*.
""",
    (Bench("interval bounds", partial(hours, "interval"), COLUMNS), Bench("bounds by CROWN", partial(hours, "sound"), COLUMNS)),
)


@pytest.mark.bench
@pytest.mark.parametrize("bench", SECTION.benches, ids=lambda bench: bench.name)
def test_hours(bench: Bench, measured: dict[Section, dict[str, Row]]) -> None:
    found = bench.run()
    assert set(found) == set(bench.unit)
    measured.setdefault(SECTION, {})[bench.name] = found
    print(bench.name, found)


if __name__ == "__main__":
    route, mode = sys.argv[1], sys.argv[2]
    ROUTES[route](2, mode)
    print(peak(partial(ROUTES[route], HOURS, mode)))
