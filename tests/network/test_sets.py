"""Input sets contain the right points, and an empty set is refused."""

from __future__ import annotations

import numpy as np
import pytest

import mipnet as mn
from mipnet.errors import DataError


def test_a_ball_is_cut_to_the_valid_range():
    ball = mn.LInf([[0.05, 0.5]], 0.1, lower=0, upper=1)
    np.testing.assert_allclose(ball.lower, [[0.0, 0.4]])
    np.testing.assert_allclose(ball.upper, [[0.15, 0.6]])
    assert ball.contains(np.array([[0.1, 0.5]]))
    assert not ball.contains(np.array([[0.3, 0.5]]))
    assert not ball.fixed
    assert mn.Samples(np.zeros((3, 2))).fixed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mn.LInf([[5.0, 0.0]], 0.1, lower=0, upper=1), "misses the valid range"),
        (lambda: mn.LInf([[0.5]], 0.1, lower=2, upper=1), "expected lower <= upper"),
        (lambda: mn.LInf([[0.5]], -0.1), "the radius is -0.1"),
        (lambda: mn.Box([[1.0]], [[0.0]]), "the box is empty"),
        (lambda: mn.Box([[1.0]], [[1.0, 2.0]]), "expected the same shape"),
        (lambda: mn.Samples([[np.inf]]), "NaN or infinite"),
        (lambda: mn.Samples("cat"), "not an array of numbers"),
    ],
)
def test_what_is_no_set_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()
