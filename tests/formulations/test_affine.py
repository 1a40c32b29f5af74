"""Sums, differences, products and quotients of affine values with numbers and arrays, on either side, are those of their values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mipnet.formulations.affine import Affine

POINT = np.array([2.0, -1.0, 0.5])
ARRAY = np.array([3.0, 4.0, -2.0])


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: x + 1,
        lambda x: 1 + x,
        lambda x: ARRAY + x,
        lambda x: x - ARRAY,
        lambda x: 1 - x,
        lambda x: ARRAY - x,
        lambda x: 3 * x,
        lambda x: ARRAY * x,
        lambda x: x * ARRAY,
        lambda x: x / 4,
        lambda x: x / ARRAY,
        lambda x: -x,
        lambda x: np.float64(2.0) * x + x,
    ],
)
def test_arithmetic_is_that_of_values(formula: Callable[..., object]) -> None:
    found = formula(Affine.of(np.arange(3)))
    assert isinstance(found, Affine)
    np.testing.assert_allclose(found.evaluate(POINT), formula(POINT))
