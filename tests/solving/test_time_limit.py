"""At the end of a time limit a solve or a tightening returns what is proven, whatever the solver does."""

from __future__ import annotations

import pickle
import threading

import highspy
import numpy as np
import pytest
from mipnet_highs import HiGHS, options

import mipnet as mn
from mipnet.errors import InputError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.solving import interruptible_session, program_sessions
from mipnet.solving.open_problem import open_problem
from mipnet.solving.parallel import run_all
from tests.bounds.search import activations, everything, first_outside
from tests.clock import TickingClock
from tests.interrupts import SECONDS_MAX
from tests.solving.test_interruptible_session import posed
from tests.solving.test_tightening import tiny

BACKENDS = ("highs", "scip")


class Deaf(HiGHS):
    """HiGHS whose first call does not return before ``let_go`` is set: that of `Session.solve`, or that of `open`."""

    def __init__(self, opening: bool) -> None:
        self.let_go, self.closed, self.opened, self.opening = threading.Event(), threading.Event(), 0, opening

    def open(self, program, options=None):
        session = super().open(program, options)
        self.opened += 1
        if self.opened == 1:
            plain, close = session.solve, session.close

            def solve(limits, on_event):
                outcome = plain(mn.Limits(), on_event)
                assert self.let_go.wait(SECONDS_MAX), "nobody let go"
                return outcome

            def end():
                close()
                self.closed.set()

            session.close = end
            if self.opening:
                assert self.let_go.wait(SECONDS_MAX), "nobody let go"
            else:
                session.solve = solve
        return session


class Counting(HiGHS):
    """HiGHS that counts its sessions."""

    def __init__(self) -> None:
        self.opened = 0

    def open(self, program, options=None):
        self.opened += 1
        return super().open(program, options)


@pytest.fixture
def still(monkeypatch):
    """The clock stands still, so that no deadline passes before a solver starts."""
    clock = TickingClock(monkeypatch)
    clock.moves = 0.0
    for module in (interruptible_session, program_sessions):
        monkeypatch.setattr(module, "REACTION_SECONDS_MAX", 0.05)
    return clock


@pytest.mark.parametrize("opening", [False, True])
def test_a_solver_that_does_not_look_at_the_clock_is_left(opening, still):
    backend, plain = Deaf(opening), mn.solve(posed())
    with open_problem(posed(), backend) as opened:
        left = opened.solve(time_limit=0.05)
        assert (left.interrupted, left.verified) == (False, True)
        assert left.status is (mn.Status.TIME_LIMIT if opening else mn.Status.OPTIMAL)  # its events said all
        if opening:
            assert "could hand the program to highs" in left.message
            assert left.bound == np.inf
        else:
            assert left.message == "the solver did not react to the end of the time"
            assert left.objective == pytest.approx(plain.objective, abs=1e-6)
        assert not backend.closed.is_set()
        again = opened.solve()
        assert (again.status, again.verified, backend.opened) == (mn.Status.OPTIMAL, True, 2)
    assert not backend.closed.is_set()
    backend.let_go.set()
    assert backend.closed.wait(SECONDS_MAX)


@pytest.mark.parametrize("start", ["forward", "search", "none"])
def test_after_the_deadline_no_solver_starts(start, monkeypatch):
    clock, backend = TickingClock(monkeypatch), Counting()
    clock.moves = 0.0
    late = Deadline(clock.now)
    found = mn.solve(posed(), backend, time_limit=late, start=start)
    assert (found.status, found.rounds, backend.opened) == (mn.Status.TIME_LIMIT, 0, 0)
    assert (found.objective is None) == (start == "none")
    assert found.verified == (start != "none")
    assert mn.solve(posed(), backend, limits=mn.Limits(time=0)).status is mn.Status.TIME_LIMIT
    assert backend.opened == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_none_is_no_limit(backend):
    whole = mn.solve(posed(), backend)
    for given in ({"time_limit": None}, {"limits": mn.Limits(time=None)}, {"time_limit": np.float32(60)}):
        assert mn.solve(posed(), backend, **given).objective == pytest.approx(whole.objective, abs=1e-6)
    network, region, _ = tiny(1)
    bounds = mn.tighten(network, region, backend=backend, time_limit=None)
    assert not bounds.stopped
    for name, width in mn.tighten(network, region, backend=backend).width().items():
        assert bounds.width()[name] == pytest.approx(width, abs=1e-6)


@pytest.mark.parametrize("given", [0, -1, np.nan, "8"])
def test_other_limits_are_refused(given):
    network, region, _ = tiny(1)
    expected = "expected a positive number of seconds, or None for no limit"
    with pytest.raises(InputError, match=expected):
        mn.solve(posed(), time_limit=given)
    with pytest.raises(InputError, match=expected):
        mn.tighten(network, region, time_limit=given)


@pytest.mark.parametrize("method", ["lp", "mip"])
def test_tightening_ends_and_holds_at_every_limit(method, monkeypatch):
    network, region, g = tiny(3)
    reached = activations(network, everything(network, region, g))
    full = mn.tighten(network, region, method=method, time_limit=None)
    clock, widths = TickingClock(monkeypatch), list[float]()
    mn.tighten(network, region, method=method, time_limit=1e9)
    every = clock.readings + 5
    for limit in (*range(10, every, max(1, every // 12)), 10 * every):
        backend, clock.readings = Counting(), 0
        bounds = mn.tighten(network, region, method=method, backend=backend, time_limit=limit)
        assert first_outside(bounds, reached) is None
        assert clock.readings <= limit + 4 * len(network.nodes) + 10, "work went on after the end of the time"
        widths.append(bounds.width()[network.output.name])
    assert bounds.stopped is full.stopped is False
    assert widths[0] > widths[-1] == pytest.approx(full.width()[network.output.name], abs=1e-6)


def test_the_time_left_is_divided_among_the_programs_left(monkeypatch):
    clock = TickingClock(monkeypatch)
    clock.moves = 0.0

    def program(deadline: Deadline) -> float:
        seconds = deadline.seconds
        clock.now += 2.0 if seconds > 2 else seconds
        return seconds

    deadline = Deadline.after(12)
    assert list(run_all(dict.fromkeys(range(4), program), workers=0, deadline=deadline).values()) == pytest.approx([3, 10 / 3, 4, 6])
    assert run_all({1: lambda deadline: deadline}, workers=0, deadline=NO_DEADLINE)[1].seconds == np.inf


def test_a_pickled_deadline_keeps_the_seconds_left(monkeypatch):
    clock = TickingClock(monkeypatch)
    clock.moves = 0.0
    data = pickle.dumps(Deadline.after(12))
    clock.now = 5.0
    assert pickle.loads(data).seconds == 12
    assert pickle.loads(pickle.dumps(NO_DEADLINE)) == NO_DEADLINE


def test_large_programs_are_spared_steps_of_highs_that_do_not_look_at_the_clock():
    for nonzeros, given, sparsify in ((10, {}, 0), (10**6, {}, 1 << 14), (10**6, {"presolve_rule_off": 0}, 0)):
        highs = highspy.Highs()
        options.set_options(highs, given, mip=True, nonzeros=nonzeros)
        assert highs.getOptionValue("presolve_rule_off")[1] == sparsify
        assert highs.getOptionValue("mip_detect_symmetry")[1] is (nonzeros < 10**5)
