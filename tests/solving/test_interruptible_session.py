"""Ctrl-C is never lost: a solve that ends at the same time says so, and a solver that does not react is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

import mipnet as mn
from mipnet.app.files.solve_file import load_spec
from mipnet.app.runs.inputs import read_network
from mipnet.pruning.importance.by_class import by_class
from mipnet.pruning.importance.decoupled_parts import PartLabel, SolvedPart
from mipnet.pruning.importance.weight_path import weight_path
from mipnet.solving import interruptible_session, open_problem
from tests.interrupts import SECONDS_MAX, CtrlCAtTheEnd, Stubborn
from tests.nets import mlp
from tests.pruning.importance.test_frozen_network import question, relu_mlp
from tests.solving.test_tightening import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"


def posed() -> mn.Encoding:
    """The largest sum of the outputs of a small network over a box."""
    encoding = mn.encode(mlp(np.random.default_rng(3)), mn.LInf(np.zeros((1, mlp(np.random.default_rng(3)).input_shape[0])), 0.5))
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    return encoding


def test_a_solve_that_ends_as_ctrl_c_comes_is_optimal_and_interrupted():
    plain = mn.solve(posed())
    found = mn.solve(posed(), CtrlCAtTheEnd())
    assert (found.status, found.interrupted, found.verified) == (mn.Status.OPTIMAL, True, True)
    assert not plain.interrupted
    assert found.objective == pytest.approx(plain.objective, abs=1e-6)


def test_a_path_ends_at_a_point_that_ends_as_ctrl_c_comes():
    path = weight_path(question(relu_mlp, 3, loss=mn.Loss("margin")), (0.5, 5.0, 20.0), backend=CtrlCAtTheEnd(2))
    assert path.interrupted
    assert [point.found.result.status for point in path.points] == [mn.Status.OPTIMAL] * 2


def test_a_decoupled_run_keeps_the_part_and_ends():
    kept: dict[PartLabel, SolvedPart] = {}
    with pytest.raises(KeyboardInterrupt):
        by_class(question(relu_mlp, 3, loss=mn.Loss("margin")), backend=CtrlCAtTheEnd(2), on_done=kept.__setitem__)
    assert [(part.result.status, part.result.interrupted) for part in kept.values()] == [(mn.Status.OPTIMAL, False)] * 2


def test_bounds_end_with_the_element_that_ends_as_ctrl_c_comes():
    network, region, _ = tiny(1)
    backend = CtrlCAtTheEnd(3)
    mn.tighten(network, region, backend=backend, time_limit=SECONDS_MAX)
    assert backend.solves == 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_steps_of_pruning_end():
    network, train = read_network(load_spec(EXAMPLES / "digits.yaml")), mn.load("digits", split="train", shape=(64,))
    images, labels, counting = train.images[:100], train.labels[:100], CtrlCAtTheEnd(0)
    first = mn.prune_stepwise(network, images, labels, shares=(0.05,), gates=["fc2"], backend=counting)
    late = CtrlCAtTheEnd(counting.solves + 1)
    path = mn.prune_stepwise(network, images, labels, shares=(0.05, 0.1, 0.15), gates=["fc2"], backend=late)
    assert (first.interrupted, path.interrupted) == (False, True)
    assert [step.share for step in path.steps] == [step.share for step in first.steps]


def test_a_solver_that_does_not_react_is_left(monkeypatch):
    """What its events said is returned; it closes its session when it ends, and the next solve opens another one."""
    monkeypatch.setattr(interruptible_session, "REACTION_SECONDS_MAX", 0.05)
    backend, plain = Stubborn(), mn.solve(posed())
    with mn.open_problem(posed(), backend) as opened:
        left = opened.solve()
        assert (left.status, left.interrupted, left.verified) == (mn.Status.INTERRUPTED, True, True)
        assert left.message == "the solver did not react to Ctrl-C"
        assert left.objective == pytest.approx(plain.objective, abs=1e-6)
        assert not backend.closed.is_set()
        again = opened.solve()
        assert (again.status, again.interrupted) == (mn.Status.OPTIMAL, False)
        assert backend.opened == 2
    assert not backend.closed.is_set()
    backend.let_go.set()
    assert backend.closed.wait(SECONDS_MAX)


def test_an_interrupt_during_the_replay_keeps_the_result(monkeypatch):
    plain, calls, check = mn.solve(posed()), list[int](), open_problem.check_outcome

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        check(*given)

    monkeypatch.setattr(open_problem, "check_outcome", interrupted)
    found = mn.solve(posed())
    assert (found.status, found.interrupted, found.verified, len(calls)) == (mn.Status.OPTIMAL, True, True, 2)
    assert found.objective == plain.objective


@pytest.mark.parametrize(("nonzeros_min", "prepared"), [(0, True), (10**6, False)])
def test_a_large_problem_prepares_its_replay_before_the_solve(monkeypatch, nonzeros_min, prepared):
    """So that a result comes soon after Ctrl-C."""
    monkeypatch.setattr(open_problem, "PREPARED_NONZEROS_MIN", nonzeros_min)
    encoding, found = posed(), []
    with mn.open_problem(encoding, "highs") as opened:
        opened.solve(on_event=lambda event: found.append("node_sizes" in vars(encoding)))
    assert found[0] == prepared
