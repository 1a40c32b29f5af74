"""The solvers that linopy runs: what linopy would lose without an error, and what the adapter reads from files and logs.

`test_contract.py` tests every installed solver against the contract; these tests need CBC and GLPK, from the extra `linopy`, or no
solver at all.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from mipnet_linopy import CBC, COPT, CPLEX, GLPK, MOSEK, Gurobi, Xpress, adapter, own_commands
from mipnet_linopy.command_solvers import find_command, read_cbc, read_glpk
from mipnet_linopy.interface import SolverOutput, smallest_printed_as, strict_gap
from mipnet_linopy.libraries import COPT_STOP_STATUSES, read_copt
from mipnet_linopy.linopy_model import build_model

from mipnet.app.cli import main as cli
from mipnet.arrays import Csr
from mipnet.backend import Backend, Event, Feature, Limits, Outcome, Program, Rows, Status, backends, get_backend, relative_gap
from mipnet.errors import BackendError, BackendMissing, OptionError, SolverFailure
from mipnet.testing.programs import hard_knapsack, knapsack, program
from tests.interrupts import SECONDS_MAX
from tests.sweep import marked, sweep

DIGITS = Path(__file__).parents[2] / "examples" / "digits.yaml"
BOTH = ["cbc", "glpk"]
ALL = [CBC, COPT, CPLEX, GLPK, MOSEK, Gurobi, Xpress]


EXACT = Limits(gap=0.0)


def solve(name: str, p: Program, limits: Limits = EXACT, **options: Any) -> Outcome:
    with get_backend(name).open(p, options) as session:
        return session.solve(limits)


def test_the_commands_are_there_and_so_is_the_contract() -> None:
    assert {"cbc", "glpk"} <= {found.name for found in backends() if not found.problem}


@pytest.mark.parametrize("kind", ALL)
def test_a_missing_solver_says_how_to_get_it(kind: type[Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "available", False)
    backend = next(found for found in backends() if found.name == kind.name)
    assert backend.problem == f"`{kind.module}` is not installed: {kind.install}"
    with pytest.raises(BackendMissing, match="pip install"):
        get_backend(kind.name)
    with pytest.raises(BackendError, match="pip install"):
        kind().open(knapsack())


def test_a_command_beside_this_python_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    environment = dict(os.environ)
    assert find_command("cbc") is not None, "the environment need not be active"
    for backend in (CBC(), GLPK()):
        with backend.open(knapsack()) as session:
            assert session.solve().status is Status.OPTIMAL
    assert dict(os.environ) == environment
    assert find_command("no-such-command") is None


@pytest.mark.parametrize("name", BOTH)
def test_offset_and_columns_that_are_left_out(name: str) -> None:
    # linopy drops the constant of an objective, and a reader of LP files drops a column that is named in the bounds only
    p = program([1.0, 0.0, 0.0, 0.0], [[1, 0, 0, 0]], 2.0, lower=[0, -inf, 0.5, -7], upper=[9, inf, 3, -2], integer=True, offset=1e5)
    outcome = solve(name, p)
    assert outcome.objective == 1e5 + 2
    assert outcome.x is not None
    assert outcome.x.tolist() == [2.0, 0.0, 1.0, -2.0]


@pytest.mark.parametrize("name", BOTH)
def test_no_cost_at_all(name: str) -> None:
    p = program([0.0, 0.0], [[1, 1]], 3.0, 3.0, upper=2.0, integer=True)
    outcome = solve(name, p)
    assert (outcome.status, outcome.objective, outcome.bound) == (Status.OPTIMAL, 0.0, 0.0)


@pytest.mark.parametrize("name", BOTH)
def test_no_integer_between_the_bounds(name: str) -> None:
    outcome = solve(name, program([1.0, 0.0], [[1, 0]], 1.0, lower=[0, 0.3], upper=[9, 0.6], integer=True))
    assert (outcome.status, outcome.x) == (Status.INFEASIBLE, None)


def test_the_linopy_model_is_the_program() -> None:
    p = program(
        [1.0, 0.0, -2.0], [[1, 2, 0], [0, 0, 0], [1, 0, -1]], [-1, -1, 0], [4, 1, 0], lower=-5.0, upper=5.0, integer=[False, True, False]
    )
    built = build_model(p)
    matrices = built.model.matrices
    order = [*np.argsort(built.labels), 3]  # the last one is fixed at 1 and costs the offset
    assert np.asarray(matrices.vtypes)[built.labels].tolist() == ["C", "I", "C"]
    assert len(built.model.integers.labels), "linopy's Gurobi loses integrality if a dimension has the variable's own name"
    assert matrices.c.tolist() == np.append(p.cost, 0.0)[order].tolist()
    columns = matrices.A.toarray()[:, built.labels].tolist()
    rows = {(*row, str(sense), float(b)) for row, sense, b in zip(columns, matrices.sense, matrices.b, strict=True)}
    assert rows == {(1.0, 2.0, 0.0, "<", 4.0), (1.0, 2.0, 0.0, ">", -1.0), (1.0, 0.0, -1.0, "=", 0.0)}
    x = np.array([0.5, 2.0, -3.0])
    assert built.point(built.values(x)).tolist() == x.tolist()
    assert built.point(np.full(built.size, np.nan)) is None


def test_rows_of_any_length_stay_few_containers() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.random((60, 300)) < np.linspace(0.0, 1.0, 60)[:, None] ** 4).astype(float)
    built = build_model(program(np.ones(300), matrix, 0.0))
    assert len(built.model.constraints) <= 6
    assert built.model.matrices.A.sum() == matrix.sum()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("cbc", {"nosuch": 1}, "nosuch"),
        ("cbc", {"cuts": "maybe"}, "maybe"),
        ("cbc", {"ratio": 0.1}, r"Limits\(gap="),
        ("cbc", {"sec": 1}, r"Limits\(time="),
        ("cbc", {"maxNodes": 1}, r"Limits\(nodes="),
        ("cbc", {"cuts": "off -quit"}, "without blanks"),
        ("cbc", {"strongBranching": "many"}, "strongBranching"),
        ("glpk", {"nosuch": True}, "nosuch"),
        ("glpk", {"tmlim": 1}, r"Limits\(time="),
        ("glpk", {"mipgap": 0.1}, r"Limits\(gap="),
        ("glpk", {"cuts": False}, "True"),
    ],
)
def test_wrong_option_is_named(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        get_backend(name).open(knapsack(), options)


@pytest.mark.parametrize(("name", "options"), [("cbc", {"cuts": "off", "randomSeed": 7}), ("glpk", {"cuts": True, "pcost": True})])
def test_options_reach_the_solver(name: str, options: dict[str, Any]) -> None:
    p, lines = knapsack(), list[Event]()
    best = solve("highs", p).objective
    with get_backend(name).open(p, options) as session:
        assert session.solve(Limits(gap=0.0), lines.append).objective == best
    log = " ".join(e.text for e in lines if e.kind == "log").lower()
    assert "randomseed" in log or "cuts enabled" in log or "pseudocost" in log or "mir" in log


@pytest.mark.parametrize("name", sweep(BOTH, every=2))
def test_a_stopped_solve_keeps_point_and_bound(name: str) -> None:
    p = hard_knapsack()
    outcome = solve(name, p, Limits(time=2.0, gap=0.0))
    assert outcome.status is Status.TIME_LIMIT
    assert outcome.objective is not None, "linopy forgets the point"
    assert outcome.bound > -inf, "and knows no bound"
    assert 0.0 < outcome.gap < 0.05


def test_starts_are_ignored_where_there_are_none() -> None:
    p = knapsack()
    with get_backend("glpk").open(p) as session:
        session.start(np.zeros(p.columns))
        assert session.solve().start_accepted is None
    with get_backend("cbc").open(p) as session:
        session.start(np.zeros(p.columns))
        assert session.solve().start_accepted


def test_a_limit_that_a_solver_lacks_is_refused() -> None:
    with get_backend("glpk").open(knapsack()) as session, pytest.raises(BackendError, match="node limit"):
        session.solve(Limits(nodes=3))


def test_a_folder_with_a_blank_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a b"))
    with pytest.raises(BackendError, match="TMPDIR"):
        solve("cbc", knapsack())


def test_a_command_that_dies_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with get_backend("cbc").open(knapsack()) as session:
        (tmp_path / "cbc").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "cbc").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SolverFailure, match="CBC broke down"):
            session.solve()


def output(tmp_path: Path, log: str, size: int = 3, **files: str) -> SolverOutput:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return SolverOutput(None, None, tmp_path, log, size)


POINT = "      0 c0   3   0\n      0 x0   1   0\n**    1 x1   2.5   -1e-7\n      2 x2   1   0\n"


@pytest.mark.parametrize(
    ("first", "log", "status", "point", "bound"),
    [
        ("Optimal - objective value 3.00000000", "", Status.OPTIMAL, True, -inf),
        ("Stopped on time - objective value 3.00000000", "\nLower bound:                    2.500\n", Status.TIME_LIMIT, True, 2.499),
        ("Stopped on time - objective value 3.00000000", "\nLower bound:                    -1.5e+06\n", Status.TIME_LIMIT, True, -1.6e6),
        ("Stopped on iterations - objective value 3.0", "\nResult - Stopped on node limit\n", Status.NODE_LIMIT, True, -inf),
        ("Stopped on iterations - objective value 3.0", "", Status.STALLED, True, -inf),
        ("Stopped on time (no integer solution - continuous used) - objective value 3", "", Status.TIME_LIMIT, False, -inf),
        ("Stopped on time - objective value 1e+50", "", Status.TIME_LIMIT, False, -inf),
        ("Infeasible - objective value 3.00000000", "", Status.INFEASIBLE, False, -inf),
        ("Integer infeasible - objective value 0.00000000", "", Status.INFEASIBLE, False, -inf),
        ("Unbounded - objective value 0.00000000", "", Status.UNBOUNDED, False, -inf),
        ("Something new - objective value 0.00000000", "", Status.STALLED, True, -inf),
    ],
)
def test_output_of_cbc(tmp_path: Path, first: str, log: str, status: Status, point: bool, bound: float) -> None:
    raw = read_cbc(output(tmp_path, log, solution=f"{first}\n{POINT}"))
    assert (raw.status, raw.bound) == (status, pytest.approx(bound))
    assert (None if raw.x is None else raw.x.tolist()) == ([1.0, 2.5, 1.0] if point else None)


@pytest.mark.parametrize("first", ["Optimal - objective value 43.6", "Integer infeasible - objective value 43.6"])
def test_cbc_proves_nothing_once_its_time_is_up(tmp_path: Path, first: str) -> None:
    took = "Total time (Wallclock seconds): 0.5195   (CPU seconds):             0.006661\n"
    early = output(tmp_path, took, solution=f"{first}\n{POINT}")
    assert read_cbc(early).status in (Status.OPTIMAL, Status.INFEASIBLE)
    assert read_cbc(replace(early, seconds=0.5)).status is Status.TIME_LIMIT
    assert read_cbc(replace(early, seconds=5.0)).status in (Status.OPTIMAL, Status.INFEASIBLE)
    assert read_cbc(replace(early, seconds=0.5, log=f"Result - Optimal solution found\n{took}")).status is not Status.TIME_LIMIT


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.1])
def test_cbc_with_little_time_claims_nothing_wrong(seconds: float) -> None:
    p = hard_knapsack()
    outcome = solve("cbc", p, Limits(time=seconds, gap=0.0))
    assert outcome.status is Status.TIME_LIMIT


def test_cbc_without_a_solution_is_no_answer(tmp_path: Path) -> None:
    raw = read_cbc(output(tmp_path, ""))
    assert (raw.status, raw.x) == (Status.STALLED, None)


REPORT = """Problem:

   No.   Row name        Activity     Lower bound   Upper bound
------ ------------    ------------- ------------- -------------
     1 c0                          3             3

   No. Column name       Activity     Lower bound   Upper bound
------ ------------    ------------- ------------- -------------
     1 x2           *              1             0             1
     2 x0                        2.5             0             9
     3 x1           *              0             0             1

Integer feasibility conditions:
"""
PROGRESS = "Integer optimization begins...\n+   12: mip =   3.0e+00 >=   2.500000000e+00  16.7% (2; 0)\n"


@pytest.mark.parametrize(
    ("log", "mark", "status", "bound"),
    [
        (f"OPTIMAL LP SOLUTION FOUND\n{PROGRESS}INTEGER OPTIMAL SOLUTION FOUND\n", "o", Status.OPTIMAL, 2.499999999),
        (f"OPTIMAL LP SOLUTION FOUND\n{PROGRESS}TIME LIMIT EXCEEDED; SEARCH TERMINATED\n", "f", Status.TIME_LIMIT, 2.499999999),
        (f"OPTIMAL LP SOLUTION FOUND\n{PROGRESS}TIME LIMIT EXCEEDED; SEARCH TERMINATED\n", "u", Status.TIME_LIMIT, 2.499999999),
        (f"{PROGRESS}RELATIVE MIP GAP TOLERANCE REACHED; SEARCH TERMINATED\n", "f", Status.OPTIMAL, 2.499999999),
        (f"{PROGRESS}PROBLEM HAS NO INTEGER FEASIBLE SOLUTION\n", "n", Status.INFEASIBLE, 2.499999999),
        ("Integer optimization begins...\nPROBLEM HAS NO PRIMAL FEASIBLE SOLUTION\n", "n", Status.INFEASIBLE, -inf),
        ("LP HAS UNBOUNDED PRIMAL SOLUTION\n", "u", Status.UNBOUNDED, -inf),
        ("TIME LIMIT EXCEEDED; SEARCH TERMINATED\n", "u", Status.TIME_LIMIT, -inf),
        ("glpsol gave up\n", "u", Status.STALLED, -inf),
    ],
)
def test_output_of_glpk(tmp_path: Path, log: str, mark: str, status: Status, bound: float) -> None:
    exact = f"c Status:     WORDS\ns mip 1 3 {mark} 3\ni 1 3\nj 1 1\nj 2 2.5000000000123\nj 3 0\ne o f\n"
    raw = read_glpk(output(tmp_path, log, solution=REPORT, exact=exact))
    assert (raw.status, raw.bound) == (status, pytest.approx(bound))
    there = mark in "of" and status is not Status.INFEASIBLE
    assert (None if raw.x is None else raw.x.tolist()) == ([2.5000000000123, 0.0, 1.0] if there else None)


@pytest.mark.parametrize(
    ("log", "status"),
    [
        ("\nMIP status      : stopped (time limit reached)\n", COPT_STOP_STATUSES["time"]),
        ("\nMIP status      : stopped (node limit reached)\n", COPT_STOP_STATUSES["node"]),
        ("\nMIP status      : stopped\n", None),
        ("\nno licence\n", Status.STALLED),
    ],
)
def test_output_of_copt(tmp_path: Path, log: str, status: Status | None) -> None:
    raw = read_copt(output(tmp_path, log + "\nBest bound      : 49.25\n"))
    assert (raw.status, raw.bound) == (status, pytest.approx(49.24))


@pytest.mark.parametrize(
    ("text", "meant"),
    [("49", 48), ("-53775.265", -53775.266), ("1.5e+06", 1.4e6), ("-1.5e-3", -1.6e-3), ("2.500000000e+00", 2.499999999), ("-inf", -inf)],
)
def test_a_printed_bound_is_never_better_than_the_one_meant(text: str, meant: float) -> None:
    assert smallest_printed_as(text) == pytest.approx(meant, rel=1e-14)


@pytest.mark.parametrize("gap", [0.0, 1e-4, 0.3, 2.0, inf])
def test_the_gap_for_a_solver_is_never_looser(gap: float) -> None:
    strict = strict_gap(gap)
    rng = np.random.default_rng(0)
    for objective, bound in rng.uniform(-5.0, 5.0, (200, 2)):
        low, high = min(objective, bound), max(objective, bound)
        if high - low <= strict * max(abs(high), abs(low)):
            assert relative_gap(high, low) <= gap + 1e-12


@pytest.mark.parametrize("name", [marked("cbc"), marked("glpk")])
def test_digits_end_to_end(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for backend in (name, "highs"):
        assert cli.main(["solve", str(DIGITS), "--backend", backend, "--json", "--output", str(tmp_path / backend)]) in (0, None)
        found[backend] = json.loads(capsys.readouterr().out)
    own, best = found[name], found["highs"]
    assert (own["status"], own["verified"], own["backend"]) == ("optimal", True, name)
    assert own["objective"] == pytest.approx(best["objective"], abs=2e-4 * max(1.0, abs(best["objective"])))
    assert own["bound"] <= best["objective"] + 1e-6


def test_features_say_what_they_do_not() -> None:
    for kind in ALL:
        assert not kind.features & {Feature.INTERRUPT, Feature.SOS1, Feature.BOUND_EVENTS, Feature.BOUND_STOP}
        assert {Feature.ADD_ROWS, Feature.CHANGE, Feature.TIME_LIMIT} <= kind.features
    assert Feature.NODE_LIMIT not in GLPK.features


@pytest.mark.skipif(os.name == "nt", reason="processes are not ended there")
@pytest.mark.parametrize("name", ["cbc", marked("glpk")])
@pytest.mark.parametrize("listed", ["_from_proc", marked("_from_ps")])
def test_an_interrupt_ends_the_command(name: str, listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not another process that names its folder; the session can solve again, and no file is left."""
    if listed == "_from_ps":
        monkeypatch.setattr(own_commands, "_from_proc", own_commands._from_ps)
    session, outcomes = get_backend(name).open(hard_knapsack()), list[Outcome]()
    thread = threading.Thread(target=lambda: outcomes.append(session.solve(Limits(gap=0.0, time=SECONDS_MAX))))
    thread.start()
    until = time.monotonic() + SECONDS_MAX
    while (folder := session._folder) is None or not own_commands.commands_in(folder):  # type: ignore[attr-defined]
        assert time.monotonic() < until, "the command did not start"
    started = own_commands.commands_in(folder)
    session.interrupt()
    thread.join(SECONDS_MAX)
    assert outcomes[0].status is Status.INTERRUPTED
    assert outcomes[0].interrupted
    assert not own_commands.commands_in(folder)
    assert not any(psutil.pid_exists(process) for process in started)
    assert not folder.exists()
    session.add_rows(Rows(Csr(np.ones((1, hard_knapsack().columns))), np.array([-inf]), np.array([1.0])))
    assert session.solve(EXACT).status is Status.OPTIMAL


def test_an_interrupt_before_the_command_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    session = get_backend("cbc").open(hard_knapsack())
    plain = adapter._without_output

    def interrupting(**how: bool) -> Any:
        session.interrupt()
        return plain(**how)

    monkeypatch.setattr(adapter, "end_commands", lambda *given: None)
    monkeypatch.setattr(adapter, "_without_output", interrupting)
    outcome = session.solve(Limits(gap=0.0, time=SECONDS_MAX))
    assert (outcome.status, outcome.interrupted, outcome.x) == (Status.INTERRUPTED, True, None)
