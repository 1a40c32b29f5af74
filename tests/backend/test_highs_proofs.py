"""Wrong proofs of HiGHS: a point that is better than a proven optimum is found, and the program is solved again."""

from __future__ import annotations

import math
from dataclasses import replace

import mipnet_highs.adapter as adapter
import numpy as np
import pytest

from mipnet.backend import Limits, Outcome, Program, Status, get_backend
from mipnet.testing.programs import program

ROWS: tuple[tuple[str, float, dict[int, float]], ...] = (
    ("=", 0.4686, {0: -0.7373, 1: -0.125, 4: 1}),
    ("=", 0.4458, {0: -0.8684, 2: -0.0625, 5: 1}),
    ("=", 0.1421, {0: -0.6147, 3: -0.25, 6: 0.5}),
    ("<", 0, {1: 1, 7: -0.8309}),
    ("<", 0, {2: 1, 8: -1.39}),
    ("<", 0, {3: 1, 9: -1.0291}),
    ("<", 1.0894, {4: 1, 7: 1.0894}),
    ("<", 1.0317, {5: 1, 8: 1.0317}),
    ("<", 1.0434, {6: 1, 9: 1.0434}),
    ("=", -0.067, {1: -0.1361, 2: 0.9594, 3: -0.9129, 10: -1, 14: 1}),
    ("=", -0.1393, {1: -0.0617, 2: 0.1371, 3: -1.1827, 11: -0.25, 15: 1}),
    ("=", 0.1209, {1: -0.3422, 2: -0.0957, 3: 0.9706, 12: -1, 16: 0.5}),
    ("=", -0.1071, {1: 0.3392, 2: 0.1693, 3: -1.181, 13: -0.5, 17: 1}),
    ("<", 0, {10: 1, 18: -0.9605}),
    ("<", 0, {11: 1, 19: -1.0522}),
    ("<", 0, {12: 1, 20: -1.0396}),
    ("<", 0, {13: 1, 21: -0.9439}),
    ("<", 0.8691, {14: 1, 18: 0.8691}),
    ("<", 1.1797, {15: 1, 19: 1.1797}),
    ("<", 0.7322, {16: 1, 20: 0.7322}),
    ("<", 1.0449, {17: 1, 21: 1.0449}),
    ("=", 0, {10: -0.0751, 11: 0.1193, 12: 0.6788, 13: -0.0057, 22: -1}),
    ("=", 0, {10: 0.0751, 11: -0.1193, 12: -0.6788, 13: 0.0057, 23: -1}),
)
"""A network with one input and two hidden layers: column 0 is the input, 1 to 6 and 10 to 17 are the parts of its units."""

UPPER = [0.6443, 0.8309, 1.39, 1.0291, 1.0894, 1.0317, 1.0434, 1, 1, 1, 0.9605, 1.0522]
UPPER += [1.0396, 0.9439, 0.8691, 1.1797, 0.7322, 1.0449, 1, 1, 1, 1, 0.7321, 0.0775]
LOWER = {0: -0.6443, 22: -0.0775, 23: -0.7321}
INTEGER = {7, 8, 9, 18, 19, 20, 21}

NO_PROBING = {"presolve_rule_off": 1 << 15, "random_seed": 0}
"""With these options HiGHS 1.15.1 called 0.0248 optimal, by itself, without any point from outside; HiGHS 1.16 does not."""

WRONG_BOUND = {"objective_bound": -0.1}
"""mipnet refuses this option of HiGHS, because programs whose optimum is larger are called infeasible with it."""

RIGHT_AGAIN = {"objective_bound": math.inf}

CLOSE = Limits(gap=1e-9, gap_abs=1e-9)


def network_program() -> Program:
    matrix = np.zeros((len(ROWS), len(UPPER)))
    for row, (_, _, entries) in zip(matrix, ROWS, strict=True):
        row[list(entries)] = list(entries.values())
    ends = np.array([end for _, end, _ in ROWS])
    cost = np.eye(len(UPPER))[22]
    return program(
        cost,
        matrix,
        np.where([kind == "=" for kind, _, _ in ROWS], ends, -np.inf),
        ends,
        [LOWER.get(k, 0.0) for k in range(len(UPPER))],
        UPPER,
        [k in INTEGER for k in range(len(UPPER))],
    )


def solved(options: dict[str, object], limits: Limits = CLOSE, *, fine: bool = False) -> Outcome:
    with get_backend("highs").open(replace(network_program(), fine=fine), options) as session:
        return session.solve(limits)


def test_what_highs_1_15_proved_wrongly_is_right() -> None:
    with get_backend("scip").open(network_program()) as session:
        true = session.solve(CLOSE).objective
    assert true == pytest.approx(0.0, abs=1e-6)
    found = solved(NO_PROBING)
    assert found.status is Status.OPTIMAL
    assert found.objective == pytest.approx(true, abs=1e-6)
    assert found.bound <= true + 1e-6


def test_what_highs_1_15_proved_wrongly_is_right_with_fine_tolerances() -> None:
    found = solved(NO_PROBING | {"random_seed": 2}, fine=True)
    assert found.status is Status.OPTIMAL
    assert found.bound <= 1e-6


def proven_wrongly(options: dict[str, object], limits: Limits = CLOSE, *, fine: bool = False) -> Outcome:
    """Return the result of a solve that HiGHS ends with a wrong proof, from the worst point as its start."""
    p = replace(network_program(), fine=fine)
    with get_backend("highs").open(replace(p, cost=-p.cost)) as session:
        worst = session.solve().x
    assert worst is not None
    with get_backend("highs").open(p, options) as session:
        for name, value in WRONG_BOUND.items():
            session._highs.setOptionValue(name, value)
        session.start(worst)
        return session.solve(limits)


def test_highs_proves_what_is_wrong_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check; the tests below depend on this."""
    monkeypatch.setattr(adapter.HighsSession, "_proven", lambda self, raw, limits, progress: raw)
    assert proven_wrongly({}).status is Status.INFEASIBLE


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("limits", [CLOSE, replace(CLOSE, bound_stop=0.01)])
def test_a_proof_that_points_contradict_is_replaced(limits: Limits, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "SECOND_SOLVES", (WRONG_BOUND, RIGHT_AGAIN))
    found = proven_wrongly({}, limits, fine=fine)
    assert found.status is Status.OPTIMAL
    assert found.objective == pytest.approx(0.0, abs=1e-6)
    assert -1e-6 <= found.bound <= 1e-6


def test_a_bound_that_a_point_contradicts_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The descents from the start end in the optimum all the same."""
    monkeypatch.setattr(adapter, "SECOND_SOLVES", (WRONG_BOUND,))
    found = proven_wrongly({})
    assert (found.status, found.bound) == (Status.STALLED, -math.inf)
    assert found.objective == pytest.approx(0.0, abs=1e-6)
    assert "contradicts" in found.message


def test_a_bound_to_stop_at_is_proven_as_well() -> None:
    found = solved(NO_PROBING, Limits(gap=1e-9, gap_abs=1e-9, bound_stop=0.01))
    assert found.status is Status.OPTIMAL
    assert found.bound <= 1e-6


def test_right_proofs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter.HighsSession, "_once_more", lambda *given: pytest.fail("another solve"))
    for options in ({}, {"presolve": "off"}):
        assert solved(options).status is Status.OPTIMAL
