"""Lazy rows in SCIP's tree: the optima of rounds on HiGHS, of enumeration and of the native log-sum-exp, and cuts that are kept."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from mipnet_scip import SCIP

import mipnet as mn
from mipnet.backend import Feature
from mipnet.model.losses import Loss, add_loss
from mipnet.pruning.importance.program import Importance
from tests.nets import dense
from tests.pruning.importance.questions import ask
from tests.sweep import sweep

EXACT = {"mip_gap": 1e-6, "time_limit": 60}


class Tangential(SCIP):
    """SCIP without native log-sum-exp, so that the loss is approximated by tangents in the tree."""

    features = SCIP.features - {Feature.LOG_SUM_EXP}


class InRounds(Tangential):
    """SCIP without lazy rows and without native log-sum-exp."""

    features = Tangential.features - {Feature.LAZY}


class Watched(SCIP):
    """SCIP that counts the calls of `lazy`, and the rows that it adds."""

    def __init__(self) -> None:
        self.told, self.rows = 0, 0

    def open(self, program, options=None):
        session = super().open(program, options)
        lazy = session.lazy

        def told(rows):
            def written(some):
                self.rows += len(some)
                rows.written(some)

            self.told += 1
            lazy(replace(rows, written=written))

        session.lazy = told
        return session


def mlp(*widths, seed):
    g = np.random.default_rng(seed)
    parts = [(f"fc{i}", dense(g, m, n)) for i, (n, m) in enumerate(pairwise(widths))]
    layers = [part for i, fc in enumerate(parts) for part in (fc, (f"r{i}", mn.ReLU()))]
    return mn.Network.build((widths[0],), layers[:-1]), g


def masks(*widths, seed, images=8, **options):
    """A question with binary scores in reduced space: a program of tangents and pattern rows."""
    network, g = mlp(*widths, seed=seed)
    x = g.uniform(0, 1, (images, widths[0]))
    labels = network.forward(x).argmax(axis=1)
    given = {"weight": 3.0, "kind": "binary", "formulation": {"relu": "frozen"}, "epsilon": 1e-3} | options
    return ask(network, x, labels, **given)


@pytest.mark.parametrize("pattern", ["free", "upper"])
@pytest.mark.parametrize("seed", sweep(range(4), every=2))
def test_every_mask_is_worse_or_cut_off(seed, pattern):
    """The optimum is the best of all 2^9 masks that satisfy the pattern rows, with its exact loss."""
    task = masks(5, 5, 4, 3, seed=seed, pattern=pattern)
    posed = task.pose()
    result = mn.solve(posed, "scip", **EXACT)
    every = []
    for mask in product((0.0, 1.0), repeat=posed.count):
        point = posed.completed(np.array(mask))
        if all(separator.lift(point) is not None for separator in posed.separators):
            every.append(posed.program.objective(point))
    assert result.status is mn.Status.OPTIMAL
    assert result.objective == pytest.approx(min(every), abs=1e-5)
    assert result.bound <= min(every) + 1e-6
    assert result.verified


@pytest.mark.parametrize(
    "options", [{}, {"pattern": "upper"}, {"loss": Loss("margin")}, {"weight": 20.0}], ids=["", "upper", "margin", "20"]
)
@pytest.mark.parametrize("seed", sweep(range(5), every=5))
def test_one_tree_has_the_optimum_of_rounds_on_highs(seed, options):
    found = [mn.solve(masks(12, 14, 10, 4, seed=seed, images=20, **options).pose(), backend, **EXACT) for backend in ("scip", "highs")]
    assert [result.status for result in found] == [mn.Status.OPTIMAL] * 2
    assert found[0].objective == pytest.approx(found[1].objective, abs=1e-5)
    assert found[0].verified


@pytest.mark.parametrize("seed", sweep(range(4), every=4))
@pytest.mark.parametrize("kind", ["box", "continuous", "binary"])
def test_tangents_in_the_tree_have_the_optimum_of_the_native_log_sum_exp(seed, kind):
    def posed():
        network, g = mlp(5, 8, 6, 3, seed=seed)
        if kind == "box":
            encoding = mn.encode(network, mn.LInf(g.uniform(0, 1, (1, 5)), 0.3))
            encoding.model.add_objective(1.0 * add_loss(encoding, [0], Loss()))
            return encoding
        x = g.uniform(0, 1, (3, 5))
        return Importance(network, x, network.forward(x).argmax(axis=1), bounds="sound", kind=kind).pose()

    native, tree, rounds = (mn.solve(posed(), backend(), **EXACT) for backend in (SCIP, Tangential, InRounds))
    assert tree.status is mn.Status.OPTIMAL
    assert tree.objective == pytest.approx(native.objective, abs=2e-5)
    assert tree.objective == pytest.approx(rounds.objective, abs=2e-5)
    assert tree.verified


def test_scip_is_told_of_lazy_rows_and_writes_some():
    backend = Watched()
    result = mn.solve(masks(12, 14, 10, 4, seed=1, images=20, pattern="upper").pose(), backend, **EXACT)
    assert result.status is mn.Status.OPTIMAL
    assert backend.told > 0
    assert 0 < backend.rows <= result.cuts


def test_rows_of_the_tree_are_kept_for_the_next_solve():
    """The rows are valid for every objective, so a second solve starts with them and adds fewer."""
    task = masks(12, 14, 10, 4, seed=1, images=20, pattern="upper")
    posed = task.pose()
    with mn.open_problem(posed, "scip") as opened:
        first = opened.solve(**EXACT)
        kept = sum(len(rows) for rows in opened._opened.rows)
        again = opened.solve(**EXACT)
        assert kept == first.cuts
        assert again.cuts < first.cuts
        opened.set_objective(posed.costs_at(8.0))
        changed = opened.solve(**EXACT)
    assert again.objective == pytest.approx(first.objective, abs=1e-6)
    fresh = mn.solve(masks(12, 14, 10, 4, seed=1, images=20, pattern="upper", weight=8.0).pose(), "highs", **EXACT)
    assert changed.objective == pytest.approx(fresh.objective, abs=1e-5)


def test_stops_and_events_hold_in_a_tree_of_lazy_rows():
    task = masks(12, 14, 10, 4, seed=1, images=20, pattern="upper")
    whole = mn.solve(task.pose(), "scip", **EXACT)
    objectives = [event.objective for event in whole.trace if event.objective is not None]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[-1] >= whole.objective - 1e-6
    target = whole.objective + 0.05 * abs(whole.objective)
    reached = mn.solve(task.pose(), "scip", limits=mn.Limits(gap=1e-6, objective_stop=target))
    assert reached.objective <= target
    assert reached.verified
    low = mn.solve(task.pose(), "scip", limits=mn.Limits(gap=1e-6, bound_stop=whole.objective - 0.05))
    assert whole.objective - 0.05 <= low.bound <= whole.objective + 1e-6


def test_an_exception_of_a_separator_in_the_tree_is_raised():
    posed = masks(12, 14, 10, 4, seed=1, images=20).pose()
    separate, seen = posed.loss.separate, []

    class Breaking:
        first, lift = staticmethod(posed.loss.first), staticmethod(posed.loss.lift)

        @staticmethod
        def separate(x, width):
            seen.append(x)
            if posed.program.integer.any() and np.isin(x[: posed.count], (0.0, 1.0)).all():
                raise KeyError("separator")
            return separate(x, width)

    posed.separators = [Breaking()]
    with pytest.raises(KeyError, match="separator"):
        mn.solve(posed, "scip", start="none", **EXACT)
    assert seen
