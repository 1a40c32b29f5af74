"""Balls of the sum and the Euclidean norm: points, bounds, programs and verdicts against scipy and arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, NonlinearConstraint, linprog, minimize

import mipnet as mn
from mipnet.errors import DataError, InputError
from mipnet.network.sets import Ball
from tests.sweep import in_turn, sweep
from tests.verification.worked import INPUTS, OUTPUTS, pieces, random_network

BACKENDS = ("highs", "scip")
NORMS = ("l1", "l2")
MAKE = {"l1": mn.L1, "l2": mn.L2}
ORDER = {"l1": 1, "l2": 2}


def within(rng, norm, centre, radius, count):
    """Points of a ball, many on its surface."""
    away = rng.normal(size=(count, centre.size)) * (rng.uniform(size=(count, centre.size)) < 0.6)
    length = np.maximum(np.linalg.norm(away, ORDER[norm], axis=1), 1e-12)
    return centre + away / length[:, None] * radius * rng.choice([1.0, 0.5], (count, 1))


def least_over_ball(net, rows, norm, centre, radius, clip):
    """The minimum of ``rows @ y`` over the clipped ball, from one LP (l1) or one convex program (l2) per activation pattern."""
    best = np.inf
    for matrix, right, slope, constant in pieces(net):
        cost, limits = rows @ slope, [clip] * INPUTS
        if norm == "l1":
            signs = np.array(list(itertools.product((-1.0, 1.0), repeat=INPUTS)))
            found = linprog(cost, A_ub=np.vstack([matrix, signs]), b_ub=np.concatenate([right, radius + signs @ centre]), bounds=limits)
            value = found.fun if found.success else np.inf
        else:
            feasible = linprog(np.zeros(INPUTS), A_ub=matrix, b_ub=right, bounds=limits)
            if not feasible.success:
                continue
            start = feasible.x
            inside = [LinearConstraint(matrix, -np.inf, right), NonlinearConstraint(lambda x: ((x - centre) ** 2).sum(), 0, radius**2)]
            with np.errstate(all="ignore"):
                found = minimize(lambda x, c=cost: c @ x, start, jac=lambda x, c=cost: c, bounds=limits, constraints=inside, method="SLSQP",
                                 options={"maxiter": 300, "ftol": 1e-12})  # fmt: skip
            ok = (matrix @ found.x <= right + 1e-7).all() and np.linalg.norm(found.x - centre) <= radius + 1e-7
            value = found.fun if ok else np.inf
        best = min(best, value + rows @ constant)
    return best


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_point(norm):
    rng = np.random.default_rng(0)
    region = MAKE[norm](rng.uniform(size=(1, 6)), 0.4, 0, 1)
    x = rng.uniform(-0.5, 1.5, (200, 6))
    moved = region.ball.nearest(x)
    assert (np.linalg.norm(moved - region.ball.centre, ORDER[norm], axis=1) <= 0.4).all()
    for other in (within(rng, norm, region.ball.centre[0], 0.4, 4000),):
        closest = np.linalg.norm(x[:, None] - other, axis=2).min(axis=1)
        assert (np.linalg.norm(x - moved, axis=1) <= closest + 1e-9).all()
    kept = within(rng, norm, region.ball.centre[0], 0.39, 50)
    np.testing.assert_array_equal(region.ball.nearest(kept), kept)
    assert all(region.contains(point[None], 0.0) for point in region.nearest(x))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", sweep(range(4), every=4))
def test_bounds_hold_in_the_ball_and_are_tighter_than_those_of_its_box(norm, seed):
    rng, net = np.random.default_rng(seed), random_network(seed)
    region = MAKE[norm](rng.uniform(0.1, 0.9, (1, INPUTS)), 0.6, 0, 1)
    x = region.nearest(within(rng, norm, region.ball.centre[0], 0.6, 4000).clip(0, 1))
    values = net.values(torch.tensor(x))
    for method in ("interval", "crown", "alpha"):
        bounds = mn.propagate(net, region, method=method)
        box = mn.propagate(net, mn.Box(region.lower, region.upper), method=method)
        for node in net.nodes:
            own, value = bounds.after[node.name], values[node.name]
            assert bool(((value >= own.lower - 1e-9) & (value <= own.upper + 1e-9)).all())
            assert bool((own.width <= box.after[node.name].width + 1e-9).all())
        if method != "interval":
            assert float(bounds.after["fc0"].width.mean()) < float(box.after["fc0"].width.mean()) - 1e-3


def test_a_linear_function_of_a_ball_by_hand():
    net = mn.Network.build((2,), [("fc", mn.Dense(torch.tensor([[3.0, 4.0]])))])
    for norm, reach in (("l1", 4.0), ("l2", 5.0)):
        box = mn.propagate(net, MAKE[norm](np.zeros((1, 2)), 0.1), method="crown").after["fc"]
        assert box.upper.item() == pytest.approx(0.1 * reach, abs=1e-9)
        assert box.lower.item() == pytest.approx(-0.1 * reach, abs=1e-9)
        cut = mn.propagate(net, MAKE[norm](np.zeros((1, 2)), 0.1, 0.0, 1.0), method="crown").after["fc"]
        assert cut.lower.item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("norm", "backend"), in_turn(NORMS, BACKENDS))
@pytest.mark.parametrize("seed", sweep(range(2), every=2))
def test_an_encoding_over_a_ball_has_its_extremes(norm, backend, seed):
    rng, net = np.random.default_rng(seed), random_network(seed)
    centre = rng.uniform(0.2, 0.8, INPUTS)
    encoding = mn.encode(net, MAKE[norm](centre[None], 0.5, 0, 1))
    row = rng.normal(size=OUTPUTS)
    weights = encoding.labelled(row[None], encoding.output.dims)
    encoding.model.add_objective((encoding.output * weights).sum())
    result = mn.solve(encoding, backend, mip_gap=1e-6)
    truth = least_over_ball(net, row, norm, centre, 0.5, (0.0, 1.0))
    assert result.status is mn.Status.OPTIMAL
    assert result.verified
    assert result.bound <= truth + 1e-5
    assert result.objective == pytest.approx(truth, abs=2e-4)
    assert encoding.region.contains(encoding.value("input", result.point), 1e-6)


@pytest.mark.parametrize(("norm", "backend"), in_turn(NORMS, BACKENDS))
def test_verdicts_on_both_sides_of_the_true_extreme(norm, backend):
    rng, net = np.random.default_rng(5), random_network(5)
    centre, row = rng.uniform(0.2, 0.8, INPUTS), rng.normal(size=(1, OUTPUTS))
    edge = least_over_ball(net, row[0], norm, centre, 0.5, (0.0, 1.0))
    region = MAKE[norm](centre[None], 0.5, 0, 1)
    safe = mn.verify(net, mn.Property((mn.Case(region, (mn.Clause(row, np.array([edge - 3e-3])),)),)), backend=backend)
    assert safe.status == "unsat"
    unsafe = mn.verify(net, mn.Property((mn.Case(region, (mn.Clause(row, np.array([edge + 3e-3])),)),)), backend=backend)
    assert unsafe.status == "sat"
    found = unsafe.counterexample
    assert np.linalg.norm(found - centre, ORDER[norm]) <= 0.5
    assert (row @ net.forward(found[None])[0] <= edge + 3e-3).all()


@pytest.mark.parametrize(("norm", "backend"), in_turn(NORMS, BACKENDS))
def test_the_solver_alone_decides(norm, backend, monkeypatch):
    """Without input splitting, search and branching, solvers prove properties that hold in the ball and not in its box."""
    from mipnet.verification import stages

    rng, net = np.random.default_rng(6), random_network(6)
    centre, row = rng.uniform(0.2, 0.8, INPUTS), rng.normal(size=(1, OUTPUTS))
    edge = least_over_ball(net, row[0], norm, centre, 0.5, (0.0, 1.0))
    region = MAKE[norm](centre[None], 0.5, 0, 1)
    monkeypatch.setattr(stages, "SPLITTING_INPUTS_MAX", 0)
    monkeypatch.setattr(stages.SignBranching, "applies_to", staticmethod(lambda network: False))
    monkeypatch.setattr(stages.CaseTrial, "_search", lambda self, rounds: None)
    monkeypatch.setattr(stages.CaseTrial, "_propagate", lambda self, method: None)
    for shift, status in ((-3e-3, "unsat"), (3e-3, "sat")):
        question = mn.Property((mn.Case(region, (mn.Clause(row, np.array([edge + shift])),)),))
        verdict = mn.verify(net, question, backend=backend)
        assert (verdict.status, verdict.stage) == (status, "mip")
        if status == "sat":
            assert np.linalg.norm(verdict.counterexample - centre, ORDER[norm]) <= 0.5


def test_bounds_of_a_ball_are_not_those_of_its_box():
    net, ball = random_network(0), mn.L2(np.full((1, INPUTS), 0.5), 0.3)
    known = mn.propagate(net, ball)
    mn.encode(net, mn.L2(np.full((1, INPUTS), 0.5), 0.2), bounds=mn.propagate(net, mn.LInf(np.full((1, INPUTS), 0.5), 0.3)))
    mn.encode(net, mn.L2(np.full((1, INPUTS), 0.5), 0.3), bounds=known)
    for other in (mn.LInf(np.full((1, INPUTS), 0.5), 0.3), mn.L1(np.full((1, INPUTS), 0.5), 0.3), mn.L2(np.full((1, INPUTS), 0.6), 0.2)):
        with pytest.raises(InputError, match="another input set"):
            mn.encode(net, other, bounds=known)


@pytest.mark.parametrize("norm", NORMS)
def test_single_precision_stays_inside_the_ball(norm):
    rng = np.random.default_rng(2)
    case = mn.Case(MAKE[norm](rng.uniform(size=(1, 300)), 0.3, 0, 1), (mn.Clause(np.zeros((1, 1)), np.ones(1)),))
    oracle = mn.Oracle("float32", lambda x: x[:, :1], np.float32)
    x = case.region.nearest(within(rng, norm, case.region.ball.centre[0], 0.3, 50).clip(0, 1))
    rounded = oracle.rounded(case, x)
    assert rounded.dtype == np.float32
    assert case.contains(rounded.astype(np.float64)).all()
    assert np.abs(rounded - x).max() < 1e-5


def test_balls_that_are_none():
    with pytest.raises(DataError, match="outside of the valid range"):
        mn.L1([[1.2, 0.5]], 0.5, 0, 1)
    with pytest.raises(DataError, match="the radius of a ball is 0"):
        mn.L2([[0.2]], 0.0)
    with pytest.raises(InputError, match="given 'l3' as `norm`; expected `l1` or `l2`"):
        Ball(np.zeros((1, 2)), 1.0, "l3")
    with pytest.raises(DataError, match="has a centre of shape"):
        mn.Box(np.zeros((1, 2)), np.ones((1, 2)), Ball(np.zeros((1, 3)), 1.0, "l1"))


def test_several_samples_have_a_ball_each():
    net, rng = random_network(1), np.random.default_rng(1)
    centres = rng.uniform(size=(3, INPUTS))
    bounds = mn.propagate(net, mn.L2(centres, 0.3), method="crown")
    for k, centre in enumerate(centres):
        alone = mn.propagate(net, mn.L2(centre[None], 0.3), method="crown")
        for name in ("fc0", "fc1", "out"):
            np.testing.assert_allclose(bounds.after[name].lower[k], alone.after[name].lower[0], atol=1e-12)
    encoding = mn.encode(net, mn.L1(centres, 0.3))
    encoding.model.add_objective(1 * encoding.output.sum())
    result = mn.solve(encoding, "highs", mip_gap=1e-6)
    truth = sum(least_over_ball(net, np.ones(OUTPUTS), "l1", centre, 0.3, (-9.0, 9.0)) for centre in centres)
    assert result.objective == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize("norm", sweep(NORMS, every=2))
def test_reach_brackets_the_extremes_of_a_ball(norm):
    net, centre = random_network(2), np.random.default_rng(2).uniform(0.2, 0.8, INPUTS)
    region = MAKE[norm](centre[None], 0.5, 0, 1)
    found = mn.reach(net, region)
    for k, (low, high) in enumerate(zip(found.lowest, found.highest, strict=True)):
        row = np.eye(OUTPUTS)[k]
        for end, truth, sign in ((low, least_over_ball(net, row, norm, centre, 0.5, (0.0, 1.0)), 1), (high, None, -1)):
            truth = -least_over_ball(net, -row, norm, centre, 0.5, (0.0, 1.0)) if truth is None else truth
            assert sign * end.bound <= sign * truth + 1e-6
            assert end.value == pytest.approx(truth, abs=1e-3)
            assert region.contains(end.point[None], 1e-9)


def test_networks_that_differ_outside_of_the_ball_only():
    always = mn.Network.build((2,), [("out", mn.Dense(torch.zeros(2, 2).double(), torch.tensor([0.0, 1.0]).double()))])
    shifted = mn.Dense(torch.eye(2).double(), torch.tensor([-0.5, -0.5]).double())
    last = mn.Dense(torch.tensor([[1.0, 1.0], [0.0, 0.0]]).double(), torch.tensor([0.0, 0.4]).double())
    far = mn.Network.build((2,), [("fc", shifted), ("relu", mn.ReLU()), ("out", last)])
    assert mn.agree_on_class(always, far, mn.L1([[0.5, 0.5]], 0.3)).agree is True
    assert mn.agree_on_class(always, far, mn.LInf([[0.5, 0.5]], 0.3)).agree is False
