"""Points whose binaries are nearly integers: rounded, with the other columns solved for again, or none."""

from __future__ import annotations

import numpy as np
import pytest

from mipnet.arrays import Csr
from mipnet.backend import Program, Rows, get_backend
from mipnet.limits.deadline import NO_DEADLINE
from mipnet.solving.integral_point import integral_point
from mipnet.solving.program_sessions import OpenProgram


@pytest.mark.parametrize("backend", ["highs", "scip"])
@pytest.mark.parametrize(
    ("least", "on", "expected"),
    [
        (1.0, 1.0, [1.0, 1.0, 0.5]),  # an integer already
        (1.0, 1.0 - 1e-7, [1.0, 1.0, 0.5]),  # rounding is enough
        (0.0, 1e-7, [0.0, 0.0, 0.5]),  # x and w have to change: x <= 1e7 on and x + w >= 0.5
        (1.0, 1e-7, None),  # x >= 1 needs on = 1
    ],
)
def test_binaries_are_rounded_and_the_rest_follows(backend: str, least: float, on: float, expected: list[float] | None) -> None:
    """Columns on, x and w: minimise w where ``x <= 1e7 on`` and, if x may be 0, ``x + w >= 0.5``."""
    together = Rows(
        Csr(np.array([[-1e7, 1.0, 0.0], [0.0, 1.0, 1.0]])), np.array([-np.inf, -np.inf if least else 0.5]), np.array([0.0, 11.0])
    )
    program = Program(
        np.array([0.0, 0.0, 1.0]), together, np.array([0.0, least, 0.0]), np.array([1.0, 10.0, 1.0]), np.array([True, False, False])
    )
    opened = OpenProgram(program, get_backend(backend))
    x = np.array([on, 1.0, 0.5])
    try:
        found = integral_point(opened, (), x, NO_DEADLINE)
    finally:
        opened.close()
    assert (found is None) == (expected is None)
    if found is not None:
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found[0] in (0.0, 1.0)


def test_a_rounded_point_of_integers_alone_is_checked() -> None:
    """No integers near the point satisfy ``1e7 a >= b``."""
    both = Rows(Csr(np.array([[1e7, -1.0]])), np.zeros(1), np.full(1, np.inf))
    opened = OpenProgram(Program(np.ones(2), both, np.zeros(2), np.ones(2), np.ones(2, dtype=bool)), get_backend("highs"))
    try:
        assert integral_point(opened, (), np.array([1e-7, 1.0 - 1e-7]), NO_DEADLINE) is None
    finally:
        opened.close()
