"""The largest value of a unit and the largest score of a class, against one linear program per activation pattern."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

import mipnet as mn
from mipnet.errors import InputError, NetworkError
from tests.nets import cnn, make
from tests.sweep import sweep
from tests.verification.worked import INPUTS, OUTPUTS, pieces, random_network

BACKENDS = ("highs", "scip")
BOX = mn.Box(np.full((1, INPUTS), -1.0), np.full((1, INPUTS), 1.0))
ROWS = np.array([[1.0, 1.0, 1.0], [-1.0, 2.0, 0.5]]), np.array([0.5, 0.7])
SETS = {"box": (BOX, None, None), "polytope": (mn.Polytope(*ROWS, -1, 1), *ROWS)}


def largest(net, rows_of, rows, right):
    """The largest t with ``t <= row @ x + constant`` for the rows of a piece, over the box and rows."""
    best = -np.inf
    for matrix, side, slope, constant in pieces(net):
        values, shifts = rows_of(slope, constant)
        upper = [np.hstack([matrix, np.zeros((len(matrix), 1))]), np.hstack([-values, np.ones((len(values), 1))])]
        sides = [side, shifts]
        if rows is not None:
            upper.append(np.hstack([rows, np.zeros((len(rows), 1))]))
            sides.append(right)
        ends = [*[(-1, 1)] * INPUTS, (None, None)]
        found = linprog([0.0] * INPUTS + [-1.0], np.vstack(upper), np.concatenate(sides), bounds=ends)
        best = max(best, -found.fun if found.success else -np.inf)
    return best


@pytest.mark.parametrize(
    ("unit", "kind", "backend", "seed"),
    sweep([(u, k, b, s) for s in range(2) for u in (1, ("out", 1)) for k, b in (("box", "scip"), ("polytope", "highs"))], every=3),
)
def test_the_largest_value(unit, kind, backend, seed):
    net, (region, rows, right) = random_network(seed, (3, 2)), SETS[kind]
    k, others = 1, [j for j in range(OUTPUTS) if j != 1]
    score = lambda slope, constant: (slope[k] - slope[others], constant[k] - constant[others])  # noqa: E731
    output = lambda slope, constant: (slope[[k]], constant[[k]])  # noqa: E731
    truth = largest(net, score if unit == 1 else output, rows, right)
    found = mn.activation_maximisation(net, unit, region, backend=backend)
    assert found.value <= truth + 1e-9 <= found.bound + 2e-9
    assert found.status == "optimal"
    assert found.gap <= 1e-3 * (1 + abs(truth))
    point = found.point.values[None]
    assert region.contains(point, 1e-9)
    y = net.forward(point)[0]
    assert found.value == pytest.approx(y[k] - (y[others].max() if unit == 1 else 0.0), abs=1e-12)


def test_units_before_and_after_the_activation_by_hand():
    net = mn.Network.build(
        (2,), [("fc", mn.Dense([[1.0, -2.0], [0.5, 0.5]], [0.0, -3.0])), ("act", mn.ReLU()), ("out", mn.Dense([[1.0, 1.0]]))]
    )
    region = mn.Box([[-1.0, -1.0]], [[1.0, 1.0]])
    named = net.with_input_names(["a", "b"])
    before = mn.activation_maximisation(named, ("fc", 0), region)
    assert before.value == pytest.approx(3.0)
    assert before.point.sel(feature=["a", "b"]).values.tolist() == [1.0, -1.0]
    assert mn.activation_maximisation(net, ("fc", 1), region).value == pytest.approx(-2.0)
    never = mn.activation_maximisation(net, ("act", 1), region)
    assert (never.value, never.bound) == (0.0, pytest.approx(0.0, abs=1e-9))
    for unit in (0, "out", ("out", 0)):
        assert mn.activation_maximisation(net, unit, region).value == pytest.approx(3.0)
    hull = mn.ConvexHull(pd.DataFrame({"b": [0.0, 1.0, 0.0], "a": [0.0, 0.0, 0.5]}))
    assert mn.activation_maximisation(named, ("fc", 0), hull).value == pytest.approx(0.5)
    assert mn.activation_maximisation(net, ("fc", 0), mn.L1([[0.0, 0.0]], 0.5)).value == pytest.approx(1.0)


def test_an_element_of_an_image():
    net, _ = make(cnn, 0)
    region = mn.LInf(np.zeros((1, *net.input_shape)), 0.3)
    found = mn.activation_maximisation(net, ("conv1", (1, 0, 2)), region)
    weight = net["conv1"].layer.weight.numpy()[1, 0]
    bias = float(net["conv1"].layer.bias[1])
    assert found.value == pytest.approx(bias + 0.3 * np.abs(weight[1:, :]).sum(), abs=1e-9)  # the row above lies in the padding
    assert found.point.dims == ("input_channel", "input_row", "input_col")


def test_two_classes_have_the_difference_as_score():
    net = mn.Network.build((2,), [("fc", mn.Dense([[1.0, 0.0], [0.0, 1.0]]))])
    assert mn.activation_maximisation(net, 1, mn.Box([[0.0, 0.0]], [[1.0, 2.0]])).value == pytest.approx(2.0)


def test_no_time_gives_a_value_and_a_warning():
    found = mn.activation_maximisation(random_network(0, (3, 2)), 0, BOX, time_limit=1e-9)
    assert found.status == "feasible"
    assert found.value <= found.bound
    assert "is not closed" in found.warnings[-1]


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        (3, "the class is 3; expected a number from 0 to 2"),
        (("out", 3), "the element of `out` is 3; expected a number from 0 to 2"),
        (("outt", 0), "no node is called `outt`.*did you mean `out`"),
        ("out", r"the element of `out` is \(\)"),
        (True, "the unit is True; expected a class, or a node and an element"),
        ((0, 1), "expected a class, or a node and an element"),
    ],
)
def test_what_is_no_unit(unit, message):
    with pytest.raises((InputError, NetworkError), match=message):
        mn.activation_maximisation(random_network(0, (3, 2)), unit, BOX)
    with pytest.raises(InputError, match="the set has 2 boxes"):
        mn.activation_maximisation(random_network(0, (3, 2)), 0, mn.LInf(np.zeros((2, 3)), 1.0))
