"""`explain` agrees with the program: sizes with its arrays, phases with the signs of bounds, errors with those of the solvers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.errors import UnboundedError
from mipnet.formulations.block import Phases
from mipnet.model.explanation import Size
from mipnet.model.to_program import from_model
from mipnet.solving.open_problem import open_problem
from tests.nets import conv, dense, norm

ROOT = Path(__file__).parents[2]
KINDS = {"relu": "indicator", "maxpool2d": "hull", "clip": "sos1", "leakyrelu": "partition", "parts": 2}
BACKENDS = ("highs", "scip")


def mixed() -> tuple[mn.Network, mn.Box]:
    """A convolution with batch norm and pooling, dense layers, three kinds of activations, and a residual sum."""
    g = np.random.default_rng(0)
    layers = [
        ("conv1", conv(g, 2, 1, (3, 3))),
        ("bn1", norm(g, 2)),
        ("relu1", mn.ReLU()),
        ("pool1", mn.MaxPool2d(mn.Window((2, 2), (2, 2)))),
        ("flat", mn.Reshape((8,))),
        ("fc1", dense(g, 6, 8)),
        ("clip1", mn.Clip(0.0, 0.6)),
        ("fc2", dense(g, 6, 6)),
        ("leaky2", mn.LeakyReLU(0.1)),
        ("sum", mn.Add(), ("leaky2", "clip1")),
        ("fc3", dense(g, 3, 6)),
    ]
    return mn.Network.build((1, 6, 6), layers), mn.LInf(g.uniform(size=(1, 1, 6, 6)), 0.2)


@pytest.fixture(scope="module", params=[None, "all"], ids=["plain", "gated"])
def encoding(request) -> mn.Encoding:
    return mn.encode(*mixed(), gates=request.param, formulation=KINDS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_add_up_to_what_the_solver_gets(encoding, backend):
    told, program = mn.explain(encoding, backend), from_model(encoding.model)
    whole = program.size
    assert [each.name for each in told.nodes] == [node.name for node in encoding.network.nodes]
    assert sum(each.size.variables for each in told) == whole["columns"] == told.size.variables
    assert sum(each.size.binaries for each in told) == whole["integers"] == told.size.binaries
    assert sum(each.size.rows for each in told) == whole["rows"] == told.size.rows
    assert sum(sum(each.special.values()) for each in told) == whole["special"]
    encoding.model.add_objective(encoding.output.sum(), sense="max", overwrite=True)
    with open_problem(encoding, backend) as opened:
        held = opened._opened.program
    assert told.handed_over == Size(held.columns, int(held.integer.sum()), len(held.rows))
    assert sum(each.size.variables + each.added.variables for each in told) == held.columns
    assert sum(each.size.rows + each.added.rows for each in told) == len(held.rows)
    assert not told.errors


def test_what_bounds_decide_is_counted_by_sign(encoding):
    """No gate comes before relu1, so its counts are those of the bounds of its input."""
    told = mn.explain(encoding, None)
    part = told["relu1"].phases[""]
    low, high = (encoding.bounds["bn1"][end].values for end in ("lower", "upper"))
    if encoding.gates:  # a score of 0 silences any unit, so only those that are never on are decided
        assert (part.active, part.inactive, part.undecided) == (0, (high <= 0).sum(), (high > 0).sum())
    else:
        assert (part.active, part.inactive, part.undecided) == ((low >= 0).sum(), (high <= 0).sum(), ((low < 0) & (high > 0)).sum())
        assert set(told["clip1"].phases) == {"low", "high"}
    windows = told["pool1"].phases["windows"]
    assert windows.active + windows.undecided == told["pool1"].units == 8
    assert told["relu1"].special == {"indicator rows": 2 * part.undecided}
    assert told["relu1"].undecided == part.undecided


def test_formulations_and_reasons_are_told(encoding):
    told = mn.explain(encoding, None)
    assert {name: told[name].formulation for name in ("relu1", "pool1", "clip1", "leaky2", "conv1", "sum")} == {
        "relu1": "indicator",
        "pool1": "hull",
        "clip1": "sos1",
        "leaky2": "partition",
        "conv1": "",
        "sum": "",
    }
    assert told["relu1"].why == "as asked"
    assert told["conv1"].size == told["sum"].size == Size()
    assert told["conv1"].why == "affine, no formulation needed"
    assert told.backend == ""
    assert told.handed_over is None
    assert "relu1: ReLU, indicator (as asked)" in str(told)


def test_natively_or_rewritten(encoding):
    highs, scip = (mn.explain(encoding, name) for name in BACKENDS)
    rows, sets = highs["relu1"].special["indicator rows"], highs["clip1"].special["SOS1 sets"]
    assert scip["relu1"].native == (f"{rows} indicator rows",)
    assert not scip["relu1"].rewritten
    assert highs["relu1"].rewritten == (f"{rows} indicator rows -> big-M rows",)
    assert highs["relu1"].added == Size(rows=rows)
    assert highs["clip1"].added == Size(variables=sets, binaries=sets, rows=2 * sets)
    assert f"not native: {rows} indicator rows -> big-M rows ({rows} rows more)" in str(highs)
    assert scip.handed_over == scip.size


COSTS = {
    "big-m": (Size(3, 1, 3), {}),
    "sos1": (Size(2, 0, 1), {"SOS1 sets": 1}),
    "indicator": (Size(3, 1, 1), {"indicator rows": 2}),
    "triangle": (Size(2, 0, 2), {}),
    "partition": (Size(3 + 2, 1, 4 + 4 * 2), {}),
    "hull": (Size(3 + 5, 1, 4 + 4 * 5), {}),
    "anderson": (Size(3, 1, 3), {}),
}


@pytest.mark.parametrize("name", COSTS)
def test_a_unit_costs_what_the_documentation_says(name):
    """One undecided unit with five variables in its row, and two parts."""
    network = mn.Network.build((5,), [("fc", mn.Dense(np.ones((1, 5)))), ("relu", mn.ReLU())])
    formulation = {"relu": name} | ({"parts": 2} if name == "partition" else {})
    told = mn.explain(mn.encode(network, mn.Box(-np.ones((1, 5)), np.ones((1, 5))), formulation=formulation), None)["relu"]
    assert (told.size, told.special) == COSTS[name]


@pytest.mark.parametrize(("inputs", "units", "variables"), [(2, 3, 0), (3, 3, 0), (4, 3, 3)])
def test_active_units_get_variables_where_that_takes_fewer(inputs, units, variables):
    """Units that are always active pass the variables of their rows on, unless there are fewer units than variables."""
    network = mn.Network.build((inputs,), [("fc", mn.Dense(np.ones((units, inputs)))), ("relu", mn.ReLU())])
    told = mn.explain(mn.encode(network, mn.Box(np.ones((1, inputs)), np.full((1, inputs), 2.0))), None)["relu"]
    assert (told.size.variables, told.phases[""]) == (variables, Phases(units, 0, 0))


WINDOWS = {
    "big-m": (Size(1 + 4, 4, 1 + 2 * 4), {}),
    "indicator": (Size(1 + 4, 4, 1 + 4), {"indicator rows": 4}),
    "hull": (Size(1 + 4 + 16, 4, 2 + 3 * 16), {}),
    "triangle": (Size(1, 0, 1 + 2 * 4), {}),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_costs_what_the_documentation_says(name):
    network = mn.Network.build((1, 2, 2), [("pool", mn.MaxPool2d(mn.Window((2, 2), (2, 2))))])
    told = mn.explain(mn.encode(network, mn.LInf(np.zeros((1, 1, 2, 2)), 1.0), formulation={"maxpool2d": name}), None)["pool"]
    assert (told.size, told.special) == WINDOWS[name]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_would_be_an_error_is_told_before_the_solve(backend):
    """A user adds an SOS1 set of variables without bounds: SCIP supports it, and HiGHS needs a big-M that does not exist."""
    encoding = mn.encode(*mixed())
    free = encoding.model.add_variables(coords={"way": np.arange(2)}, name="free")
    encoding.model.add_sos_constraints(free, 1, "way")
    encoding.model.add_objective(encoding.output.sum() + 0 * free.sum(), sense="max")
    told = mn.explain(encoding, backend)
    if backend == "scip":
        assert not told.errors
        assert told.rest.native == ("1 SOS1 sets",)
        return
    assert told.handed_over is None
    assert told.errors == ("the rest: highs does not support them, and 2 members of SOS1 sets have no finite bounds; bound them",)
    assert "nothing, see the errors" in str(told)
    with pytest.raises(UnboundedError, match="2 members of SOS1 sets"):
        open_problem(encoding, backend)


def test_an_indicator_without_a_big_m_is_an_error_on_highs():
    encoding = mn.encode(*mixed(), formulation={"relu": "indicator"})
    switch = encoding.block("relu1").variables["on"]
    free = encoding.model.add_variables(name="free")
    labels = switch.labels.values
    one = switch.isel({d: int(i[0]) for d, i in zip(switch.dims, np.nonzero(labels >= 0), strict=True)}, drop=True)
    encoding.model.add_indicator_constraints(one, 1, 1 * free, "<=", xr.DataArray(0.0), name="mine")
    (error,) = mn.explain(encoding, "highs").errors
    assert error.startswith("relu1: highs does not support them, and 1 indicator rows have no finite big-M")
    assert not mn.explain(encoding, "scip").errors


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_is_cut_by_tangents_where_it_is_not_native(backend):
    network, region = mixed()
    told = mn.explain(mn.Importance(network, region.lower, [0]).pose(), backend)
    assert told.rest.special == {"log-sum-exp terms": 1}
    rewritten = ("1 log-sum-exp term -> linearised by cuts",)
    assert (told.rest.rewritten, told.rest.native) == ((rewritten, ()) if backend == "highs" else ((), ("1 log-sum-exp terms",)))


def test_numbers_need_no_formulation():
    network, region = mixed()
    told = mn.explain(mn.encode(network, mn.Samples(region.lower)))
    assert told["relu1"].formulation == ""
    assert told["relu1"].why == "constant, because its inputs are constant"


def test_inspect_shows_and_carries_it(capsys: pytest.CaptureFixture[str]):
    file = str(ROOT / "examples" / "digits.yaml")
    given = ["--set", "formulation.bounds=sound", "--set", "formulation.relu=indicator"]
    assert main(["inspect", file, *given]) == 0
    table = capsys.readouterr().out
    assert "How it is written" in table
    assert "indicator rows -> big-M rows" in table
    assert max(map(len, table.splitlines())) <= 80
    assert main(["inspect", file, *given, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    nodes = {node["name"]: node for node in data["explanation"]["nodes"]}
    assert nodes["relu2"]["formulation"] == "indicator"
    assert nodes["relu2"]["special"]["indicator rows"] == 2 * nodes["relu2"]["phases"][""]["undecided"] > 0
    assert data["explanation"]["size"]["variables"] == data["program"]["size"]["columns"]
    parts = ["--set", "formulation.bounds=sound", "--set", "formulation.relu=partition", "--set", "formulation.parts=3"]
    assert main(["inspect", file, *parts, "--json"]) == 0
    relu2 = json.loads(capsys.readouterr().out)["explanation"]["nodes"][3]
    assert relu2["size"]["variables"] == (3 + 3) * relu2["phases"][""]["undecided"]
