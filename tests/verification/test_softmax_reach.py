"""Ranges of probabilities and log-probabilities against torch on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mipnet as mn
from mipnet.errors import UnsupportedError
from mipnet.verification import softmax_ends
from mipnet.verification.softmax_ends import LogProbabilityEnd, OutputEnd, ProbabilityEnd, softmax_functions
from tests.sweep import sweep
from tests.verification.softmaxes import grid, made, run, samples

BACKENDS = ("highs", "scip")
CASES = [("softmax", 2), ("softmax", 4), ("log_softmax", 3), ("softmax", 1), ("log_softmax", 1), ("softmax", 3), ("log_softmax", 2)]


@pytest.mark.parametrize(("kind", "outputs", "backend"), sweep([(*case, b) for b in BACKENDS for case in CASES], every=5))
def test_outputs_lie_between_the_certified_ends(kind: str, outputs: int, backend: str) -> None:
    module, network, region = made(kind, outputs, outputs)
    found = mn.reach(network, region, backend=backend, time_limit=None, tolerance=1e-3)
    y = run(module, grid())
    assert found.closed
    assert (found.lower <= y.min(axis=0) + 1e-14).all()
    assert (y.max(axis=0) <= found.upper + 1e-14).all()
    assert np.abs(found.lower - y.min(axis=0)).max() < 0.05 * max(1, np.abs(y).max())
    for k, end in [*enumerate(found.lowest), *enumerate(found.highest)]:
        assert run(module, end.point[None])[0, k] == pytest.approx(end.value, abs=1e-12)
        assert region.contains(end.point[None], 0.0)
    if kind == "softmax":
        assert (found.lower >= 0).all()
        assert (found.upper <= 1).all()


@pytest.mark.parametrize("backend", sweep(BACKENDS, every=2))
def test_a_solver_alone_on_many_inputs(backend: str) -> None:
    """With twelve inputs nothing is split: two classes are exact, of more classes the bounds hold."""
    for outputs, closed in ((2, True), (3, False)):
        module, network, region = made("softmax", outputs, 3, inputs=12, scale=1.0)
        found = mn.reach(network, region, backend=backend, time_limit=600, tolerance=1e-3)
        assert found.closed or not closed
        y = run(module, samples(12))
        assert (found.lower <= y.min(axis=0)).all()
        assert (y.max(axis=0) <= found.upper).all()
        assert found.gap < 0.2
        assert {end.method for end in (*found.lowest, *found.highest)} <= {"crown", "alpha", "mip"}


def test_directions_of_two_values_and_of_log_probabilities() -> None:
    module, network, region = made("softmax", 4, 2)
    directions = np.array([[1.0, 1, 0, 0], [-2, 5, 5, -2], [0, 0, -3, 0], [7, 7, 7, 7], [0, 0, 0, 0]])
    found, y = mn.reach(network, region, directions, tolerance=1e-3), run(module, grid()) @ directions.T
    assert found.closed
    assert (found.lower <= y.min(axis=0) + 1e-12).all()
    assert (y.max(axis=0) <= found.upper + 1e-12).all()
    assert np.allclose(found.upper, y.max(axis=0), atol=0.05)
    assert found.lower[3:] == pytest.approx([7, 0], abs=1e-12)
    module, network, region = made("log_softmax", 3, 2)
    directions = np.array([[1.0, -1, 0], [2, -1, -1], [0, -3, 0]])
    found, y = mn.reach(network, region, directions, tolerance=1e-3), run(module, grid()) @ directions.T
    assert found.closed
    assert (found.lower <= y.min(axis=0) + 1e-12).all()
    assert (y.max(axis=0) <= found.upper + 1e-12).all()
    assert np.allclose(found.upper, y.max(axis=0), atol=0.2)


@pytest.mark.parametrize(("kind", "direction"), [("softmax", [1.0, -1.0, 0.0]), ("log_softmax", [1.0, 1.0, 0.0])])
def test_other_directions_are_refused(kind: str, direction: list[float]) -> None:
    _, network, region = made(kind, 3, 0)
    with pytest.raises(UnsupportedError, match=f"direction 1 joins 2 outputs.*{kind}.*without_softmax"):
        mn.reach(network, region, [[1.0, 0.0, 0.0], direction])
    assert mn.reach(network.without_softmax(), region, direction).closed


def test_outputs_of_large_logits_are_closed_at_once() -> None:
    """Where every probability is 0 or 1 to the tolerance, no gap of the logits has to be closed."""
    _, network, region = made("softmax", 3, 0, scale=0.0)
    big = mn.Network.build((2,), [(n.name, n.layer, n.inputs) for n in network.nodes], softmax=network.softmax)
    big.nodes[-1].layer.bias[:] = big.nodes[-1].layer.bias.new_tensor([0.0, 2000.0, -2000.0])
    found = mn.reach(big, region, tolerance=1e-9)
    assert found.closed
    assert (found.parts, found.nodes) == (0, 0)
    assert found.upper.tolist() == [pytest.approx(0.0, abs=1e-290), 1.0, pytest.approx(0.0, abs=1e-290)]
    assert (found.upper > 0).all()


@pytest.mark.parametrize(
    "end", [ProbabilityEnd(1.0, 0.0, 1.0), ProbabilityEnd(-1.0, -2.0, 5.0), LogProbabilityEnd(1.0, 3.0), LogProbabilityEnd(-1.0, -0.5)]
)
def test_a_step_changes_the_output_by_the_gap(end: OutputEnd) -> None:
    for f in (-3.0, -0.1, 0.0, 2.0, 6.0):
        for gap in (1e-6, 1e-3, 0.3):
            step = end.step(f, gap)
            if math.isinf(step):
                assert abs(end.output(f) - end.output(-1e6)) <= gap + 1e-12
            else:
                assert abs(end.output(f - step) - end.output(f)) == pytest.approx(gap, rel=1e-6)
        assert end.outward(f, -1) <= end.output(f) <= end.outward(f, 1)
        assert end.outward(-math.inf, 1) == pytest.approx(end.output(-1e6)) or isinstance(end, LogProbabilityEnd)


def test_many_classes_are_bounded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module, network, region = made("softmax", 6, 0)
    whole = mn.reach(network, region, time_limit=None, tolerance=0.05)
    monkeypatch.setattr(softmax_ends, "ROW_COEFFICIENTS_MAX", 70)
    parts = softmax_functions(network, np.eye(6)).parts()
    assert [len(part.ends) for part in parts] == [2, 2, 2, 3, 2, 1]
    found = mn.reach(network, region, time_limit=None, tolerance=0.05)
    assert found.closed
    assert np.allclose(found.lower, whole.lower, atol=0.05)
    assert np.allclose(found.upper, whole.upper, atol=0.05)
    late = mn.reach(network, region, time_limit=1e-6)
    y = run(module, grid())
    assert (late.lower <= y.min(axis=0)).all()
    assert (y.max(axis=0) <= late.upper).all()
    assert not late.closed


def test_functions_without_a_softmax_are_the_directions() -> None:
    _, network, _ = made("softmax", 3, 0)
    found = softmax_functions(network.without_softmax(), np.eye(3))
    assert not found.log_sums
    assert np.array_equal(found.matrix, np.concatenate([np.eye(3), -np.eye(3)]))
