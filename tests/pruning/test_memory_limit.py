"""Arrays of all images and units within a memory limit: smaller batches with the same result, or a refusal with the figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.errors import MemoryLimitReached
from mipnet.limits import memory
from mipnet.network import graph, pass_cost
from mipnet.pruning.importance import frozen_network
from mipnet.pruning.importance.auxiliary_heads import HeadTraining, train_heads
from mipnet.pruning.rivals import score_arrays
from mipnet.pruning.rivals.gradients import gate_gradients, weight_gradients
from mipnet.pruning.rivals.sensitivity import weight_sensitivities
from mipnet.pruning.stepwise import curvature
from tests.limits.room import room
from tests.nets import conv, dense


def small(inputs: int = 6, hidden: int = 30) -> mn.Network:
    g = np.random.default_rng(0)
    layers = [("fc1", dense(g, hidden, inputs)), ("act1", mn.ReLU()), ("fc2", dense(g, hidden, hidden)), ("act2", mn.ReLU())]
    return mn.Network.build((inputs,), [*layers, ("fc3", dense(g, 4, hidden))])


def images(count: int, inputs: int = 6) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(1)
    return g.random((count, inputs)), g.integers(0, 4, count)


def importance(count: int, pattern: str = "free") -> object:
    x, y = images(count)
    question = mn.Importance(small(), x, y, formulation={"relu": "frozen"}, bounds=mn.PaperBounds(pattern=pattern))  # type: ignore[arg-type]
    return question.pose()


def test_derivatives_on_too_many_images_are_refused() -> None:
    said = r"^the derivatives of 4 outputs with respect to 60 scores on 20,000 images would take about 115 MB; .*: give fewer images"
    with room(60e6), pytest.raises(MemoryLimitReached, match=said):
        importance(20_000)


def test_an_activation_pattern_of_too_many_images_is_refused() -> None:
    said = r"^the activation pattern of 9,000 images would take about .* MB; .*: give fewer images, or take `pattern: free`"
    with room(100e6), pytest.raises(MemoryLimitReached, match=said):
        importance(9000, "paper")


def test_a_curvature_of_too_many_scores_is_refused() -> None:
    network, (x, y) = small(6, 1000), images(20)
    said = r"^the curvature of the loss in 2,000 scores would take about 256 MB; .*: give gates for fewer layers"
    with room(80e6), pytest.raises(MemoryLimitReached, match=said):
        mn.prune_stepwise(network, x, y, shares=[0.1])


def test_what_the_heads_of_a_decoupled_run_read_is_refused() -> None:
    network, (x, y) = small(6, 1000), images(9000)
    said = r"^what 1 heads read of 9,000 images would take about 72 MB; .*: give fewer training images"
    with room(40e6), pytest.raises(MemoryLimitReached, match=said):
        train_heads(network, ["act1"], HeadTraining(x, y, epochs=1))


def test_smaller_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for one image at a time: forward passes, gradients, sensitivities, derivatives, curvature."""
    g = np.random.default_rng(0)
    layers = [
        ("conv", conv(g, 3, 1, (2, 2))),
        ("act1", mn.ReLU()),
        ("flat", mn.Reshape((27,))),
        ("fc1", dense(g, 8, 27)),
        ("act2", mn.ReLU()),
    ]
    network = mn.Network.build((1, 4, 4), [*layers, ("fc2", dense(g, 3, 8))])
    x, y = g.random((7, 1, 4, 4)), g.integers(0, 3, 7)
    gates = mn.find_gates(network)

    def everything() -> list[torch.Tensor]:
        curve = curvature.curvature(network, gates, torch.tensor(x), torch.eye(3).double()[torch.tensor(y)], torch.ones(11))
        return [
            torch.tensor(network.forward(x)),
            *gate_gradients(network, gates, x, y).values(),
            *weight_gradients(network, x, y).values(),
            *weight_sensitivities(network, x).values(),
            torch.tensor(frozen_network.freeze(network, gates, x).jacobian),
            torch.tensor(curve.hessian),
            torch.tensor(mn.RIVALS["activation"].score(network, gates, x, y)["fc1"].values),
        ]

    whole, counts = everything(), []
    for module in (graph, score_arrays, frozen_network, curvature, pass_cost):
        monkeypatch.setattr(module, "count_in_memory", lambda each, most: counts.append(most) or 1)
    for one, other in zip(everything(), whole, strict=True):
        torch.testing.assert_close(one, other)
    assert len(counts) >= 6


def test_as_many_as_fit_are_made_at_once() -> None:
    assert memory.count_in_memory(1e3, 1000) == 1000
    with room(50e6):
        assert 5 < memory.count_in_memory(5e6, 1000) <= 10
        assert memory.count_in_memory(1e12, 1000) == 1
        assert memory.count_in_memory(1.0, 5) == 5


def test_networks_of_states_and_forms_are_refused() -> None:
    network = mn.from_torch(nn.Sequential(nn.Linear(3000, 2), nn.ReLU(), nn.Linear(2, 2)), torch.zeros(1, 3000))
    said = r"^the dense matrix of a layer with 3,000 inputs would take about 144 MB; .*: give a smaller network"
    with room(60e6), pytest.raises(MemoryLimitReached, match=said):
        mn.compress(network, mn.LInf(np.zeros((1, 3000)), 0.1))


@pytest.mark.sweep
def test_two_networks_whose_units_cannot_be_compared_are_bounded_apart() -> None:
    """The affine functions of all units do not fit; the bounds of each network alone do."""
    g = np.random.default_rng(0)

    def one() -> mn.Network:
        layers = [("fc1", dense(g, 500, 300)), ("act1", mn.ReLU()), ("fc2", dense(g, 500, 500)), ("act2", mn.ReLU())]
        return mn.Network.build((300,), [*layers, ("fc3", dense(g, 2, 500))])

    first, second, box = one(), one(), mn.LInf(np.zeros((1, 300)), 1e-3)
    mn.agree(first, second, box, time_limit=1)
    with room(6e6):
        found = mn.agree(first, second, box)
    assert found.method == "separate"
    assert found.largest <= found.bound < np.inf
    assert any(
        text.startswith("the comparison of both networks unit by unit was left out: the values of a layer") for text in found.warnings
    )
