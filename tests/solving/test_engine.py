"""The engine: exact objectives, valid bounds, a replay that detects errors, and models without a network."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from itertools import pairwise

import linopy
import numpy as np
import pytest
import xarray as xr

import mipnet as mn
from mipnet.backend.rewrites import rewrite
from mipnet.errors import BackendMissing, InputError, OptionError, UnboundedError, UnsupportedError
from mipnet.model.losses import Loss, add_loss
from mipnet.model.to_program import from_model
from mipnet.solving.cut_rounds import CutRounds
from mipnet.solving.program_sessions import OpenProgram
from mipnet.solving.replay import replay
from mipnet.solving.separators import Tangents
from mipnet.solving.solve_state import SolveEvents
from tests.nets import dense, make, mlp

BACKENDS = ("highs", "scip")


def boxed(seed=4):
    network, g = make(mlp, seed)
    return mn.encode(network, mn.LInf(g.uniform(0.3, 0.7, (1, *network.input_shape)), 0.3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_cross_entropy_reaches_the_true_minimum_over_a_box(backend):
    """Gradient descent on the loss never gets below the dual bound, and the objective of the solver is attained."""
    encoding = boxed()
    loss = Loss()
    encoding.model.add_objective(1.0 * add_loss(encoding, [1], loss))
    result = mn.solve(encoding, backend, mip_gap=1e-5, time_limit=60)
    assert result.status is mn.Status.OPTIMAL
    assert result.verified
    x = result.x["input"].values.reshape(1, *encoding.network.input_shape)
    assert loss.values(encoding.network.forward(x), np.array([1]))[0] == pytest.approx(result.objective, abs=1e-9)
    g = np.random.default_rng(0)
    tried = g.uniform(encoding.region.lower[0], encoding.region.upper[0], (20000, *encoding.network.input_shape))
    assert result.bound <= loss.values(encoding.network.forward(tried), np.full(20000, 1)).min() + 1e-6


def test_tangents_are_rounds_on_highs_and_nothing_on_scip():
    found = {}
    for backend in BACKENDS:
        encoding = boxed()
        encoding.model.add_objective(1.0 * add_loss(encoding, [0], Loss()))
        found[backend] = mn.solve(encoding, backend, mip_gap=1e-5, time_limit=60)
    assert found["highs"].rounds > 1
    assert found["highs"].cuts > 0
    assert found["highs"].rewritten == ("1 log-sum-exp term -> linearised by cuts",)
    assert found["scip"].rounds == 1
    assert found["scip"].cuts == 0
    assert found["highs"].objective == pytest.approx(found["scip"].objective, abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_trace_is_in_order_and_ends_at_the_result(backend):
    encoding = boxed()
    encoding.model.add_objective(1.0 * add_loss(encoding, [0], Loss()))
    heard = []
    result = mn.solve(encoding, backend, on_event=heard.append)
    times = [event.time for event in result.trace]
    assert times == sorted(times)
    bounds = [event.bound for event in result.trace if event.bound is not None]
    assert all(b >= a - 1e-9 for a, b in pairwise(bounds))
    assert [e for e in heard if e.kind != "log"] == list(result.trace)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_of_a_listener_stops_the_solve(backend):
    encoding = boxed()
    encoding.model.add_objective(encoding.output.sum())

    def listen(event):
        raise KeyError("listener")

    with pytest.raises(KeyError, match="listener"):
        mn.solve(encoding, backend, on_event=listen)


@pytest.mark.parametrize("backend", BACKENDS)
def test_replay_catches_a_point_that_is_not_the_networks(backend):
    """The weights of a layer have another sign than in the encoding, as with a wrong rule; only the replay detects it."""
    encoding = boxed()
    encoding.model.add_objective(encoding.output.sum())
    assert mn.solve(encoding, backend).verified
    node = encoding.network["fc1"]
    wrong = dataclasses.replace(node.layer, weight=-node.layer.weight)
    nodes = tuple(dataclasses.replace(n, layer=wrong) if n.name == "fc1" else n for n in encoding.network.nodes)
    encoding.network = dataclasses.replace(encoding.network, nodes=nodes)
    result = mn.solve(encoding, backend, start="none")
    assert not result.verified
    assert result.max_error > 1e-3


def test_replay_recomputes_what_the_solver_only_approximates():
    encoding = boxed()
    encoding.model.add_objective(encoding.output.sum())
    program = from_model(encoding.model)
    exact = encoding.point(encoding.region.centre)[program.labels]
    noisy = exact + np.random.default_rng(0).normal(size=exact.shape) * 1e-7
    repaired, error = replay(encoding, program, noisy)
    assert 0 < error < 1e-5
    assert program.violation(repaired) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_linopy_model_solves_with_indicators_and_sos(backend):
    """Indicator rows and SOS1 sets are native for SCIP and rewritten for HiGHS; the optimum is the same."""
    model = linopy.Model()
    items = [("i", np.arange(4))]
    x = model.add_variables(lower=-2, upper=3, coords=items, name="x")
    b = model.add_variables(binary=True, coords=items, name="b")
    model.add_indicator_constraints(b, 1, 1 * x, "<=", xr.DataArray([1.0, 0.5, -1.0, 2.0], coords=items))
    model.add_indicator_constraints(b, 0, 1 * x, ">=", 2.0)
    model.add_constraints(b.sum(), ">=", 3)
    y = model.add_variables(lower=0, upper=xr.DataArray([1.0, 2.0, 3.0], coords=[("k", np.arange(3))]), name="y")
    model.add_sos_constraints(y, sos_type=1, sos_dim="k")
    model.add_constraints(y.sum() - x.isel(i=0, drop=True), "<=", 1.5)
    model.add_objective(x.sum() + 2 * y.sum(), sense="max")
    result = mn.solve(model, backend)
    assert result.status is mn.Status.OPTIMAL
    assert result.objective == pytest.approx(best_by_hand(), abs=1e-6)
    assert float(result.x["x"].sum(skipna=False) + 2 * result.x["y"].sum(skipna=False)) == pytest.approx(result.objective)
    assert result.verified
    assert bool(result.rewritten) == (backend == "highs")


def best_by_hand():
    best = -np.inf
    tops, caps = np.array([1.0, 0.5, -1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    for off in (None, 0, 1, 2, 3):
        x = np.array([3.0 if i == off else t for i, t in enumerate(tops)])
        best = max(best, x.sum() + 2 * min(caps.max(), 1.5 + x[0]))
    return best


@pytest.mark.parametrize("backend", BACKENDS)
def test_infeasible_and_unbounded_have_no_point(backend):
    model = linopy.Model()
    x = model.add_variables(lower=0, name="x", coords=[("i", [0])])
    model.add_objective(x.sum(), sense="max")
    unbounded = mn.solve(model, backend)
    assert (unbounded.status, unbounded.x, unbounded.objective) == (mn.Status.UNBOUNDED, None, None)
    model.add_constraints(x, "<=", -1)
    infeasible = mn.solve(model, backend)
    assert (infeasible.status, infeasible.x, infeasible.objective, infeasible.verified) == (mn.Status.INFEASIBLE, None, None, False)


def test_big_ms_of_rewritten_rows_need_bounds():
    model = linopy.Model()
    x = model.add_variables(lower=0, coords=[("i", np.arange(2))], name="x")
    b = model.add_variables(binary=True, coords=[("i", np.arange(2))], name="b")
    model.add_indicator_constraints(b, 1, 1 * x, "<=", 1.0)
    model.add_objective(x.sum())
    with pytest.raises(UnboundedError, match="2 indicator rows have no finite big-M"):
        rewrite(from_model(model), frozenset())
    other = linopy.Model()
    y = other.add_variables(lower=0, coords=[("i", np.arange(2))], name="y")
    other.add_sos_constraints(y, sos_type=1, sos_dim="i")
    other.add_objective(y.sum())
    with pytest.raises(UnboundedError, match="2 members of SOS1 sets"):
        rewrite(from_model(other), frozenset())


def test_an_objective_that_is_not_linear_is_not_set():
    model = linopy.Model()
    x = model.add_variables(lower=0, upper=1, coords=[("i", [0])], name="x")
    with mn.open_problem(model) as opened, pytest.raises(UnsupportedError, match="objective is quadratic"):
        opened.set_objective((x * x).sum())


@pytest.mark.parametrize("backend", BACKENDS)
def test_questions_that_make_no_sense_are_refused(backend):
    encoding = boxed()
    with pytest.raises(BackendMissing, match=r"no backend is called `cplux`; known: .*highs, .*scip"):
        mn.solve(encoding, "cplux")
    with pytest.raises(OptionError, match="time_limitt"):
        mn.solve(encoding, backend, options={"time_limitt": 3})
    with pytest.raises(InputError, match="given -1 as `mip_gap`; expected a number of at least 0"):
        mn.solve(encoding, backend, mip_gap=-1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_start_is_taken_and_a_wrong_one_is_not(backend):
    g = np.random.default_rng(0)
    network = mn.Network.build(
        (6,), [("fc1", dense(g, 12, 6)), ("r1", mn.ReLU()), ("fc2", dense(g, 12, 12)), ("r2", mn.ReLU()), ("fc3", dense(g, 2, 12))]
    )
    encoding = mn.encode(network, mn.LInf(g.uniform(0, 1, (1, 6)), 0.5))
    encoding.model.add_objective(encoding.output.sum())
    started = mn.solve(encoding, backend, time_limit=30)
    assert started.start_accepted
    assert started.trace[0].objective == pytest.approx(network.forward(encoding.region.centre).sum())
    wrong = np.full(encoding.model._xCounter, 1e6)
    assert mn.solve(encoding, backend, start=wrong, time_limit=30).objective == pytest.approx(started.objective, abs=1e-4)


def two_networks():
    network, _ = make(mlp, 6)
    model = linopy.Model()
    x = model.add_variables(lower=0, upper=1, coords={"pixel": np.arange(network.input_shape[0])}, name="x")
    return model, x, mn.add_network(model, network, x, prefix="a_"), mn.add_network(model, network, x, prefix="b_")


def test_every_network_in_a_model_is_replayed_whatever_was_passed():
    model, _, first, second = two_networks()
    model.add_objective(first.output.sum())
    for problem in (model, first, second):
        result = mn.solve(problem)
        assert result.verified
        assert result.max_error is not None
    node = second.network["fc1"]
    nodes = tuple(dataclasses.replace(n, layer=mn.Dense(-node.layer.weight)) if n is node else n for n in second.network.nodes)
    second.network = dataclasses.replace(second.network, nodes=nodes)
    assert not mn.solve(first, start="none").verified
    plain = linopy.Model()
    plain.add_objective(plain.add_variables(lower=0, upper=1, coords=[("i", [0])], name="x").sum())
    assert (mn.solve(plain).max_error, mn.solve(plain).verified) == (None, True)


def test_wider_bounds_after_the_network_was_added_are_refused():
    model, x, first, second = two_networks()
    model.add_objective(first.output.sum() + 0 * second.output.sum())
    x.update(upper=0.5)
    assert mn.solve(model).verified
    x.update(upper=2.0)
    with pytest.raises(InputError, match="wider bounds than when it was written"):
        mn.solve(model)


def test_a_name_taken_twice_and_a_masked_input_are_refused():
    network, _ = make(mlp, 6)
    model = linopy.Model()
    pixels = {"pixel": np.arange(network.input_shape[0])}
    x = model.add_variables(lower=0, upper=1, coords=pixels, name="x")
    handle = mn.add_network(model, network, x)
    with pytest.raises(InputError, match=r"`output` already.*a `prefix` of its own"):
        mn.add_network(model, network, x)
    mask = xr.DataArray(np.arange(network.input_shape[0]) > 0, coords=pixels)
    holed = model.add_variables(lower=0, upper=1, coords=pixels, name="holed", mask=mask)
    with pytest.raises(mn.MipnetError, match="`holed` is masked in 1 places"):
        mn.add_network(model, network, holed, prefix="c_")
    assert handle.output.name == "output"


def test_nodes_may_be_called_like_our_own_variables():
    g = np.random.default_rng(0)
    names = ("input_", "output", "lse", "level", "above", "score_fc")
    layers = [part for i, n in enumerate(names) for part in ((f"fc{i}", dense(g, 3, 3)), (n, mn.ReLU()))]
    network = mn.Network.build((3,), [*layers, ("last", dense(g, 2, 3))])
    encoding = mn.encode(network, mn.Box(-np.ones((1, 3)), np.ones((1, 3))))
    encoding.model.add_objective(1.0 * add_loss(encoding, [0], Loss()))
    assert mn.solve(encoding, time_limit=30).verified


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_target_is_reached_by_true_points_only(backend):
    encoding = boxed()
    encoding.model.add_objective(1.0 * add_loss(encoding, [0], Loss()))
    best = mn.solve(encoding, backend, mip_gap=1e-6).objective
    missed = mn.solve(encoding, backend, limits=mn.Limits(gap=1e-6, objective_stop=best - 0.01))
    assert missed.status is mn.Status.OPTIMAL
    reached = mn.solve(encoding, backend, start="none", limits=mn.Limits(gap=1e-6, objective_stop=best + 0.05))
    assert reached.objective <= best + 0.05 + 1e-6
    assert reached.status in (mn.Status.TARGET, mn.Status.OPTIMAL)


@pytest.mark.sweep
def test_scip_solves_more_often_than_its_derivatives_know_threads():
    encoding = boxed()
    encoding.model.add_objective(1.0 * add_loss(encoding, [0], Loss()))
    found = {round(mn.solve(encoding, "scip", time_limit=10).objective, 4) for _ in range(70)}
    assert len(found) == 1


def test_large_columns_excuse_no_missed_row():
    encoding = boxed()
    far = encoding.model.add_variables(lower=0, upper=1e8, coords=[("i", [0])], name="far")
    encoding.model.add_constraints(far, "=", 1e8, name="far_out")
    encoding.model.add_objective(encoding.output.sum())
    program = from_model(encoding.model)
    point = encoding.point(encoding.region.centre)
    point[far.labels.values] = 1e8
    assert program.relative_violation(point[program.labels]) < 1e-9
    point[encoding.output.labels.values] += 1e-2
    assert program.relative_violation(point[program.labels]) > 1e-4


def test_rounds_without_integrality_go_on_while_the_bound_moves_and_give_no_incumbents():
    encoding = boxed()
    encoding.model.add_objective(1.0 * add_loss(encoding, [0], Loss()))
    backend = mn.get_backend("highs")
    lowered = rewrite(from_model(encoding.model, encoding.convex), backend.features)
    with closing(OpenProgram(lowered.program, backend)) as opened:
        events = SolveEvents(None, lowered.program.maximise)
        run = CutRounds(opened, [Tangents(term) for term in lowered.cuts], mn.Limits(time=60), events)
        opened.rows += [separator.first(None, run.program.columns) for separator in run.separators]
        run._relaxed_rounds()
        assert len(opened.rows) > 1
    assert run.counts.rounds > 2
    assert run.best.x is None
    assert run.best.bound <= mn.solve(encoding, "scip", mip_gap=1e-6).objective + 1e-6
