"""The marker `sweep`: cases that `make test` leaves out and `make test-all` runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sweep(cases: Iterable[Any], every: int) -> list[Any]:
    """Return the cases for `pytest.mark.parametrize`: the first and each ``every``-th after it plain, the others marked `sweep`."""
    return [marked(case) if number % every else case for number, case in enumerate(cases)]


def marked(case: Any) -> Any:
    """Return one case with the marker `sweep`; a tuple holds one value per argument."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.sweep)
