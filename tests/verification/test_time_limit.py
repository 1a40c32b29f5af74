"""Whatever the moment at which the time ends: no verdict and no bound is wrong, and the best proven answer so far is returned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import mipnet as mn
from mipnet.errors import InputError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network import pass_cost
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification import certified_minimum, clause_program, input_splitting, sign_branching, stages
from mipnet.verification.clause_network import Excess
from mipnet.verification.clause_program import ClauseProgram, ClauseResult
from mipnet.verification.two_networks.masked_agreement import ImageBalls, agree_around
from tests.clock import StoppingClock, at_every_moment
from tests.one_input import one_input_network
from tests.sweep import marked, sweep
from tests.verification import test_distances as distances
from tests.verification import test_reach as reaching
from tests.verification.test_verify import BACKENDS, Clause, Property, asked, problem
from tests.verification.two_networks import test_agreement as pairs
from tests.verification.two_networks import test_compression as chains

SLACK = 1e-7


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes and branches are bounded two at a time, so that some of them wait whenever the time ends."""
    monkeypatch.setattr(input_splitting, "BOXES_PER_BATCH", 2)
    monkeypatch.setattr(sign_branching, "BRANCHES_PER_BATCH", 2)


@pytest.mark.parametrize(
    ("seed", "rows", "path"),
    sweep([(seed, rows, path) for seed, rows in ((0, 1), (1, 2)) for path in ("splitting", "branching", "mip")], every=9),
)
def test_verdicts_are_never_wrong(seed, rows, path, monkeypatch):
    if path != "splitting":
        monkeypatch.setattr(stages, "SPLITTING_INPUTS_MAX", 0)
    if path == "mip":
        monkeypatch.setattr(stages.SignBranching, "applies_to", staticmethod(lambda network: False))
    net, region, matrix, edge = problem(seed, rows)
    low, high = (Clause(matrix, edge + shift) for shift in (-1e-3, 1e-3))
    far = Clause(matrix[:1], edge[:1] - 100)
    for clauses, truth in (((low,), "unsat"), ((far, low), "unsat"), ((high,), "sat"), ((low, far, high), "sat")):
        least = [1e-3 if clause is low else -1e-3 if clause is high else np.inf for clause in clauses]
        said, question = [], asked(region, *clauses)
        for verdict in at_every_moment(monkeypatch, lambda question=question: mn.verify(net, question, backend=BACKENDS[seed])):
            said.append(verdict.status)
            assert verdict.status in (truth, "unknown")
            assert (verdict.status == "unknown") == (verdict.stage is None)
            for finding, value in zip(verdict.findings, least, strict=True):
                assert finding.bound <= value + 1e-9
                assert finding.stage is None or finding.bound > 0
        assert said[0] == "unknown"
        assert said[-1] == truth


def test_every_case_of_a_property_has_its_share(monkeypatch):
    net, region, matrix, edge = problem(0, 1)
    low, high = (asked(region, Clause(matrix, edge + shift)).cases for shift in (-1e-3, 1e-3))
    for cases, truth in ((low + low, "unsat"), (low + high, "sat")):
        said = [each.status for each in at_every_moment(monkeypatch, lambda cases=cases: mn.verify(net, Property(cases)))]
        assert set(said) == {"unknown", truth}
        assert said[-1] == truth


@pytest.mark.sweep
def test_a_second_opinion_without_time_is_none(monkeypatch):
    net, region, matrix, edge = problem(1, 1)
    question, notes = asked(region, Clause(matrix, edge - 1e-3)), []
    for verdict in at_every_moment(monkeypatch, lambda: mn.verify(net, question, cross_check="scip")):
        notes.append(verdict.note)
        assert (verdict.status == "unsat") == (verdict.note == "scip agrees")
    assert notes[-1] == "scip agrees"
    assert any(note.startswith("scip did not refute clause 0 of case 0 in time") for note in notes)


@pytest.mark.parametrize(("seed", "path"), [(0, "splitting"), marked((1, "mip")), marked((1, "splitting")), marked((0, "mip"))])
def test_reach_never_closes_a_gap_that_is_open(seed, path, monkeypatch):
    monkeypatch.setattr(certified_minimum, "SOLVER_FIRST_UNITS_MAX", 0)
    if path == "mip":
        monkeypatch.setattr(certified_minimum, "SPLITTING_INPUTS_MAX", 0)
    torch.manual_seed(seed)
    module = reaching.dense(3, 4).double()
    network, region = mn.from_torch(module, torch.zeros(1, 3, dtype=torch.float64)), mn.LInf(np.full((1, 3), 0.3), 1.5)
    low = np.array([reaching.extreme(module, region, row) for row in np.eye(2)])
    high = -np.array([reaching.extreme(module, region, -row) for row in np.eye(2)])
    gap, closed = np.inf, []
    for found in at_every_moment(monkeypatch, lambda: mn.reach(network, region, backend=BACKENDS[seed]), wider=4):
        assert (found.lower <= low + SLACK).all()
        assert (found.upper >= high - SLACK).all()
        for ends, truth, sign in ((found.lowest, low, 1), (found.highest, high, -1)):
            for end, value in zip(ends, truth, strict=True):
                assert sign * end.value >= sign * value - SLACK
                assert region.contains(end.point[None], 0.0)
        closed.append(found.closed)
        gap = min(gap, found.gap)
    assert not closed[0]
    assert closed[-1]
    assert gap == found.gap


def test_boxes_that_wait_count(monkeypatch):
    """The bound of a splitting that was cut short is that of all boxes, at every moment."""
    net, region, matrix, edge = problem(2, 1)
    excess = Excess.of(net, [Clause(matrix, edge)])

    def split():
        deadline = Deadline.after(60)
        return input_splitting.lower_bound_by_splitting(excess, region, lambda: -1e-4, lambda x: None, deadline)[0]

    found = list(at_every_moment(monkeypatch, split, wider=2))
    assert max(found) <= 1e-9
    assert found == sorted(found)
    assert found[0] == -np.inf
    assert found[-1] >= -1e-4


@pytest.mark.parametrize("search", ["splitting", marked("branching")])
def test_a_search_that_was_cut_short_is_not_done(search, monkeypatch):
    net, region, matrix, edge = problem(0, 1)
    excess = Excess.of(net, [Clause(matrix, edge - 1e-2)])
    bounds = mn.propagate(excess.network, region, method="crown")
    for looks in range(1, 60):
        clock = StoppingClock(monkeypatch, looks)
        if search == "splitting":
            done, _ = input_splitting.InputSplitting(excess, region, lambda x: None, Deadline.after(60)).run()
        else:
            branching = sign_branching.SignBranching(excess, bounds, 0, lambda x: None, Deadline.after(60))
            done, _ = branching.run()
            assert branching.bound <= 1e-2 + 1e-9
        assert not (done and clock.stopped)


@pytest.mark.sweep
@pytest.mark.parametrize("pair", ["one weight", marked("other widths"), marked("behind a pool")])
def test_the_bound_of_a_difference_holds(pair, monkeypatch):
    first, second, shape, region = pairs.PAIRS[pair]
    one, other = pairs.read(first, shape), pairs.read(second, shape)
    x = pairs.samples(region, 5000)
    seen = np.abs(pairs.run(first, x) - pairs.run(second, x)).max()
    bounds = []
    for found in at_every_moment(monkeypatch, lambda: mn.agree(one, other, region, tolerance=1e-3), wider=4):
        assert found.bound >= max(seen, found.largest)
        assert np.abs(found.first - found.second).max() == pytest.approx(found.largest, abs=1e-12)
        bounds.append(found.bound)
    assert bounds[0] == np.inf
    assert bounds[-1] - found.largest <= 1e-3 * max(1.0, found.largest) + SLACK


@pytest.mark.parametrize("factor", [1.0, marked(1.5)])
def test_classes_agree_or_do_not_or_are_open(factor, monkeypatch):
    first, second = pairs.dense(1), pairs.changed(pairs.dense(1), 2, 1, factor)
    one, other = pairs.read(first), pairs.read(second)
    x = pairs.samples(pairs.REGION)
    same = bool((pairs.run(first, x).argmax(1) == pairs.run(second, x).argmax(1)).all())
    said = [each.agree for each in at_every_moment(monkeypatch, lambda: mn.agree_on_class(one, other, pairs.REGION), wider=4)]
    assert set(said) == {None, same}
    assert said[-1] is same


@pytest.mark.sweep
def test_a_compressed_network_is_equal_however_far_it_came(monkeypatch):
    module, region = chains.deep(0, (4, 8, 8))
    x, kept, agreed = chains.samples(region, 2000), [], []
    network = mn.from_torch(module, torch.zeros(1, 4, dtype=torch.float64))
    for found in at_every_moment(monkeypatch, lambda: mn.compress(network, region), wider=4):
        np.testing.assert_allclose(found.network.forward(x), chains.run(module, x), atol=1e-12)
        assert found.agreement.agree in (None, True)
        assert (found.agreement.bound <= 1e-6) == (found.agreement.agree is True)
        for k, layer in enumerate(found.layers):
            z = chains.run(module[: 2 * k + 1], x)
            assert layer.silent <= (z <= 0).all(axis=0).sum()
            assert layer.active <= (z >= 0).all(axis=0).sum()
        kept.append(sum(layer.kept for layer in found.layers))
        agreed.append(found.agreement.agree)
    assert (agreed[0], agreed[-1], found.complete) == (None, True, True)
    assert kept[-1] == min(kept) < kept[0]


@pytest.mark.parametrize("norm", [marked("linf"), "l1"])
def test_the_bounds_of_a_distance_hold(norm, monkeypatch):
    net, x = distances.random_network(0), np.random.default_rng(0).uniform(0.2, 0.8, distances.INPUTS)
    truth = distances.true_distance(net, x, int(net.forward(x[None]).argmax()), norm)
    for found in at_every_moment(monkeypatch, lambda: mn.minimum_distortion(net, x, norm=norm, upper=3.0), wider=4):
        assert found.lower <= truth + SLACK
        assert found.upper >= truth - SLACK
    assert found.gap < 5e-3


@pytest.mark.parametrize("seed", [0, marked(1)])
def test_the_bounds_of_a_margin_hold(seed, monkeypatch):
    net, region = distances.random_network(seed), mn.LInf(np.random.default_rng(seed).uniform(size=(1, distances.INPUTS)), 0.7)
    label = int(net.forward(region.centre).argmax())
    truth = distances.true_margin(net, region, label)
    for found in at_every_moment(monkeypatch, lambda: mn.maximum_margin(net, region, label, backend=BACKENDS[seed])):
        assert found.lower <= truth + SLACK
        assert found.upper >= truth - SLACK
    assert found.gap < 1e-3


def test_balls_are_proven_or_open(monkeypatch):
    torch.manual_seed(0)
    net = mn.from_torch(pairs.dense(2, width=5), torch.zeros(1, 3, dtype=torch.float64))
    gates, images = mn.find_gates(net), np.random.default_rng(0).uniform(size=(4, 3))
    masks = xr.Dataset({gate.name: (f"{gate.name}_unit", np.ones(5, dtype=bool)) for gate in gates})
    said = []
    for found in at_every_moment(monkeypatch, lambda: agree_around(net, gates, masks, images, ImageBalls(0.01, 3)), wider=2):
        said.append([ball.result for ball in found.balls])
        assert set(said[-1]) <= {"proven", "open"}
    assert said[-1] == ["proven"] * 3
    assert said[0] != said[-1]


def test_an_oracle_is_not_asked_after_the_end(monkeypatch):
    net, region, _, _ = problem(0, 1)
    sizes, never = [], mn.Case(region, (Clause(np.zeros((1, 3)), np.array([-1.0])),))
    oracle = mn.Oracle("counted", lambda x: sizes.append(len(x)) or net.forward(x), at_once=2)
    for looks, calls in ((1, []), (2, [2]), (3, [2, 2]), (9, [2, 2, 1])):
        sizes.clear()
        StoppingClock(monkeypatch, looks)
        assert oracle.first(never, np.repeat(region.centre, 5, axis=0), Deadline.after(60)) is None
        assert sizes == calls


def test_large_networks_are_asked_in_small_parts(monkeypatch):
    """Samples, boxes and branches at once follow from the cost of a forward pass, and the results stay the same."""
    net, region, matrix, edge = problem(0, 1)
    question = asked(region, Clause(matrix, edge - 1e-3), Clause(matrix, edge + 1e-3))
    whole = mn.verify(net, question)
    assert pass_cost.samples_at_once(net) > 1000
    assert pass_cost.multiplications(net) == sum(w.numel() for n in net.nodes for w in n.layer.weights().values()) + 16 * sum(
        n.shape[0] for n in net.nodes
    )
    monkeypatch.setattr(pass_cost, "PASS_MULTIPLICATIONS_MAX", 3 * pass_cost.multiplications(net))
    assert (pass_cost.samples_at_once(net), pass_cost.samples_at_once(net, 4)) == (3, 1)
    parts = mn.verify(net, question)
    assert parts.status == whole.status == "sat"
    np.testing.assert_allclose(parts.counterexample, whole.counterexample)


SMALL = mn.Network.build((2,), [("fc", mn.Dense(torch.eye(2), torch.ones(2))), ("relu", mn.ReLU()), ("out", mn.Dense(torch.eye(2)))])
BOX = mn.Box(np.zeros((1, 2)), np.ones((1, 2)))
CALLS = {
    mn.verify: (SMALL, asked(BOX, Clause(np.eye(2)[:1], np.zeros(1)))),
    mn.reach: (SMALL, BOX),
    mn.agree: (SMALL, SMALL, BOX),
    mn.agree_on_class: (SMALL, SMALL, BOX),
    mn.compress: (SMALL, BOX),
    mn.robustness: (SMALL, [0.1, 0.2]),
    mn.minimum_distortion: (SMALL, [0.1, 0.6]),
    mn.maximum_margin: (SMALL, BOX, 0),
    agree_around: (SMALL, (), xr.Dataset(), np.zeros((1, 2)), ImageBalls(0.1, 1)),
}


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_none_is_no_limit_and_no_number_is_refused(function):
    more = {"radius": 0.01} if function is mn.robustness else {"upper": 0.1} if function is mn.minimum_distortion else {}
    assert type(function(*CALLS[function], **more, time_limit=None)) is type(function(*CALLS[function], **more))
    for limit in (0, -1.0, float("nan"), "8"):
        with pytest.raises(InputError, match="expected a positive number of seconds, or None for no limit"):
            function(*CALLS[function], **more, time_limit=limit)


def test_a_point_that_is_not_confirmed_and_misses_the_next_target_ends_the_search(monkeypatch):
    """The solver has no time and returns the point that it is given."""
    monkeypatch.setattr(clause_program, "TARGET_STEP_RELATIVE", 10.0)
    network = one_input_network(1, (8, 8, 1))
    excess = Excess.of(network, [Clause(np.eye(1), np.zeros(1))])
    bounds = mn.propagate(excess.network, mn.Box([[-3.0]], [[3.0]]))
    with ClauseProgram(excess, bounds, MipSettings.of("highs"), lambda x: None) as program:
        program.deadline, solves, plain = Deadline.after(1e-9), iter(range(3)), program.problem.solve
        monkeypatch.setattr(program.problem, "solve", lambda **given: (next(solves), plain(**given))[1])
        assert program.decide(0, NO_DEADLINE) == ClauseResult(-np.inf, None, 0, False)
