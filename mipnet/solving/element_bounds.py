"""The smallest and the largest value of elements of a network's output, computed one after another on an open solver session.

A solver's proof holds up to its tolerances.  So every bound is the solver's dual bound, never the value of a point, and is moved outwards
by `tolerance_margin`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array, Ints, widen
from mipnet.backend import Feature, Limits, Program, Session, SolverTolerances, Status
from mipnet.backend.checks import with_cost
from mipnet.backend.rewrites import rewrite
from mipnet.backend.scales import Scales
from mipnet.backend.scaling import scaled
from mipnet.bounds.boxes import Bounds
from mipnet.errors import InputError, MemoryLimitReached, SolverFailure, TimeLimitReached
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.model.encode import encode
from mipnet.model.to_program import from_model
from mipnet.solving.mip_settings import MipSettings
from mipnet.solving.program_sessions import OpenProgram

ELEMENT_GAP = 1e-4
"""The gap at which a bound of an element is tight enough, relative to it or to the size of its program's objective."""

PROOF_GAP = 1e-9
"""The gap of a solve whose bound is a proof, relative to the bound or to the size of the objective."""

OBJECTIVE_ROUNDING = 1e-12
"""Rounding error of an objective, relative to the absolute values of its terms."""

START_PASSES, PASSES_AT_ONCE = 256, 32
"""Number of forward passes among which the first point of each solve is chosen, and of those computed at once."""

SOLVE_TIME_SHARES = 4
"""A solve may take this many times its even share of the remaining time."""

SOLVE_SECONDS_MIN = 1.0
"""A solve may take this many seconds even if its share of the remaining time is smaller."""


@dataclass(frozen=True, eq=False)
class ElementJob:
    """The task to bound some elements of a network's output for one sample.

    ``bounds`` are those of all nodes; ``lower`` and ``upper`` are the known bounds of the elements.  If ``relaxed`` is True, only the LP
    relaxation is solved.  Where ``low_settles`` (``high_settles``) is True, a lower (upper) bound of 0 is as useful as any tighter one.
    """

    bounds: Bounds
    settings: MipSettings
    relaxed: bool
    elements: Ints
    lower: Array
    upper: Array
    low_settles: NDArray[np.bool_]
    high_settles: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ElementBounds:
    """The elements and their bounds at the end of a job.

    ``interrupted`` is True if Ctrl-C ended it, ``stopped`` if that or the end of the time left some bounds looser than they could be.
    ``left_out`` says why there was no program, or no more of it: it did not fit into memory, or the solver failed.  Else it is empty.
    """

    elements: Ints
    lower: Array
    upper: Array
    interrupted: bool = False
    stopped: bool = False
    left_out: str = ""


def solve_job(job: ElementJob, deadline: Deadline = NO_DEADLINE) -> ElementBounds:
    """Bound all elements by LP, and then by MIP unless the job is relaxed; if MIP follows, LP gets at most half of the time."""
    first = deadline if job.relaxed else deadline.share(0.5)
    try:
        search = _ElementProgram(job, deadline)
    except TimeLimitReached:
        return ElementBounds(job.elements, job.lower, job.upper, stopped=True)
    except MemoryLimitReached as error:
        return ElementBounds(job.elements, job.lower, job.upper, left_out=str(error))
    try:
        search.improve_all(True, first)
        if not job.relaxed:
            search.improve_all(False, deadline)
    except TimeLimitReached:
        search.stopped = True
    except KeyboardInterrupt:  # between two solves
        search.interrupted = True
    except MemoryLimitReached as error:
        return ElementBounds(job.elements, search.lower, search.upper, left_out=str(error))
    finally:
        search.opened.close()
    return ElementBounds(job.elements, search.lower, search.upper, search.interrupted, search.stopped, search.failed)


class _ElementProgram:
    """The program of a job on open sessions, the bounds proven so far, and forward passes as first points."""

    def __init__(self, job: ElementJob, deadline: Deadline) -> None:
        self.job, self.interrupted, self.stopped, self.failed = job, False, False, ""
        self.lower, self.upper = job.lower.copy(), job.upper.copy()
        bounds, settings = job.bounds, job.settings
        self.encoding = encode(
            bounds.network,
            bounds.region,
            bounds=bounds,
            gates=bounds.gates or None,
            formulation=settings.formulation,
            time_limit=deadline,
        )
        self.program = from_model(self.encoding.model)
        self.lowered = rewrite(self.program, settings.solver.features)
        self.opened = OpenProgram(self.lowered.program, settings.solver, settings.options, deadline=deadline)
        self.value = self.encoding.values[bounds.network.output.name][job.elements]
        self.margin = ToleranceMargin.of(self.lowered.program, settings.solver.tolerances(settings.options))
        self.x, self.passes = _forward_passes(job, deadline)

    @property
    def labels(self) -> Ints:
        """The label of each column."""
        if self.program.labels is None:
            raise InputError("the program has no labels; expected one that was made from an encoding")
        return self.program.labels

    def improve_all(self, relaxed: bool, deadline: Deadline) -> None:
        """Improve both bounds of every element; the first LP, whose basis the others start from, may use all the time."""
        ends = self.in_order()
        for left, (k, above) in zip(range(len(ends), 0, -1), ends, strict=True):
            seconds = deadline.seconds
            if not seconds or self.interrupted:
                self.stopped = True
                return
            if not self.settled(k) and not self.failed:
                share = max(SOLVE_SECONDS_MIN, SOLVE_TIME_SHARES * seconds / left)
                try:
                    self.improve(k, above, relaxed, seconds if relaxed and not self.opened.opened else min(seconds, share))
                except SolverFailure as error:
                    self.failed = f"the solver failed: {error}"

    def in_order(self) -> list[tuple[int, bool]]:
        """Return elements with True for an upper and False for a lower bound, in the order of their solves.

        Bounds that may settle a sign, according to the forward passes, come first; among these, bounds closer to 0 come first.
        """
        low, high = self.passes.min(axis=0) >= 0, self.passes.max(axis=0) <= 0
        asked = [(bool(low[k] and self.job.low_settles[k]), -self.lower[k], k, False) for k in range(len(low))]
        asked += [(bool(high[k] and self.job.high_settles[k]), self.upper[k], k, True) for k in range(len(high))]
        return [(k, above) for _, _, k, above in sorted(asked, key=lambda each: (not each[0], each[1]))]

    def settled(self, k: int) -> bool:
        """Return True if later layers do not use tighter bounds of the element."""
        return bool((self.lower[k] >= 0 and self.job.low_settles[k]) or (self.upper[k] <= 0 and self.job.high_settles[k]))

    def improve(self, k: int, above: bool, relaxed: bool, seconds: float) -> None:
        """Solve once for a tighter upper bound if ``above`` is True, else for a tighter lower bound."""
        settles = (self.job.high_settles if above else self.job.low_settles)[k]
        found = self.lower_bound(k, -1 if above else 1, relaxed, seconds, bool(settles))
        if above:
            self.upper[k] = max(min(self.upper[k], -found), self.lower[k])
        else:
            self.lower[k] = min(max(self.lower[k], found), self.upper[k])

    def lower_bound(self, k: int, sign: int, relaxed: bool, seconds: float, settles: bool) -> float:
        """Return a lower bound of ``sign * element``; if ``settles`` is True, the solve stops once the bound is 0."""
        program, constant = self.lowered.program, sign * float(self.value.constant[k])
        cost = np.zeros(program.columns)
        cost[: self.program.columns] = sign * widen(self.value.terms[[k]], self.encoding.model._xCounter).toarray()[0, self.labels]
        off = self.margin(cost, constant)
        self.opened.program = with_cost(program, cost, constant)
        session = self.opened.session(relaxed=relaxed)
        stop = off if settles and not relaxed and Feature.BOUND_STOP in self.job.settings.solver.features else None
        if not relaxed:
            self.set_start(session, int((sign * self.passes[:, k]).argmin()))
        gap_abs = ELEMENT_GAP * program.objective_size
        outcome = session.solve(Limits(time=max(seconds, 0.01), gap=ELEMENT_GAP, gap_abs=gap_abs, bound_stop=stop))
        if outcome.status is Status.INFEASIBLE:
            raise SolverFailure("the solver says that no input reaches this layer; the bounds that it was given cannot hold")
        self.interrupted = outcome.interrupted
        self.stopped |= outcome.status is Status.TIME_LIMIT
        return outcome.bound - off

    def set_start(self, session: Session, which: int) -> None:
        """Use a forward pass as the first point of the next solve."""
        point = self.encoding.point(self.x[which : which + 1])[self.labels]
        if not np.isnan(point).any():
            session.start(self.lowered.complete(point))


def _forward_passes(job: ElementJob, deadline: Deadline) -> tuple[Array, Array]:
    """Return inputs from inside the set and from its corners, and the values of the elements there, at least `PASSES_AT_ONCE` of them."""
    rng = np.random.default_rng(0)
    low, high = job.bounds.region.lower, job.bounds.region.upper
    x = job.bounds.region.nearest(low + rng.uniform(-0.5, 1.5, (START_PASSES, *low.shape[1:])).clip(0, 1) * (high - low))
    values: list[Array] = []
    for first in range(0, START_PASSES, PASSES_AT_ONCE):
        if not values or not deadline.passed:
            values.append(job.bounds.network.forward(x[first : first + PASSES_AT_ONCE]).reshape(PASSES_AT_ONCE, -1)[:, job.elements])
    found = np.concatenate(values)
    return x[: len(found)], found


@dataclass(frozen=True, eq=False)
class ToleranceMargin:
    """How far a solver's bound may be wrong because of its tolerances, for any objective of one program.

    The solver works in the units of the equilibrated program (`mipnet.backend.scaling`), and so do its tolerances.  If reduced costs have
    the wrong sign by at most d, the dual bound is wrong by at most d times the sum of the ranges of all columns and inequality rows.  The
    tolerance of rows, times the size of the objective, is added.
    """

    scales: Scales
    ranges: float
    largest: Array
    tolerances: SolverTolerances

    @staticmethod
    def of(program: Program, tolerances: SolverTolerances) -> ToleranceMargin:
        """Return the margin of a program for the tolerances of a solver."""
        scales = replace(Scales.of(program), objective=1.0)
        p = scaled(program, scales)
        bounded = np.isfinite(scales.lower) & np.isfinite(scales.upper)
        reach = np.where(bounded, scales.upper, 0.0) - np.where(bounded, scales.lower, 0.0)
        slack = float(np.minimum(abs(p.rows.matrix) @ reach, p.rows.upper - p.rows.lower).sum())
        largest = np.maximum(np.abs(p.lower), np.abs(p.upper))
        return ToleranceMargin(scales, float(reach.sum()) + slack, np.where(np.isfinite(largest), largest, 0.0), tolerances)

    def __call__(self, cost: Array, constant: float) -> float:
        """Return the margin for the bound on ``cost @ x + constant``, in the units of the objective."""
        scales = self.scales.for_objective(cost)
        q = scales.objective
        size = 1.0 + float((np.abs(q * cost * scales.columns) * self.largest).sum())
        rounding = OBJECTIVE_ROUNDING * (abs(constant) + float(np.abs(cost) @ np.abs(scales.shifts)))
        return (self.tolerances.reduced_costs * self.ranges + self.tolerances.rows * size) / q + rounding


def tolerance_margin(program: Program, cost: Array, constant: float, tolerances: SolverTolerances) -> float:
    """Return how far a solver's bound on ``cost @ x + constant`` may be wrong because of its tolerances: `ToleranceMargin`."""
    return ToleranceMargin.of(program, tolerances)(cost, constant)


def proof_limits(program: Program, deadline: Deadline, *, bound_stop: float | None = None, objective_stop: float | None = None) -> Limits:
    """Return the limits of a solve for a proof: until the deadline, to a gap of `PROOF_GAP` in the units of the objective."""
    return Limits(
        time=deadline.seconds,
        gap=PROOF_GAP,
        gap_abs=PROOF_GAP * program.objective_size,
        bound_stop=bound_stop,
        objective_stop=objective_stop,
    )
