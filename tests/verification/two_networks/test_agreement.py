"""Two networks compared: against samples and forward passes by torch, and for networks whose difference is known by hand."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.errors import InputError, MemoryLimitReached, NetworkError
from mipnet.limits.deadline import NO_DEADLINE
from mipnet.verification.clause_network import Excess
from mipnet.verification.two_networks import class_pairs
from mipnet.verification.two_networks.joint_network import join_networks
from tests.limits.room import room
from tests.sweep import in_turn

BACKENDS = ("highs", "scip")


def dense(seed, inputs=3, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)).double()


def pooled(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)
    ).double()


def read(module, shape=(3,)):
    return mn.from_torch(module, torch.zeros(1, *shape, dtype=torch.float64))


def changed(module, layer, unit, factor):
    other = copy.deepcopy(module)
    with torch.no_grad():
        other[layer].weight[unit] *= factor
    return other


def run(module, x):
    with torch.no_grad():
        return module(torch.tensor(x)).numpy()


def samples(region, count=20_000):
    share = np.random.default_rng(0).uniform(-0.3, 1.3, (count, *region.lower.shape[1:])).clip(0, 1)
    return region.lower + share * (region.upper - region.lower)


REGION = mn.LInf(np.full((1, 3), 0.2), 0.7)
IMAGE = mn.LInf(np.random.default_rng(5).normal(size=(1, 1, 6, 6)), 0.15)
PAIRS = {
    "the same": (dense(0), dense(0), (3,), REGION),
    "one weight": (dense(1), changed(dense(1), 2, 1, 1.2), (3,), REGION),
    "first layer": (dense(6), changed(dense(6), 0, 4, 0.5), (3,), REGION),
    "other widths": (dense(3), dense(4, width=4), (3,), REGION),
    "pooled": (pooled(0), pooled(0), (1, 6, 6), IMAGE),
    "behind a pool": (pooled(1), changed(pooled(1), 4, 2, 1.3), (1, 6, 6), IMAGE),
    "filter": (pooled(2), changed(pooled(2), 0, 1, 1.1), (1, 6, 6), IMAGE),
}


@pytest.mark.parametrize(("pair", "same"), in_turn(PAIRS, [1e-9, 1e3]))
def test_a_joined_network_computes_both_within_its_slack(pair, same):
    first, second, shape, region = PAIRS[pair]
    x = samples(region, 2000)
    y, z = run(first, x), run(second, x)
    both = join_networks(read(first, shape), read(second, shape), region, "both", same=same)
    found = both.network.forward(x)
    np.testing.assert_allclose(found[:, :3], y, atol=1e-12)
    assert (np.abs(found[:, 3:] - z) <= both.slack + 1e-12).all()
    one = join_networks(read(first, shape), read(second, shape), region, same=same)
    assert (np.abs(one.network.forward(x) - (y - z)) <= one.slack + 1e-12).all()
    if same < 1:
        assert both.slack.max() < 1e-8


def test_a_network_is_itself_without_rounding():
    for first, second, shape, region in (PAIRS["the same"], PAIRS["pooled"]):
        joined = join_networks(read(first, shape), read(second, shape), region)
        assert joined.slack.max() == 0
        assert mn.agree(read(first, shape), read(second, shape), region, within=1e-12).agree is True


def test_equal_parts_are_there_once():
    first, second, shape, region = PAIRS["behind a pool"]
    network = join_networks(read(first, shape), read(second, shape), region).network
    assert sum(isinstance(node.layer, mn.Conv2d | mn.MaxPool2d) for node in network.nodes) == 2
    units = [node.shape[0] for node in network.nodes if isinstance(node.layer, mn.ReLU)]
    assert sorted(units) == [1, 5]


@pytest.mark.parametrize("pair", PAIRS)
def test_the_largest_difference_lies_between_samples_and_bound(pair):
    first, second, shape, region = PAIRS[pair]
    found = mn.agree(read(first, shape), read(second, shape), region, backend=BACKENDS[len(pair) % 2], tolerance=1e-3)
    seen = np.abs(run(first, samples(region)) - run(second, samples(region))).max()
    assert found.bound >= max(seen, found.largest)
    assert found.largest >= seen - 1e-3
    assert found.bound - found.largest <= 1e-3 * max(1.0, found.largest) + 1e-9
    at = found.point[None]
    assert region.contains(at, 0.0)
    assert np.abs(run(first, at) - run(second, at)).max() == pytest.approx(found.largest, abs=1e-12)


def test_a_known_difference():
    """relu(x) and x: over [-1, 2] they differ by 1 at x = -1, over [0, 2] they are equal."""
    unit = torch.ones(1, 1)
    bent = mn.Network.build((1,), [("a", mn.Dense(unit)), ("r", mn.ReLU()), ("b", mn.Dense(unit))])
    straight = mn.Network.build((1,), [("a", mn.Dense(unit))])
    for backend in BACKENDS:
        found = mn.agree(bent, straight, mn.Box([[-1.0]], [[2.0]]), backend=backend)
        assert found.largest == pytest.approx(1.0, abs=1e-12)
        assert 1.0 <= found.bound <= 1.0 + 1e-4
        assert found.point == pytest.approx([-1.0])
    assert mn.agree(bent, straight, mn.Box([[0.0]], [[2.0]]), within=1e-9).agree is True


def test_within_ends_with_a_proof_or_a_point():
    first, second, _, region = PAIRS["first layer"]
    seen = np.abs(run(first, samples(region)) - run(second, samples(region))).max()
    refuted = mn.agree(read(first), read(second), region, within=0.5 * seen)
    assert refuted.agree is False
    assert np.abs(run(first, refuted.point[None]) - run(second, refuted.point[None])).max() > 0.5 * seen
    proven = mn.agree(read(first), read(second), region, within=1.5 * seen)
    assert proven.agree is True
    assert seen <= proven.bound <= 1.5 * seen


@pytest.mark.parametrize("backend", BACKENDS)
def test_classes(backend):
    first, second, _, region = PAIRS["first layer"]
    one, other = read(first), read(second)
    same = mn.agree_on_class(one, one, region, backend=backend)
    assert same.agree is True
    x = samples(region)
    y, z = run(first, x), run(second, x)
    differ = y.argmax(axis=1) != z.argmax(axis=1)
    lead = np.minimum(*(np.diff(np.sort(each, axis=1)[:, -2:], axis=1)[:, 0] for each in (y, z)))
    assert differ.any()  # or it shows nothing
    found = mn.agree_on_class(one, other, region, backend=backend)
    assert found.agree is False
    at = found.point[None]
    assert run(first, at).argmax() != run(second, at).argmax()
    most = float(lead[differ].max())
    proven = mn.agree_on_class(one, other, region, backend=backend, margin=3 * most)
    assert proven.agree is True


def test_networks_that_do_not_fit():
    with pytest.raises(NetworkError, match="expected the same shapes"):
        mn.agree(read(dense(0)), read(dense(0, inputs=2), (2,)), REGION)
    with pytest.raises(InputError, match="`within` is 0"):
        mn.agree(read(dense(0)), read(dense(0)), REGION, within=0)


def classifiers(classes):
    """Two networks with a few weights that differ, and their joint network with bounds of each."""
    torch.manual_seed(classes)
    one = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, classes)).double()
    first, second = read(one), read(changed(one, 2, 0, 1.01))
    bounds = mn.propagate(first, REGION), mn.propagate(second, REGION)
    return join_networks(first, second, REGION, "both", bounds=bounds), bounds


def question(joined, bounds):
    return class_pairs.class_clauses(joined, REGION, bounds, np.array([1e-6, 1e-6]), NO_DEADLINE)


def test_the_question_of_many_classes_is_the_same_in_small_batches(monkeypatch):
    joined, bounds = classifiers(5)
    wanted = question(joined, bounds)
    assert len(wanted) > 4
    monkeypatch.setattr(class_pairs, "count_in_memory", lambda each, most: 7)
    found = question(joined, bounds)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.matrix, other.matrix)
        np.testing.assert_allclose(one.rhs, other.rhs, atol=1e-9)
        assert one.matrix.shape[0] <= 9, "at most the comparisons of two classes with 4 others, and their sum"


def test_batches_of_class_pairs_have_a_size_whatever_fits_into_memory(monkeypatch):
    joined, bounds = classifiers(5)
    rows = list[int]()

    def seen(network, clauses):
        rows.extend(len(clause.rhs) for clause in clauses)
        return Excess.of(network, clauses)

    monkeypatch.setattr(class_pairs, "Excess", SimpleNamespace(of=seen))
    monkeypatch.setattr(class_pairs, "DIFFERENCE_COEFFICIENTS_AT_ONCE", 3 * 2 * 5)
    question(joined, bounds)
    assert sum(rows) > 20
    assert max(rows) == 3


def test_a_question_of_too_many_pairs_of_classes_is_refused_with_its_size():
    joined, bounds = classifiers(40)
    with room(20e6), pytest.raises(MemoryLimitReached, match=r"pairs of 40 classes would take about .* give a smaller input set"):
        question(joined, bounds)
