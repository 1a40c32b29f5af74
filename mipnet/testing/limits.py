"""Checks of limits, events and interruption."""

from __future__ import annotations

import threading
from dataclasses import replace
from time import perf_counter

import numpy as np

from mipnet.backend import Backend, Event, Feature, Limits, Outcome, Session, Status, relative_gap
from mipnet.testing.assertions import (
    LONG_LIMITS,
    STOP_SECONDS_MAX,
    check,
    expect,
    expect_raises,
    noise,
    optimum,
    ordered,
    root_limits,
    solve,
    sound,
    timed_check,
)
from mipnet.testing.programs import brute_force, hard_knapsack, knapsack, market_split

STEP_EVENTS = (Feature.INCUMBENT_EVENTS, Feature.BOUND_EVENTS)


@timed_check(Feature.INTEGER, Feature.TIME_LIMIT)
def time_limit_without_point(backend: Backend, overtime: float) -> None:
    """A time limit before any point was found returns None, never zeros."""
    p, _ = market_split()
    for limit in (1e-3, 0.2):
        outcome = solve(backend, p, Limits(time=limit))
        expect(outcome.status is Status.TIME_LIMIT or outcome.x is not None, "the status is time limit", outcome)
        kept = outcome.runtime <= limit + overtime
        expect(kept, f"a time limit of {limit} s is kept within {overtime:g} s", outcome)


@timed_check(Feature.INTEGER, Feature.TIME_LIMIT)
def time_limit_each_solve(backend: Backend, overtime: float) -> None:
    """The time limit applies to each solve of a session separately, and is exceeded by at most ``overtime`` seconds."""
    p = hard_knapsack()
    with backend.open(p) as session:
        for _ in range(2):
            events: list[Event] = []
            begin = perf_counter()
            # above half a second, so that a solver that counts whole seconds gets one, even after a slow hand-over
            outcome = sound(p, session.solve(Limits(time=0.7, gap=0.0), events.append))
            took = perf_counter() - begin
            expect(outcome.status is Status.TIME_LIMIT, "the status is time limit", outcome)
            expect(0.2 <= took <= 0.7 + overtime, f"0.7 s for every solve (this one took {took:.2f} s)", outcome)
            seen = any(event.kind == "incumbent" for event in events)
            expect(outcome.x is not None or not seen, "the best point so far is returned", outcome)


@check(Feature.INTEGER, Feature.NODE_LIMIT)
def node_limit(backend: Backend) -> None:
    """A node limit stops the search near that number of nodes."""
    p = hard_knapsack()
    outcome = solve(backend, p, Limits(nodes=10, gap=0.0))
    expect(outcome.status is Status.NODE_LIMIT, "the status is node limit", outcome)
    expect(outcome.nodes <= 200, "a limit of 10 nodes stops the search near that number", outcome)
    expect(outcome.x is not None, "the best point so far is returned", outcome)


@check(Feature.INTEGER, Feature.GAP_LIMIT)
def gap_limit(backend: Backend) -> None:
    """The gap is relative to max(1, |objective|): 5 % of a large objective, and 0.3 in total for an objective below 1."""
    p = hard_knapsack()
    outcome = solve(backend, p, Limits(gap=0.05))
    expect(outcome.status is Status.OPTIMAL and outcome.gap <= 0.05, "the search ends optimal once the gap is 5 %", outcome)
    small = knapsack(offset=0.0)
    best = brute_force(small)
    near = knapsack(offset=-best)  # its optimum is 0
    optimum(near, solve(backend, near, Limits(gap=0.3)), 0.0, Limits(gap=0.3))


@check(Feature.INTEGER, *STEP_EVENTS)
def events_in_order(backend: Backend) -> None:
    """Events are ordered and monotone, the bound is at most the objective, and the last events equal the outcome."""
    p, events = knapsack(items=14, rows_=4), list[Event]()
    outcome = optimum(p, solve(backend, p, Limits(gap=0.0), events.append), brute_force(p), Limits(gap=0.0))
    ordered(events)
    steps = [e for e in events if e.kind != "log"]
    expect({"incumbent", "bound"} <= {e.kind for e in steps}, "a solve reports its incumbents and bounds", outcome)
    last, value = steps[-1].objective, outcome.objective
    expect(
        last is not None and value is not None and abs(last - value) <= noise(value), f"the last event has the objective {value}", outcome
    )


@check(Feature.INTEGER, Feature.LOG_EVENTS)
def log_events(backend: Backend) -> None:
    """The solver's log is reported as events of one line each."""
    p, events = knapsack(), list[Event]()
    solve(backend, p, on_event=events.append)
    lines = [e.text for e in events if e.kind == "log"]
    expect(bool(lines) and not any("\n" in line for line in lines), f"the log is reported line by line (there are {len(lines)} lines)")


class PlannedError(Exception):
    """The exception that the handlers of these checks raise."""


@check(Feature.INTEGER, Feature.INCUMBENT_EVENTS)
def handler_raises(backend: Backend) -> None:
    """An exception of the handler stops the solve, is raised by it, and leaves the session usable."""
    p = hard_knapsack()

    def fail(event: Event) -> None:
        if event.kind == "incumbent":
            raise PlannedError

    with backend.open(p) as session:
        begin = perf_counter()
        limits = LONG_LIMITS if Feature.TIME_LIMIT in backend.features else Limits()
        expect_raises(PlannedError, lambda: session.solve(limits, fail), "the handler's exception is raised by solve")
        expect(perf_counter() - begin < STOP_SECONDS_MAX, "the handler's exception stops the solve")
        outcome = sound(p, session.solve(Limits(gap=0.2)), Limits(gap=0.2))
        expect(outcome.status is Status.OPTIMAL, "the session is usable after the handler's exception", outcome)


@check(Feature.INTEGER, Feature.INTERRUPT, Feature.INCUMBENT_EVENTS, Feature.TIME_LIMIT)
def interrupt_from_handler(backend: Backend) -> None:
    """An interrupt from a handler ends the solve with the best point so far, and does not affect the next solve."""
    p = hard_knapsack()
    with backend.open(p) as session:
        session.interrupt()  # no effect: there is no current solve
        outcome = sound(p, session.solve(LONG_LIMITS, lambda event: session.interrupt() if event.kind == "incumbent" else None))
        _interrupted(outcome)
        expect(outcome.x is not None, "the best point so far is returned", outcome)
        again = session.solve(Limits(gap=0.2))
        expect(again.status is Status.OPTIMAL, "an interrupt does not affect the next solve", again)


@check(Feature.INTEGER, Feature.INTERRUPT, Feature.TIME_LIMIT)
def interrupt_from_thread(backend: Backend) -> None:
    """An interrupt from another thread ends the solve; the interpreter runs other threads during the solve."""
    p = hard_knapsack()
    found, ended = threading.Event(), threading.Event()
    reported = Feature.INCUMBENT_EVENTS in backend.features

    def interrupt() -> None:
        found.wait(STOP_SECONDS_MAX if reported else 0.5)
        while not ended.wait(0.1):  # a backend that reports no incumbent may not have begun to solve
            session.interrupt()

    with backend.open(p) as session:
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            outcome = sound(p, session.solve(LONG_LIMITS, lambda event: found.set() if event.kind == "incumbent" else None))
        finally:
            found.set()
            ended.set()
            thread.join()
        _interrupted(outcome)
        expect(outcome.x is not None or not reported, "the best point so far is returned", outcome)


def _interrupted(outcome: Outcome) -> None:
    expect(outcome.status is Status.INTERRUPTED, "the status is interrupted", outcome)
    expect(outcome.runtime < STOP_SECONDS_MAX, "an interrupt stops the solve", outcome)


@check(Feature.INTEGER, Feature.BOUND_STOP, Feature.TIME_LIMIT)
def bound_stop(backend: Backend) -> None:
    """A bound stop ends the solve with `target reached` once the bound reaches it; an unreachable one has no effect."""
    p = hard_knapsack()
    root = solve(backend, p, root_limits(backend))
    outcome = solve(backend, p, replace(LONG_LIMITS, bound_stop=root.bound - 0.01 * abs(root.bound)))
    expect(outcome.status is Status.TARGET and outcome.runtime < STOP_SECONDS_MAX, "the status is target reached", outcome)
    small = knapsack()
    best = brute_force(small)
    optimum(small, solve(backend, small, Limits(gap=0.0, bound_stop=best + 1.0)), best, Limits(gap=0.0))


@check(Feature.INTEGER, Feature.OBJECTIVE_STOP, Feature.TIME_LIMIT)
def objective_stop(backend: Backend) -> None:
    """An objective stop ends the solve with `target reached` once an incumbent reaches it."""
    p = hard_knapsack()
    rough = solve(backend, p, Limits(gap=0.05)).objective
    expect(rough is not None, "a solve to a gap of 5 % has a point")
    target = 0.9 * (rough or 0.0)
    outcome = solve(backend, p, replace(LONG_LIMITS, objective_stop=target))
    expect(outcome.status is Status.TARGET and outcome.runtime < STOP_SECONDS_MAX, "the status is target reached", outcome)
    expect(outcome.objective is not None and outcome.objective <= target, f"the point is at most {target}", outcome)


@check(Feature.INTEGER, Feature.NODE_LIMIT)
def bound_of_stopped_solve(backend: Backend) -> None:
    """Whatever stops a solve, neither its bound nor that of any event is better than the true optimum."""
    p = knapsack(items=30, rows_=6, seed=4)
    best = solve(backend, p, Limits(gap=0.0)).objective
    expect(best is not None, "a knapsack has an optimum")
    for limits in _limits(backend, best or 0.0):
        events: list[Event] = []
        _below(best or 0.0, solve(backend, p, limits, events.append), events, f"with {limits}")


@check(Feature.INTEGER, Feature.INTERRUPT, Feature.INCUMBENT_EVENTS)
def bound_of_interrupted_solve(backend: Backend) -> None:
    """After an interrupt at any incumbent, no bound is better than the true optimum."""
    p = knapsack(items=30, rows_=6, seed=4)
    best = solve(backend, p, Limits(gap=0.0)).objective or 0.0
    for count in (1, 2, 3, 5):
        events: list[Event] = []
        with backend.open(p) as session:

            def stop(event: Event, seen: list[Event] = events, session: Session = session, count: int = count) -> None:
                seen.append(event)
                if sum(e.kind == "incumbent" for e in seen) >= count:
                    session.interrupt()

            _below(best, sound(p, session.solve(Limits(gap=0.0), stop)), events, f"interrupted at incumbent {count}")


def _below(best: float, outcome: Outcome, events: list[Event], when: str) -> None:
    worst = max([outcome.bound] + [e.bound for e in events if e.bound is not None])
    expect(worst <= best + noise(best), f"{when}, no bound exceeds the optimum {best} (one was {worst})", outcome)


def _limits(backend: Backend, best: float) -> list[Limits]:
    limits = [Limits(nodes=n, gap=0.0) for n in (0, 1, 2, 5, 20)] + [Limits(gap=g) for g in (0.5, 0.1, 0.02)]
    if Feature.OBJECTIVE_STOP in backend.features:
        limits += [Limits(gap=0.0, objective_stop=best * f) for f in (0.5, 0.9, 0.97, 1.0)]
    if Feature.BOUND_STOP in backend.features:
        limits += [Limits(gap=0.0, bound_stop=best * f) for f in (1.5, 1.1, 1.03, 1.01)]
    return limits


@check(Feature.INTEGER, Feature.NODE_LIMIT)
def deterministic(backend: Backend) -> None:
    """Two solves of the same program are equal: one thread and a fixed seed are the defaults."""
    p = hard_knapsack()
    first, second = (solve(backend, p, Limits(nodes=30, gap=0.0)) for _ in range(2))
    same = first.x is not None and second.x is not None and np.array_equal(first.x, second.x) and first.nodes == second.nodes
    expect(bool(same) and first.bound == second.bound, "two fresh solves agree in point, bound and nodes", second)


@check(Feature.INTEGER)
def gap_of_outcome(backend: Backend) -> None:
    """The gap of an outcome is `relative_gap` of its objective and bound."""
    p = knapsack()
    outcome = solve(backend, p)
    expect(
        outcome.objective is not None and outcome.gap == relative_gap(outcome.objective, outcome.bound),
        "the gap is `relative_gap` of objective and bound",
        outcome,
    )
