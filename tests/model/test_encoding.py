"""The encoding agrees with the network: on fixed inputs, over boxes, and for scores 0, 1 and between."""

from __future__ import annotations

import linopy
import numpy as np
import pytest
import torch
import xarray as xr

import mipnet as mn
from mipnet.errors import DataError, InputError, NetworkError, UnboundedError, UnsupportedError
from mipnet.model.to_program import from_model
from mipnet.network.graph import INPUT_NODE
from mipnet.solving.replay import gate_actions
from tests.nets import NETWORKS, SEEDS, dense, make, mlp, sample
from tests.sweep import in_turn

BACKENDS = ("highs", "scip")
NAMES = [f"{family.__name__}-{seed}" for family, seed in SEEDS]


@pytest.mark.parametrize(("family", "seed", "backend"), in_turn(NETWORKS, BACKENDS))
def test_a_fixed_input_reproduces_the_network(family, seed, backend):
    """The input is a variable fixed by a constraint, so that no value is a constant and the solver computes all of them."""
    network, g = make(family, seed)
    x = g.uniform(0, 1, (2, *network.input_shape))
    model = linopy.Model()
    dims = ("image", *network_dims(network))
    free = model.add_variables(lower=labelled(x - 1, dims), upper=labelled(x + 1, dims), name="pixels")
    handle = mn.add_network(model, network, free)
    model.add_constraints(free, "=", labelled(x, dims), name="fixed")
    model.add_objective(handle.output.sum())
    result = mn.solve(handle, backend, start="none")
    assert result.status is mn.Status.OPTIMAL
    assert result.verified
    expected = network.forward(x)
    np.testing.assert_allclose(result.x["output"], expected, atol=1e-5)
    assert result.max_error < 1e-5
    assert result.objective == pytest.approx(expected.sum(), abs=1e-5)


@pytest.mark.parametrize(
    ("family", "seed", "backend", "sense"),
    in_turn(NETWORKS, [("highs", "min"), ("scip", "max"), ("highs", "max"), ("scip", "min")]),
)
def test_a_free_input_brackets_dense_sampling_and_is_attained(family, seed, backend, sense):
    network, g = make(family, seed)
    region = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.15)
    sampled = network.forward(sample(region, 4000, g))[:, 0]
    encoding = mn.encode(network, region)
    encoding.model.add_objective(first_output(encoding), sense=sense)
    result = mn.solve(encoding, backend, mip_gap=1e-6, time_limit=60)
    assert result.status is mn.Status.OPTIMAL
    assert result.verified
    x = result.x[INPUT_NODE].values.reshape(1, *network.input_shape)
    assert region.contains(x, 0.0)
    assert network.forward(x)[0, 0] == pytest.approx(result.objective, abs=1e-9)
    assert result.bound == pytest.approx(result.objective, abs=1e-4)
    best = sampled.min() if sense == "min" else sampled.max()
    assert result.bound <= best + 1e-6 if sense == "min" else result.bound >= best - 1e-6


def network_dims(network):
    return tuple(f"axis{i}" for i in range(len(network.input_shape)))


def labelled(array, dims):
    return xr.DataArray(array, dims=dims, coords={d: np.arange(n) for d, n in zip(dims, array.shape, strict=True)})


def first_output(encoding):
    return encoding.output.isel({encoding.output.dims[-1]: 0}, drop=True).sum()


@pytest.mark.parametrize(("family", "seed"), NETWORKS, ids=NAMES)
def test_a_forward_pass_is_a_feasible_point(family, seed):
    network, g = make(family, seed)
    region = mn.LInf(g.uniform(0.2, 0.8, (3, *network.input_shape)), 0.2)
    encoding = mn.encode(network, region)
    program = from_model(encoding.model)
    for _ in range(5):
        x = g.uniform(region.lower, region.upper)
        point = encoding.point(x)
        assert program.violation(point[program.labels]) < 1e-9
        np.testing.assert_allclose(encoding.value(network.output.name, point), network.forward(x), atol=1e-10)


@pytest.mark.parametrize(("family", "seed"), NETWORKS, ids=NAMES)
@pytest.mark.parametrize("free", [False, True], ids=["images", "box"])
def test_gated_values_are_what_gates_say_at_any_score(family, seed, free):
    """With sound bounds every score in [0, 1] is feasible, and the program agrees with the gated network in torch."""
    network, g = make(family, seed)
    x = g.uniform(0, 1, (2, *network.input_shape))
    region = mn.LInf(x, 0.1) if free else mn.Samples(x)
    encoding = mn.encode(network, region, gates="all", bounds="sound")
    program = from_model(encoding.model)
    for _ in range(5):
        scores = {gate.name: g.choice([0.0, 1.0, g.uniform()], gate.units) for gate in encoding.gates}
        point = encoding.point(x, scores)
        assert program.violation(point[program.labels]) < 1e-9
        values = network.values(torch.tensor(x), gate_actions(encoding, scores))
        for name, value in values.items():
            np.testing.assert_allclose(encoding.value(name, point), value.numpy(), atol=1e-9)


@pytest.mark.parametrize(("family", "seed"), NETWORKS, ids=NAMES)
@pytest.mark.parametrize("mode", ["sound", "paper"])
def test_open_gates_are_the_network(family, seed, mode):
    network, g = make(family, seed)
    x = g.uniform(0, 1, (2, *network.input_shape))
    encoding = mn.encode(network, mn.Samples(x), gates="all", bounds=mode)
    program = from_model(encoding.model)
    point = encoding.point(x)
    assert program.violation(point[program.labels]) < 1e-9
    np.testing.assert_allclose(encoding.value(network.output.name, point), network.forward(x), atol=1e-9)


@pytest.mark.parametrize(("family", "seed", "backend"), in_turn(SEEDS[::4], BACKENDS))
def test_a_closed_gate_silences_its_unit(family, seed, backend):
    """A unit with score 0 is 0 for every objective and all other scores."""
    network, g = make(family, seed)
    encoding = mn.encode(network, mn.Samples(g.uniform(0, 1, (2, *network.input_shape))), gates="all", bounds="sound")
    gate = encoding.gates[-1]
    score = encoding.scores[gate.name]
    encoding.model.add_constraints(score.isel({gate.dim: 0}, drop=True), "=", 0, name="closed")
    weights = g.normal(size=encoding.output.shape)
    encoding.model.add_objective((encoding.output * labelled(weights, encoding.output.dims)).sum())
    result = mn.solve(encoding, backend, start="none", time_limit=20)
    assert result.x is not None
    assert result.verified
    assert float(result.x[score.name][0]) == pytest.approx(0.0, abs=1e-9)
    for site in gate.sites:
        assert np.abs(encoding.value(site, result.point)[:, 0]).max() <= 1e-9


def test_constants_and_fixed_signs_cost_nothing():
    network, g = make(mlp, 0)
    x = g.uniform(0, 1, (4, *network.input_shape))
    assert from_model(mn.encode(network, mn.Samples(x)).model).size["integers"] == 0
    assert list(mn.encode(network, mn.Samples(x)).model.variables) == ["output"]
    positive = mn.Network.build((2,), [("fc1", mn.Dense(np.eye(2), np.ones(2))), ("act", mn.ReLU()), ("fc2", dense(g, 2, 2))])
    encoding = mn.encode(positive, mn.Box(np.zeros((1, 2)), np.ones((1, 2))))
    assert list(encoding.model.variables) == ["input", "output"]
    assert from_model(encoding.model).size["rows"] == 2


def test_the_first_gated_layer_on_images_is_linear_in_its_scores():
    network, g = make(mlp, 1)
    relu = mn.Network.build(
        network.input_shape, [("fc1", dense(g, 5, network.input_shape[0])), ("act", mn.ReLU()), ("fc2", dense(g, 3, 5))]
    )
    encoding = mn.encode(relu, mn.Samples(g.uniform(0, 1, (6, *relu.input_shape))), gates="all", bounds="sound")
    assert from_model(encoding.model).size["integers"] == 0
    assert set(encoding.model.variables) == {"score_fc1", "output"}


def test_a_convolution_never_becomes_a_dense_matrix():
    g = np.random.default_rng(0)
    layer = mn.Conv2d(g.normal(size=(8, 3, 3, 3)), g.normal(size=8), padding=(1, 1, 1, 1))
    (matrix,) = mn.linear_map(layer, (3, 64, 64))
    assert matrix.nnz < 8 * 64 * 64 * 27
    assert matrix.shape == (8 * 64 * 64, 3 * 64 * 64)


def test_two_networks_in_one_model():
    network, _ = make(mlp, 2)
    other, _ = make(mlp, 2)
    model = linopy.Model()
    x = model.add_variables(lower=0, upper=1, coords={"pixel": np.arange(network.input_shape[0])}, name="x")
    first, second = mn.add_network(model, network, x, prefix="a_"), mn.add_network(model, other, x, prefix="b_")
    gap = first.output.isel(a_out_of(first), drop=True) - second.output.isel(a_out_of(second), drop=True)
    model.add_objective(gap.sum(), sense="max")
    assert mn.solve(model).objective == pytest.approx(0.0, abs=1e-6)


def a_out_of(handle):
    return {handle.output.dims[-1]: 0}


def test_what_cannot_be_encoded_is_refused_by_name():
    network, _ = make(mlp, 3)
    box = mn.Box(np.zeros((1, *network.input_shape)), np.ones((1, *network.input_shape)))
    model = linopy.Model()
    free = model.add_variables(coords={"pixel": np.arange(network.input_shape[0])}, name="free")
    with pytest.raises(UnboundedError, match="`free` has infinite bounds"):
        mn.add_network(model, network, free)
    with pytest.raises(UnsupportedError, match="`relu` has no formulation `magic`; it offers big-m"):
        mn.encode(network, box, formulation={"relu": "magic"})
    with pytest.raises(InputError, match=r"given for \['sigmoid'\]"):
        mn.encode(network, box, formulation={"sigmoid": "big-m"})
    with pytest.raises(UnsupportedError, match="`maxpool2d` has no formulation `big-n`"):
        mn.encode(network, box, formulation={"maxpool2d": "big-n"})
    with pytest.raises(InputError, match="expected a mapping from layers to names, such as"):
        mn.encode(network, box, formulation="big-m")
    with pytest.raises(InputError, match="'loose'; expected `sound`, `paper`"):
        mn.encode(network, box, bounds="loose")
    with pytest.raises(InputError, match=r"\['fc9'\]; the layers that can carry gates are \['fc1', 'fc2'\]"):
        mn.encode(network, box, gates=["fc9"])
    with pytest.raises(DataError, match="the network takes"):
        mn.encode(network, mn.Samples(np.zeros((2, 99))))
    with pytest.raises(NetworkError, match="no node is called `nowhere`"):
        mn.encode(network, box).block("nowhere")


def test_points_and_arrays_of_users_follow_labels():
    network = mn.Network.build((3,), [("fc1", mn.Dense(np.eye(3))), ("relu", mn.ReLU()), ("fc2", mn.Dense(np.ones((2, 3))))])
    encoding = mn.encode(network, mn.Box(np.zeros((1, 3)), np.ones((1, 3))), gates="all")
    x = xr.DataArray([[0.3, 0.1, 0.2]], dims=("sample", "input_unit"), coords={"input_unit": [2, 0, 1]})
    scores = xr.Dataset({"fc1": ("fc1_unit", [1.0, 0.0, 0.5])}, coords={"fc1_unit": [1, 2, 0]})
    point = encoding.point(x, scores)
    assert encoding.value("input", point).tolist() == [[0.1, 0.2, 0.3]]
    assert point[encoding.scores["fc1"].labels.values].tolist() == [0.5, 1.0, 0.0]
    assert encoding.labelled(x.T, ("sample", "input_unit")).values.tolist() == [[0.1, 0.2, 0.3]]
    for wrong in (
        lambda: encoding.point([[0.1, 0.2]]),
        lambda: encoding.labelled(np.zeros(3), ("sample", "input_unit")),
        lambda: encoding.labelled(x.assign_coords(input_unit=[0, 1, 5]), ("sample", "input_unit")),
    ):
        with pytest.raises(DataError, match="expected"):
            wrong()
    with pytest.raises(InputError, match="label 5 is no unit"):
        encoding.point(x, scores.assign_coords(fc1_unit=[0, 1, 5]))


def test_a_start_of_another_kind_is_told():
    encoding = mn.encode(mn.Network.build((1,), [("fc", mn.Dense([[1.0]]))]), mn.Box([[0.0]], [[1.0]]))
    encoding.model.add_objective(1 * encoding.output.sum())
    found = mn.solve(encoding)
    assert mn.solve(encoding, start=found.point).objective == found.objective
    with pytest.raises(InputError, match="the start is a Dataset"):
        mn.solve(encoding, start=found.x)
