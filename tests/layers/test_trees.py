"""Tree ensembles: forward pass, intervals and optima against the enumeration of all cells between thresholds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.bounds.interval import Interval, interval
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.layers import TreeEnsemble
from mipnet.layers.tree_rows import cell_ends
from tests.trees import corners, random_ensemble


def box_of(low: list[float], high: list[float]) -> mn.Box:
    return mn.Box(np.array([low]), np.array([high]))


def test_an_input_at_the_threshold_goes_left() -> None:
    splits = torch.tensor([[0, 1, 2], [-1, 1, 1], [-1, 2, 2]])
    tree = TreeEnsemble(splits, torch.tensor([3.0, 0, 0]), torch.tensor([[0.0], [1], [2]]), torch.tensor([0]), torch.tensor([10.0]))
    x = torch.tensor([[3.0], [np.nextafter(3, 4)], [np.nextafter(3, 2)]], dtype=torch.float64)
    assert tree.forward(x)[:, 0].tolist() == [11, 12, 11]
    x.requires_grad_(True)
    assert torch.autograd.grad(tree.forward(x).sum(), x)[0].abs().max() == 0


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_intervals_hold_and_are_exact_for_one_tree(seed: int) -> None:
    tree, g = random_ensemble(seed, trees=1, outputs=2), np.random.default_rng(seed)
    ends = np.sort(g.uniform(-1, 6, (2, 5, 2)), axis=0)
    found = interval(tree, Interval(*map(torch.tensor, ends)))
    for sample in range(5):
        values = tree.forward(torch.tensor(corners(tree, *ends[:, sample]))).numpy()
        np.testing.assert_allclose(found.lower[sample], values.min(0), atol=1e-9)
        np.testing.assert_allclose(found.upper[sample], values.max(0), atol=1e-9)


def test_the_interval_of_a_point_is_the_forward_pass() -> None:
    tree = random_ensemble(3, trees=9, outputs=2)
    x = torch.tensor(corners(tree, np.array([-1.0, -1]), np.array([6.0, 6])))
    found = interval(tree, Interval(x, x))
    assert torch.equal(found.lower, tree.forward(x))
    assert torch.equal(found.upper, tree.forward(x))


def test_the_difference_of_two_outputs_is_bounded_leaf_by_leaf() -> None:
    tree = random_ensemble(2, trees=1, outputs=2)
    net = mn.Network.build((2,), [("trees", tree), ("difference", mn.Dense(torch.tensor([[1.0, -1.0]])))])
    low, high = np.array([0.2, 0.7]), np.array([4.0, 3.3])
    values = net.forward(corners(tree, low, high))
    found = mn.propagate(net, mn.Box(low[None], high[None])).after["difference"]
    np.testing.assert_allclose([found.lower.item(), found.upper.item()], [values.min(), values.max()], atol=1e-9)


def test_trees_without_a_split_are_constants() -> None:
    leaf, one = torch.tensor([[-1, 0, 0]]), torch.ones(1)
    net = mn.Network.build((2,), [("trees", TreeEnsemble(leaf, one, torch.ones(1, 1), torch.tensor([0]), 2 * one))])
    enc = mn.encode(net, box_of([-1, -1], [1, 1]))
    assert not enc.blocks["trees"].variables
    assert enc.output_range[0].item() == enc.output_range[1].item() == net.forward(np.zeros((1, 2))).item() == 3.0


@pytest.mark.parametrize("backend", ["highs", "scip"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 30))])
def test_the_optimum_is_that_of_the_enumeration(seed: int, backend: str) -> None:
    g = np.random.default_rng(seed)
    tree = random_ensemble(seed, trees=int(g.integers(1, 6)), outputs=2)
    net = mn.Network.build((2,), [("trees", tree), ("fc", mn.Dense(g.normal(size=(1, 2))))])
    low, high = np.sort(g.uniform(-1, 6, (2, 3, 2)), axis=0)
    high[0, 1] = low[0, 1]
    enc = mn.encode(net, mn.Box(low, high))
    enc.model.add_objective(enc.output.sum())
    result = mn.solve(enc, backend)
    best = sum(net.forward(corners(tree, *ends)).min() for ends in zip(low, high, strict=True))
    assert result.verified
    assert result.objective == pytest.approx(best, abs=1e-6)
    assert result.bound <= best + 1e-6


def test_reach_and_verify_are_exact_on_trees() -> None:
    tree = random_ensemble(5, trees=4, outputs=1)
    net = mn.Network.build((2,), [("trees", tree)])
    low, high = [-1.0, 0.5], [4.0, 5.0]
    values = net.forward(corners(tree, np.array(low), np.array(high)))
    found = mn.reach(net, box_of(low, high), time_limit=20)
    np.testing.assert_allclose([found.lower.item(), found.upper.item()], [values.min(), values.max()], atol=1e-3)
    for excess, word in ((1e-3, "unsat"), (-1e-3, "sat")):
        clause = mn.Clause(-np.ones((1, 1)), np.array([-(values.max() + excess)]))
        verdict = mn.verify(net, mn.Property((mn.Case(box_of(low, high), (clause,)),)), time_limit=20)
        assert (verdict.status, verdict.stage) == (word, "mip" if word == "unsat" else "search")


def test_bounds_decide_leaves_and_explain_says_how_many() -> None:
    tree = random_ensemble(1, trees=5, outputs=1)
    net = mn.Network.build((2,), [("trees", tree)])
    narrow = mn.encode(net, box_of([0.6, 0.6], [0.9, 0.9]))
    assert "trees" in narrow.blocks
    assert not narrow.blocks["trees"].variables
    wide = mn.encode(net, box_of([-1, -1], [6, 6]))
    assert "trees with a known leaf" in str(mn.explain(wide))
    assert mn.explain(wide)["trees"].formulation == "leaves"


def test_what_is_no_tree_is_refused() -> None:
    leaf, values, roots, none = [-1, 0, 0], torch.zeros(1, 1), torch.tensor([0]), torch.zeros(1)
    with pytest.raises(NetworkError, match="a root or a child of one earlier node"):
        TreeEnsemble(torch.tensor([[0, 0, 0]]), none, values, roots, none)
    with pytest.raises(NetworkError, match="a vector with more than 1 elements"):
        random_ensemble(0, trees=2, outputs=1).shape((1,))
    with pytest.raises(NetworkError, match=r"shape \(nodes, outputs\)"):
        TreeEnsemble(torch.tensor([leaf]), none, torch.zeros(2, 1), roots, none)


def test_the_published_bounds_are_refused() -> None:
    layers = [("fc", mn.Dense(torch.eye(2))), ("relu", mn.ReLU()), ("trees", random_ensemble(0, trees=1, outputs=1))]
    with pytest.raises(UnsupportedError, match="the published bounds hold for no gate"):
        mn.encode(mn.Network.build((2,), layers), box_of([-1, -1], [6, 6]), bounds="paper", gates="all")


@pytest.mark.parametrize(("gap", "strict"), list(itertools.product([0.0, 1e-5, 0.1], [False, True])))
def test_cells_stay_within_their_thresholds_and_none_is_lost(gap: float, strict: bool) -> None:
    at = np.array([1e-35, 1e-30, 0.12345678, 0.123456785, 3.0, np.nextafter(3, 4), 7.0 - 1e-8, 1e6])
    before, after = np.append(-1.0, at[:-1]), np.append(at[1:], 2e6)
    ends, starts = cell_ends(at, before, after, np.arange(len(at)) == 0, gap, strict=strict)
    assert (ends <= at).all()
    assert (starts > at).all()
    lows, highs = np.append(-1.0, starts), np.append(ends, 2e6)
    assert (lows <= highs).all()
    if not gap:
        assert (ends == at).all()
        assert (starts == np.nextafter(at, np.inf)).all()
        return
    assert starts[0] > 0 >= -ends[0]  # an input of 0 is at most 1e-35, and stays
    assert starts[6] <= 7  # above the threshold, and a number of few decimals
    assert starts[7] <= 1e6 + 0.1
    assert ((starts - ends)[[2, 6]] > 1e-9).all()
