"""Solve: lower for the backend, start from a forward pass, cut in rounds, and replay what comes back.

What the solver says is never taken at its word.  The point is replayed: the input and the scores are read off it, the network
runs forward on them in float64, every variable of the encoding is recomputed, and the objective reported is the one at the
recomputed point.  `Result.max_error` is the largest difference between the solver's point and the network's own values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Literal

import linopy
import numpy as np
import xarray as xr

from mipnet.backend import Backend, Event, Limits, OnEvent, Options, Outcome, Status, get_backend, relative_gap
from mipnet.build import Encoding, networks_in
from mipnet.errors import InputError, SolverFailure
from mipnet.ir import INPUT, Array
from mipnet.lower import Lowered, lower
from mipnet.program import Program, column_lookup, from_model
from mipnet.replay import labelled, replay
from mipnet.rounds import Run, Separator, Tangents

TOLERANCE = 1e-5
"""`Result.verified` needs the replay to agree within this, relative to 1 + the size of the value."""

ROUNDING = 1e-9
"""A point that is not the solver's own counts as feasible if it misses no constraint by more, relative to the constraint's size."""

Start = Literal["forward", "none"] | Array


@dataclass(frozen=True, eq=False)
class Result:
    """What came of a solve.

    ``status`` says why it stopped, apart from whether there is a point: ``x`` is the labelled point, or None.  ``objective`` is the
    true one at the replayed point, ``bound`` the proven bound, both in the model's own sense; ``gap`` is their relative gap.
    ``verified`` is True if the replay of every network in the model agrees within `TOLERANCE` and the replayed point meets every
    constraint as closely.  In a model without a network only the constraints are checked, and ``max_error`` is None.
    """

    status: Status
    x: xr.Dataset | None
    point: Array | None
    objective: float | None
    bound: float
    gap: float
    runtime: float
    nodes: int
    iterations: int
    rounds: int
    cuts: int
    backend: str
    version: str
    size: Mapping[str, int]
    max_error: float | None
    verified: bool
    start_accepted: bool | None = None
    rewritten: tuple[str, ...] = ()
    trace: tuple[Event, ...] = field(default=(), repr=False)
    message: str = ""


def solve(
    problem: Encoding | linopy.Model | Problem,
    backend: str | Backend = "highs",
    *,
    time_limit: float = math.inf,
    mip_gap: float = 1e-4,
    limits: Limits | None = None,
    options: Options | None = None,
    start: Start = "forward",
    on_event: OnEvent | None = None,
) -> Result:
    """Solve an encoding (with whatever was added to its model), any linopy model, or a `Problem`, and replay the point.

    Parameters
    ----------
    backend
        The name of a backend, or a `Backend` of your own.
    time_limit, mip_gap
        Seconds, and the relative gap at which to stop; ``limits`` takes all limits at once and wins.
    options
        The solver's own options by its own names; an unknown one raises `OptionError`.
    start
        ``"forward"``: the forward pass of the network at the centre of its input set, all gates open, is the first incumbent;
        ``"none"``; or a full point by variable label.
    on_event
        Called with every `Event`; an exception it raises stops the solve and is raised here.

    Ctrl-C returns the best point so far with status `interrupted`.
    """
    chosen = get_backend(backend)
    posed = problem if isinstance(problem, Problem) else Modelled.of(problem)
    lowered = lower(posed.program, chosen.features)
    separators = [*(Tangents(term) for term in lowered.cuts), *posed.separators]
    until = limits or Limits(time=time_limit, gap=mip_gap)
    run = Run(lowered.program, separators, chosen, until, on_event, partial(_repair, posed, lowered))
    first = posed.start(start)
    outcome = run.solve(options, None if first is None else lowered.complete(first))
    _check_claims(run, outcome)
    return _result(posed, run, outcome, lowered.rewritten)


class Problem(ABC):
    """What the engine solves: a program, what was left out of it, and how to read a point of it."""

    program: Program
    separators: Sequence[Separator]

    @abstractmethod
    def start(self, wanted: Start) -> Array | None:
        """The start by column, or None if there is none that is feasible."""

    @abstractmethod
    def replay(self, x: Array, *, compare: bool = True) -> tuple[Array, float | None]:
        """The point computed again by the network, and with ``compare`` its largest relative distance from ``x``."""

    @abstractmethod
    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """The point as labelled arrays, and by variable label."""


@dataclass(eq=False)
class Modelled(Problem):
    """A linopy model and the networks that are written in it, in the order in which they were."""

    model: linopy.Model
    encodings: tuple[Encoding, ...]
    program: Program
    separators: Sequence[Separator] = ()

    @staticmethod
    def of(problem: Encoding | linopy.Model) -> Modelled:
        """The problem of a model, or of the model that an encoding is part of."""
        model = problem.model if isinstance(problem, Encoding) else problem
        encodings = tuple(networks_in(model))
        program = from_model(model, [term for encoding in encodings for term in encoding.convex])
        for encoding in encodings:
            _check_region(encoding, program)
        return Modelled(model, encodings, program)

    def start(self, wanted: Start) -> Array | None:
        """The forward pass at the centre of the input sets, or the point given by label."""
        if isinstance(wanted, str):
            if wanted not in ("forward", "none"):
                raise InputError(f"the start is `{wanted}`; expected `forward`, `none` or a point by variable label")
            if wanted == "none" or not self.encodings:
                return None
            centres = (encoding.point(encoding.region.centre) for encoding in self.encodings)
            point: Array = reduce(lambda first, later: np.where(np.isnan(first), later, first), centres)
        else:
            point = np.asarray(wanted, dtype=np.float64)
        if point.shape != (self.model._xCounter,):
            raise InputError(f"the start has shape {point.shape}; expected one number for each of {self.model._xCounter} variable labels")
        return if_feasible(self.program, point[self.program.labels])

    def replay(self, x: Array, *, compare: bool = True) -> tuple[Array, float | None]:
        """Network after network by `mipnet.replay.replay`; the distance is the largest, or None without a network."""
        errors: list[float] = []
        for encoding in self.encodings:
            x, error = replay(encoding, self.program, x, compare=compare)
            errors.append(error)
        return x, max(errors, default=None)

    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """One array a variable."""
        point = np.full(self.model._xCounter, np.nan)
        point[self.program.labels] = x
        return labelled(self.model, point), point


def _check_region(encoding: Encoding, program: Program) -> None:
    """Raise `InputError` if a variable that the network reads may leave the input set that its bounds were computed for."""
    source = encoding.values[INPUT]
    if source.is_fixed:
        return
    labels = np.asarray(program.labels)
    columns = column_lookup(labels)[source.terms.indices]
    lower, upper = encoding.region.lower.reshape(-1) - ROUNDING, encoding.region.upper.reshape(-1) + ROUNDING
    wider = (program.lower[columns] < lower) | (program.upper[columns] > upper)
    if wider.any():
        raise InputError(
            f"{np.count_nonzero(wider)} inputs of the network have wider bounds than when it was written into the model, and its big-Ms"
            " hold for those only; set bounds first and add the network then"
        )


def _check_claims(run: Run, outcome: Outcome) -> None:
    """Raise `SolverFailure` if the solver contradicts a point that is known: by `infeasible`, or by a bound above its objective."""
    if run.best is None:
        return
    if outcome.status is Status.INFEASIBLE:
        raise SolverFailure(f"{run.backend.name} says infeasible, but a point with objective {run.objective:g} is known")
    if run.bound - run.objective > 1e-3 * max(1.0, abs(run.objective)):
        raise SolverFailure(f"{run.backend.name} claims a bound of {run.bound:g}, but a point with objective {run.objective:g} is known")


def _repair(problem: Problem, lowered: Lowered, x: Array) -> Array | None:
    """The forward pass from a point's input and scores (rounded if they are binary), if that is a feasible point."""
    point: Array | None = problem.replay(x[: problem.program.columns], compare=False)[0]
    for separator in problem.separators:
        point = None if point is None else separator.lift(point)
    feasible = None if point is None else if_feasible(problem.program, point)
    return None if feasible is None else lowered.complete(feasible)


def if_feasible(program: Program, point: Array) -> Array | None:
    """The point, if it is known in full and meets every constraint; a forward pass does so up to rounding, not to a tolerance."""
    return None if np.isnan(point).any() or program.misses(point) > ROUNDING else point


def final_status(run: Run, outcome: Outcome, gap: float) -> Status:
    """Why the whole solve stopped: the gap decides over `optimal`, the clock over `time limit`, whatever the last round said."""
    if gap <= run.limits.gap and outcome.status not in (Status.INTERRUPTED, Status.TARGET):
        return Status.OPTIMAL
    if outcome.status is Status.OPTIMAL and gap <= run.limits.gap + TOLERANCE:
        return Status.OPTIMAL
    if outcome.status in (Status.OPTIMAL, Status.TIME_LIMIT):
        return Status.TIME_LIMIT if run.elapsed >= run.limits.time else Status.STALLED
    return outcome.status


def _result(problem: Problem, run: Run, outcome: Outcome, rewritten: tuple[str, ...]) -> Result:
    program, bound = problem.program, run.bound
    max_error: float | None = None
    verified, point, x, objective = False, None, None, math.inf
    if run.best is not None:
        replayed, max_error = problem.replay(run.best[: program.columns])
        objective = float(program.cost @ replayed) + program.offset
        missed = max([program.misses(replayed), *(math.inf for s in problem.separators if s.lift(replayed) is None)])
        verified = (max_error is None or max_error <= TOLERANCE) and missed <= TOLERANCE
        x, point = problem.labelled(replayed)
    gap = math.inf if run.best is None else relative_gap(objective, bound)
    sign = -1.0 if program.maximise else 1.0
    return Result(
        status=final_status(run, outcome, gap),
        x=x,
        point=point,
        objective=None if run.best is None else sign * objective,
        bound=sign * bound,
        gap=gap,
        runtime=run.elapsed,
        nodes=run.nodes,
        iterations=run.iterations,
        rounds=run.rounds,
        cuts=run.cuts,
        backend=run.backend.name,
        version=run.backend.version(),
        size=program.size,
        max_error=max_error,
        verified=verified,
        start_accepted=run.accepted,
        rewritten=rewritten,
        trace=tuple(run.trace),
        message=outcome.message,
    )
