"""Every installed backend against the contract, and the special cases of each solver."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mipnet.backend import Backend, Event, Feature, Limits, LogSumExp, Rows, Status, backends, get_backend
from mipnet.errors import BackendError, OptionError, SolverFailure
from mipnet.testing import backend_checks
from mipnet.testing.programs import hard_knapsack, knapsack, market_split, program

BOTH = ["highs", "scip"]
OVERTIME_SECONDS = 30.0
"""Seconds by which a solve may exceed its time limit here, where other tests run at the same time."""
MANY_SOLVES = {"bound_of_stopped_solve", "deterministic", "gap_limit", "integer_optimum", "solved_again_and_again"}
MANY_SOLVES |= {"time_limit_each_solve", "time_limit_without_point"}
"""Checks that take long with a solver that is a program of its own, and that others stand in for in `make test`."""


def left_out(backend: str, number: int, check: str) -> bool:
    """Backends that linopy hands programs to have the same code: in `make test` they take turns, and each check is asked of one of them."""
    return backend not in BOTH and (check in MANY_SOLVES or (number % 2 == 0) != (backend == "cbc"))


CLAUSES = [
    pytest.param(check, id=f"{found.name}-{name}", marks=[pytest.mark.sweep] if left_out(found.name, number, name) else [])
    for found in backends()
    if found.backend is not None and not found.problem
    for number, (name, check) in enumerate(backend_checks(found.backend, overtime=OVERTIME_SECONDS))
]


@pytest.mark.parametrize("check", CLAUSES)
def test_contract(check: Callable[[], None], capfd: pytest.CaptureFixture[str]) -> None:
    check()
    assert capfd.readouterr().out == ""


def test_both_backends_are_checked() -> None:
    assert {"highs", "scip"} <= {found.name for found in backends() if not found.problem}


@pytest.mark.parametrize("name", BOTH)
def test_version_is_that_of_the_solver(name: str) -> None:
    assert all(part.isdigit() for part in get_backend(name).version().split("."))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("highs", {"time_limitt": 1.0}, "time_limit"),
        ("highs", {"presolve": "blah"}, "presolve"),
        ("highs", {"threads": 2.5}, "threads"),
        ("highs", {"threads": -1}, "threads"),
        ("highs", {"mip_heuristic_effort": [1]}, "mip_heuristic_effort"),
        ("highs", {"solver": "hipox"}, "solver"),
        ("highs", {"mip_rel_gap": 0.1}, r"Limits\(gap="),
        ("highs", {"objective_bound": 0.0}, "objective_bound"),
        ("highs", {"log_to_console": True}, "on_event"),
        ("highs", {"log_dev_level": 1}, "standard output"),
        ("highs", {"highs_debug_level": 2}, "standard output"),
        ("highs", {"highs_analysis_level": 3}, "standard output"),
        ("scip", {"separating/maxround": 1}, "separating/maxrounds"),
        ("scip", {"presolving/maxrounds": 2.7}, "presolving/maxrounds"),
        ("scip", {"presolving/maxrounds": True}, "presolving/maxrounds"),
        ("scip", {"branching/preferbinary": 3}, "branching/preferbinary"),
        ("scip", {"lp/initalgorithm": "?"}, "lp/initalgorithm"),
        ("scip", {"numerics/feastol": "small"}, "numerics/feastol"),
        ("scip", {"numerics/feastol": -1.0}, "numerics/feastol"),
        ("scip", {"limits/time": 3.0}, r"Limits\(time="),
    ],
)
def test_wrong_option_is_named(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        get_backend(name).open(knapsack(), options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("highs", {"presolve": "off", "random_seed": 3, "mip_heuristic_effort": np.float64(0.1)}),
        ("highs", {"threads": 2}),
        ("scip", {"presolving/maxrounds": 0, "randomization/randomseedshift": np.int64(3)}),
        ("scip", {"separating/maxrounds": 0, "lp/initalgorithm": "d", "numerics/feastol": 1e-7}),
    ],
)
def test_options_reach_the_solver(name: str, options: dict[str, object]) -> None:
    backend, p = get_backend(name), knapsack()
    with backend.open(p) as plain, backend.open(p, options) as other:
        for _ in range(2):
            assert plain.solve(Limits(gap=0.0)).objective == other.solve(Limits(gap=0.0)).objective


def test_highs_takes_objective_bound_on_a_linear_program() -> None:
    p = program([1.0], lower=1.0)
    with get_backend("highs").open(p, {"objective_bound": 1e6}) as session:
        assert session.solve().objective == 1.0


@pytest.mark.parametrize("name", BOTH)
def test_dropped_coefficients_warn(name: str) -> None:
    p = program([-1.0, -1.0], [[1.0, 1e-10]], row_upper=1.0, upper=1.0)
    with pytest.warns(RuntimeWarning, match="drops 1 coefficient"):
        get_backend(name).open(p)


@pytest.mark.parametrize("name", BOTH)
def test_duplicate_and_zero_entries_are_no_trouble(name: str) -> None:
    p = program([-1.0, -1.0], [[1.0, 1.0]], row_upper=3.0, upper=5.0)
    doubled = p.rows.matrix.__class__((np.array([0.5, 0.5, 1.0, 0.0]), np.array([0, 0, 1, 1]), np.array([0, 4])), shape=(1, 2))
    with get_backend(name).open(replace(p, rows=Rows(doubled, p.rows.lower, p.rows.upper))) as session:
        assert session.solve().objective == pytest.approx(-3.0)
    assert doubled.nnz == 4, "the caller's matrix is left alone"


@pytest.mark.parametrize("name", BOTH)
def test_nan_is_refused(name: str) -> None:
    with pytest.raises(BackendError, match=r"`cost`.*NaN"):
        get_backend(name).open(program([math.nan, 1.0]))


def test_memory_limit_is_refused_where_there_is_none() -> None:
    with get_backend("highs").open(knapsack()) as session, pytest.raises(BackendError, match="memory limit"):
        session.solve(Limits(memory=100.0))


def test_scip_memory_limit() -> None:
    with get_backend("scip").open(hard_knapsack()) as session:
        outcome = session.solve(Limits(memory=1.0, time=200.0, gap=0.0))
        assert outcome.status is Status.MEMORY_LIMIT
        assert session.solve(Limits(gap=0.05)).status is Status.OPTIMAL, "the limit holds for one solve"


def test_slow_handover_of_scip_gives_the_same_program(tmp_path: Path) -> None:
    import pyscipopt
    from mipnet_scip import native
    from mipnet_scip.scip_problem import write_program

    assert native.library() is not None
    p = program(
        [1.0, -2.0, 0.0], [[1, 2, 0], [0, 0, 0], [1, 0, -1], [0, 1, 1]], [-1, -1, 0, -math.inf], [4, 1, 0, math.inf], lower=-5.0, upper=5.0
    )
    texts = []
    for fast in (True, False):
        model = pyscipopt.Model("same")
        model.hideOutput()
        write_program(model, p, fast)
        model.optimize()
        texts.append((model.getObjVal(), [model.getVal(v) for v in model.getVars()]))
        model.freeTransform()
        rows = {(*sorted(model.getValsLinear(c).items()), model.getLhs(c), model.getRhs(c)) for c in model.getConss()}
        texts.append({r for r in rows if r[-2:] != (-1e20, 1e20) and len(r) > 2 and any(v for _, v in r[:-2])})
    assert texts[0] == texts[2]
    assert texts[1] == texts[3]


def test_scip_without_its_library(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from mipnet_scip import native

    monkeypatch.setattr(native, "library", lambda: None)
    backend = get_backend("scip")
    for name, check in backend_checks(backend, overtime=OVERTIME_SECONDS):
        if name in {"linear_program", "empty_and_fixed", "integer_optimum", "log_events", "added_rows", "indicators"}:
            check()
    assert capfd.readouterr().out == ""


def test_scip_log_sum_exp_with_starts_and_changed_bounds() -> None:
    p = program([0.0, 0.0, 1.0], lower=[0, 0, -9], upper=[1, 1, 9])
    p = replace(p, convex=(LogSumExp(np.array([[0, 1]]), np.array([2])),))
    with get_backend("scip").open(p) as session:
        session.start(np.array([1.0, 1.0, 2.0]))
        outcome = session.solve()
        assert outcome.start_accepted
        assert outcome.objective == pytest.approx(np.log(2.0), abs=1e-4)
        session.set_bounds(np.array([0, 1, 2]), np.array([-60.0, -50.0, -99.0]), np.array([-60.0, -50.0, 99.0]))
        assert session.solve().objective == pytest.approx(-50.0, abs=1e-4)


def test_linear_program_stops_at_its_time_limit() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((400, 600)) * (rng.random((400, 600)) < 0.3)
    p = program(-rng.random(600) - a.sum(axis=0) / 400, a, row_upper=a.sum(axis=1))
    with get_backend("highs").open(p) as session:
        full = session.solve()
        session.set_objective(-p.cost[::-1] * np.array([-1.0, -2.0] * 300))  # so that the solver has to iterate again
        for _ in range(2):
            outcome = session.solve(Limits(time=0.005))
            assert outcome.status is Status.TIME_LIMIT
            assert outcome.bound == -math.inf
        assert session.solve(Limits(time=full.runtime * 20 + 60)).status is Status.OPTIMAL, "earlier solves do not count"


@pytest.mark.parametrize("name", BOTH)
def test_a_point_that_is_none_raises(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = knapsack()
    with get_backend(name).open(p) as session:
        raw = session._raw

        def zeros(*given: object) -> object:
            return replace(raw(*given), x=np.full(p.columns, 1.0))

        monkeypatch.setattr(session, "_raw", zeros)
        with pytest.raises(SolverFailure, match="violates the program"):
            session.solve()


SILENT = """
import pickle, sys
from mipnet.backend import get_backend
backend = get_backend(sys.argv[1])
backend.version()
with backend.open(pickle.load(open(sys.argv[2], "rb"))) as session:
    print(session.solve().status.name, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "name", [pytest.param(f.name, marks=[] if f.name == "highs" else [pytest.mark.sweep]) for f in backends() if not f.problem]
)
def test_nothing_is_printed_by_a_process(name: str, tmp_path: Path) -> None:
    """In a process of its own: a solver may print its name once per process."""
    (tmp_path / "program").write_bytes(pickle.dumps(knapsack()))
    words = [sys.executable, "-c", SILENT, name, str(tmp_path / "program")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert (done.stdout, done.stderr) == ("", "OPTIMAL\n")


SCRIPT = """
import pickle, sys
from mipnet.backend import Limits, get_backend
with get_backend(sys.argv[1]).open(pickle.load(open(sys.argv[2], "rb"))) as session:
    tell = lambda event: print("go", flush=True) if event.kind == "incumbent" else None
    outcome = session.solve(Limits(gap=0.0, time=600.0), tell)
    print(outcome.status.name, outcome.x is not None)
    print(session.solve(Limits(gap=0.2)).status.name)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a child alone")
@pytest.mark.parametrize("name", BOTH)
def test_ctrl_c_keeps_the_best_point(name: str, tmp_path: Path) -> None:
    """In a process that reads the program from a file, because `mipnet.testing` takes long to import."""
    (tmp_path / "program").write_bytes(pickle.dumps(hard_knapsack()))
    words = [sys.executable, "-c", SCRIPT, name, str(tmp_path / "program")]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "go\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=240)
    assert [line for line in out.split("\n") if line not in ("", "go")] == ["INTERRUPTED True", "OPTIMAL"], out + err


@pytest.mark.parametrize("name", BOTH)
def test_log_lines_come_while_solving(name: str) -> None:
    """The first one comes in time to interrupt a solve that would take minutes."""
    with get_backend(name).open(hard_knapsack()) as session:

        def hear(event: Event) -> None:
            if event.kind == "log":
                session.interrupt()

        assert session.solve(Limits(time=120.0, gap=0.0), hear).status is Status.INTERRUPTED


@pytest.mark.parametrize("name", BOTH)
def test_no_start_no_point(name: str) -> None:
    p, point = market_split()
    with get_backend(name).open(p) as session:
        assert session.solve(Limits(nodes=1)).x is None
        session.start(point)
        outcome = session.solve(Limits(nodes=1))
        assert outcome.start_accepted
        assert outcome.objective is not None
        assert outcome.objective <= p.objective(point) + 1e-6


def test_core_backends_list_their_features() -> None:
    highs, scip = get_backend("highs"), get_backend("scip")
    assert scip.features == frozenset(Feature)
    assert scip.features - highs.features == {Feature.SOS1, Feature.INDICATOR, Feature.LOG_SUM_EXP, Feature.MEMORY_LIMIT, Feature.LAZY}


def test_an_instance_serves_as_a_name() -> None:
    backend = get_backend("highs")
    assert isinstance(backend, Backend)
    assert get_backend(backend) is backend
