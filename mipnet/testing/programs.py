"""Small programs with known optima, and a hard one, for `check_backend`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import inf

import numpy as np
from numpy.typing import ArrayLike

from mipnet.arrays import Array, Csr
from mipnet.backend import Program, Rows


def rows(matrix: ArrayLike, lower: ArrayLike, upper: ArrayLike, width: int) -> Rows:
    """Return rows of a dense matrix; a scalar bound applies to every row."""
    dense = np.asarray(matrix, dtype=np.float64)
    dense = dense if dense.ndim == 2 else dense.reshape(-1 if width else 0, width)
    count = len(dense)
    return Rows(
        Csr(dense), np.broadcast_to(np.asarray(lower, float), count).copy(), np.broadcast_to(np.asarray(upper, float), count).copy()
    )


def program(
    cost: ArrayLike,
    matrix: ArrayLike = (),
    row_lower: ArrayLike = -inf,
    row_upper: ArrayLike = inf,
    lower: ArrayLike = 0.0,
    upper: ArrayLike = inf,
    integer: bool | Sequence[bool] = False,
    offset: float = 0.0,
) -> Program:
    """Return a program of dense arrays; a scalar applies to every column."""
    c = np.asarray(cost, dtype=np.float64)
    low, high = (np.broadcast_to(np.asarray(b, dtype=np.float64), c.shape).copy() for b in (lower, upper))
    whole = np.broadcast_to(np.asarray(integer, dtype=bool), c.shape).copy()
    return Program(c, rows(matrix, row_lower, row_upper, len(c)), low, high, whole, offset)


def knapsack(items: int = 12, rows_: int = 3, seed: int = 0, offset: float = 2.5) -> Program:
    """Return a knapsack program with several capacities, a minimisation with a negative optimum."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 50, (rows_, items)).astype(float)
    worth = np.round(weight.mean(axis=0) + 10 * rng.random(items))
    return program(-worth, weight, row_upper=np.floor(weight.sum(axis=1) / 2), upper=1.0, integer=True, offset=offset)


def hard_knapsack(items: int = 120, rows_: int = 12, seed: int = 1) -> Program:
    """Return a knapsack program whose gap no solver closes within seconds; points are easy to find."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 1000, (rows_, items)).astype(float)
    worth = np.round(weight.mean(axis=0) + 500 * rng.random(items))
    return program(-worth, weight, row_upper=np.floor(weight.sum(axis=1) / 2), upper=1.0, integer=True, offset=7.0)


def market_split(rows_: int = 6, seed: int = 0) -> tuple[Program, Array]:
    """Return a program of exact subset sums and a feasible point of it, which no solver finds within seconds."""
    rng = np.random.default_rng(seed)
    items = 10 * (rows_ - 1)
    weight = rng.integers(0, 100, (rows_, items)).astype(float)
    point = (rng.random(items) < 0.5).astype(float)
    side = weight @ point
    cost = rng.integers(1, 10, items).astype(float)
    return program(cost, weight, side, side, upper=1.0, integer=True), point


def brute_force(p: Program) -> float:
    """Return the smallest objective over all points of a program with few, bounded, integer columns."""
    ranges = [range(int(a), int(b) + 1) for a, b in zip(p.lower, p.upper, strict=True)]
    points = (np.array(x, dtype=np.float64) for x in product(*ranges))
    return min((p.objective(x) for x in points if p.violation(x) < 1e-9), default=inf)
