"""The minimum of functions of a network's outputs over a box: a certified lower bound, and an input that attains a value.

The functions are linear, or log-sums of the logits of a softmax (`mipnet.verification.clause_network`).

Bounds come from CROWN, from optimised slopes, from input splitting, which prunes boxes by the best value, and from a solver.  Values come
from gradient search, from the centres of boxes, and from the solver's points.  Every bound is rounded outwards; that of a solver by its
tolerances (`mipnet.solving.element_bounds.tolerance_margin`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.backend import Feature
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown_rows import CANCELLED_SHARE, magnitude
from mipnet.bounds.propagation import propagate
from mipnet.bounds.user_bounds import BoundsByNode
from mipnet.errors import TimeLimitReached
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import add_warning, kept_if_solver_fails, left_out_if_too_large
from mipnet.model.encode import encode
from mipnet.network.graph import Network, size
from mipnet.network.sets import Box
from mipnet.solving.element_bounds import proof_limits, tolerance_margin
from mipnet.solving.mip_settings import MipSettings
from mipnet.solving.open_problem import OpenProblem, open_problem
from mipnet.verification.clause_network import Excess
from mipnet.verification.clause_objectives import clause_objectives
from mipnet.verification.counterexamples import CounterexampleSearch
from mipnet.verification.input_splitting import SPLITTING_INPUTS_MAX, lower_bound_by_splitting
from mipnet.verification.output_functions import FoundMinimum, OutputFunctions

SOLVER_FIRST_UNITS_MAX = 64
"""With at most this many unstable units, the solver runs before the input is split."""

MINIMUM_TIME_SHARES = {"crown": 0.5, "search": 0.1, "splitting": 0.7, "alpha": 0.5}
"""Share of the remaining time that a stage may use."""

MINIMUM_ROUNDS_FIRST, MINIMUM_ROUNDS_SECOND = 1, 4
"""Rounds of gradient search before optimised slopes, and before the solver."""

CONTRADICTION_SHARE = 1e-9
"""A value contradicts the bound of a solver if it is below it by more than this share of the size of the function."""

TOLERANCE_SHARE_OF_GAP_MAX = 0.5
"""Largest share of the gap at which a minimum is found that the tolerances of a solver may take."""

FUNCTIONS_PER_SEARCH = 64
"""Number of functions that are searched at once."""


@dataclass(frozen=True, eq=False)
class MinimumSettings:
    """The solver, and when the search ends: at the ``deadline``, or with a gap of ``tolerance * size``.

    The size of a function is its largest absolute value found so far, and at least ``size_min``.  If there is a ``target``, the search also
    ends once it is known whether a value below the target exists.
    """

    mip: MipSettings
    deadline: Deadline
    tolerance: float
    target: float | None = None
    seed: int = 0
    size_min: float = 0.0


class OpenGroup(NamedTuple):
    """A group with functions that are not finished, in the order of their bounds, and the deadline of its share of the time."""

    group: int
    rows: NDArray[np.int64]
    end: Deadline


@dataclass(eq=False)
class MinimumSearch:
    """The search for the minima of functions over one box, stage by stage.

    ``lower`` and ``method`` hold the bound of every function and its stage, ``value`` and ``point`` the best value of every group and where
    it is attained, ``size`` its largest absolute value found.  ``given`` are bounds of the network's nodes that hold.
    """

    network: Network
    functions: OutputFunctions
    region: Box
    settings: MinimumSettings
    given: BoundsByNode = field(default_factory=dict)
    parts: int = 0
    nodes: int = 0
    interrupted: bool = False
    _unsolved: dict[int, tuple[float, str]] = field(init=False, default_factory=dict)
    lower: Array = field(init=False)
    method: list[str] = field(init=False)
    value: Array = field(init=False)
    size: Array = field(init=False)
    point: Array = field(init=False)

    def __post_init__(self) -> None:
        count, groups = len(self.functions.matrix), self.functions.groups
        self.lower, self.method = np.full(count, -np.inf), ["interval"] * count
        self.value, self.point = np.full(groups, np.inf), np.repeat(self.region.centre, groups, axis=0)
        self.size = np.full(groups, self.settings.size_min)
        self.excess = Excess.of(self.network, self.functions.clauses(range(count)))
        self.learn(self.region.centre)
        if not self.settings.deadline.passed:
            self.learn(np.concatenate([self.region.lower, self.region.upper]))

    def run(self) -> list[FoundMinimum]:
        """Run one stage after another until all minima are found or time is over, and return one minimum per group."""
        try:
            for _ in self._stages():
                if not self.open.any() or self.settings.deadline.passed:
                    break
        except TimeLimitReached:  # what was proven before holds
            pass
        except KeyboardInterrupt:
            self.interrupted = True
        return [self._found(group) for group in range(self.functions.groups)]

    def _found(self, group: int) -> FoundMinimum:
        own = np.flatnonzero(self.functions.group == group)
        row, value = own[self.lower[own].argmin()], float(self.value[group])
        return FoundMinimum(min(float(self.lower[row]), value), value, self.point[group], self.method[row], float(self.size[group]))

    def _stages(self) -> Iterator[None]:
        end = self.settings.deadline
        self._learn_bounds("interval", propagate(self.excess.network, self.region, method="interval", given=self.given, time_limit=end))
        self._propagate("crown")
        yield
        self._search(MINIMUM_ROUNDS_FIRST)
        yield
        few_inputs = size(self.network.input_shape) <= SPLITTING_INPUTS_MAX and self.network.continuous
        solver_first = sum(self.bounds.unstable().values()) <= SOLVER_FIRST_UNITS_MAX
        if few_inputs and not solver_first:
            with left_out_if_too_large("halving the input set"):
                self._split()
            yield
        self._propagate("alpha")
        yield
        self._search(MINIMUM_ROUNDS_SECOND)
        yield
        with left_out_if_too_large("the solver"), kept_if_solver_fails("the last stage"):
            self._solve()
        yield
        if few_inputs and solver_first:
            with left_out_if_too_large("halving the input set"):
                self._split()
        yield

    @property
    def gap(self) -> Array:
        """The gap at which each group is finished."""
        return self.functions.gap(self.value, self.size, self.settings.tolerance)

    @property
    def level(self) -> Array:
        """A function is finished once its bound is above the level of its group."""
        if self.settings.target is None:
            return np.asarray(self.value - self.gap)
        return np.where(self.value < self.settings.target, -np.inf, self.settings.target)

    @property
    def open(self) -> NDArray[np.bool_]:
        """The functions that are not finished, as a mask."""
        return self.lower < self.level[self.functions.group]

    def learn(self, x: Array) -> None:
        """Store the best of some inputs ``(n, *input_shape)``, per group, if it is better than the best so far."""
        if not len(x):
            return
        inside = self.region.inside(x)
        if not len(inside):
            return
        values = self.functions.values(self.network, inside)
        self._withdraw(values.min(axis=0))
        for group in range(self.functions.groups):
            every = values[:, self.functions.group == group]
            self.size[group] = max(self.size[group], float(np.abs(every).max()))
            own = every.min(axis=1)
            best = int(own.argmin())
            if own[best] < self.value[group]:
                self.value[group], self.point[group] = own[best], inside[best]

    def _withdraw(self, values: Array) -> None:
        """Take the bounds of a solver back where a function has a smaller value: the proof was wrong."""
        for row in np.flatnonzero(self.lower - values > CONTRADICTION_SHARE * self.size[self.functions.group]).tolist():
            if self.method[row] == "mip":
                self.lower[row], self.method[row] = self._unsolved[row]

    def improve(self, method: str, rows: NDArray[np.int64], bound: Array) -> None:
        """Store bounds of functions where they are better."""
        for row, each in zip(rows, bound, strict=True):
            if each > self.lower[row]:
                if method == "mip" != self.method[row]:
                    self._unsolved[row] = float(self.lower[row]), self.method[row]
                self.lower[row], self.method[row] = each, method

    def _until(self, stage: str) -> Deadline:
        return self.settings.deadline.share(MINIMUM_TIME_SHARES[stage])

    def _propagate(self, method: Literal["crown", "alpha"]) -> None:
        end = self._until(method)
        with left_out_if_too_large(f"bounds by {method}"):
            self._learn_bounds(method, propagate(self.excess.network, self.region, method=method, start=self.bounds, time_limit=end))

    def _learn_bounds(self, method: str, bounds: Bounds) -> None:
        self.bounds = bounds
        if method == "crown":
            self._learn_least_sizes()
        lower = self.excess.largest(self.bounds.after[self.excess.network.output.name].lower)[0].numpy()
        self.improve(method, np.arange(len(lower)), lower)

    def _learn_least_sizes(self) -> None:
        """Raise sizes to a share of the terms that a function is computed from: where these cancel, its values are rounding errors."""
        terms = magnitude(self.network.output, self.bounds.after)[0].reshape(-1).numpy()
        least = CANCELLED_SHARE * (np.abs(self.functions.matrix) @ terms + np.abs(self.functions.offset))
        np.maximum.at(self.size, self.functions.group, least)

    def _search(self, rounds: int) -> None:
        end = self._until("search")
        search = CounterexampleSearch.of(self.excess, self.region, self.settings.seed + rounds)
        for _ in range(rounds):
            rows = np.flatnonzero(self.open)
            for first in range(0, len(rows), FUNCTIONS_PER_SEARCH):
                if not end.passed:
                    self.learn(search.descend(torch.tensor(rows[first : first + FUNCTIONS_PER_SEARCH]), end)[0].numpy())

    def _open_groups(self, deadline: Deadline) -> Iterator[OpenGroup]:
        """Yield each group with open functions; the remaining time is divided equally among them."""
        groups = np.unique(self.functions.group[self.open])
        for left, group in zip(range(len(groups), 0, -1), groups.tolist(), strict=True):
            rows = np.flatnonzero(self.open & (self.functions.group == group))
            if len(rows) and not deadline.passed:
                yield OpenGroup(group, rows[self.lower[rows].argsort()], deadline.share(1 / left))

    def _split(self) -> None:
        for group, rows, end in self._open_groups(self._until("splitting")):
            excess = Excess.of(self.network, self.functions.clauses(rows.tolist()))
            level = lambda group=group: float(self.level[group])  # noqa: E731
            bound, boxes = lower_bound_by_splitting(excess, self.region, level, self.learn, end)
            self.parts += boxes
            self.improve("splitting", rows, np.full(len(rows), bound))

    def _solve(self) -> None:
        deadline, formulation = self.settings.deadline, self.settings.mip.formulation
        encoding = encode(self.excess.network, self.region, bounds=self.bounds, formulation=formulation, time_limit=deadline)
        objectives = clause_objectives(encoding, self.excess, self.bounds, deadline)
        encoding.model.add_objective(1 * objectives[0])
        with open_problem(encoding, self.settings.mip.solver, options=self.settings.mip.options) as problem:
            for group, own, end in self._open_groups(deadline):
                for left, row in zip(range(len(own), 0, -1), own.tolist(), strict=True):
                    if end.passed:
                        break
                    if self.interrupted:
                        return
                    if self.open[row]:
                        problem.set_objective(1 * objectives[row], sense="min")
                        tolerance = self._tolerance(problem, row)
                        start = encoding.point(self.point[group][None])
                        with kept_if_solver_fails("the last stage"):
                            x = self._solved(problem, row, end.share(1 / left), start, tolerance)
                            self.learn(np.empty((0, *self.network.input_shape)) if x is None else encoding.value("input", x))

    def _tolerance(self, problem: OpenProblem, row: int) -> float:
        """Return how far a bound of the solver may be wrong; where that would hide the gap that is left, it gets smaller tolerances."""
        program, group = problem.problem.program, self.functions.group[row]
        wanted = TOLERANCE_SHARE_OF_GAP_MAX * float(self.value[group] - self.level[group])
        found = tolerance_margin(program, program.cost, program.offset, problem.tolerances)
        if found > wanted and not program.fine and problem.use_fine_tolerances():
            found = tolerance_margin(problem.problem.program, program.cost, program.offset, problem.tolerances)
        if found > 2 * wanted:
            add_warning(f"the solver's tolerances alone may change a bound by {found:.3g}, more than the gap that was asked for")
        return found

    def _solved(self, problem: OpenProblem, row: int, end: Deadline, start: Array, tolerance: float) -> Array | None:
        """Solve once for one function, store the bound, and return the point."""
        program, level = problem.problem.program, float(self.level[self.functions.group[row]])
        stop = level + tolerance if Feature.BOUND_STOP in self.settings.mip.solver.features else None
        limits = proof_limits(program, end, bound_stop=stop)
        found = problem.solve(limits=limits, time_limit=self.settings.deadline, start=start)
        self.nodes += found.nodes
        self.interrupted = found.interrupted
        self.improve("mip", np.array([row]), np.array([found.bound - tolerance]))
        return found.point
