"""Importance by layer: where networks are cut, heads, and scores that a stage and its head give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import mipnet as mn
from mipnet.backend import Status
from mipnet.errors import DataError, InputError
from mipnet.pruning.importance import by_layer as by_layer_module
from mipnet.pruning.importance.auxiliary_heads import HeadTraining, make_head, train_heads
from mipnet.pruning.importance.by_layer import by_layer, stage_question
from mipnet.pruning.importance.network_cuts import between, chained, find_cuts, find_stages
from mipnet.pruning.importance.program import Importance
from tests import nets
from tests.nets import dense
from tests.programs import run_pickled
from tests.pruning.importance.questions import changed
from tests.pruning.modules import Residual
from tests.pruning.nets import cnn, mlp, residual
from tests.sweep import marked, sweep

BACKENDS = ("highs", "scip")
FROZEN = {"relu": "frozen"}


def read_residual(g: np.random.Generator) -> mn.Network:
    torch.manual_seed(0)
    return mn.from_torch(Residual(), torch.zeros(1, 2, 8, 8))


def bottleneck(g: np.random.Generator) -> mn.Network:
    """Without an activation after fc1, and with one module used twice."""
    shared = dense(g, 4, 4)
    layers = [("fc1", dense(g, 4, 5)), ("fc2", shared), ("relu1", mn.ReLU()), ("fc3", shared), ("relu2", mn.ReLU())]
    return mn.Network.build((5,), [*layers, ("fc4", dense(g, 3, 4))], origins={"fc3": "fc2"})


STAGES = {
    mlp: ["fc1: input -> relu1", "fc2: relu1 -> fc3"],
    cnn: ["conv1: input -> act1", "conv2: act1 -> relu2", "fc1: relu2 -> fc2"],
    residual: ["fc1: input -> relu1", "fc2: relu1 -> fc3"],
    read_residual: ["stem: input -> relu1", "conv1+conv2: relu1 -> relu3", "conv3+side: relu3 -> head"],
    bottleneck: ["fc1: input -> fc1", "fc2: fc1 -> fc4"],
}


def asked(family=cnn, formulation=FROZEN, seed: int = 0, images: int = 6) -> tuple[Importance, np.ndarray, np.ndarray]:
    """A question, and images to train heads on, labelled by the network's own logits, all classes as often."""
    g = np.random.default_rng(seed)
    network = family(g)
    x = g.normal(size=(200, *network.input_shape))
    logits = network.forward(x)
    y = ((logits - logits.mean(axis=0)) / logits.std(axis=0)).argmax(axis=1)
    return Importance(network, x[:images], y[:images], formulation=formulation), x, y


@pytest.mark.parametrize("family", STAGES, ids=lambda family: family.__name__)
def test_stages_are_cut_where_the_whole_value_passes(family) -> None:
    network = family(np.random.default_rng(0))
    stages = find_stages(network, mn.find_gates(network))
    assert [f"{s.name}: {s.source} -> {s.end}" for s in stages] == STAGES[family]
    assert [name for s in stages for name in s.gates] == [gate.name for gate in mn.find_gates(network)]


@pytest.mark.parametrize("family", [*nets.FAMILIES, *STAGES], ids=lambda family: family.__name__)
def test_a_cut_is_a_node_without_which_nothing_passes(family) -> None:
    network = family(np.random.default_rng(1))
    x = torch.randn(2, *network.input_shape, dtype=torch.float64)
    values = network.values(x)
    for node in network.nodes[:-1]:
        swapped = network.values(torch.randn(2, *network.input_shape, dtype=torch.float64), {node.name: lambda _, n=node: values[n.name]})
        same = torch.equal(swapped[network.output.name], values[network.output.name])
        assert same == (node.name in find_cuts(network)), node.name


@pytest.mark.parametrize("family", STAGES, ids=lambda family: family.__name__)
def test_one_stage_after_another_is_the_network(family) -> None:
    network = family(np.random.default_rng(2))
    x = np.random.default_rng(3).normal(size=(4, *network.input_shape))
    stages = find_stages(network, mn.find_gates(network))
    value, joined = x, between(network, "input", stages[0].end)
    for stage in stages:
        part = between(network, stage.source, stage.end)
        value = part.forward(value)
        joined = joined if stage is stages[0] else chained(joined, part)
    np.testing.assert_allclose(value, network.forward(x), atol=1e-10)
    np.testing.assert_allclose(joined.forward(x), network.forward(x), atol=1e-10)


def test_gates_keep_their_place_in_a_stage() -> None:
    question, x, y = asked(read_residual)
    heads = train_heads(question.network, ["relu1", "relu3"], HeadTraining(x, y, epochs=0))
    whole = {gate.name: gate for gate in mn.find_gates(question.network)}
    for stage in find_stages(question.network, tuple(whole.values())):
        part = stage_question(stage, question, heads.get(stage.end))
        assert [whole[name] for name in stage.gates] == list(mn.find_gates(part.network, part.gates))


@pytest.mark.parametrize("shape", [(6, 9, 4), (3, 1, 1), (7,), (4, 5)])
def test_a_head_is_read_as_torch_runs_it(shape: tuple[int, ...]) -> None:
    head = make_head(shape, 5, seed=1)
    x = torch.randn(3, *shape)
    head(x)  # statistics of batch norm
    head.eval()
    found = mn.from_torch(head, x).forward(x)
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found, head(x).detach().numpy(), atol=1e-5)


def test_heads_learn_from_the_network_as_it_is_and_the_seed_fixes_them() -> None:
    question, x, y = asked()
    first, again, other = (
        train_heads(question.network, ["act1", "relu2"], HeadTraining(x, y, epochs=20, seed=s, lr=1e-2)) for s in (3, 3, 4)
    )
    alone = train_heads(question.network, ["relu2"], HeadTraining(x, y, epochs=20, seed=3, lr=1e-2))["relu2"]
    probe = question.network.values(torch.tensor(x))["relu2"]
    assert first["relu2"].losses == again["relu2"].losses == alone.losses != other["relu2"].losses
    assert first["relu2"].losses[-1] < first["relu2"].losses[0]
    right = (alone.network.forward(probe).argmax(axis=1) == y).mean()
    assert alone.accuracy == pytest.approx(100 * right)
    assert right > 1.3 * max(np.bincount(y)) / len(y)


@pytest.mark.parametrize(
    ("family", "formulation", "backend"),
    sweep([(family, f, backend) for family in (cnn, read_residual) for f in (FROZEN, {"relu": "big-m"}) for backend in BACKENDS], every=3),
)
def test_every_stage_has_scores(family, formulation: dict[str, str], backend: str) -> None:
    question, x, y = asked(family, formulation, images=2)
    found = by_layer(changed(question, weight=20.0), HeadTraining(x, y, epochs=5), backend=backend, time_limit=60)
    gates = mn.find_gates(question.network)
    assert found.gates == gates
    assert list(found.scores) == [gate.name for gate in gates]
    for gate in gates:
        assert found.scores[gate.name].dims == (gate.dim,)
        assert ((found.scores[gate.name] >= 0) & (found.scores[gate.name] <= 1)).all()
    assert "+".join(str(part.label) for part in found.parts) == "+".join(found.scores)
    assert found.result.verified
    assert found.result.status is Status.OPTIMAL
    assert found.result.objective == pytest.approx(np.mean([part.result.objective for part in found.parts]))
    assert found.result.bound <= found.result.objective + 1e-6


def test_a_stage_is_scored_as_its_network_by_itself() -> None:
    question, x, y = asked()
    found = by_layer(question, HeadTraining(x, y, epochs=5))
    value = question.network.values(torch.tensor(x[:6]))["act1"].numpy()
    alone = Importance(
        chained(between(question.network, "act1", "relu2"), found.heads["relu2"].network),
        value,
        question.labels,
        gates=["conv2"],
        formulation=FROZEN,
    ).solve()
    np.testing.assert_allclose(found.scores["conv2"], alone.scores["conv2"], atol=1e-6)


def planted(g: np.random.Generator) -> tuple[mn.Network, np.ndarray, np.ndarray]:
    """The label is the sign of x[0], which units 0 and 1 of each layer carry; the others see the rest of the input alone."""
    first, second, last = np.zeros((6, 4)), np.zeros((5, 6)), np.zeros((2, 5))
    first[0, 0], first[1, 0], first[2:, 1:] = 1.0, -1.0, g.normal(size=(4, 3))
    second[0, 0], second[1, 1], second[2:, 2:] = 1.0, 1.0, g.normal(size=(3, 4))
    last[1, 0], last[0, 1], last[:, 2:] = 5.0, 5.0, 0.01
    layers = [("fc1", mn.Dense(first)), ("relu1", mn.ReLU()), ("fc2", mn.Dense(second)), ("relu2", mn.ReLU()), ("fc3", mn.Dense(last))]
    x = g.uniform(-2, 2, size=(400, 4))
    return mn.Network.build((4,), layers), x, (x[:, 0] > 0).astype(int)


@pytest.mark.parametrize("backend", BACKENDS)
def test_units_that_say_nothing_of_the_label_go_and_those_that_do_stay(backend: str) -> None:
    network, x, y = planted(np.random.default_rng(5))
    question = Importance(network, x[:40], y[:40], formulation=FROZEN)
    found = by_layer(question, HeadTraining(x, y, epochs=60), backend=backend)
    assert min(head.accuracy for head in found.heads.values()) > 90
    masks = mn.make_masks(network, found.gates, found.scores, 0.1)
    assert {name: list(np.flatnonzero(kept)) for name, kept in masks.items()} == {"fc1": [0, 1], "fc2": [0, 1]}
    assert mn.accuracy(network, x, y, found.gates, masks) == 100.0


@pytest.mark.parametrize("real", [False, marked(True)], ids=["pickled", "processes"])
def test_two_processes_find_the_same(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, or this one with programs that were pickled as for another one."""
    question, x, y = asked()
    here = by_layer(question, HeadTraining(x, y, epochs=2))
    if not real:
        monkeypatch.setattr(by_layer_module, "run_all", run_pickled)
    there = by_layer(question, HeadTraining(x, y, epochs=2), workers=2)
    xr.testing.assert_allclose(here.scores, there.scores, atol=1e-9)
    assert [part.label for part in there.parts] == ["conv1", "conv2", "fc1"]


def test_finished_parts_are_not_solved_again_nor_their_heads_trained() -> None:
    question, x, y = asked()
    told = {}
    whole = by_layer(question, HeadTraining(x, y, epochs=2), on_done=told.__setitem__)
    again = by_layer(question, HeadTraining(x, y, epochs=2), finished={"conv1": told.pop("conv1")}, on_done=lambda key, _: told.pop(key))
    assert not told
    assert list(again.heads) == ["relu2"]
    xr.testing.assert_identical(again.scores, whole.scores)
    given = by_layer(question, HeadTraining(x[:0], y[:0], trained=whole.heads))
    xr.testing.assert_identical(given.scores, whole.scores)


def test_what_cannot_be_decoupled_is_refused() -> None:
    g = np.random.default_rng(0)
    branches = [("fc1", dense(g, 4, 5)), ("relu1", mn.ReLU()), ("fc2", dense(g, 4, 5), ("input",)), ("relu2", mn.ReLU())]
    network = mn.Network.build((5,), [*branches, ("cat", mn.Concat(), ("relu1", "relu2")), ("fc3", dense(g, 3, 8))])
    x = g.normal(size=(4, 5))
    with pytest.raises(InputError, match=r"no place to cut between its gated layers \(fc1, fc2\)"):
        by_layer(Importance(network, x, [0, 1, 2, 0], formulation=FROZEN), HeadTraining(x, [0, 1, 2, 0]))
    question, x, y = asked()
    with pytest.raises(InputError, match="solve it as one program"):
        by_layer(replace(question, gates=["conv2"]), HeadTraining(x, y))
    with pytest.raises(DataError):
        by_layer(replace(question, labels=[0, 1, 2, 0, 1, 9]), HeadTraining(x, y))
    with pytest.raises(DataError, match="training images"):
        by_layer(question, HeadTraining(x[:, :1], y))
    with pytest.raises(DataError):
        by_layer(question, HeadTraining(x, y[:-1]))
