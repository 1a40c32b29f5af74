"""torch-pruning's importance: of the right units, as its formula says, and a clear word where the package is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.errors import InputError, UnsupportedError
from mipnet.pruning.labelled_images import LabelledImages
from mipnet.pruning.rivals import registry
from mipnet.pruning.rivals.comparison import ComparisonSettings, compare
from mipnet.pruning.rivals.registry import RIVALS, usable
from mipnet.pruning.rivals.scores.torch_pruning import NetworkModule, torch_pruning
from tests.pruning.nets import case, cnn, mlp, plain_cnn, residual


def square(tensor: torch.Tensor) -> float:
    return float((tensor.detach() ** 2).sum())


def relative(values: list[float]) -> np.ndarray:
    return np.array(values) / np.mean(values)


@pytest.mark.parametrize("family", [mlp, cnn, plain_cnn, residual], ids=lambda family: family.__name__)
def test_the_module_is_the_network(family):
    network, _, images, _ = case(family)
    out = NetworkModule(network)(torch.as_tensor(images)).detach().numpy()
    np.testing.assert_allclose(out, network.forward(images), atol=1e-12)


def test_a_group_is_incoming_and_outgoing_weights_without_bias():
    pytest.importorskip("torch_pruning")
    network, gates, images, labels = case(mlp)
    found = torch_pruning(network, gates, images, labels)
    one, two, three = (network[name].layer.weight for name in ("fc1", "fc2", "fc3"))
    for name, before, after in (("fc1", one, two), ("fc2", two, three)):
        means = [(square(before[k]) + square(after[:, k])) / 2 for k in range(len(before))]
        np.testing.assert_allclose(found[name], relative(means), rtol=1e-5)


def test_batch_norm_flattening_and_channels():
    pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    conv, norm, dense = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 3)
    norm.weight.data, norm.running_var = torch.rand(4) + 0.5, torch.rand(4) + 0.5
    module = nn.Sequential(conv, norm, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), dense).eval()
    network = mn.from_torch(module, torch.zeros(1, 1, 6, 6))
    (found,) = torch_pruning(network, mn.find_gates(network), np.zeros((1, 1, 6, 6)), np.zeros(1, int)).values()
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    parts = [(conv.weight[k], factor[k], dense.weight[:, 4 * k : 4 * k + 4]) for k in range(4)]
    # of the flattened positions of a channel torch-pruning adds up what each is worth
    np.testing.assert_allclose(found, relative([sum(square(part) for part in each) for each in parts]), rtol=1e-5)


def test_units_that_a_sum_ties_together_have_one_score():
    pytest.importorskip("torch_pruning")
    found = torch_pruning(*case(residual))
    np.testing.assert_allclose(found["fc1"], found["fc2"], rtol=1e-5)


def test_a_layer_of_ones_own_is_refused():
    pytest.importorskip("torch_pruning")
    network, _, images, labels = case(mlp)
    strange = mn.Network.build((5,), [("a", mn.Dense(torch.ones(3, 5, dtype=torch.float64))), ("odd", Odd()), ("b", network["fc3"].layer)])
    with pytest.raises(UnsupportedError, match="Odd"):
        torch_pruning(strange, mn.find_gates(strange), images, labels)


class Odd(mn.Layer):
    prunable = True

    def shape(self, *inputs):
        return (6,)

    def forward(self, *inputs):
        return inputs[0].repeat(1, 2)


def test_without_the_package_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    network, gates, images, labels = case(mlp)
    with pytest.raises(InputError, match=r"needs `torch-pruning`, which is not installed: pip install mipnet\[rivals\]"):
        RIVALS["torch-pruning"].scores(network, gates, images, labels)
    assert set(RIVALS) - set(usable()) == {"torch-pruning"}
    masks = mn.make_masks(network, gates, RIVALS["magnitude"].scores(network, gates, images, labels), "mean")
    seen = LabelledImages(images, labels)
    table = compare(network, gates, masks, seen, seen, settings=ComparisonSettings(repeats=1))
    assert "torch-pruning" not in table.methods
    with pytest.raises(InputError, match="not installed"):
        compare(network, gates, masks, seen, seen, rivals=["torch-pruning"])
