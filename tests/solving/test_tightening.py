"""Bounds by a solver are the true extremes of tiny networks, found here by enumeration, and never inside them."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mipnet_highs import HiGHS
from scipy.optimize import linprog

import mipnet as mn
from mipnet.backend import Feature, Outcome, Status
from mipnet.backend.tolerances import SOLVER_ROW_TOLERANCE, SolverTolerances
from mipnet.errors import InputError, SolverFailure
from mipnet.limits import deadline
from mipnet.model.to_program import from_model
from mipnet.solving import tightening
from mipnet.solving.element_bounds import tolerance_margin
from tests.bounds.search import activations, everything, first_outside, gate_acts
from tests.bounds.test_crown import relu_net
from tests.nets import SEEDS, make
from tests.one_input import one_input_network, values_at_kinks
from tests.programs import run_pickled
from tests.sweep import marked, sweep

BACKENDS = ("highs", "scip")
CLOSE = 1e-4


def tiny(seed):
    g = np.random.default_rng(seed)
    return relu_net(g, (2, 4, 3, 2)), mn.LInf(g.normal(size=(1, 2)), 0.9), g


def extremes(network, region, depth):
    """The smallest and the largest pre-activation of every unit of dense layer ``depth``, from one LP per activation pattern before it."""
    weights = [(n.layer.weight.numpy(), n.layer.bias.numpy()) for n in network.nodes if isinstance(n.layer, mn.Dense)][:depth]
    ends = list(zip(region.lower[0].reshape(-1), region.upper[0].reshape(-1), strict=True))
    found = np.array([[math.inf, -math.inf]] * len(weights[-1][1]))
    for pattern in itertools.product([0.0, 1.0], repeat=sum(len(b) for _, b in weights[:-1])):
        matrix, constant, rows, right, at = np.eye(len(ends)), np.zeros(len(ends)), [], [], 0
        for w, b in weights[:-1]:
            z, c = w @ matrix, w @ constant + b
            on = np.array(pattern[at : at + len(b)])
            at += len(b)
            rows.append(z * (1 - 2 * on)[:, None])
            right.append(-c * (1 - 2 * on))
            matrix, constant = z * on[:, None], c * on
        given = {"A_ub": np.concatenate(rows), "b_ub": np.concatenate(right)} if rows else {}
        for unit, (z, c) in enumerate(zip(weights[-1][0] @ matrix, weights[-1][0] @ constant + weights[-1][1], strict=True)):
            for column, sign in ((0, 1), (1, -1)):
                solved = linprog(sign * z, bounds=ends, **given)
                if solved.status == 0:
                    found[unit, column] = (min, max)[column](found[unit, column], sign * solved.fun + c)
    return found


def triangle(network, region, bounds, depth):
    """The same over the triangle relaxation of all earlier ReLUs, with these bounds (Ehlers 2017)."""
    weights = [(n.layer.weight.numpy(), n.layer.bias.numpy()) for n in network.nodes if isinstance(n.layer, mn.Dense)][:depth]
    sizes = [region.lower[0].size, *(len(b) for _, b in weights[:-1])]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ends = [*zip(region.lower[0], region.upper[0], strict=True), *[(0.0, None)] * (int(starts[-1]) - sizes[0])]
    rows, right = [], []
    for k, (w, b) in enumerate(weights[:-1]):
        box = bounds[f"fc{k + 1}"]
        for i, (low, high) in enumerate(zip(box.lower.values[0], box.upper.values[0], strict=True)):
            z, h = np.zeros(starts[-1]), np.zeros(starts[-1])
            z[starts[k] : starts[k + 1]], h[starts[k + 1] + i] = w[i], 1.0
            slope = 0.0 if high <= 0 else 1.0 if low >= 0 else high / (high - low)
            rows += [h - slope * z] + ([z - h] if high > 0 else [])
            right += [slope * b[i] - min(low, 0) * slope * (low < 0)] + ([-b[i]] if high > 0 else [])
    found = []
    for w, b in zip(*weights[-1], strict=True):
        cost = np.zeros(starts[-1])
        cost[starts[-2] :] = w
        given = {"A_ub": np.array(rows), "b_ub": np.array(right)}
        found.append([linprog(cost, bounds=ends, **given).fun + b, b - linprog(-cost, bounds=ends, **given).fun])
    return np.array(found)


@pytest.mark.parametrize(("seed", "backend"), sweep([(seed, backend) for seed in range(4) for backend in BACKENDS], every=5))
def test_mip_bounds_are_the_true_extremes_and_never_inside(seed, backend):
    network, region, _ = tiny(seed)
    bounds = mn.tighten(network, region, backend=backend, time_limit=100)
    assert bounds.method == "mip"
    for depth in (1, 2, 3):
        true, box = extremes(network, region, depth), bounds[f"fc{depth}"]
        lower, upper = box.lower.values[0], box.upper.values[0]
        assert (lower <= true[:, 0] + 1e-9).all()
        assert (upper >= true[:, 1] - 1e-9).all()
        settled = ((lower >= 0) | (upper <= 0)) if depth < 3 else np.zeros(len(true), dtype=bool)
        assert (settled == (((true[:, 0] >= 0) | (true[:, 1] <= 0)) & (depth < 3))).all()
        np.testing.assert_allclose(lower[~settled], true[~settled, 0], atol=CLOSE)
        np.testing.assert_allclose(upper[~settled], true[~settled, 1], atol=CLOSE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("method", "shift"), [("lp", 0.0), marked(("mip", 0.0)), ("mip", 1e12)])
def test_bounds_hold_exactly(method, shift, backend):
    """In rational arithmetic; the solver's own bounds lie inside the true range for some units, by its rounding errors."""
    network = one_input_network(1, (3, 3, 6), shift)
    true = values_at_kinks(network, -2.0, 2.0)["fc2"]
    box = mn.tighten(network, mn.Box([[-2.0]], [[2.0]]), method=method, backend=backend, time_limit=None).after["fc2"]
    assert all(Fraction(bound) <= least for bound, least in zip(box.lower[0].tolist(), true.min(axis=0), strict=True))
    assert all(Fraction(bound) >= largest for bound, largest in zip(box.upper[0].tolist(), true.max(axis=0), strict=True))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_margin_is_not_below_a_row_tolerance_of_the_range_of_the_objective(size):
    network, region, g = tiny(0)
    program = from_model(mn.encode(network, region).model)
    cost = size * g.normal(size=program.columns)
    half = (program.upper - program.lower) / 2
    assert np.isfinite(half).all()
    assert tolerance_margin(program, cost, 0.0, SolverTolerances()) >= SOLVER_ROW_TOLERANCE * (np.abs(cost) @ half)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", sweep(range(4), every=2))
def test_lp_bounds_are_those_of_the_triangle_relaxation(seed, backend):
    network, region, _ = tiny(seed)
    start = mn.propagate(network, region, method="interval")
    bounds = mn.tighten(network, region, method="lp", start=start, backend=backend, time_limit=100)
    wide = triangle(network, region, bounds, 3)
    assert (bounds["fc3"].lower.values[0] <= wide[:, 0] + 1e-9).all()
    assert (bounds["fc3"].upper.values[0] >= wide[:, 1] - 1e-9).all()
    np.testing.assert_allclose(bounds["fc3"].lower.values[0], wide[:, 0], atol=CLOSE)
    np.testing.assert_allclose(bounds["fc3"].upper.values[0], wide[:, 1], atol=CLOSE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gated_extremes_are_those_of_every_score(backend):
    """For an image the second layer is affine in the earlier scores; for an activation pattern of the gated units the third one is too."""
    g = np.random.default_rng(3)
    network = relu_net(g, (3, 4, 3, 2))
    region, gates = mn.Samples(g.uniform(size=(2, 3))), mn.find_gates(network)
    bounds = mn.tighten(network, region, gates, backend=backend, time_limit=100)
    (w1, b1), (w2, b2), (w3, b3) = ((n.layer.weight.numpy(), n.layer.bias.numpy()) for n in network.nodes if isinstance(n.layer, mn.Dense))
    for k, x in enumerate(region.lower):
        first = w2 * np.maximum(w1 @ x + b1, 0)
        np.testing.assert_allclose(bounds["fc2"].upper.values[k], b2 + np.maximum(first, 0).sum(1), atol=CLOSE)
        top = np.maximum(bounds["fc2"].upper.values[k], 0)
        matrix, constant = np.hstack([first, np.diag(top)]), b2 - top  # z - (1 - s) U as a function of all seven scores
        found = np.array([[math.inf, -math.inf]] * 2)
        for pattern in itertools.product([0.0, 1.0], repeat=3):
            on = np.array(pattern)
            given = {"A_ub": matrix * (1 - 2 * on)[:, None], "b_ub": -constant * (1 - 2 * on), "bounds": [(0, 1)] * 7}
            for unit in range(2):
                for column, sign in ((0, 1), (1, -1)):
                    solved = linprog(sign * (w3[unit] * on) @ matrix, **given)
                    if solved.status == 0:
                        value = sign * solved.fun + (w3[unit] * on) @ constant + b3[unit]
                        found[unit, column] = (min, max)[column](found[unit, column], value)
        box = bounds["fc3"]
        assert (box.lower.values[k] <= found[:, 0] + 1e-9).all()
        assert (box.upper.values[k] >= found[:, 1] - 1e-9).all()
        np.testing.assert_allclose(box.lower.values[k], found[:, 0], atol=CLOSE)
        np.testing.assert_allclose(box.upper.values[k], found[:, 1], atol=CLOSE)


@pytest.mark.parametrize("gated", [marked(False), True], ids=["plain", "gated"])
@pytest.mark.parametrize(("family", "seed"), sweep(SEEDS[::8], every=2), ids=[f"{family.__name__}-{seed}" for family, seed in SEEDS[::8]])
def test_they_hold_and_are_at_least_as_tight_as_what_they_start_from(family, seed, gated):
    network, g = make(family, seed)
    region, gates = mn.LInf(g.uniform(0.2, 0.8, (1, *network.input_shape)), 0.1), mn.find_gates(network) if gated else ()
    found = [mn.propagate(network, region, gates, method="alpha")]
    found.append(mn.tighten(network, region, gates, method="lp", start=found[0], time_limit=3))
    found.append(mn.tighten(network, region, gates, start=found[1], time_limit=3))
    x = everything(network, region, g)[::4]
    for bounds in found:
        assert first_outside(bounds, activations(network, x, gate_acts(bounds, g, len(x), gates))) is None, bounds.method
    for wide, tight in itertools.pairwise(found):
        for name, box in tight.after.items():
            assert bool((box.lower >= wide.after[name].lower - 1e-9).all()), name
            assert bool((box.upper <= wide.after[name].upper + 1e-9).all()), name
    encoding = mn.encode(network, region, bounds=found[-1], gates=gates or None)
    assert encoding.bounds is found[-1]


@pytest.mark.parametrize("real", [False, marked(True)], ids=["pickled", "processes"])
def test_samples_are_bounded_each_on_its_own_and_in_parts_by_workers(real, monkeypatch):
    """In other processes, or in this one with programs that were pickled as for another one."""

    def run(programs, *, workers, **how):
        assert workers.count == 3
        assert list(programs) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        return run_pickled(programs, workers=workers, **how)

    g = np.random.default_rng(1)
    network = relu_net(g, (3, 8, 2))
    region = mn.LInf(g.normal(size=(2, 3)), 0.8)
    with monkeypatch.context() as patched:
        if not real:
            patched.setattr(tightening, "run_all", run)
        together = mn.tighten(network, region, time_limit=60, run=mn.TighteningRun(workers=3))
    for k in range(2):
        alone = mn.tighten(network, mn.Box(region.lower[k : k + 1], region.upper[k : k + 1]), time_limit=60)
        for name, box in alone.after.items():
            torch.testing.assert_close(together.after[name].lower[k : k + 1], box.lower, rtol=0, atol=1e-4)
            torch.testing.assert_close(together.after[name].upper[k : k + 1], box.upper, rtol=0, atol=1e-4)


class Spying(HiGHS):
    """HiGHS that records its calls, and can be made to return wrong bounds."""

    def __init__(self, lie: float = 0.0, interrupt: int = -1) -> None:
        self.opened, self.limits, self.lie, self.interrupt = 0, [], lie, interrupt

    def open(self, program, options=None):
        self.opened += 1
        session = super().open(program, options)
        plain = session.solve

        def solve(limits, on_event=None):
            self.limits.append((limits, bool(program.integer.any())))
            outcome = plain(limits, on_event)
            interrupted = len(self.limits) == self.interrupt
            status = Status.INTERRUPTED if interrupted else outcome.status
            return Outcome(**{**vars(outcome), "bound": outcome.bound + self.lie, "status": status, "interrupted": interrupted})

        session.solve = solve
        return session


def test_a_layer_is_handed_over_once_and_settled_units_are_left_alone():
    network, region, _ = tiny(1)
    backend = Spying()
    bounds = mn.tighten(network, region, backend=backend, time_limit=100)
    assert backend.opened == 4  # the relaxation and the program of the second and of the third layer
    stops = [limits.bound_stop for limits, integer in backend.limits if integer]
    assert {stop is None for stop in stops} == {True, False}
    before = len(backend.limits)
    assert mn.tighten(network, region, backend=backend, start=bounds, time_limit=100).width()["fc3"] <= bounds.width()["fc3"]
    assert len(backend.limits) - before <= before


def test_a_solver_that_proves_too_much_is_found_out():
    network, region, _ = tiny(2)
    with pytest.raises(SolverFailure, match="highs contradicts a forward pass"):
        mn.tighten(network, region, backend=Spying(lie=0.2), time_limit=100)


def test_an_interrupt_keeps_what_is_proven():
    network, region, _ = tiny(1)
    backend = Spying(interrupt=3)
    bounds = mn.tighten(network, region, backend=backend, time_limit=100)
    assert len(backend.limits) == 3
    assert bounds.width()["fc3"] <= mn.propagate(network, region, method="alpha").width()["fc3"] + 1e-9


def test_a_time_limit_is_kept(monkeypatch):
    """By a clock that moves by a twentieth of a second per solve, so that there is time for 120 solves of 480."""
    now, asked = 0.0, []

    class Limited(HiGHS):
        def open(self, program, options=None):
            session = super().open(program, options)
            plain = session.solve

            def solve(limits, on_event=None):
                nonlocal now
                asked.append((limits.time, max(0.01, 6 - now)))
                now += 0.05
                return plain(mn.Limits(nodes=0) if program.integer.any() else mn.Limits())

            session.solve = solve
            return session

    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now))
    g = np.random.default_rng(0)
    network = relu_net(g, (20, 40, 40, 40, 10))
    region = mn.LInf(g.normal(size=(1, 20)), 0.5)
    start = mn.propagate(network, region, method="crown")
    told = []
    bounds = mn.tighten(network, region, start=start, backend=Limited(), time_limit=6, run=mn.TighteningRun(on_layer=told.append))
    assert 100 < len(asked) <= 126  # one solve may begin at the end of each of six shares
    assert all(given <= left for given, left in asked)
    assert bounds.width()["fc2"] < start.width()["fc2"]
    assert [line.partition(":")[0] for line in told] == ["fc2", "fc3", "fc4"]


def test_a_solver_without_changes_or_stops_will_do():
    class Plain(HiGHS):
        features = HiGHS.features - {Feature.BOUND_STOP, Feature.CHANGE, Feature.ADD_ROWS}

    network, region, _ = tiny(0)
    plain, usual = (mn.tighten(network, region, backend=backend, time_limit=100) for backend in (Plain(), "highs"))
    assert plain.width()["fc3"] == pytest.approx(usual.width()["fc3"], abs=1e-4)


def test_what_is_asked_wrongly_is_refused():
    network, region, _ = tiny(0)
    other, elsewhere, _ = tiny(1)
    for options, told in (
        ({"method": "crown"}, "was given 'crown' as `method`; expected `lp` or `mip`"),
        ({"time_limit": 0}, "the time limit is 0"),
        ({"start": mn.propagate(other, region)}, "those of another network"),
        ({"start": mn.propagate(network, elsewhere)}, "another input set"),
        ({"gates": mn.find_gates(network), "start": mn.propagate(network, region)}, "do not know of gates after act1, act2"),
    ):
        with pytest.raises(InputError, match=told):
            mn.tighten(network, region, **options)
    assert tightening.tighten is mn.tighten
