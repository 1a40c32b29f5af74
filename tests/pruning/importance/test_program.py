"""The importance program: its objective, its optimum against enumeration, its two backends against one another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr

import mipnet as mn
from mipnet.errors import DataError, InputError
from mipnet.model.losses import Loss
from mipnet.network.gates import mask_actions
from mipnet.pruning.importance.program import Importance
from mipnet.pruning.importance.sparsity import layer_sizes
from tests.nets import conv, dense
from tests.pruning.importance.questions import ask, changed
from tests.sweep import sweep

BACKENDS = ("highs", "scip")


def tiny_mlp(g):
    layers = [("fc1", dense(g, 4, 5)), ("relu1", mn.ReLU()), ("fc2", dense(g, 3, 4)), ("relu2", mn.ReLU()), ("fc3", dense(g, 3, 3))]
    return mn.Network.build((5,), layers)


def tiny_leaky(g):
    layers = [
        ("fc1", dense(g, 4, 4)),
        ("act1", mn.LeakyReLU(0.1)),
        ("fc2", dense(g, 4, 4)),
        ("act2", mn.Clip(-0.5, 0.5)),
        ("fc3", dense(g, 3, 4)),
    ]
    return mn.Network.build((4,), layers)


def tiny_cnn(g):
    norm = mn.BatchNorm(g.uniform(0.5, 1.5, 2), g.normal(size=2) * 0.2)
    head = [("conv1", conv(g, 2, 1, (2, 2))), ("bn1", norm), ("relu1", mn.ReLU()), ("pool", mn.MaxPool2d(mn.Window((2, 2), (1, 1))))]
    tail = [("flat", mn.Reshape((8,))), ("fc1", dense(g, 3, 8)), ("relu2", mn.ReLU()), ("fc2", dense(g, 3, 3))]
    return mn.Network.build((1, 4, 4), [*head, *tail])


NETS = (tiny_mlp, tiny_leaky, tiny_cnn)


def posed(make, seed, **options):
    g = np.random.default_rng(seed)
    network = make(g)
    images = g.uniform(0, 1, (3, *network.input_shape))
    return ask(network, images, network.forward(images).argmax(axis=1), **options)


def sparsity(task, encoding, scores):
    sizes = layer_sizes(task.network, encoding.gates, task.objective.normalize)
    each = sorted(float((scores[g.name] - 2).sum()) / n for g, n in zip(encoding.gates, sizes, strict=True))
    return sum(each) if task.objective.layers == "all" or len(each) == 1 else sum(each[1:])


def true_objective(task, encoding, scores):
    masks = xr.Dataset({g.name: (g.dim, scores[g.name].astype(bool)) for g in encoding.gates})
    logits = task.network.forward(task.images, mask_actions(encoding.gates, masks))
    return sparsity(task, encoding, scores) + task.objective.weight * task.objective.loss.values(logits, task.labels).mean()


@pytest.mark.parametrize(
    ("make", "backend", "loss"),
    sweep([(make, b, loss) for make in NETS for b in BACKENDS for loss in (Loss(), Loss("margin", 0.5))], every=3),
)
def test_binary_gates_find_what_enumeration_of_all_masks_finds(make, backend, loss):
    task = posed(make, 3, kind="binary", bounds="sound", weight=3.0, loss=loss)
    encoding = task.pose()
    units = [gate.units for gate in encoding.gates]
    assert sum(units) <= 8
    best = np.inf
    for mask in itertools.product([0.0, 1.0], repeat=sum(units)):
        parts = np.split(np.array(mask), np.cumsum(units)[:-1])
        best = min(best, true_objective(task, encoding, {g.name: p for g, p in zip(encoding.gates, parts, strict=True)}))
    found = mn.solve(encoding, backend, mip_gap=1e-6, time_limit=60)
    assert found.status is mn.Status.OPTIMAL
    assert found.verified
    assert found.objective == pytest.approx(best, abs=1e-5)
    assert found.bound <= best + 1e-6
    scores = task.read(encoding, found).scores
    assert true_objective(task, encoding, {name: scores[name].values.round() for name in scores}) == pytest.approx(best, abs=1e-5)


CHOICES = list(itertools.product(["units", "parameters", "paper"], ["paper", "all"], ["paper", "sound"], NETS))


@pytest.mark.parametrize(
    ("normalize", "layers", "bounds", "make"), sweep(CHOICES, every=8), ids=["-".join((*words, make.__name__)) for *words, make in CHOICES]
)
def test_both_backends_agree_and_the_objective_is_the_stated_one(make, bounds, layers, normalize):
    task = posed(make, 5, bounds=bounds, layers=layers, normalize=normalize)
    found = {}
    for backend in BACKENDS:
        encoding = task.pose()
        result = mn.solve(encoding, backend, mip_gap=1e-4, time_limit=60)
        assert result.status is mn.Status.OPTIMAL
        assert result.verified
        scores = task.read(encoding, result).scores
        loss = task.objective.loss.values(result.x["output"].values, task.labels).mean()
        assert result.objective == pytest.approx(sparsity(task, encoding, scores) + task.objective.weight * loss, abs=1e-6)
        found[backend] = result
    gap = 2e-4 * max(1.0, abs(found["highs"].objective))
    assert found["highs"].objective == pytest.approx(found["scip"].objective, abs=gap)
    assert found["scip"].bound <= found["highs"].objective + gap
    assert found["highs"].bound <= found["scip"].objective + gap


def test_a_larger_weight_keeps_more():
    kept = []
    for weight in (0.1, 5.0, 500.0):
        task = posed(tiny_mlp, 7, weight=weight, bounds="sound", layers="all")
        kept.append(float(sum(v.sum() for v in task.solve(time_limit=30).scores.values())))
    assert kept[0] <= kept[1] + 1e-3 <= kept[2] + 2e-3
    assert kept[0] < kept[2]


def test_normalize_counts_kernels_as_the_reference_does():
    task = posed(tiny_cnn, 0)
    gates = mn.find_gates(task.network)
    assert layer_sizes(task.network, gates, "units").tolist() == [2, 3]
    assert layer_sizes(task.network, gates, "paper").tolist() == [2 * 2 * 2, 3]
    by_parameters = layer_sizes(task.network, gates, "parameters")
    weights = np.array([2 * 4 + 2, 3 * 8 + 3])
    np.testing.assert_allclose((gates[0].units / by_parameters[0]) / (gates[1].units / by_parameters[1]), weights[0] / weights[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bounds", ["sound", "paper"])
def test_a_hopeless_time_limit_gives_the_forward_pass(backend, bounds):
    g = np.random.default_rng(0)
    layers = [("fc1", dense(g, 60, 30)), ("relu1", mn.ReLU()), ("fc2", dense(g, 40, 60)), ("relu2", mn.ReLU()), ("fc3", dense(g, 10, 40))]
    network = mn.Network.build((30,), layers)
    images = g.uniform(0, 1, (10, 30))
    task = Importance(network, images, network.forward(images).argmax(axis=1), bounds=bounds)
    encoding = task.pose()
    result = mn.solve(encoding, backend, time_limit=0.001)
    assert result.status in (mn.Status.TIME_LIMIT, mn.Status.OPTIMAL)
    assert result.x is not None
    assert result.verified
    assert result.objective <= true_objective(task, encoding, {gate.name: np.ones(gate.units) for gate in encoding.gates}) + 1e-9
    assert result.bound <= result.objective + 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_start_there_is_a_true_point_or_none(backend):
    g = np.random.default_rng(1)
    layers = [("fc1", dense(g, 60, 30)), ("relu1", mn.ReLU()), ("fc2", dense(g, 40, 60)), ("relu2", mn.ReLU()), ("fc3", dense(g, 10, 40))]
    network = mn.Network.build((30,), layers)
    images = g.uniform(0, 1, (10, 30))
    encoding = Importance(network, images, network.forward(images).argmax(axis=1), bounds="sound").pose()
    result = mn.solve(encoding, backend, time_limit=0.001, start="none")
    assert result.x is None or result.verified
    assert (result.x is None) == (result.objective is None)


def test_bad_questions_are_refused():
    good = posed(tiny_mlp, 0)
    one = mn.Network.build((4,), [("fc1", dense(np.random.default_rng(0), 2, 4))])
    for change, error, message in (
        ({"weight": -1.0}, InputError, "loss weight is -1.0"),
        ({"normalize": "size"}, InputError, "`normalize` is `size`"),
        ({"labels": [0, 1]}, DataError, r"shape \(2,\); expected one for each of 3 samples"),
        ({"labels": [0, 1, 7]}, DataError, "run from 0 to 7; expected 0 to 2"),
        ({"labels": [0.0, 1.0, 2.0]}, DataError, "float64; expected integers"),
        ({"images": np.full((3, 5), np.nan)}, DataError, "NaN"),
        ({"network": one, "images": np.zeros((3, 4))}, InputError, "no layer that can carry gates"),
    ):
        fields = {"network": good.network, "images": good.images, "labels": good.labels} | change
        with pytest.raises(error, match=message):
            ask(**fields).pose()


@pytest.mark.parametrize("seed", [1, 2, 9, 11, 16])
def test_forward_passes_that_miss_a_row_are_no_incumbents(seed):
    """With a small epsilon some points miss pattern rows by about epsilon; their objectives must not be compared with the bound."""
    g = np.random.default_rng(seed)
    layers = [("fc1", dense(g, 3, 4)), ("r1", mn.ReLU()), ("fc2", dense(g, 3, 3)), ("r2", mn.ReLU()), ("fc3", dense(g, 3, 3))]
    task = Importance(mn.Network.build((4,), layers), g.normal(size=(2, 4)), g.integers(0, 3, 2), kind="binary")
    with pytest.warns(RuntimeWarning, match="binary scores under the paper's bounds"):
        encoding = task.pose()
    result = mn.solve(encoding)
    assert result.status is mn.Status.OPTIMAL
    assert result.bound <= result.objective + 1e-6
    assert changed(task, kind="continuous", loss=Loss("margin"), bounds="sound").solve().result.verified
