"""The list of the checks of `check_backend`, and the assertions that they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from mipnet.backend import Backend, Event, Feature, Limits, OnEvent, Outcome, Program, Status, relative_gap
from mipnet.backend.checks import DEFAULT_LIMITS

BackendCheck = Callable[[Backend], None]
TimedCheck = Callable[[Backend, float], None]
"""A check of a backend and the seconds by which a solve may exceed its time limit."""

EXACT_LIMITS = Limits(gap=0.0)
"""Solve to optimality."""

LONG_LIMITS = Limits(time=120.0, gap=0.0)
"""Limits that end a solve only if the backend ignores what should stop it."""

STOP_SECONDS_MAX = 60.0
"""Longest time that a solve may take after something should have stopped it, in seconds: wide, because the machine may be busy."""

OVERTIME_SECONDS = 2.0
"""Default of the time by which a solve may exceed its time limit, in seconds."""


def root_limits(backend: Backend) -> Limits:
    """Return limits that end a search after its first node, or after ten seconds if the backend has no node limit."""
    return Limits(nodes=1, gap=0.0) if Feature.NODE_LIMIT in backend.features else Limits(time=10.0, gap=0.0)


@dataclass(frozen=True)
class RegisteredCheck:
    """A check, the clause of the contract that it tests, and the features that it needs."""

    name: str
    clause: str
    needs: frozenset[Feature]
    run: TimedCheck


BACKEND_CHECKS: list[RegisteredCheck] = []


def check(*needs: Feature) -> Callable[[BackendCheck], BackendCheck]:
    """Register a check; its docstring is the clause of the contract."""

    def register(function: BackendCheck) -> BackendCheck:
        _register(function, needs, lambda backend, overtime: function(backend))
        return function

    return register


def timed_check(*needs: Feature) -> Callable[[TimedCheck], TimedCheck]:
    """Register a check of a time limit, which also takes the seconds by which a solve may exceed it."""

    def register(function: TimedCheck) -> TimedCheck:
        _register(function, needs, function)
        return function

    return register


def _register(function: BackendCheck | TimedCheck, needs: tuple[Feature, ...], run: TimedCheck) -> None:
    BACKEND_CHECKS.append(RegisteredCheck(function.__name__, (function.__doc__ or "").strip().rstrip("."), frozenset(needs), run))


def solve(backend: Backend, program: Program, limits: Limits = DEFAULT_LIMITS, on_event: OnEvent | None = None) -> Outcome:
    """Solve a program in a new session and check the outcome by `sound`."""
    with backend.open(program) as session:
        return sound(program, session.solve(limits, on_event), limits)


def sound(p: Program, o: Outcome, limits: Limits = DEFAULT_LIMITS) -> Outcome:
    """Check what holds for every outcome, whatever stopped the solve, and return the outcome."""
    expect((o.x is None) == (o.objective is None), "the objective is None exactly when x is", o)
    expect(not math.isnan(o.bound) and abs(o.bound) != 1e20, "bounds are numbers or IEEE infinities", o)
    expect(o.runtime >= 0 and o.nodes >= 0 and o.iterations >= 0, "time and counts are not negative", o)
    if o.x is not None and o.objective is not None:
        expect(o.x.shape == (p.columns,), "x has one value per column", o)
        expect(p.violation(o.x) <= 1e-5, f"x is None or feasible; its violation is {p.violation(o.x):.2g}", o)
        value = float(p.cost @ o.x) + p.offset
        expect(abs(value - o.objective) <= 1e-6 * max(1.0, abs(value)), f"the objective is cost @ x + offset = {value}", o)
        expect(o.bound <= o.objective + 1e-6 * max(1.0, abs(o.objective)), "the bound does not exceed the objective", o)
    if o.status is Status.OPTIMAL:
        expect(o.gap <= limits.gap + 1e-9, f"optimal means a gap of at most {limits.gap}", o)
    return o


def optimum(p: Program, o: Outcome, value: float, limits: Limits = DEFAULT_LIMITS) -> Outcome:
    """Check that a sound outcome found and proved this optimal objective, within the gap, and return it."""
    sound(p, o, limits)
    expect(o.status is Status.OPTIMAL, f"the status is optimal (objective {value})", o)
    slack = limits.gap * max(1.0, abs(value)) + 1e-6
    found = math.inf if o.objective is None else o.objective
    expect(abs(found - value) <= slack, f"the objective is {value}", o)
    expect(o.bound <= value + 1e-6 * max(1.0, abs(value)), f"the bound is at most the optimum, {value}", o)
    return o


def ordered(events: list[Event]) -> None:
    """Check the order of events: time and bound increase, the objective decreases, and the bound is at most the objective."""
    expect(all(a.time <= b.time for a, b in pairwise(events)), "events are in the order of time")
    objectives = [e.objective for e in events if e.objective is not None]
    bounds = [e.bound for e in events if e.bound is not None]
    expect(all(b <= a + noise(a) for a, b in pairwise(objectives)), "the objective of events never increases")
    expect(all(b >= a - noise(a) for a, b in pairwise(bounds)), "the bound of events never decreases")
    for e in events:
        if e.objective is not None and e.bound is not None:
            expect(e.bound <= e.objective + noise(e.objective), f"the bound {e.bound} of an event is at most its objective {e.objective}")


def noise(value: float) -> float:
    """Return the absolute error of a value that is due to solver tolerances."""
    return 1e-6 * max(1.0, abs(value))


def expect(holds: bool, clause: str, outcome: Outcome | None = None) -> None:
    """Raise `AssertionError` with the clause of the contract and the outcome, unless it holds."""
    if not holds:
        raise AssertionError(f"contract: {clause}" + ("" if outcome is None else f"; got {_described(outcome)}"))


def expect_raises(kind: type[BaseException], action: Callable[[], object], clause: str) -> BaseException:
    """Run an action that must raise an exception of this kind, and return the exception."""
    try:
        action()
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"contract: {clause}; got {type(error).__name__}: {error}") from error
    raise AssertionError(f"contract: {clause}; nothing was raised")


def _described(o: Outcome) -> str:
    gap = math.inf if o.objective is None else relative_gap(o.objective, o.bound)
    point = "a point" if o.x is not None else "no point"
    return (
        f"status {o.status.value}, {point}, objective {o.objective}, bound {o.bound}, gap {gap}, {o.runtime:.2f} s, message `{o.message}`"
    )
