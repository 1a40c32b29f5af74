"""Losses agree with torch, and their variables equal the loss at the optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, multi_margin_loss

import mipnet as mn
from mipnet.errors import DataError, InputError
from mipnet.model.losses import Loss, add_loss, check_labels
from tests.nets import make, mlp


def test_values_are_torchs():
    g = np.random.default_rng(0)
    logits, labels = g.normal(size=(50, 7)) * 10, g.integers(0, 7, 50)
    ours = Loss().values(logits, labels)
    np.testing.assert_allclose(ours, cross_entropy(torch.tensor(logits), torch.tensor(labels), reduction="none").numpy(), atol=1e-12)
    pairs = g.normal(size=(50, 2))
    two = Loss("margin", 0.7).values(pairs, labels % 2)
    torchs = multi_margin_loss(torch.tensor(pairs), torch.tensor(labels % 2), margin=0.7, reduction="none") * 2
    np.testing.assert_allclose(two, torchs.numpy(), atol=1e-12)


@pytest.mark.parametrize("backend", ["highs", "scip"])
@pytest.mark.parametrize("loss", [Loss(), Loss("margin", 2.0)], ids=["cross-entropy", "margin"])
def test_the_modelled_loss_is_the_true_one(loss, backend):
    network, g = make(mlp, 5)
    encoding = mn.encode(network, mn.LInf(g.uniform(0.3, 0.7, (3, *network.input_shape)), 0.2))
    labels = np.array([0, 1, 2])
    encoding.model.add_objective(1.0 * add_loss(encoding, labels, loss))
    result = mn.solve(encoding, backend, mip_gap=1e-5, time_limit=60)
    assert result.status is mn.Status.OPTIMAL
    logits = network.forward(result.x["input"].values)
    assert result.objective == pytest.approx(loss.values(logits, labels).mean(), abs=1e-8)
    assert result.bound == pytest.approx(result.objective, abs=1e-4)


def test_bad_losses_and_labels_are_refused():
    with pytest.raises(InputError, match="the loss is `hinge`"):
        Loss("hinge")
    with pytest.raises(InputError, match=r"given -1\.0 as `margin`; expected a finite number of at least 0"):
        Loss("margin", -1.0)
    for labels, message in (
        ([0, 1], "one for each of 3"),
        ([0, 1, 3], "run from 0 to 3"),
        ([-1, 1, 2], "run from -1"),
        ([0.5, 1, 2], "integers"),
    ):
        with pytest.raises(DataError, match=message):
            check_labels(labels, 3, 3)
    network = mn.Network.build((1, 2, 2), [("relu", mn.ReLU())])
    with pytest.raises(DataError, match="one vector of logits"):
        add_loss(mn.encode(network, mn.Samples(np.zeros((1, 1, 2, 2)))), [0], Loss())
