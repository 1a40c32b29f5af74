"""Masks silence units with their bias, and the parameters counted are those that a smaller torch module really lacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.errors import InputError
from mipnet.network.gates import mask_actions
from mipnet.pruning.smaller.parameter_counts import pruned_share, remaining_parameters
from tests.nets import dense


def scored(gates, g):
    return xr.Dataset({gate.name: (gate.dim, g.uniform(0, 1, gate.units)) for gate in gates})


def module():
    torch.manual_seed(0)
    parts = {
        "conv1": nn.Conv2d(1, 6, 3),
        "bn1": nn.BatchNorm2d(6),
        "relu1": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(6, 4, 2, bias=False),
        "relu2": nn.ReLU(),
        "flat": nn.Flatten(),
        "fc1": nn.Linear(16, 5),
        "relu3": nn.ReLU(),
        "fc2": nn.Linear(5, 3),
    }
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    with torch.no_grad():
        net.bn1.running_mean.uniform_(-1, 1)
        net.bn1.running_var.uniform_(0.5, 2)
        net.bn1.bias.uniform_(-1, 1)
    return net.eval()


def test_a_masked_unit_is_silent_and_so_is_its_bias():
    net = module()
    network = mn.from_torch(net, torch.zeros(1, 1, 8, 8))
    gates = mn.find_gates(network)
    g = np.random.default_rng(4)
    masks = mn.make_masks(network, gates, scored(gates, g), 0.5)
    values = network.values(torch.tensor(g.normal(size=(5, 1, 8, 8))), mask_actions(gates, masks))
    for gate in gates:
        gone = ~masks[gate.name].values
        assert gone.any()
        assert not gone.all()
        for site in gate.sites:
            assert values[site][:, gone].abs().max() == 0
            assert values[site][:, ~gone].abs().max() > 0


def test_parameters_are_counted_as_torch_counts_them_in_the_smaller_module():
    net = module()
    network = mn.from_torch(net, torch.zeros(1, 1, 8, 8))
    gates = mn.find_gates(network)
    assert [gate.name for gate in gates] == ["conv1", "conv2", "fc1"]
    assert network.parameters == sum(p.numel() for p in net.parameters())
    keep = {"conv1": [1, 0, 1, 1, 0, 0], "conv2": [1, 1, 0, 1], "fc1": [0, 1, 0, 0, 1]}
    masks = xr.Dataset({gate.name: (gate.dim, np.array(keep[gate.name], dtype=bool)) for gate in gates})
    smaller = nn.ModuleList([nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 2, bias=False), nn.Linear(12, 2), nn.Linear(2, 3)])
    assert sum(remaining_parameters(network, gates, masks).values()) == sum(p.numel() for p in smaller.parameters())


def test_units_that_an_addition_ties_go_only_together():
    g = np.random.default_rng(0)
    layers = [
        ("fc1", dense(g, 4, 3)),
        ("r1", mn.ReLU()),
        ("fc2", dense(g, 4, 4)),
        ("r2", mn.ReLU()),
        ("sum", mn.Add((1.0, -1.0)), ("r1", "r2")),
        ("cat", mn.Concat(), ("sum", "r2")),
        ("fc3", dense(g, 2, 8)),
    ]
    network = mn.Network.build((3,), layers)
    gates = mn.find_gates(network)
    masks = xr.Dataset(
        {"fc1": ("fc1_unit", np.array([True, True, False, False])), "fc2": ("fc2_unit", np.array([True, False, True, False]))}
    )
    kept = remaining_parameters(network, gates, masks)
    assert kept == {"fc1": 3 * 3 + 3, "fc2": 3 * 3 + 3, "fc3": 2 * (3 + 3) + 2}  # an addition keeps 0, 1 and 2 on both sides


def test_a_module_used_twice_keeps_what_any_use_needs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.b(self.b(self.a(x).relu()).relu())

    network = mn.from_torch(Twice().eval(), torch.zeros(1, 4))
    gates = mn.find_gates(network)
    masks = xr.Dataset({gate.name: (gate.dim, np.array([True, False, False])) for gate in gates})
    assert remaining_parameters(network, gates, masks)["b"] == 12  # the second use of b is the output


def test_thresholds():
    g = np.random.default_rng(1)
    network = mn.Network.build(
        (5,), [("fc1", dense(g, 30, 5)), ("r1", mn.ReLU()), ("fc2", dense(g, 20, 30)), ("r2", mn.ReLU()), ("fc3", dense(g, 3, 20))]
    )
    gates = mn.find_gates(network)
    scores = scored(gates, g)
    masks = mn.make_masks(network, gates, scores, 0.3)
    assert (masks["fc1"] == (scores["fc1"] >= 0.3)).all()
    by_mean = mn.make_masks(network, gates, scores, "mean")
    assert (by_mean["fc2"] == (scores["fc2"] >= scores["fc2"].mean())).all()
    for share in (0.0, 0.1, 0.5, 0.9):
        got = mn.make_masks(network, gates, scores, {"params": share})
        assert pruned_share(network, gates, got) >= share
        levels = np.sort(np.concatenate([scores[n].values[got[n].values] for n in scores]))
        one_less = max((v for v in np.concatenate([scores[n].values for n in scores]) if v < levels[0]), default=None)
        if one_less is not None:
            assert pruned_share(network, gates, mn.make_masks(network, gates, scores, float(one_less))) < share
    everything = mn.make_masks(network, gates, scores, 1.0)
    assert [int(m.sum()) for m in everything.values()] == [1, 1]


def test_bad_thresholds_are_refused():
    g = np.random.default_rng(1)
    network = mn.Network.build((5,), [("fc1", dense(g, 3, 5)), ("r1", mn.ReLU()), ("fc2", dense(g, 3, 3))])
    gates = mn.find_gates(network)
    for threshold in (-0.1, 1.5, float("nan"), "median", {"params": 1.0}, {"units": 0.5}, {}):
        with pytest.raises(InputError, match="threshold"):
            mn.make_masks(network, gates, scored(gates, g), threshold)


def test_random_and_critical_masks_remove_as_many():
    g = np.random.default_rng(2)
    network = mn.Network.build((5,), [("fc1", dense(g, 40, 5)), ("r1", mn.ReLU()), ("fc2", dense(g, 3, 40))])
    gates = mn.find_gates(network)
    scores = scored(gates, g)
    masks = mn.make_masks(network, gates, scores, 0.4)
    gone = int((~masks["fc1"]).sum())
    drawn = [mn.random_masks(masks, seed) for seed in range(20)]
    assert {int((~m["fc1"]).sum()) for m in drawn} == {gone}
    assert any((drawn[0]["fc1"] != m["fc1"]).any() for m in drawn[1:])
    assert (mn.random_masks(masks, 3)["fc1"] == drawn[3]["fc1"]).all()
    critical = mn.critical_masks(masks, scores)
    assert int((~critical["fc1"]).sum()) == gone
    assert scores["fc1"].values[~critical["fc1"].values].min() >= scores["fc1"].values[critical["fc1"].values].max()


ODD_SCORES = xr.Dataset({"fc1": ("fc1_unit", [0.9, 0.05, 0.7])})
KEPT = xr.Dataset({"fc1": ("fc1_unit", [True, False, True])}, coords={"fc1_unit": [0, 1, 2]})


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda n, g: mn.make_masks(n, g, ODD_SCORES.where(ODD_SCORES > 0.1)), "the scores of `fc1` are not all finite"),
        (lambda n, g: mn.critical_masks(KEPT, ODD_SCORES.where(ODD_SCORES > 0.1)), "the scores of `fc1` are not all finite"),
        (lambda n, g: mn.critical_masks(KEPT, ODD_SCORES.assign_coords(fc1_unit=[1, 2, 3])), "different labels along `fc1_unit`"),
        (lambda n, g: mn.accuracy(n, np.ones((1, 2)), [0], g, ODD_SCORES), "the masks of `fc1` hold 0.9; expected True"),
        (lambda n, g: mn.accuracy(n, np.ones((1, 2)), [0], g, KEPT.where(KEPT)), "the masks of `fc1` are not all finite"),
        (lambda n, g: pruned_share(n, g, ODD_SCORES), "the masks of `fc1` hold 0.9"),
    ],
)
def test_what_is_no_mask_or_score_of_a_unit_is_refused(ask, words):
    network = mn.Network.build((2,), [("fc1", mn.Dense(np.ones((3, 2)))), ("relu1", mn.ReLU()), ("fc2", mn.Dense(np.ones((2, 3))))])
    gates = mn.find_gates(network)
    assert mn.accuracy(network, np.ones((1, 2)), [0], gates, KEPT.astype(int)) == mn.accuracy(network, np.ones((1, 2)), [0], gates, KEPT)
    with pytest.raises(InputError, match=words):
        ask(network, gates)


def test_accuracy_is_torchs():
    net = module()
    network = mn.from_torch(net, torch.zeros(1, 1, 8, 8))
    g = np.random.default_rng(3)
    images, labels = g.normal(size=(200, 1, 8, 8)), g.integers(0, 3, 200)
    with torch.no_grad():
        truth = net.double()(torch.tensor(images)).argmax(dim=1).numpy()
    assert mn.accuracy(network, images, labels) == pytest.approx(100 * (truth == labels).mean())
