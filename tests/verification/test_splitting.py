"""Halving of the input set against the exact extremes of networks with one input, whenever the time ends."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.bounds.interval import Interval
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.result_warnings import collected_warnings
from mipnet.network.properties import Clause
from mipnet.verification import input_splitting
from mipnet.verification.clause_network import Excess
from mipnet.verification.input_splitting import InputSplitting, SubBoxes, lower_bound_by_splitting
from tests.clock import StoppingClock, at_every_moment
from tests.limits.room import room
from tests.one_input import one_input_network, values_at_kinks
from tests.sweep import marked

LOW, HIGH, WIDTHS = -3.0, 3.0, (8, 8, 3)
REGION = mn.Box(np.array([[LOW]]), np.array([[HIGH]]))


def question(seed):
    """A network, and the smallest value of each of its outputs."""
    network = one_input_network(seed, WIDTHS)
    return network, values_at_kinks(network, LOW, HIGH)["fc2"].min(axis=0)


@pytest.fixture(autouse=True)
def one_box_at_once(monkeypatch):
    monkeypatch.setattr(input_splitting, "BOXES_PER_BATCH", 1)


@pytest.mark.parametrize("seed", [15, marked(13)])
def test_the_bound_holds_whenever_the_time_ends(seed, monkeypatch):
    """The output with the smallest value comes last."""
    network, least = question(seed)
    order = least.argsort()[::-1]
    excess, best = Excess.of(network, [Clause(np.eye(3)[[k]], np.zeros(1)) for k in order]), [np.inf]

    def learn(x):
        best.append(min(best[-1], network.forward(x).min()))

    def call():
        best[:] = [np.inf]
        return lower_bound_by_splitting(excess, REGION, lambda: best[-1] - 1e-6, learn, Deadline.after(1.0))

    bounds = [bound for bound, _ in at_every_moment(monkeypatch, call, wider=2)]
    assert all(bound == -np.inf or (np.isfinite(bound) and Fraction(bound) <= least.min()) for bound in bounds)
    assert bounds[-1] >= least.min() - Fraction(1.1e-6)
    assert len(set(bounds)) > 1


def refutation(network, limits, deadline, confirm):
    """Ask whether an output is at most its limit somewhere, and return whether all boxes are refuted, the point, and the least bound."""
    excess = Excess.of(network, [Clause(row[None], limit[None]) for row, limit in zip(np.eye(3), limits, strict=True)])
    splitting = InputSplitting(excess, REGION, confirm, deadline)
    return *splitting.run(), splitting.bound


def but_for(least, k, above):
    """Limits that no output reaches but the one with this number, and that one only just."""
    return least.astype(float) + np.where(np.arange(3) == k, above, -above)


@pytest.mark.parametrize("seed", [15, marked(13)])
def test_all_boxes_and_clauses_are_refuted_or_a_point_is_found(seed):
    network, least = question(seed)
    done, found, bound = refutation(network, least.astype(float) - 0.01, NO_DEADLINE, lambda x: None)
    assert (done, found) == (True, None)
    assert 0 < bound <= 0.01
    for k in range(3):
        limits = but_for(least, k, 0.01)

        def confirm(x, limits=limits):
            return next((each for each in x if (network.forward(each[None])[0] <= limits).any()), None)

        done, found, _ = refutation(network, limits, NO_DEADLINE, confirm)
        assert not done
        assert found is not None


@pytest.mark.parametrize("seed", [15, marked(13)])
@pytest.mark.parametrize("looks", [1, 5, 100])
def test_what_is_not_so_is_not_refuted(seed, looks, monkeypatch):
    """Whenever the time ends."""
    network, least = question(seed)
    for k in range(3):
        StoppingClock(monkeypatch, looks)
        done, _, _ = refutation(network, but_for(least, k, 1e-3), Deadline.after(1.0), lambda x: None)
        assert not done


def test_an_output_that_equals_its_limit_is_not_refuted():
    """It is 0 without any rounding."""
    network = mn.Network.build((1,), [("fc", mn.Dense(np.zeros((1, 1))))])
    excess = Excess.of(network, [Clause(np.eye(1), np.zeros(1))])
    assert InputSplitting(excess, REGION, lambda x: None, NO_DEADLINE).run() == (False, None)


def test_boxes_that_do_not_fit_are_not_halved_and_that_is_said():
    low, high = (torch.full((300_000, 1), end, dtype=torch.float64) for end in (LOW, HIGH))
    boxes = SubBoxes(Interval(low, high), {}, torch.zeros(len(low), dtype=torch.float64), high - low)
    with room(5e6), collected_warnings(passed_on=False) as said:
        assert not boxes.fit_beside(boxes)
    assert "the input set was not halved further: 600,000 parts of the input set wait" in said[0]
    assert boxes[:2].fit_beside(boxes[:2])
