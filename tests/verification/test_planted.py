"""Planted errors: wrong programs and bounds never lead to a proof of a false property.

A trial is a small network, a row whose true least value is known (one linear program of scipy's for each pattern of signs), and an error
that lifts the least value of what is solved (scipy's `milp` on the arrays) by a percent at least.  Half way between the two the property
holds somewhere, and what is solved says that it does not.  Five or ten trials per kind, on both solvers; `make test` runs one per kind,
and the solvers take turns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds as Ends
from scipy.optimize import LinearConstraint, linprog, milp

import mipnet as mn
from mipnet.bounds.interval import Interval
from mipnet.errors import SolverFailure
from mipnet.limits.deadline import Deadline
from mipnet.model.to_program import from_model
from mipnet.solving import problem as problems
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification import clause_program, self_check, stages
from mipnet.verification.clause_network import Excess
from mipnet.verification.oracle import Oracle
from tests.sweep import marked, sweep
from tests.verification.worked import INPUTS, OUTPUTS, pieces, random_network

BACKENDS = ("highs", "scip")
KINDS = ("sign in the encoding", "sign in the matrix", "big-M halved", "bound cut by 10 %")
TRIALS = [(kind, seed) for kind in KINDS for seed in range(5 if kind.startswith("sign") else 10)]
"""Thirty; the backend takes turns, and the other one is asked for a second opinion."""
SWEPT = [(kind, seed) if seed == KINDS.index(kind) % 2 else marked((kind, seed)) for kind, seed in TRIALS]
encode, of_model = clause_program.encode, from_model


def true_least(net, region, row):
    limits = list(zip(region.lower[0], region.upper[0], strict=True))
    found = [
        (linprog(row @ slope, A_ub=matrix, b_ub=right, bounds=limits), row @ constant) for matrix, right, slope, constant in pieces(net)
    ]
    return min(each.fun + constant for each, constant in found if each.success)


def least_of(program):
    """The minimum of the arrays that a solver gets, by scipy; infinite if they are infeasible."""
    rows = LinearConstraint(program.rows.matrix, program.rows.lower, program.rows.upper)
    found = milp(program.cost, constraints=rows, bounds=Ends(program.lower, program.upper), integrality=program.integer.astype(int))
    return np.inf if found.fun is None else found.fun + program.offset


def flipped(network, rng):
    """The network with the sign of one weight flipped, in a layer before the last."""
    layers, chosen = [], rng.choice(["fc0", "fc1"])
    for node in network.nodes:
        layer = node.layer
        if node.name == chosen:
            weight = layer.weight.clone()
            where = tuple(rng.integers(0, n) for n in weight.shape)
            weight[where] *= -1
            layer = replace(layer, weight=weight)
        layers.append((node.name, layer, node.inputs))
    return mn.Network.build(network.input_shape, layers)


def entries(program, kind):
    """The entries of the matrix that an error may change: of rows without binaries, or of binaries (the big-Ms)."""
    coo = program.rows.matrix.tocoo()
    binary = program.integer[coo.col]
    with_binary = np.isin(coo.row, coo.row[binary])
    return np.flatnonzero(binary if kind == "big-M halved" else ~with_binary)


def cut(bounds, rng):
    """The same bounds, with one bound of one unstable unit moved 10 % closer to 0."""
    after = dict(bounds.after)
    name = rng.choice(["fc0", "fc1"])
    box = after[name]
    lower, upper = box.lower.clone(), box.upper.clone()
    open_ = ((lower < 0) & (upper > 0)).flatten().nonzero()[:, 0].numpy()
    if len(open_):
        (upper if rng.uniform() < 0.5 else lower)[0, rng.choice(open_)] *= 0.9
    after[name] = Interval(lower, upper)
    return replace(bounds, after=after)


class Planted:
    """One error: wrong versions of `encode` and `from_model`, for the first program only or for every program."""

    def __init__(self, kind, seed, only_first=False):
        self.kind, self.rng_seed, self.only_first = kind, seed, only_first
        self.calls, self.made = 0, 0

    def encode(self, network, region, *, bounds, formulation=None, time_limit=None):
        self.calls += 1
        self.spoil = self.calls == 1 or not self.only_first
        rng = np.random.default_rng(self.rng_seed)
        if not self.spoil or self.kind in ("sign in the matrix", "big-M halved"):
            return encode(network, region, bounds=bounds, formulation=formulation)
        if self.kind == "bound cut by 10 %":
            return encode(network, region, bounds=cut(bounds, rng), formulation=formulation)
        encoding = encode(flipped(network, rng), region, bounds="crown", formulation=formulation)
        encoding.network = network
        return encoding

    def from_model(self, model, convex=()):
        program, rng = of_model(model, convex), np.random.default_rng(self.rng_seed)
        if self.spoil and self.kind in ("sign in the matrix", "big-M halved") and len(entries(program, self.kind)):
            where = rng.choice(entries(program, self.kind))
            matrix = program.rows.matrix.copy()
            matrix.data[where] *= -1 if self.kind == "sign in the matrix" else 0.5
            program = replace(program, rows=replace(program.rows, matrix=matrix))
        return program


_KNOWN = {}


def trial(kind, seed):
    """A network, a region, a clause, and the seed of an error that changes the verdict; searched once."""
    right, made = 0.0, -1
    for number in range(_KNOWN.get((kind, seed), 0), 400):
        net, g = random_network(1000 * seed + number // 4), np.random.default_rng(seed + number // 4)
        centre, row = g.normal(size=(1, INPUTS)), g.normal(size=(1, OUTPUTS))
        region = mn.Box(centre - 1.0, centre + 1.0)
        excess, planted = Excess.of(net, [mn.Clause(row, np.zeros(1))]), Planted(kind, number)
        encoding = planted.encode(excess.network, region, bounds=mn.propagate(excess.network, region, method="crown"))
        encoding.model.add_objective(1 * encoding.output)
        wrong = least_of(planted.from_model(encoding.model))
        if made != number // 4:
            right, made = least_of(of_model(model(excess, region))), number // 4
        if not right + 1e-2 * (1 + abs(right)) < wrong < np.inf:
            continue
        truth = true_least(net, region, row[0])
        assert right == pytest.approx(truth, abs=1e-5)
        _KNOWN[kind, seed] = number
        return net, region, mn.Clause(row, np.array([(truth + wrong) / 2])), number
    raise AssertionError("no error that matters")


def model(excess, region):
    """The program without an error."""
    encoding = encode(excess.network, region, bounds="crown")
    encoding.model.add_objective(1 * encoding.output)
    return encoding.model


def plant(monkeypatch, kind, error, **how):
    planted = Planted(kind, error, **how)
    monkeypatch.setattr(clause_program, "encode", planted.encode)
    monkeypatch.setattr(problems, "from_model", planted.from_model)
    return planted


def alone(net, region, clause, backend):
    """The lower bound of the excess that the last stage alone proves; the true minimum is below 0."""
    excess, case = Excess.of(net, [clause]), mn.Case(region, (clause,))

    def confirm(x):
        found = Oracle.of(net).first(case, x)
        return None if found is None else found[0]

    with clause_program.ClauseProgram(
        excess, mn.propagate(excess.network, region, method="crown"), MipSettings(backend), confirm
    ) as solver:
        return solver.decide(0, Deadline.after(20)).bound


@pytest.mark.parametrize(("kind", "seed"), SWEPT)
def test_forward_passes_catch_it_and_so_does_a_second_backend(kind, seed, monkeypatch):
    net, region, clause, error = trial(kind, seed)
    backend, other = BACKENDS[seed % 2], BACKENDS[1 - seed % 2]
    assert alone(net, region, clause, backend) <= 0
    plant(monkeypatch, kind, error)
    with pytest.raises(SolverFailure, match="the program is not that of the network"):
        alone(net, region, clause, backend)
    monkeypatch.setattr(clause_program, "check_program", lambda *_: None)
    assert alone(net, region, clause, backend) > 0, "without the check the error makes a proof"
    # only the first program is wrong, nothing holds it against forward passes, and no cheaper stage finds the counterexample
    only_the_solver(monkeypatch)
    question = mn.Property((mn.Case(region, (clause,)),))
    plant(monkeypatch, kind, error, only_first=True)
    if mn.verify(net, question, backend=backend, time_limit=120).status == "sat":
        return  # the point that the solver ends at, replayed, is a counterexample although its bound says that there is none
    plant(monkeypatch, kind, error, only_first=True)
    verdict = mn.verify(net, question, backend=backend, cross_check=other, time_limit=120)
    assert verdict.status == "sat"
    assert f"{other} found a counterexample" in verdict.note


def only_the_solver(monkeypatch):
    """Run intervals and a solver only, without the stages that would find a counterexample earlier."""
    monkeypatch.setattr(stages, "check_bounds", lambda *_: None)
    monkeypatch.setattr(stages, "SPLITTING_INPUTS_MAX", 0)
    monkeypatch.setattr(stages.SignBranching, "applies_to", staticmethod(lambda network: False))
    monkeypatch.setattr(stages.CaseTrial, "_search", lambda self, rounds: None)
    propagate = stages.CaseTrial._propagate
    monkeypatch.setattr(stages.CaseTrial, "_propagate", lambda self, method: propagate(self, method) if method == "crown" else None)


@pytest.mark.parametrize(("kind", "seed"), [each for each, (_, seed) in zip(SWEPT, TRIALS, strict=True) if seed < 3])
def test_a_plain_solve_says_nothing_false_of_a_point(kind, seed, monkeypatch):
    """`mn.solve` reports a point that is not the network's as not verified; a verified one is true, though it may not be the optimum."""
    net, region, clause, error = trial(kind, seed)
    excess = Excess.of(net, [clause])
    planted = plant(monkeypatch, kind, error)
    encoding = planted.encode(excess.network, region, bounds=mn.propagate(excess.network, region, method="crown"))
    encoding.model.add_objective(1 * encoding.output)
    result = mn.solve(encoding, BACKENDS[seed % 2], time_limit=120)
    if result.verified:
        value = net.forward(encoding.value("input", result.point)) @ clause.matrix.T - clause.rhs
        assert result.objective == pytest.approx(value.item(), abs=1e-4)


@pytest.mark.parametrize("seed", sweep(range(10), every=5))
def test_a_bound_that_is_cut_is_caught_in_every_stage(seed):
    """The cheaper stages use the same bounds: forward passes leave bounds that are too tight."""
    net, region, clause, error = trial("bound cut by 10 %", seed)
    excess = Excess.of(net, [clause])
    bounds = mn.propagate(excess.network, region, method="crown")
    nothing = np.array([-np.inf])
    self_check.check_bounds(excess, bounds, nothing, self_check.check_points(excess, bounds))
    wrong = cut(bounds, np.random.default_rng(error))
    with pytest.raises(SolverFailure, match="do not hold"):
        self_check.check_bounds(excess, wrong, nothing, self_check.check_points(excess, wrong))


def test_a_proof_that_a_point_contradicts():
    net, region, clause, _ = trial("bound cut by 10 %", 0)
    excess = Excess.of(net, [clause])
    bounds = mn.propagate(excess.network, region)
    x = self_check.check_points(excess, bounds)
    with torch.no_grad():
        least = excess(torch.tensor(x)).min().item()
    self_check.check_bounds(excess, bounds, np.array([least - 1e-3]), x)
    with pytest.raises(SolverFailure, match="the excess of clause 0 was bounded by"):
        self_check.check_bounds(excess, bounds, np.array([least + 1e-3]), x)
