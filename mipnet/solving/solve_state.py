"""The state of one solve over all of its rounds: its events, its best point and bound, and its counts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mipnet.arrays import Array
from mipnet.backend import Event, OnEvent


@dataclass(eq=False)
class SolveEvents:
    """The events of one solve, with times since its beginning, in the sense of the model, and with improving incumbents only.

    ``trace`` contains all events except log lines.  ``objective`` is the best objective that an event has reported, for a minimisation.
    """

    on_event: OnEvent | None
    maximise: bool
    began: float = field(default_factory=time.perf_counter)
    objective: float = math.inf
    trace: list[Event] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds since the solve began."""
        return time.perf_counter() - self.began

    def emit(self, event: Event) -> None:
        """Pass an event on, unless it is an incumbent that is no better than an earlier one."""
        if event.objective is not None:
            if event.kind == "incumbent" and event.objective >= self.objective:
                return
            self.objective = min(self.objective, event.objective)
            event = replace(event, objective=self.objective)
        if self.maximise:
            event = replace(event, objective=_negate(event.objective), bound=_negate(event.bound))
        event = replace(event, time=max(event.time, self.trace[-1].time if self.trace else 0.0))
        if event.kind != "log":
            self.trace.append(event)
        if self.on_event is not None:
            self.on_event(event)


@dataclass(eq=False)
class BestKnown:
    """The best feasible point over all rounds with its objective, and the best dual bound, both for a minimisation."""

    x: Array | None = None
    objective: float = math.inf
    bound: float = -math.inf

    @property
    def known_objective(self) -> float | None:
        """The objective, or None without a point."""
        return None if self.x is None else self.objective

    @property
    def known_bound(self) -> float | None:
        """The dual bound, or None if there is none yet."""
        return None if self.bound == -math.inf else self.bound


@dataclass(eq=False)
class SolveCounts:
    """Counts of one solve over all of its rounds."""

    nodes: int = 0
    iterations: int = 0
    rounds: int = 0
    cuts: int = 0


@dataclass(frozen=True, eq=False)
class PointFunctions:
    """Functions that compute feasible points without the solver.

    ``repair(x)`` returns a feasible point near any point, integral or not, by a forward pass from its input and scores, or None.
    ``suggest(x, best)`` returns a feasible point near the solution of a relaxation and the best known point, either of which may be None.
    """

    repair: Callable[[Array], Array | None] | None = None
    suggest: Callable[[Array | None, Array | None], Array | None] | None = None


def _negate(value: float | None) -> float | None:
    return None if value is None else -value
