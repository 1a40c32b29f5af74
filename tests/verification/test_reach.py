"""Extremes of outputs against dense sampling by torch, and against the true ones, from one LP of scipy per activation pattern."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import mipnet as mn
from mipnet.errors import InputError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification import certified_minimum
from tests.one_input import one_input_network, values_at_kinks
from tests.sweep import in_turn, marked

BACKENDS = ("highs", "scip")


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.enter, self.inner, self.leave = nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x):
        first = torch.relu(self.enter(x))
        return self.leave(first + torch.relu(self.inner(first)))


def dense(inputs, width, activation=nn.ReLU):
    return nn.Sequential(nn.Linear(inputs, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, 2))


def pooled():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))


KINDS = {
    "dense": (lambda: dense(2, 8), (2,)),
    "more inputs": (lambda: dense(20, 7), (20,)),
    "residual": (lambda: Residual(6), (3,)),
    "leaky": (lambda: dense(4, 6, lambda: nn.LeakyReLU(0.2)), (4,)),
    "pooled": (pooled, (1, 6, 6)),
}


def made(kind, seed):
    torch.manual_seed(seed)
    module, shape = KINDS[kind][0]().double().eval(), KINDS[kind][1]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 1.5
    region = mn.LInf(torch.randn(1, *shape, dtype=torch.float64).numpy(), 0.15 if kind == "pooled" else 0.4)
    return module, mn.from_torch(module, torch.zeros(1, *shape, dtype=torch.float64)), region


def run(module, x):
    with torch.no_grad():
        return module(torch.tensor(x)).numpy()


def sampled(module, region, count=20_000):
    share = np.random.default_rng(1).uniform(-0.3, 1.3, (count, *region.lower.shape[1:])).clip(0, 1)
    return run(module, region.lower + share * (region.upper - region.lower))


@pytest.mark.parametrize(("kind", "seed"), in_turn(KINDS, range(4)))
def test_ranges_bracket_samples_and_are_attained(kind, seed):
    module, network, region = made(kind, seed)
    found = mn.reach(network, region, backend=BACKENDS[seed % 2], tolerance=1e-3, time_limit=None)
    y = sampled(module, region)
    assert (found.lower <= y.min(axis=0)).all()
    assert (found.upper >= y.max(axis=0)).all()
    assert found.closed
    for k, (low, high) in enumerate(zip(found.lowest, found.highest, strict=True)):
        assert low.bound <= low.value <= y[:, k].min() + 1e-3 * low.size
        assert high.bound >= high.value >= y[:, k].max() - 1e-3 * high.size
        for end in (low, high):
            assert region.contains(end.point[None], 0.0)
            assert run(module, end.point[None])[0, k] == pytest.approx(end.value, abs=1e-12)
            assert end.gap <= 1e-3 * end.size


def extreme(module, region, row):
    """The minimum of ``row @ y`` over the box, from one LP per activation pattern."""
    (w0, b0), (w1, b1), (w2, b2) = (
        (part.weight.detach().numpy(), part.bias.detach().numpy()) for part in module if hasattr(part, "weight")
    )
    best = np.inf
    for signs in itertools.product((0.0, 1.0), repeat=len(b0) + len(b1)):
        d0, d1 = np.array(signs[: len(b0)]), np.array(signs[len(b0) :])
        a1, c1 = w1 @ (d0[:, None] * w0), w1 @ (d0 * b0) + b1
        a2, c2 = row @ w2 @ (d1[:, None] * a1), row @ (w2 @ (d1 * c1) + b2)
        turn0, turn1 = 1 - 2 * d0, 1 - 2 * d1
        found = linprog(
            a2,
            A_ub=np.vstack([turn0[:, None] * w0, turn1[:, None] * a1]),
            b_ub=np.concatenate([-turn0 * b0, -turn1 * c1]),
            bounds=list(zip(region.lower[0], region.upper[0], strict=True)),
        )
        best = min(best, found.fun + c2) if found.success else best
    return best


@pytest.mark.parametrize("seed", [marked(0), 1])
def test_ranges_of_linear_functions_are_the_true_ones(seed, monkeypatch):
    torch.manual_seed(seed)
    module = dense(3, 4).double()
    network, region = mn.from_torch(module, torch.zeros(1, 3, dtype=torch.float64)), mn.LInf(np.zeros((1, 3)), 2.0)
    row = np.array([1.0, -2.0])
    low, high = extreme(module, region, row), -extreme(module, region, -row)
    size = max(abs(low), abs(high))
    for few, easy, backend in ((0, 0, "highs"), (0, 0, "scip"), (10, 0, "highs"), (10, 64, "scip")):
        monkeypatch.setattr(certified_minimum, "SPLITTING_INPUTS_MAX", few)
        monkeypatch.setattr(certified_minimum, "SOLVER_FIRST_UNITS_MAX", easy)
        found = mn.reach(network, region, row, backend=backend, time_limit=None)
        assert low - 1e-4 * size <= found.lower[0] <= low + 1e-9
        assert high + 1e-4 * size >= found.upper[0] >= high - 1e-9
        assert low - 1e-9 <= found.lowest[0].value
        assert high + 1e-9 >= found.highest[0].value
        assert found.gap <= 1e-4
        assert few or "splitting" not in (found.lowest[0].method, found.highest[0].method)


def test_without_time_the_bounds_hold_all_the_same():
    module, network, region = made("more inputs", 0)
    found = mn.reach(network, region, time_limit=1e-3, tolerance=0.0)
    y = sampled(module, region, 2000)
    assert (found.lower <= y.min(axis=0)).all()
    assert (found.upper >= y.max(axis=0)).all()
    assert not found.closed


def test_questions_that_do_not_fit():
    _, network, region = made("dense", 0)
    with pytest.raises(InputError, match=r"shape \(1, 3\); expected \(functions, 2\)"):
        mn.reach(network, region, [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="NaN or infinite"):
        mn.reach(network, region, [1.0, np.nan])
    with pytest.raises(InputError, match="2 boxes; expected one"):
        mn.reach(network, mn.Box(np.zeros((2, 2)), np.ones((2, 2))))
    with pytest.raises(InputError, match="the time limit is 0"):
        mn.reach(network, region, time_limit=0)
    with pytest.raises(InputError, match="was given -1 as `tolerance`; expected a finite number of at least 0"):
        mn.reach(network, region, tolerance=-1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bounds_of_a_solver_hold_exactly(backend, monkeypatch):
    """In rational arithmetic; the solver's own bounds lie inside the true range for some outputs, by its rounding errors."""
    network = one_input_network(6, (5, 5, 8))
    true = values_at_kinks(network, -2.0, 2.0)["fc2"][:, :3]
    monkeypatch.setattr(certified_minimum, "SPLITTING_INPUTS_MAX", 0)
    found = mn.reach(network, mn.Box([[-2.0]], [[2.0]]), np.eye(8)[:3], backend=backend, tolerance=0.0)
    assert [end.method for end in (*found.lowest, *found.highest)].count("mip") >= 3
    assert all(Fraction(bound) <= least for bound, least in zip(found.lower.tolist(), true.min(axis=0), strict=True))
    assert all(Fraction(bound) >= largest for bound, largest in zip(found.upper.tolist(), true.max(axis=0), strict=True))
    np.testing.assert_allclose(found.lower, true.min(axis=0).astype(float), rtol=1e-4)
    np.testing.assert_allclose(found.upper, true.max(axis=0).astype(float), rtol=1e-4)


def test_a_point_from_a_search_does_not_hide_better_ones(monkeypatch):
    """HiGHS 1.15.1 called the start of this solve optimal."""
    monkeypatch.setattr(certified_minimum, "SPLITTING_INPUTS_MAX", 0)
    weights = {
        "0.weight": [[-14.816324880041106], [-27.778085275432048], [-19.3447582364646]],
        "0.bias": [-0.015399133431231985, -0.029525787206670855, -0.008263973402936836],
        "2.weight": [
            [-2.1162921717936047e-06, 1.4716616550744057e-05, -3.119698682514942e-06],
            [-4.665799736869595e-06, 8.52236925187598e-06, -1.988034079499328e-05],
            [-1.7537725982836586e-05, -5.9277816069226855e-06, 1.8501057528841125e-05],
            [2.0518508173309716e-05, 1.0469832442969876e-05, -1.796402339992153e-05],
        ],
        "2.bias": [3.4993108238423366e-09, 3.103152644955199e-08, -2.7349831983700038e-08, 2.5754907607841108e-08],
        "4.weight": [
            [34963.01434280965, -1024.2701450108325, 9510.651993466734, 17976.239083030185],
            [-19674.294124389617, 31265.229350788224, 44487.75335182508, -748.4302336936611],
        ],
        "4.bias": [0.0, 0.0],
    }
    module = torch.nn.Sequential(
        torch.nn.Linear(1, 3), torch.nn.ReLU(), torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
    ).double()
    module.load_state_dict({name: torch.tensor(values, dtype=torch.float64) for name, values in weights.items()})
    network = mn.from_torch(module, torch.zeros(1, 1, dtype=torch.float64))
    region = mn.LInf(np.zeros((1, 1)), 0.0012583879042269274)
    attained = module(torch.tensor([[-0.0005036068392716164]], dtype=torch.float64))[0, 1].item()
    for backend in BACKENDS:
        bound = mn.reach(network, region, [0.0, 1.0], backend=backend).lowest[0].bound
        assert 0.99 * attained <= bound <= attained


def test_a_bound_of_a_solver_is_taken_back_where_an_input_has_a_smaller_value():
    module, network, region = made("dense", 0)
    functions = certified_minimum.OutputFunctions(np.eye(2), np.zeros(2), np.arange(2))
    settings = certified_minimum.MinimumSettings(mn.MipSettings("highs"), Deadline.after(None), 1e-4)
    search = certified_minimum.MinimumSearch(network, functions, region, settings)
    search.improve("crown", np.arange(2), np.array([-50.0, -60.0]))
    wrong = module(torch.tensor(region.centre)).detach().numpy()[0] + 0.5
    search.improve("mip", np.arange(2), wrong - np.array([0.0, 1.0]))
    search.learn(region.centre)
    assert search.lower.tolist() == [-50.0, wrong[1] - 1.0]
    assert search.method == ["crown", "mip"]
    assert search.open.tolist() == [True, True]


def test_the_best_of_many_points_is_learned_and_searched_for():
    """The least of 2 |x - 0.3| over [-1, 1] is 0, which is at no end and not in the middle."""
    layers = [("a", mn.Dense([[1.0], [-1.0]], [-0.3, 0.3])), ("r", mn.ReLU()), ("b", mn.Dense([[2.0, 2.0]]))]
    functions = certified_minimum.OutputFunctions(np.ones((1, 1)), np.zeros(1), np.zeros(1, dtype=np.int64))
    settings = certified_minimum.MinimumSettings(MipSettings.of("highs"), NO_DEADLINE, 1e-6)
    region = mn.Box([[-1.0]], [[1.0]])
    search = certified_minimum.MinimumSearch(mn.Network.build((1,), layers), functions, region, settings)
    search.learn(np.array([[-0.5], [0.5], [0.9]]))
    assert (search.value.tolist(), search.point.tolist()) == ([pytest.approx(0.4)], [[0.5]])
    search._search(1)
    assert search.value[0] < 0.2
