"""One case of a property on its way through the stages, from the cheapest to a solver."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.network.graph import Network, size
from mipnet.network.properties import Case
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.by_solver import Exact
from mipnet.verification.clause_network import Excess
from mipnet.verification.counterexamples import Search
from mipnet.verification.input_splitting import Splitting
from mipnet.verification.oracle import Oracle
from mipnet.verification.self_check import hold_bounds, telling_points
from mipnet.verification.sign_branching import Branching
from mipnet.verification.verdict import Finding, Status, Verdict

MARGIN = 1e-9
"""A bound computed in float64, rounded outwards, refutes a clause if it is above this."""

FEW = 10
"""With so many inputs at most, the input is split."""

QUICK, LONG = 1, 8
"""Rounds of gradient search before optimised slopes, and before a solver."""

SHARES = {"search": 0.1, "splitting": 0.8, "branching": 0.6}
"""A stage may take so much of the time that is left when it begins."""


@dataclass(frozen=True, eq=False)
class StageSettings:
    """How the stages decide a property: the arguments of `mipnet.verification.pipeline.verify`."""

    mip: MipSettings
    oracle: Oracle
    seed: int
    on_stage: Callable[[str, int], None]


@dataclass(eq=False)
class Trial:
    """One case on its way through the stages: ``bound`` and ``stage`` of every clause, ``found`` once there is a counterexample."""

    network: Network
    case: Case
    number: int
    settings: StageSettings
    end: float
    found: tuple[Array, Array] | None = None
    ended: str | None = None
    parts: int = 0
    nodes: int = 0
    interrupted: bool = False
    stage: list[str | None] = field(init=False)
    bound: Array = field(init=False)

    def __post_init__(self) -> None:
        count, shape = len(self.case.clauses), (1, *self.network.input_shape)
        self.stage, self.bound = [None] * count, np.full(count, -np.inf)
        self.region = self.case.region.reshape(shape)

    def verdict(self) -> Verdict:
        """The stages one after another, until nothing is left to decide or there is no time."""
        try:
            for name in self._stages():
                if self.found is not None or not self.open.any():
                    self.ended = name
                    break
                if time.monotonic() >= self.end:
                    break
            if self.found is None and self.case.clauses and not self.open.any():
                hold_bounds(self.excess, self.bounds, self.bound, telling_points(self.excess, self.bounds, self.settings.seed))
        except KeyboardInterrupt:
            self.interrupted = True
        return self.said()

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which clauses nothing has refuted."""
        return np.array([stage is None for stage in self.stage], dtype=bool)

    def said(self) -> Verdict:
        """The verdict as things stand."""
        status: Status = "sat" if self.found is not None else "unknown" if self.open.any() else "unsat"
        findings = tuple(Finding(self.number, k, stage, float(self.bound[k])) for k, stage in enumerate(self.stage))
        x, y = self.found or (None, None)
        by = self.settings.oracle.name if self.found else None
        backend = self.settings.mip.solver.name
        return Verdict(status, self.ended, findings, x, y, by, 0.0, self.parts, self.nodes, backend, self.interrupted)

    def _stages(self) -> Iterator[str]:
        """Each stage does its work before its name comes out."""
        if any(not len(clause.rhs) for clause in self.case.clauses):
            self.confirm(self.region.centre)
        yield "search"
        self._begin("interval")
        self.excess = Excess.of(self.network, self.case.clauses)
        self.bounds: Bounds = propagate(self.excess.network, self.region, method="interval")
        self._refute("interval", self._largest(self.bounds))
        yield "interval"
        self._propagate("crown")
        yield "crown"
        self._search(QUICK)
        yield "search"
        if size(self.network.input_shape) <= FEW:
            self._split()
            yield "splitting"
        self._propagate("alpha")
        yield "alpha"
        self._search(LONG)
        yield "search"
        self._branch()
        yield "branching"
        self._solve()
        yield "mip"

    def confirm(self, x: Array) -> Array | None:
        """The first of some inputs that is a counterexample, which ends the trial."""
        found = self.settings.oracle.first(self.case, x)
        self.found = self.found or found
        return None if found is None else found[0]

    def _begin(self, stage: str) -> None:
        self.settings.on_stage(stage, int(self.open.sum()))

    def _until(self, stage: str) -> float:
        now = time.monotonic()
        return now + SHARES[stage] * (self.end - now)

    def _refute(self, stage: str, bound: Array, margin: float = MARGIN) -> None:
        """Take down better bounds, and which clauses they refute."""
        self.bound = np.maximum(self.bound, bound)
        for k in np.flatnonzero(self.open & (self.bound > margin)):
            self.stage[k] = stage

    def _largest(self, bounds: Bounds) -> Array:
        return self.excess.largest(bounds.after[self.excess.network.output.name].lower)[0].numpy()

    def _propagate(self, method: str) -> None:
        self._begin(method)
        self.bounds = propagate(self.excess.network, self.region, method=method, start=self.bounds)  # type: ignore[arg-type]
        self._refute(method, self._largest(self.bounds))

    def _search(self, rounds: int) -> None:
        self._begin("search")
        for x in Search.of(self.excess, self.region, self.settings.seed + rounds).candidates(self.open, self._until("search"), rounds):
            if self.confirm(x) is not None:
                return

    def _split(self) -> None:
        self._begin("splitting")
        clauses = np.flatnonzero(self.open)
        excess = Excess.of(self.network, [self.case.clauses[k] for k in clauses])
        splitting = Splitting(excess, self.region, MARGIN, self.confirm)
        done, _ = splitting.run(self._until("splitting"))
        self.parts += splitting.boxes
        if done:
            self._refute("splitting", np.where(self.open, splitting.least, -np.inf))

    def _branch(self) -> None:
        """Each clause by that of its rows that is nearest to being refuted, the nearest clause first."""
        if not Branching.knows(self.excess.network):
            return
        self._begin("branching")
        rows, end = self.bounds.after[self.excess.network.output.name].lower[0].numpy(), self._until("branching")
        order = sorted(np.flatnonzero(self.open), key=lambda k: -self.bound[k])
        for left, k in zip(range(len(order), 0, -1), order, strict=True):
            now, own = time.monotonic(), np.flatnonzero(self.excess.owner == k)
            branching = Branching(self.excess, self.bounds, int(own[rows[own].argmax()]), MARGIN, self.confirm)
            branching.run(now + (end - now) / left)
            self.parts += branching.parts
            if self.found is not None:
                return
            self._learn("branching", int(k), branching.least)

    def _solve(self) -> None:
        self._begin("mip")
        clauses = sorted(np.flatnonzero(self.open), key=lambda k: -self.bound[k])
        excess = Excess.of(self.network, [self.case.clauses[k] for k in clauses])
        bounds = propagate(excess.network, self.region, method="crown", given=self._hidden())
        with Exact(excess, bounds, self.settings.mip, self.confirm) as exact:
            for _ in range(2):  # what was cut off by its share gets what the others left
                waiting = [position for position, k in enumerate(clauses) if self.open[k]]
                for left, position in zip(range(len(waiting), 0, -1), waiting, strict=True):
                    seconds = (self.end - time.monotonic()) / left
                    if seconds <= 0:
                        return
                    answer = exact.decide(position, seconds)
                    self.nodes, self.interrupted = self.nodes + answer.nodes, answer.interrupted
                    if self.found is not None or self.interrupted:
                        return
                    self._learn("mip", int(clauses[position]), answer.bound)

    def _hidden(self) -> dict[str, tuple[Array, Array]]:
        """The bounds of the network's own nodes, which serve whatever rows stand behind it."""
        known = {node.name: self.bounds.after[node.name] for node in self.network.nodes}
        return {name: (box.lower.numpy(), box.upper.numpy()) for name, box in known.items()}

    def _learn(self, stage: str, clause: int, bound: float) -> None:
        self._refute(stage, np.where(np.arange(len(self.bound)) == clause, bound, -np.inf))
