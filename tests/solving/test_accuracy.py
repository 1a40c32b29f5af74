"""Programs that add numbers of very different sizes: what a solver's tolerances hide is not claimed.

The largest and smallest values are known by hand.  ``narrow`` has a ReLU whose input ranges from -R to 1, so that its positive part is 1
and its negative part R wide; ``cancelling`` is a difference of two ReLUs of size R that is at most 1.
"""

from __future__ import annotations

import numpy as np
import pytest

import mipnet as mn
from mipnet.arrays import Csr
from mipnet.backend import Rows, Status
from mipnet.errors import InputError
from tests.sweep import sweep

BACKENDS = "highs", "scip"


def net(*layers: mn.Layer) -> mn.Network:
    return mn.Network.build((2,), [(f"layer{k}", layer) for k, layer in enumerate(layers)])


def narrow() -> mn.Network:
    """``relu(y + w - 0.5) - relu(y - w)`` with ``y = relu(x)``: from -0.5 to 1.5 over ``x <= 1`` and ``0 <= w <= 1``."""
    second = mn.Dense(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([-0.5, 0.0]))
    return net(mn.Dense(np.eye(2)), mn.ReLU(), second, mn.ReLU(), mn.Dense(np.array([[1.0, -1.0]])))


def mixed() -> mn.Network:
    """``relu(x) + relu(w - 0.5) - 2 relu(x + w - 1)``: from -0.5 to 1 over the same box."""
    first = mn.Dense(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([0.0, -0.5, -1.0]))
    return net(first, mn.ReLU(), mn.Dense(np.array([[1.0, 1.0, -2.0]])))


def cancelling() -> mn.Network:
    """``relu(x + w) - relu(x)``: from 0 to 1 over ``|x| <= R`` and ``0 <= w <= 1``."""
    return net(mn.Dense(np.array([[1.0, 1.0], [1.0, 0.0]])), mn.ReLU(), mn.Dense(np.array([[1.0, -1.0]])))


def box(ratio: float, high: float = 1.0) -> mn.Box:
    return mn.Box(np.array([[-ratio, 0.0]]), np.array([[high, 1.0]]))


NETWORKS = {"narrow": (narrow, -0.5, 1.5), "mixed": (mixed, -0.5, 1.0)}
RATIOS = 1e7, 1e12, 1e3, 1e5, 1e8, 1e9, 1e10
CASES = [(name, ratio, backend, sense) for ratio in RATIOS for name in NETWORKS for sense in ("max", "min") for backend in BACKENDS]
FIRST = [("narrow", 1e7, "scip", "max"), ("narrow", 1e12, "scip", "min"), ("narrow", 1e9, "highs", "max"), ("mixed", 1e7, "highs", "min")]


@pytest.mark.parametrize(("name", "ratio", "backend", "sense"), [*FIRST, *sweep(sorted(set(CASES) - set(FIRST)), every=1000)], ids=str)
def test_bounds_hold_at_every_ratio_and_up_to_1e8_they_are_tight(name: str, ratio: float, backend: str, sense: str) -> None:
    make, least, largest = NETWORKS[name]
    exact, sign = (largest, 1) if sense == "max" else (least, -1)
    encoding = mn.encode(make(), box(ratio))
    encoding.model.add_objective(encoding.output.sum(), sense=sense)
    result = mn.solve(encoding, backend, time_limit=20)
    rounding = 1e-15 * ratio
    assert sign * (result.bound - exact) >= -1e-5 - rounding
    if result.status is Status.OPTIMAL:
        assert result.objective == pytest.approx(exact, abs=5e-4)
    if name == "narrow" or ratio <= 1e7:
        assert result.objective == pytest.approx(exact, abs=5e-4)
        assert result.bound == pytest.approx(exact, abs=0.03 if ratio > 1e9 else 2e-3)


@pytest.mark.parametrize(
    ("ratio", "backend", "sense"),
    sweep([(ratio, b, s) for ratio in (1e7, 1e9, 1e5) for b in BACKENDS for s in ("max", "min")], every=5),
    ids=str,
)
def test_a_difference_far_below_the_bounds_of_its_terms_is_not_called_optimal(ratio: float, backend: str, sense: str) -> None:
    """The objective ranges over 1, and by its bounds over 3 R: the solvers' tolerance, a share of the latter, hides it."""
    encoding = mn.encode(cancelling(), box(ratio, ratio))
    encoding.model.add_objective(encoding.output.sum(), sense=sense)
    result = mn.solve(encoding, backend, mip_gap=1e-6)
    exact = 1.0 if sense == "max" else 0.0
    assert (result.bound - exact) * (1 if sense == "max" else -1) >= -1e-6
    assert result.status is not Status.OPTIMAL or result.objective == pytest.approx(exact, abs=1e-6)
    if ratio >= 1e7:
        assert result.status is Status.STALLED
        assert "tolerance" in result.message


def chain(seed: int) -> mn.Network:
    g = np.random.default_rng(seed)
    shapes = ((5, 12), (5, 5), (1, 5))
    layers = [mn.Dense(g.normal(size=shape) / np.sqrt(shape[1]), 0.3 * g.normal(size=shape[0])) for shape in shapes]
    named = [("fc0", layers[0]), ("relu0", mn.ReLU()), ("fc1", layers[1]), ("relu1", mn.ReLU()), ("fc2", layers[2])]
    return mn.Network.build((12,), named)


@pytest.mark.parametrize(("backend", "tolerance"), sweep([(b, gap) for gap in (2e-7, 1e-4) for b in BACKENDS], every=4), ids=str)
def test_a_gap_below_the_usual_tolerances_is_closed_with_smaller_ones(backend: str, tolerance: float) -> None:
    """The margin for the usual tolerances is about 1e-5 of the output."""
    found = mn.reach(chain(0), mn.Box(-np.ones((1, 12)), np.ones((1, 12))), backend=backend, tolerance=tolerance)
    assert found.closed
    assert {end.method for end in (*found.lowest, *found.highest)} == {"mip"}


@pytest.mark.parametrize("size", [1e-12, 1e-10])
def test_a_row_without_a_small_term_allows_what_it_may_add(size: float) -> None:
    """``a x = 0.25`` with a small term of y: without it, the row would cut off most of the points that it allows."""
    rows = Rows(Csr(np.array([[1.0, size]])), np.array([0.25]), np.array([0.25]))
    found = rows.without(1e-9, np.array([0.0, -1.0]), np.array([1.0, 2.0]))
    assert found.matrix.toarray().tolist() == [[1.0, 0.0]]
    assert (found.lower[0], found.upper[0]) == (0.25 - 2 * size, 0.25 + size)


def test_a_small_term_without_a_limit_is_refused() -> None:
    rows = Rows(Csr(np.array([[1.0, 1e-10]])), np.array([0.0]), np.array([np.inf]))
    with pytest.raises(InputError, match="on variables without finite bounds"):
        rows.without(1e-9, np.array([0.0, 0.0]), np.array([1.0, np.inf]))
