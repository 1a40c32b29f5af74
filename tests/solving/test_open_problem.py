"""Open problems: every solve has the same optimum as a new problem, independent of the earlier solves."""

from __future__ import annotations

import linopy
import numpy as np
import pytest
import xarray as xr
from mipnet_highs import HiGHS

import mipnet as mn
from mipnet.backend import Feature
from mipnet.errors import InputError, OptionError, UnsupportedError
from mipnet.model.losses import Loss, add_loss
from mipnet.solving.open_problem import open_problem
from tests.interrupts import CtrlC
from tests.nets import dense, make, mlp
from tests.pruning.importance.questions import changed
from tests.pruning.importance.test_frozen_network import question, relu_mlp
from tests.sweep import in_turn, marked, sweep

BACKENDS = ("highs", "scip")
EXACT = {"mip_gap": 1e-6, "time_limit": 60}


class Counting(HiGHS):
    """HiGHS that counts how often it opens a program."""

    def __init__(self) -> None:
        self.opened = 0

    def open(self, program, options=None):
        self.opened += 1
        return super().open(program, options)


class Rigid(Counting):
    """HiGHS that does not support changes."""

    features = HiGHS.features - {Feature.CHANGE, Feature.ADD_ROWS}

    def open(self, program, options=None):
        session = super().open(program, options)
        session.set_objective = session.set_bounds = session.add_rows = None
        return session


def encoded(seed=7, loss=True):
    network, g = make(mlp, seed)
    encoding = mn.encode(network, mn.LInf(g.uniform(0.3, 0.7, (1, *network.input_shape)), 0.3))
    return encoding, add_loss(encoding, [1], Loss()) if loss else None


def logit(encoding, k):
    return encoding.output.isel(sample=0, **{encoding.output.dims[1]: k}, drop=True)


def agree(found, fresh):
    assert found.status is fresh.status
    assert found.objective == pytest.approx(fresh.objective, abs=2e-5)
    assert found.verified
    assert found.bound == pytest.approx(fresh.bound, abs=2e-5)


@pytest.mark.parametrize(
    ("seed", "loss", "backend"),
    sweep([(seed, loss, backend) for seed in (4, 7) for loss in (True, False) for backend in BACKENDS], every=5),
)
def test_objectives_in_turn_have_the_optima_of_fresh_solves(backend, loss, seed):
    encoding, entropy = encoded(seed, loss)
    asked = [(logit(encoding, k) - logit(encoding, 1 - k), sense) for k in range(2) for sense in ("min", "max")]
    asked += [(weight * entropy + logit(encoding, 0), "min") for weight in (0.5, 4.0)] if loss else []
    encoding.model.add_objective(asked[0][0])
    with open_problem(encoding, backend) as opened:
        found = []
        for objective, sense in (*asked, asked[0]):
            opened.set_objective(objective, sense=sense)
            found.append(opened.solve(**EXACT))
    for result, (objective, sense) in zip(found, (*asked, asked[0]), strict=True):
        encoding.model.objective.expression, encoding.model.objective.sense = objective, sense
        agree(result, mn.solve(encoding, backend, **EXACT))


@pytest.mark.parametrize(("options", "backend"), in_turn([{}, {"pattern": "paper"}, {"kind": "binary"}], BACKENDS), ids=str)
def test_a_reduced_program_at_many_weights(backend, options):
    task = question(relu_mlp, 1, formulation={"relu": "frozen"}, **options)
    posed = task.pose()
    kept = posed.program
    with open_problem(posed, backend) as opened:
        for weight in (5.0, 0.5, 20.0, 0.0, 2.0):
            cost = kept.cost.copy()
            cost[posed.loss.first_t :] *= weight / task.objective.weight
            opened.set_objective(cost)
            fresh = mn.solve(question(relu_mlp, 1, formulation={"relu": "frozen"}, weight=weight, **options).pose(), backend, **EXACT)
            agree(opened.solve(**EXACT), fresh)
    assert posed.program is kept


@pytest.mark.parametrize("backend", BACKENDS)
def test_bounds_are_tightened_and_opened_again(backend):
    def fresh(lower, upper):
        encoding, entropy = encoded()
        encoding.model.add_objective(entropy + logit(encoding, 0))
        source = encoding.model.variables["input"]
        source.update(lower=np.maximum(source.lower, lower), upper=np.minimum(source.upper, upper))
        return mn.solve(encoding, backend, **EXACT)

    encoding, entropy = encoded()
    encoding.model.add_objective(entropy + logit(encoding, 0))
    source = encoding.model.variables["input"]
    with open_problem(encoding, backend) as opened:
        for lower, upper in ((0.0, 1.0), (0.4, 0.5), (0.2, 0.45), (0.0, 1.0)):
            opened.set_bounds(source, np.maximum(source.lower.values, lower), np.minimum(source.upper.values, upper))
            agree(opened.solve(**EXACT), fresh(lower, upper))
        opened.set_bounds(source, upper=source.lower.values)
        with pytest.raises(InputError, match="wider than those that the problem was opened with"):
            opened.set_bounds(source, upper=2.0)
        opened.set_bounds(source, lower=source.upper.values)
        assert opened.solve().status is mn.Status.INFEASIBLE


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_may_be_held_down(backend):
    task = question(relu_mlp, 2, weight=3.0)
    frozen = changed(task, formulation={"relu": "frozen"}, pattern="paper", epsilon=0.0)
    full = changed(task, epsilon=0.0).pose()
    gate = full.gates[-1]  # no layer after it has a pattern to keep
    columns = np.arange(-gate.units, 0) + sum(g.units for g in full.gates)
    with open_problem(frozen.pose(), backend) as small, open_problem(full, backend) as large:
        for top in (1.0, 0.3, 0.0, 1.0):
            small.set_bounds(columns, upper=top)
            large.set_bounds(full.scores[gate.name], upper=top)
            found = [opened.solve(**EXACT) for opened in (small, large)]
            assert found[0].objective == pytest.approx(found[1].objective, abs=2e-5)
            assert all(result.verified for result in found)
            assert float(found[1].x[full.scores[gate.name].name].max()) <= top + 1e-9


@pytest.mark.parametrize("kind", [Counting, Rigid])
def test_a_program_is_handed_over_once_if_the_backend_takes_changes(kind):
    backend = kind()
    encoding, entropy = encoded()
    encoding.model.add_objective(1 * entropy)
    with open_problem(encoding, backend) as opened:
        assert backend.opened == 0
        found = []
        for weight in (1.0, 2.0, 3.0):
            opened.set_objective(weight * entropy)
            found.append(opened.solve(**EXACT))
            assert found[-1].objective == pytest.approx(weight * found[0].objective, abs=1e-5)
    assert found[0].rounds > 1
    if kind is Counting:
        assert backend.opened == 2  # with and without integrality
        assert found[2].cuts <= found[0].cuts
    else:
        assert backend.opened >= sum(result.rounds for result in found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_bound_and_no_point_is_carried_to_an_objective_where_it_is_none(backend):
    encoding, entropy = encoded()
    encoding.model.add_objective(1 * entropy)
    with open_problem(encoding, backend) as opened:
        first = opened.solve(**EXACT)
        opened.set_objective(entropy - 100 * logit(encoding, 1))
        hasty = opened.solve(limits=mn.Limits(time=0.0))
        thorough = opened.solve(**EXACT)
        assert hasty.bound <= thorough.objective + 1e-6
        assert hasty.objective >= thorough.bound - 1e-6
        assert hasty.rounds <= 1
        opened.set_objective(1 * entropy)
        again = opened.solve(limits=mn.Limits(time=0.0))
        assert again.objective == pytest.approx(first.objective, abs=2e-5)
        assert again.trace[0].bound is None or again.trace[0].bound == -np.inf
        assert opened.solve(limits=mn.Limits(time=0.0), start="none").bound <= first.objective + 1e-6


def hard():
    g = np.random.default_rng(0)
    layers = [(f"fc{i}", dense(g, 30, 12 if i == 0 else 30)) for i in range(3)]
    parts = [part for name, layer in layers for part in ((name, layer), (f"r_{name}", mn.ReLU()))]
    network = mn.Network.build((12,), [*parts, ("last", dense(g, 3, 30))])
    return mn.encode(network, mn.LInf(g.uniform(0, 1, (1, 12)), 0.5))


@pytest.mark.parametrize("backend", [marked("highs"), "scip"])
def test_what_ends_one_solve_does_not_end_the_next(backend):
    """A time limit, Ctrl-C and an exception of a handler, each during a hard solve; then an easy one."""
    encoding = hard()
    inputs = encoding.model.variables["input"]
    encoding.model.add_objective(logit(encoding, 0) - logit(encoding, 1))
    easy = (inputs * xr.DataArray(np.arange(1.0, 13.0), dims=inputs.dims[1:])).sum()
    least = float((inputs.lower.values * np.arange(1.0, 13.0)).sum())

    def break_down(event):
        raise KeyError("listener")

    with open_problem(encoding, backend) as opened:
        for how in ("limit", "ctrl-c", "listener"):
            opened.set_objective(logit(encoding, 0) - logit(encoding, 1))
            if how == "limit":
                assert opened.solve(time_limit=0.5).status is mn.Status.TIME_LIMIT
            elif how == "ctrl-c":
                stopped = opened.solve(time_limit=60, on_event=CtrlC())
                assert stopped.status is mn.Status.INTERRUPTED
                assert stopped.x is not None
            else:
                with pytest.raises(KeyError, match="listener"):
                    opened.solve(time_limit=60, on_event=break_down)
            opened.set_objective(easy)
            found = opened.solve(time_limit=60)
            assert found.status is mn.Status.OPTIMAL
            assert found.objective == pytest.approx(least, abs=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_linopy_model_with_sets_and_indicators(backend):
    def model():
        m, items = linopy.Model(), [("i", np.arange(4))]
        x = m.add_variables(lower=-2, upper=3, coords=items, name="x")
        b = m.add_variables(binary=True, coords=items, name="b")
        y = m.add_variables(lower=0, upper=2, coords=items, name="y")
        m.add_indicator_constraints(b, 1, 1 * x, "<=", 0.5)
        m.add_indicator_constraints(b, 0, 1 * x, ">=", 2.0)
        m.add_sos_constraints(y, sos_type=1, sos_dim="i")
        m.add_constraints(b.sum() + y.sum(), "<=", 4)
        return m, x, b, y

    costs = np.random.default_rng(0).normal(size=(4, 3, 4))
    m, x, b, y = model()
    m.add_objective(x.sum())
    with open_problem(m, backend) as opened:
        for k, (p, q, r) in enumerate(costs):
            objective = (p * x).sum() + (q * b).sum() + (r * y).sum() + 7.0
            opened.set_objective(objective, sense="max" if k % 2 else "min")
            opened.set_bounds(x, lower=-2 + 0.3 * k)
            other, ox, ob, oy = model()
            ox.update(lower=-2 + 0.3 * k)
            other.add_objective((p * ox).sum() + (q * ob).sum() + (r * oy).sum(), sense="max" if k % 2 else "min")
            assert opened.solve(**EXACT).objective == pytest.approx(mn.solve(other, backend, **EXACT).objective + 7.0, abs=1e-5)


def test_what_cannot_be_an_objective_or_a_bound_is_refused():
    encoding, entropy = encoded()
    encoding.model.add_objective(1 * entropy)
    with pytest.raises(OptionError, match="tiem"), open_problem(encoding, options={"tiem": 3}) as opened:
        opened.solve()
    with open_problem(encoding) as opened:
        late = encoding.model.add_variables(lower=0, name="late")
        for wrong, what in (
            (1 * late, "were added to the model after it was opened"),
            (np.ones(3), "the objective has shape"),
            (np.full(opened.problem.program.columns, np.nan), "not finite"),
        ):
            with pytest.raises(InputError, match=what):
                opened.set_objective(wrong)
        with pytest.raises(UnsupportedError, match="quadratic"):
            opened.set_objective(encoding.output * encoding.output)
        with pytest.raises(InputError, match="given 'up' as `sense`; expected `min` or `max`"):
            opened.set_objective(1 * entropy, sense="up")
        with pytest.raises(InputError, match="columns are numbers from 0"):
            opened.set_bounds(np.array([-1]), 0.0, 0.0)
        assert opened.solve(**EXACT).status is mn.Status.OPTIMAL


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [5, marked(7)])
def test_a_budget_on_the_loss_holds_for_lifted_points_too(backend, seed):
    encoding, entropy = encoded(seed)
    encoding.model.add_objective(1 * entropy)
    least = mn.solve(encoding, "scip", **EXACT).objective
    encoding, entropy = encoded(seed)
    encoding.model.add_constraints(entropy, "<=", least + 0.1, name="budget")
    encoding.model.add_objective(encoding.output.sum())
    found = mn.solve(encoding, backend, **EXACT)
    assert found.verified
    x = found.x["input"].values.reshape(1, *encoding.network.input_shape)
    assert Loss().values(encoding.network.forward(x), np.array([1]))[0] <= least + 0.1 + 1e-5
    other = mn.solve(encoding, BACKENDS[backend == "highs"], **EXACT)
    assert found.objective == pytest.approx(other.objective, abs=2e-5)
