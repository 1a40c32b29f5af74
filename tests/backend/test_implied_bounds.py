"""Bounds that rows imply, against linear programs over the rows; and what uses them."""

from __future__ import annotations

import linopy
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.optimize import linprog

import mipnet as mn
from mipnet.backend.implied_bounds import implied_bounds
from mipnet.errors import InputError

NET = mn.Network.build((2,), [("fc1", mn.Dense([[1.0, -1.0], [2.0, 1.0]])), ("act", mn.ReLU()), ("fc2", mn.Dense([[1.0, -0.5]]))])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 12))])
def test_no_point_of_the_rows_is_outside_and_single_variables_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns, rows = 6, 14
    matrix = rng.normal(size=(rows, columns)) * (rng.uniform(size=(rows, columns)) < 0.35) * 10.0 ** rng.integers(-3, 4, size=(rows, 1))
    middle = matrix @ rng.uniform(-1, 1, columns)
    low, high = middle - rng.exponential(size=rows), middle + rng.exponential(size=rows)
    low[rng.uniform(size=rows) < 0.4], high[rng.uniform(size=rows) < 0.4] = -np.inf, np.inf
    lower = np.where(rng.uniform(size=columns) < 0.5, -np.inf, -1.0)
    upper = np.where(rng.uniform(size=columns) < 0.5, np.inf, 1.0)
    found = implied_bounds(sparse.csr_array(matrix), low, high, lower, upper)
    above, below = np.isfinite(high), np.isfinite(low)
    for j in range(columns):
        for end, sign, given in ((found[0][j], 1.0, lower[j]), (found[1][j], -1.0, upper[j])):
            if np.isfinite(given):
                assert end == given
                continue
            best = linprog(
                sign * np.eye(columns)[j],
                np.concatenate([matrix[above], -matrix[below]]),
                np.concatenate([high[above], -low[below]]),
                bounds=np.stack([lower, upper], axis=1),
            )
            assert np.isinf(end) or sign * best.fun * sign >= sign * end - 1e-6
            single = [i for i in range(rows) if matrix[i, j] and np.count_nonzero(matrix[i]) == 1]
            sides = [np.sort([low[i] / matrix[i, j], high[i] / matrix[i, j]])[0 if sign > 0 else 1] for i in single]
            if any(np.isfinite(sides)):
                assert sign * end >= max(sign * side for side in sides)


def bounded_by_rows() -> tuple[linopy.Model, linopy.Variable]:
    """Two inputs without bounds of their own; that of the second follows from a capacity over other labels, in another order."""
    model = linopy.Model()
    hours = pd.Index([3, 4], name="time")
    x = model.add_variables(coords=[hours, pd.Index(["a", "b"], name="feature")], name="x")
    size = model.add_variables(name="size")
    model.add_constraints(2 * x.sel(feature="a") <= pd.Series([6.0, 2.0], hours), name="upper")
    model.add_constraints(x >= -1, name="lower")
    model.add_constraints(x.sel(feature="b") - 0.5 * size <= 0, name="by_size")
    model.add_constraints(-size >= -4, name="size")
    return model, x


@pytest.mark.parametrize("relu", ["big-m", "indicator", pytest.param("sos1", marks=pytest.mark.sweep)])
def test_a_network_on_variables_that_rows_bound(relu: str) -> None:
    model, x = bounded_by_rows()
    handle = mn.add_network(model, NET, x, formulation={"relu": relu})
    np.testing.assert_allclose(handle.region.upper, [[3, 2], [1, 2]], rtol=1e-14)
    assert handle.region.lower.tolist() == [[-1, -1], [-1, -1]]
    model.add_objective(handle.output.sum(), sense="max")
    halves = [np.stack(np.meshgrid(np.arange(-1, a + 0.1, 0.5), np.arange(-1, 2.1, 0.5)), axis=-1).reshape(-1, 2) for a in (3, 1)]
    best = sum(NET.forward(each).max() for each in halves)  # kinks meet each other and the box at halves
    result = mn.solve(model, start="search")
    assert result.verified
    assert result.start_accepted
    assert result.objective == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("name", ["upper", "size"])
def test_rows_that_bound_an_input_are_needed(name: str) -> None:
    model, x = bounded_by_rows()
    mn.add_network(model, NET, x)
    model.remove_constraints(name)
    with pytest.raises(InputError, match="wider bounds than when it was written"):
        mn.solve(model)
