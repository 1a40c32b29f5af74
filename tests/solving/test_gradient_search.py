"""Primal search: gradients agree with torch, its points are feasible, and a solver that asks for points gets better ones."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import linopy
import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.backend import Feature
from mipnet.limits.deadline import NO_DEADLINE
from mipnet.model.losses import Loss, add_loss
from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.program import Importance
from mipnet.solving import start_points
from mipnet.solving.gradient_search import GradientSearch
from mipnet.solving.problem import Modelled
from mipnet.solving.start_points import StartPoints
from tests.clock import TickingClock
from tests.interrupts import CtrlC
from tests.nets import SEEDS, dense, make, sample

BACKENDS = ("highs", "scip")


def mlp(widths, seed):
    g = np.random.default_rng(seed)
    layers = [("fc0", dense(g, widths[1], widths[0]))]
    for i, (n, m) in enumerate(pairwise(widths[1:]), 1):
        layers += [(f"r{i}", mn.ReLU()), (f"fc{i}", dense(g, m, n))]
    return mn.Network.build((widths[0],), layers), g


def boxed(widths=(30, 40, 40, 40, 4), seed=0, radius=0.3):
    """A problem that is too hard to be solved within seconds."""
    network, g = mlp(widths, seed)
    encoding = mn.encode(network, mn.LInf(g.uniform(0, 1, (1, widths[0])), radius))
    encoding.model.add_objective(encoding.output.sum())
    return encoding


def scored(kind, loss="cross-entropy", seed=1, widths=(6, 8, 6, 3), layers="paper"):
    network, g = mlp(widths, seed)
    images = g.uniform(0, 1, (4, widths[0]))
    labels = network.forward(images).argmax(axis=1)
    objective = Objective(4, Loss(loss), layers=layers)
    return Importance(network, images, labels, objective, kind=kind, bounds="sound").pose()


def searched(encoding) -> tuple[Modelled, GradientSearch]:
    problem = Modelled.of(encoding)
    return problem, problem.gradient_search()


@pytest.mark.parametrize(("family", "seed"), SEEDS[::5])
def test_a_pass_in_torch_is_the_encodings_own_forward_pass(family, seed):
    network, g = make(family, seed)
    region = mn.LInf(g.uniform(0, 1, (2, *network.input_shape)), 0.2)
    encoding = mn.encode(network, region, gates="all" if mn.find_gates(network) else None)
    encoding.model.add_objective(encoding.output.sum() + 2.0 * add_loss(encoding, [0, 1], Loss()))
    problem, search = searched(encoding)
    free = search.random(6, g)
    passed = search._forward(torch.tensor(free)).numpy()
    for values, point in zip(free, passed, strict=True):
        truth = problem.replay(search.completed(values), compare=False)[0]
        np.testing.assert_allclose(point[search._computed], truth[search._computed], atol=1e-9)


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("layers", ["paper", "all"])
def test_slopes_are_those_of_the_true_objective(loss, layers):
    problem, search = searched(scored("continuous", loss, layers=layers))
    assert search.differentiable
    x = torch.tensor(search.random(1, np.random.default_rng(3)) * 0.5 + 0.2, requires_grad=True)
    merit, value, violation = search._merit(x)
    assert float(violation.detach().max()) < 1e-12
    assert torch.allclose(merit, value)
    (slope,) = torch.autograd.grad(value.sum(), x)

    def objective(free):
        return problem.program.objective(problem.replay(search.completed(free), compare=False)[0])

    here = x.detach().numpy()[0]
    for i in range(0, len(here), 3):
        step = np.zeros(len(here))
        step[i] = 1e-6
        assert (objective(here + step) - objective(here - step)) / 2e-6 == pytest.approx(float(slope[0, i]), abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_descent_beats_sampling_and_its_points_are_true(seed):
    encoding = boxed(seed=seed)
    problem, search = searched(encoding)
    rng = np.random.default_rng(0)
    found = search.descend(np.vstack([search.starts, search.random(7, rng)]), 40, NO_DEADLINE)
    values = encoding.network.forward(found.reshape(len(found), *encoding.network.input_shape)).sum(axis=1)
    assert (np.diff(values) >= -1e-9).all()
    assert values[0] < encoding.network.forward(sample(encoding.region, 5000, rng)).sum(axis=1).min()
    assert encoding.region.contains(found[0].reshape(1, -1), 0.0)
    with mn.open_problem(encoding) as opened:
        point = opened._repaired(search.completed(found[0]))
    assert problem.program.objective(point) == pytest.approx(values[0])


def test_binary_scores_are_binary_and_the_best_of_all_masks_is_found():
    encoding = scored("binary", seed=2, widths=(4, 4, 4, 3))
    problem, search = searched(encoding)
    masks = np.array(np.meshgrid(*[[0.0, 1.0]] * len(search.free))).reshape(len(search.free), -1).T
    every = [problem.program.objective(problem.replay(search.completed(mask), compare=False)[0]) for mask in masks]
    begin = np.vstack([search.starts, search.random(15, np.random.default_rng(0))])
    found = search.descend(begin, 40, NO_DEADLINE)
    assert np.isin(found, (0.0, 1.0)).all()
    reached = problem.program.objective(problem.replay(search.completed(found[0]), compare=False)[0])
    assert reached == pytest.approx(min(every), abs=1e-9)


def test_rows_on_scores_and_outputs_are_kept():
    """A budget on the scores and a lower bound of an output, both of which the unconstrained optimum violates."""
    encoding = scored("continuous")
    total = sum(score.sum() for score in encoding.scores.values())
    encoding.model.add_constraints(total, ">=", 13.5)
    free_search = searched(scored("continuous"))[1]
    begin = np.vstack([free_search.starts, free_search.random(7, np.random.default_rng(0))])
    assert free_search.descend(begin, 40, NO_DEADLINE)[0].sum() < 13.5
    problem, search = searched(encoding)
    assert search.descend(begin, 40, NO_DEADLINE)[0].sum() >= 13.5 - 1e-7
    point = problem.replay(search.completed(search.descend(begin, 40, NO_DEADLINE)[0]), compare=False)[0]
    assert problem.program.relative_violation(point) < 1e-9

    encoding = boxed((6, 10, 10, 2), seed=3)
    first = encoding.output.isel(**{encoding.output.dims[1]: 0})
    lowest = searched(encoding)[1].descend(searched(encoding)[1].random(8, np.random.default_rng(0)), 40, NO_DEADLINE)[0]
    floor = float(encoding.network.forward(lowest[None])[0, 0]) + 0.05
    encoding.model.add_constraints(first, ">=", floor)
    problem, search = searched(encoding)
    found = search.descend(search.random(8, np.random.default_rng(0)), 40, NO_DEADLINE)[0]
    assert encoding.network.forward(found[None])[0, 0] >= floor - 1e-8


def test_an_objective_on_hidden_variables_is_sampled():
    encoding = boxed((6, 10, 10, 2))
    hidden = encoding.block("r1").variables[""]
    encoding.model.objective.expression = 1.0 * hidden.sum()
    problem, search = searched(encoding)
    assert not search.differentiable
    begin = search.random(50, np.random.default_rng(0))
    found = search.descend(begin, 40, NO_DEADLINE)
    values = [problem.program.objective(problem.replay(search.completed(x), compare=False)[0]) for x in begin]
    assert problem.program.objective(problem.replay(search.completed(found[0]), compare=False)[0]) == pytest.approx(min(values))
    assert mn.solve(encoding, start="search").verified


def test_two_networks_on_one_input_are_searched_together():
    network, other = mlp((5, 8, 2), 0)[0], mlp((5, 8, 2), 1)[0]
    model = linopy.Model()
    x = model.add_variables(lower=0, upper=1, coords={"pixel": np.arange(5)}, name="x")
    one, two = mn.add_network(model, network, x, prefix="a_"), mn.add_network(model, other, x, prefix="b_")
    model.add_objective(one.output.sum() - two.output.sum())
    search = searched(one)[1]
    assert (len(search.free), search.differentiable) == (5, True)
    found = search.descend(search.random(8, np.random.default_rng(0)), 40, NO_DEADLINE)[0]
    value = network.forward(found[None]).sum() - other.forward(found[None]).sum()
    assert value == pytest.approx(mn.solve(one, time_limit=30).objective, abs=1e-2)
    assert two.network is other


def test_without_anything_free_there_is_nothing_to_search():
    network, g = mlp((4, 3, 2), 0)
    encoding = mn.encode(network, mn.Samples(g.uniform(0, 1, (2, 4))))
    encoding.model.add_objective(encoding.output.sum())
    assert Modelled.of(encoding).gradient_search() is None
    assert mn.solve(encoding, start="search").verified


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_search_before_the_solve_gives_it_a_better_start(backend, no_time_passes):
    encoding = boxed()
    plain = mn.solve(encoding, backend, limits=mn.Limits(nodes=0))
    found = mn.solve(encoding, backend, limits=mn.Limits(nodes=0), start="search")
    assert found.objective < plain.objective - 0.1
    assert found.verified
    assert found.start_accepted


@pytest.fixture
def no_time_passes(monkeypatch):
    """To searches no time passes: each takes all of its steps, and every request is answered."""
    now = time.perf_counter() + 1e6
    monkeypatch.setattr(start_points, "time", SimpleNamespace(perf_counter=lambda: now))
    TickingClock(monkeypatch).moves = 0.0


@pytest.mark.sweep
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_solver_that_asks_gets_points_that_it_does_not_find(backend, monkeypatch, no_time_passes):
    """At the root, where solvers ask first, by 0.1 better than what the solver finds there by itself."""
    monkeypatch.setattr(StartPoints, "before_solve", lambda self: iter(()))
    encoding = boxed((12, 20, 20, 20, 4))
    alone = mn.solve(encoding, backend, limits=mn.Limits(nodes=1))
    told = mn.solve(encoding, backend, limits=mn.Limits(nodes=1, objective_stop=alone.objective - 0.1), start="search")
    assert told.objective <= alone.objective - 0.1
    assert told.verified
    assert told.trace[0].objective == pytest.approx(encoding.network.forward(encoding.region.centre).sum())
    objectives = [event.objective for event in told.trace if event.objective is not None]
    assert objectives == sorted(objectives, reverse=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cuts_in_rounds_and_scores_are_searched_too(backend):
    for kind in ("continuous", "binary"):
        encoding = scored(kind)
        found = mn.solve(encoding, backend, start="search", mip_gap=1e-5, time_limit=60)
        plain = mn.solve(encoding, backend, start="none", mip_gap=1e-5, time_limit=60)
        assert found.status is mn.Status.OPTIMAL
        assert found.objective == pytest.approx(plain.objective, abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_in_a_search_during_the_solve_is_raised(backend, monkeypatch):
    def fail(self, x, best):
        raise KeyError("search")

    monkeypatch.setattr(StartPoints, "during_solve", fail)
    with pytest.raises(KeyError, match="search"):
        mn.solve(boxed((20, 20, 20, 20, 2)), backend, start="search", time_limit=30)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_ends_a_solve_that_is_searched_with_its_best_point(backend):
    result = mn.solve(boxed(), backend, start="search", time_limit=60, on_event=CtrlC())
    assert result.status is mn.Status.INTERRUPTED
    assert result.verified


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_answer_that_is_good_enough_ends_the_rounds(backend, monkeypatch, no_time_passes):
    """HiGHS approximates cross-entropy by tangents in rounds, and a search during a round finds the point at which the solve stops."""
    monkeypatch.setattr(StartPoints, "before_solve", lambda self: iter(()))
    network, g = mlp((20, 30, 30, 30, 4), 0)
    encoding, loss = mn.encode(network, mn.LInf(g.uniform(0, 1, (1, 20)), 0.5)), Loss()
    encoding.model.add_objective(1.0 * add_loss(encoding, [0], loss))
    search = searched(encoding)[1]
    lowest = network.forward(search.descend(search.random(8, np.random.default_rng(1)), 40, NO_DEADLINE)[:1])
    centre = network.forward(encoding.region.centre)
    target = 0.7 * loss.values(lowest, np.array([0]))[0] + 0.3 * loss.values(centre, np.array([0]))[0]
    result = mn.solve(encoding, backend, start="search", limits=mn.Limits(time=200, gap=1e-6, objective_stop=target))
    assert result.status is mn.Status.TARGET
    assert result.objective <= target
    assert result.verified


def test_solvers_that_do_not_ask_are_given_the_search_before():
    backend = mn.get_backend("cbc")
    if not backend.available:
        pytest.skip("CBC is not here")
    assert Feature.SUGGEST not in backend.features
    result = mn.solve(boxed((6, 10, 10, 2), radius=0.2), backend, start="search", time_limit=20)
    assert result.verified


SCRIPT = """
import threading
import numpy as np
import mipnet as mn
from tests.solving.test_gradient_search import boxed, scored
from tests.solving.test_lazy_rows import masks

kept = []
for backend in ("highs", "scip"):
    for problem in (boxed(), scored("binary"), masks(12, 14, 10, 4, seed=1, images=20).pose()):
        opened = mn.open_problem(problem, backend)
        opened.solve(time_limit=0.3, start="search")
        kept.append(opened)
for opened in (kept[0], kept[3]):
    begun = threading.Event()
    hear = lambda event, begun=begun: begun.set() if event.kind == "log" else None
    threading.Thread(target=lambda opened=opened, hear=hear: opened.solve(start="search", on_event=hear), daemon=True).start()
    assert begun.wait(240)
print("the end")
"""


@pytest.mark.sweep
def test_an_interpreter_that_ends_with_sessions_open_and_solves_under_way_ends_in_peace():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
