"""How small can linear functions of a network's outputs be over a box?  A certified bound, and an input that attains a value.

Bounds come from CROWN, optimised slopes, input splitting with the best value as pruning value, and a solver; values from a gradient search,
the centres of parts, and the solver's points.  Every bound is rounded outwards, a solver's by what its tolerances may hide
(`mipnet.solving.extremes.margin`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.backend import Feature, Limits, Status
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.bounds.user_bounds import BoundsByNode
from mipnet.model.encoding import encode
from mipnet.network.graph import Network, size
from mipnet.network.properties import Clause
from mipnet.network.sets import Box
from mipnet.solving.engine import OpenProblem, open_problem
from mipnet.solving.extremes import margin
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.counterexamples import Search
from mipnet.verification.input_splitting import narrow

FEW, EASY = 10, 64
"""With so many inputs at most the input is split: before a solver is asked, unless so few units at most are undecided."""

SHARES = {"search": 0.1, "splitting": 0.7}
"""A stage may take so much of the time that is left when it begins."""

QUICK, LONG = 1, 4
"""Rounds of gradient search before optimised slopes, and before a solver."""

SIDE_BY_SIDE = 64
"""So many functions are searched at once."""


@dataclass(frozen=True, eq=False)
class Least:
    """``bound`` is at most the least value in the box, and ``value`` is the one at ``point``; ``method`` says where the bound is from."""

    bound: float
    value: float
    point: Array
    method: str


@dataclass(frozen=True, eq=False)
class Rows:
    """The functions ``matrix @ y + offset`` of the flat output y, ``(rows, outputs)`` and ``(rows,)``, in groups: ``group`` ``(rows,)``.

    Asked is the least value that any function of a group takes.
    """

    matrix: Array
    offset: Array
    group: NDArray[np.int64]

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max()) + 1

    def of(self, network: Network, x: Array) -> Array:
        """Every function at inputs ``(n, *input_shape)``: ``(n, rows)``."""
        return network.forward(x).reshape(len(x), -1) @ self.matrix.T + self.offset


@dataclass(frozen=True, eq=False)
class MinimumSettings:
    """How it is found, and when that ends: at ``end``, or with a gap of ``tolerance * max(1, |value|)``, or with an answer.

    The answer is whether a value below ``target`` exists, where one is given.
    """

    mip: MipSettings
    end: float
    tolerance: float
    target: float | None = None
    seed: int = 0


@dataclass(eq=False)
class Minimising:
    """One box on its way through the stages: a bound for every row, and the best value and point of every group.

    ``given`` are bounds of the network's nodes that are known to hold.
    """

    network: Network
    rows: Rows
    region: Box
    settings: MinimumSettings
    given: BoundsByNode = field(default_factory=dict)
    parts: int = 0
    nodes: int = 0
    interrupted: bool = False
    lower: Array = field(init=False)
    method: list[str] = field(init=False)
    value: Array = field(init=False)
    point: Array = field(init=False)

    def __post_init__(self) -> None:
        count, groups = len(self.rows.matrix), self.rows.groups
        self.lower, self.method = np.full(count, -np.inf), ["interval"] * count
        self.value, self.point = np.full(groups, np.inf), np.repeat(self.region.centre, groups, axis=0)
        clauses = [Clause(row[None], -shift[None]) for row, shift in zip(self.rows.matrix, self.rows.offset, strict=True)]
        self.excess = Excess.of(self.network, clauses)
        self.learn(np.concatenate([self.region.centre, self.region.lower, self.region.upper]))

    def run(self) -> list[Least]:
        """What was found for every group, by all stages that were needed and that time allowed."""
        try:
            for _ in self._stages():
                if not self.open.any() or time.monotonic() >= self.settings.end:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        return [self._least(group) for group in range(self.rows.groups)]

    def _least(self, group: int) -> Least:
        own = np.flatnonzero(self.rows.group == group)
        row, value = own[self.lower[own].argmin()], float(self.value[group])
        return Least(min(float(self.lower[row]), value), value, self.point[group], self.method[row])

    def _stages(self) -> Iterator[None]:
        self.bounds: Bounds = propagate(self.excess.network, self.region, method="interval", given=self.given)
        self._propagate("crown")
        yield
        self._search(QUICK)
        yield
        few, easy = size(self.network.input_shape) <= FEW, sum(self.bounds.unstable().values()) <= EASY
        if few and not easy:
            self._split()
            yield
        self._propagate("alpha")
        yield
        self._search(LONG)
        yield
        self._solve()
        yield
        if few and easy:
            self._split()
        yield

    @property
    def slack(self) -> Array:
        """The gap that is left to each group."""
        return self.settings.tolerance * np.maximum(1.0, np.abs(self.value))

    @property
    def level(self) -> Array:
        """A row is done with a bound above that of its group."""
        if self.settings.target is None:
            return np.asarray(self.value - self.slack)
        return np.where(self.value < self.settings.target, -np.inf, self.settings.target)

    @property
    def open(self) -> NDArray[np.bool_]:
        """The rows that are not done."""
        return self.lower < self.level[self.rows.group]

    def learn(self, x: Array) -> None:
        """Take down inputs, ``(n, *input_shape)``, whose values are better."""
        if not len(x):
            return
        inside = self.region.nearest(x)
        values = self.rows.of(self.network, inside)
        for group in range(self.rows.groups):
            own = values[:, self.rows.group == group].min(axis=1)
            best = int(own.argmin())
            if own[best] < self.value[group]:
                self.value[group], self.point[group] = own[best], inside[best]

    def improve(self, method: str, rows: NDArray[np.int64], bound: Array) -> None:
        """Take down bounds of rows, where they are better."""
        for row, each in zip(rows, bound, strict=True):
            if each > self.lower[row]:
                self.lower[row], self.method[row] = each, method

    def _propagate(self, method: str) -> None:
        self.bounds = propagate(self.excess.network, self.region, method=method, start=self.bounds)  # type: ignore[arg-type]
        lower = self.bounds.after[self.excess.network.output.name].lower[0].numpy()
        self.improve(method, np.arange(len(lower)), lower)

    def _search(self, rounds: int) -> None:
        now = time.monotonic()
        end, search = now + SHARES["search"] * (self.settings.end - now), Search.of(self.excess, self.region, self.settings.seed + rounds)
        for _ in range(rounds):
            rows = np.flatnonzero(self.open)
            for first in range(0, len(rows), SIDE_BY_SIDE):
                if time.monotonic() < end:
                    self.learn(search.descend(torch.tensor(rows[first : first + SIDE_BY_SIDE]), end)[0].numpy())

    def _in_turn(self, end: float) -> Iterator[tuple[int, NDArray[np.int64], float]]:
        """Each group with open rows, these rows, the lowest bound first, and when its share of the time is over."""
        groups = np.unique(self.rows.group[self.open])
        for left, group in zip(range(len(groups), 0, -1), groups.tolist(), strict=True):
            rows = np.flatnonzero(self.open & (self.rows.group == group))
            now = time.monotonic()
            if now < end and len(rows):
                yield group, rows[self.lower[rows].argsort()], now + (end - now) / left

    def _split(self) -> None:
        now = time.monotonic()
        for group, rows, end in self._in_turn(now + SHARES["splitting"] * (self.settings.end - now)):
            excess = Excess.of(self.network, [Clause(self.rows.matrix[[row]], -self.rows.offset[[row]]) for row in rows])
            level = lambda group=group: float(self.level[group])  # noqa: E731
            bound, parts = narrow(excess, self.region, level, self.learn, end)
            self.parts += parts
            self.improve("splitting", rows, np.full(len(rows), bound))

    def _solve(self) -> None:
        encoding = encode(self.excess.network, self.region, bounds=self.bounds, formulation=self.settings.mip.formulation)
        rows = encoding.output.isel(sample=0, drop=True)
        objectives = [1 * rows.isel({rows.dims[0]: k}) for k in range(len(self.lower))]
        encoding.model.add_objective(objectives[0])
        with open_problem(encoding, self.settings.mip.solver, options=self.settings.mip.options) as problem:
            for group, own, end in self._in_turn(self.settings.end):
                for left, row in zip(range(len(own), 0, -1), own.tolist(), strict=True):
                    now = time.monotonic()
                    if now >= self.settings.end or self.interrupted:
                        return
                    if self.open[row]:
                        problem.set_objective(objectives[row], sense="min")
                        start = encoding.point(self.point[group][None])
                        x = self._solved(problem, row, now + max(0.01, (end - now) / left), start)
                        self.learn(np.empty((0, *self.network.input_shape)) if x is None else encoding.value("input", x))

    def _solved(self, problem: OpenProblem, row: int, end: float, start: Array) -> Array | None:
        """One solve: its bound is taken down, and its point returned."""
        program, level = problem.problem.program, float(self.level[self.rows.group[row]])
        off = margin(program, program.cost, program.offset)
        stop = level + off if Feature.BOUND_STOP in self.settings.mip.solver.features else None
        found = problem.solve(limits=Limits(time=max(0.01, end - time.monotonic()), gap=1e-9, bound_stop=stop), start=start)
        self.nodes += found.nodes
        self.interrupted = found.status is Status.INTERRUPTED
        self.improve("mip", np.array([row]), np.array([found.bound - off]))
        return found.point
