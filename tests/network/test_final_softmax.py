"""The softmax that readers take off: its function against torch, its groups, and what is refused without it."""

from __future__ import annotations

import pickle
from typing import Literal

import linopy
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

import mipnet as mn
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.gates import find_gates
from mipnet.pruning.training import evaluate
from mipnet.verification.two_networks.masked_agreement import masked_network

BOX = mn.Box(np.full((1, 3), -1.0), np.full((1, 3), 1.0))


def ending_in(last: nn.Module, outputs: int = 4) -> nn.Sequential:
    """A small module in float64 that ends in ``last``."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, outputs), last).double().eval()


def read(module: nn.Module) -> mn.Network:
    return mn.from_torch(module, torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_axis_as_torch(kind: Literal["softmax", "log_softmax"], axis: int) -> None:
    y = 100 * torch.randn(5, 2, 3, 4, dtype=torch.float64)
    assert torch.allclose(FinalSoftmax(kind, (axis,)).apply(y), getattr(torch, kind)(y, axis + 1), rtol=0, atol=1e-12)


def test_the_outputs_of_a_group_sum_to_one() -> None:
    for axes in ((0,), (1,), (2,), (0, 2), (0, 1, 2)):
        found, shape = FinalSoftmax("softmax", axes), (2, 3, 4)
        groups = found.groups(shape)
        assert sorted(groups.reshape(-1)) == list(range(24))
        p = found.apply(torch.randn(1, *shape, dtype=torch.float64)).reshape(-1).numpy()
        assert np.allclose(p[groups].sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("axes", [(), (1,), (0, 0), (-1,)])
def test_axes_that_the_output_does_not_have(axes: tuple[int, ...]) -> None:
    with pytest.raises(NetworkError, match="normalises over axes"):
        mn.Network.build((2,), [("fc", mn.Dense(torch.eye(2)))], softmax=FinalSoftmax("softmax", axes))


def test_a_network_keeps_it() -> None:
    module = ending_in(nn.Softmax(1))
    network, x = read(module), torch.randn(7, 3, dtype=torch.float64)
    gates = find_gates(network)
    all_kept = xr.Dataset({g.name: (g.dim, np.ones(g.units, dtype=bool)) for g in gates})
    for each in (network, pickle.loads(pickle.dumps(network)), network.with_notes("n"), masked_network(network, gates, all_kept)):
        assert each.softmax == FinalSoftmax("softmax", (0,))
        assert np.allclose(each.outputs(x), module(x).detach(), atol=1e-14)
        assert np.allclose(each.forward(x), module[:-1](x).detach(), atol=1e-14)
    bare = network.without_softmax()
    assert (bare.softmax, bare.notes, bare.nodes) == (None, (), network.nodes)
    assert np.array_equal(bare.outputs(x), network.forward(x))


def test_an_encoding_is_of_logits_only_if_asked() -> None:
    network = read(ending_in(nn.LogSoftmax(1)))
    with pytest.raises(UnsupportedError, match=r"ends in a log_softmax.*without_softmax"):
        mn.encode(network, BOX)
    model = linopy.Model()
    x = model.add_variables(lower=xr.DataArray(np.full(3, -1.0)), upper=xr.DataArray(np.full(3, 1.0)), name="x")
    with pytest.raises(UnsupportedError, match="ends in a log_softmax"):
        mn.add_network(model, network, x)
    assert mn.encode(network.without_softmax(), BOX).output.shape == (1, 4)


@pytest.mark.parametrize("formulation", [None, {"relu": "frozen"}])
def test_importance_is_that_of_the_logits(formulation: dict[str, str] | None) -> None:
    module, generator = ending_in(nn.Softmax(1)), np.random.default_rng(0)
    x, labels = generator.normal(size=(4, 3)), generator.integers(0, 4, 4)
    found = [
        mn.importance(each, x, labels, formulation=formulation, time_limit=30).scores
        for each in (read(module), read(module[:-1]))  # type: ignore[arg-type]
    ]
    assert found[0] is not None
    xr.testing.assert_allclose(*found, atol=1e-5)  # type: ignore[arg-type]


def test_training_takes_the_probabilities_as_such() -> None:
    """The loss of a module that ends in a softmax is that of its logits, not that of a softmax of probabilities."""
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 4, (20,))
    for last in (nn.Softmax(1), nn.LogSoftmax(1), nn.Identity()):
        module = ending_in(last)
        wanted = float(F.cross_entropy(module[:-1](x), y).detach())
        assert evaluate(module, x, y)[0] == pytest.approx(wanted, abs=1e-10)
        assert mn.train(module, x, y, epochs=1, settings=mn.TrainingSettings(batch=20, lr=1e-12))[0] == pytest.approx(wanted, abs=1e-10)
