"""The path along the loss weight: at every weight the optimum of a question posed and solved by itself, and one hand-over for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mipnet as mn
from mipnet.errors import InputError
from mipnet.pruning.importance.weight_path import spaced_weights, weight_path
from tests.interrupts import CtrlC
from tests.pruning.importance.questions import changed
from tests.pruning.importance.test_frozen_network import question, relu_cnn, relu_mlp
from tests.pruning.importance.test_program import tiny_mlp
from tests.solving.test_open_problem import Counting
from tests.sweep import in_turn, marked, sweep

BACKENDS = ("highs", "scip")
WEIGHTS = (0.5, 1.5, 5.0, 20.0)
KINDS = {
    "free": {"formulation": {"relu": "frozen"}},
    "paper": {"formulation": {"relu": "frozen"}, "pattern": "paper"},
    "binary": {"formulation": {"relu": "frozen"}, "kind": "binary"},
    "full": {"epsilon": 1e-3},
    "full binary": {"epsilon": 1e-2, "kind": "binary", "layers": "all"},
    "margin": {"loss": mn.Loss("margin")},
}


@pytest.mark.parametrize(("kind", "backend"), in_turn(sweep(KINDS, every=2), BACKENDS))
@pytest.mark.parametrize("make", [tiny_mlp, marked(relu_mlp)])
def test_every_point_is_the_optimum_at_its_weight(make, kind, backend):
    task = question(make, 3, **KINDS[kind])
    path = weight_path(task, WEIGHTS, backend=backend, mip_gap=1e-6, time_limit=None)
    assert [point.value for point in path.points] == list(WEIGHTS)
    for point in path.points:
        alone = mn.solve(changed(task, weight=point.value).pose(), backend, mip_gap=1e-6, time_limit=None)
        found = point.found.result
        assert found.status is alone.status is mn.Status.OPTIMAL
        assert found.objective == pytest.approx(alone.objective, abs=3e-5)
        assert found.bound <= alone.objective + 1e-6
        assert found.verified
    assert not path.interrupted


def test_a_larger_weight_prunes_less_and_costs_less_loss():
    path = weight_path(question(relu_cnn, 5, formulation={"relu": "frozen"}), spaced_weights(0.1, 50, 6), mip_gap=1e-6)
    kept = [sum(float(values.sum()) for values in point.found.scores.values()) for point in path.points]
    assert kept[0] < kept[-1]
    assert path.scores.sizes["weight"] == 6
    np.testing.assert_allclose(path.scores["weight"], spaced_weights(0.1, 50, 6))
    for name, values in path.points[2].found.scores.items():
        np.testing.assert_array_equal(path.scores[name].isel(weight=2), values)


class CountingRows(Counting):
    """HiGHS that notes how many rows each program has when it is opened."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def open(self, program, options=None):
        self.rows.append(len(program.rows))
        return super().open(program, options)


def test_a_small_linear_program_forgets_the_cuts_that_no_longer_bind():
    backend = CountingRows()
    task = question(relu_mlp, 0, formulation={"relu": "frozen"})
    heard = []
    path = weight_path(task, spaced_weights(20, 0.5, 5), backend=backend, mip_gap=1e-6, on_point=heard.append)
    assert heard == list(path.points)
    assert backend.opened == 5
    size, trimmed = path.points[0].found.result.size, 0
    held = size["rows"]
    for point, opened_with in zip(path.points, backend.rows[1:], strict=False):
        held += point.found.result.cuts
        if opened_with < held:
            assert held - size["rows"] > size["rows"] + size["columns"]
            held, trimmed = opened_with, trimmed + 1
        assert opened_with == held
    assert trimmed
    full = weight_path(changed(task, formulation=None, epsilon=0.0), (1.0, 2.0), backend=(both := CountingRows()))
    first = full.points[0].found.result
    assert both.rows[1] == first.size["rows"] + first.cuts > first.size["rows"]
    assert len(full.points) == both.opened == 2


def test_ctrl_c_in_a_solve_keeps_its_best_point():
    g = np.random.default_rng(0)
    task = replace(question(relu_mlp, 0), images=g.uniform(0, 1, (40, 8)), labels=g.integers(0, 4, 40), kind="binary", bounds="sound")
    ctrl_c = CtrlC(armed=False)
    path = weight_path(task, (0.0, 3.0, 4.0), mip_gap=0.0, on_event=ctrl_c, on_point=lambda point: ctrl_c.arm())
    assert path.interrupted
    assert [point.value for point in path.points] == [0.0, 3.0]
    assert path.points[-1].found.result.status is mn.Status.INTERRUPTED
    assert path.points[-1].found.scores is not None


def test_ctrl_c_between_two_solves_keeps_the_points_so_far():
    def ctrl_c(point):
        if point.value == 2.0:
            raise KeyboardInterrupt

    path = weight_path(question(relu_mlp, 0), (1.0, 2.0, 4.0), on_point=ctrl_c)
    assert path.interrupted
    assert [point.value for point in path.points] == [1.0, 2.0]
    assert path.points[1].found.result.status is mn.Status.OPTIMAL


def test_weights_that_are_none():
    task = question(relu_mlp, 0)
    for weights in ((), (1.0, -1.0), (np.nan,)):
        with pytest.raises(InputError, match=r"the loss weights are|as `weights`; expected a list of numbers"):
            weight_path(task, weights)
    for wrong in ((0.0, 1.0, 8), (1.0, np.inf, 8), (1.0, 2.0, 1)):
        with pytest.raises(InputError, match="expected two positive numbers and 2 points or more"):
            spaced_weights(*wrong)
    assert spaced_weights(1, 16, 3) == pytest.approx((1.0, 4.0, 16.0))
