"""The search for the distance of the nearest input that changes the class: gradient search, halving the radius, one program per class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.backend import Feature, Limits, Status
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.errors import SolverFailure, TimeLimitReached
from mipnet.limits.array_dataset import array_dataset, dataset_arrays
from mipnet.limits.deadline import Deadline
from mipnet.limits.kept_parts import NOTHING_KEPT, KeptParts
from mipnet.limits.result_warnings import add_warning, kept_if_solver_fails, left_out_if_too_large
from mipnet.model.encode import encode
from mipnet.model.encoding import Encoding
from mipnet.model.to_program import from_model
from mipnet.network.graph import Network
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import Box
from mipnet.solving.element_bounds import tolerance_margin
from mipnet.solving.engine import Start
from mipnet.solving.open_problem import OpenProblem, open_problem
from mipnet.verification.clause_network import Excess
from mipnet.verification.clause_program import PROGRAM_CHECK_PASSES, TANGENT_VALUE_RANGE
from mipnet.verification.counterexamples import CounterexampleSearch
from mipnet.verification.distance_domain import DistanceDomain
from mipnet.verification.distortion_settings import DistortionSettings
from mipnet.verification.robustness import ENDS_TOLERANCE_FACTOR
from mipnet.verification.self_check import check_distances, check_points, check_program, distance_rounding
from mipnet.verification.verify import verify

RADIUS_HALVINGS = 8
"""How often the range of radii is halved, by linear bounds and again by whole verifications."""

BRACKET_PART = "bracket"
"""The label of the part that is kept: what is known of the distance so far."""

ATTACK_TIME_SHARE = 0.2
"""Share of the remaining time that gradient search may use."""

PROGRAM_TIME_SHARE = 0.3
"""Share of the remaining time that the programs may use; halving by whole verifications uses the rest."""

SECOND_SOLVE_SHARE_MAX = 0.5
"""If the programs find a point at less than this share of the objective at their radius, they are solved again with the smaller radius."""

STRICTER_SHARES = 1e-6, 1e-5, 1e-4
"""If a point of a solver is not confirmed and cannot be moved, its rows are made stricter by these shares of their ranges."""


class KeptBracket(NamedTuple):
    """What is kept of a `DistortionSearch`."""

    lower: float
    attacked: bool
    nodes: int
    proven: Mapping[str, float]
    point: Array | None


@dataclass(eq=False)
class DistortionSearch:
    """The bounds found so far: no input nearer than ``lower`` changes the class, and ``point`` changes it at the distance ``best``.

    The class is changed where a clause of the ``excess`` holds.  Inputs are those of the ``domain`` within the distance ``upper``.
    ``proven`` is a distance for each class that a program was solved for: no nearer input changes the class to it.
    """

    excess: Excess
    domain: DistanceDomain
    upper: float
    deadline: Deadline
    settings: DistortionSettings
    lower: float = 0.0
    best: float = math.inf
    point: Array | None = None
    nodes: int = 0
    interrupted: bool = False
    kept: KeptParts = NOTHING_KEPT
    attacked: bool = False
    proven: dict[int, float] = field(default_factory=dict)

    def go_on(self) -> None:
        """Take up what an earlier call has kept; its point is checked again."""
        found = self.kept.read(
            BRACKET_PART, lambda record, arrays: KeptBracket(**record["bracket"], point=dataset_arrays(arrays).get("point"))
        )
        if found is not None:
            self.attacked, self.nodes, self.lower = found.attacked, found.nodes, max(self.lower, found.lower)
            self.proven = {int(k): float(distance) for k, distance in found.proven.items()}
            self.learn(np.empty((0, *self.domain.image.shape[1:])) if found.point is None else found.point)

    def keep(self) -> None:
        """Keep what is known so far."""
        bracket = {"lower": self.lower, "attacked": self.attacked, "nodes": self.nodes, "proven": self.proven}
        self.kept.keep(BRACKET_PART, {"bracket": bracket}, array_dataset({} if self.point is None else {"point": self.point}))

    def run(self, network: Network, clauses: tuple[Clause, ...]) -> None:
        """Run all stages, or those that there is time for before Ctrl-C."""
        try:
            self.attack()
            for name, stage in (("halving the radius by linear bounds", self.halve), ("the solver", self.solve)):
                with suppress(TimeLimitReached), left_out_if_too_large(name), kept_if_solver_fails(name):  # what was proven before holds
                    stage()
            if self.domain.plain:
                self.halve_by_verification(network, clauses)
        except KeyboardInterrupt:
            self.interrupted = True

    def warn_if_open(self) -> None:
        """Add a warning if the distance is not known to the gap that was asked for."""
        share, lower = 1 - ENDS_TOLERANCE_FACTOR * self.settings.gap, min(self.lower, self.best)
        if lower >= share * self.radius:
            return
        if self.point is not None:
            add_warning(f"the smallest distance lies between {lower:.6g} and {self.best:.6g}: it is not closed to {self.settings.gap:g}")
        else:
            add_warning(f"it is not decided whether the class changes between distance {lower:.6g} and {self.upper:g}")

    @property
    def radius(self) -> float:
        """The radius within which points are searched."""
        return min(self.best, self.upper)

    @property
    def closed(self) -> bool:
        """Whether the distance is known to the gap that was asked for."""
        return self.lower >= (1 - self.settings.gap) * self.radius

    def learn(self, x: Array) -> bool:
        """Store the nearest of some inputs of the domain that change the class; return whether it is the nearest so far."""
        x = self.domain.admitted(x)
        if not len(x):
            return False
        with torch.no_grad():
            changes = self.excess(torch.tensor(x)).amin(1).numpy() <= 0
        away = np.where(changes, self.domain.distance(x), np.inf)
        k = int(away.argmin())
        if not away[k] < self.best or away[k] > self.upper:
            return False
        self.best, self.point = float(away[k]), x[k : k + 1]
        return True

    def attack(self) -> None:
        """Run gradient search in smaller and smaller balls, and try points on the lines from the image to the points found."""
        if self.attacked:
            return
        self._attack()
        self.attacked = True
        self.keep()

    def _attack(self) -> None:
        clauses, stop = torch.arange(self.excess.clauses), self.deadline.share(ATTACK_TIME_SHARE)
        radius = self.radius
        for k in range(3 * RADIUS_HALVINGS):
            region = self.domain.region(radius)
            if region is None:
                return
            x, worst = CounterexampleSearch.of(self.excess, region, self.settings.seed + k).descend(clauses, stop)
            near = x[worst.argsort()[:8]].numpy()
            if not self.learn(self.domain.between(near)) and k:
                return
            radius = 0.95 * self.radius
            if stop.passed:
                return

    def halve(self) -> None:
        """Find the largest radius, by halving, within which linear bounds refute every class."""
        low, high = self.lower, self.radius
        for _ in range(RADIUS_HALVINGS):
            if self.deadline.passed or high <= 0:
                return
            middle = (low + high) / 2
            region = self.domain.region(middle)
            refuted = region is None or not self.open(self.bounds(region, self.deadline)).size
            low, high = (middle, high) if refuted else (low, middle)
            self.lower = max(self.lower, low)
        self.keep()

    def bounds(self, region: Box, deadline: Deadline) -> Bounds:
        """Return linear bounds over a set, looser ones after the deadline."""
        return propagate(self.excess.network, region, method="crown", time_limit=deadline)

    def open(self, bounds: Bounds) -> NDArray[np.int64]:
        """Return the classes that the bounds do not refute."""
        return np.flatnonzero(self.excess.largest(bounds.after[self.excess.network.output.name].lower)[0].numpy() <= 0)

    def solve(self) -> None:
        """Solve one program per class over the ball of the nearest point; and again if that finds a far nearer one.

        Gaps and tolerances of a program are shares of its radius, so they are too wide for a point at a small share of it.
        """
        if self.closed:
            return
        radius = self.radius
        self._solve()
        if not self.closed and self.power(self.radius / radius) < SECOND_SOLVE_SHARE_MAX:
            self._solve()

    def _solve(self) -> None:
        """Solve one program per class; the smallest of their bounds is the lower bound."""
        domain, radius, gap, solver = self.domain, self.radius, self.settings.gap, self.settings.solver
        check_distances(domain.image, radius * domain.scale, domain.norm)
        end = self.deadline.share(PROGRAM_TIME_SHARE) if domain.plain else self.deadline
        region = domain.region(radius)
        bounds = None if region is None else self.bounds(region, end)
        left = np.zeros(0, dtype=np.int64) if bounds is None else self.open(bounds)
        if bounds is None or not len(left):
            self.lower = max(self.lower, radius)
            return
        formulation = self.settings.formulation
        encoding = encode(self.excess.network, bounds.region, bounds=bounds, formulation=formulation, time_limit=end)
        ball = bounds.region.ball
        t = encoding.model.variables["distance"] if ball else encoding.distance(domain.image, radius * domain.scale, domain.norm)
        x = check_points(self.excess, bounds, self.settings.seed, end)
        chosen = np.linspace(0, len(x) - 1, min(PROGRAM_CHECK_PASSES, len(x))).astype(int)
        check_program(encoding, from_model(encoding.model), x[chosen], end)
        if domain.rules is not None:
            domain.rules.write(encoding)
        encoding.model.add_objective(1 * t.sum())
        proven, cuts = np.full(len(left), 0.0), 0
        rounding = 2 * distance_rounding(domain.image, radius * domain.scale, domain.norm)
        lower, upper = (np.asarray(end.values) for end in (encoding.output.lower, encoding.output.upper))
        with open_problem(encoding, solver, options=self.settings.options) as opened:
            for position, k in enumerate(left):
                proven[position] = min(self.proven.get(int(k), 0.0), radius)
                if end.passed:
                    continue
                if proven[position] >= (1 - gap) * min(self.radius, radius):  # an earlier call has finished it
                    continue
                own = self.excess.owner == k
                if lower[..., own].max() > 0:
                    proven[position] = radius
                    continue
                opened.set_bounds(encoding.output, lower, np.where(own, np.minimum(upper, 0.0), upper))
                tolerance = tolerance_margin(opened.problem.program, opened.problem.program.cost, 0.0, opened.tolerances) + rounding
                stop = self.power((1 - gap) * self.radius / radius) + tolerance if Feature.BOUND_STOP in solver.features else None
                start: Start = "none" if self.point is None else encoding.point(self.point)
                seconds = end.share(1 / (len(left) - position)).seconds
                limits = Limits(time=seconds, gap=gap / 4, gap_abs=gap / 4, bound_stop=stop)
                try:
                    result = opened.solve(limits=limits, time_limit=end, start=start)
                except SolverFailure as error:
                    add_warning(f"the solver failed for class {k}, which keeps its other bounds: {error}")
                    continue
                self.nodes, cuts = self.nodes + result.nodes, cuts + result.cuts
                tolerance += opened.tolerances.reduced_costs * TANGENT_VALUE_RANGE * cuts
                found = radius if result.status is Status.INFEASIBLE else self.root(result.bound - tolerance) * radius
                proven[position] = self.proven[int(k)] = max(min(found, radius), proven[position])
                if result.point is not None and not self.learn_beyond(encoding, result.point) and domain.rules is not None:
                    self.learn_stricter(opened, encoding, own, end)
                self.keep()
                if result.interrupted:
                    self.interrupted = True
                    break
        self.lower = max(self.lower, min(float(proven.min()), radius))
        if self.interrupted:
            raise KeyboardInterrupt

    def halve_by_verification(self, network: Network, clauses: tuple[Clause, ...]) -> None:
        """Halve the range that the programs left open, by all stages of `mipnet.verify`; each radius gets the same share of the time."""
        low, high = self.lower, self.radius
        for k in range(RADIUS_HALVINGS):
            if self.deadline.passed or high - low <= self.settings.gap * high:
                return
            middle = (low + high) / 2
            region = self.domain.region(middle)
            if region is None:
                return
            case = Case(region.reshape((1, self.domain.image.size)), clauses)
            end = self.deadline.share(1 / (RADIUS_HALVINGS - k))
            verdict = verify(network, Property((case,)), time_limit=end, backend=self.settings.mip, seed=self.settings.seed + k)
            self.nodes += verdict.nodes
            if verdict.counterexample is not None:
                self.learn(verdict.counterexample[None])
            low, high = (middle, high) if verdict.status == "unsat" else (low, middle)
            self.lower = max(self.lower, low)
            self.keep()
            if verdict.interrupted:
                raise KeyboardInterrupt

    def power(self, share: float) -> float:
        """Return the objective at a distance, in units of the radius."""
        return share**2 if self.domain.norm == "l2" else share

    def root(self, value: float) -> float:
        """Return the distance at an objective."""
        value = max(0.0, value)
        return math.sqrt(value) if self.domain.norm == "l2" else value

    def learn_beyond(self, encoding: Encoding, point: Array) -> bool:
        """Store the solver's point if it changes the class, or the first point slightly beyond it that does; return whether one does."""
        return self.learn(self.domain.beyond(encoding.value("input", point)))

    def learn_stricter(self, opened: OpenProblem, encoding: Encoding, own: NDArray[np.bool_], end: Deadline) -> None:
        """Store a point that satisfies the rows of one clause by more than the solver's tolerances, so that the network confirms it."""
        lower, upper = (np.asarray(each.values) for each in (encoding.output.lower, encoding.output.upper))
        for share in STRICTER_SHARES:
            highest = np.where(own, np.minimum(upper, -share * np.maximum(np.abs(lower), np.abs(upper))), upper)
            if end.passed or (highest < lower).any():
                return
            opened.set_bounds(encoding.output, lower, highest)
            result = opened.solve(limits=Limits(time=end.seconds, gap=self.settings.gap / 4), time_limit=end, start="none")
            self.nodes += result.nodes
            if result.point is None or self.learn_beyond(encoding, result.point):
                return
