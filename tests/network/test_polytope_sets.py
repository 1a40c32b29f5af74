"""Polytopes and convex hulls as input sets: their ends, their points, and the order of their features."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import linprog, minimize

import mipnet as mn
from mipnet.errors import DataError

TRIANGLE = mn.Polytope([[1, 1]], [1], lower=0)
ODD = {"names": ("b", "c", "a"), "matrix": np.array([[1.0, 2.0, 4.0], [-1.0, 0.0, 1.0]])}


def in_hull(points, x, enlarge=0.0) -> bool:
    """By a linear program."""
    n, d = points.shape
    equal = np.vstack([np.hstack([points.T, np.eye(d)]), np.hstack([np.ones((1, n)), np.zeros((1, d))])])
    ends = [(0, None)] * n + [(-enlarge - 1e-9, enlarge + 1e-9)] * d
    return bool(linprog(np.zeros(n + d), A_eq=equal, b_eq=[*x, 1], bounds=ends).success)


def test_the_ends_of_a_polytope_are_its_own_moved_outwards():
    np.testing.assert_allclose(TRIANGLE.lower, 0.0, atol=1e-5)
    np.testing.assert_allclose(TRIANGLE.upper, 1.0, atol=1e-5)
    assert (TRIANGLE.upper >= 1).all()
    inside, outside = np.array([[0.5, 0.5]]), np.array([[0.6, 0.6]])
    assert TRIANGLE.contains(inside, 1e-12)
    assert not TRIANGLE.contains(outside)
    assert TRIANGLE.contains(outside, 0.101)
    assert TRIANGLE.contains(TRIANGLE.centre, 0.0)


def test_the_nearest_point_of_a_polytope():
    g = np.random.default_rng(0)
    matrix = g.normal(size=(4, 3))
    region = mn.Polytope(matrix, np.abs(g.normal(size=4)) + 0.1, lower=-1, upper=1)
    x = g.normal(size=(40, 3)) * 2
    found, clipped = region.nearest(x), np.clip(x, region.lower, region.upper)
    assert region.meets_further(found).all()
    assert ((found >= region.lower) & (found <= region.upper)).all()
    for k in np.flatnonzero(~region.meets_further(clipped))[:4]:
        rows = {"type": "ineq", "fun": lambda z: region.polytope.rhs - matrix @ z}
        wanted = minimize(
            lambda z, k=k: ((z - clipped[k]) ** 2).sum(), region.centre[0], constraints=[rows], bounds=[(-1, 1)] * 3, tol=1e-12
        )
        np.testing.assert_allclose(found[k], wanted.x, atol=1e-5)


def test_rows_that_make_an_equation():
    region = mn.Polytope([[1, 1, 0], [-1, -1, 0], [0, 1, 1]], [1, -1, 1.2], lower=0, upper=1)
    found = region.nearest(np.random.default_rng(0).normal(size=(20, 3)))
    np.testing.assert_allclose(found[:, 0] + found[:, 1], 1, atol=1e-12)
    assert region.meets_further(found).all()


@pytest.mark.parametrize("enlarge", [0.0, 0.2])
def test_points_of_a_hull(enlarge):
    g = np.random.default_rng(1)
    points = g.normal(size=(30, 4))
    region = mn.ConvexHull(points, enlarge=enlarge)
    inside = g.dirichlet(np.ones(30), size=10) @ points + g.uniform(-enlarge, enlarge, (10, 4))
    np.testing.assert_allclose(region.nearest(inside), inside, atol=1e-10)
    anything = g.normal(size=(12, 4)) * 1.5
    assert region.meets_further(anything).tolist() == [in_hull(points, each, enlarge) for each in anything]
    assert all(in_hull(points, each, enlarge) for each in region.nearest(anything))
    np.testing.assert_allclose(region.lower[0], points.min(axis=0) - enlarge)
    missed = region.polytope.misses(anything - 0.1, anything + 0.1)
    assert missed.any()
    assert not any(in_hull(points, each, enlarge + 0.1) for each in anything[missed])


def test_many_points_in_a_high_dimension_are_projected_in_steps(monkeypatch):
    monkeypatch.setattr("mipnet.network.polytopes.PROJECTION_NUMBERS_MAX", 10)
    g = np.random.default_rng(2)
    region = mn.ConvexHull(g.random((40, 6)))
    found = region.nearest(g.random((9, 6)))
    assert region.meets_further(found).all()


def test_features_are_matched_by_name():
    table = pd.DataFrame(ODD["matrix"], columns=list(ODD["names"]))
    array = xr.DataArray(ODD["matrix"].T, dims=("feature", "row"), coords={"feature": list(ODD["names"])})
    for matrix in (table, array):
        region = mn.Polytope(matrix, [3, 1], lower=-1, upper=1).fit((3,), ("a", "b", "c"))
        np.testing.assert_array_equal(region.polytope.matrix, [[4, 1, 2], [1, -1, 0]])
    numbered = mn.Polytope(pd.DataFrame(ODD["matrix"], columns=[1, 2, 0]), [3, 1], lower=-1, upper=1)
    np.testing.assert_array_equal(numbered.polytope.matrix, [[4, 1, 2], [1, -1, 0]])
    hull = mn.ConvexHull(pd.DataFrame([[1.0, 2.0]], columns=["b", "a"]), enlarge=pd.Series({"a": 0.5, "b": 0.25})).fit((2,), ("a", "b"))
    np.testing.assert_array_equal(hull.lower, [[1.5, 0.75]])


def test_rows_are_matched_by_name():
    matrix = xr.DataArray([[1.0, 0.0], [0.0, 1.0]], dims=("limit", "feature"), coords={"limit": ["x", "y"]})
    rhs = xr.DataArray([5.0, 3.0], dims="limit", coords={"limit": ["y", "x"]})
    assert mn.Polytope(matrix, rhs, lower=0).polytope.rhs.tolist() == [3.0, 5.0]


def test_ends_are_matched_by_name():
    matrix = pd.DataFrame([[1.0, 1.0]], columns=["a", "b"])
    ends = {"lower": pd.Series({"b": -3.0, "a": 0.0}), "upper": xr.DataArray([2.0, 1.0], coords={"feature": ["b", "a"]})}
    region = mn.Polytope(matrix, [10.0], **ends)
    np.testing.assert_allclose(region.lower, [[0.0, -3.0]], atol=1e-9)
    np.testing.assert_allclose(region.upper, [[1.0, 2.0]], atol=1e-9)
    with pytest.raises(DataError, match="the lower end of the polytope has a feature `c`"):
        mn.Polytope(matrix, [10.0], lower=pd.Series({"c": 0.0, "a": 0.0}), upper=1.0)


def test_parts_and_shapes_keep_the_polytope():
    region = TRIANGLE.fit((2,))
    for each in (region.only(0), region.reshape((1, 2, 1)), region.widen(0.0)):
        assert each.polytope is region.polytope
    assert region.widen(0.1).polytope is None
    assert region.within(mn.Box(region.lower, region.upper))
    assert region.within(region)
    assert not mn.Box(region.lower, region.upper).within(region)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mn.Polytope([[1, 1]], [1]), "no lower end in input 0; give `lower`"),
        (lambda: mn.Polytope([[1, 0], [-1, 0]], [0, -1], lower=0, upper=1), "the polytope is empty"),
        (lambda: mn.Polytope([[1, 0]], [1], lower=1, upper=0), "the polytope is empty: lower > upper in 2 places"),
        (lambda: mn.Polytope([[1, 0]], [1, 2]), r"shape \(1, 2\) and the right-hand side \(2,\); expected \(rows, inputs\) and \(rows,\)"),
        (lambda: mn.Polytope([1, 2], [1]), "expected two axes"),
        (lambda: mn.Polytope([[np.nan, 0]], [1]), "NaN or infinite"),
        (lambda: mn.Polytope([[1, 0]], [1], lower=[0]), "a number, or one for each of 2 inputs"),
        (lambda: mn.Polytope(xr.DataArray(np.eye(2)), [1, 1]), "call that of the features `feature`"),
        (lambda: mn.ConvexHull(np.zeros((0, 2))), "at least one point"),
        (lambda: mn.ConvexHull([[np.inf, 1]]), "NaN or infinite"),
        (lambda: mn.ConvexHull([[0, 1]], enlarge=-1), "at least 0"),
        (lambda: mn.ConvexHull([[0, 1]], enlarge=[1, 2, 3]), "one for each of 2 inputs"),
        (lambda: mn.ConvexHull(pd.DataFrame([[0, 1]], columns=["a", "a"])), "a feature twice"),
        (lambda: mn.ConvexHull(pd.DataFrame([[0, 1]], columns=["a", "z"])).fit((2,), ["a", "b"]), "has a feature `z`"),
        (lambda: mn.Box([[0.0]], [[1.0]], polytope=TRIANGLE.polytope), "the polytope has 2 inputs"),
        (lambda: mn.Box([[0.0, 0.0]], [[1.0, 1.0]], mn.Ball([[0.0, 0.0]], 1, "l1"), TRIANGLE.polytope), "a ball and a polytope"),
    ],
)
def test_what_is_no_polytope_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()
