"""Training is repeatable, keeps masks exactly, and prunes on the way; lucky tables compare like with like."""

from __future__ import annotations

import copy
import os
import shutil
import signal

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.errors import DataError, InputError, NetworkError
from mipnet.network.gates import mask_actions
from mipnet.pruning.prune_while_training import PruningSchedule, prune_while_training
from mipnet.pruning.rivals import lucky_subnetworks
from mipnet.pruning.rivals.lucky_subnetworks import lucky
from mipnet.pruning.smaller.surgery import cut
from mipnet.pruning.training import TrainingSettings, evaluate, fine_tune, retrain, train
from mipnet.readers.data import Dataset
from tests.pruning.modules import read


def task(shape, seed=0, count=90):
    """Three classes that a linear map tells apart, up to noise."""
    g = np.random.default_rng(seed)
    labels = g.integers(0, 3, count)
    centres = np.random.default_rng(99).normal(size=(3, *shape))
    return Dataset(centres[labels] + 0.3 * g.normal(size=(count, *shape)), labels, "blobs", 3)


def state(module):
    return [value.clone() for value in module.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd", "adam"])
def test_training_learns_and_is_repeatable(optimizer):
    module, *_ = read("stack")
    data = task((2, 8, 8))
    before = evaluate(module, data.images, data.labels)
    runs = []
    for seed in (1, 1, 2):
        ours, seen = copy.deepcopy(module), []
        torch.manual_seed(len(runs))  # the global generator is neither read nor moved
        key = torch.get_rng_state()
        losses = train(
            ours,
            data.images,
            data.labels,
            epochs=6,
            lr=1e-2,
            seed=seed,
            settings=TrainingSettings(optimizer=optimizer, batch=16, on_epoch=lambda *e, s=seen: s.append(e)),
        )
        assert torch.equal(key, torch.get_rng_state())
        assert seen == list(enumerate(losses, start=1))
        assert not ours.training
        runs.append(state(ours))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    loss, accuracy = evaluate(ours, data.images, data.labels)
    assert loss < before[0]
    assert accuracy > 60


@pytest.mark.parametrize("name", ["mlp-norm", "stack-constant-norm", "residual", "twice"])
def test_training_keeps_masks_exactly(name):
    module, network, gates, masks, _ = read(name)
    data = task(network.input_shape)
    before = state(module)
    train(module, data.images, data.labels, masks=masks, settings=TrainingSettings(epochs=2, batch=10, lr=1e-2))
    assert not same(before, state(module))
    assert all(isinstance(p, nn.Parameter) for p in module.parameters())
    for gate in gates:
        part = module.get_submodule(network.modules[gate.name])
        gone = ~masks[gate.name].values
        assert part.weight[gone].abs().max() == 0
        assert part.bias is None or part.bias[gone].abs().max() == 0
    trained = mn.from_torch(module, torch.zeros(1, *network.input_shape))
    wanted = trained.forward(data.images)
    assert np.abs(trained.forward(data.images, mask_actions(gates, masks)) - wanted).max() < 1e-10
    small = cut(module.double(), trained, gates, masks)
    with torch.no_grad():
        assert np.abs(small(torch.from_numpy(data.images)).numpy() - wanted).max() < 1e-10


def test_a_last_batch_of_one_sample_and_batch_norm():
    module, *_ = read("mlp-norm")
    data = task((5,), count=33)
    train(module, data.images, data.labels, epochs=1, settings=TrainingSettings(batch=8))


def test_fine_tuning_makes_a_copy():
    module, network, gates, masks, _ = read("lenet-avg")
    data = task((2, 8, 8))
    small = cut(module, network, gates, masks)
    before = state(small)
    tuned = fine_tune(small, data.images, data.labels, epochs=3, settings=TrainingSettings(batch=16))
    assert same(before, state(small))
    assert evaluate(tuned, data.images, data.labels)[0] < evaluate(small, data.images, data.labels)[0]


def magnitude(module):
    network = mn.from_torch(module, torch.zeros(1, 5))
    found = {}
    for gate in mn.find_gates(network):
        size = network[gate.nodes[0]].layer.weight.norm(dim=1).numpy()
        found[gate.name] = (gate.dim, (np.argsort(np.argsort(size)) + 1) / len(size))
    return xr.Dataset(found)


def widths(module):
    return [part.out_features for part in module if isinstance(part, nn.Linear)]


def test_pruning_on_the_way_and_at_the_start():
    module, *_ = read("mlp")
    data = task((5,))
    before = state(module)
    calls, settings = [], TrainingSettings(batch=16)

    def pruned(score, schedule, epochs):
        return prune_while_training(module, score, data.images, data.labels, schedule, epochs=epochs, settings=settings)

    def score(small):
        calls.append(widths(small))
        return magnitude(small)

    small = pruned(score, PruningSchedule(every=2, threshold=0.3), 5)
    assert calls == [[8, 6, 3], [6, 5, 3]]  # after epochs 2 and 4
    assert widths(small) == [5, 4, 3]
    assert same(before, state(module))
    at_start = pruned(score, PruningSchedule(every=1, threshold=0.3, at_start=True, until=0), 1)
    assert widths(at_start) == [6, 5, 3]
    at_end = pruned(score, PruningSchedule(every=2, threshold=0.3, until=2), 2)
    assert widths(at_end) == [6, 5, 3]


def test_rewound_networks_train_like_the_first_time():
    module, _, gates, masks, _ = read("mlp")
    data = task((5,))
    first = copy.deepcopy(module.state_dict())
    train(module, data.images, data.labels, epochs=2)
    trained = state(module)
    again = retrain(module, first, data.images, data.labels, epochs=2)
    assert same(trained, state(again))
    masked = retrain(module, first, data.images, data.labels, epochs=2, masks=masks)
    assert masked[0].weight[~masks[gates[0].name].values].abs().max() == 0
    assert same(trained, state(module))
    with pytest.raises(NetworkError, match="initial state"):
        retrain(module, {}, data.images, data.labels)


def test_lucky_tables():
    module, network, gates, masks, _ = read("mlp")
    settings = TrainingSettings(epochs=3, batch=16, lr=1e-2)
    table = lucky(module, masks, task((5,), 0), task((5,), 1), seeds=(3, 4), settings=settings)
    assert [(row.seed, row.kind) for row in table.rows] == [(s, k) for s in (3, 4) for k in ("full", "lucky", "random")]
    full, found, drawn = (table.rows[i].parameters for i in range(3))
    assert full == network.parameters > found == drawn == sum(p.numel() for p in cut(module, network, gates, masks).parameters())
    assert min(table.accuracies("full")) > 60
    assert table == lucky(module, masks, task((5,), 0), task((5,), 1), seeds=(3, 4), settings=settings)
    assert len(str(table).splitlines()) == 4
    with pytest.raises(InputError, match="initial states"):
        lucky(module, masks, task((5,)), task((5,)), initial_states={0: module.state_dict()}, seeds=(1,))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"optimizer": "lbfgs"}, InputError, "optimizer"),
        ({"epochs": -1}, InputError, "epochs"),
        ({"batch": 0}, InputError, "batch"),
        ({"lr": 0.0}, InputError, "lr"),
        ({"labels": np.zeros(3, dtype=int)}, DataError, "labels"),
        ({"labels": np.full(90, 7)}, DataError, "one logit"),
        ({"labels": np.full(90, -1)}, DataError, "label"),
        ({"images": np.zeros((0, 5)), "labels": np.zeros(0, dtype=int)}, DataError, "images"),
        ({"lr": 1e30, "optimizer": "sgd"}, NetworkError, "smaller `lr`"),
        ({"masks": xr.Dataset({"fc1": ("u", [0.5] * 8)})}, InputError, "booleans"),
    ],
)
def test_bad_inputs_are_refused(change, error, words):
    module, *_ = read("mlp")
    data = task((5,))
    how = {name: value for name, value in change.items() if name in ("optimizer", "epochs", "batch", "lr")}
    given = {"images": data.images, "labels": data.labels} | {name: value for name, value in change.items() if name not in how}
    with pytest.raises(error, match=words):
        train(module, **given, settings=TrainingSettings(**{"epochs": 3} | how))


def test_ctrl_c_keeps_the_networks_that_are_retrained_and_they_are_not_trained_again(tmp_path, monkeypatch):
    module, _, _, masks, _ = read("mlp")
    plain, trained = lucky_subnetworks.retrain, []

    def interrupted(*given, **more):
        trained.append(more["seed"])
        if len(trained) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*given, **more)

    def table(weight=None):
        started = copy.deepcopy(module)
        if weight is not None:
            with torch.no_grad():
                started[0].weight[0, 0] = weight
        with mn.keep_parts(tmp_path / "parts"):
            return lucky(started, masks, task((5,), 0), task((5,), 1), seeds=(3, 4), settings=TrainingSettings(epochs=1, batch=16, lr=1e-2))

    whole = table()
    shutil.rmtree(tmp_path / "parts")
    monkeypatch.setattr(lucky_subnetworks, "retrain", interrupted)
    first = table()
    assert (first.interrupted, first.rows) == (True, whole.rows[:4])
    assert str(first).endswith("interrupted: 4 networks were finished")
    assert len(trained) == 5
    assert table() == whole
    assert len(trained) == 7
    assert table(weight=0.125) != whole
    assert len(trained) == 13


def test_ctrl_c_before_the_first_network_is_retrained(monkeypatch):
    module, _, _, masks, _ = read("mlp")
    monkeypatch.setattr(lucky_subnetworks, "retrain", lambda *given, **more: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        lucky(module, masks, task((5,), 0), task((5,), 1))
