"""What `prune` takes, and what it refuses with one clear error."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.errors import InputError, UnsupportedError
from mipnet.pruning.smaller.torch_masks import remove_masks, torch_masks
from tests.pruning.modules import mlp


def run(module, x):
    with torch.no_grad():
        return module(x).numpy()


class Hard(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        return self.fc(x.view(-1, 16))


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x) + 1.0))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(torch.relu(nn.functional.linear(x, self.weight)))


def test_a_size_written_into_forward_is_named():
    masks = xr.Dataset({"conv": ("conv_channel", np.array([True, False, True, True]))})
    line = inspect.getsource(Hard.forward).splitlines()[-1].strip()
    with pytest.raises(UnsupportedError, match="`Hard`") as error:
        mn.prune(Hard(), masks, torch.zeros(1, 1, 4, 4))
    assert f"test_surgery_input.py: `{line}`" in str(error.value)
    plain = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 2), nn.Flatten())
    masks = xr.Dataset({"fc1": ("fc1_unit", np.array([True] * 4 + [False] * 4))})
    with pytest.raises(UnsupportedError, match="`2` raises"):
        mn.prune(plain, masks)


def test_what_zero_weights_do_not_silence():
    module = Shifted()
    masks = xr.Dataset({"fc1": ("fc1_unit", np.array([True, False, True, True]))})
    network = mn.from_torch(module, torch.zeros(1, 3))
    with pytest.raises(UnsupportedError, match="`fc1` cannot be silenced"):
        torch_masks(copy.deepcopy(module), network, mn.find_gates(network), masks)
    assert mn.prune(module, masks).fc1.out_features == 3  # but it can be removed
    network = mn.from_torch(Own(), torch.zeros(1, 3))
    [gate] = mn.find_gates(network)
    masks = xr.Dataset({gate.name: (gate.dim, np.array([True, False, True, True]))})
    with pytest.raises(UnsupportedError, match="no plain Linear"):
        mn.prune(Own(), masks, torch.zeros(1, 3))


def test_scores_and_a_threshold_make_the_masks():
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    scores = xr.Dataset({"fc1": ("fc1_unit", [0.05, 0.5, 1.0, 0.0])})
    small = mn.prune(module, scores, threshold=0.1)
    assert [(p.in_features, p.out_features) for p in small[::2]] == [(5, 2), (2, 3), (3, 2)]
    assert mn.prune(module, scores)[0].out_features == 2
    assert mn.prune(module, scores, threshold={"params": 0.5})[0].out_features == 1
    assert mn.prune(torch.compile(module, backend="eager"), scores)[0].out_features == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fc1": [0.5] * 8}, "Dataset"),
        (xr.Dataset(), "one variable per gate"),
        (xr.Dataset({"other": ("u", [1.0])}), "one variable per gate"),
        (xr.Dataset({"fc1": ("u", [1.0])}), "8 units"),
        (xr.Dataset({"fc1": ("u", [np.nan] * 8)}), "finite"),
        (xr.Dataset({"fc1": ("u", [True] * 8), "fc2": ("v", [0.5] * 6)}), "some are scores"),
    ],
)
def test_bad_scores_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        mn.prune(mlp(), given)


def test_other_bad_inputs_are_refused():
    scores = xr.Dataset({"conv": ("conv_channel", [0.0, 1.0, 1.0, 1.0])})
    with pytest.raises(InputError, match="example_input"):
        mn.prune(Hard(), scores)
    with pytest.raises(InputError, match="threshold"):
        mn.prune(mlp(), xr.Dataset({"fc1": ("u", [0.5] * 8)}), threshold=2.0)
    masks = xr.Dataset({"fc1": ("u", np.arange(8) > 3)})
    module = mlp()
    torch.nn.utils.prune.l1_unstructured(module[0], "weight", 3)
    with pytest.raises(UnsupportedError, match="permanent first"):
        mn.prune(module, masks)
    assert mn.prune(remove_masks(module), masks)[0].out_features == 4
    torch.nn.utils.parametrizations.weight_norm(module[0])
    with pytest.raises(UnsupportedError, match="no plain Linear"):
        mn.prune(module, masks, torch.zeros(1, 5))


def test_a_softmax_at_the_end_stays():
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.LogSoftmax(dim=1))
    small = mn.prune(module, xr.Dataset({"fc1": ("fc1_unit", [0.05, 0.5, 1.0, 0.0])}))
    assert isinstance(small[3], nn.LogSoftmax)
