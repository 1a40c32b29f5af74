"""Rounding: a bound holds exactly, for the float64 numbers of the weights and of the set, in rational arithmetic.

An affine network is one matrix, so its smallest output over a box or ball is a formula, which is evaluated here with fractions.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.bounds.crown import lower_bounds, minimum_over_ball, minimum_over_box
from mipnet.bounds.crown_rows import CrownRows, KnownBounds
from mipnet.bounds.interval import Interval

INPUTS, OUTPUTS = 12, 40


def fractions(values: np.ndarray) -> np.ndarray:
    return np.vectorize(Fraction, otypes=[object])(values)


class Exact(NamedTuple):
    """The matrix and the constant of an affine network, and both without signs, for the size of the terms that are added up."""

    matrix: np.ndarray
    constant: np.ndarray
    matrix_size: np.ndarray
    constant_size: np.ndarray


def affine_network(seed: int, scale: float) -> tuple[mn.Network, Exact]:
    """Two affine layers, and what both together are."""
    g = np.random.default_rng(seed)
    weights = [scale * g.normal(size=(9, INPUTS)), g.normal(size=9), g.normal(size=(OUTPUTS, 9)), g.normal(size=OUTPUTS)]
    layers = [("fc1", mn.Dense(weights[0], weights[1])), ("fc2", mn.Dense(weights[2], weights[3]))]
    a, b, c, d = (fractions(w) for w in weights)
    return mn.Network.build((INPUTS,), layers), Exact(c @ a, c @ b + d, abs(c) @ abs(a), abs(c) @ abs(b) + abs(d))


def crown_bounds(network: mn.Network, region: mn.Box) -> np.ndarray:
    """The lower bounds of the outputs from one backward pass, without those of the interval rule."""
    found = mn.propagate(network, region, method="interval")
    known = KnownBounds(network, frozenset(), dict(found.after), ball=region.ball)
    rows = CrownRows(
        network.output, torch.zeros(OUTPUTS, dtype=torch.int64), torch.arange(OUTPUTS), torch.ones(OUTPUTS, dtype=torch.float64)
    )
    return lower_bounds(known, rows, Interval(torch.tensor(region.lower), torch.tensor(region.upper))).numpy()


SETS = [(0.0, 1.0), (1e6, 1.0), (1e6, 1e-3), (0.1, 1e-7)]


@pytest.mark.parametrize("method", ["interval", "crown", "alpha"])
@pytest.mark.parametrize(("centre", "width"), SETS)
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
def test_bounds_of_a_box_hold_exactly(method: str, centre: float, width: float, scale: float) -> None:
    network, exact = affine_network(3, scale)
    matrix, constant = exact.matrix, exact.constant
    g = np.random.default_rng(4)
    middle = centre * (1 + g.uniform(size=(1, INPUTS)))
    region = mn.Box(middle - width * g.uniform(size=(1, INPUTS)), middle + width * g.uniform(size=(1, INPUTS)))
    lower, upper = fractions(region.lower[0]), fractions(region.upper[0])
    least = (np.where(matrix > 0, matrix * lower, matrix * upper)).sum(1) + constant
    largest = (np.where(matrix > 0, matrix * upper, matrix * lower)).sum(1) + constant
    out = mn.propagate(network, region, method=method).after["fc2"]  # type: ignore[arg-type]
    assert (fractions(out.lower[0].numpy()) <= least).all()
    assert (fractions(out.upper[0].numpy()) >= largest).all()
    if method != "interval":
        size = exact.matrix_size @ np.maximum(abs(lower), abs(upper)) + exact.constant_size
        assert ((least - fractions(out.lower[0].numpy())) <= Fraction(1e-11) * size).all()
    assert (fractions(crown_bounds(network, region)) <= least).all()


def test_bounds_hold_exactly_where_weights_cancel() -> None:
    """Outputs are differences of two equal units: a coefficient is a billionth of its terms, and so a billion times less exact."""
    g = np.random.default_rng(0)
    first, factor = np.tile(g.normal(size=(1, INPUTS)), (2, 1)), g.normal(size=(OUTPUTS, 1))
    second = np.hstack([factor, -factor * (1 + 1e-9)])
    network = mn.Network.build((INPUTS,), [("fc1", mn.Dense(first)), ("fc2", mn.Dense(second))])
    region = mn.Box(np.ones((1, INPUTS)), np.full((1, INPUTS), 2.0))
    matrix = fractions(second) @ fractions(first)
    least = np.where(matrix > 0, matrix, 2 * matrix).sum(1)
    assert (fractions(crown_bounds(network, region)) <= least).all()


@pytest.mark.parametrize("centre", [1e3, 1e6])
def test_bounds_hold_exactly_where_large_inputs_cancel(centre: float) -> None:
    """Inputs come in pairs with opposite weights: the terms are 1e9 times as large as their sum."""
    g = np.random.default_rng(7)
    half = g.normal(size=(OUTPUTS, INPUTS // 2))
    weight = np.concatenate([half, -half], axis=1)
    network = mn.Network.build((INPUTS,), [("fc1", mn.Dense(weight)), ("fc2", mn.Dense(np.eye(OUTPUTS)))])
    middle = np.tile(centre * (1 + g.uniform(size=(1, INPUTS // 2))), 2)
    region = mn.Box(middle - 1e-3 * g.uniform(size=middle.shape), middle + 1e-3 * g.uniform(size=middle.shape))
    matrix, lower, upper = fractions(weight), fractions(region.lower[0]), fractions(region.upper[0])
    least = np.where(matrix > 0, matrix * lower, matrix * upper).sum(1)
    assert (fractions(crown_bounds(network, region)) <= least).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize(("centre", "radius"), SETS)
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
def test_bounds_of_a_ball_hold_exactly(norm: str, centre: float, radius: float, scale: float) -> None:
    network, exact = affine_network(5, scale)
    matrix, constant = exact.matrix, exact.constant
    middle = centre * (1 + np.random.default_rng(6).uniform(size=(1, INPUTS)))
    region = {"l1": mn.L1, "l2": mn.L2}[norm](middle, radius)
    found = fractions(crown_bounds(network, region))
    at_centre = matrix @ fractions(middle[0]) + constant
    depth, reach = at_centre - found, Fraction(radius)
    dual = (matrix * matrix).sum(1) if norm == "l2" else abs(matrix).max(1) ** 2  # the square of the dual norm
    assert (depth > 0).all()
    assert (depth * depth >= reach * reach * dual).all()
    size = exact.matrix_size @ (abs(fractions(middle[0])) + reach) + exact.constant_size
    assert (depth <= np.array([reach * Fraction(float(d) ** 0.5) for d in dual]) * Fraction(1 + 1e-9) + Fraction(1e-11) * size).all()


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(("centre", "width"), SETS)
def test_the_minimum_over_a_box_or_ball_holds_exactly(centre: float, width: float, samples: int) -> None:
    """The last step of a backward pass alone: 40 rows for one sample, or one row for each of two."""
    g, count = np.random.default_rng(8), OUTPUTS if samples == 1 else samples
    rows, middle = g.normal(size=(count, INPUTS)), centre * (1 + g.uniform(size=(samples, INPUTS)))
    lower, upper = middle - width * g.uniform(size=middle.shape), middle + width * g.uniform(size=middle.shape)
    coefficients, box = torch.tensor(rows), Interval(torch.tensor(lower), torch.tensor(upper))
    exact, low, high = fractions(rows), fractions(lower), fractions(upper)
    least = np.where(exact > 0, exact * low, exact * high).sum(1)
    size = (abs(exact) * np.maximum(abs(low), abs(high))).sum(1)
    found = fractions(minimum_over_box(box, coefficients).numpy())
    assert (found <= least).all()
    assert (least - found <= Fraction(1e-11) * size).all()
    network = mn.Network.build((INPUTS,), [("fc", mn.Dense(rows))])
    asked = CrownRows(network.output, torch.arange(count) % samples, torch.arange(count), torch.ones(count, dtype=torch.float64))
    for region in (mn.L1(middle, width), mn.L2(middle, width)):
        wide = Interval(torch.tensor(region.lower), torch.tensor(region.upper))
        ball, reach = region.ball, Fraction(width)
        assert ball is not None
        depth = (exact * fractions(ball.centre)).sum(1) - fractions(minimum_over_ball(ball, asked, wide, coefficients).numpy())
        dual = (exact * exact).sum(1) if ball.norm == "l2" else (abs(exact).max(1) ** 2)
        assert (depth > 0).all()
        assert (depth * depth >= reach * reach * dual).all()
