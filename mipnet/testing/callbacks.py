"""Checks of the callbacks of a solve: suggested points and lazy rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from time import perf_counter

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Backend, Feature, LazyRows, Limits, Program, Rows, Session, Status
from mipnet.errors import InputError
from mipnet.testing.assertions import EXACT_LIMITS, LONG_LIMITS, STOP_SECONDS_MAX, check, expect, expect_raises, optimum, root_limits, sound
from mipnet.testing.limits import PlannedError
from mipnet.testing.programs import brute_force, hard_knapsack, knapsack, market_split, program, rows


@check(Feature.INTEGER, Feature.SUGGEST, Feature.TIME_LIMIT)
def suggested_point(backend: Backend) -> None:
    """A suggested feasible point becomes an incumbent: a solve that finds no point by itself returns at least that one."""
    p, point = market_split()
    given: list[Array | None] = []

    def source(x: Array | None) -> Array | None:
        given.append(x)
        return point

    with backend.open(p) as session:
        session.suggest(source)
        outcome = sound(p, session.solve(root_limits(backend)))
        limit = p.objective(point) + 1e-6
        expect(outcome.objective is not None and outcome.objective <= limit, f"the objective is at most the suggestion's, {limit}", outcome)
        shown = [x for x in given if x is not None]
        expect(
            all(x.shape == (p.columns,) and np.isfinite(x).all() for x in shown), "a source gets a point with a value per column, or None"
        )
        count = len(given)
        session.solve(root_limits(backend))
        expect(count > 0 and len(given) == count, "a source is used in one solve only")


@check(Feature.INTEGER, Feature.SUGGEST)
def infeasible_suggestion(backend: Backend) -> None:
    """An infeasible suggestion, or None, does not change the optimum."""
    p = knapsack()
    for answer in (np.ones(p.columns), None):
        with backend.open(p) as session:
            session.suggest(lambda x, answer=answer: answer)  # type: ignore[misc]
            optimum(p, session.solve(EXACT_LIMITS), brute_force(p), EXACT_LIMITS)


@check(Feature.INTEGER, Feature.SUGGEST, Feature.TIME_LIMIT)
def source_raises(backend: Backend) -> None:
    """An exception of a source, or of a point of the wrong shape, stops the solve, is raised by it, and leaves the session usable."""

    def fail(x: Array | None) -> Array | None:
        raise PlannedError

    _raises(backend, lambda session: session.suggest(fail), PlannedError)
    _raises(backend, lambda session: session.suggest(lambda x: np.zeros(3)), InputError)


@check(Feature.INTEGER, Feature.LAZY, Feature.TIME_LIMIT)
def lazy_rows_raise(backend: Backend) -> None:
    """An exception of lazy rows stops the solve, is raised by it, and leaves the session usable."""

    def fail(x: Array) -> Rows:
        raise PlannedError

    _raises(backend, lambda session: session.lazy(LazyRows(fail, np.arange(120))), PlannedError)


def _raises(backend: Backend, ask: Callable[[Session], None], kind: type[Exception]) -> None:
    p = hard_knapsack()
    with backend.open(p) as session:
        ask(session)
        begin = perf_counter()
        expect_raises(kind, lambda: session.solve(LONG_LIMITS), "what a user's function raises is raised by solve")
        expect(perf_counter() - begin < STOP_SECONDS_MAX, "what a user's function raises stops the solve")
        outcome = sound(p, session.solve(Limits(gap=0.2)), Limits(gap=0.2))
        expect(outcome.status is Status.OPTIMAL, "the session is usable after an exception", outcome)


def with_lazy_rows(p: Program) -> tuple[Program, LazyRows]:
    """Return a program without its rows, and its rows as lazy rows: the most violated one at a time."""
    bare = replace(p, rows=rows((), 0.0, 0.0, p.columns))

    def separate(x: Array) -> Rows:
        violation = p.rows.violation(x)
        return p.rows.part((violation > 1e-7) & (violation == violation.max()))

    return bare, LazyRows(separate, np.arange(p.columns))


@check(Feature.INTEGER, Feature.LAZY)
def lazy_optimum(backend: Backend) -> None:
    """A program whose rows are all lazy has the same optimum, with presolve on."""
    for seed in range(4):
        p = knapsack(items=10, rows_=4, seed=seed)
        bare, lazy = with_lazy_rows(p)
        with backend.open(bare) as session:
            session.lazy(lazy)
            optimum(p, session.solve(EXACT_LIMITS), brute_force(p), EXACT_LIMITS)
            optimum(bare, session.solve(EXACT_LIMITS), bare.offset + float(bare.cost[bare.cost < 0].sum()), EXACT_LIMITS)
            session.lazy(lazy)
            session.start(np.ones(p.columns))  # violates the lazy rows only
            optimum(p, session.solve(EXACT_LIMITS), brute_force(p), EXACT_LIMITS)


@check(Feature.INTEGER, Feature.LAZY)
def lazy_symmetry(backend: Backend) -> None:
    """Columns that are symmetric without the lazy rows are not treated as symmetric."""
    cost = np.array([-1.0, -1.0, -1.0, -1.0, -0.5])
    p = program(cost, [[1, 1, 1, 1, 1], [3, 1, 0, 0, 0], [0, 1, 2, 4, 0]], row_upper=[3.0, 2.0, 3.0], upper=1.0, integer=True)
    bare = replace(p, rows=p.rows.part(np.array([True, False, False])))
    lazy = LazyRows(lambda x: p.rows.part(p.rows.violation(x) > 1e-7), np.arange(5))
    with backend.open(bare) as session:
        session.lazy(lazy)
        optimum(p, session.solve(EXACT_LIMITS), brute_force(p), EXACT_LIMITS)


@check(Feature.INTEGER, Feature.LAZY)
def lazy_tangents(backend: Backend) -> None:
    """Lazy tangents of a convex function, ``t >= |x - c|^2`` over the integers, give its optimum to a millionth."""
    rng, n = np.random.default_rng(0), 4
    for _ in range(3):
        c = rng.uniform(-2, 2, n)
        lower, upper = np.append(np.full(n, -3.0), -10.0), np.append(np.full(n, 3.0), 1e3)
        bare = program(np.append(np.zeros(n), 1.0), lower=lower, upper=upper, integer=[True] * n + [False])

        def separate(x: Array, c: Array = c) -> Rows:
            y, width = x[:-1], len(x)
            slope, value = 2 * (y - c), float((y - c) @ (y - c))
            tangent = rows(np.append(-slope, 1.0)[None], value - float(slope @ y), inf, width)
            return tangent.part(tangent.violation(x) > 1e-7)

        with backend.open(bare) as session:
            session.lazy(LazyRows(separate, np.arange(n + 1)))
            outcome = session.solve(EXACT_LIMITS)
        truth = float(((np.round(c) - c) ** 2).sum())
        expect(outcome.objective is not None and abs(outcome.objective - truth) <= 1e-5, f"the objective is {truth}", outcome)
        expect(outcome.bound <= truth + 1e-6, f"the bound is at most {truth}", outcome)
