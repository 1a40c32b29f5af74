"""Formulations: the order of their relaxations, agreement with gates, the rules of `auto`, and detection of a wrong one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

import mipnet as mn
from mipnet.backend import Program, get_backend
from mipnet.errors import InputError, UnsupportedError
from mipnet.formulations.affine import Affine
from mipnet.formulations.formulation_choice import SOS1_UNSTABLE_MAX
from mipnet.formulations.registry import _OWN_FORMULATIONS
from mipnet.formulations.relu import POSITIVE_PART, PositivePart, add_big_m_rows, link
from mipnet.model.to_program import from_model
from mipnet.solving.engine import solve
from mipnet.solving.problem import Modelled
from tests.nets import SEEDS, dense, make, sample
from tests.sweep import in_turn, sweep

EXACT = [name for name, each in POSITIVE_PART.formulations.items() if not each.relaxed]
BACKENDS = ("highs", "scip")


def plain(seed: int, sizes: tuple[int, ...] = (6, 8, 6, 3)) -> tuple[mn.Network, mn.Box]:
    """Dense layers with a ReLU after each but the last, and a large box."""
    g = np.random.default_rng(seed)
    layers: list[tuple[str, mn.Layer]] = []
    for i, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
        layers += [(f"fc{i}", dense(g, after, before)), (f"relu{i}", mn.ReLU())]
    return mn.Network.build(sizes[:1], layers[:-1]), mn.LInf(g.uniform(0.2, 0.8, (1, sizes[0])), 0.5)


def posed(network: mn.Network, region: mn.Box, formulation: dict, sense: str = "max", **given) -> mn.Encoding:
    encoding = mn.encode(network, region, formulation=formulation, **given)
    first = encoding.output.isel({encoding.output.dims[-1]: 0}, drop=True)
    encoding.model.add_objective(first.sum(), sense=sense)
    return encoding


@pytest.mark.parametrize("seed", sweep(range(4), every=4))
def test_the_optimum_is_that_of_the_best_activation_pattern(seed):
    """The optimum by one linear program per pattern of six neurons, solved by scipy, without a big-M."""
    network, region = plain(seed, (3, 4, 2, 2))
    owned = [(w["weight"].numpy(), w["bias"].numpy()) for w in (n.layer.weights() for n in network.nodes) if w]
    best = max(
        value for on in itertools.product((0.0, 1.0), repeat=6) if (value := pattern_optimum(owned, region, np.array(on))) is not None
    )
    for name in EXACT:
        for backend in BACKENDS:
            assert solve(posed(network, region, {"relu": name}), backend, mip_gap=1e-8).objective == pytest.approx(best, abs=1e-6)


def pattern_optimum(owned, region: mn.Box, on: np.ndarray) -> float | None:
    matrix, constant, rows, right = np.eye(3), np.zeros(3), [], []
    start = 0
    for weight, bias in owned[:-1]:
        matrix, constant = weight @ matrix, weight @ constant + bias
        here = on[start : start + len(bias)]
        rows.append(np.where(here, -1.0, 1.0)[:, None] * matrix)
        right.append(np.where(here, constant, -constant))
        matrix, constant, start = here[:, None] * matrix, here * constant, start + len(bias)
    weight, bias = owned[-1][0][0], owned[-1][1][0]
    box = np.stack([region.lower[0], region.upper[0]], axis=1)
    done = linprog(-weight @ matrix, np.concatenate(rows), np.concatenate(right), bounds=box)
    return weight @ constant + bias - done.fun if done.status == 0 else None


def root(encoding: mn.Encoding) -> float:
    """The bound of the linear relaxation, with all ideal cuts that a formulation has."""
    problem = Modelled.of(encoding)
    relaxed: Program = replace(problem.program, integer=np.zeros(problem.program.columns, dtype=bool))
    with get_backend("highs").open(relaxed) as session:
        outcome = session.solve()
        for cuts in problem.tighteners:
            while len(rows := cuts.separate(outcome.x, relaxed.columns)):
                session.add_rows(rows)
                outcome = session.solve()
    return -outcome.bound


@pytest.mark.parametrize(("seed", "bounds"), in_turn(range(5), ["interval", "crown"]))
def test_relaxations_stand_in_order(seed, bounds):
    network, region = plain(seed)
    parts = [root(posed(network, region, {"relu": "partition", "parts": k}, bounds=bounds)) for k in (1, 2, 4, 99)]
    triangle, big_m, hull, anderson = (
        root(posed(network, region, {"relu": name}, bounds=bounds)) for name in ("triangle", "big-m", "hull", "anderson")
    )
    assert triangle == pytest.approx(big_m, abs=1e-6)
    assert parts[0] == pytest.approx(big_m, abs=1e-6)
    assert all(later <= before + 1e-7 for before, later in itertools.pairwise(parts))
    assert parts[-1] == pytest.approx(hull, abs=1e-6)
    assert anderson == pytest.approx(hull, abs=1e-5)
    assert hull < big_m - 1e-3
    assert hull >= network.forward(sample(region, 2000, np.random.default_rng(0)))[:, 0].max()


@pytest.mark.parametrize("seed", range(4))
def test_relaxations_of_a_maximum_stand_in_order(seed):
    """Over a box of candidates the relaxation of the hull is exact."""
    g = np.random.default_rng(seed)
    pool = mn.MaxPool2d(mn.Window((2, 2), (2, 2)))
    weights = g.normal(size=(1, 4))
    network = mn.Network.build((1, 4, 4), [("pool", pool), ("flat", mn.Reshape((4,))), ("fc", mn.Dense(weights))])
    region = mn.LInf(g.uniform(0, 1, (1, 1, 4, 4)), 0.4)
    bounds = {name: root(posed(network, region, {"maxpool2d": name})) for name in ("triangle", "big-m", "hull")}
    assert bounds["triangle"] == pytest.approx(bounds["big-m"], abs=1e-6)
    assert bounds["hull"] <= bounds["big-m"] + 1e-6
    assert bounds["hull"] == pytest.approx(largest_sum(weights, region), abs=1e-6)


def largest_sum(weights: np.ndarray, region: mn.Box) -> float:
    """A weighted sum of the maxima of disjoint windows, each between its largest lower and its largest upper end."""
    lower, upper = (end[0, 0].reshape(2, 2, 2, 2).max(axis=(1, 3)).reshape(-1) for end in (region.lower, region.upper))
    return float(np.maximum(weights[0] * lower, weights[0] * upper).sum())


def test_ideal_cuts_hold_on_every_forward_pass():
    """Cuts at any point are satisfied by every integral point, also with gates of any value."""
    network, region = plain(1)
    encoding = mn.encode(network, region, formulation={"relu": "anderson"}, gates="all", bounds="sound")
    problem, g = Modelled.of(encoding), np.random.default_rng(0)
    (cuts,) = problem.tighteners
    lower, upper = problem.program.lower, problem.program.upper
    found = [cuts.separate(g.uniform(lower, upper), problem.program.columns) for _ in range(50)]
    assert sum(map(len, found)) > 100
    for _ in range(100):
        scores = {gate.name: g.choice([0.0, 1.0, g.uniform()], gate.units) for gate in encoding.gates}
        point = encoding.point(g.uniform(region.lower, region.upper), scores)[problem.program.labels]
        assert max(rows.violation(point).max(initial=0.0) for rows in found) < 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
def test_ideal_cuts_are_made_before_the_search(backend):
    network, region = plain(3)
    result = solve(posed(network, region, {"relu": "anderson"}), backend)
    assert result.cuts > 0
    assert result.rounds > 1
    assert result.verified
    assert result.objective == pytest.approx(solve(posed(network, region, {"relu": "big-m"}), backend).objective, abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_triangle_says_that_it_is_a_relaxation(backend):
    """Its bound is valid, its solution is replayed, and `verified` is False if the two differ."""
    network, region = plain(0)
    encoding = posed(network, region, {"relu": "triangle"})
    assert encoding.relaxed == ("relu1", "relu2")
    assert not from_model(encoding.model).integer.any()
    relaxed, exact = solve(encoding, backend), solve(posed(network, region, {"relu": "big-m"}), backend)
    assert not relaxed.verified
    assert relaxed.status is not mn.Status.OPTIMAL
    assert relaxed.max_error > 1e-3
    assert relaxed.bound > exact.objective + 1e-3
    assert relaxed.objective <= exact.bound + 1e-6
    assert network.forward(relaxed.x["input"].values)[0, 0] == pytest.approx(relaxed.objective)
    assert not mn.encode(network, region, formulation={"relu": "hull"}).relaxed


@pytest.mark.parametrize("mode", ["sound", "paper"])
def test_gated_programs_agree(mode):
    network, region = plain(2, (3, 4, 3, 2))
    x = np.random.default_rng(0).uniform(region.lower[0], region.upper[0], (2, 3))
    found = {}
    for name in EXACT:
        objective, bounds = mn.Objective(1.0, mn.Loss("margin")), mn.PaperBounds(epsilon=1e-2) if mode == "paper" else mode
        task = mn.Importance(network, x, [0, 1], objective, formulation={"relu": name}, bounds=bounds)
        for backend in BACKENDS:
            result = solve(task.pose(), backend, mip_gap=1e-6)
            assert result.verified
            found[name, backend] = result.objective
    assert max(found.values()) - min(found.values()) < 1e-4, found


@pytest.mark.parametrize(("name", "family", "seed"), in_turn(POSITIVE_PART.formulations, SEEDS[2::8]))
def test_gated_forward_passes_are_feasible(name, family, seed):
    network, g = make(family, seed)
    x = g.uniform(0, 1, (2, *network.input_shape))
    encoding = mn.encode(network, mn.LInf(x, 0.1), gates="all", bounds="sound", formulation={"relu": name})
    program = from_model(encoding.model)
    for _ in range(3):
        scores = {gate.name: g.choice([0.0, 1.0, g.uniform()], gate.units) for gate in encoding.gates}
        point = encoding.point(x, scores)
        assert program.violation(point[program.labels]) < 1e-9


@pytest.fixture
def halved():
    """A formulation like big-m with half of the upper big-M."""

    @link("halved")
    def half(part: PositivePart) -> Affine:
        h, g = part.split()
        add_big_m_rows(replace(part, upper=part.upper / 2), h, g, part.switch())
        return h

    yield "halved"
    del POSITIVE_PART.formulations["halved"]


def test_half_a_big_m_is_caught(halved):
    network, region = plain(0)
    wrong = posed(network, region, {"relu": halved})
    program = from_model(wrong.model)
    corners = sample(region, 200, np.random.default_rng(0))
    assert max(program.violation(wrong.point(x[None])[program.labels]) for x in corners) > 1e-3
    right = solve(posed(network, region, {"relu": "big-m"}))
    assert abs(solve(wrong).objective - right.objective) > 1e-3


@pytest.mark.sweep
def test_scip_keeps_optimal_points_of_pairs():
    """SCIP 10.0.2 cuts off this optimum by bound cuts from SOS1 sets, so the backend switches them off."""
    network, g = make(*SEEDS[25])
    region = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.3)
    values = [
        solve(posed(network, region, {"relu": name}, bounds="interval"), "scip", mip_gap=1e-6).objective for name in ("sos1", "big-m")
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_auto_picks_by_rule_and_stays_exact():
    """SOS1 pairs in small networks without other binaries, big-M with other binaries and in large networks; the same optimum."""
    network, region = plain(0)
    small, wide = mn.encode(network, region, formulation={"relu": "auto"}), plain(0, (6, 60, 60, 3))
    assert {small.block(name).formulation for name in ("relu1", "relu2")} == {"sos1"}
    assert "at most 80" in small.block("relu1").why
    large = mn.encode(*wide, formulation={"relu": "auto"})
    assert sum(large.bounds.unstable().values()) > SOS1_UNSTABLE_MAX
    assert large.block("relu2").formulation == "big-m"
    assert "more than 80" in large.block("relu2").why
    many = mn.Box(np.repeat(region.lower, 40, axis=0), np.repeat(region.upper, 40, axis=0))
    for gates, chosen, where in ((None, "sos1", "in one sample"), ("all", "big-m", "over all samples")):
        block = mn.encode(network, many, gates=gates, formulation={"relu": "auto"}).block("relu1")
        assert (block.formulation, where in block.why) == (chosen, True)
    binary = mn.encode(network, region, gates="all", binary_gates=True, formulation={"relu": "auto"})
    assert binary.block("relu1").formulation == "big-m"
    assert not any(each.relaxed for each in (small, large, binary))
    pooled, g = make(*SEEDS[25])
    ball = mn.LInf(g.uniform(0.2, 0.8, (1, *pooled.input_shape)), 0.05)
    both = mn.encode(pooled, ball, formulation={"relu": "auto", "maxpool2d": "auto"})
    assert {both.block(name).formulation for name in ("act1", "act2", "pool1")} == {"big-m"}
    for backend in BACKENDS:
        values = [solve(posed(network, region, {"relu": name}), backend, mip_gap=1e-7).objective for name in ("auto", "big-m")]
        assert values[0] == pytest.approx(values[1], abs=1e-6)
    with pytest.raises(InputError, match="`parts` is for formulation `partition`"):
        mn.encode(network, region, formulation={"relu": "auto", "parts": 2})


def test_what_solvers_lack_is_rewritten():
    network, region = plain(0)
    sets, rows = (posed(network, region, {"relu": name}) for name in ("sos1", "indicator"))
    count = sum(mn.encode(network, region).bounds.unstable().values())
    assert solve(sets, "highs").rewritten == (f"{count} SOS1 sets -> binaries and big-M rows",)
    assert solve(rows, "highs").rewritten == (f"{2 * count} indicator rows -> big-M rows",)
    assert solve(sets, "scip").rewritten == solve(rows, "scip").rewritten == ()
    assert from_model(sets.model).size["integers"] == 0


def test_what_makes_no_sense_is_refused():
    network, region = plain(0)
    with pytest.raises(InputError, match="`parts` is 0; expected a whole number of at least 1"):
        mn.encode(network, region, formulation={"relu": "partition", "parts": 0})
    with pytest.raises(InputError, match="`parts` is for formulation `partition`"):
        mn.encode(network, region, formulation={"relu": "big-m", "parts": 2})
    with pytest.raises(UnsupportedError, match="`maxpool2d` has no formulation `partition`"):
        mn.encode(network, region, formulation={"maxpool2d": "partition"})
    mn.encoding(mn.ReLU, "mine")(lambda layer, block, x: x)
    try:
        with pytest.raises(UnsupportedError, match="`relu1` has a gate, which formulation `mine` does not support; use big-m"):
            mn.encode(network, region, gates="all", formulation={"relu": "mine"})
    finally:
        del _OWN_FORMULATIONS[mn.ReLU]


def test_a_triangle_of_a_window_in_which_one_candidate_is_always_the_largest():
    """The candidates are 0, and any number in [0, 1]: the second one is the maximum, and both have a bound of 0."""
    network = mn.Network.build((1, 1, 2), [("pool", mn.MaxPool2d(mn.Window((1, 2), (1, 1))))])
    region = mn.Box(np.zeros((1, 1, 1, 2)), np.array([[[[0.0, 1.0]]]]))
    with np.errstate(all="raise"):
        encoding = mn.encode(network, region, formulation={"maxpool2d": "triangle"})
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    assert mn.solve(encoding).bound == pytest.approx(1.0)
