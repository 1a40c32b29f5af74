"""The listener of a run: the base class of everything that shows progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mipnet.app.runs.importance_run import EvaluatedPoint
from mipnet.backend import Event
from mipnet.pruning.importance.decoupled_parts import PartLabel, SolvedPart


class RunListener:
    """Listens to a run.  Every method does nothing here; a subclass overrides those that it needs."""

    def solver_event(self, event: Event) -> None:
        """Take an event of the solver: a line of its log, a new incumbent, a new bound."""

    def activity(self, text: str) -> None:
        """Take a few words about what the run does next."""

    def stage(self, name: str, clauses_open: int) -> None:
        """Take the stage of a verification that begins, and the number of clauses that are still open."""

    def programs_begin(self, labels: Sequence[PartLabel], finished: Mapping[PartLabel, SolvedPart], at_once: int | None) -> None:
        """Take the programs of a decoupled run and those that an earlier run has finished.

        The others start in this order, ``at_once`` at a time (None: a scheduler decides).
        """

    def program_done(self, label: PartLabel, part: SolvedPart) -> None:
        """Take a solved program of a decoupled run."""

    def point_done(self, parameter: str, point: EvaluatedPoint) -> None:
        """Take an evaluated point of a path along a parameter."""


def logging_to(log: list[str], listener: RunListener) -> Callable[[Event], None]:
    """Return a function that takes the events of a solver: it appends lines of the log to ``log`` and hands events to the listener."""

    def take(event: Event) -> None:
        if event.kind == "log":
            log.append(event.text)
        listener.solver_event(event)

    return take
