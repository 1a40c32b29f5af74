"""Feasible starts for networks in a user's model: points near the relaxation's, completed by a forward pass and by the solver.

The forward pass at the centre of the inputs violates rows of the model as soon as these say something about the inputs.  So the program
is solved with the networks relaxed, and these run forward from its point.  If that violates a row, the *phases* of the networks, that is,
their binaries and the zeros of their SOS1 pairs, are fixed to those of the forward pass, and the solver completes the rest.  If there is no
such point, the relaxation is solved again for a point whose phases are nearest to these, and so on: a feasibility pump (Fischetti, Glover
and Lodi 2005) that rounds by a forward pass.  Integers of the user's own stay integers in all of these programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mipnet.arrays import Array, Columns, Mask
from mipnet.backend import Limits, Program, Session
from mipnet.errors import TimeLimitReached
from mipnet.limits.deadline import Deadline
from mipnet.solving.integral_point import INTEGRAL_POINT_TOLERANCE
from mipnet.solving.program_sessions import OpenProgram

COMPLETION_TIME_SHARE = 0.1
"""Largest share of the time of a solve in which a start is looked for."""

COMPLETION_SECONDS_MAX = 60.0
"""Largest time in which a start is looked for, in seconds."""

PUMP_ROUNDS_MAX = 20
"""Largest number of rounds of the feasibility pump."""

COMPLETION_NODES_MAX = 100
"""Largest number of nodes of a program in which the networks are relaxed, or their phases fixed."""

PERTURBATION_SHARE = 0.3
"""Standard deviation of the moves of the inputs when phases come again, in units of each input's range."""


@dataclass(eq=False)
class CompletedStarts:
    """The search for one feasible point.

    ``forward`` returns the forward pass from the inputs of a point, feasible or not; ``feasible`` returns a point that the whole model
    accepts, or None; ``network`` marks the columns that the forward pass computes, ``inputs`` are those of the networks' inputs.
    """

    opened: OpenProgram
    forward: Callable[[Array], Array]
    feasible: Callable[[Array], Array | None]
    network: Mask
    inputs: Columns
    deadline: Deadline
    rounds: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        self.deadline = self.deadline.share(COMPLETION_TIME_SHARE).within(COMPLETION_SECONDS_MAX)

    def __iter__(self) -> Iterator[Array]:
        """Yield a feasible point if one is found before the deadline."""
        try:
            found = self._pump()
        except TimeLimitReached:
            return
        if found is not None:
            yield found

    def _pump(self) -> Array | None:
        program, known = replace(self.opened.program, quadratic=None), set[bytes]()
        sets = tuple(members for members in program.sos1 if not self.network[members].all())
        relaxed = replace(program, integer=program.integer & ~self.network, sos1=sets, indicators=None, convex=())
        with self.opened.open(relaxed, self.deadline) as relaxation, self.opened.open(program, self.deadline) as whole:
            x = self._point(relaxation)
            while x is not None and self.rounds < PUMP_ROUNDS_MAX and not self.deadline.passed:
                self.rounds += 1
                passed = self.forward(x)
                phases = FixedPhases.at(program, passed, self.network)
                if phases.key in known:
                    passed = self.forward(self._perturbed(x))
                    phases = FixedPhases.at(program, passed, self.network)
                known.add(phases.key)
                found = self.feasible(passed)
                found = self._completed(whole, phases) if found is None else found
                if found is not None:
                    return found
                relaxation.set_objective(phases.distance(program))
                x = self._point(relaxation)
        return None

    def _completed(self, whole: Session, phases: FixedPhases) -> Array | None:
        """Return the best point that the solver finds with these phases, computed again by a forward pass, or None."""
        program = self.opened.program
        whole.set_bounds(phases.columns, phases.values, phases.values)
        try:
            x = self._point(whole)
        finally:
            whole.set_bounds(phases.columns, program.lower[phases.columns], program.upper[phases.columns])
        if x is None:
            return None
        passed = self.forward(np.where(program.integer, np.round(x), x))
        return passed if program.relative_violation(passed) <= INTEGRAL_POINT_TOLERANCE else None

    def _perturbed(self, x: Array) -> Array:
        """Return the point with its inputs moved at random, within their bounds."""
        program, moved = self.opened.program, x.copy()
        lower, upper = (end[self.inputs] for end in program.implied_bounds)
        width = np.where(np.isfinite(upper - lower), upper - lower, 1.0)
        moved[self.inputs] = np.clip(x[self.inputs] + PERTURBATION_SHARE * width * self.rng.normal(size=len(width)), lower, upper)
        return moved

    def _point(self, session: Session) -> Array | None:
        outcome = session.solve(Limits(time=self.deadline.seconds, nodes=COMPLETION_NODES_MAX))
        if outcome.interrupted:
            raise KeyboardInterrupt
        return outcome.x


@dataclass(frozen=True, eq=False)
class FixedPhases:
    """Columns of the networks with the values that fix their phases: binaries, and the members of SOS1 sets that are 0."""

    columns: Columns
    values: Array

    @staticmethod
    def at(program: Program, x: Array, network: Mask) -> FixedPhases:
        """Return the phases at a point.  In each SOS1 set the largest member stays free."""
        binaries = np.flatnonzero(program.integer & network)
        zeros = [np.delete(members, int(np.argmax(np.abs(x[members])))) for members in program.sos1 if network[members].all()]
        columns = np.concatenate([binaries, *zeros]).astype(np.int64)
        values = np.concatenate([np.round(x[binaries]), np.zeros(len(columns) - len(binaries))])
        return FixedPhases(columns, np.clip(values, program.lower[columns], program.upper[columns]))

    @property
    def key(self) -> bytes:
        """The phases as bytes, equal for equal phases."""
        return self.columns.tobytes() + self.values.tobytes()

    def distance(self, program: Program) -> Array:
        """Return the objective that is, but for a constant, the distance from these phases, each in units of its range."""
        lower, upper = program.lower[self.columns], program.upper[self.columns]
        width = upper - lower
        width = np.where(np.isfinite(width) & (width > 0), width, 1.0)
        sign = np.where(self.values <= lower, 1.0, np.where(self.values >= upper, -1.0, 0.0))
        cost = np.zeros(program.columns)
        cost[self.columns] = sign / width
        return cost
