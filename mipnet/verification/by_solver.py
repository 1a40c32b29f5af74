"""What is left to a solver: the least that the largest excess of a clause can be, one clause after another on one open session."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import linopy
import numpy as np
import xarray as xr

from mipnet.arrays import Array
from mipnet.backend import Feature, Limits, Status
from mipnet.bounds.boxes import Bounds
from mipnet.model.encoding import encode
from mipnet.solving.engine import OpenProblem, open_problem
from mipnet.solving.extremes import OPTIMALITY, margin
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.self_check import hold_program, telling_points

DEEPER = 1e-4
"""If the points found are not confirmed, the next have to satisfy the clause by this much more."""

TANGENT = 6.0
"""The range of ``t - 2 p u`` for t and u^2 of at most 1."""

HELD = 96
"""So many forward passes are held against the program before anything is proven by it."""


@dataclass(frozen=True)
class Answer:
    """What was proven of a clause: ``bound`` is below its excess everywhere, tolerances of the solver taken off."""

    bound: float
    counterexample: Array | None
    nodes: int
    interrupted: bool


@dataclass(eq=False)
class Exact:
    """The program of some clauses over the set of some bounds, on an open session.

    ``confirm`` is called with inputs, and returns the one that is a counterexample, or None.
    """

    excess: Excess
    bounds: Bounds
    settings: MipSettings
    confirm: Callable[[Array], Array | None]
    nodes: int = 0
    cuts: int = 0
    objectives: list[linopy.Variable] = field(default_factory=list)
    problem: OpenProblem = field(init=False)

    def __enter__(self) -> Exact:
        self.encoding = encode(self.excess.network, self.bounds.region, bounds=self.bounds, formulation=self.settings.formulation)
        rows = self.encoding.output.isel(sample=0, drop=True)
        for clause in range(self.excess.clauses):
            own = rows.isel({rows.dims[0]: np.flatnonzero(self.excess.owner == clause)})
            self.objectives.append(own if own.size == 1 else self._largest(own, clause))
        self.encoding.model.add_objective(1 * self.objectives[0])
        self.problem = open_problem(self.encoding, self.settings.solver, options=self.settings.options)
        try:
            x = telling_points(self.excess, self.bounds)
            hold_program(self.encoding, self.problem.problem.program, x[np.linspace(0, len(x) - 1, min(HELD, len(x))).astype(int)])
        except BaseException:
            self.problem.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.problem.close()

    def _largest(self, rows: linopy.Variable, clause: int) -> linopy.Variable:
        """A variable that is at least each of some rows; a forward pass makes it their largest."""
        model, labels, box = self.encoding.model, rows.labels.values, self.bounds.after[self.excess.network.output.name]
        ends = (float(end[0][self.excess.owner == clause].max()) for end in (box.lower, box.upper))
        low, high = (xr.DataArray(end) for end in ends)
        largest = model.add_variables(lower=low, upper=high, name=f"largest_{clause}")
        model.add_constraints(largest - 1 * rows >= 0, name=f"largest_{clause}_is")
        self.encoding.fills.append((np.asarray(largest.labels.values).reshape(1), lambda point: point[labels].max(keepdims=True)))
        return largest

    @property
    def off(self) -> float:
        """By how much the solver's bound may be off; each cut is a tangent of a square, whose value ranges over less than `TANGENT`."""
        program = self.problem.problem.program
        return margin(program, program.cost, program.offset) + OPTIMALITY * TANGENT * self.cuts

    def least(self, clause: int, seconds: float, enough: float) -> Answer:
        """A lower bound of the excess of one clause, as good as it gets or above ``enough``; `confirm` sees the best point."""
        self.problem.set_objective(1 * self.objectives[clause], sense="min")
        stop = enough + 2 * self.off if Feature.BOUND_STOP in self.settings.solver.features else None
        result = self.problem.solve(limits=Limits(time=max(0.01, seconds), gap=1e-9, bound_stop=stop))
        self.nodes, self.cuts = self.nodes + result.nodes, self.cuts + result.cuts
        found = None if result.point is None else self.confirm(self.encoding.value("input", result.point))
        return Answer(result.bound - self.off, found, result.nodes, result.status is Status.INTERRUPTED)

    def decide(self, clause: int, seconds: float) -> Answer:
        """A bound on the largest excess of one clause, and a counterexample if one was found: within so many seconds."""
        end, bound, target = time.monotonic() + seconds, -math.inf, 0.0
        self.problem.set_objective(1 * self.objectives[clause], sense="min")
        off = self.off
        features = self.settings.solver.features
        stop = (4 if self.encoding.squares else 2) * off if Feature.BOUND_STOP in features else None
        target_known = Feature.OBJECTIVE_STOP in features
        while True:
            limits = Limits(
                time=max(0.01, end - time.monotonic()), gap=1e-9, bound_stop=stop, objective_stop=target if target_known else None
            )
            result = self.problem.solve(limits=limits)
            self.nodes += result.nodes
            self.cuts += result.cuts
            bound = max(bound, result.bound - self.off)
            found = None
            if result.objective is not None and result.objective <= target and result.point is not None:
                found = self.confirm(self.encoding.value("input", result.point))
            interrupted = result.status is Status.INTERRUPTED
            if found is not None or interrupted or bound > 0 or result.objective is None or result.objective > target:
                return Answer(bound, found, result.nodes, interrupted)
            if time.monotonic() >= end or result.status is Status.OPTIMAL:
                return Answer(bound, None, result.nodes, False)
            target -= DEEPER * (1.0 + abs(result.objective))
