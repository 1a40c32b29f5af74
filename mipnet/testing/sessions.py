"""Checks of the state of a session: start points, added rows, changed objectives and bounds, and closing."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np

from mipnet.backend import Backend, Feature, Limits, Status
from mipnet.errors import BackendError, InputError
from mipnet.testing.assertions import EXACT_LIMITS, check, expect, expect_raises, optimum, root_limits, sound
from mipnet.testing.programs import brute_force, knapsack, market_split, program, rows


@check(Feature.INTEGER, Feature.START, Feature.TIME_LIMIT)
def start_accepted(backend: Backend) -> None:
    """A feasible start is the first incumbent: a solve that finds no point without it returns at least that one."""
    p, point = market_split()
    with backend.open(p) as session:
        session.start(point)
        outcome = sound(p, session.solve(root_limits(backend)))
        expect(outcome.start_accepted is True, "start_accepted is True", outcome)
        limit = p.objective(point) + 1e-6
        expect(outcome.objective is not None and outcome.objective <= limit, f"the objective is at most the start's, {limit}", outcome)


@check(Feature.INTEGER, Feature.START)
def infeasible_start(backend: Backend) -> None:
    """An infeasible start is ignored, and reported as not accepted."""
    p = knapsack()
    with backend.open(p) as session:
        session.start(np.ones(p.columns))
        outcome = optimum(p, session.solve(EXACT_LIMITS), brute_force(p), EXACT_LIMITS)
        expect(outcome.start_accepted is not True, "start_accepted is not True for an infeasible start", outcome)
        outcome = optimum(p, session.solve(EXACT_LIMITS), brute_force(p), EXACT_LIMITS)
        expect(outcome.start_accepted is None, "a start is used in one solve only", outcome)


@check(Feature.START)
def start_of_wrong_size(backend: Backend) -> None:
    """A start without one value per column raises InputError."""
    with backend.open(program([1.0, 1.0])) as session:
        expect_raises(InputError, lambda: session.start(np.zeros(1)), "a start of the wrong size raises InputError")


@check(Feature.ADD_ROWS)
def added_rows(backend: Backend) -> None:
    """Added rows apply to all later solves, and points that violate them are dropped."""
    p = program([-1.0, -1.0], [[1, 2]], row_upper=4.0, upper=3.0)
    with backend.open(p) as session:
        optimum(p, session.solve(EXACT_LIMITS), -3.5, EXACT_LIMITS)
        first, second = rows([[1, 0], [1, -1]], -inf, [2, 1.5], 2), rows([[1, 1]], -inf, 2.5, 2)
        session.add_rows(first)
        p = p.with_rows(first)
        optimum(p, session.solve(EXACT_LIMITS), -3.0, EXACT_LIMITS)
        session.add_rows(second)
        p = p.with_rows(second)
        optimum(p, session.solve(EXACT_LIMITS), -2.5, EXACT_LIMITS)
        session.add_rows(rows([[1, 1]], 3.0, inf, 2))
        outcome = session.solve(EXACT_LIMITS)
        expect(outcome.status is Status.INFEASIBLE and outcome.x is None, "rows added later can make it infeasible", outcome)


@check(Feature.INTEGER, Feature.ADD_ROWS)
def added_rows_integer(backend: Backend) -> None:
    """Cutting off the optimum of an integer program, several times, gives the next best point."""
    p = knapsack(items=10)
    with backend.open(p) as session:
        for _ in range(3):
            outcome = optimum(p, session.solve(EXACT_LIMITS), brute_force(p), EXACT_LIMITS)
            x = np.zeros(p.columns) if outcome.x is None else outcome.x
            cut = rows(np.where(x > 0.5, 1.0, -1.0), -inf, x.sum() - 1.0, p.columns)
            session.add_rows(cut)
            p = p.with_rows(cut)


@check(Feature.CHANGE)
def changed_objective(backend: Backend) -> None:
    """A changed objective, with its offset, applies to all later solves, and can be changed again."""
    p = program([-1.0, -1.0], [[1, 2]], row_upper=4.0, upper=3.0, offset=1.0)
    with backend.open(p) as session:
        optimum(p, session.solve(EXACT_LIMITS), -2.5, EXACT_LIMITS)
        for cost, offset, value in (([1.0, -3.0], 2.0, -4.0), ([0.0, 0.0], 5.0, 5.0), ([-1.0, 0.0], 0.0, -3.0)):
            session.set_objective(np.array(cost), offset)
            changed = program(cost, [[1, 2]], row_upper=4.0, upper=3.0, offset=offset)
            optimum(changed, session.solve(EXACT_LIMITS), value, EXACT_LIMITS)


@check(Feature.INTEGER, Feature.CHANGE)
def changed_bounds(backend: Backend) -> None:
    """Changed bounds apply to all later solves: tightened, relaxed beyond 0 and 1, crossed, and restored."""
    integer = program([-1.0, -2.0], [[1, 1]], row_upper=6.0, upper=1.0, integer=True)
    with backend.open(integer) as session:
        optimum(integer, session.solve(EXACT_LIMITS), -3.0, EXACT_LIMITS)
        for low, high, value in ((0.0, 0.0, -1.0), (0.0, 4.0, -9.0), (-3.0, -2.0, 3.0), (0.0, 1.0, -3.0)):
            session.set_bounds(np.array([1]), np.array([low]), np.array([high]))
            changed = program([-1.0, -2.0], [[1, 1]], row_upper=6.0, lower=[0, low], upper=[1, high], integer=True)
            optimum(changed, session.solve(EXACT_LIMITS), value, EXACT_LIMITS)
        session.set_bounds(np.array([1]), np.array([1.0]), np.array([0.0]))
        outcome = session.solve(EXACT_LIMITS)
        expect(outcome.status is Status.INFEASIBLE, "crossed bounds are infeasible", outcome)
        session.set_bounds(np.array([1]), np.array([0.0]), np.array([1.0]))
        optimum(integer, session.solve(EXACT_LIMITS), -3.0, EXACT_LIMITS)


@check(Feature.CHANGE, Feature.TIME_LIMIT)
def bound_of_another_objective(backend: Backend) -> None:
    """A bound of one objective is not reported for the next: also a solve with a time limit of 0 returns a valid bound."""
    for p in (knapsack(items=10), program([-1.0, -1.0], [[1, 2]], row_upper=4.0, upper=3.0)):
        if p.integer.any() and Feature.INTEGER not in backend.features:
            continue
        with backend.open(p) as session:
            first = optimum(p, session.solve(EXACT_LIMITS), brute_force(p) if p.integer.any() else -3.5, EXACT_LIMITS)
            low = replace(p, offset=p.offset - 100.0)
            session.set_objective(low.cost, low.offset)
            outcome = sound(low, session.solve(Limits(time=0.0)))
            truth = (first.objective or 0.0) - 100.0
            expect(outcome.bound <= truth + 1e-6 * abs(truth), f"the bound is at most {truth}, the optimum of the new objective", outcome)


@check(Feature.INTEGER, Feature.CHANGE, Feature.ADD_ROWS)
def solved_again_and_again(backend: Backend) -> None:
    """Objective, bounds and rows change between many solves of one session, and each solve returns the current optimum."""
    rng, p = np.random.default_rng(0), knapsack(items=8)
    with backend.open(p) as session:
        for _ in range(6):
            cost, column = rng.integers(-20, 10, p.columns).astype(float), rng.integers(p.columns, size=1)
            value = rng.integers(2, size=1).astype(float)
            row = rows(rng.integers(0, 3, (1, p.columns)), -inf, float(p.columns), p.columns)
            session.set_objective(cost, 1.0)
            session.set_bounds(np.arange(p.columns), np.zeros(p.columns), np.ones(p.columns))
            session.set_bounds(column, value, value)
            session.add_rows(row)
            low, high = np.zeros(p.columns), np.ones(p.columns)
            low[column] = high[column] = value
            p = replace(p.with_rows(row), cost=cost, offset=1.0, lower=low, upper=high)
            optimum(p, session.solve(EXACT_LIMITS), brute_force(p), EXACT_LIMITS)


@check()
def closed_twice(backend: Backend) -> None:
    """A session may be closed twice, and raises BackendError when used after that."""
    session = backend.open(program([1.0]))
    session.solve()
    session.close()
    session.close()
    expect_raises(BackendError, session.solve, "a closed session raises BackendError")


@check()
def sessions_are_independent(backend: Backend) -> None:
    """Two open sessions do not affect each other, nor the program that they were opened on."""
    p = program([-1.0], upper=2.0)
    with backend.open(p) as one, backend.open(p) as two:
        if Feature.CHANGE in backend.features:
            one.set_bounds(np.array([0]), np.array([0.0]), np.array([1.0]))
            optimum(program([-1.0]), one.solve(), -1.0)
        optimum(p, two.solve(), -2.0)
        expect(p.upper[0] == 2.0, "the program is not changed")
