"""What SCIP calls in the middle of a solve: a heuristic that asks for points, and a constraint handler for lazy rows.

PySCIPOpt prints an exception of a plug-in and goes on, so none may leave one: every question goes through `Progress.ask`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscipopt import SCIP_RESULT, Conshdlr, Heur
from pyscipopt.scip import PY_SCIP_HEURTIMING

from mipnet.backend import Lazy, Limits, Program, Rows, Source
from mipnet.backend.helpers import check_rows, checked
from mipnet.backend.progress import Progress
from mipnet_scip import native
from mipnet_scip.handover import Handles, add_rows

Array = NDArray[np.float64]

MISSED = 2e-6
"""A lazy row counts as violated if it is missed by more, relative to its side: twice what SCIP lets an LP miss."""

WHEN = PY_SCIP_HEURTIMING.DURINGLPLOOP | PY_SCIP_HEURTIMING.AFTERLPNODE
"""The cut rounds of the root alone can take longer than there is time."""

HEURISTIC, HANDLER = "mipnet_points", "mipnet_rows"
GUARDS: dict[str, object] = {
    "misc/usesymmetry": 0,
    "misc/allowstrongdualreds": False,
    "misc/allowweakdualreds": False,
    "constraints/components/maxprerounds": 0,
    "constraints/components/propfreq": -1,
}
"""Reductions by what rows SCIP sees: symmetry, dominance, independent parts.  They are wrong where there are rows to come."""


class Hooks:
    """What the plug-ins of one model work on: who is asked in the solve under way, and the model's variables."""

    def __init__(self, model: Any, stop_if_asked: Callable[[], None]) -> None:
        self.model, self.stop_if_asked, self.handles = model, stop_if_asked, Handles([])
        self.progress = Progress(Limits(), None)
        self.program: Program | None = None
        self.source: Source | None = None
        self.lazy: Lazy | None = None
        self.kept: dict[str, object] = {}
        self.included: set[str] = set()

    def begin(self, program: Program, handles: Handles, progress: Progress, source: Source | None, lazy: Lazy | None) -> None:
        """Switch the plug-ins to this solve; those with nothing to do are off."""
        self.program, self.handles, self.progress = program, handles, progress
        self.source, self.lazy = None if source is None else checked(program, source), lazy
        if source is not None:
            self._include(HEURISTIC)
        if HEURISTIC in self.included:
            self.model.setParam(f"heuristics/{HEURISTIC}/freq", -1 if source is None else 1)
        if lazy is not None:
            self._include(HANDLER)
            self.kept = {name: self.model.getParam(name) for name in GUARDS}
            for name, value in GUARDS.items():
                self.model.setParam(name, value)

    def end(self) -> None:
        """Switch them off; called once SCIP is back at the problem itself."""
        self.source = self.lazy = None
        while self.kept:
            self.model.setParam(*self.kept.popitem())

    def _include(self, name: str) -> None:
        if name in self.included:
            return
        self.included.add(name)
        if name == HEURISTIC:
            self.model.includeHeur(Points(self), name, "asks for points", "m", timingmask=WHEN, freq=-1)
        else:  # after all that SCIP checks by itself
            self.model.includeConshdlr(
                LazyRows(self),
                name,
                "rows as they are missed",
                enfopriority=-10,
                chckpriority=-10,
                sepafreq=1,
                eagerfreq=-1,
                needscons=False,
            )

    def current(self, solution: Any | None) -> Array:
        """A solution of SCIP's by column; None is that of the node's relaxation."""
        lib, columns = native.library(), self.handles.columns
        if solution is None and lib is not None:
            return native.node_values(lib, self.model, columns)
        return np.array([self.model.getSolVal(solution, v) for v in columns])

    def try_point(self, x: Array) -> bool:
        """Hand a point to SCIP, which checks it; True if it is taken."""
        solution = self.model.createOrigSol()  # `createSol` breaks on variables that presolve has aggregated
        for variable, value in self.handles.values(x):
            self.model.setSolVal(solution, variable, value)
        return bool(self.model.trySol(solution, printreason=False))

    def missed(self, solution: Any | None) -> Rows | None:
        """The lazy rows that a solution violates, or None if there are none."""
        if self.lazy is None or self.program is None or self.progress.error is not None:
            return None
        x = self.current(solution)
        rows = self.progress.ask(self.lazy.separate, x)
        self.stop_if_asked()
        if rows is None or not len(rows):
            return None
        side = np.maximum(*(np.where(np.isfinite(end), np.abs(end), 0.0) for end in (rows.lower, rows.upper)))
        which = rows.violation(x) > MISSED * np.maximum(1.0, side)
        return check_rows(self.program, rows.part(which)) if which.any() else None

    def add_missed(self) -> bool:
        """Add the lazy rows that the solution of the node's relaxation violates; True if there are any."""
        rows, lazy = self.missed(None), self.lazy
        if rows is None or lazy is None:
            return False
        self.progress.ask(lambda missed: add_rows(self.model, self.handles, missed), rows)
        self.progress.ask(lazy.written, rows)
        return self.progress.error is None


class Points(Heur):  # type: ignore[misc]
    """Asks for a point after each LP, and tells its solution."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks

    def heurexec(self, heurtiming: int, nodeinfeasible: bool) -> dict[str, int]:
        """Ask once, and hand the answer in."""
        hooks = self.hooks
        if hooks.source is None or nodeinfeasible:
            return {"result": SCIP_RESULT.DIDNOTRUN}
        point = hooks.progress.ask(hooks.source, hooks.current(None))
        taken = point is not None and hooks.try_point(point)
        hooks.stop_if_asked()
        return {"result": SCIP_RESULT.FOUNDSOL if taken else SCIP_RESULT.DIDNOTFIND}


class LazyRows(Conshdlr):  # type: ignore[misc]
    """Adds the rows that a relaxation's solution violates, and refuses points that violate any."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks

    def conslock(self, constraint: Any, locktype: int, nlockspos: int, nlocksneg: int) -> None:
        """A lazy row may hold its columns from either side, so SCIP must fix none of them by its cost."""
        if self.hooks.lazy is not None:
            locks = nlockspos + nlocksneg
            for column in self.hooks.lazy.columns.tolist():
                self.model.addVarLocksType(self.hooks.handles.columns[column], locktype, locks, locks)

    def conscheck(self, constraints: Any, solution: Any, *how: bool) -> dict[str, int]:
        """A point is feasible if no lazy row cuts it off."""
        return {"result": SCIP_RESULT.FEASIBLE if self.hooks.missed(solution) is None else SCIP_RESULT.INFEASIBLE}

    def consenfolp(self, constraints: Any, useful: int, infeasible: bool) -> dict[str, int]:
        """An integral solution of the LP is cut off, or it is a point."""
        return {"result": SCIP_RESULT.CONSADDED if self.hooks.add_missed() else SCIP_RESULT.FEASIBLE}

    def consenfops(self, constraints: Any, useful: int, infeasible: bool, objective_infeasible: bool) -> dict[str, int]:
        """The same where no LP was solved."""
        return self.consenfolp(constraints, useful, infeasible)

    def conssepalp(self, constraints: Any, useful: int) -> dict[str, int]:
        """A fractional solution of the LP is cut off as well."""
        return {"result": SCIP_RESULT.CONSADDED if self.hooks.add_missed() else SCIP_RESULT.DIDNOTFIND}
