"""Gradient and Hessian of the frozen loss at masks, against forward mode and autograd on the affine logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.pruning.importance.frozen_network import derivative_along
from mipnet.pruning.stepwise.curvature import curvature, products, soft_targets
from tests.nets import SEEDS, make

NAMES = [f"{family.__name__}-{seed}" for family, seed in SEEDS]


@pytest.mark.parametrize(("family", "seed"), SEEDS[::3], ids=NAMES[::3])
def test_gradient_and_hessian_are_those_of_the_frozen_loss(family, seed: int) -> None:
    network, g = make(family, seed)
    gates = mn.find_gates(network)
    images = torch.tensor(g.uniform(0, 1, (5, *network.input_shape)))
    targets = torch.tensor(g.dirichlet(np.ones(3), 5))
    kept = torch.tensor(g.integers(0, 2, sum(gate.units for gate in gates)).astype(float))
    found = curvature(network, gates, images, targets, kept, chunk=2)

    def logits(scores: torch.Tensor) -> torch.Tensor:
        return network.values(images, products(gates, scores[None]))[network.output.name]

    moves = torch.eye(len(kept), dtype=torch.float64)
    jacobian = torch.stack([derivative_along(logits, kept, move)[1] for move in moves], dim=2)

    def frozen_loss(scores: torch.Tensor) -> torch.Tensor:
        z = logits(kept) + jacobian @ (scores - kept)
        return -(targets * z.log_softmax(1)).sum(1).mean()

    assert found.loss == pytest.approx(float(frozen_loss(kept)), abs=1e-12)
    gradient = torch.autograd.functional.jacobian(frozen_loss, kept).numpy()
    hessian = torch.autograd.functional.hessian(frozen_loss, kept).numpy()
    np.testing.assert_allclose(found.gradient, gradient, atol=1e-6)
    np.testing.assert_allclose(found.hessian, hessian, atol=1e-6)
    move = g.normal(size=len(kept))
    assert found.change(move) == pytest.approx(gradient @ move + 0.5 * move @ hessian @ move, abs=1e-4)


def test_targets_mix_labels_and_the_networks_own_probabilities() -> None:
    network, g = make(*SEEDS[0])
    images, labels = torch.tensor(g.uniform(0, 1, (6, *network.input_shape))), torch.tensor([0, 1, 2, 0, 1, 2])
    own = np.exp(network.forward(images))
    own /= own.sum(axis=1, keepdims=True)
    for hard in (0.0, 0.3, 1.0):
        expected = (1 - hard) * own + hard * np.eye(3)[labels]
        np.testing.assert_allclose(soft_targets(network, images, labels, hard).numpy(), expected, atol=1e-12)
