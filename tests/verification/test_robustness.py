"""Robustness against linear pieces; a property as a function against the same function of numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mipnet as mn
from mipnet.errors import DataError, InputError
from tests.verification.worked import INPUTS, OUTPUTS, random_network

BACKENDS = ("highs", "scip")
ORDER = {"linf": np.inf, "l1": 1, "l2": 2}


def identity():
    """Two classes, whose outputs are the two inputs: the predicted class changes where x0 = x1."""
    return mn.Network.build((2,), [("fc", mn.Dense(torch.eye(2).double())), ("relu", mn.ReLU()), ("out", mn.Dense(torch.eye(2).double()))])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("norm", "edge"), [("linf", 0.1), ("l1", 0.2), ("l2", 0.2 / np.sqrt(2))])
def test_by_hand_the_answer_changes_at_the_diagonal(norm, edge, backend):
    x = np.array([0.6, 0.4])
    assert mn.robustness(identity(), x, radius=edge - 1e-3, norm=norm, backend=backend).status == "unsat"
    found = mn.robustness(identity(), x, radius=edge + 1e-3, norm=norm, backend=backend)
    assert found.status == "sat"
    assert np.linalg.norm(found.counterexample - x, ORDER[norm]) <= edge + 1e-3
    assert found.counterexample[1] >= found.counterexample[0]


def test_the_valid_range_counts():
    x = np.array([0.05, 0.0])
    net = mn.Network.build((2,), [("out", mn.Dense(torch.tensor([[1.0, 0.0], [0.0, -1.0]])))])
    assert mn.robustness(net, x, radius=0.2, clip=None).status == "sat"
    assert mn.robustness(net, x, radius=0.04).status == "unsat"
    assert mn.robustness(net, x, label=1, radius=0.04).status == "sat"


@pytest.mark.parametrize("seed", range(4))
def test_targets_have_to_win(seed):
    """Counterexamples found by sampling are found; the verdicts of single targets determine that of all targets."""
    net, rng = random_network(seed), np.random.default_rng(seed)
    x = rng.uniform(size=INPUTS)
    label = int(net.forward(x[None]).argmax())
    others = [c for c in range(OUTPUTS) if c != label]
    points = np.clip(x + rng.uniform(-0.5, 0.5, (20000, INPUTS)), 0, 1)
    seen = set(net.forward(points).argmax(axis=1)) - {label}
    single = {c: mn.robustness(net, x, mn.Classes(targets=[c]), radius=0.5) for c in others}
    assert seen <= {c for c in others if single[c].status == "sat"}
    for c, verdict in single.items():
        assert verdict.status in ("sat", "unsat")
        if verdict.status == "sat":
            assert verdict.output[c] == verdict.output.max()
    any_of_them = mn.robustness(net, x, radius=0.5)
    assert (any_of_them.status == "sat") == any(verdict.status == "sat" for verdict in single.values())
    assert mn.robustness(net, x, mn.Classes(targets=others), radius=0.5).status == any_of_them.status


def test_questions_that_are_none():
    x = np.array([0.6, 0.4])
    with pytest.raises(InputError, match="the norm is `l3`"):
        mn.robustness(identity(), x, radius=0.1, norm="l3")
    with pytest.raises(InputError, match="the radius is 0"):
        mn.robustness(identity(), x, radius=0.0)
    with pytest.raises(InputError, match="no class 7"):
        mn.robustness(identity(), x, 7, radius=0.1)
    with pytest.raises(InputError, match="the targets are"):
        mn.robustness(identity(), x, mn.Classes(0, [0]), radius=0.1)
    with pytest.raises(DataError, match="the input has shape"):
        mn.robustness(identity(), np.zeros(3), radius=0.1)


A = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]])

FUNCTIONS = {
    "one row": lambda x, y: y[0] - 2 * y[1] <= 0.3,
    "both": lambda x, y: (y[2] - y[1] <= 0) & (y[0] >= 0.1),
    "either": lambda x, y: (y[2] - y[1] <= 0) | (y[0] >= 0.1) | (y[2] >= 1.5),
    "nested": lambda x, y: ((y[0] <= y[1]) | (y[0] <= y[2])) & ((y[1] >= 0) | (y[2] / 2 >= 0.1)),
    "an input": lambda x, y: (x[0] <= 0.4) & (y[0] >= y[1]) | (x[1] >= 0.5) & (2 * x[2] <= 0.9) & (y[2] <= 0),
    "matrix": lambda x, y: ((A @ y)[0] <= 0) & ((A @ y)[1] >= np.float64(0.2) * y[0]),
    "sums": lambda x, y: (np.float64(0.1) <= y.sum() - 3 * y[1]) & (-y[2:].sum() + 1 >= 0.25),
    "constants": lambda x, y: (y[0] - y[0] <= 0) & (y[1] >= 0) | (1 + 0 * y[0] <= 0),
    "true": lambda x, y: (y[0] <= 0) | True,
    "nothing": lambda x, y: (y[0] <= 0) & False,
    "an empty box": lambda x, y: (x[0] >= 0.8) & (x[0] <= 0.2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_the_same_of_numbers_and_as_a_property(name):
    function, rng = FUNCTIONS[name], np.random.default_rng(0)
    question = mn.property_of(function, mn.LInf(np.full(INPUTS, 0.5), 0.5), OUTPUTS)
    x, y = rng.uniform(size=(3000, INPUTS)), rng.normal(size=(3000, OUTPUTS))
    truth = np.array([bool(function(a, b)) for a, b in zip(x, y, strict=True)])
    np.testing.assert_array_equal(question.holds_at(x, y), truth)
    assert truth.any() or name in ("nothing", "an empty box")
    assert not truth.all() or name == "true"


def test_inputs_and_outputs_keep_their_shapes():
    question = mn.property_of(lambda x, y: (x[0, 1] <= 0.25) & (y[1, 0] >= 2), mn.Box(np.zeros((1, 2, 2)), np.ones((1, 2, 2))), (2, 2))
    (case,) = question.cases
    np.testing.assert_array_equal(case.region.upper, [[1, 0.25, 1, 1]])
    np.testing.assert_array_equal(case.clauses[0].matrix, [[0, 0, -1, 0]])
    both = mn.property_of(lambda x, y: y[0] == 3, mn.Box(np.zeros((1, 2)), np.ones((1, 2))), 1)
    np.testing.assert_array_equal(both.holds_at(np.zeros((3, 2)), np.array([[2.9], [3.0], [3.1]])), [False, True, False])


def test_a_property_of_a_function_is_verified():
    net, region = identity(), mn.Box(np.zeros((1, 2)), np.ones((1, 2)))
    safe = mn.property_of(lambda x, y: (x[0] >= 0.6) & (x[1] <= 0.5) & (y[1] >= y[0]), region, 2)
    assert mn.verify(net, safe).status == "unsat"
    unsafe = mn.property_of(lambda x, y: (x[0] >= 0.6) & (x[1] <= 0.7) & (y[1] >= y[0]), region, 2)
    assert mn.verify(net, unsafe).status == "sat"


REFUSED = {
    "product": lambda x, y: y[0] * y[1] <= 1,
    "power": lambda x, y: y[0] ** 2 <= 1,
    "absolute": lambda x, y: abs(y[0]) <= 1,
    "absolute array": lambda x, y: np.abs(y)[0] <= 1,
    "exponential": lambda x, y: np.exp(y[0]) <= 1,
    "exponential array": lambda x, y: np.exp(y)[0] <= 1,
    "maximum": lambda x, y: y.max() <= 1,
    "python's maximum": lambda x, y: max(y[0], y[1]) <= 1,
    "division": lambda x, y: y[1] / y[0] >= 1,
    "chain": lambda x, y: 0 <= y[0] <= 1,
    "and": lambda x, y: y[0] <= 1 and y[1] <= 1,
    "or": lambda x, y: y[0] <= 1 or y[1] <= 1,
    "not": lambda x, y: not y[0] <= 1,
    "invert": lambda x, y: ~(y[0] <= 1),
    "strict": lambda x, y: y[0] < 1,
    "unequal": lambda x, y: y[0] != 1,
    "mixed": lambda x, y: x[0] <= y[0],
    "two inputs": lambda x, y: x[0] <= x[1],
    "expression": lambda x, y: y[0],
    "arrays": lambda x, y: y <= 1,
    "beyond": lambda x, y: y[9] <= 1,
    "text": lambda x, y: y[0] <= "1",
    "nan": lambda x, y: y[0] <= np.nan,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_property_cannot_say_is_refused_in_one_line(name):
    with pytest.raises(InputError, match="expected comparisons by <=, >= or ==") as error:
        mn.property_of(REFUSED[name], mn.LInf(np.full(INPUTS, 0.5), 0.5), OUTPUTS)
    assert "\n" not in str(error.value)
