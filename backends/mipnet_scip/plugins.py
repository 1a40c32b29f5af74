"""Plug-ins that SCIP calls during a solve: a heuristic that asks for points, and a constraint handler for lazy rows.

PySCIPOpt prints an exception of a plug-in and continues, so users' functions are called through `SolveProgress.call`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyscipopt import SCIP_RESULT, Conshdlr, Heur
from pyscipopt.scip import PY_SCIP_HEURTIMING

from mipnet.arrays import Array
from mipnet.backend import LazyRows, Limits, PointSource, Program, Rows
from mipnet.backend.checks import check_rows, checked_source
from mipnet.backend.progress import SolveProgress
from mipnet_scip import native
from mipnet_scip.scip_problem import ScipVariables, add_rows

LAZY_ROW_TOLERANCE = 2e-6
"""Violations of a lazy row up to this, relative to its side, are ignored; it is twice SCIP's tolerance for an LP."""

HEURISTIC_TIMING = PY_SCIP_HEURTIMING.DURINGLPLOOP | PY_SCIP_HEURTIMING.AFTERLPNODE
"""Also within the rounds of cuts, which can take all the time at the root."""

HEURISTIC_NAME, HANDLER_NAME = "mipnet_points", "mipnet_rows"
LAZY_ROW_PARAMETERS: dict[str, object] = {
    "misc/usesymmetry": 0,
    "misc/allowstrongdualreds": False,
    "misc/allowweakdualreds": False,
    "constraints/components/maxprerounds": 0,
    "constraints/components/propfreq": -1,
}
"""Parameters that turn off symmetry, dominance and independent components, which are invalid if rows are added later."""


class PluginState:
    """The state that the plug-ins of one model share: the model's variables, and the source and lazy rows of the current solve."""

    def __init__(self, model: Any, stop_if_asked: Callable[[], None]) -> None:
        self.model, self.stop_if_asked = model, stop_if_asked
        self.variables = ScipVariables(model, np.empty(0, dtype=np.uintp))
        self.progress = SolveProgress(Limits(), None)
        self.program: Program | None = None
        self.source: PointSource | None = None
        self.lazy: LazyRows | None = None
        self.saved_parameters: dict[str, object] = {}
        self.included: set[str] = set()

    def begin(
        self, program: Program, variables: ScipVariables, progress: SolveProgress, source: PointSource | None, lazy: LazyRows | None
    ) -> None:
        """Prepare the plug-ins for a solve; a plug-in without a source or lazy rows is off."""
        self.program, self.variables, self.progress = program, variables, progress
        self.source, self.lazy = None if source is None else checked_source(program, source), lazy
        if source is not None:
            self._include(HEURISTIC_NAME)
        if HEURISTIC_NAME in self.included:
            self.model.setParam(f"heuristics/{HEURISTIC_NAME}/freq", -1 if source is None else 1)
        if lazy is not None:
            self._include(HANDLER_NAME)
            self.saved_parameters = {name: self.model.getParam(name) for name in LAZY_ROW_PARAMETERS}
            for name, value in LAZY_ROW_PARAMETERS.items():
                self.model.setParam(name, value)

    def end(self) -> None:
        """Turn the plug-ins off, after SCIP has freed the transformed problem."""
        self.source = self.lazy = None
        while self.saved_parameters:
            self.model.setParam(*self.saved_parameters.popitem())

    def _include(self, name: str) -> None:
        if name in self.included:
            return
        self.included.add(name)
        if name == HEURISTIC_NAME:
            self.model.includeHeur(PointHeuristic(self), name, "asks for points", "m", timingmask=HEURISTIC_TIMING, freq=-1)
        else:  # checked after all of SCIP's own constraints
            self.model.includeConshdlr(
                LazyRowHandler(self),
                name,
                "lazy rows",
                enfopriority=-10,
                chckpriority=-10,
                sepafreq=1,
                eagerfreq=-1,
                needscons=False,
            )

    def current(self, solution: Any | None) -> Array:
        """Return the values of a solution of SCIP by column; None stands for the solution of the node's relaxation."""
        lib = native.library()
        if solution is None and lib is not None:
            return native.node_values(lib, self.model, self.variables.pointers)
        return np.array([self.model.getSolVal(solution, v) for v in self.variables.columns])

    def try_point(self, x: Array) -> bool:
        """Give a point to SCIP, which checks it; returns True if SCIP accepts it."""
        lib = native.library()
        if lib is not None:
            return native.try_point(lib, self.model, self.variables.every_pointer, self.variables.values(x))
        solution = self.model.createOrigSol()  # `createSol` fails for variables that presolve has aggregated
        self.variables.set_values(solution, x)
        return bool(self.model.trySol(solution, printreason=False))

    def violated_rows(self, solution: Any | None) -> Rows | None:
        """Return the lazy rows that a solution violates, or None if there are none."""
        if self.lazy is None or self.program is None or self.progress.error is not None:
            return None
        x = self.current(solution)
        rows = self.progress.call(self.lazy.separate, x)
        self.stop_if_asked()
        if rows is None or not len(rows):
            return None
        side = np.maximum(*(np.where(np.isfinite(end), np.abs(end), 0.0) for end in (rows.lower, rows.upper)))
        which = rows.violation(x) > LAZY_ROW_TOLERANCE * np.maximum(1.0, side)
        return check_rows(self.program, rows.part(which)) if which.any() else None

    def add_violated(self) -> bool:
        """Add the lazy rows that the solution of the node's relaxation violates; returns True if there are any."""
        rows, lazy = self.violated_rows(None), self.lazy
        if rows is None or lazy is None:
            return False
        self.progress.call(lambda added: add_rows(self.model, self.variables, added), rows)
        self.progress.call(lazy.written, rows)
        return self.progress.error is None


class PointHeuristic(Heur):  # type: ignore[misc]
    """A heuristic that asks for a point after each LP and passes the solution of the LP."""

    def __init__(self, state: PluginState) -> None:
        self.state = state

    def heurexec(self, heurtiming: int, nodeinfeasible: bool) -> dict[str, int]:
        """Ask for a point and give it to SCIP."""
        state = self.state
        if state.source is None or nodeinfeasible:
            return {"result": SCIP_RESULT.DIDNOTRUN}
        point = state.progress.call(state.source, state.current(None))
        taken = point is not None and state.try_point(point)
        state.stop_if_asked()
        return {"result": SCIP_RESULT.FOUNDSOL if taken else SCIP_RESULT.DIDNOTFIND}


class LazyRowHandler(Conshdlr):  # type: ignore[misc]
    """A constraint handler that adds violated lazy rows, and rejects points that violate a lazy row."""

    def __init__(self, state: PluginState) -> None:
        self.state = state

    def conslock(self, constraint: Any, locktype: int, nlockspos: int, nlocksneg: int) -> None:
        """Lock the columns of lazy rows in both directions, so that SCIP does not fix any of them by its cost."""
        if self.state.lazy is not None:
            locks = nlockspos + nlocksneg
            for column in self.state.lazy.columns.tolist():
                self.model.addVarLocksType(self.state.variables.columns[column], locktype, locks, locks)

    def conscheck(self, constraints: Any, solution: Any, *how: bool) -> dict[str, int]:
        """Accept a point that violates no lazy row."""
        return {"result": SCIP_RESULT.FEASIBLE if self.state.violated_rows(solution) is None else SCIP_RESULT.INFEASIBLE}

    def consenfolp(self, constraints: Any, useful: int, infeasible: bool) -> dict[str, int]:
        """Cut off an integral solution of the LP, or accept it."""
        return {"result": SCIP_RESULT.CONSADDED if self.state.add_violated() else SCIP_RESULT.FEASIBLE}

    def consenfops(self, constraints: Any, useful: int, infeasible: bool, objective_infeasible: bool) -> dict[str, int]:
        """Do the same if no LP was solved."""
        return self.consenfolp(constraints, useful, infeasible)

    def conssepalp(self, constraints: Any, useful: int) -> dict[str, int]:
        """Cut off a fractional solution of the LP."""
        return {"result": SCIP_RESULT.CONSADDED if self.state.add_violated() else SCIP_RESULT.DIDNOTFIND}
