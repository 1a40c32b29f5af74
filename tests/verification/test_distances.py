"""The smallest distance to another class and the largest margin, by hand, and by a linear or convex program per activation pattern."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import mipnet as mn
from mipnet.errors import InputError
from mipnet.verification import distortion_search
from tests.sweep import sweep
from tests.verification.worked import INPUTS, OUTPUTS, pieces, random_network

BACKENDS = ("highs", "scip")
ORDER = {"linf": np.inf, "l1": 1, "l2": 2}


def answers():
    """Two classes, whose outputs are the two inputs."""
    return mn.Network.build((2,), [("fc", mn.Dense(torch.eye(2).double())), ("relu", mn.ReLU()), ("out", mn.Dense(torch.eye(2).double()))])


def true_distance(net, x, label, norm, clip=(0.0, 1.0)):
    """The smallest distance (maximum or sum norm), from one LP per activation pattern and other class."""
    best = np.inf
    count = 1 if norm == "linf" else INPUTS
    eye, spread = np.eye(INPUTS), np.ones((INPUTS, 1)) if norm == "linf" else np.eye(INPUTS)
    apart = np.vstack([np.hstack([eye, -spread]), np.hstack([-eye, -spread])])
    sides = np.concatenate([x, -x])
    for matrix, right, slope, constant in pieces(net):
        for c in set(range(OUTPUTS)) - {label}:
            row, side = slope[label] - slope[c], constant[c] - constant[label]
            rows = np.vstack([matrix, row])
            upper = np.vstack([np.hstack([rows, np.zeros((len(rows), count))]), apart])
            cost = np.concatenate([np.zeros(INPUTS), np.ones(count)])
            limits = [clip] * INPUTS + [(0, None)] * count
            found = linprog(cost, A_ub=upper, b_ub=np.concatenate([right, [side], sides]), bounds=limits)
            best = min(best, found.fun if found.success else np.inf)
    return best


def true_margin(net, region, label):
    limits = list(zip(region.lower[0], region.upper[0], strict=True))
    best = -np.inf
    for matrix, right, slope, constant in pieces(net):
        for c in set(range(OUTPUTS)) - {label}:
            found = linprog(slope[label] - slope[c], A_ub=matrix, b_ub=right, bounds=limits)
            best = max(best, -found.fun + constant[c] - constant[label] if found.success else -np.inf)
    return best


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("norm", "truth"), [("linf", 0.1), ("l1", 0.2), ("l2", 0.2 / np.sqrt(2))])
def test_by_hand_the_nearest_change_is_on_the_diagonal(norm, truth, backend):
    x = np.array([0.6, 0.4])
    found = mn.minimum_distortion(answers(), x, norm=norm, upper=0.5, backend=backend)
    assert found.lower <= truth + 1e-9 <= found.upper + 2e-9
    assert found.gap < 3e-3
    assert np.linalg.norm(found.point - x, ORDER[norm]) == pytest.approx(found.upper, abs=1e-12)
    assert found.output[1] >= found.output[0]
    near = mn.minimum_distortion(answers(), x, norm=norm, upper=0.9 * truth, backend=backend)
    assert near.point is None
    assert near.upper == np.inf
    assert near.lower == pytest.approx(0.9 * truth, rel=1e-2)
    assert near.lower <= truth


@pytest.mark.parametrize(
    ("seed", "norm", "backend"),
    sweep([(seed, norm, backend) for seed in range(3) for norm in ("linf", "l1") for backend in BACKENDS], every=7),
)
def test_the_least_distance_of_small_networks(seed, norm, backend):
    net, x = random_network(seed), np.random.default_rng(seed).uniform(0.2, 0.8, INPUTS)
    label = int(net.forward(x[None]).argmax())
    truth = true_distance(net, x, label, norm)
    found = mn.minimum_distortion(net, x, norm=norm, upper=3.0, backend=backend)
    assert found.lower <= truth + 1e-7
    assert found.upper >= truth - 1e-7
    if np.isfinite(truth):
        assert found.gap < 5e-3
        assert found.output.argmax() != label or (np.sort(found.output)[-2:] @ [1, -1] == 0)


@pytest.mark.parametrize("backend", sweep(BACKENDS, every=2))
def test_the_euclidean_distance_lies_between_what_samples_and_other_norms_say(backend):
    net, x = random_network(1), np.random.default_rng(1).uniform(0.2, 0.8, INPUTS)
    label = int(net.forward(x[None]).argmax())
    found = mn.minimum_distortion(net, x, norm="l2", upper=2.0, backend=backend)
    points = np.random.default_rng(0).uniform(size=(200_000, INPUTS))
    other = net.forward(points).argmax(axis=1) != label
    sampled = np.linalg.norm(points[other] - x, axis=1).min()
    assert found.lower <= sampled
    assert found.upper <= sampled + 1e-6
    assert found.gap < 5e-3
    assert true_distance(net, x, label, "linf") <= found.upper
    assert found.lower <= true_distance(net, x, label, "l1")


def test_an_answer_that_is_wrong_already():
    found = mn.minimum_distortion(answers(), [0.6, 0.4], 1, upper=0.5)
    assert (found.lower, found.upper, found.gap) == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(found.point, [0.6, 0.4])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", sweep(range(4), every=4))
def test_the_largest_margin_of_small_networks(seed, backend):
    net, g = random_network(seed), np.random.default_rng(seed)
    centre = g.normal(size=(1, INPUTS))
    region, label = mn.LInf(centre, 0.8), int(net.forward(centre).argmax())
    truth = true_margin(net, region, label)
    found = mn.maximum_margin(net, region, label, backend=backend)
    assert found.lower <= truth + 1e-9
    assert found.upper >= truth - 1e-9
    assert found.gap < 1e-3 * (1 + abs(truth))
    assert region.contains(found.point[None], 0.0)
    y = net.forward(found.point[None])[0]
    assert y[found.target] - y[label] == pytest.approx(found.lower, abs=1e-12)
    assert set(found.uppers) == set(range(OUTPUTS)) - {label}


def test_the_largest_margin_in_a_ball_by_hand():
    for make, truth in ((mn.LInf, 0.3 * 2), (mn.L1, 0.3), (mn.L2, 0.3 * np.sqrt(2))):
        found = mn.maximum_margin(answers(), make([[0.6, 0.4]], 0.3), 0)
        assert found.lower <= truth - 0.2 + 1e-9
        assert found.upper >= truth - 0.2 - 1e-9
        assert found.gap < 1e-3


def test_classes_that_are_none():
    with pytest.raises(InputError, match="the other classes are"):
        mn.maximum_margin(answers(), mn.LInf([[0.6, 0.4]], 0.3), mn.Classes(0, [0]))
    with pytest.raises(InputError, match="the other classes are"):
        mn.minimum_distortion(answers(), [0.6, 0.4], mn.Classes(targets=[5]), upper=1.0)


@pytest.mark.parametrize(("lower", "upper", "gap"), [(0.2, 0.5, 0.6), (0.2, np.inf, 1.0), (0.0, 0.0, 0.0)])
def test_the_gap_is_relative_to_the_upper_end(lower, upper, gap):
    assert mn.Distortion(lower, upper, None, None, "linf", 0, 0.0, 0).gap == pytest.approx(gap)


def test_a_distance_that_linear_bounds_close_needs_no_program(monkeypatch):
    """Over inputs of at least 0 the network is linear."""
    monkeypatch.setattr(distortion_search, "encode", None)
    found = mn.minimum_distortion(answers(), np.array([0.6, 0.4]), upper=0.5, backend=mn.DistortionSettings(gap=0.05))
    assert found.lower <= 0.1 <= found.upper
    assert found.gap <= 0.05
