"""Cuts with terms that solvers would drop, on variables without finite bounds: they are left out, and what is solved without them holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

import mipnet as mn
from mipnet.arrays import Array, Csr
from mipnet.backend import Limits, Program, Rows
from mipnet.backend.scales import Scales
from mipnet.backend.scaling import open_scaled
from mipnet.errors import InputError
from mipnet.solving.cut_rounds import CutRounds
from mipnet.solving.program_sessions import OpenProgram
from mipnet.solving.solve_state import SolveEvents

TINY, INF = 5e-10, np.inf


def program() -> Program:
    """Minimise t with a binary b, ``t >= b - 0.5`` and ``y >= b`` for a free y, an integer so that it keeps its unit: -0.5."""
    rows = Rows(Csr(np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])), np.array([-0.5, 0.0]), np.array([INF, INF]))
    low, high = np.array([0.0, -10.0, -INF]), np.array([1.0, 10.0, INF])
    return Program(np.array([0.0, 1.0, 0.0]), rows, low, high, np.array([True, False, True]))


def cut(tiny: float = TINY) -> Rows:
    """``t - 0.9 b + tiny y >= 0``, which lifts t to 0 unless y is large."""
    return Rows(Csr(np.array([[-0.9, 1.0, tiny]])), np.zeros(1), np.full(1, INF))


@dataclass(frozen=True)
class Cuts:
    """A separator of `cut`."""

    tiny: float

    def first(self, start: Array | None, width: int) -> Rows:
        return cut(self.tiny).part(np.zeros(1, dtype=bool))

    def separate(self, x: Array, width: int) -> Rows:
        rows = cut(self.tiny)
        return rows.part(rows.violation(x) > 1e-7)

    def lift(self, x: Array) -> Array:
        return np.array([x[0], max(x[1], 0.9 * x[0] - self.tiny * x[2]), x[2]])


BACKENDS = ["highs", "scip"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cut_that_a_solver_would_change_is_left_out_of_its_program(backend: str) -> None:
    with open_scaled(mn.get_backend(backend), program(), None) as session:
        session.add_rows(cut())
        assert session.solve(Limits()).objective == pytest.approx(-0.5)
        session.add_rows(cut(tiny=0.0))
        assert session.solve(Limits()).objective == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_with_such_a_cut_is_opened_again(backend: str) -> None:
    opened = OpenProgram(program(), mn.get_backend(backend), rows=[cut()])
    try:
        assert opened.session().solve(Limits()).objective == pytest.approx(-0.5)
    finally:
        opened.close()
    with pytest.raises(InputError, match=r"1 coefficients are less than .* on variables without finite bounds"):
        open_scaled(mn.get_backend(backend), program().with_rows(cut()), None)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("tiny", "bound"), [(TINY, -0.5), (0.0, 0.0)])
def test_cut_rounds_end_without_it(backend: str, tiny: float, bound: float) -> None:
    """The bound is that of the program without the cut; the point satisfies the cut."""
    opened = OpenProgram(program(), mn.get_backend(backend))
    run = CutRounds(opened, [Cuts(tiny)], Limits(time=60), SolveEvents(None, maximise=False))
    run.solve()
    opened.close()
    assert run.counts.rounds <= 5
    assert run.best.objective == pytest.approx(0.0, abs=1e-6)
    assert run.best.bound == pytest.approx(bound, abs=1e-6)


def test_a_term_with_a_limit_on_the_side_of_the_row_loosens_it() -> None:
    """``x + tiny y >= 1`` with ``y <= 2``: without the term, x may be smaller by ``2 tiny``, however small y may be."""
    rows = Rows(Csr(np.array([[1.0, TINY]])), np.array([1.0]), np.array([INF]))
    found = rows.without(1e-9, np.array([0.0, -INF]), np.array([5.0, 2.0]))
    assert found.matrix.toarray().tolist() == [[1.0, 0.0]]
    assert (found.lower[0], found.upper[0]) == (1.0 - 2 * TINY, INF)


def test_bounds_that_rows_imply_are_limits() -> None:
    """``y = b`` bounds the free y: the cut is loosened by what its term may add, and stays."""
    bounded = program().with_rows(Rows(Csr(np.array([[-1.0, 0.0, 1.0]])), np.zeros(1), np.zeros(1)))
    found = Scales.of(bounded).rows(cut(), cuts=1)
    assert found.lower[0] == pytest.approx(-TINY, rel=1e-6)
    assert found.matrix.toarray()[0, 2] == 0.0


def test_a_free_variable_has_the_scale_of_the_range_that_rows_imply() -> None:
    """In ``y = b`` alone it would be 1; the row with the tiny term would make it 2^31, and ``y = b`` would be lost."""
    given = replace(program(), integer=np.array([True, False, False])).with_rows(
        Rows(Csr(np.array([[-1.0, 0.0, 1.0]])), np.zeros(1), np.zeros(1))
    )
    assert Scales.of(given.with_cuts(cut())).columns.tolist()[::2] == [1.0, 1.0]


def test_only_the_last_rows_are_cuts() -> None:
    both = replace(program(), rows=Rows(Csr(np.zeros((0, 3))), np.zeros(0), np.zeros(0))).with_rows(cut()).with_cuts(cut())
    assert both.cuts == 1
    ends = np.array([0.0, -10.0, -INF]), np.array([1.0, 10.0, INF])
    with pytest.raises(InputError, match="1 coefficients"):
        both.rows.without(1e-9, *ends, cuts=both.cuts)
    assert both.rows.without(1e-9, *ends, cuts=2).lower.tolist() == [-INF, -INF]
