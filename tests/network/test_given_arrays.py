"""Arrays of other libraries: names and labels decide the order of axes; what they do not decide is refused."""

from __future__ import annotations

import warnings
from itertools import permutations

import linopy
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import mipnet as mn
from mipnet.errors import DataError, InputError
from mipnet.network.given_arrays import in_order, numbers
from mipnet.network.labelled_samples import samples_by_label

G = np.random.default_rng(0)
IMAGES = G.normal(size=(3, 2, 4, 5))
NAMES = ("sample", "channel", "row", "col")


def net(shape: tuple[int, ...] = (2, 4, 5)) -> mn.Network:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(3, int(np.prod(shape)), generator=g, dtype=torch.float64)
    return mn.Network.build(shape, [("flat", mn.Reshape((weight.shape[1],))), ("fc", mn.Dense(weight))])


def shuffled(array: xr.DataArray, seed: int) -> xr.DataArray:
    """The same labelled array, with its axes and the values along each of them in another order."""
    g = np.random.default_rng(seed)
    array = array.isel({dim: g.permutation(n) for dim, n in array.sizes.items() if dim in array.coords})
    return array.transpose(*g.permutation(array.dims))


def named(values: np.ndarray, dims: tuple[str, ...], *, samples: bool = False) -> xr.DataArray:
    dims_with_labels = dims if samples else dims[1:]
    return xr.DataArray(values, dims=dims, coords={dim: np.arange(values.shape[dims.index(dim)]) for dim in dims_with_labels})


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


# Axes and labels of one array


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
@pytest.mark.parametrize("dims", [NAMES, ("n", "c", "y", "x"), ("batch", "input_channel", "input_row", "input_col")])
def test_axes_are_found_by_their_names(order, dims):
    given = named(IMAGES, dims).transpose(*(dims[k] for k in order))
    assert (numbers(given, "it") == IMAGES).all()


@pytest.mark.parametrize("seed", range(6))
def test_labels_of_an_axis_are_put_in_order(seed):
    assert (numbers(shuffled(named(IMAGES, NAMES), seed), "it") == IMAGES).all()
    assert (numbers(shuffled(named(IMAGES[:, 0, 0], ("sample", "unit")), seed), "it") == IMAGES[:, 0, 0]).all()


def test_what_says_nothing_of_the_order_stays():
    for coords in ({}, {"row": [3.5, 2.5, 1.5, 0.5]}, {"row": list("dcba")}, {"row": [10, 20, 30, 40]}, {"channel": ["green", "red"]}):
        assert (numbers(xr.DataArray(IMAGES, dims=NAMES, coords=coords), "it") == IMAGES).all()
    assert (numbers(xr.DataArray(IMAGES[0, 0].T), "it") == IMAGES[0, 0].T).all()  # the dimensions dim_0 and dim_1 are no names
    assert (numbers(xr.DataArray(IMAGES[0, 0].T, dims=("p", "q")), "it") == IMAGES[0, 0].T).all()
    own = xr.DataArray(IMAGES[:, :, 0, 0], dims=("sample", "input_0"), coords={"sample": [2, 0, 1]})
    assert (numbers(own, "it") == IMAGES[:, :, 0, 0]).all()  # samples keep the order in which they are given


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (xr.DataArray(IMAGES[0], dims=("row", "channel", "time")), "whose order mipnet does not know"),
        (xr.DataArray(IMAGES[0], dims=("x", "row", "col")), "two mean the same axis"),
        (xr.DataArray(IMAGES[0, 0], dims=("row", "col"), coords={"row": [3, 1, 2, 4]}), "`row` of it are 3, 1, 2, 4; expected 0 to 3"),
        (xr.DataArray(IMAGES[0, 0], dims=("row", "col"), coords={"row": [0, 1, 1, 2]}), "each once"),
        (np.array([1j]), "complex128"),
        (torch.tensor([1j]), "complex64"),
        (quantised(), "qint8"),
        (torch.eye(2).to_sparse(), "sparse"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), "1 masked values"),
        (np.array(["1.0"]), "not an array of numbers"),
        ([[1.0], [1.0, 2.0]], "do not make one array"),
        (np.array([object()]), "not an array of numbers"),
        (pd.DataFrame({"a": ["x"]}), "not an array of numbers"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "not an array of numbers"),
    ],
)
def test_what_is_no_array_of_numbers_in_a_known_order_is_refused(array, words):
    for call in (lambda: numbers(array, "it"), lambda: mn.Samples(array)):
        with pytest.raises(DataError, match=words.replace("it are", "(it|the array of images) are")) as caught:
            call()
        assert "\n" not in str(caught.value)


# Input sets


@pytest.mark.parametrize("seed", range(4))
def test_the_ends_of_a_box_are_aligned(seed):
    lower, upper = named(IMAGES, NAMES, samples=True), named(IMAGES + 1, NAMES, samples=True)
    box = mn.Box(lower, shuffled(upper, seed))
    assert (box.lower == IMAGES).all()
    assert (box.upper == IMAGES + 1).all()
    strings = {"row": list("abcd")}
    box = mn.Box(lower.assign_coords(strings), shuffled(upper.assign_coords(strings), seed))
    assert (box.upper == IMAGES + 1).all()
    table = pd.DataFrame(IMAGES[:, 0, 0], columns=list("pqrst"))
    assert (mn.Box(table, (table + 1)[list("tspqr")].iloc[::-1]).upper == IMAGES[:, 0, 0] + 1).all()
    with pytest.raises(DataError, match="different labels along `row`"):
        mn.Box(lower.assign_coords(strings), upper.assign_coords(row=list("abce")))


def test_a_radius_spreads_along_its_own_axis():
    centre, radius = named(IMAGES, NAMES), xr.DataArray([0.2, 0.1], dims="channel", coords={"channel": [1, 0]})
    ball = mn.LInf(centre, radius)
    assert np.allclose(ball.upper - IMAGES, np.array([0.1, 0.2])[:, None, None])
    wide = mn.LInf(xr.DataArray(np.zeros((1, 4, 4)), dims=("sample", "row", "col")), xr.DataArray(np.arange(4.0), dims="row"))
    assert (wide.upper[0] == np.arange(4.0)[:, None]).all()
    for lost in (lambda: mn.LInf(IMAGES, radius), lambda: mn.LInf(centre, radius.rename(channel="time"))):
        with pytest.raises(DataError, match="expected those of the first"):
            lost()


def test_networks_take_labelled_inputs():
    network, given = net(), shuffled(named(IMAGES, NAMES), 1)
    wanted = network.forward(IMAGES)
    assert (network.forward(given) == wanted).all()
    found = mn.solve(mn.encode(network, mn.Samples(given)))
    assert np.allclose(found.x["output"].values, wanted)
    robust = mn.robustness(network, given.isel(sample=slice(0, 1)), radius=1e-9, clip=None)
    assert robust.status == "unsat"
    assert mn.from_torch(torch.nn.Conv2d(2, 3, 2), given).input_shape == (2, 4, 5)


@pytest.mark.parametrize(
    "call", [lambda n, x: n.forward(x), lambda n, x: mn.encode(n, mn.Samples(x)), lambda n, x: mn.robustness(n, x, radius=1.0)]
)
def test_channels_at_the_end_are_told(call):
    with pytest.raises(InputError, match=r"channels seem to be the last axis.*numpy\.moveaxis"):
        call(net(), np.moveaxis(IMAGES, 1, -1)[:1])


@pytest.mark.parametrize("seed", range(3))
def test_a_variable_of_a_model_is_read_by_names_and_labels(seed):
    model, shape = linopy.Model(), (2, 4, 5)
    dims, g = ("channel", "row", "col"), np.random.default_rng(seed)
    coords = {dim: g.permutation(n) for dim, n in zip(dims, shape, strict=True)}
    order = [str(dim) for dim in g.permutation(dims)]
    low = named(IMAGES[0], dims, samples=True).sel(coords).transpose(*order)
    x = model.add_variables(lower=low, upper=low + 0.5, coords=[pd.Index(coords[dim], name=dim) for dim in order], name="pixels")
    encoding = mn.add_network(model, net(), x)
    model.add_objective(1 * encoding.output.sum())
    slope = net()["fc"].layer.weight.sum(0).numpy()
    smallest = net().forward(IMAGES[:1]).sum() + 0.5 * np.minimum(slope, 0).sum()
    assert mn.solve(model).objective == pytest.approx(smallest)


def test_bounds_of_an_open_problem_follow_labels():
    network = net((3,))
    encoding = mn.encode(network, mn.Box(np.zeros((1, 3)), np.ones((1, 3))))
    with mn.open_problem(encoding, "highs") as problem:
        variable = encoding.model.variables["input"]
        ends = xr.DataArray([0.9, 0.1, 0.5], dims="input_unit", coords={"input_unit": [2, 0, 1]})
        problem.set_bounds(variable, lower=ends, upper=ends)
        problem.set_objective(encoding.model.variables["output"] * 1)
        assert problem.solve().x["input"].values.tolist() == [[0.1, 0.5, 0.9]]
        with pytest.raises(InputError, match="different labels"):
            problem.set_bounds(variable, lower=ends.assign_coords(input_unit=[2, 0, 5]))


def test_own_bounds_follow_labels():
    network = mn.Network.build((3,), [("fc", mn.Dense(np.diag([1.0, 2.0, 3.0]))), ("relu", mn.ReLU())])
    region = mn.Box(np.full((2, 3), -1.0), np.ones((2, 3)))
    ends = xr.Dataset(
        {"lower": (("fc_unit", "sample"), [[-1.0, -1.0], [-2.0, -2.0], [-3.0, -3.0]]), "upper": ("fc_unit", [1.0, 2.0, 3.0])},
        coords={"fc_unit": [0, 1, 2], "sample": [0, 1]},
    )
    for order in permutations(range(3)):
        for given in (ends.isel(fc_unit=list(order)), [ends["lower"].isel(fc_unit=list(order)), ends["upper"].isel(fc_unit=list(order))]):
            found = mn.propagate(network, region, given=mn.UserBounds({"fc": given}, replace=True)).after["fc"]
            assert found.lower.tolist() == [[-1, -2, -3]] * 2
            assert found.upper.tolist() == [[1, 2, 3]] * 2
    wrong = mn.UserBounds({"fc": [ends["upper"], ends["upper"].assign_coords(fc_unit=[0, 1, 3])]})
    with pytest.raises(InputError, match="different labels"):
        mn.propagate(network, region, given=wrong)


def test_plain_arrays_pass_unchanged():
    assert samples_by_label(IMAGES, [0, 1, 1])[0] is IMAGES
    whole = in_order(named(IMAGES, NAMES), "it")
    assert (whole.values == IMAGES).all()
