"""Units: the same function in other units has the same optimum on both solvers, and user rows keep the units that they are written in.

The exact optimum of a network with two inputs is found by enumerating its linear regions: within one, the network is affine, and the
largest value of a linear function lies at a corner of the region, which a linear program of scipy finds.
"""

from __future__ import annotations

import itertools

import linopy
import numpy as np
import pytest
from scipy.optimize import linprog

import mipnet as mn
from mipnet.arrays import Csr
from mipnet.backend import Limits, Program, Rows, get_backend, relative_gap
from mipnet.backend.accuracy import NeededAccuracy
from mipnet.backend.scales import Scales
from mipnet.backend.scaling import open_scaled
from tests.sweep import sweep

BACKENDS = ("highs", "scip")
HIDDEN = 4


def weights(seed: int) -> list[np.ndarray]:
    g = np.random.default_rng(seed)
    first, second = g.normal(size=(HIDDEN, 2)), g.normal(size=(HIDDEN, HIDDEN)) / 2
    return [first, 0.3 * g.normal(size=HIDDEN), second, 0.3 * g.normal(size=HIDDEN), g.normal(size=HIDDEN)]


def scaled_network(w: list[np.ndarray], hidden: float, second: float, inputs: float, outputs: float) -> mn.Network:
    """The same function of x / inputs, times outputs: positive factors pass through a ReLU."""
    layers = [
        ("fc1", mn.Dense(w[0] * hidden / inputs, w[1] * hidden)),
        ("relu1", mn.ReLU()),
        ("fc2", mn.Dense(w[2] * second / hidden, w[3] * second)),
        ("relu2", mn.ReLU()),
        ("fc3", mn.Dense(w[4][None] * outputs / second)),
    ]
    return mn.Network.build((2,), layers)


def largest(w: list[np.ndarray]) -> float:
    """The largest output over [-1, 1]^2, pattern by pattern."""
    best = -np.inf
    for first in itertools.product((0.0, 1.0), repeat=HIDDEN):
        a, b = np.array(first)[:, None] * w[0], np.array(first) * w[1]
        for second in itertools.product((0.0, 1.0), repeat=HIDDEN):
            on = np.array(second)
            z2, c2 = w[2] @ a, w[2] @ b + w[3]
            slope, constant = (w[4] * on) @ z2, float((w[4] * on) @ c2)
            signs1, signs2 = 2 * np.array(first) - 1, 2 * on - 1
            rows = np.vstack([-signs1[:, None] * w[0], -signs2[:, None] * z2])
            right = np.concatenate([signs1 * w[1], signs2 * c2])
            found = linprog(-slope, A_ub=rows, b_ub=right, bounds=[(-1, 1)] * 2)
            if found.status == 0:
                best = max(best, constant - found.fun)
    return best


SCALES = [
    (1e-6, 1, 1, 1),
    (1e-9, 1, 1, 1),
    (1e6, 1e-3, 1, 1),
    (1e8, 1, 1, 1),
    (1e-4, 1e4, 1, 1),
    (1, 1, 1e5, 1),
    (1, 1, 1e-6, 1),
    (1, 1, 1, 1e6),
    (1, 1, 1, 1e-6),
    (1e3, 1e6, 1e-3, 1e-3),
]


@pytest.mark.filterwarnings("ignore:.*drops .* coefficients")
@pytest.mark.parametrize(("scales", "backend"), sweep([(scales, backend) for scales in SCALES for backend in BACKENDS], every=5), ids=str)
def test_the_optimum_does_not_depend_on_units(scales: tuple[float, ...], backend: str) -> None:
    for seed in (0, 1):
        w = weights(seed)
        exact = largest(w) * scales[3]
        size = np.abs(w[4]).sum() * scales[3]
        encoding = mn.encode(scaled_network(w, *scales), mn.Box(-scales[2] * np.ones((1, 2)), scales[2] * np.ones((1, 2))))
        encoding.model.add_objective(encoding.output.sum(), sense="max")
        result = mn.solve(encoding, backend, mip_gap=1e-6)
        assert result.verified
        assert result.objective == pytest.approx(exact, abs=1e-5 * size)
        assert result.bound >= exact - 1e-5 * size


@pytest.mark.parametrize(
    ("width", "centre", "backend"),
    sweep([(*sizes, backend) for sizes in ((2e-6, 0.0), (2.0, 2e6), (2e-3, 2e3), (2e5, 2e10)) for backend in BACKENDS], every=5),
    ids=str,
)
def test_inputs_that_are_fixed_or_far_from_zero_do_not_hide_the_others(width: float, centre: float, backend: str) -> None:
    """Nine of eleven inputs are fixed, and the others range far from 0: neither counts in the size of a row."""
    g, w = np.random.default_rng(0), weights(0)
    fixed = np.zeros(9)
    scale = width / 2
    first = np.concatenate([w[0] / scale, g.normal(size=(HIDDEN, 9)) / scale], axis=1)
    middle = np.concatenate([np.full(2, centre), fixed])
    layers = [
        ("fc1", mn.Dense(first, w[1] - first @ middle)),
        ("relu1", mn.ReLU()),
        ("fc2", mn.Dense(w[2], w[3])),
        ("relu2", mn.ReLU()),
        ("fc3", mn.Dense(w[4][None])),
    ]
    moved = np.concatenate([np.full(2, scale), np.zeros(9)])
    encoding = mn.encode(mn.Network.build((11,), layers), mn.Box((middle - moved)[None], (middle + moved)[None]))
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    result = mn.solve(encoding, backend, mip_gap=1e-6)
    assert result.verified
    assert result.objective == pytest.approx(largest(w), abs=1e-5)
    assert result.bound >= largest(w) - 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_small_variable_of_the_user_is_scaled_and_its_row_too(backend: str) -> None:
    """``x <= 3e-8`` says nothing to a solver whose tolerance is 1e-6."""
    model = linopy.Model()
    x = model.add_variables(0, 1e-7, name="x")
    y = model.add_variables(0, 1e-7, name="y")
    model.add_constraints(x + y <= 3e-8)
    model.add_objective(-1e7 * x - 2e7 * y)
    result = mn.solve(model, backend)
    assert result.verified
    assert result.objective == pytest.approx(-0.6, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_the_user_keep_their_units(backend: str) -> None:
    """A price in euros with a bound of a million, and a row that asks for half a euro: no solver tolerance of a scaled row hides it."""
    model = linopy.Model()
    x = model.add_variables(0, 1e6, name="x")
    on = model.add_variables(binary=True, name="on")
    model.add_constraints(x - 1e6 * on <= 0)
    model.add_constraints(x >= 0.5)
    model.add_objective(x + 1000 * on)
    result = mn.solve(model, backend)
    assert result.verified
    assert result.objective == pytest.approx(1000.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_the_user_on_an_input_with_a_wide_range_is_kept(backend: str) -> None:
    w = weights(0)
    encoding = mn.encode(scaled_network(w, 1, 1, 1e5, 1), mn.Box(-1e5 * np.ones((1, 2)), 1e5 * np.ones((1, 2))))
    x = encoding.model.variables["input"]
    encoding.model.add_constraints(x.sum() >= 199_999.5, name="corner")
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    result = mn.solve(encoding, backend)
    assert result.verified
    assert float(result.x["input"].sum()) >= 199_999.5 - 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_outputs_have_a_relative_gap(backend: str) -> None:
    w = weights(1)
    encoding = mn.encode(scaled_network(w, 1, 1, 1, 1e-5), mn.Box(-np.ones((1, 2)), np.ones((1, 2))))
    encoding.model.add_objective(encoding.output.sum(), sense="max")
    result = mn.solve(encoding, backend)
    assert result.status.value == "optimal"
    assert result.objective == pytest.approx(largest(w) * 1e-5, rel=2e-4)
    assert result.gap <= 1e-4 + 1e-9


def test_the_gap_is_that_of_the_solvers() -> None:
    assert relative_gap(1e-3, 0.9e-3) == pytest.approx(0.1)
    assert relative_gap(-2.0, -3.0) == 0.5
    assert relative_gap(0.0, -1e-9) == np.inf
    assert relative_gap(0.0, 0.0) == 0.0
    assert Limits(gap=0.0, gap_abs=1e-6).closed(0.0, -1e-7)
    assert not Limits(gap=0.0, gap_abs=1e-6).closed(0.0, -1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scaled_session_speaks_in_the_units_of_the_program(backend: str) -> None:
    """Points, bounds, objectives, rows and events of a program whose columns range over 1e-6 and 1e6."""
    program = Program(
        cost=np.array([-3e6, -1e-6]),
        rows=Rows(_csr([[1e6, 1e-6]]), np.array([-np.inf]), np.array([1.5])),
        lower=np.zeros(2),
        upper=np.array([1e-6, 1e6]),
        integer=np.zeros(2, dtype=np.bool_),
    )
    events = []
    with open_scaled(get_backend(backend), program) as session:
        outcome = session.solve(Limits(), events.append)
        assert outcome.objective == pytest.approx(-3.5)
        np.testing.assert_allclose(outcome.x, [1e-6, 0.5e6], rtol=1e-6)
        session.add_rows(Rows(_csr([[0.0, 1.0]]), np.array([-np.inf]), np.array([0.25e6])))
        assert session.solve().objective == pytest.approx(-3.25)
        session.set_bounds(np.array([0]), np.zeros(1), np.array([0.5e-6]))
        assert session.solve().objective == pytest.approx(-1.75)
        session.set_objective(np.array([1e6, -1e-6]), 7.0)
        outcome = session.solve()
        assert outcome.objective == pytest.approx(6.75)
        assert outcome.bound == pytest.approx(6.75)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit", [2.0**-40, 2.0**40])
def test_an_objective_in_any_unit_has_its_bound_and_duals_in_that_unit(backend: str, unit: float) -> None:
    """The least of ``unit (x + 2 y)`` where ``x + y >= 1`` is ``unit``, and so is the price of the row."""
    program = Program(
        unit * np.array([1.0, 2.0]),
        Rows(_csr([[1.0, 1.0]]), np.ones(1), np.full(1, np.inf)),
        np.zeros(2),
        np.full(2, 3.0),
        np.zeros(2, bool),
    )
    with open_scaled(get_backend(backend), program) as session:
        outcome = session.solve()
    assert (outcome.objective, outcome.bound) == pytest.approx((unit, unit))
    assert outcome.duals is None or outcome.duals == pytest.approx([unit])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_column_with_one_finite_bound_has_the_unit_of_its_rows(sign: float) -> None:
    """Without a scale a solver drops the coefficient 1e-10 of x, and y could not exceed 0: the least of ``1e-10 |x| - 2 y`` is -1."""
    lower, upper = np.sort([0.0, sign * np.inf])
    program = Program(
        np.array([sign * 1e-10, -2.0]),
        Rows(_csr([[-sign * 1e-10, 1.0]]), np.full(1, -np.inf), np.zeros(1)),
        np.array([lower, 0.0]),
        np.array([upper, 1.0]),
        np.zeros(2, bool),
    )
    with open_scaled(get_backend("highs"), program) as session:
        assert session.solve().objective == pytest.approx(-1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_small_row_on_a_fixed_integer_is_not_met_by_the_tolerance(backend: str) -> None:
    """``1e-8 x >= 2e-8`` with x = 1."""
    row = Rows(_csr([[1e-8, 0.0]]), np.full(1, 2e-8), np.full(1, np.inf))
    program = Program(np.ones(2), row, np.array([1.0, 0.0]), np.ones(2), np.array([True, False]))
    with open_scaled(get_backend(backend), program) as session:
        assert session.solve().status is mn.Status.INFEASIBLE


def test_the_anchor_of_a_far_range_is_its_middle() -> None:
    program = Program(
        np.zeros(2),
        Rows(_csr([[1.0, 1.0]]), np.zeros(1), np.ones(1)),
        np.array([1e6, -3e6]),
        np.array([1e6 + 2, 4 - 3e6]),
        np.zeros(2, bool),
    )
    assert program.anchors.tolist() == [1e6 + 1, 2 - 3e6]


def test_limits_in_the_units_of_the_objective_are_scaled_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(
        np.array([2.0**20]), Rows(_csr([[1.0]]), np.zeros(1), np.ones(1)), np.zeros(1), np.ones(1), np.ones(1, dtype=np.bool_)
    )
    with open_scaled(get_backend("highs"), program) as session:
        seen, plain = [], session.session.solve
        monkeypatch.setattr(session.session, "solve", lambda limits, on_event: seen.append(limits) or plain(limits, on_event))
        session.solve(Limits(gap_abs=2.0**10, bound_stop=2.0**21, objective_stop=-(2.0**22)))
    (limits,) = seen
    assert (limits.gap, limits.gap_abs, limits.bound_stop, limits.objective_stop) == (1e-4, 2.0**-10, 2.0, -4.0)


def _csr(rows: list[list[float]]):
    from mipnet.arrays import Csr

    return Csr(np.array(rows))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_binary_that_is_nearly_zero_lets_nothing_through(backend: str) -> None:
    """``x <= 1e7 on`` with x >= 1 needs on = 1; a binary of 1e-7, an integer to every solver's tolerance, would do without."""
    model = linopy.Model()
    x = model.add_variables(0, 1e7, name="x")
    on = model.add_variables(binary=True, name="on", coords=[range(3)])
    other = model.add_variables(0, 1, name="other")
    model.add_constraints(x - 1e7 * on.sum() <= 0)
    model.add_constraints(x + other >= 1.5)
    model.add_objective(on.sum() + 1e-3 * other)
    result = mn.solve(model, backend, start="none")
    if result.verified:
        values = np.round(result.x["on"].values)
        np.testing.assert_array_equal(result.x["on"].values, values)
        assert float(result.x["x"]) <= 1e7 * values.sum() + 1e-6
        assert float(result.x["x"] + result.x["other"]) >= 1.5 - 1e-4
        assert result.objective >= 1.0


def test_rows_with_unsorted_indices_are_left_as_they_were() -> None:
    """Scipy sorts the indices of a matrix in place: scaled rows must not share them with the rows that were given."""
    matrix = Csr((np.array([1.0, 2.0, 3.0, 5.0]), np.array([2, 0, 1, 0]), np.array([0, 2, 4])), shape=(2, 3))
    rows, dense = Rows(matrix, np.full(2, -np.inf), np.array([4.0, 6.0])), matrix.toarray()
    columns = np.array([1024.0, 1.0, 2.0**-10])
    found = Scales(columns, np.zeros(3), np.zeros(3), np.ones(3), columns, NeededAccuracy(np.full(2, np.inf), np.full(3, np.inf))).rows(
        rows
    )
    found.matrix.sort_indices()
    assert (rows.matrix.toarray() == dense).all()
    factor = found.upper / rows.upper
    assert (found.matrix.toarray() == dense * factor[:, None] * columns).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", sweep(range(3), every=3))
def test_a_range_of_rounding_errors_is_no_range(backend: str, seed: int) -> None:
    """Outputs of fixed inputs have bounds that differ by rounding errors, which must not become the unit of their rows."""
    g = np.random.default_rng(seed)
    weight, fixed = g.normal(size=(3, 40)), g.normal(size=40)
    model = linopy.Model()
    x = model.add_variables(lower=fixed, upper=fixed, name="pixels")
    encoding = mn.add_network(model, mn.Network.build((40,), [("fc", mn.Dense(weight))]), x)
    model.add_objective(1 * encoding.output.sum())
    assert mn.solve(model, backend).objective == pytest.approx((weight @ fixed).sum())


def test_coefficients_that_are_zero_have_no_part_in_scales() -> None:
    """A free column has the size of another entry of its rows; with a coefficient of 0 in one of them, its size is the same."""
    ends = np.array([np.inf, 2.0**-20])
    matrix = Csr((np.array([1.0, -1.0, 0.0, 1.0, 0.0]), np.array([0, 1, 0, 1, 0]), np.array([0, 2, 4, 5])), shape=(3, 2))
    dense = [Csr(np.delete(matrix.toarray(), [2], axis=0)), Csr(matrix.toarray())]
    found = []
    for each in (matrix, *dense):
        rows = Rows(each, np.full(each.shape[0], -np.inf), np.ones(each.shape[0]))
        scales = Scales.of(Program(np.ones(2), rows, np.array([-np.inf, 0.0]), ends, np.zeros(2, dtype=bool)))
        assert scales.rows(rows).matrix.nnz == 3
        found.append(scales.columns.tolist())
    assert found[0] == found[1] == found[2] == [2.0**-20, 2.0**-20]
