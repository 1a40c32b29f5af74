"""A certified result says what was not closed and what was left out for want of memory, and says nothing when all is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import mipnet as mn
from mipnet.bounds import crown
from mipnet.errors import MemoryLimitReached
from mipnet.limits import result_warnings
from mipnet.limits.deadline import NO_DEADLINE
from mipnet.limits.result_warnings import add_warning, carries_warnings, collected_warnings, left_out_if_too_large
from mipnet.network.properties import Clause
from mipnet.verification import sign_branching, stages
from mipnet.verification.clause_network import Excess
from mipnet.verification.input_splitting import InputSplitting, lower_bound_by_splitting
from mipnet.verification.sign_branching import SignBranching
from tests.limits.room import room
from tests.nets import dense

Generator = np.random.Generator


def small(g: Generator, inputs: int = 3, hidden: int = 8) -> mn.Network:
    layers = [("fc1", dense(g, hidden, inputs)), ("act1", mn.ReLU()), ("fc2", dense(g, hidden, hidden)), ("act2", mn.ReLU())]
    return mn.Network.build((inputs,), [*layers, ("fc3", dense(g, 3, hidden))])


def cube(inputs: int = 3, radius: float = 1.0) -> mn.Box:
    return mn.LInf(np.zeros((1, inputs)), radius)


QUESTIONS: dict[str, Callable[..., Any]] = {
    "reach": lambda net, box, **how: mn.reach(net, box, **how),
    "agree": lambda net, box, **how: mn.agree(net, small(np.random.default_rng(1), box.lower.shape[1]), box, **how),
    "class": lambda net, box, **how: mn.agree_on_class(net, small(np.random.default_rng(1), box.lower.shape[1]), box, **how),
    "compress": lambda net, box, **how: mn.compress(net, box, **how),
    "margin": lambda net, box, **how: mn.maximum_margin(net, box, 0, **how),
    "distortion": lambda net, box, **how: mn.minimum_distortion(net, box.centre, upper=1.0, clip=None, **how),
}


@pytest.mark.parametrize("asked", QUESTIONS)
def test_a_result_that_is_found_has_no_warnings(asked: str) -> None:
    assert QUESTIONS[asked](small(np.random.default_rng(0), 3, 4), cube(), time_limit=None).warnings == ()


NOT_CLOSED = {
    "reach": r"6 of 6 minima and maxima are not found to the tolerance of 0.0001: the bounds hold, and some of them have no bound",
    "agree": r"the largest difference lies between \S+ and \S+: it is not closed to 0.0001",
    "class": r"it is not decided whether the networks name the same class: there is neither a proof nor an input",
    "compress": r"\d+ units are kept for which it is not decided whether they change their state",
    "margin": r"the largest margin lies between \S+ and \S+: it is not closed to 0.0001",
    "distortion": r"the smallest distance lies between \S+ and \S+: it is not closed to 0.001|it is not decided whether the class changes",
}


@pytest.mark.parametrize("asked", NOT_CLOSED)
def test_what_the_time_did_not_suffice_for_is_said(asked: str) -> None:
    """Thousands of units, and next to no time: nothing is closed."""
    g = np.random.default_rng(0)
    found = QUESTIONS[asked](small(g, 40, 300), cube(40), time_limit=1e-3)
    (said,) = [text for text in found.warnings if not text.startswith("the outputs of both networks are not proven")]
    assert re.match(NOT_CLOSED[asked], said), said


@pytest.mark.sweep
def test_a_stage_that_does_not_fit_is_left_out_and_named() -> None:
    """The program is too large; the bounds that were proven before are returned."""
    g = np.random.default_rng(0)
    layers = [("fc1", dense(g, 600, 200)), ("act1", mn.ReLU()), ("fc2", dense(g, 600, 600)), ("act2", mn.ReLU()), ("fc3", dense(g, 1, 600))]
    network, box = mn.Network.build((200,), layers), mn.LInf(np.zeros((1, 200)), 1e-3)
    mn.reach(network, box, time_limit=3)  # loads what is loaded once
    with room(12e6):
        found = mn.reach(network, box, tolerance=0.0)
    left_out = [text for text in found.warnings if text.startswith("the solver was left out: the program of the network on one sample (")]
    assert len(left_out) == 1
    assert ", or raise `memory_limit`" in left_out[0]
    y = network.forward(box.centre)[0]
    assert (found.lower <= y).all()
    assert (y <= found.upper).all()
    assert {end.method for end in found.lowest} <= {"interval", "crown", "alpha"}


def exceeds(value: float) -> mn.Property:
    """Is the first of three outputs ever this large?"""
    return mn.property_of(lambda x, y: y[0] >= value, cube(12), 3)


def largest_found(network: mn.Network) -> float:
    return float(network.forward(np.random.default_rng(5).choice([-1.0, 1.0], (4000, 12)))[:, 0].max())


def test_a_verdict_names_the_stages_that_were_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small(np.random.default_rng(0), 12, 60)

    def too_large(*arguments: object, **keywords: object) -> None:
        raise MemoryLimitReached("that would take 9 GB; the memory limit is 1 GB: give less, or raise `memory_limit`")

    assert mn.verify(network, exceeds(1e3)).warnings == ()
    monkeypatch.setattr(stages, "ClauseProgram", too_large)
    monkeypatch.setattr(sign_branching.SignBranching, "run", too_large)
    bounded = float(mn.propagate(network, cube(12), method="alpha").after["fc3"].upper[0, 0])
    found = mn.verify(network, exceeds((largest_found(network) + bounded) / 2), time_limit=None)
    assert found.status == "unknown"
    assert [text.partition(":")[0] for text in found.warnings] == ["branching on signs was left out", "the solver was left out"]


def excess_of(network: mn.Network, value: float) -> Excess:
    return Excess.of(network, [Clause(np.array([[-1.0, 0.0, 0.0]]), np.array([-value]))])


def test_boxes_that_wait_are_not_stored_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search stops at the limit, and its bound is that of all boxes that wait."""
    network, box = small(np.random.default_rng(0), 8, 40), cube(8, 3.0)
    monkeypatch.setattr(result_warnings, "fits", lambda size: size < 1e6)
    splitting = InputSplitting(excess_of(network, -1e6), box, lambda x: None, NO_DEADLINE)
    with collected_warnings() as first:
        bound, boxes = lower_bound_by_splitting(excess_of(network, 0.0), box, lambda: np.inf, lambda x: None, NO_DEADLINE)
    with collected_warnings() as second:
        assert splitting.run() == (False, None)
    assert max(boxes, splitting.boxes) < 10_000
    for said in (first, second):
        (text,) = said
        assert re.fullmatch(r"the input set was not halved further: [\d,]+ parts of the input set wait to be halved, which take .*", text)
    assert bound <= -network.forward(np.random.default_rng(0).uniform(-3, 3, (2000, 8)))[:, 0].max()


def test_branches_that_wait_are_not_stored_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    network, box = small(np.random.default_rng(0), 12, 60), cube(12)
    monkeypatch.setattr(result_warnings, "fits", lambda size: size < 2e5)
    excess = excess_of(network, -1e6)  # no branch is refuted
    with collected_warnings() as said:
        branching = SignBranching(excess, mn.propagate(excess.network, box), 0, lambda x: None, NO_DEADLINE)
        assert branching.run() == (False, None)
    assert branching.branches < 2000
    (text,) = said
    assert re.fullmatch(r"no further signs of ReLUs were branched on: [\d,]+ branches wait, which take .*", text)
    assert branching.bound <= -1e6 - largest_found(network)


def test_bounds_of_a_simpler_method_are_named_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crown, "CROWN_COEFFICIENT_BYTES", 10**12)
    network = small(np.random.default_rng(0))
    with room(100e6):
        found = mn.reach(network, cube(), time_limit=None)
    assert any(text.startswith("`act2` keeps looser bounds") or text.startswith("`fc2` keeps looser bounds") for text in found.warnings)


def test_warnings_are_collected_at_any_depth_and_once() -> None:
    @carries_warnings
    def inner() -> mn.Reached:
        add_warning("a")
        with left_out_if_too_large("a part"):
            raise MemoryLimitReached("too large")
        add_warning("a")
        return mn.Reached(np.eye(1), (), (), 0.0, 0.0, 0, 0, "", False, ("first",))

    add_warning("nobody hears this")
    with collected_warnings() as outer:
        add_warning("b")
        assert inner().warnings == ("first", "a", "a part was left out: too large")
        with suppress(KeyError), collected_warnings():
            add_warning("c")
            raise KeyError
    assert outer == ["b", "a", "a part was left out: too large", "c"]
