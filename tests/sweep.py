"""The marker `sweep`: cases that `make test` leaves out and `make test-all` runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def sweep(cases: Iterable[Any], every: int) -> list[Any]:
    """Return the cases for `pytest.mark.parametrize`: the first and each ``every``-th after it plain, the others marked `sweep`."""
    return [marked(case) if number % every else case for number, case in enumerate(cases)]


def in_turn(rows: Iterable[Any], columns: Sequence[Any]) -> list[Any]:
    """Return each row with each column for `pytest.mark.parametrize`: plain with one column, which takes turns, and marked with the others.

    A row or a column is one value, or a tuple with one per argument.  A row that is marked itself stays so.
    """
    found, turn = [], 0
    for row in rows:
        values, plain = (_tuple(row.values), not row.marks) if hasattr(row, "marks") else (_tuple(row), True)
        for number, column in enumerate(columns):
            case = (*values, *_tuple(column))
            found.append(case if plain and number == turn % len(columns) else marked(case))
        turn += plain
    return found


def marked(case: Any) -> Any:
    """Return one case with the marker `sweep`; a tuple holds one value per argument."""
    return pytest.param(*_tuple(case), marks=pytest.mark.sweep)


def _tuple(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
