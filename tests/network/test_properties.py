"""Properties: when they hold, by hand-worked numbers, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from mipnet.errors import DataError
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import Box

UNIT = Box(np.zeros((1, 2)), np.ones((1, 2)))
FAR = Box(np.full((1, 2), 5.0), np.full((1, 2), 6.0))
BELOW = Clause([[1.0, -1.0]], [0.0])  # y0 <= y1
LARGE = Clause([[-1.0, 0.0], [0.0, -1.0]], [-3.0, -3.0])  # y0 >= 3 and y1 >= 3
ALWAYS = Clause(np.zeros((0, 2)), np.zeros(0))


def test_one_case_needs_region_and_clause() -> None:
    prop = Property((Case(UNIT, (BELOW,)),))
    x = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 1.5], [0.0, 1.0]])
    y = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    assert prop.holds_at(x, y).tolist() == [True, False, False, True]
    assert prop.inputs == 2


def test_clauses_are_alternatives_and_rows_are_not() -> None:
    prop = Property((Case(UNIT, (BELOW, LARGE)),))
    y = np.array([[5.0, 4.0], [5.0, 2.0], [1.0, 2.0]])
    assert prop.holds_at(np.full((3, 2), 0.5), y).tolist() == [True, False, True]
    assert prop.cases[0].excess(y).tolist() == [-1.0, 1.0, -1.0]


def test_each_case_has_its_own_clauses() -> None:
    prop = Property((Case(UNIT, (BELOW,)), Case(FAR, (LARGE,))))
    x = np.array([[0.5, 0.5], [5.5, 5.5], [0.5, 0.5], [5.5, 5.5], [3.0, 3.0]])
    y = np.array([[1.0, 2.0], [1.0, 2.0], [4.0, 3.0], [4.0, 3.0], [3.0, 4.0]])
    assert prop.holds_at(x, y).tolist() == [True, False, False, True, False]


def test_images_are_flattened_and_tolerance_counts_on_both_sides() -> None:
    prop = Property((Case(UNIT, (BELOW,)),))
    x, y = np.full((1, 1, 2), 1.0 + 1e-7), np.array([[1.0 + 1e-7, 1.0]])
    assert not prop.holds_at(x, y).any()
    assert prop.holds_at(x, y, tolerance=1e-6).all()


def test_no_rows_hold_always_and_no_clauses_never() -> None:
    inside = np.full((2, 2), 0.5)
    assert Property((Case(UNIT, (ALWAYS,)),)).holds_at(inside, inside).all()
    assert not Property((Case(UNIT, ()),)).holds_at(inside, inside).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Clause([1.0, 2.0], [0.0]), r"matrix of shape \(2,\)"),
        (lambda: Clause([[1.0, 2.0]], [0.0, 1.0]), r"side of shape \(2,\)"),
        (lambda: Clause([[np.nan, 2.0]], [0.0]), "NaN or infinite"),
        (lambda: Case(Box(np.zeros((2, 2)), np.ones((2, 2))), ()), r"shape \(2, 2\)"),
        (lambda: Case(UNIT, (BELOW, Clause([[1.0]], [0.0]))), r"are written for \[1, 2\] outputs"),
        (lambda: Property(()), "no cases"),
        (lambda: Property((Case(UNIT, ()), Case(Box(np.zeros((1, 3)), np.ones((1, 3))), ()))), r"are written for \[2, 3\] inputs"),
        (lambda: Property((Case(UNIT, (BELOW,)), Case(UNIT, (Clause([[1.0]], [0.0]),)))), r"are written for \[1, 2\] outputs"),
    ],
)
def test_what_does_not_fit_is_refused(build, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build()


def test_strict_rows_and_open_ends() -> None:
    less = Clause([[1.0, -1.0], [0.0, 1.0]], [0.0, 3.0], [True, False])  # y0 < y1 <= 3
    y = np.array([[1.0, 1.0], [1.0, 1.5], [2.0, 3.0], [2.0, 3.5], [4.0, 3.0]])
    assert (less.excess(y) <= 0).tolist() == [False, True, True, False, False]
    assert less.excess(y)[1:].tolist() == [-0.5, 0.0, 0.5, 1.0]
    assert (Clause([[1.0]], [0.0], True).excess(np.array([[-0.0], [-1e-300]])) <= 0).tolist() == [False, True]
    inside = Case(UNIT, (less,), np.array([[True, False], [False, True]]))  # 0 < x0 <= 1, 0 <= x1 < 1
    x = np.array([[0.0, 0.0], [1e-300, 0.0], [1.0, 0.5], [1.0, 1.0], [1.05, 0.5], [0.5, 1.05]])
    assert inside.contains(x).tolist() == [False, True, True, False, False, False]
    assert inside.contains(x, 0.1).tolist() == [False, True, True, False, True, False]  # a tolerance counts at closed ends only


def test_strict_rows_need_one_value_each() -> None:
    with pytest.raises(DataError, match="2 rows and says of 3 whether they are strict"):
        Clause([[1.0, -1.0], [0.0, 1.0]], [0.0, 3.0], [True, False, True])
    with pytest.raises(DataError, match=r"open ends of a case have shape \(2, 3\); expected \(2, 2\)"):
        Case(UNIT, (BELOW,), np.zeros((2, 3), dtype=bool))


def test_inputs_and_outputs_of_other_libraries() -> None:
    prop = Property((Case(UNIT, (BELOW,)),))
    x, y = np.array([[0.5, 2.0], [0.5, 0.5]]), np.array([[1.0, 2.0], [1.0, 2.0]])
    wanted = prop.holds_at(x, y).tolist()
    assert wanted == [False, True]
    tables = pd.DataFrame(x)[[1, 0]], xr.DataArray(y.T, dims=("unit", "sample"))
    assert prop.holds_at(*tables).tolist() == prop.holds_at(x.tolist(), y.tolist()).tolist() == wanted
    with pytest.raises(DataError, match="expected real numbers"):
        Clause([[1j]], [0.0])
