"""The last stage of a verification: a solver bounds the excess of one clause after another on one open session."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import linopy
import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Feature, Status
from mipnet.bounds.boxes import Bounds
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.model.encode import encode
from mipnet.solving.element_bounds import proof_limits, tolerance_margin
from mipnet.solving.mip_settings import MipSettings
from mipnet.solving.open_problem import OpenProblem, open_problem
from mipnet.verification.clause_network import Excess
from mipnet.verification.clause_objectives import clause_objectives
from mipnet.verification.self_check import check_points, check_program

TARGET_STEP_RELATIVE = 1e-4
"""If a solver's point is not confirmed, the next one has to satisfy the clause by this much more, relative to the size of its objective."""

TANGENT_VALUE_RANGE = 6.0
"""The range of the row ``t - 2 p u`` of a tangent, for t and u^2 of at most 1."""

PROGRAM_CHECK_PASSES = 96
"""Number of forward passes that have to be feasible in a program before it is used in a proof."""


@dataclass(frozen=True)
class ClauseResult:
    """The result of a solve: the excess of the clause is at least ``bound`` everywhere, with the solver's tolerances subtracted."""

    bound: float
    counterexample: Array | None
    nodes: int
    interrupted: bool


@dataclass(eq=False)
class ClauseProgram:
    """The program of some clauses over an input set, on an open session; raises `TimeLimitReached` if it is not written by the deadline.

    ``confirm`` is called with inputs; it returns the first of them that is a counterexample, or None.
    """

    excess: Excess
    bounds: Bounds
    settings: MipSettings
    confirm: Callable[[Array], Array | None]
    deadline: Deadline = NO_DEADLINE
    nodes: int = 0
    cuts: int = 0
    objectives: list[linopy.Variable] = field(default_factory=list)
    problem: OpenProblem = field(init=False)

    def __enter__(self) -> ClauseProgram:
        formulation, end = self.settings.formulation, self.deadline
        self.encoding = encode(self.excess.network, self.bounds.region, bounds=self.bounds, formulation=formulation, time_limit=end)
        self.objectives = clause_objectives(self.encoding, self.excess, self.bounds, end)
        self.encoding.model.add_objective(1 * self.objectives[0])
        self.problem = open_problem(self.encoding, self.settings.solver, options=self.settings.options)
        try:
            x = check_points(self.excess, self.bounds, deadline=end)
            chosen = np.linspace(0, len(x) - 1, min(PROGRAM_CHECK_PASSES, len(x))).astype(int)
            check_program(self.encoding, self.problem.problem.program, x[chosen], end)
        except BaseException:
            self.problem.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.problem.close()

    @property
    def tolerance(self) -> float:
        """How far the solver's bound may be wrong; a cut is a tangent of a square, whose value ranges over `TANGENT_VALUE_RANGE`."""
        program = self.problem.problem.program
        of_cuts = self.problem.tolerances.reduced_costs * TANGENT_VALUE_RANGE * self.cuts
        return tolerance_margin(program, program.cost, program.offset, self.problem.tolerances) + of_cuts

    def minimise(self, clause: int, enough: float) -> ClauseResult:
        """Minimise the excess of one clause, until the lower bound is above ``enough``; `confirm` is called with the solver's point."""
        self.problem.set_objective(1 * self.objectives[clause], sense="min")
        stop = enough + 2 * self.tolerance if Feature.BOUND_STOP in self.settings.solver.features else None
        limits = proof_limits(self.problem.problem.program, self.deadline, bound_stop=stop)
        result = self.problem.solve(limits=limits, time_limit=self.deadline)
        self.nodes, self.cuts = self.nodes + result.nodes, self.cuts + result.cuts
        found = None if result.point is None else self.confirm(self.encoding.value("input", result.point))
        return ClauseResult(result.bound - self.tolerance, found, result.nodes, result.interrupted)

    def decide(self, clause: int, deadline: Deadline) -> ClauseResult:
        """Solve until the excess of one clause is bounded above 0, or a counterexample is confirmed, or time is over."""
        bound, target, nodes = -math.inf, 0.0, 0
        self.problem.set_objective(1 * self.objectives[clause], sense="min")
        features = self.settings.solver.features
        stop = (4 if self.encoding.squares else 2) * self.tolerance if Feature.BOUND_STOP in features else None
        target_known = Feature.OBJECTIVE_STOP in features
        while not deadline.passed:
            program = self.problem.problem.program
            limits = proof_limits(program, deadline, bound_stop=stop, objective_stop=target if target_known else None)
            result = self.problem.solve(limits=limits, time_limit=self.deadline)
            nodes += result.nodes
            self.nodes, self.cuts = self.nodes + result.nodes, self.cuts + result.cuts
            bound = max(bound, result.bound - self.tolerance)
            found = None
            if result.objective is not None and result.objective <= target and result.point is not None:
                found = self.confirm(self.encoding.value("input", result.point))
            interrupted = result.interrupted
            if found is not None or interrupted or bound > 0 or result.objective is None or result.objective > target:
                return ClauseResult(bound, found, nodes, interrupted)
            if result.status is Status.OPTIMAL:
                break
            target -= TARGET_STEP_RELATIVE * (program.objective_size + abs(result.objective))
        return ClauseResult(bound, None, nodes, False)
