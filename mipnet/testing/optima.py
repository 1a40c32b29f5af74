"""Checks of results: optimal, infeasible, unbounded, empty and special programs against brute force or closed forms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf

import numpy as np

from mipnet.backend import Backend, Feature, Indicators, LogSumExp, Program, Status
from mipnet.errors import BackendError, OptionError
from mipnet.testing.assertions import EXACT_LIMITS, check, expect, expect_raises, optimum, solve, sound
from mipnet.testing.programs import brute_force, knapsack, program, rows


@check()
def linear_program(backend: Backend) -> None:
    """A linear program with range, equality and one-sided rows, a free column and an offset reaches its optimum."""
    p = program([1.0, 2.0, -1.0], [[1, 1, 0], [1, 0, -1], [0, 1, 1]], [2, 0, -inf], [5, 0, 4], lower=[0, 0.5, -inf], offset=10.0)
    optimum(p, solve(backend, p), 11.0)


@check()
def no_rows(backend: Backend) -> None:
    """The optimum of a program without rows lies at its bounds."""
    p = program([1.0, -1.0, 0.0], lower=[-3, 0, -inf], upper=[3, 4, inf], offset=0.5)
    optimum(p, solve(backend, p), -6.5)


@check()
def no_columns(backend: Backend) -> None:
    """The optimum of a program without columns is its offset, unless a row excludes 0."""
    p = program([], offset=3.0)
    optimum(p, solve(backend, p), 3.0)
    _expect_none(backend, replace(p, rows=rows(np.zeros((1, 0)), 1.0, 2.0, 0)), Status.INFEASIBLE)


@check()
def empty_and_fixed(backend: Backend) -> None:
    """Empty rows, columns without rows and fixed columns are supported; an empty row that excludes 0 is infeasible."""
    p = program([1.0, 1.0], [[0, 0], [1, 0]], [-1, 2], [1, inf], lower=[0, 4], upper=[inf, 4])
    optimum(p, solve(backend, p), 6.0)
    _expect_none(backend, program([1.0], [[0.0]], 1.0, 2.0), Status.INFEASIBLE)


@check()
def infeasible_linear(backend: Backend) -> None:
    """An infeasible linear program has the status infeasible and no point."""
    _expect_none(backend, program([1.0, 1.0], [[1, 1], [1, 1]], [3, -inf], [inf, 2]), Status.INFEASIBLE)


@check()
def unbounded_linear(backend: Backend) -> None:
    """An unbounded linear program has the status unbounded and no point."""
    _expect_none(backend, program([-1.0, -1.0], [[1, -1]], -1.0), Status.UNBOUNDED)
    _expect_none(backend, program([-1.0], lower=-inf), Status.UNBOUNDED)


@check()
def crossing_bounds(backend: Backend) -> None:
    """A lower bound above its upper bound makes the program infeasible."""
    _expect_none(backend, program([1.0, 1.0], lower=[2, 0], upper=[1, 1]), Status.INFEASIBLE)


@check(Feature.INTEGER)
def integer_optimum(backend: Backend) -> None:
    """Small integer programs reach the optimum of brute force, and integer columns are exactly integral."""
    for seed in range(3):
        p = knapsack(seed=seed)
        outcome = optimum(p, solve(backend, p, EXACT_LIMITS), brute_force(p), EXACT_LIMITS)
        expect(outcome.x is not None and bool((outcome.x == np.round(outcome.x)).all()), "integer columns are integral", outcome)
    p = program([-1.0, -1.0], [[2, 2]], row_upper=7.0, lower=[-2, -1], upper=[5, 3], integer=True)
    optimum(p, solve(backend, p, EXACT_LIMITS), brute_force(p), EXACT_LIMITS)


@check(Feature.INTEGER)
def mixed_optimum(backend: Backend) -> None:
    """A mixed-integer program with a decisive big-M row reaches its optimum."""
    p = program([1.0, 2.5, -1.0], [[1, 0, -1], [0, 10, -1]], 0.0, lower=0.0, upper=[10, 1, 4], integer=[False, True, False])
    optimum(p, solve(backend, p, EXACT_LIMITS), 0.0, EXACT_LIMITS)
    p = replace(p, cost=np.array([0.5, 1.0, -1.0]))
    optimum(p, solve(backend, p, EXACT_LIMITS), -1.0, EXACT_LIMITS)


@check(Feature.INTEGER)
def infeasible_integer(backend: Backend) -> None:
    """An infeasible integer program has the status infeasible, also if its relaxation is unbounded."""
    _expect_none(backend, program([1.0, 1.0], [[1, 1]], 3.0, upper=1.0, integer=True), Status.INFEASIBLE)
    _expect_none(backend, program([-1.0, -1.0, -1.0], [[2, 2, 0]], 3.0, 3.0, integer=True), Status.INFEASIBLE)


@check(Feature.INTEGER)
def unbounded_integer(backend: Backend) -> None:
    """An unbounded integer program has the status unbounded, not `infeasible or unbounded`."""
    _expect_none(backend, program([-1.0, -1.0], [[1, -1]], -1.0, integer=True), Status.UNBOUNDED)


def _expect_none(backend: Backend, p: Program, status: Status) -> None:
    outcome = sound(p, solve(backend, p))
    expect(outcome.status is status and outcome.x is None, f"the status is {status.value} and x is None", outcome)


@check()
def unknown_option(backend: Backend) -> None:
    """An option that the solver does not have raises OptionError, which names it, before anything is solved."""
    p = program([1.0], lower=1.0)
    error = expect_raises(OptionError, lambda: backend.open(p, {"no such option": 1}), "an unknown option raises OptionError")
    expect("no such option" in str(error), f"the message names the option; it says: {error}")


@check()
def refuses_features(backend: Backend) -> None:
    """A program that needs a feature which the backend does not list raises BackendError."""
    p = program([1.0, 1.0, 1.0], upper=1.0)
    specials = {
        Feature.INTEGER: replace(p, integer=np.ones(3, dtype=bool)),
        Feature.SOS1: replace(p, sos1=(np.array([0, 1]),)),
        Feature.INDICATOR: replace(
            p, integer=np.array([True, False, False]), indicators=Indicators(rows([[0, 1, 0]], 1.0, inf, 3), np.array([0]), np.array([1]))
        ),
        Feature.LOG_SUM_EXP: replace(p, convex=(LogSumExp(np.array([[0, 1]]), np.array([2])),)),
    }
    for feature, special in specials.items():
        if feature not in backend.features:
            expect_raises(BackendError, partial(backend.open, special), f"without {feature.value}, such a program raises BackendError")


@check(Feature.SOS1)
def sos1(backend: Backend) -> None:
    """At most one member of an SOS1 set is nonzero, unbounded and negative members included."""
    p = program([-3.0, -2.0, 1.0, 0.0], [[1, 1, -1, 0], [0, 1, -1, 0]], row_upper=[6, 5], lower=[0, 0, -4, 0], upper=[1, inf, inf, 1])
    p = replace(p, sos1=(np.array([0, 1, 2]),))
    optimum(p, solve(backend, p), -10.0)


@check(Feature.INTEGER, Feature.INDICATOR)
def indicators(backend: Backend) -> None:
    """Indicators hold for both active values and both sides of their rows."""
    for active, (low, high) in ((a, s) for a in (0, 1) for s in ((-inf, 2.0), (-1.0, inf), (0.5, 0.5), (-1.0, 2.0))):
        for sign in (-1.0, 1.0):
            p = program([0.0, sign, 0.5 * sign], lower=[active, -4, -4], upper=[active, 4, 4], integer=[True, False, False])
            on = Indicators(rows([[0, 1, 0.5]], low, high, 3), np.array([0]), np.array([active]))
            reach = min(high, 6.0) if sign < 0 else max(low, -6.0)
            p = replace(p, indicators=on)
            optimum(p, solve(backend, p), sign * reach)
            free = replace(p, indicators=replace(on, active=1 - on.active))
            optimum(free, solve(backend, free), -6.0)


@check(Feature.LOG_SUM_EXP)
def log_sum_exp(backend: Backend) -> None:
    """The epigraph of log-sum-exp is as high as the closed form, for spread and for equal arguments."""
    y = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [30.0, -30.0, 0.0]])
    fixed = np.concatenate([y.reshape(-1), np.full(3, -100.0)])
    p = program([0.0] * 9 + [1.0] * 3, lower=fixed, upper=np.concatenate([y.reshape(-1), np.full(3, 100.0)]))
    p = replace(p, convex=(LogSumExp(np.arange(9).reshape(3, 3), np.arange(9, 12)),))
    optimum(p, solve(backend, p), float(np.logaddexp.reduce(y, axis=1).sum()))


@check(Feature.INTEGER, Feature.LOG_SUM_EXP)
def log_sum_exp_integer(backend: Backend) -> None:
    """A choice of arguments by binaries, with a free epigraph, agrees with brute force."""
    matrix = [[1, 0, 0, 0, -2, 1], [0, 1, 0, 0, 1, -2], [0, 0, 1, 0, 1, 1]]
    cost = [0.0, 0.0, 0.0, 1.0, -0.4, -0.6]
    p = program(cost, matrix, 0.0, 0.0, lower=[-9, -9, -9, -inf, 0, 0], upper=[9, 9, 9, inf, 2, 2], integer=[False] * 4 + [True] * 2)
    p = replace(p, convex=(LogSumExp(np.array([[0, 1, 2]]), np.array([3])),))
    values = [np.logaddexp.reduce([2 * a - b, 2 * b - a, -a - b]) - 0.4 * a - 0.6 * b for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0, 2.0)]
    optimum(p, solve(backend, p), float(min(values)))
