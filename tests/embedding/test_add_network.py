"""`add_network`: which dimension holds the features, bounds of inputs, modules, files, outputs of the user's own, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import linopy
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.errors import DataError, InputError, UnboundedError, UnsupportedError

RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(5, 3)), RNG.normal(size=5), RNG.normal(size=(2, 5))


def network(inputs: int = 3) -> mn.Network:
    layers = [("fc1", mn.Dense(np.resize(WEIGHTS[0], (5, inputs)), WEIGHTS[1])), ("act", mn.ReLU()), ("fc2", mn.Dense(WEIGHTS[2]))]
    return mn.Network.build((inputs,), layers)


def variable(model: linopy.Model, name: str = "x", **dims: Any) -> linopy.Variable:
    """A variable over dimensions given by their labels or their lengths, with bounds that differ everywhere."""
    coords = [pd.Index(range(n) if isinstance(n, int) else n, name=dim) for dim, n in dims.items()]
    lower = xr.DataArray(np.random.default_rng(len(dims)).uniform(-1, 0, [len(each) for each in coords]), coords=coords)
    return model.add_variables(lower, lower + 1.0, name=name)


def reached(model: linopy.Model, handle: mn.Encoding, x: xr.DataArray, **keywords: Any) -> xr.DataArray:
    """The output at an input fixed by rows."""
    model.add_constraints(model.variables["x"], "=", x, name="fixed")
    model.add_objective(handle.output.sum())
    result = mn.solve(model, start="none", **keywords)
    assert result.verified
    return result.x[handle.output.name]


@pytest.mark.parametrize("order", list(itertools.permutations(("hour", "plant", "what"))))
@pytest.mark.parametrize("how", ["named", "by size", "feature"])
def test_the_output_is_that_of_the_network_wherever_the_features_are(order: tuple[str, ...], how: str) -> None:
    """The square of hours and features is decided by `feature_dim` or by the name."""
    model, net = linopy.Model(), network()
    what = "feature" if how == "feature" else "what"
    sizes = {"hour": 4 if how == "by size" else 3, "plant": ["a", "b"], what: 3}
    x = variable(model, **{what if dim == "what" else dim: sizes[what if dim == "what" else dim] for dim in order})
    handle = mn.add_network(model, net, x, feature_dim="what" if how == "named" else None)
    at = x.lower + 0.4
    found = reached(model, handle, at)
    assert set(found.dims) == {"hour", "plant", "fc2_unit"}
    expected = net.forward(at.transpose("hour", "plant", what).values.reshape(-1, 3)).reshape(-1, 2, 2)
    np.testing.assert_allclose(found.transpose("hour", "plant", "fc2_unit"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        (
            {"time": 3, "plant": 3},
            r"\(time: 3, plant: 3\), and the network takes 3 features; say.*`feature_dim='time'` or `feature_dim='plant'`",
        ),
        ({"time": 4, "plant": 2}, r"\(time: 4, plant: 2\), and the network takes 3 features; no dimension has this length"),
        ({"time": 3, "feature": 2}, "has 2 entries along `feature`; the network takes 3 features"),
        ({"feature": 3, "features": 3}, "`feature_dim='feature'` or `feature_dim='features'`"),
    ],
)
def test_what_names_and_lengths_leave_open_is_refused(dims: dict[str, int], message: str) -> None:
    model = linopy.Model()
    with pytest.raises(InputError, match=message):
        mn.add_network(model, network(), variable(model, **dims))
    assert list(model.variables) == ["x"]


@pytest.mark.parametrize(
    ("given", "message"),
    [("day", "`feature_dim` is `day`; variable `x` has dimensions"), ("time", "of lengths"), (("what", "time"), "of lengths")],
)
def test_a_wrong_feature_dim_is_refused(given: Any, message: str) -> None:
    model = linopy.Model()
    with pytest.raises(InputError, match=message):
        mn.add_network(model, network(), variable(model, time=2, what=3), feature_dim=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("time", r"^`feature_dim` is `time` of variable `x`, of length 5; the Sequential takes 3 features$"),
        ("whta", r"^`feature_dim` is `whta`; variable `x` has dimensions \(time: 5, what: 3\); did you mean `what`\?$"),
        (("what", "time"), r"^`feature_dim` is `what`, `time` of variable `x`, of lengths \(3, 5\); .*its forward fails "),
    ],
)
def test_a_wrong_feature_dim_of_a_module_is_refused_in_the_words_of_the_user(given: Any, message: str) -> None:
    model, module = linopy.Model(), nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    with pytest.raises(InputError, match=message):
        mn.add_network(model, module, variable(model, time=5, what=3), feature_dim=given)
    model, picture = linopy.Model(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with pytest.raises(InputError, match=r"^`feature_dim` is `time` of variable `x`, of length 5; .*its forward fails .*conv2d"):
        mn.add_network(model, picture, variable(model, time=5, what=3), feature_dim="time")


def test_a_module_that_acts_on_the_last_axis_takes_all_of_its_axes_as_features() -> None:
    model, module = linopy.Model(), nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    handle = mn.add_network(model, module, variable(model, time=5, what=3), feature_dim=("time", "what"))
    at = model.variables["x"].lower + 0.5
    found = reached(model, handle, at)
    np.testing.assert_allclose(found.values, module(torch.tensor(at.values)).detach().numpy(), atol=1e-9)


def test_features_are_matched_with_the_networks_names() -> None:
    model, net = linopy.Model(), network().with_input_names(["a", "b", "c"])
    x = variable(model, what=["c", "a", "b"], time=["a", "b", "d"])  # time has two of the names, and the right length
    handle = mn.add_network(model, net, x)
    at = x.lower + 0.5
    found = reached(model, handle, at)
    np.testing.assert_allclose(found, net.forward(at.sel(what=["a", "b", "c"]).transpose("time", "what").values), atol=1e-6)
    assert handle.input.indexes["what"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b", "d"], "lacks c and has d, which the network does not know; the network takes a, b, c"),
        (["a", "b"], "lacks c"),
        (["a", "b", "c", "d"], "has d, which the network does not know"),
    ],
)
def test_features_that_are_missing_or_unknown_are_named(labels: list[str], message: str) -> None:
    net = network().with_input_names(["a", "b", "c"])
    model = linopy.Model()
    with pytest.raises(DataError, match=message):
        mn.add_network(model, net, variable(model, what=labels, time=2))
    parts = {label: variable(model, label, time=2) for label in labels}
    with pytest.raises(DataError, match=message):
        mn.add_network(model, net, parts)
    with pytest.raises(mn.MipnetError, match="one for each of its elements"):
        network().with_input_names(["a", "b"])
    with pytest.raises(mn.MipnetError, match="contain one twice"):
        network().with_input_names(["a", "b", "a"])


def test_an_image_network_takes_dimensions_by_name() -> None:
    net = mn.Network.build((1, 2, 2), [("conv", mn.Conv2d(RNG.normal(size=(2, 1, 2, 2)))), ("act", mn.ReLU())])
    model = linopy.Model()
    x = variable(model, lat=2, band=1, lon=2, time=2)
    with pytest.raises(InputError, match=r"name the dimensions of one input.*feature_dim=\("):
        mn.add_network(model, net, x)
    handle = mn.add_network(model, net, x, feature_dim=("band", "lat", "lon"))
    at = x.lower + 0.4
    found = reached(model, handle, at)
    np.testing.assert_allclose(found, net.forward(at.transpose("time", "band", "lat", "lon").values), atol=1e-6)


def test_a_dimension_of_samples_is_none_of_an_input() -> None:
    """Two samples, and inputs of shape (2, 3)."""
    model = linopy.Model()
    matrix = mn.Network.build((2, 3), [("flat", mn.Reshape((6,))), ("fc", mn.Dense(np.ones((1, 6))))])
    handle = mn.add_network(model, matrix, variable(model, batch=2, row=2, column=3))
    assert handle.grid.dims == ("batch",)


def test_a_feature_of_a_matrix_is_named_by_its_row_and_column() -> None:
    model = linopy.Model()
    matrix = mn.Network.build((2, 3), [("flat", mn.Reshape((6,))), ("fc", mn.Dense(np.ones((1, 6))))])
    lower = np.zeros((2, 3))
    lower[1, 1] = -np.inf
    x = model.add_variables(xr.DataArray(lower, dims=("row", "column")), 1.0, name="x")
    with pytest.raises(UnboundedError, match="no lower bound of feature `1, 1`"):
        mn.add_network(model, matrix, x)


def test_bounds_of_expressions_follow_from_those_of_variables() -> None:
    model = linopy.Model()
    a, b = (model.add_variables(0, n, coords=[pd.RangeIndex(2, name="t")], name=f"v{n}") for n in (1, 2))
    handle = mn.add_network(model, network(), [a - 3 * b + 1, 2 * a - a, 0.5])
    assert handle.region.lower.tolist() == [[-5.0, 0.0, 0.5]] * 2
    assert handle.region.upper.tolist() == [[2.0, 1.0, 0.5]] * 2
    model.add_objective(handle.output.sum() + (a + b).sum())
    result = mn.solve(model)
    assert result.verified
    assert result.start_accepted
    at = np.stack([(a.name, b.name), (a.name, b.name)])
    u, v = (result.x[name].values for name in at[0])
    expected = network().forward(np.stack([u - 3 * v + 1, u, np.full(2, 0.5)], axis=1))
    np.testing.assert_allclose(result.x["output"], expected, atol=1e-6)
    a.update(upper=3.0)
    with pytest.raises(InputError, match="wider bounds than when it was written"):
        mn.solve(model)


def free(model: linopy.Model) -> linopy.Variable:
    return model.add_variables(coords=[pd.Index(["p", "q"], name="t"), pd.Index(["u", "v", "w"], name="feature")], name="x")


BOUNDS: dict[str, Any] = {
    "dict": {"u": (-1, 1), "v": (0, 2.0), "w": (xr.DataArray([0.5, -1.0], coords=[pd.Index(["q", "p"], name="t")]), 1)},
    "arrays": ([-1, 0, -1], np.array([1, 2, 1])),
    "numbers": (-1, 1.5),
    "labelled": (
        xr.DataArray([0, -1, -1], coords=[pd.Index(["v", "u", "w"], name="feature")]),
        xr.DataArray([[1, 2, 1], [2, 2, 3]], coords=[pd.Index(["q", "p"], name="t"), pd.Index(["u", "v", "w"], name="feature")]),
    ),
    "Dataset": xr.Dataset({"lower": -1, "upper": ("feature", [1, 2, 3])}, coords={"feature": ["u", "v", "w"]}),
}
ENDS: dict[str, tuple[Any, Any]] = {
    "dict": ([[-1, 0, -1], [-1, 0, 0.5]], [[1, 2, 1]] * 2),
    "arrays": ([[-1, 0, -1]] * 2, [[1, 2, 1]] * 2),
    "numbers": ([[-1] * 3] * 2, [[1.5] * 3] * 2),
    "labelled": ([[-1, 0, -1]] * 2, [[2, 2, 3], [1, 2, 1]]),
    "Dataset": ([[-1] * 3] * 2, [[1, 2, 3]] * 2),
}


@pytest.mark.parametrize("kind", BOUNDS)
def test_bounds_of_inputs_are_rows_of_the_model(kind: str) -> None:
    model = linopy.Model()
    x = free(model)
    handle = mn.add_network(model, network(), x, bounds=BOUNDS[kind])
    lower, upper = (np.array(end, dtype=float) for end in ENDS[kind])
    assert handle.region.lower.tolist() == lower.tolist()
    assert handle.region.upper.tolist() == upper.tolist()
    model.add_objective(x.sum(), sense="max")
    assert mn.solve(model).objective == pytest.approx(upper.sum())
    model.add_objective(x.sum(), sense="min", overwrite=True)
    assert mn.solve(model).objective == pytest.approx(lower.sum())


@pytest.mark.parametrize(
    ("bounds", "failure", "message"),
    [
        (None, UnboundedError, "variable `x` has infinite bounds: no lower bound of feature `u` at t=p and in 5 other places"),
        ({"u": (0, 1), "w": (0, 1)}, UnboundedError, "no lower bound of feature `v`"),
        ({"u": (0, 1), "v": (0, None), "w": (0, 1)}, UnboundedError, "no upper bound of feature `v`"),
        ({"u": (0, 1), "V": (0, 1)}, InputError, "`bounds` has `V`; the features are u, v, w"),
        ({"u": 1}, InputError, "`bounds` of `u` is int; expected a pair"),
        ((1, 0), InputError, "bounds that exclude each other of feature `u`"),
        (([0, 0], 1), DataError, r"`bounds` have shape \(2,\)"),
        ({"u": ([0, 0], 1)}, DataError, "without labels"),
        ({"u": (xr.DataArray([0.0], coords=[pd.Index(["p"], name="t")]), 1)}, DataError, "lack t=q"),
        ((xr.DataArray([0.0], dims="day"), 1), DataError, "have the dimension `day`"),
        ("loose", InputError, "'loose'; expected `sound`"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(bounds: Any, failure: type[Exception], message: str) -> None:
    model = linopy.Model()
    x = free(model)
    if bounds == "loose":
        x.update(lower=0, upper=1)
    with pytest.raises(failure, match=message):
        mn.add_network(model, network(), x, bounds=bounds)
    assert (list(model.variables), list(model.constraints)) == (["x"], [])


@pytest.mark.parametrize("kind", ["module", pytest.param("path", marks=pytest.mark.sweep), pytest.param("text", marks=pytest.mark.sweep)])
def test_modules_and_files_are_read(kind: str, tmp_path: Any) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).double()
    given: Any = module
    if kind != "module":
        path = tmp_path / "net.pt2"
        torch.export.save(torch.export.export(module, (torch.zeros(2, 3, dtype=torch.float64),)), path)
        given = str(path) if kind == "text" else path
    at = xr.DataArray([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], dims=("t", "what"))
    model = linopy.Model()
    handle = mn.add_predictor(model, given, at)
    assert handle.values["input"].is_fixed
    model.add_objective(handle.output.sum())
    expected = module(torch.tensor(at.values)).detach().numpy()
    np.testing.assert_allclose(mn.solve(model).x["output"], expected, atol=1e-9)


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(InputError, match="expected a `Network`, a torch module, an estimator of scikit-learn, or the path"):
        mn.add_network(linopy.Model(), 3, xr.DataArray([0.1, 0.2], dims="what"))  # type: ignore[arg-type]


OUTPUTS = {
    "one": lambda m: m.add_variables(coords=[pd.Index([1, 0], name="t"), pd.RangeIndex(2, name="of")], name="y"),
    "turned": lambda m: m.add_variables(coords=[pd.RangeIndex(2, name="fc2_unit"), pd.RangeIndex(2, name="t")], name="y"),
    "list": lambda m: [m.add_variables(coords=[pd.RangeIndex(2, name="t")], name=f"y{i}") for i in range(2)],
    "dict": lambda m: {f"out{i}": m.add_variables(coords=[pd.RangeIndex(2, name="t")], name=f"y{i}") for i in range(2)},
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_output_may_be_the_users_own_variables(kind: str) -> None:
    model = linopy.Model()
    x = variable(model, t=2, feature=3)
    y = OUTPUTS[kind](model)
    handle = mn.add_network(model, network(), x, y, prefix="n_")
    parts = list(y.values()) if isinstance(y, dict) else y if isinstance(y, list) else [y]
    model.add_objective(sum(part.sum() for part in parts) + 0.1 * x.sum())
    result = mn.solve(model)
    assert result.verified
    assert result.start_accepted
    expected = network().forward(result.x["x"].values)
    found = [result.x[part.name].sel(t=[0, 1]) for part in parts]
    got = found[0].transpose("t", ...).values if len(found) == 1 else np.stack([each.values for each in found], axis=1)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert handle.output.name == "n_output"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m, x: 3.0, "expected a variable of the model"),
        (lambda m, x: variable(m, "y", fc2_unit=2), "has the dimensions .* besides those of the output; expected .'t',"),
        (lambda m, x: variable(m, "y", t=[0, 1, 2], fc2_unit=2), "has t=2, where the input has none"),
        (lambda m, x: variable(m, "y", t=[1], fc2_unit=2), "has no variable at t=0"),
        (lambda m, x: [x], "1 outputs are given one by one"),
        (
            lambda m, x: variable(m, "y", fc2_unit=3, t=2),
            r"has the dimensions \(fc2_unit: 3, t: 2\); expected those of the input, \(t: 2\), and 2",
        ),
        (lambda m, x: m.add_variables(name="y"), r"has the dimensions \(\); expected those of the input"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    model = linopy.Model()
    x = variable(model, t=2, feature=3)
    y = make(model, x)
    before = {*model.variables, *model.constraints}
    with pytest.raises(InputError, match=message):
        mn.add_network(model, network(), x, y)
    assert {*model.variables, *model.constraints} == before


@pytest.mark.parametrize("sizes", [{}, pytest.param({"t": 2, "other": 2}, marks=pytest.mark.sweep)])
def test_a_variable_that_does_not_fit_a_single_output_is_refused(sizes: dict[str, int]) -> None:
    model = linopy.Model()
    single = mn.Network.build((3,), [("fc", mn.Dense(np.ones((1, 3))))])
    with pytest.raises(
        InputError, match=r"expected those of the input, \(t: 2\), and 1 for the output; none is needed for a single output"
    ):
        mn.add_network(model, single, variable(model, t=2, feature=3), variable(model, "y", **sizes) if sizes else model.add_variables())


def test_the_value_of_a_node_that_is_none() -> None:
    model = linopy.Model()
    handle = mn.add_network(model, network(), variable(model, t=2, feature=3))
    with pytest.raises(InputError, match="no node is called `fc3`; the nodes are"):
        handle["fc3"]


def some(model: linopy.Model) -> linopy.Variable:
    return variable(model, "x", t=2)


@pytest.mark.parametrize(
    ("make", "failure", "message"),
    [
        (lambda m: [some(m), some(linopy.Model()), 1], InputError, "input `1` belongs to another|variable `x` belongs to another model"),
        (lambda m: [some(m), 1], DataError, "2 inputs are given; the network takes 3"),
        (lambda m: [some(m), 1, np.nan], DataError, "input `2` has a number that is NaN or infinite"),
        (lambda m: [some(m), 1, np.zeros(2)], DataError, "input `2` is a ndarray; expected a linopy variable"),
        (lambda m: [some(m), 1, "cold"], DataError, "input `2` is a str; expected"),
        (lambda m: [some(m), 1, pd.Series([1.0, 2.0])], DataError, "whose index has no name"),
        (lambda m: [some(m), 1, pd.DataFrame([[1.0], [2.0]], pd.RangeIndex(2, name="t"))], DataError, "whose columns have no name"),
        (lambda m: [some(m), 1, pd.Series([1.0], pd.Index([1], name="t"))], DataError, "input `2` has no value at t=0"),
        (lambda m: [some(m), 1, xr.DataArray([1.0, 2.0, 3.0], dims="t")], DataError, "different lengths along `t`"),
        (lambda m: [(v := some(m)), 1, v * v], UnsupportedError, "input `2` is a quadratic expression"),
        (lambda m: [some(m), variable(m, "y", t=["a"]), 1], DataError, "no label has all inputs"),
        (lambda m: np.zeros(3), DataError, "the input `x` is a ndarray; expected"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make: Any, failure: type[Exception], message: str) -> None:
    model = linopy.Model()
    with pytest.raises(failure, match=message):
        mn.add_network(model, network(), make(model))


def test_a_constant_next_to_a_masked_variable_is_not_guessed() -> None:
    """Under `legacy` an expression of a masked variable is a constant there; linopy writes no row for it if it is 0."""
    model = linopy.Model()
    mask = xr.DataArray([True, False], coords=[pd.RangeIndex(2, name="t")])
    x = model.add_variables(0, 1, coords=[pd.RangeIndex(2, name="t")], name="x", mask=mask)
    with pytest.warns(linopy.config.LinopySemanticsWarning):
        doubled, shifted = 2 * x, 2 * x + 1
    with pytest.raises(InputError, match="a constant and no variable in 1 places"):
        mn.add_network(model, network(), [shifted, 1, 1])
    assert mn.add_network(model, network(), [doubled, 1, 1]).output.labels.values.tolist()[1] == [-1, -1]
    with linopy.options:
        linopy.options["semantics"] = "v1"
        for n, (made, absent) in enumerate([(2 * x, True), (2 * x + 1, True), ((2 * x).fillna(1), False)]):
            handle = mn.add_network(model, network(), [made, 1, 1], prefix=f"n{n}_")
            assert (int(handle.output.labels.min()) == -1) == absent


def test_levels_of_a_multiindex_take_inputs_over_one_of_them() -> None:
    index = pd.MultiIndex.from_product([["s", "r"], [0, 1]], names=["scenario", "time"])
    coords = xr.Coordinates.from_pandas_multiindex(index, "snapshot")
    model = linopy.Model()
    with pytest.warns(linopy.config.LinopySemanticsWarning, match="MultiIndex"):
        x = model.add_variables(xr.DataArray(np.zeros(4), dims="snapshot", coords=coords), 1, name="x")
    weather = xr.DataArray([0.5, -0.5, 9.0], coords=[pd.Index([1, 0, 7], name="time")])
    handle = mn.add_network(model, network(), [x, weather, 0.2])
    assert handle.region.lower[:, 1].tolist() == [-0.5, 0.5, -0.5, 0.5]
    assert handle.output.dims == ("snapshot", "fc2_unit")


def test_one_input_needs_no_dimension_for_it() -> None:
    model, net = linopy.Model(), network(1)
    x = variable(model, time=4, plant=2)
    handle = mn.add_network(model, net, x)
    at = x.lower + 0.3
    found = reached(model, handle, at)
    np.testing.assert_allclose(found, net.forward(at.values.reshape(-1, 1)).reshape(4, 2, 2), atol=1e-6)


def test_a_start_goes_through_networks_one_after_the_other_and_has_whole_numbers() -> None:
    model = linopy.Model()
    x = variable(model, time=2, feature=3)
    on = model.add_variables(binary=True, coords=[pd.RangeIndex(2, name="time")], name="on")
    first = mn.add_network(model, network(), x, prefix="a_")
    second = mn.add_network(model, network(), [first.output.isel(fc2_unit=i, drop=True) for i in range(2)] + [on], prefix="b_")
    model.add_objective(second.output.sum())
    result = mn.solve(model)
    assert result.start_accepted
    assert result.verified
    whole = network().forward(np.column_stack([network().forward(result.x["x"].values), result.x["on"]]))
    np.testing.assert_allclose(result.x["b_output"], whole, atol=1e-6)


def test_a_dimension_that_the_output_gets_is_refused_for_the_input() -> None:
    model = linopy.Model()
    with pytest.raises(InputError, match="the input has the dimension `fc2_unit`, which the output of the network gets; rename"):
        mn.add_network(model, network(), variable(model, fc2_unit=2, feature=3))


def test_rows_of_the_model_bound_the_inputs() -> None:
    """Variables without bounds, whose bounds are rows, as PyPSA writes them."""
    model, hours = linopy.Model(), pd.RangeIndex(2, name="t")
    x = model.add_variables(coords=[hours, pd.RangeIndex(3, name="feature")], name="x")
    most = xr.DataArray([[1.0, 2, 3], [2, 3, 4]], coords=x.labels.coords)
    model.add_constraints(x, ">=", -1.0, name="least")
    model.add_constraints(x, "<=", most, name="most")
    model.add_constraints(x.sum("feature"), "<=", 0.0, name="budget")
    plain = mn.add_network(model, network(), x, prefix="p_")
    assert (plain.region.lower == -1.0).all()
    assert np.array_equal(plain.region.upper, most.values)
    plain.remove()
    handle = mn.add_network(model, network(), x, formulation=mn.EmbeddingSettings(tighten="host"))
    np.testing.assert_allclose(handle.region.lower, -1.0, atol=1e-5)
    np.testing.assert_allclose(handle.region.upper, np.minimum(most.values, 2.0), atol=1e-5)
    model.add_objective(handle.output.sum())
    best = mn.solve(model, mip_gap=1e-9)
    assert best.verified
    other, bounds = linopy.Model(), (-1.0, most)
    y = other.add_variables(coords=x.labels.coords, name="x")
    other.add_constraints(y.sum("feature"), "<=", 0.0, name="budget")
    with pytest.raises(UnboundedError, match="feature `0` at t=0"):
        mn.add_network(other, network(), y)
    other.add_objective(mn.add_network(other, network(), y, bounds=bounds).output.sum())
    assert mn.solve(other, mip_gap=1e-9).objective == pytest.approx(best.objective, abs=1e-4)
    with pytest.raises(InputError, match="expected `host`, or None"):
        mn.EmbeddingSettings(tighten="hosts")  # type: ignore[arg-type]
