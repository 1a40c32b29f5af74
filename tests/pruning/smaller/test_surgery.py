"""A smaller module computes what the masked network computes, has as many parameters as counted, and can be written to files."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.network.gates import mask_actions
from mipnet.pruning.smaller.parameter_counts import remaining_parameters
from mipnet.pruning.smaller.surgery import cut
from mipnet.pruning.smaller.torch_masks import remove_masks, torch_masks
from tests.pruning.modules import ALL, read
from tests.sweep import marked, sweep


def size(module) -> int:
    return sum(p.numel() for p in module.parameters())


def run(module, x):
    with torch.no_grad():
        return module(x).numpy()


def sizes(module):
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


@pytest.mark.parametrize("name", ALL)
def test_a_masked_module_is_the_masked_network(name):
    module, network, gates, masks, x = read(name)
    double = copy.deepcopy(module).double()
    masked = torch_masks(double, network, gates, masks)
    assert masked is double
    wanted = network.forward(x, mask_actions(gates, masks))
    assert np.abs(run(masked, x) - wanted).max() < 1e-10
    names = set(dict(masked.named_parameters()))
    assert any(n.endswith("weight_orig") for n in names)
    remove_masks(masked)
    assert sizes(masked) == sizes(module)
    assert np.abs(run(masked, x) - wanted).max() < 1e-10


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", sweep(range(3), every=3))
def test_a_smaller_module_is_the_masked_network(seed, name):
    module, network, gates, masks, x = read(name, seed)
    before = copy.deepcopy(module.state_dict())
    wanted = network.forward(x, mask_actions(gates, masks))
    small = mn.prune(module.double(), masks, x)
    assert np.abs(run(small, x) - wanted).max() < 1e-10
    module.float()
    single = mn.prune(module, masks, x)
    scale = max(1.0, np.abs(wanted).max())
    assert np.abs(run(single, x.float()) - wanted).max() < 2e-6 * scale
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    assert size(single) < size(module) or name == "grouped"
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", sweep(range(5), every=5))
def test_a_smaller_module_has_the_parameters_that_are_counted(seed, name):
    module, network, gates, masks, _ = read(name, seed)
    assert size(cut(module, network, gates, masks)) == sum(remaining_parameters(network, gates, masks).values())


@pytest.mark.parametrize("seeds", [range(5), marked(range(5, 60))], ids=["few", "many"])
def test_units_drawn_at_random_over_many_seeds(seeds):
    for seed in seeds:
        name = list(ALL)[seed % len(ALL)]
        module, network, gates, masks, x = read(name, seed, share=[0.15, 0.4, 0.8][seed % 3])
        small = cut(module.double(), network, gates, masks)
        assert np.abs(run(small, x) - network.forward(x, mask_actions(gates, masks))).max() < 1e-10, (name, seed)


@pytest.mark.parametrize("name", ALL)
def test_whole_layers_may_go(name):
    module, network, gates, masks, x = read(name)
    for gate in gates:
        one = masks.map(np.ones_like).assign({gate.name: (gate.dim, np.zeros(gate.units, dtype=bool))})
        small = cut(module.double(), network, gates, one)
        assert np.abs(run(small, x) - network.forward(x, mask_actions(gates, one))).max() < 1e-10
        assert all(p.numel() for p in small.parameters())


def test_nothing_goes_where_everything_stays():
    module, network, gates, masks, _ = read("residual")
    small = cut(module, network, gates, masks.map(np.ones_like))
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), module.state_dict().values(), strict=True))


def keep(gates, **gone):
    """Masks that silence the named units of some gates."""
    masks = {}
    for gate in gates:
        kept = np.ones(gate.units, dtype=bool)
        kept[gone.get(gate.name, [])] = False
        masks[gate.name] = (gate.dim, kept)
    return xr.Dataset(masks)


def test_a_residual_channel_goes_only_if_all_summands_lose_it():
    module, network, gates, _, x = read("residual")
    masks = keep(gates, stem=[0, 1], conv2=[1, 2], conv3=[3], side=[3, 4])
    small = cut(module, network, gates, masks)
    assert (small.stem.out_channels, small.conv2.out_channels, small.conv1.in_channels) == (5, 5, 5)  # channel 1 goes
    assert (small.conv3.out_channels, small.side.out_channels, small.head.in_features) == (6, 6, 6)  # channel 3 goes
    assert small.stem.weight[0].abs().max() == 0  # channel 0 is silent and stays
    assert small.bn0.bias[0] == 0
    assert np.abs(run(small.double(), x) - network.forward(x, mask_actions(gates, masks))).max() < 1e-6


def test_a_depthwise_channel_follows_its_input_and_its_own_mask():
    module, network, gates, _, _ = read("depthwise")
    [first, deep, _] = [gate.name for gate in gates]
    small = cut(module, network, gates, keep(gates, **{first: [0, 2], deep: [0, 2, 3]}))
    assert (small[0].out_channels, small[2].in_channels, small[2].out_channels, small[2].groups) == (3, 3, 6, 3)
    assert small[5].in_channels == 6
    small = cut(module, network, gates, keep(gates, **{deep: [2, 3, 4]}))  # both outputs of input 1, one of input 2
    assert (small[0].out_channels, small[2].groups, small[2].out_channels) == (5, 5, 10)
    small = cut(module, network, gates, keep(gates, **{first: [5]}))  # its outputs are constants, which move into a running mean
    assert (small[2].groups, small[3].num_features, small[5].in_channels) == (5, 10, 10)


def test_groups_of_a_convolution_go_as_a_whole():
    module, network, gates, _, _ = read("grouped")
    [first, second] = [gate.name for gate in gates]
    small = cut(module, network, gates, keep(gates, **{first: [0, 1, 3]}))
    assert (small[0].out_channels, small[2].groups) == (6, 2)
    small = cut(module, network, gates, keep(gates, **{second: [0, 1]}))
    assert (small[0].out_channels, small[2].groups, small[2].out_channels, small[4].in_channels) == (3, 1, 2, 2)


def test_a_norm_of_channels_in_a_matrix_is_counted_by_channel():
    parts = nn.Linear(5, 12), nn.Unflatten(1, (4, 3)), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    module = nn.Sequential(*parts).double().eval()
    network = mn.from_torch(module, torch.zeros(1, 5, dtype=torch.float64))
    gates = mn.find_gates(network)
    assert sum(remaining_parameters(network, gates, keep(gates)).values()) == size(module)


def test_constants_move_into_the_bias_or_stay():
    gone = {"conv1": [0, 1, 2]}
    for name, left in {"norm-after": 3, "norm-after-padded": 6, "norm-after-no-bias": 6}.items():
        module, network, gates, _, _ = read(name)
        masks = keep(gates, **{gates[0].name: gone["conv1"]})
        small = cut(module, network, gates, masks)
        assert (small[0].out_channels, small[2].num_features, small[3].in_channels) == (left, left, left)


def test_a_module_used_twice_is_cut_once():
    module, network, gates, _, _ = read("twice")
    small = cut(module, network, gates, keep(gates, first=[0, 1], again=[1, 2]))
    assert small.again.weight.shape == (5, 5)
    assert small.first.weight.shape == (5, 5)


class Sideways(nn.Module):
    """Concatenation along the columns: a channel goes only if both parts lose it.  Channels last before flattening."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3), nn.Linear(3 * 4 * 10, 2)

    def forward(self, x):
        x = torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 3)
        return self.d(torch.relu(self.c(x)).permute(0, 2, 3, 1).flatten(1))


class Buffered(nn.Module):
    """A buffer of one number a channel, which is not cut."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Conv2d(1, 4, 3), nn.Linear(144, 2)
        self.register_buffer("factor", torch.randn(4, 1, 1))

    def forward(self, x):
        return self.c(torch.relu(self.a(x) * self.factor).flatten(1))


class Forked(nn.Module):
    """A layer that two others read, one through a batch norm."""

    def __init__(self):
        super().__init__()
        self.a, self.n, self.c, self.d = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x):
        x = self.a(x)
        return (self.c(torch.relu(self.n(x))) - self.d(torch.nn.functional.leaky_relu(x))).flatten(1)


def test_unusual_wiring():
    g = np.random.default_rng(0)
    for kind, left in ((Sideways, None), (Buffered, 4), (Forked, None)):
        module, x = kind().double().eval(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
        network = mn.from_torch(module, x)
        gates = mn.find_gates(network)
        for _ in range(3):
            masks = keep(gates, **{gate.name: g.choice(gate.units, 2, replace=False) for gate in gates})
            small = cut(module, network, gates, masks)
            assert np.abs(run(small, x) - network.forward(x, mask_actions(gates, masks))).max() < 1e-10
            assert small.a.out_channels == (left or small.a.out_channels)
