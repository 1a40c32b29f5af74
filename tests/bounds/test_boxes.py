"""A Bounds object: its labels, statistics and files, and its refusal for another network or set; and bounds of the user."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import mipnet as mn
from mipnet.bounds.user_bounds import USER_BOUNDS_SLACK_RELATIVE
from mipnet.errors import DataError, InputError, NetworkError
from tests.bounds.search import activations, everything, first_outside
from tests.nets import cnn, dense, make, mlp, residual


@pytest.fixture
def asked():
    network, g = make(mlp, 1)
    return network, mn.LInf(g.uniform(0.2, 0.8, (2, *network.input_shape)), 0.2), g


def same(one: mn.Bounds, two: mn.Bounds) -> bool:
    return one.after.keys() == two.after.keys() and all(
        torch.equal(box.lower, two.after[name].lower) and torch.equal(box.upper, two.after[name].upper) for name, box in one.after.items()
    )


def test_it_is_labelled_and_measured(asked):
    network, region, _ = asked
    bounds = mn.propagate(network, region, method="interval")
    box = bounds["fc1"]
    assert box.lower.dims == ("sample", "fc1_unit")
    assert bool((box.lower <= box.upper).all())
    assert (bounds.method, bounds.mode, bounds.gates) == ("interval", "sound", ())
    layers = {layer.name: layer for layer in bounds.layers()}
    assert list(layers) == ["act1", "act2", "fc3"]
    assert layers["act1"].units == box.lower.size
    assert layers["act1"].unstable == int(((box.lower < 0) & (box.upper > 0)).sum())
    assert layers["act1"].width == pytest.approx(float((box.upper - box.lower).mean()))
    assert layers["fc3"].unstable is None
    with pytest.raises(NetworkError, match="no bounds for `fc9`"):
        bounds["fc9"]


@pytest.mark.parametrize("method", ["interval", "crown", "alpha"])
def test_an_encoding_takes_them_by_name_and_as_an_object(asked, method):
    network, region, _ = asked
    bounds = mn.propagate(network, region, method=method)
    assert same(mn.encode(network, region, bounds=method).bounds, bounds)
    assert mn.encode(network, region, bounds=bounds).bounds is bounds
    assert mn.encode(network, region).bounds.method == "crown"
    assert mn.encode(network, region, bounds="paper").bounds.method == "interval"


@pytest.mark.parametrize("family", [mlp, residual, cnn])
def test_a_file_gives_back_the_same_bounds(family, tmp_path):
    network, g = make(family, 2)
    region, gates = mn.LInf(g.uniform(size=(2, *network.input_shape)), 0.1), mn.find_gates(network)
    for chosen, mode in (((), "sound"), (gates, "sound"), (gates, "paper")):
        bounds = mn.propagate(network, region, chosen, mode)
        bounds.save(tmp_path / "bounds.npz")
        found = mn.load_bounds(tmp_path / "bounds.npz", network, region, chosen)
        assert (found.mode, found.method, found.gates) == (bounds.mode, bounds.method, bounds.gates)
        assert found.ungated.keys() == bounds.ungated.keys()
        for node in network.nodes:
            for box, kept in ((found.after, bounds.after), (found.ungated, bounds.ungated)):
                if node.name in kept:
                    assert torch.equal(box[node.name].lower, kept[node.name].lower)
                    assert torch.equal(box[node.name].upper, kept[node.name].upper)


def test_bounds_of_something_else_are_refused(asked, tmp_path):
    network, region, _ = asked
    path = tmp_path / "bounds.npz"
    bounds = mn.propagate(network, region)
    bounds.save(path)
    weights = network["fc1"].layer.weight.clone()
    weights[0, 0] += 1e-9
    nodes = [(n.name, mn.Dense(weights, n.layer.bias) if n.name == "fc1" else n.layer, n.inputs) for n in network.nodes]
    other = mn.Network.build(network.input_shape, nodes)
    again = mn.Network.build(network.input_shape, [(n.name, n.layer, n.inputs) for n in network.nodes])
    wider, gates = mn.Box(region.lower, region.upper + 1e-9), mn.find_gates(network)
    assert same(mn.load_bounds(path, again, region), bounds)
    assert mn.encode(again, mn.Box(region.lower, region.lower), bounds=bounds).bounds is bounds
    for made, what in (
        ((other, region), "another network"),
        ((network, wider), "another input set"),
        ((network, region, gates), "other gates"),
    ):
        with pytest.raises(DataError, match=f"holds bounds of {what}; compute them for this one"):
            mn.load_bounds(path, *made)
    for given, options, told in (
        ((other, region), {}, "those of another network"),
        ((network, wider), {}, "another input set, which does not contain this one"),
        ((network, mn.Box(region.lower[:1], region.upper[:1])), {}, "another input set"),
        ((network, region), {"gates": "all"}, r"do not know of gates after act1, act2"),
    ):
        with pytest.raises(InputError, match=told):
            mn.encode(*given, bounds=bounds, **options)
    for wrong in (b"", b"PK\x03\x04", b"no bounds"):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match="is no file of bounds"):
            mn.load_bounds(path, network, region)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="is no file of bounds"):
        mn.load_bounds(tmp_path / "other.npz", network, region)
    with pytest.raises(DataError, match=r"no file `.*nowhere.npz`"):
        mn.load_bounds(tmp_path / "nowhere.npz", network, region)


@pytest.mark.parametrize("method", ["interval", "crown", "alpha"])
def test_own_bounds_are_used_along_with_the_computed_ones(asked, method):
    network, region, g = asked
    loose, tight = mn.propagate(network, region, method="interval"), mn.propagate(network, region, method="alpha")
    own = tight["fc1"]
    bounds = mn.propagate(network, region, method=method, given={"fc1": own, "fc2": (-np.inf, loose["fc2"].upper)})
    assert bounds.width()["fc1"] <= tight.width()["fc1"] + 1e-12
    assert bounds.width()["fc3"] <= mn.propagate(network, region, method=method).width()["fc3"] + 1e-12
    wide = (loose["fc1"].lower.values - 1, loose["fc1"].upper.values + 1)
    assert same(mn.propagate(network, region, method=method, given={"fc1": wide}), mn.propagate(network, region, method=method))
    replaced = mn.propagate(network, region, method=method, given=mn.UserBounds({"fc1": wide}, replace=True))
    np.testing.assert_array_equal(replaced["fc1"].lower, wide[0])
    assert first_outside(replaced, activations(network, everything(network, mn.Box(region.lower[:1], region.upper[:1]), g))) is None
    one = tight["fc1"].isel(sample=0)
    single = mn.propagate(network, mn.Box(region.lower[:1], region.upper[:1]), given={"fc1": (one.lower.values, one.upper.values)})
    np.testing.assert_allclose(single["fc1"].lower[0], one.lower, atol=1e-12)


def test_a_tighter_start_stays(asked):
    network, region, _ = asked
    tight = mn.propagate(network, region, method="alpha")
    for method in ("interval", "crown"):
        bounds = mn.propagate(network, region, method=method, start=tight)
        for name, box in bounds.after.items():
            assert bool((box.lower >= tight.after[name].lower - 1e-12).all()), name
            assert bool((box.upper <= tight.after[name].upper + 1e-12).all()), name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"fc9": (0, 1)}, r"given for `fc9`; the nodes are fc1, act1, fc2, bn2, act2, fc3"),
        ({"fc1": 3.0}, r"`fc1` are no pair of arrays; expected `\(lower, upper\)`, or a Dataset with both"),
        ({"fc1": xr.Dataset({"low": 1})}, "`fc1` are no pair of arrays"),
        ({"fc1": ("a", "b")}, "bounds of `fc1` is of type <U1, text, and not an array of numbers"),
        ({"fc1": (np.zeros(99), np.zeros(99))}, r"have shapes \(99,\) and \(99,\); expected \(2, \d\), or \(\d,\) for all"),
        ({"fc1": (np.nan, 1.0)}, "`fc1` hold NaN"),
        ({"fc1": (1.0, 0.0)}, r"`fc1` are out of order in \d+ places"),
        ({"fc1": (-100.0, -99.0)}, r"`fc1` do not hold: for an input in the set, element \(\d,\) of sample 0 is .*, outside \[-100, -99\]"),
    ],
    ids=["name", "number", "dataset", "words", "shape", "nan", "order", "wrong"],
)
def test_own_bounds_that_are_wrong_are_refused(asked, given, told):
    network, region, _ = asked
    with pytest.raises(InputError, match=told):
        mn.propagate(network, region, given=given)


def test_own_bounds_have_to_hold_with_gates_closed():
    """Bounds of the network without gates do not: a closed gate changes the values after it."""
    g = np.random.default_rng(5)
    network = mn.Network.build(
        (3,), [("fc1", dense(g, 4, 3)), ("act1", mn.ReLU()), ("fc2", dense(g, 3, 4)), ("act2", mn.ReLU()), ("fc3", dense(g, 2, 3))]
    )
    region, gates = mn.Samples(g.uniform(size=(2, 3))), mn.find_gates(network)
    plain, gated = mn.propagate(network, region), mn.propagate(network, region, gates)
    assert mn.propagate(network, region, given={"fc2": plain["fc2"]}).width()["fc2"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(InputError, match="the bounds of `fc2` do not hold"):
        mn.propagate(network, region, gates, given={"fc2": plain["fc2"]})
    assert mn.propagate(network, region, gates, given={"fc2": gated["fc2"]}).gates == gates


def test_bounds_that_only_the_middle_of_the_set_contradicts():
    """|x| over [-1, 1]: it is 1 at both ends, and 0 between them."""
    layers = [("fc1", mn.Dense([[1.0], [-1.0]])), ("relu", mn.ReLU()), ("fc2", mn.Dense([[1.0, 1.0]]))]
    network, region = mn.Network.build((1,), layers), mn.Box([[-1.0]], [[1.0]])
    with pytest.raises(InputError, match="the bounds of `fc2` do not hold"):
        mn.propagate(network, region, given={"fc2": (0.5, 1.0)})


def test_bounds_may_be_wrong_by_their_slack_and_no_more():
    network, region = mn.Network.build((1,), [("fc", mn.Dense([[0.0]]))]), mn.Box([[-1.0]], [[1.0]])
    mn.propagate(network, region, given={"fc": (-1.0, -0.5 * USER_BOUNDS_SLACK_RELATIVE)})
    with pytest.raises(InputError, match="the bounds of `fc` do not hold"):
        mn.propagate(network, region, given={"fc": (-1.0, -1.5 * USER_BOUNDS_SLACK_RELATIVE)})
