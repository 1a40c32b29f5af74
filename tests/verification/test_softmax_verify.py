"""Properties about probabilities: verdicts against torch on a grid, the rewritten rows, and who has the last word near 0 and 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.errors import UnsupportedError
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.properties import Case, Clause, Property
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification import stages
from mipnet.verification.clause_network import Excess, LogSumBlock
from mipnet.verification.clause_objectives import minorants
from mipnet.verification.clause_program import ClauseProgram
from mipnet.verification.softmax_rows import LogitClause, logit_clauses
from tests.sweep import in_turn, sweep
from tests.verification.softmaxes import grid, made, run, samples

BACKENDS = ("highs", "scip")

ROWS = {
    "at least": ("softmax", 4, [[-1, 0, 0, 0]]),
    "at most": ("softmax", 3, [[0, 1, 0]]),
    "two classes": ("softmax", 2, [[0, -1]]),
    "a sum": ("softmax", 4, [[0, 1, 1, 0]]),
    "a difference": ("softmax", 3, [[1, -1, 0]]),
    "factors": ("softmax", 4, [[2, -1, 0.5, 0]]),
    "two rows": ("softmax", 3, [[-1, 0, 0], [0, 1, 0]]),
    "log at least": ("log_softmax", 3, [[0, 0, -1]]),
    "log at most": ("log_softmax", 4, [[3, 0, 0, 0]]),
    "log of two": ("log_softmax", 2, [[-2, 0]]),
    "log difference": ("log_softmax", 3, [[1, -2, 1]]),
}
"""The kind, the number of outputs, and the matrix of a clause."""


def asked(region: mn.Box, *clauses: Clause) -> Property:
    return Property((Case(region, tuple(clauses)),))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("seed", "backend"), sweep([(s, b) for s in range(4) for b in BACKENDS], every=8))
def test_both_sides_of_the_extreme_on_a_grid(name: str, seed: int, backend: str) -> None:
    kind, outputs, rows = ROWS[name]
    module, network, region = made(kind, outputs, seed)
    matrix = np.array(rows, dtype=float)
    values = run(module, grid()) @ matrix.T
    start = np.median(values, axis=0)
    excess = (values - start).max(axis=1)
    edge, span = excess.min(), np.ptp(excess)
    safe = mn.verify(network, asked(region, Clause(matrix, start + edge - 0.05 * span)), backend=backend, time_limit=60)
    assert safe.status == "unsat"
    unsafe = mn.verify(network, asked(region, Clause(matrix, start + edge + 0.01 * span)), backend=backend, time_limit=60)
    assert unsafe.status == "sat"
    assert unsafe.counterexample is not None
    y = run(module, unsafe.counterexample[None])
    assert np.allclose(unsafe.output, y[0], rtol=0, atol=1e-14)
    assert (y @ matrix.T <= start + edge + 0.01 * span).all()


@pytest.mark.parametrize(("name", "backend"), in_turn(ROWS, BACKENDS))
def test_a_solver_bounds_the_excess_from_below(name: str, backend: str) -> None:
    """The program alone: its bound holds on the grid, and is tight where there is one logit on each side."""
    kind, outputs, rows = ROWS[name]
    module, network, region = made(kind, outputs, 7, scale=0.5)
    matrix = np.array(rows, dtype=float)
    clause = Clause(matrix, np.median(run(module, grid()) @ matrix.T, axis=0) - 0.01)
    (rewritten,) = logit_clauses(network, [clause])
    excess = Excess.of(network, [rewritten])
    truth = float(excess(torch.tensor(grid())).min())
    with ClauseProgram(excess, mn.propagate(excess.network, region, method="alpha"), MipSettings(backend), lambda x: None) as program:
        bound = program.minimise(0, np.inf).bound
    assert bound <= truth + 1e-9
    simple = not isinstance(rewritten, LogitClause) or not rewritten.log_sums
    assert bound >= truth - (0.02 if simple else 0.6)


@pytest.mark.parametrize("name", ROWS)
def test_rewritten_rows_hold_where_the_rows_hold(name: str) -> None:
    """The signs of both excesses are the same, but for rounding."""
    kind, outputs, rows = ROWS[name]
    module, network, _ = made(kind, outputs, 3, scale=20.0)
    x, matrix = samples(2, 3000), np.array(rows, dtype=float)
    p = run(module, x)
    for quantile in (0.02, 0.5, 0.98):
        clause = Clause(matrix, np.quantile(p @ matrix.T, quantile, axis=0) + 1e-7)
        found, true = Excess.of(network, logit_clauses(network, [clause]))(torch.tensor(x))[:, 0].numpy(), clause.excess(p)
        assert (found[true <= 0] <= 0).all()
        assert (found[true > 1e-6] > 0).all()
        assert (true <= 0).any()


def test_comparisons_stay_as_they_are() -> None:
    _, network, _ = made("softmax", 3, 0)
    compared = Clause(np.array([[2.0, -2.0, 0.0], [0.0, 1.0, -1.0]]), np.zeros(2))
    assert logit_clauses(network, [compared])[0] is compared
    _, logs, _ = made("log_softmax", 3, 0)
    shifted = Clause(np.array([[1.0, -3.0, 2.0]]), np.ones(1))
    assert logit_clauses(logs, [shifted])[0] is shifted
    assert logit_clauses(network.without_softmax(), [shifted])[0] is shifted
    (threshold,) = logit_clauses(made("softmax", 2, 0)[1], [Clause(np.array([[0.0, -1.0]]), np.array([-0.9]))])
    assert threshold.matrix.tolist() == [[1.0, -1.0]]
    assert threshold.rhs[0] == pytest.approx(np.log(0.1 / 0.9), abs=1e-12)
    assert threshold.rhs[0] > np.log(0.1 / 0.9)  # outwards


def test_thresholds_are_moved_outwards_by_the_rounding_of_the_oracle() -> None:
    _, pair, _ = made("softmax", 2, 0)
    exact = np.log(0.1 / 0.9)
    at_least = Clause(np.array([[0.0, -1.0]]), np.array([-0.9]))
    (double,), (single,) = (logit_clauses(pair, [at_least], dtype) for dtype in (np.float64, np.float32))
    assert exact < double.rhs[0] < exact + 1e-11
    assert exact + 1e-6 < single.rhs[0] < exact + 1e-4
    between = Clause(np.array([[0.0, -1.0], [0.0, 1.0]]), np.array([-0.2, 0.7]))
    assert logit_clauses(pair, [between])[0].matrix.tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    for kind, side in (("softmax", -1.0), ("log_softmax", 0.0)):  # reached by rounding, and never beyond it
        (certain,) = logit_clauses(made(kind, 2, 0)[1], [Clause(np.array([[0.0, -1.0]]), np.array([side]))], np.float32)
        assert certain.matrix.tolist() == [[1.0, -1.0]]
        assert -20 < certain.rhs[0] < -12
        (never,) = logit_clauses(made(kind, 2, 0)[1], [Clause(np.array([[0.0, -1.0]]), np.array([side - 1e-5]))], np.float32)
        assert (never.matrix.tolist(), never.rhs.tolist()) == ([[0.0, 0.0]], [-1.0])


@pytest.mark.parametrize(
    ("row", "side", "status"),
    [
        ([1.0, 0.0, 0.0], 1.0, "sat"),
        ([1.0, 0.0, 0.0], 2.0, "sat"),
        ([-1.0, 0.0, 0.0], 0.0, "sat"),
        ([1.0, 1.0, 1.0], 1.5, "sat"),
        ([0.0, 0.0, 0.0], 0.0, "sat"),
        ([1.0, 0.0, 0.0], -1e-3, "unsat"),
        ([1.0, 0.0, 0.0], 0.0, "unsat"),
        ([-1.0, 0.0, 0.0], -1.0, "unsat"),
        ([-1.0, -1.0, -1.0], -1.001, "unsat"),
        ([0.0, 0.0, 0.0], -1.0, "unsat"),
    ],
)
def test_thresholds_that_no_probability_reaches_or_every_one_does(row: list[float], side: float, status: str) -> None:
    _, network, region = made("softmax", 3, 0)
    verdict = mn.verify(network, asked(region, Clause(np.array([row]), np.array([side]))), time_limit=20)
    assert verdict.status == status


@pytest.mark.parametrize(("side", "status"), [(0.0, "sat"), (1.0, "sat"), (-1000.0, "unsat")])
def test_a_log_probability_is_at_most_0(side: float, status: str) -> None:
    _, network, region = made("log_softmax", 3, 0)
    assert mn.verify(network, asked(region, Clause(np.array([[0.0, 1.0, 0.0]]), np.array([side]))), time_limit=20).status == status
    never = mn.verify(network, asked(region, Clause(np.array([[0.0, -1.0, 0.0]]), np.array([-1e-9]))), time_limit=20)
    assert never.status == "unsat"


@pytest.mark.parametrize(("row", "side"), [([-1.0, 0.0, 0.0], -1.0), ([0.0, 1.0, 0.0], 0.0)])
def test_onnxruntime_has_the_last_word_where_probabilities_are_rounded(tmp_path: Path, row: list[float], side: float) -> None:
    """In real arithmetic no probability is 0 or 1; in float32 these are, and the file is what counts."""
    module = nn.Sequential(nn.Linear(2, 3), nn.Softmax(1))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[90.0, 0.0], [-90.0, 0.0], [0.0, 1.0]]))
        module[0].bias.zero_()
    path = mn.export(module.eval(), tmp_path / "net.onnx", torch.zeros(1, 2))
    network = mn.read(path)
    question = asked(mn.Box(np.full((1, 2), -1.0), np.full((1, 2), 1.0)), Clause(np.array([row]), np.array([side])))
    verdict = mn.verify(network, question, oracle=mn.Oracle.of_file(path, network), time_limit=20)
    assert (verdict.status, verdict.confirmed_by) == ("sat", "onnxruntime")
    assert verdict.output is not None
    assert (np.array(row) @ verdict.output.reshape(-1) <= side).all()


def test_onnxruntime_has_the_last_word_on_comparisons_of_zeros(tmp_path: Path) -> None:
    """The logits of both classes differ, and their probabilities are 0 in float32: both comparisons hold."""
    module = nn.Sequential(nn.Linear(2, 3), nn.Softmax(1))
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.copy_(torch.tensor([-200.0, -210.0, 0.0]))
    path = mn.export(module.eval(), tmp_path / "net.onnx", torch.zeros(1, 2))
    network, region = mn.read(path), mn.Box(np.full((1, 2), -1.0), np.full((1, 2), 1.0))
    question = asked(region, Clause(np.array([[1.0, -1.0, 0.0]]), np.zeros(1)))
    assert mn.verify(network, question, oracle=mn.Oracle.of_file(path, network)).status == "sat"
    exact = mn.verify(network, question)
    assert (exact.status, exact.bound) == ("unsat", pytest.approx(10.0))


def test_a_softmax_over_channels_makes_one_distribution_per_position() -> None:
    layers = [("fc", mn.Dense(torch.randn(12, 2, dtype=torch.float64))), ("view", mn.Reshape((3, 2, 2)))]
    network = mn.Network.build((2,), layers, softmax=FinalSoftmax("softmax", (0,)))
    region = mn.Box(np.full((1, 2), -1.0), np.full((1, 2), 1.0))
    one = np.zeros((1, 12))
    one[0, 5] = -1.0  # channel 1 at position (0, 1)
    largest = network.outputs(grid()).reshape(-1, 12)[:, 5].max()
    assert mn.verify(network, asked(region, Clause(one, np.array([-largest - 0.02])))).status == "unsat"
    assert mn.verify(network, asked(region, Clause(one, np.array([-largest + 0.001])))).status == "sat"
    one[0, 6] = 1.0
    with pytest.raises(UnsupportedError, match="joins outputs of 2 distributions"):
        mn.verify(network, asked(region, Clause(one, np.zeros(1))))
    for ask in (
        lambda: mn.robustness(network, np.zeros(2), radius=0.1),
        lambda: mn.maximum_margin(network, region, 0),
        lambda: mn.minimum_distortion(network, np.zeros(2), upper=0.1),
        lambda: mn.agree_on_class(network, network, region),
    ):
        with pytest.raises(UnsupportedError, match="4 distributions"):
            ask()


def test_several_log_probabilities_in_one_row_are_refused() -> None:
    _, network, region = made("log_softmax", 3, 0)
    with pytest.raises(UnsupportedError, match=r"joins 2 outputs.*log_softmax.*without_softmax"):
        mn.verify(network, asked(region, Clause(np.array([[1.0, 1.0, 0.0]]), np.array([-5.0]))))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_solver_decides_many_inputs(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With twelve inputs nothing is split; without branching the thresholds of one of two classes are left to the solver."""
    monkeypatch.setattr(stages.CaseTrial, "_branch", lambda self: None)
    module, network, region = made("softmax", 2, 1, inputs=12, scale=1.0)
    (end,) = mn.reach(network.without_softmax(), region, [1.0, -1.0], time_limit=30).upper
    largest = 1 / (1 + np.exp(-end))
    safe = mn.verify(network, asked(region, Clause(np.array([[-1.0, 0.0]]), np.array([-largest - 1e-4]))), backend=backend)
    assert (safe.status, safe.stage) == ("unsat", "mip")
    unsafe = mn.verify(network, asked(region, Clause(np.array([[-1.0, 0.0]]), np.array([-largest + 1e-3]))), backend=backend)
    assert unsafe.status == "sat"
    assert unsafe.counterexample is not None
    assert run(module, unsafe.counterexample[None])[0, 0] >= largest - 1e-3


@pytest.mark.parametrize(
    ("outputs", "sign", "said"),
    [
        (2, -1.0, "scip agrees"),
        (4, -1.0, "scip agrees"),
        (4, 1.0, "did not refute clause 0 of case 0 from linear functions below its log-sum"),
    ],
)
def test_a_second_solver_on_a_threshold(outputs: int, sign: float, said: str) -> None:
    """It refutes what is linear or convex in the logits, as ``p >= t``; of ``p <= t`` it sees linear functions from interval bounds."""
    module, network, region = made("softmax", outputs, 0)
    rows = np.zeros((1, outputs))
    rows[0, 0] = sign
    side = (run(module, grid()) @ rows[0]).min() - 0.02
    verdict = mn.verify(network, asked(region, Clause(rows, np.array([side]))), cross_check="scip", time_limit=30)
    assert verdict.status == ("unsat" if said == "scip agrees" else "unknown")
    assert said in verdict.note
    assert "in whose units the bound is" in verdict.note


@pytest.mark.parametrize(("plus", "minus"), [(1, 1), (3, 1), (1, 3), (2, 4)])
def test_minorants_are_below_the_log_sum(plus: int, minus: int) -> None:
    generator, block = np.random.default_rng(0), LogSumBlock(0, plus, minus)
    for _ in range(50):
        low = generator.normal(size=plus * minus) * 10 ** generator.uniform(-2, 2)
        high = low + generator.exponential(size=plus * minus) * 10 ** generator.uniform(-9, 2)
        slopes, constants = minorants(block, low, high)
        assert ((slopes == 0) | (slopes >= 1e-7)).all()
        z = low + generator.uniform(size=(2000, plus * minus)).round(1) * (high - low)
        below = (z @ slopes.T + constants).max(axis=1)
        true = block.value(torch.tensor(z)).numpy()
        assert (below <= true + 1e-9 * (1 + np.abs(true))).all()
        if plus == minus == 1:
            assert np.allclose(below, z[:, 0], atol=1e-8, rtol=1e-8)


def test_the_clauses_of_a_block_are_told_apart() -> None:
    _, network, _ = made("softmax", 3, 0)
    clauses = logit_clauses(
        network, [Clause(np.array([[1.0, 0, 0]]), np.array([0.4])), Clause(np.array([[-1.0, 0, 0], [0, -1.0, 1.0]]), np.array([-0.3, 0.0]))]
    )
    excess = Excess.of(network, clauses)
    assert excess.owner.tolist() == [0, 0, 1, 1, 1]
    assert excess.linear.tolist() == [False, False, True, False, False]
    assert excess.refuting.tolist() == [False, False, True, True, True]
    x = torch.tensor(samples(2, 50))
    p = torch.tensor(network.outputs(x))
    holds = torch.stack([p[:, 0] <= 0.4, (p[:, 0] >= 0.3) & (p[:, 2] <= p[:, 1])], 1)
    assert torch.equal(excess(x) <= 0, holds)
