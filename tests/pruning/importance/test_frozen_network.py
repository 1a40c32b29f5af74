"""The reduced-space program: the frozen network, its derivatives, and the same optimum as the full program."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.errors import InputError, UnsupportedError
from mipnet.model.losses import Loss
from mipnet.pruning.importance.frozen_loss_rows import PatternRows, pattern_rows
from mipnet.pruning.importance.frozen_network import freeze
from mipnet.pruning.importance.paper_bounds import PaperBounds
from mipnet.pruning.importance.program import Importance
from mipnet.pruning.importance.reduced_program import forward_logits
from tests.nets import SEEDS, conv, dense, make
from tests.pruning.importance.questions import ask, changed
from tests.sweep import sweep

NAMES = [f"{family.__name__}-{seed}" for family, seed in SEEDS]


def relu_mlp(g):
    parts = [
        ("fc1", dense(g, 12, 8)),
        ("r1", mn.ReLU()),
        ("fc2", dense(g, 9, 12)),
        ("r2", mn.ReLU()),
        ("fc3", dense(g, 7, 9)),
        ("r3", mn.ReLU()),
    ]
    return mn.Network.build((8,), [*parts, ("fc4", dense(g, 4, 7))])


def relu_cnn(g):
    norm = mn.BatchNorm(g.uniform(0.5, 1.5, 3), g.normal(size=3) * 0.2)
    head = [
        ("conv1", conv(g, 3, 1, (3, 3), padding=(1, 1, 1, 1))),
        ("bn1", norm),
        ("r1", mn.ReLU()),
        ("pool", mn.MaxPool2d(mn.Window((2, 2), (2, 2)))),
    ]
    body = [("conv2", conv(g, 3, 3, (2, 2))), ("r2", mn.ReLU()), ("flat", mn.Reshape((12,))), ("fc1", dense(g, 6, 12)), ("r3", mn.ReLU())]
    return mn.Network.build((1, 6, 6), [*head, *body, ("fc2", dense(g, 3, 6))])


def residual(g):
    parts = [("fc1", dense(g, 6, 5)), ("r1", mn.ReLU()), ("fc2", dense(g, 6, 6)), ("sum", mn.Add(), ("r1", "fc2")), ("r2", mn.ReLU())]
    return mn.Network.build((5,), [*parts, ("fc3", dense(g, 3, 6))])


def question(make_net, seed, **options):
    g = np.random.default_rng(seed)
    network = make_net(g)
    images = g.uniform(0, 1, (8, *network.input_shape))
    return ask(network, images, g.integers(0, network.output_shape[0], 8), **options)


def solve_frozen(task, pattern="free", backend="highs", **options):
    return changed(task, formulation={"relu": "frozen"}, pattern=pattern).solve(backend, **options)


@pytest.mark.parametrize("backend", ["highs", "scip"])
@pytest.mark.parametrize("layers", ["paper", "all"])
@pytest.mark.parametrize("seed", sweep(range(3), every=3))
@pytest.mark.parametrize("make_net", [relu_mlp, relu_cnn, residual])
def test_the_paper_pattern_has_the_optimum_of_the_full_program(make_net, seed, layers, backend):
    task = question(make_net, seed, epsilon=0.0, weight=3.0, layers=layers)
    full = mn.solve(task.pose(), backend, mip_gap=1e-6, time_limit=60)
    reduced = solve_frozen(task, "paper", backend, mip_gap=1e-6, time_limit=60)
    assert full.status is reduced.result.status is mn.Status.OPTIMAL
    assert full.verified
    assert reduced.result.verified
    assert reduced.result.objective == pytest.approx(full.objective, abs=2e-5)


@pytest.mark.parametrize("make_net", [relu_mlp, relu_cnn])
def test_fewer_rows_never_raise_the_optimum(make_net):
    task = question(make_net, 4, weight=3.0)
    found = [solve_frozen(task, pattern, mip_gap=1e-6).result.objective for pattern in ("free", "upper", "paper")]
    assert found[0] <= found[1] + 1e-5 <= found[2] + 2e-5


@pytest.mark.parametrize(("family", "seed"), SEEDS[::3], ids=NAMES[::3])
def test_reverse_and_forward_derivatives_agree_on_every_kind_of_layer(family, seed):
    network, g = make(family, seed)
    gates = mn.find_gates(network)
    frozen = freeze(network, gates, g.uniform(0, 1, (5, *network.input_shape)), chunk=2)
    np.testing.assert_allclose(frozen.at(np.ones(frozen.jacobian.shape[2])), network.forward(frozen.images), atol=1e-12)
    scores = g.uniform(0, 1, frozen.jacobian.shape[2])
    np.testing.assert_allclose(frozen.at(scores), forward_logits(frozen, scores, chunk=3), atol=1e-10)
    step = np.ones_like(scores) - 1e-6 * g.uniform(0, 1, len(scores))
    actions, start = {}, 0
    for gate in gates:
        part = torch.tensor(step[start : start + gate.units])
        start += gate.units
        for site in gate.sites:
            actions[site] = lambda v, part=part: v * part.reshape(-1, *[1] * (v.ndim - 2))
    moved = network.forward(frozen.images, actions)
    np.testing.assert_allclose(frozen.at(step), moved, atol=1e-9)


def test_pattern_rows_are_the_arguments_themselves():
    task = question(relu_cnn, 2)
    frozen = freeze(task.network, mn.find_gates(task.network), np.asarray(task.images))
    (pattern,) = pattern_rows(frozen, PaperBounds("paper"))
    assert isinstance(pattern, PatternRows)
    open_point = np.ones(frozen.jacobian.shape[2])
    assert len(pattern.separate(open_point, len(open_point))) == 0
    assert pattern.lift(open_point) is open_point
    point = np.random.default_rng(0).uniform(0, 1, len(open_point))
    rows = pattern.separate(point, len(point))
    assert len(rows) > 0
    assert (rows.violation(point) > 1e-8).all()
    assert rows.violation(open_point).max() < 1e-9
    assert pattern.lift(point) is None


@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_binary_scores_and_many_images(backend):
    task = question(relu_mlp, 1, kind="binary", weight=2.0)
    found = solve_frozen(task, "free", backend, mip_gap=1e-4, time_limit=60)
    assert found.result.status is mn.Status.OPTIMAL
    assert found.result.verified
    assert all(set(np.unique(values.round(9))) <= {0.0, 1.0} for values in found.scores.values())


def test_bundles_do_not_change_the_optimum():
    g = np.random.default_rng(0)
    network = relu_mlp(g)
    images, labels = g.uniform(0, 1, (450, 8)), g.integers(0, 4, 450)
    found = solve_frozen(ask(network, images, labels, weight=4.0), mip_gap=1e-5)
    assert found.result.status is mn.Status.OPTIMAL
    scores = np.concatenate([v.values for v in found.scores.values()])
    frozen = freeze(network, found.gates, images)
    sizes = np.array([-(2 - v.values).mean() for v in found.scores.values()])
    loss = Loss().values(frozen.at(scores), labels).mean()
    assert found.result.objective == pytest.approx(np.sort(sizes)[1:].sum() + 4.0 * loss, abs=1e-6)


def test_margin_loss():
    task = question(relu_mlp, 3, loss=Loss("margin", 0.5), weight=2.0, epsilon=0.0)
    full = mn.solve(task.pose(), mip_gap=1e-6)
    assert solve_frozen(task, "paper", mip_gap=1e-6).result.objective == pytest.approx(full.objective, abs=2e-5)


def test_what_cannot_be_frozen_is_refused():
    with pytest.raises(InputError, match="`pattern` is `loose`"):
        solve_frozen(question(relu_mlp, 0), "loose")
    g = np.random.default_rng(0)
    network = mn.Network.build((4,), [("fc1", dense(g, 3, 4)), ("a", mn.LeakyReLU()), ("fc2", dense(g, 2, 3))])
    task = Importance(network, g.uniform(size=(2, 4)), [0, 1])
    with pytest.raises(UnsupportedError, match=r"known for ReLU only and the network has \['LeakyReLU'\]"):
        solve_frozen(task, "paper")
    assert solve_frozen(task, "free").result.verified
