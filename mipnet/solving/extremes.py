"""The least and the largest value of some elements of a network's output, one after another on an open session of a solver.

What a solver proves it proves up to its tolerances, so every bound is taken from the solver's dual bound, never from a point, and moved
outwards by `margin`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array, Ints, widen
from mipnet.backend import Feature, Limits, Program, Session, Status
from mipnet.backend.helpers import with_cost
from mipnet.backend.rewrites import lower
from mipnet.bounds.boxes import Bounds
from mipnet.errors import SolverFailure
from mipnet.model.encoding import encode
from mipnet.model.to_program import from_model
from mipnet.solving.mip_settings import MipSettings
from mipnet.solving.open_program import OpenProgram

FEASIBILITY, OPTIMALITY = 1e-6, 1e-7
"""Tolerances of solvers: by how much a row may be missed, and a reduced cost have the wrong sign (HiGHS, SCIP: at most these)."""

TRIALS = 256
"""So many forward passes are looked through for the first point of each solve."""

SHARE, LEAST = 4, 1.0
"""A solve may take so many times its even share of the time that is left, and so many seconds if that is less than these."""


@dataclass(frozen=True, eq=False)
class Job:
    """Some elements of a network's output, the ``bounds`` of all of its nodes on one sample, and the best known of the elements' own.

    ``relaxed``: only the LP relaxation is solved.
    ``low_settles`` and ``high_settles`` say whether a lower (an upper) end of 0 is as good as any better one.
    """

    bounds: Bounds
    settings: MipSettings
    relaxed: bool
    elements: Ints
    lower: Array
    upper: Array
    low_settles: NDArray[np.bool_]
    high_settles: NDArray[np.bool_]
    seconds: float = math.inf


@dataclass(frozen=True, eq=False)
class Ends:
    """The elements and their bounds after all that time allowed; ``interrupted`` is True if Ctrl-C ended it."""

    elements: Ints
    lower: Array
    upper: Array
    interrupted: bool


def solve_job(job: Job) -> Ends:
    """Lower and upper ends of all elements by LP, then by MIP unless the job is relaxed: LP has half of the time at most then."""
    began, search = time.monotonic(), _Search(job)
    try:
        search.go_through(True, began + job.seconds / (1 if job.relaxed else 2))
        if not job.relaxed:
            search.go_through(False, began + job.seconds)
    finally:
        search.held.close()
    return Ends(job.elements, search.lower, search.upper, search.interrupted)


class _Search:
    """The program of a job on its sessions, what is proven so far, and a first point for every question."""

    def __init__(self, job: Job) -> None:
        self.job, self.interrupted = job, False
        self.lower, self.upper = job.lower.copy(), job.upper.copy()
        bounds, settings = job.bounds, job.settings
        self.encoding = encode(bounds.network, bounds.region, bounds=bounds, gates=bounds.gates or None, formulation=settings.formulation)
        self.program = from_model(self.encoding.model)
        self.lowered = lower(self.program, settings.solver.features)
        self.held = OpenProgram(self.lowered.program, settings.solver, settings.options)
        self.value = self.encoding.values[bounds.network.output.name][job.elements]
        self.x, self.tried = _trials(job)

    @property
    def labels(self) -> Ints:
        """The label of each column."""
        assert self.program.labels is not None
        return self.program.labels

    def go_through(self, relaxed: bool, end: float) -> None:
        """Both ends of every element; the first LP, from whose basis the others start, has all the time."""
        ends = self.in_order()
        for left, (k, above) in zip(range(len(ends), 0, -1), ends, strict=True):
            seconds = end - time.monotonic()
            if seconds <= 0 or self.interrupted:
                return
            if not self.done(k):
                share = max(LEAST, SHARE * seconds / left)
                self.improve(k, above, relaxed, seconds if relaxed and not self.held.opened else min(seconds, share))

    def in_order(self) -> list[tuple[int, bool]]:
        """Elements and ends: first those that may settle a sign, as far as forward passes tell, and of these the ones nearest to 0."""
        low, high = self.tried.min(axis=0) >= 0, self.tried.max(axis=0) <= 0
        asked = [(bool(low[k] and self.job.low_settles[k]), -self.lower[k], k, False) for k in range(len(low))]
        asked += [(bool(high[k] and self.job.high_settles[k]), self.upper[k], k, True) for k in range(len(high))]
        return [(k, above) for _, _, k, above in sorted(asked, key=lambda each: (not each[0], each[1]))]

    def done(self, k: int) -> bool:
        """True if no later layer has a use for a tighter bound of the element."""
        return bool((self.lower[k] >= 0 and self.job.low_settles[k]) or (self.upper[k] <= 0 and self.job.high_settles[k]))

    def improve(self, k: int, above: bool, relaxed: bool, seconds: float) -> None:
        """One solve: a tighter upper end if ``above`` is True, else a tighter lower end."""
        settles = (self.job.high_settles if above else self.job.low_settles)[k]
        least = self.least(k, -1 if above else 1, relaxed, seconds, bool(settles))
        if above:
            self.upper[k] = max(min(self.upper[k], -least), self.lower[k])
        else:
            self.lower[k] = min(max(self.lower[k], least), self.upper[k])

    def least(self, k: int, sign: int, relaxed: bool, seconds: float, settles: bool) -> float:
        """A lower bound of ``sign * element``; if 0 ``settles`` it no more is proven."""
        program, constant = self.lowered.program, sign * float(self.value.constant[k])
        cost = np.zeros(program.columns)
        cost[: self.program.columns] = sign * widen(self.value.terms[[k]], self.encoding.model._xCounter).toarray()[0, self.labels]
        off = margin(program, cost, constant)
        self.held.program = with_cost(program, cost, constant)
        session = self.held.session(relaxed=relaxed)
        stop = off if settles and not relaxed and Feature.BOUND_STOP in self.job.settings.solver.features else None
        if not relaxed:
            self.give_start(session, int((sign * self.tried[:, k]).argmin()))
        outcome = session.solve(Limits(time=max(seconds, 0.01), bound_stop=stop))
        if outcome.status is Status.INFEASIBLE:
            raise SolverFailure("the solver says that no input reaches this layer; the bounds that it was given cannot hold")
        self.interrupted = outcome.interrupted or outcome.status is Status.INTERRUPTED
        return outcome.bound - off

    def give_start(self, session: Session, which: int) -> None:
        """One of the forward passes as the first point of the next solve."""
        point = self.encoding.point(self.x[which : which + 1])[self.labels]
        if not np.isnan(point).any():
            session.start(self.lowered.complete(point))


def _trials(job: Job) -> tuple[Array, Array]:
    """Inputs from inside the set and its corners, and the elements there."""
    rng = np.random.default_rng(0)
    low, high = job.bounds.region.lower, job.bounds.region.upper
    x = job.bounds.region.nearest(low + rng.uniform(-0.5, 1.5, (TRIALS, *low.shape[1:])).clip(0, 1) * (high - low))
    return x, job.bounds.network.forward(x).reshape(TRIALS, -1)[:, job.elements]


def margin(program: Program, cost: Array, constant: float) -> float:
    """By how much a solver's bound on ``cost @ x + constant`` may be off.

    A dual solution whose reduced costs have the wrong sign by at most d is wrong by at most d times the ranges of columns and of
    inequality rows, added up; to this comes the tolerance for rows, relative to the size of the objective.
    """
    reach = np.where(np.isfinite(program.lower) & np.isfinite(program.upper), program.upper - program.lower, 0.0)
    inequality = program.rows.lower != program.rows.upper
    slack = float((abs(program.rows.matrix) @ reach)[inequality].sum())
    largest = np.maximum(np.abs(program.lower), np.abs(program.upper))
    size = 1.0 + abs(constant) + float((np.abs(cost) * np.where(np.isfinite(largest), largest, 0.0)).sum())
    return OPTIMALITY * (float(reach.sum()) + slack) + FEASIBILITY * size
