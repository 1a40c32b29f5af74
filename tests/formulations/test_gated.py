"""Gated values of one sign against the soft threshold, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

import mipnet as mn
from mipnet.model.to_program import from_model


@pytest.mark.parametrize("weight", [-1.0, 0.0, 1.0])
def test_a_gated_value_of_one_sign_is_the_soft_threshold(weight):
    """y = w x over [1, 2], behind a gate and without an activation: with a score s, |y| decreases by 2 (1 - s), and not below 0."""
    network = mn.Network.build((1,), [("fc1", mn.Dense([[weight]])), ("fc2", mn.Dense([[3.0]]))])
    encoding = mn.encode(network, mn.Box([[1.0]], [[2.0]]), gates="all", bounds="sound")
    program = from_model(encoding.model)
    for score, x, size in ((1.0, 1.5, 1.5), (0.75, 1.5, 1.0), (0.0, 2.0, 0.0), (0.25, 1.25, 0.0)):
        point = encoding.point(np.array([[x]]), {"fc1": np.array([score])})
        assert encoding.value("fc2", point).item() == pytest.approx(3 * weight * size)
        assert program.violation(point[program.labels]) < 1e-9


@pytest.mark.parametrize("constant", [-2.0, 3.0])
def test_a_gated_constant_is_a_share_of_its_positive_part(constant):
    """A ReLU behind a gate, over a set of one point: s max(z, 0), for any bounds that hold."""
    network = mn.Network.build((1,), [("fc1", mn.Dense([[constant]])), ("relu", mn.ReLU()), ("fc2", mn.Dense([[1.0]]))])
    encoding = mn.encode(network, mn.Samples(np.ones((1, 1))), gates="all", bounds="sound")
    for score in (0.0, 0.25, 1.0):
        point = encoding.point(np.ones((1, 1)), {"fc1": np.array([score])})
        assert encoding.value("fc2", point).item() == pytest.approx(score * max(constant, 0.0))
