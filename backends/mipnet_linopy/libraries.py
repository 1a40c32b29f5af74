"""Gurobi, Xpress, CPLEX, COPT and MOSEK, which linopy drives through their Python packages.

linopy 0.10 breaks down where Gurobi or COPT stop without a point, takes CPLEX's ``time limit exceeded, no integer solution`` for
infeasible, forgets why Xpress stopped, and reports a bound for Gurobi alone: what a solver left behind is asked instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipnet.backend import Options, Status
from mipnet.backend.helpers import Raw
from mipnet.errors import SolverFailure
from mipnet_linopy.words import Dialect, Said, last_number, least, read_result

Array = NDArray[np.float64]


def _installed(package: str) -> Callable[[], str]:
    return lambda: version(package)


GUROBI = {
    2: Status.OPTIMAL,
    3: Status.INFEASIBLE,
    4: Status.UNBOUNDED,
    5: Status.UNBOUNDED,
    8: Status.NODE_LIMIT,
    9: Status.TIME_LIMIT,
    11: None,
    17: Status.MEMORY_LIMIT,
}


def read_gurobi(said: Said) -> Raw:
    """From the `gurobipy.Model`, whose columns are in the order of the labels."""
    m = said.native
    x = np.array(m.getAttr("X", m.getVars())) if m.SolCount else None
    bound = m.ObjBound if m.IsMIP else -math.inf
    told = re.search(r"(Loaded user MIP start|User MIP start produced solution)|user MIP start|User MIP start", said.log)
    accepted = None if told is None else told[1] is not None
    return Raw(GUROBI.get(m.Status, Status.STALLED), x, bound, int(m.NodeCount), int(m.IterCount), accepted, f"status {m.Status}")


def _gurobi_start(solver: Any, values: Array, folder: Path) -> Options:
    model = solver.solver_model
    model.setAttr("Start", model.getVars(), values.tolist())
    return {}


gurobi = Dialect(
    title="Gurobi",
    io_api="direct",
    time="TimeLimit",
    relative="MIPGap",
    absolute="MIPGapAbs",
    nodes="NodeLimit",
    always={"Threads": 1, "Seed": 0, "LogToConsole": 0},
    build={"env": {"LogToConsole": 0}},
    read=read_gurobi,
    version=_installed("gurobipy"),
    start=_gurobi_start,
)


XPRESS = {1: Status.OPTIMAL, 3: Status.INFEASIBLE, 4: Status.UNBOUNDED}
XPRESS_STOP = {1: Status.TIME_LIMIT, 2: None, 3: Status.NODE_LIMIT, 5: Status.OPTIMAL, 8: Status.MEMORY_LIMIT, 9: None}


def read_xpress(said: Said) -> Raw:
    """From the `xpress.problem`: what it proved, else why it stopped."""
    problem, a = said.native, said.native.attributes
    proved, integer = int(a.solstatus), bool(a.originalmipents)
    status = XPRESS.get(proved, XPRESS_STOP.get(int(a.stopstatus), Status.STALLED))
    x = np.array(problem.getSolution(), dtype=np.float64) if proved in (1, 2) else None
    accepted = None if "User solution" not in said.log else bool(re.search(r"User solution \(.*\) accepted", said.log))
    bound = float(a.bestbound) if integer else -math.inf
    nodes = int(a.nodes) if integer else 0
    return Raw(status, x, bound if abs(bound) < 1e20 else -math.inf, nodes, int(a.simplexiter), accepted, f"{a.solstatus}, {a.stopstatus}")


def _xpress_start(solver: Any, values: Array, folder: Path) -> Options:
    solver.solver_model.addMipSol(values)
    return {}


xpress = Dialect(
    title="Xpress",
    io_api="direct",
    time="timelimit",
    relative="miprelstop",
    absolute="mipabsstop",
    nodes="maxnode",
    always={"threads": 1, "randomseed": 1},
    read=read_xpress,
    version=_installed("xpress"),
    start=_xpress_start,
)


CPLEX = {
    **dict.fromkeys((1, 101, 102), Status.OPTIMAL),
    **dict.fromkeys((3, 103), Status.INFEASIBLE),
    **dict.fromkeys((2, 4, 118, 119), Status.UNBOUNDED),
    **dict.fromkeys((11, 25, 107, 108, 131, 132), Status.TIME_LIMIT),
    **dict.fromkeys((105, 106), Status.NODE_LIMIT),
    **dict.fromkeys((111, 112), Status.MEMORY_LIMIT),
    **dict.fromkeys((13, 113, 114), None),
}


def read_cplex(said: Said) -> Raw:
    """From the `cplex.Cplex`, by the numbers of its statuses; columns come by name, in the order of the LP file."""
    m = said.native
    wrong = re.search(r"CPLEX Error.*", said.log)
    if wrong is not None and m.solution.get_status() == 0:  # linopy takes no notice of it
        raise SolverFailure(f"CPLEX broke down: {wrong[0].strip()}; try other options, or another backend")
    solution, integer = m.solution, m.get_problem_type() != m.problem_type.LP
    status = CPLEX.get(solution.get_status(), Status.STALLED)
    x, bound, nodes = None, -math.inf, 0
    if solution.is_primal_feasible():
        x = np.zeros(said.size)
        x[[int(name[1:]) for name in m.variables.get_names()]] = solution.get_values()
    if integer and status not in (Status.INFEASIBLE, Status.UNBOUNDED):
        bound = float(solution.MIP.get_best_objective())
        nodes = int(solution.progress.get_num_nodes_processed())
    text = str(solution.get_status_string())
    m.end()
    return Raw(status, x, bound if abs(bound) < 1e20 else -math.inf, nodes, message=text)


cplex = Dialect(
    title="CPLEX",
    io_api="lp",
    time="timelimit",
    relative="mip.tolerances.mipgap",
    absolute="mip.tolerances.absmipgap",
    nodes="mip.limits.nodes",
    always={"threads": 1, "randomseed": 0},
    read=read_cplex,
    version=_installed("cplex"),
)


COPT = {
    "1": Status.OPTIMAL,
    "2": Status.INFEASIBLE,
    "3": Status.UNBOUNDED,
    "4": Status.UNBOUNDED,
    "6": Status.NODE_LIMIT,
    "8": Status.TIME_LIMIT,
}
COPT_STOP = {"time": Status.TIME_LIMIT, "node": Status.NODE_LIMIT}


def read_copt(said: Said) -> Raw:
    """linopy closes COPT before it can be asked: the status is linopy's, the bound and the rest are in the log."""
    raw = read_result(said)
    stopped = re.search(r"\nMIP status\s+: stopped(?: \((\w+) limit)?", said.log)
    code = "" if said.result is None else str(said.result.status.legacy_status)
    status = COPT.get(code) or (Status.STALLED if stopped is None else COPT_STOP.get(stopped[1]))
    bound, nodes = last_number(r"\nBest bound\s+:\s+", said.log), last_number(r"\nSolve node\s+:\s+", said.log)
    return Raw(status, raw.x, -math.inf if bound is None else least(bound), int(nodes or 0), message=f"status {code}")


copt = Dialect(
    title="COPT",
    io_api="lp",
    time="TimeLimit",
    relative="RelGap",
    absolute="AbsGap",
    nodes="NodeLimit",
    always={"Threads": 1, "LogToConsole": 0},
    read=read_copt,
    version=_installed("coptpy"),
)


def read_mosek(said: Said) -> Raw:
    """From linopy; where MOSEK stopped on a limit, it tells neither which nor a bound."""
    if said.result is None and re.search(r"licen[cs]e", said.log, re.IGNORECASE):
        raise SolverFailure("MOSEK found no licence; put one where `MOSEKLM_LICENSE_FILE` says, or choose another backend")
    return read_result(said)


mosek = Dialect(
    title="MOSEK",
    io_api="direct",
    time="MSK_DPAR_OPTIMIZER_MAX_TIME",
    relative="MSK_DPAR_MIO_TOL_REL_GAP",
    absolute="MSK_DPAR_MIO_TOL_ABS_GAP",
    always={"MSK_IPAR_NUM_THREADS": 1},
    read=read_mosek,
    version=_installed("Mosek"),
)
