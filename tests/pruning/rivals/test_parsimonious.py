"""Parsimonious learning prunes an over-sized network while it trains, and its prior is flat once pi is minimised out."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

import mipnet as mn
from mipnet.errors import InputError, MipnetError, UnsupportedError
from mipnet.network.gates import mask_actions
from mipnet.pruning.rivals import parsimonious
from mipnet.pruning.rivals.parsimonious import ParsimoniousSettings, flattened, learn
from mipnet.pruning.smaller.parameter_counts import pruned_share

QUICK = ParsimoniousSettings(warmup=2, step=6.0)


def oversized() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))


@pytest.fixture(scope="module")
def digits():
    return mn.load("digits", shape=(64,)), mn.load("digits", split="test", shape=(64,))


@pytest.fixture(scope="module")
def learned(digits):
    return learn(oversized, digits[0].images, digits[0].labels, log_g=6.0, epochs=40)


def trained(images, labels, epochs: int = 40) -> nn.Module:
    torch.manual_seed(0)
    net, x, y = oversized(), torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
    return net.eval()


@pytest.mark.parametrize("log_g", np.log([0.05, 3.0, 50.0]))
def test_the_flattened_prior_is_linear_in_theta(log_g):
    theta = np.linspace(0.01, 0.99, 25)
    least = np.array(
        [minimize_scalar(lambda p, t=t: flattened(t, p, log_g), bounds=(1e-9, 1 - 1e-9), options={"xatol": 1e-12}).fun for t in theta]
    )
    residual = least - theta * log_g
    assert residual == pytest.approx(residual[0], abs=1e-5)
    g = np.exp(log_g)
    assert flattened(theta, theta / (theta + g * (1 - theta)), log_g) == pytest.approx(least, abs=1e-8)


def test_the_prior_is_a_density():
    p = np.linspace(0, 1, 200001)
    for g in (0.05, 3.0, 50.0):
        assert np.trapezoid((g - 1) / np.log(g) / (1 + (g - 1) * p), p) == pytest.approx(1, abs=1e-6)


@pytest.mark.sweep
def test_it_prunes_an_oversized_network_without_loss(digits, learned):
    train, test = digits
    module, masks, history = learned
    network = mn.from_torch(module, train.images[:1])
    gates = mn.find_gates(network)
    plain = mn.accuracy(mn.from_torch(trained(train.images, train.labels), train.images[:1]), test.images, test.labels)
    pruned = mn.accuracy(network, test.images, test.labels, gates, masks)
    assert pruned_share(network, gates, masks) >= 0.5
    assert pruned > plain - 2
    assert float(history["undecided"][-1]) == 0
    before = history.isel(epoch=40 - 10 - 1)  # before thetas are settled they lie near 0 or 1 already
    thetas = np.concatenate([before[f"theta_{gate.name}"].values for gate in gates])
    assert np.mean((thetas < 0.2) | (thetas > 0.8)) > 0.9
    assert np.mean(thetas == 0) > 1 / 3
    assert float(history["loss"][-1]) < 0.1 * float(history["loss"][0])


def test_the_module_is_pruned_itself(digits, learned):
    module, masks, _ = learned
    network = mn.from_torch(module, digits[0].images[:1])
    x = digits[1].images
    assert np.array_equal(network.forward(x).argmax(axis=1), module(torch.tensor(x, dtype=torch.float32)).argmax(dim=1).numpy())
    assert network.forward(x) == pytest.approx(network.forward(x, mask_actions(mn.find_gates(network), masks)))
    assert module[0].weight[~torch.tensor(masks["fc1"].values)].abs().max() == 0


def test_what_is_gone_stays_gone(learned):
    for name in ("theta_fc1", "theta_fc2"):
        theta = learned.history[name].values
        assert (theta[1:][theta[:-1] == 0] == 0).all()
        assert ((theta >= 0) & (theta <= 1)).all()


def test_the_seed_decides_and_the_module_given_stays(digits):
    x, y = digits[0].images[:200], digits[0].labels[:200]
    torch.manual_seed(1)
    net = oversized()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    a, b, c = (learn(net, x, y, epochs=4, seed=s, settings=ParsimoniousSettings(warmup=1)) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert a.history.equals(b.history)
    assert not a.history.equals(c.history)
    assert all(not m._forward_hooks for m in a.module.modules())


def test_a_softmax_at_the_end_changes_no_loss(digits):
    x, y = digits[0].images[:100], digits[0].labels[:100]
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).double()
    found = [
        learn(each, x, y, epochs=2, seed=0, settings=ParsimoniousSettings(warmup=1)) for each in (net, nn.Sequential(*net, nn.Softmax(1)))
    ]
    assert np.allclose(found[0].history.loss, found[1].history.loss, rtol=1e-6)
    assert found[0].masks.equals(found[1].masks)


def test_a_higher_price_prunes_more_but_never_a_whole_layer(digits):
    x, y = digits[0].images[:300], digits[0].labels[:300]
    cheap, dear = (learn(oversized, x, y, log_g=g, epochs=10, settings=QUICK) for g in (1.0, 1000.0))
    assert sum(int(m.sum()) for m in dear.masks.values()) < sum(int(m.sum()) for m in cheap.masks.values())
    assert [int(m.sum()) for m in dear.masks.values()] == [1, 1]
    by_gate = learn(oversized, x, y, log_g={"fc1": 1000.0, "fc2": 0.0}, epochs=10, settings=QUICK).masks
    assert int(by_gate["fc1"].sum()) == 1
    assert int(by_gate["fc2"].sum()) > 10


def test_without_settling_masks_are_the_nearer_end(digits):
    x, y = digits[0].images[:200], digits[0].labels[:200]
    _, masks, history = learn(oversized, x, y, epochs=3, settings=ParsimoniousSettings(warmup=3, theta=0.4, settle=0.0))
    assert (history["theta_fc1"] == np.float32(0.4)).all()
    assert all(int(m.sum()) >= 1 for m in masks.values())


def test_convolutions_with_batch_norm_and_an_activation_after_it():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 5), nn.ReLU())
    net.append(nn.Linear(5, 10))
    data = mn.load("digits", shape=(1, 8, 8))
    settings = ParsimoniousSettings(warmup=1, step=2.0)
    module, masks, _ = learn(net, data.images[:200], data.labels[:200], log_g=20.0, epochs=6, settings=settings)
    network = mn.from_torch(module, data.images[:1])
    gone = ~masks["conv1"].values
    assert gone.any()
    assert network.values(torch.tensor(data.images[:20]))["relu1"][:, gone].abs().max() == 0


class Functional(nn.Module):
    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 10)
        self.act = nn.ReLU() if shared else torch.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.three(self.act(self.two(self.act(self.one(x)))))


@pytest.mark.parametrize("shared", [False, True])
def test_activations_that_cannot_be_switched_are_refused(digits, shared):
    net = Functional(shared)
    with pytest.raises(UnsupportedError, match="module of its own"):
        learn(net, digits[0].images[:20], digits[0].labels[:20], epochs=1)


def test_bad_input_is_one_clear_error(digits):
    x, y = digits[0].images[:20], digits[0].labels[:20]
    for options in (
        {"epochs": 0},
        {"lr": -1.0},
        {"log_g": float("inf")},
        {"log_g": {"fc1": 1.0}},
    ):
        with pytest.raises(InputError, match="expected"):
            learn(oversized, x, y, **options)
    for settings in (
        {"step": float("nan")},
        {"batch": 0},
        {"theta": 0.0},
        {"settle": 2.0},
        {"warmup": -1},
        {"weight_decay": -1.0},
    ):
        with pytest.raises(InputError, match="expected"):
            ParsimoniousSettings(**settings)
    with pytest.raises(InputError, match="labels"):
        learn(oversized, x, y[:5])
    with pytest.raises(MipnetError, match="shape"):
        learn(oversized, x[:, :60], y)
    with pytest.raises(InputError, match="gates"):
        learn(nn.Sequential(nn.Linear(64, 10)), x, y)


def interrupt_in_step(monkeypatch, number):
    """Send SIGINT when a step of this number begins, counted from 1; return the list of all steps."""
    plain, steps = parsimonious._step, []

    def step(*given):
        steps.append(given)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*given)

    monkeypatch.setattr(parsimonious, "_step", step)
    return steps


def few(digits, module, **more):
    return learn(module, digits[0].images[:100], digits[0].labels[:100], epochs=6, settings=ParsimoniousSettings(warmup=1), **more)


def test_ctrl_c_keeps_what_is_learned_so_far(digits, monkeypatch):
    """In the fourth epoch, of two steps each."""
    whole = few(digits, oversized)
    interrupt_in_step(monkeypatch, 8)
    with pytest.warns(RuntimeWarning, match="learning was interrupted after 3 of 6 epochs"):
        found = few(digits, oversized)
    assert found.history.attrs == {"epochs": 6, "interrupted": True, "stopped": False}
    assert found.history.equals(whole.history.isel(epoch=slice(3)))
    assert all((found.history[f"theta_{name}"].values[-1] > 0.5)[kept.values].all() for name, kept in found.masks.items())
    assert not found.module.training
    assert all(not m._forward_hooks for m in found.module.modules())


def test_ctrl_c_in_the_first_epoch_is_raised(digits, monkeypatch):
    interrupt_in_step(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        few(digits, oversized)


def test_learning_that_goes_on_is_the_same(digits, monkeypatch, tmp_path):
    """To the last bit: the weights, the state of Adam, the thetas and the random numbers are taken up; for another seed they are not."""
    whole, other = (few(digits, oversized, seed=seed) for seed in (1, 0))
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, 7)
        with mn.keep_parts(tmp_path / "parts"), pytest.warns(RuntimeWarning, match="after 3 of 6 epochs"):
            few(digits, oversized, seed=1)
    steps = interrupt_in_step(monkeypatch, 0)
    with mn.keep_parts(tmp_path / "parts"):
        found = few(digits, oversized, seed=1)
        assert len(steps) == 2 * 3
        assert few(digits, oversized, seed=0).history.equals(other.history)
        assert len(steps) == 2 * 9
    assert found.history.identical(whole.history)
    assert all(torch.equal(value, whole.module.state_dict()[name]) for name, value in found.module.state_dict().items())
    assert found.masks.equals(whole.masks)
