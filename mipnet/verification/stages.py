"""The stages of a verification for one case of a property, from the cheapest to a solver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.errors import TimeLimitReached
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import kept_if_solver_fails, left_out_if_too_large
from mipnet.network.graph import Network, size
from mipnet.network.properties import Case
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.clause_program import ClauseProgram
from mipnet.verification.counterexamples import CounterexampleSearch
from mipnet.verification.input_splitting import SPLITTING_INPUTS_MAX, InputSplitting
from mipnet.verification.oracle import Oracle
from mipnet.verification.self_check import check_bounds, check_points
from mipnet.verification.sign_branching import SignBranching
from mipnet.verification.softmax_rows import LogitClause, logit_clauses
from mipnet.verification.verdict import Finding, Verdict, VerdictStatus

SEARCH_ROUNDS_FIRST, SEARCH_ROUNDS_SECOND = 1, 8
"""Rounds of gradient search before optimised slopes, and before branching and the solver."""

STAGE_TIME_SHARES = {"crown": 0.5, "search": 0.1, "splitting": 0.8, "alpha": 0.5, "branching": 0.6}
"""Share of the remaining time that a stage may use."""


@dataclass(frozen=True, eq=False)
class StageSettings:
    """How the stages decide a property: the arguments of `mipnet.verification.verify.verify`."""

    mip: MipSettings
    oracle: Oracle
    seed: int
    on_stage: Callable[[str, int], None]


@dataclass(eq=False)
class CaseTrial:
    """The verification of one case, stage by stage.

    ``clauses`` are those of the case, rewritten for the logits if the network ends in a softmax; a counterexample is confirmed for the case
    itself.  ``stage`` and ``bound`` hold, per clause, the stage that refuted it and the proven lower bound of its excess.  ``found`` is the
    counterexample and its output, ``ended`` the stage that decided the case.
    """

    network: Network
    case: Case
    number: int
    settings: StageSettings
    deadline: Deadline
    found: tuple[Array, Array] | None = None
    ended: str | None = None
    parts: int = 0
    nodes: int = 0
    interrupted: bool = False
    stage: list[str | None] = field(init=False)
    bound: Array = field(init=False)

    def __post_init__(self) -> None:
        self.clauses = logit_clauses(self.network, self.case.clauses, self.settings.oracle.dtype)
        count, shape = len(self.clauses), (1, *self.network.input_shape)
        self.stage, self.bound = [None] * count, np.full(count, -np.inf)
        self.region = self.case.region.reshape(shape)

    def verdict(self) -> Verdict:
        """Run one stage after another until the case is decided or time is over, and return the verdict."""
        try:
            for name in self._stages():
                if self.found is not None or not self.open.any():
                    self.ended = name
                    break
                if self.deadline.passed:
                    break
            if self.found is None and self.clauses and not self.open.any():
                x = check_points(self.excess, self.bounds, self.settings.seed, self.deadline)
                check_bounds(self.excess, self.bounds, self.bound, x, self.deadline)
                if self.network.softmax is not None and self.confirm(x) is not None:  # by the rounding of probabilities
                    self.ended = "search"
        except TimeLimitReached:  # what was proven before holds
            pass
        except KeyboardInterrupt:
            self.interrupted = True
        return self.verdict_so_far()

    @property
    def open(self) -> NDArray[np.bool_]:
        """The clauses that are not refuted yet, as a mask."""
        return np.array([stage is None for stage in self.stage], dtype=bool)

    def verdict_so_far(self) -> Verdict:
        """Return the verdict that follows from the stages so far."""
        status: VerdictStatus = "sat" if self.found is not None else "unknown" if self.open.any() else "unsat"
        findings = tuple(Finding(self.number, k, stage, float(self.bound[k])) for k, stage in enumerate(self.stage))
        x, y = self.found or (None, None)
        by = self.settings.oracle.name if self.found else None
        backend = self.settings.mip.solver.name
        return Verdict(status, self.ended, findings, x, y, by, 0.0, self.parts, self.nodes, backend, self.interrupted)

    def _stages(self) -> Iterator[str]:
        """Run the stages; the name of a stage is yielded after its work."""
        if any(not len(clause.rhs) and not isinstance(clause, LogitClause) for clause in self.clauses):
            self.confirm(self.region.centre)
        yield "search"
        self._begin("interval")
        self.excess = Excess.of(self.network, self.clauses)
        self.bounds: Bounds = propagate(self.excess.network, self.region, method="interval", time_limit=self.deadline)
        self._refute("interval", self._largest(self.bounds))
        yield "interval"
        self._propagate("crown")
        yield "crown"
        self._search(SEARCH_ROUNDS_FIRST)
        yield "search"
        if size(self.network.input_shape) <= SPLITTING_INPUTS_MAX and self.network.continuous:
            with left_out_if_too_large("halving the input set"):
                self._split()
            yield "splitting"
        self._propagate("alpha")
        yield "alpha"
        self._search(SEARCH_ROUNDS_SECOND)
        yield "search"
        with left_out_if_too_large("branching on signs"):
            self._branch()
        yield "branching"
        with left_out_if_too_large("the solver"), kept_if_solver_fails("the last stage"):
            self._solve()
        yield "mip"

    def confirm(self, x: Array) -> Array | None:
        """Return the first of some inputs that is a counterexample, or None; a counterexample decides the case."""
        found = self.settings.oracle.first(self.case, x, self.deadline)
        self.found = self.found or found
        return None if found is None else found[0]

    def _begin(self, stage: str) -> None:
        self.settings.on_stage(stage, int(self.open.sum()))

    def _until(self, stage: str) -> Deadline:
        return self.deadline.share(STAGE_TIME_SHARES[stage])

    def _refute(self, stage: str, bound: Array) -> None:
        """Store better bounds, and the stage for the clauses that they refute."""
        self.bound = np.maximum(self.bound, bound)
        for k in np.flatnonzero(self.open & (self.bound > 0)):
            self.stage[k] = stage

    def _largest(self, bounds: Bounds) -> Array:
        return self.excess.largest(bounds.after[self.excess.network.output.name].lower)[0].numpy()

    def _propagate(self, method: str) -> None:
        self._begin(method)
        end = self._until(method)
        with left_out_if_too_large(f"bounds by {method}"):
            network, start = self.excess.network, self.bounds
            self.bounds = propagate(network, self.region, method=method, start=start, time_limit=end)  # type: ignore[arg-type]
        self._refute(method, self._largest(self.bounds))

    def _search(self, rounds: int) -> None:
        self._begin("search")
        search = CounterexampleSearch.of(self.excess, self.region, self.settings.seed + rounds)
        for x in search.candidates(self.open, self._until("search"), rounds):
            if self.confirm(x) is not None:
                return

    def _split(self) -> None:
        self._begin("splitting")
        clauses = np.flatnonzero(self.open)
        excess = Excess.of(self.network, [self.clauses[k] for k in clauses])
        splitting = InputSplitting(excess, self.region, self.confirm, self._until("splitting"))
        done, _ = splitting.run()
        self.parts += splitting.boxes
        if done:
            self._refute("splitting", np.where(self.open, splitting.bound, -np.inf))

    def _branch(self) -> None:
        """Branch for each clause on the row with the largest bound; clauses with the largest bounds come first."""
        if not SignBranching.applies_to(self.excess.network):
            return
        self._begin("branching")
        rows, until = self.bounds.after[self.excess.network.output.name].lower[0].numpy(), self._until("branching")
        order = sorted(np.flatnonzero(self.open), key=lambda k: -self.bound[k])
        for left, k in zip(range(len(order), 0, -1), order, strict=True):
            own = np.flatnonzero((self.excess.owner == k) & self.excess.refuting)
            if not len(own):
                continue
            row, end = int(own[rows[own].argmax()]), until.share(1 / left)
            branching = SignBranching(self.excess, self.bounds, row, self.confirm, end)
            branching.run()
            self.parts += branching.branches
            if self.found is not None:
                return
            self._learn("branching", int(k), branching.bound)

    def _solve(self) -> None:
        self._begin("mip")
        clauses = sorted(np.flatnonzero(self.open), key=lambda k: -self.bound[k])
        excess = Excess.of(self.network, [self.clauses[k] for k in clauses])
        bounds = propagate(excess.network, self.region, method="crown", given=self._network_bounds(), time_limit=self.deadline)
        with ClauseProgram(excess, bounds, self.settings.mip, self.confirm, self.deadline) as program:
            for _ in range(2):  # a clause that was not decided in its share of the time gets the time that is left
                waiting = [position for position, k in enumerate(clauses) if self.open[k]]
                for left, position in zip(range(len(waiting), 0, -1), waiting, strict=True):
                    if self.deadline.passed:
                        return
                    with kept_if_solver_fails("the last stage"):
                        result = program.decide(position, self.deadline.share(1 / left))
                        self.nodes, self.interrupted = self.nodes + result.nodes, result.interrupted
                        if self.found is not None or self.interrupted:
                            return
                        self._learn("mip", int(clauses[position]), result.bound)

    def _network_bounds(self) -> dict[str, tuple[Array, Array]]:
        """Return the bounds of the network's own nodes, which hold for any clauses after it."""
        known = {node.name: self.bounds.after[node.name] for node in self.network.nodes}
        return {name: (box.lower.numpy(), box.upper.numpy()) for name, box in known.items()}

    def _learn(self, stage: str, clause: int, bound: float) -> None:
        self._refute(stage, np.where(np.arange(len(self.bound)) == clause, bound, -np.inf))
