"""Compressed networks against the originals in torch, and units whose weights, worked out by hand, make them stable on a box only."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.errors import UnsupportedError
from mipnet.verification.two_networks.relu_stability import ReluStates
from tests.sweep import sweep

BACKENDS = ("highs", "scip")


def deep(seed, widths=(4, 10, 10, 10), outputs=3, scale=1.7):
    torch.manual_seed(seed)
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    module = nn.Sequential(*layers, nn.Linear(widths[-1], outputs)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= scale
    return module, mn.LInf(torch.randn(1, widths[0], dtype=torch.float64).numpy(), 0.5)


def run(module, x):
    with torch.no_grad():
        return module(torch.tensor(x)).numpy()


def samples(region, count=10_000):
    share = np.random.default_rng(0).uniform(-0.3, 1.3, (count, *region.lower.shape[1:])).clip(0, 1)
    return region.lower + share * (region.upper - region.lower)


@pytest.mark.parametrize("seed", sweep(range(3), every=3))
@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_are_equal_on_the_box_and_units_go(seed, backend):
    module, region = deep(seed)
    found = mn.compress(module, region, backend=backend)
    x = samples(region)
    np.testing.assert_allclose(run(found.module(torch.float64), x), run(module, x), atol=1e-12)
    np.testing.assert_allclose(found.network.forward(x), run(module, x), atol=1e-12)
    assert found.complete
    assert found.agreement.agree is True
    assert found.agreement.bound <= 1e-6
    assert sum(layer.kept for layer in found.layers) < sum(layer.units for layer in found.layers)
    hidden = [part.out_features for part in found.module() if isinstance(part, nn.Linear)][:-1]
    assert hidden == [layer.kept for layer in found.layers if layer.kept]


def test_samples_never_contradict_what_is_said_of_units():
    module, region = deep(3)
    found, z, outside = mn.compress(module, region), samples(region), samples(region.widen(3.0))
    only_here = 0
    for k, layer in enumerate(found.layers):
        here, everywhere = (run(module[: 2 * k + 1], x) for x in (z, outside))
        on, off = (here > 0).any(axis=0), (here < 0).any(axis=0)
        assert layer.silent <= (~on).sum()
        assert layer.active <= (~off).sum()
        assert layer.changing >= (on & off).sum()
        only_here += int((~(on & off) & (everywhere > 0).any(axis=0) & (everywhere < 0).any(axis=0)).sum())
    assert only_here  # units that are stable on the box alone
    assert sum(layer.silent + layer.active for layer in found.layers) >= only_here


def by_hand():
    """Over [0, 1]^2: one inactive unit, three active units of which one is a combination of the others, and one unstable unit."""
    first = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    bias = torch.tensor([-3.0, 1.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    out = torch.tensor([[5.0, 1.0, 2.0, 3.0, 4.0], [7.0, -1.0, 1.0, 2.0, 1.0], [1.0, 0.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    return mn.Network.build((2,), [("fc", mn.Dense(first, bias)), ("relu", mn.ReLU()), ("out", mn.Dense(out))])


def test_by_hand():
    net, box = by_hand(), mn.Box(np.zeros((1, 2)), np.ones((1, 2)))
    found = mn.compress(net, box)
    (layer,) = found.layers
    assert (layer.silent, layer.active, layer.changing, layer.kept) == (1, 3, 1, 3)
    x = samples(box)
    np.testing.assert_allclose(found.network.forward(x), net.forward(x), atol=1e-12)
    wide = mn.compress(net, mn.Box(np.full((1, 2), -9.0), np.full((1, 2), 9.0)))
    assert [each.kept for each in wide.layers] == [5]


def test_a_layer_without_units_that_change_is_gone():
    net = by_hand()
    found = mn.compress(net, mn.Box([[0.5, 0.0]], [[1.0, 0.4]]))
    assert [each.kept for each in found.layers] == [0]
    assert [type(node.layer) for node in found.network.nodes] == [mn.Dense]
    x = samples(mn.Box([[0.5, 0.0]], [[1.0, 0.4]]))
    np.testing.assert_allclose(found.network.forward(x), net.forward(x), atol=1e-12)


def test_no_more_active_units_stay_than_the_next_layer_has():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 1)).double()
    with torch.no_grad():
        module[1].bias[1:] = 9.0
    region = mn.LInf(np.zeros((1, 3, 3)), 1.0)
    found = mn.compress(module, region)
    assert (found.layers[0].changing, found.layers[0].kept) == (1, 2)
    np.testing.assert_allclose(run(found.module(torch.float64), samples(region)), run(module, samples(region)), atol=1e-12)


def test_a_unit_that_only_the_program_settles(monkeypatch):
    """z2 = relu(x) - relu(x - 0.5) - 1.01 with |x| <= 1: its upper bound from linear bounds is 0.1, its maximum is -0.51."""
    layers = [
        ("a", mn.Dense(torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, -0.5]))),
        ("r", mn.ReLU()),
        ("b", mn.Dense(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([-0.51, -0.2]))),
        ("s", mn.ReLU()),
        ("c", mn.Dense(torch.ones(1, 2))),
    ]
    net, box = mn.Network.build((1,), layers), mn.Box([[-1.0]], [[1.0]])
    assert mn.propagate(net, box, method="alpha").after["b"].upper[0, 0] > 0  # or the program has nothing to do
    for backend in BACKENDS:
        found = mn.compress(net, box, backend=backend)
        assert found.rounds
        assert (found.layers[1].silent, found.layers[1].changing) == (1, 1)
        assert found.agreement.agree is True


def test_without_time_units_stay():
    module, region = deep(0)
    network = mn.from_torch(module, torch.zeros(1, 4, dtype=torch.float64))
    found = mn.compress(network, region, time_limit=1e-3)
    np.testing.assert_allclose(found.network.forward(samples(region)), run(module, samples(region)), atol=1e-12)
    assert not found.complete


def test_a_wrongly_pruned_network_is_refuted_with_a_point():
    module, region = deep(2)
    network = mn.from_torch(module, torch.zeros(1, 4, dtype=torch.float64))
    states = ReluStates.of(network, mn.propagate(network, region))
    unit = int(np.flatnonzero((states.lower < 0) & (states.upper > 0))[0])
    with torch.no_grad():
        wrong = nn.Sequential(*[type(p)() if isinstance(p, nn.ReLU) else nn.Linear(p.in_features, p.out_features) for p in module]).double()
        wrong.load_state_dict(module.state_dict())
        wrong[0].weight[unit], wrong[0].bias[unit] = 0.0, 0.0
    found = mn.agree(network, mn.from_torch(wrong, torch.zeros(1, 4, dtype=torch.float64)), region, within=1e-6)
    assert found.agree is False
    assert region.contains(found.point[None], 0.0)
    assert np.abs(run(module, found.point[None]) - run(wrong, found.point[None])).max() > 1e-6


def test_other_layers_are_refused_by_name():
    image = mn.LInf(np.zeros((1, 1, 4, 4)), 1.0)
    conv = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(UnsupportedError, match=r"\(Conv2d\) cannot be compressed; expected a chain of dense layers"):
        mn.compress(conv, image)
    leaky = nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(), nn.Linear(2, 1))
    with pytest.raises(UnsupportedError, match=r"\(LeakyReLU\) cannot be compressed"):
        mn.compress(leaky, mn.LInf(np.zeros((1, 2)), 1.0))
