"""Interfaces to Gurobi, Xpress, CPLEX, COPT and MOSEK, which linopy runs through their Python packages.

linopy 0.10 raises an error if Gurobi or COPT stop without a point, reads CPLEX's ``time limit exceeded, no integer solution`` as
infeasible, loses why Xpress stopped, and reports a dual bound for Gurobi only.  Results are therefore read from the solver's own
object or log.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Options, Status
from mipnet.backend.checks import RawOutcome
from mipnet.errors import SolverFailure
from mipnet_linopy.interface import LimitOptions, SolverInterface, SolverOutput, last_number, read_result, smallest_printed_as


def _installed(package: str) -> Callable[[], str]:
    return lambda: version(package)


GUROBI_STATUSES = {
    2: Status.OPTIMAL,
    3: Status.INFEASIBLE,
    4: Status.UNBOUNDED,
    5: Status.UNBOUNDED,
    8: Status.NODE_LIMIT,
    9: Status.TIME_LIMIT,
    11: None,
    17: Status.MEMORY_LIMIT,
}


def read_gurobi(output: SolverOutput) -> RawOutcome:
    """Read the result from the `gurobipy.Model`, whose columns are in the order of the labels."""
    m = output.native
    x = np.array(m.getAttr("X", m.getVars())) if m.SolCount else None
    bound = m.ObjBound if m.IsMIP else -math.inf
    start = re.search(r"(Loaded user MIP start|User MIP start produced solution)|user MIP start|User MIP start", output.log)
    accepted = None if start is None else start[1] is not None
    return RawOutcome(
        GUROBI_STATUSES.get(m.Status, Status.STALLED), x, bound, int(m.NodeCount), int(m.IterCount), accepted, f"status {m.Status}"
    )


def _gurobi_start(solver: Any, values: Array, folder: Path) -> Options:
    model = solver.solver_model
    model.setAttr("Start", model.getVars(), values.tolist())
    return {}


gurobi = SolverInterface(
    title="Gurobi",
    io_api="direct",
    limits=LimitOptions(time="TimeLimit", relative_gap="MIPGap", absolute_gap="MIPGapAbs", nodes="NodeLimit"),
    defaults={"Threads": 1, "Seed": 0, "LogToConsole": 0},
    build={"env": {"LogToConsole": 0}},
    read=read_gurobi,
    version=_installed("gurobipy"),
    start=_gurobi_start,
)


XPRESS_STATUSES = {1: Status.OPTIMAL, 3: Status.INFEASIBLE, 4: Status.UNBOUNDED}
XPRESS_STOP_STATUSES = {1: Status.TIME_LIMIT, 2: None, 3: Status.NODE_LIMIT, 5: Status.OPTIMAL, 8: Status.MEMORY_LIMIT, 9: None}


def read_xpress(output: SolverOutput) -> RawOutcome:
    """Read the result from the `xpress.problem`: what it proved, else why it stopped."""
    problem, a = output.native, output.native.attributes
    proved, integer = int(a.solstatus), bool(a.originalmipents)
    status = XPRESS_STATUSES.get(proved, XPRESS_STOP_STATUSES.get(int(a.stopstatus), Status.STALLED))
    x = np.array(problem.getSolution(), dtype=np.float64) if proved in (1, 2) else None
    accepted = None if "User solution" not in output.log else bool(re.search(r"User solution \(.*\) accepted", output.log))
    bound = float(a.bestbound) if integer else -math.inf
    nodes = int(a.nodes) if integer else 0
    return RawOutcome(
        status, x, bound if abs(bound) < 1e20 else -math.inf, nodes, int(a.simplexiter), accepted, f"{a.solstatus}, {a.stopstatus}"
    )


def _xpress_start(solver: Any, values: Array, folder: Path) -> Options:
    solver.solver_model.addMipSol(values)
    return {}


xpress = SolverInterface(
    title="Xpress",
    io_api="direct",
    limits=LimitOptions(time="timelimit", relative_gap="miprelstop", absolute_gap="mipabsstop", nodes="maxnode"),
    defaults={"threads": 1, "randomseed": 1},
    read=read_xpress,
    version=_installed("xpress"),
    start=_xpress_start,
)


CPLEX_STATUSES = {
    **dict.fromkeys((1, 101, 102), Status.OPTIMAL),
    **dict.fromkeys((3, 103), Status.INFEASIBLE),
    **dict.fromkeys((2, 4, 118, 119), Status.UNBOUNDED),
    **dict.fromkeys((11, 25, 107, 108, 131, 132), Status.TIME_LIMIT),
    **dict.fromkeys((105, 106), Status.NODE_LIMIT),
    **dict.fromkeys((111, 112), Status.MEMORY_LIMIT),
    **dict.fromkeys((13, 113, 114), None),
}


def read_cplex(output: SolverOutput) -> RawOutcome:
    """Read the result from the `cplex.Cplex`, whose columns have the names and the order of the LP file."""
    m = output.native
    wrong = re.search(r"CPLEX Error.*", output.log)
    if wrong is not None and m.solution.get_status() == 0:  # linopy ignores it
        raise SolverFailure(f"CPLEX broke down: {wrong[0].strip()}; try other options, or another backend")
    solution, integer = m.solution, m.get_problem_type() != m.problem_type.LP
    status = CPLEX_STATUSES.get(solution.get_status(), Status.STALLED)
    x, bound, nodes = None, -math.inf, 0
    if solution.is_primal_feasible():
        x = np.zeros(output.size)
        x[[int(name[1:]) for name in m.variables.get_names()]] = solution.get_values()
    if integer and status not in (Status.INFEASIBLE, Status.UNBOUNDED):
        bound = float(solution.MIP.get_best_objective())
        nodes = int(solution.progress.get_num_nodes_processed())
    text = str(solution.get_status_string())
    m.end()
    return RawOutcome(status, x, bound if abs(bound) < 1e20 else -math.inf, nodes, message=text)


cplex = SolverInterface(
    title="CPLEX",
    io_api="lp",
    limits=LimitOptions(
        time="timelimit", relative_gap="mip.tolerances.mipgap", absolute_gap="mip.tolerances.absmipgap", nodes="mip.limits.nodes"
    ),
    defaults={"threads": 1, "randomseed": 0},
    read=read_cplex,
    version=_installed("cplex"),
)


COPT_STATUSES = {
    "1": Status.OPTIMAL,
    "2": Status.INFEASIBLE,
    "3": Status.UNBOUNDED,
    "4": Status.UNBOUNDED,
    "6": Status.NODE_LIMIT,
    "8": Status.TIME_LIMIT,
}
COPT_STOP_STATUSES = {"time": Status.TIME_LIMIT, "node": Status.NODE_LIMIT}


def read_copt(output: SolverOutput) -> RawOutcome:
    """Read the status from linopy, which has closed COPT, and the bound and the number of nodes from the log."""
    raw = read_result(output)
    stopped = re.search(r"\nMIP status\s+: stopped(?: \((\w+) limit)?", output.log)
    code = "" if output.result is None else str(output.result.status.legacy_status)
    status = COPT_STATUSES.get(code) or (Status.STALLED if stopped is None else COPT_STOP_STATUSES.get(stopped[1]))
    bound, nodes = last_number(r"\nBest bound\s+:\s+", output.log), last_number(r"\nSolve node\s+:\s+", output.log)
    return RawOutcome(status, raw.x, -math.inf if bound is None else smallest_printed_as(bound), int(nodes or 0), message=f"status {code}")


copt = SolverInterface(
    title="COPT",
    io_api="lp",
    limits=LimitOptions(time="TimeLimit", relative_gap="RelGap", absolute_gap="AbsGap", nodes="NodeLimit"),
    defaults={"Threads": 1, "LogToConsole": 0},
    read=read_copt,
    version=_installed("coptpy"),
)


def read_mosek(output: SolverOutput) -> RawOutcome:
    """Read the result from linopy; if MOSEK stopped on a limit, neither the limit nor a bound is known."""
    if output.result is None and re.search(r"licen[cs]e", output.log, re.IGNORECASE):
        raise SolverFailure("MOSEK found no licence; put one where `MOSEKLM_LICENSE_FILE` says, or choose another backend")
    return read_result(output)


mosek = SolverInterface(
    title="MOSEK",
    io_api="direct",
    limits=LimitOptions(
        time="MSK_DPAR_OPTIMIZER_MAX_TIME", relative_gap="MSK_DPAR_MIO_TOL_REL_GAP", absolute_gap="MSK_DPAR_MIO_TOL_ABS_GAP"
    ),
    defaults={"MSK_IPAR_NUM_THREADS": 1},
    read=read_mosek,
    version=_installed("Mosek"),
)
