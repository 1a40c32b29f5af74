"""Verdicts against the true extremes of small networks, from one linear program of scipy per activation pattern."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import mipnet as mn
from mipnet.errors import InputError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.properties import Case, Clause, Property
from mipnet.readers.vnnlib import parse_vnnlib
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification import stages
from mipnet.verification.clause_network import Excess
from mipnet.verification.clause_program import ClauseProgram
from mipnet.verification.input_splitting import InputSplitting
from mipnet.verification.oracle import Oracle
from mipnet.verification.sign_branching import SignBranching
from tests.sweep import in_turn, sweep
from tests.verification.worked import INPUTS, OUTPUTS, pieces, random_network

BACKENDS = ("highs", "scip")
HIDDEN = (5, 4)


def least(net, region, rows, rhs):
    """The minimum over the box of the largest ``rows @ y - rhs``, from one LP for each of the 512 activation patterns."""
    best = np.inf
    for matrix, right, slope, constant in pieces(net):
        upper = np.block([[matrix, np.zeros((len(matrix), 1))], [rows @ slope, -np.ones((len(rows), 1))]])
        limits = [*zip(region.lower.reshape(-1), region.upper.reshape(-1), strict=True), (None, None)]
        found = linprog([0.0] * INPUTS + [1.0], A_ub=upper, b_ub=np.concatenate([right, rhs - rows @ constant]), bounds=limits)
        if found.success:
            best = min(best, found.fun)
    return best


@cache
def problem(seed, rows):
    """A network, a box, and rows with right-hand sides for which the smallest excess is 0; worked out once per process."""
    g = np.random.default_rng(seed)
    centre = g.normal(size=(1, INPUTS))
    region, matrix = mn.Box(centre - 0.7, centre + 0.7), g.normal(size=(rows, OUTPUTS))
    net = random_network(seed, HIDDEN)
    return net, region, matrix, np.full(rows, least(net, region, matrix, np.zeros(rows)))


def asked(region, *clauses):
    return Property((Case(region, tuple(clauses)),))


CASES = sweep([(seed, rows) for seed in range(4) for rows in (1, 2)], every=3)


@pytest.mark.parametrize(("seed", "rows", "backend"), in_turn(CASES, BACKENDS))
def test_verdicts_on_both_sides_of_the_true_extreme(seed, rows, backend):
    net, region, matrix, edge = problem(seed, rows)
    safe = mn.verify(net, asked(region, Clause(matrix, edge - 1e-3)), backend=backend)
    assert safe.status == "unsat"
    assert 0 < safe.bound <= 1e-3 + 1e-9
    assert safe.counterexample is None
    unsafe = mn.verify(net, asked(region, Clause(matrix, edge + 1e-3)), backend=backend)
    assert unsafe.status == "sat"
    x = torch.tensor(unsafe.counterexample)[None]
    y = x
    for node in net.nodes:
        y = node.layer.forward(y)
    assert (matrix @ y.numpy()[0] <= edge + 1e-3).all()
    assert region.contains(unsafe.counterexample[None], 0.0)


@pytest.mark.parametrize(("seed", "rows"), CASES)
def test_every_stage_proves_it_alone(seed, rows):
    net, region, matrix, edge = problem(seed, rows)
    for shift, proven in ((-1e-3, True), (1e-3, False)):
        clause = Clause(matrix, edge + shift)
        excess = Excess.of(net, [clause])
        bounds = mn.propagate(excess.network, region, method="crown")
        case = Case(region, (clause,))

        def confirm(x, case=case):
            found = Oracle.of(net).first(case, x)
            return None if found is None else found[0]

        done, found = InputSplitting(excess, region, confirm, NO_DEADLINE).run()
        assert (done, found is None) == (proven, proven)
        for backend in BACKENDS:
            with ClauseProgram(excess, bounds, MipSettings(backend), confirm) as program:
                answer = program.decide(0, Deadline.after(60))
                assert (answer.bound > 0, answer.counterexample is None) == (proven, proven)
        if rows == 1:
            branching = SignBranching(excess, bounds, 0, confirm, NO_DEADLINE)
            done, found = branching.run()
            assert proven or not done  # its multipliers need not reach the best ones, and a solver is there for the rest
            assert branching.bound <= -shift + 1e-9


@pytest.mark.parametrize("seed", sweep(range(8), every=4))
def test_branching_proves_what_linear_bounds_do_not(seed):
    net, region, matrix, edge = problem(seed, 1)
    span = np.ptp(net.forward(region.lower + np.random.default_rng(0).uniform(size=(4000, INPUTS)) * 1.4) @ matrix[0])
    excess = Excess.of(net, [Clause(matrix, edge - 0.3 * span)])
    bounds = mn.propagate(excess.network, region, method="crown")
    branching = SignBranching(excess, bounds, 0, lambda x: None, NO_DEADLINE)
    assert branching.run() == (True, None)
    assert 0 < branching.bound <= 0.3 * span + 1e-9
    assert branching.branches > 1 or bounds.after["excess"].lower.item() > -0.3 * span


def test_clauses_and_cases_are_one_disjunction():
    net, region, matrix, edge = problem(0, 1)
    far, near = Clause(matrix, edge - 1.0), Clause(matrix, edge + 1e-3)
    assert mn.verify(net, asked(region, far, far)).status == "unsat"
    assert mn.verify(net, asked(region, far, near)).status == "sat"
    both = Property((Case(region, (far,)), Case(region, (near,))))
    found = mn.verify(net, both)
    assert found.status == "sat"
    assert {finding.case for finding in found.findings} == {0, 1}
    assert mn.verify(net, Property((Case(region, ()),))).status == "unsat"
    anything = Clause(np.zeros((0, OUTPUTS)), np.zeros(0))
    assert mn.verify(net, asked(region, anything)).status == "sat"


def test_a_second_backend_has_to_agree():
    net, region, matrix, edge = problem(1, 1)
    verdict = mn.verify(net, asked(region, Clause(matrix, edge - 1e-3)), backend="highs", cross_check="scip")
    assert verdict.status == "unsat"
    assert verdict.note == "scip agrees"


def test_no_point_is_sat_that_the_oracle_does_not_confirm():
    net, region, matrix, edge = problem(2, 1)
    stubborn = Oracle("stubborn", lambda x: net.forward(x) + 10.0 * matrix)
    verdict = mn.verify(net, asked(region, Clause(matrix, edge + 1e-3)), oracle=stubborn, time_limit=120)
    assert verdict.status == "unknown"
    assert verdict.counterexample is None


def test_single_precision_stays_inside_the_box():
    net, g = random_network(3, HIDDEN), np.random.default_rng(0)
    lower = g.normal(size=(1, INPUTS))
    case = Case(mn.Box(lower, lower + 1e-6), (Clause(np.zeros((1, OUTPUTS)), np.ones(1)),))
    oracle = Oracle("float32", lambda x: net.forward(x), np.float32)
    for x in (case.region.lower, case.region.upper):
        rounded = oracle.rounded(case, x)
        assert rounded.dtype == np.float32
        assert case.contains(rounded.astype(np.float64)).all()


def test_questions_that_do_not_fit():
    net, region, matrix, edge = problem(0, 1)
    with pytest.raises(InputError, match="4 inputs; the network has 3"):
        mn.verify(net, asked(mn.Box(np.zeros((1, 4)), np.ones((1, 4))), Clause(matrix, edge)))
    with pytest.raises(InputError, match="is written for 2 outputs; the network has 3"):
        mn.verify(net, asked(region, Clause(matrix[:, :2], edge)))
    with pytest.raises(InputError, match="the time limit is 0"):
        mn.verify(net, asked(region, Clause(matrix, edge)), time_limit=0)


def test_without_undecided_units_nothing_is_left_to_branch_on():
    net = mn.Network.build((2,), [("fc", mn.Dense(torch.eye(2, dtype=torch.float64), torch.ones(2))), ("relu", mn.ReLU())])
    region, clause = mn.Box(np.zeros((1, 2)), np.ones((1, 2))), Clause(np.array([[1.0, 0.0]]), np.array([1.0]))
    excess = Excess.of(net, [clause])
    branching = SignBranching(excess, mn.propagate(excess.network, region, method="crown"), 0, lambda x: None, NO_DEADLINE)
    assert branching.run() == (False, None)
    assert mn.verify(net, asked(region, clause)).status == "sat"  # the row is met with equality, and that counts


def test_out_of_time_is_unknown(monkeypatch):
    net, region, matrix, edge = problem(0, 1)
    monkeypatch.setattr(stages, "SPLITTING_INPUTS_MAX", 0)
    verdict = mn.verify(net, asked(region, Clause(matrix, edge - 1e-3)), time_limit=1e-3)
    assert verdict.status == "unknown"
    assert verdict.stage is None


KINKED = mn.Network.build((1,), [("fc", mn.Dense(torch.tensor([[1.0]]), torch.tensor([-1.0]))), ("relu", mn.ReLU())])  # max(x - 1, 0)

STRICT = [
    ("(<= Y_0 0)", "sat"),
    ("(< Y_0 0)", "unknown"),  # its closure holds, at every x up to 1: no bound can refute it, and no point satisfies it
    ("(> Y_0 1)", "unknown"),
    ("(>= Y_0 1)", "sat"),
    ("(> Y_0 1.5)", "unsat"),
    ("(and (>= Y_0 1) (< X_0 2))", "unknown"),
    ("(and (> Y_0 0) (< X_0 2))", "sat"),
    ("(and (<= Y_0 0) (> X_0 0) (< X_0 1e-30))", "sat"),
    ("(and (> Y_0 0.99) (< X_0 2))", "sat"),
    ("(or (< Y_0 0) (> Y_0 1))", "unknown"),
]


@pytest.mark.parametrize(("formula", "status", "dtype"), in_turn(STRICT, [np.float64, np.float32]))
def test_strict_comparisons_hold_strictly_and_are_refuted_with_their_closure(formula, status, dtype):
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= 0 X_0 2))"
    oracle = Oracle("torch", lambda x: KINKED.forward(x.astype(np.float64)), dtype)
    verdict = mn.verify(KINKED, parse_vnnlib(f"{text}(assert {formula})"), time_limit=20, oracle=oracle)
    assert verdict.status == status
    if status == "sat":
        x, y = verdict.counterexample, verdict.output
        assert parse_vnnlib(f"{text}(assert {formula})").holds_at(x[None], y[None]).all()


def test_of_several_rows_one_may_be_strict():
    region = mn.Box(np.zeros((1, 1)), np.full((1, 1), 2.0))
    closed = mn.verify(KINKED, asked(region, Clause([[1.0], [-1.0]], [1.0, -1.0])), time_limit=20)  # y = 1
    half = mn.verify(KINKED, asked(region, Clause([[1.0], [-1.0]], [1.0, -1.0], [True, False])), time_limit=20)  # 1 <= y < 1
    assert (closed.status, half.status) == ("sat", "unknown")
