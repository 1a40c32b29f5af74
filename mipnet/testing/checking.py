"""What every check of `check_backend` is made of: a register of checks, one solve, and assertions with a clear message."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from mipnet.backend import Backend, Event, Feature, Limits, OnEvent, Outcome, Program, Status, relative_gap
from mipnet.backend.helpers import DEFAULT

Check = Callable[[Backend], None]


@dataclass(frozen=True)
class Registered:
    """A check, the clause of the contract that it proves, and the features without which it does not apply."""

    name: str
    clause: str
    needs: frozenset[Feature]
    run: Check


REGISTER: list[Registered] = []


def check(*needs: Feature) -> Callable[[Check], Check]:
    """Registers a check; its docstring is the clause of the contract."""

    def register(function: Check) -> Check:
        REGISTER.append(Registered(function.__name__, (function.__doc__ or "").strip().rstrip("."), frozenset(needs), function))
        return function

    return register


def solve(backend: Backend, program: Program, limits: Limits = DEFAULT, on_event: OnEvent | None = None) -> Outcome:
    """One program in one session, its outcome checked for what holds of every outcome."""
    with backend.open(program) as session:
        return sound(program, session.solve(limits, on_event), limits)


def sound(p: Program, o: Outcome, limits: Limits = DEFAULT) -> Outcome:
    """What holds of every outcome, whatever stopped the solve."""
    expect((o.x is None) == (o.objective is None), "the objective is None exactly when x is", o)
    expect(not math.isnan(o.bound) and abs(o.bound) != 1e20, "bounds are numbers or IEEE infinities", o)
    expect(o.runtime >= 0 and o.nodes >= 0 and o.iterations >= 0, "time and counts are not negative", o)
    if o.x is not None and o.objective is not None:
        expect(o.x.shape == (p.columns,), "x has one value for every column", o)
        expect(p.violation(o.x) <= 1e-5, f"x is feasible (it misses by {p.violation(o.x):.2g}); a point or None, never anything else", o)
        value = float(p.cost @ o.x) + p.offset
        expect(abs(value - o.objective) <= 1e-6 * max(1.0, abs(value)), f"the objective is cost @ x + offset = {value}", o)
        expect(o.bound <= o.objective + 1e-6 * max(1.0, abs(o.objective)), "the bound does not exceed the objective", o)
    if o.status is Status.OPTIMAL:
        expect(o.gap <= limits.gap + 1e-9, f"optimal means a gap of at most {limits.gap}", o)
    return o


def optimum(p: Program, o: Outcome, value: float, limits: Limits = DEFAULT) -> Outcome:
    """A sound outcome that found and proved this optimal objective, within the gap."""
    sound(p, o, limits)
    expect(o.status is Status.OPTIMAL, f"the status is optimal (objective {value})", o)
    slack = limits.gap * max(1.0, abs(value)) + 1e-6
    found = math.inf if o.objective is None else o.objective
    expect(abs(found - value) <= slack, f"the objective is {value}", o)
    expect(o.bound <= value + 1e-6 * max(1.0, abs(value)), f"the bound is never better than the truth, {value}", o)
    return o


def ordered(events: list[Event]) -> None:
    """Events come in order: time and bound rise, the objective falls, and the bound stays below it."""
    expect(all(a.time <= b.time for a, b in pairwise(events)), "events come in the order of time")
    objectives = [e.objective for e in events if e.objective is not None]
    bounds = [e.bound for e in events if e.bound is not None]
    expect(all(b <= a + noise(a) for a, b in pairwise(objectives)), "the objective of events never rises")
    expect(all(b >= a - noise(a) for a, b in pairwise(bounds)), "the bound of events never falls")
    for e in events:
        if e.objective is not None and e.bound is not None:
            expect(e.bound <= e.objective + noise(e.objective), f"the bound {e.bound} of an event is at most its objective {e.objective}")


def noise(value: float) -> float:
    """The absolute error that solver tolerances leave in a value."""
    return 1e-6 * max(1.0, abs(value))


def expect(holds: bool, clause: str, outcome: Outcome | None = None) -> None:
    """Raises `AssertionError` naming the clause of the contract and what came instead."""
    if not holds:
        raise AssertionError(f"contract: {clause}" + ("" if outcome is None else f"; got {_say(outcome)}"))


def expect_raises(kind: type[BaseException], action: Callable[[], object], clause: str) -> BaseException:
    """Runs an action that has to raise; returns what it raised."""
    try:
        action()
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"contract: {clause}; got {type(error).__name__}: {error}") from error
    raise AssertionError(f"contract: {clause}; nothing was raised")


def _say(o: Outcome) -> str:
    gap = math.inf if o.objective is None else relative_gap(o.objective, o.bound)
    point = "a point" if o.x is not None else "no point"
    return (
        f"status {o.status.value}, {point}, objective {o.objective}, bound {o.bound}, gap {gap}, {o.runtime:.2f} s, message `{o.message}`"
    )
