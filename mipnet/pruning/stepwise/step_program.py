"""One step from masks to smaller ones: which units to silence, and which to bring back, as a binary quadratic program.

With m the masks so far, g and H from `mipnet.pruning.stepwise.curvature` at m, and c the parameters that are removed with each unit::

    minimise    g (s - m) + (s - m)' H (s - m) / 2        over s in {0, 1}
    subject to  c (m - s) >= parameters to remove,   at least one unit of each layer stays

The square is written as a sum, ``H / 2 = C' C`` and ``y = C (s - m)``, with tangents to each ``t_k >= y_k^2`` in rounds, so that
every solver of linear integer programs takes it.  The relaxation is weak, because fractions of many units cost next to nothing together;
a search over single flips and swaps gives the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mipnet.arrays import Array, Csr, Mask
from mipnet.backend import Program, Rows
from mipnet.backend.progress import run_in_thread
from mipnet.errors import InputError, TimeLimitReached
from mipnet.limits.deadline import NO_DEADLINE, Deadline, time_limit_text
from mipnet.network.gates import Gate
from mipnet.pruning.stepwise.curvature import Curvature
from mipnet.solving.problem import Problem, Start
from mipnet.solving.separators import TANGENT_VIOLATION_MIN

LOSS_CHANGE_NEGLIGIBLE = 1e-12
"""Changes of the loss up to this size count as 0."""

FACTOR_ENTRY_MIN = 1e-8
"""Entries of C below this size are left out: solvers drop them, and they do not change a loss."""


@dataclass(eq=False)
class StepProgram(Problem):
    """The program of one step from ``kept`` (0 or 1 per score); ``price`` holds the parameters of each unit, ``drop`` those to remove.

    If it is not ``written``, it is there for its search alone, and no solver can take it.  Raises `TimeLimitReached` if the time ends
    before it is written.
    """

    gates: tuple[Gate, ...]
    kept: Array
    curve: Curvature
    price: Array
    drop: float

    deadline: Deadline = NO_DEADLINE
    written: bool = True

    def __post_init__(self) -> None:
        if self.price @ self.kept - self._cheapest < self.drop:
            raise InputError(f"{self.drop:g} parameters cannot be removed: one unit of each layer has to stay")
        if self.written:
            self.program = self._write()
            self.separators = [ChangeSquares(len(self.kept), len(self.factor))]

    @property
    def _cheapest(self) -> float:
        """The smallest number of parameters of one kept unit per layer."""
        return sum(float(self.price[a:b][self.kept[a:b] > 0].min()) for a, b in self.spans)

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """The first column of each gate's scores, and the one after its last."""
        return list(pairwise([0, *np.cumsum([gate.units for gate in self.gates]).tolist()]))

    @cached_property
    def factor(self) -> Array:
        """C with ``C' C = H / 2``, one row per eigenvalue above rounding."""
        found = list[Any]()
        run = run_in_thread(
            lambda: found.append(np.linalg.eigh(self.curve.hessian)),
            lambda: None,
            seconds=self.deadline.seconds,
            patience=0.0,
        )
        if run.ctrl_c:
            raise KeyboardInterrupt
        if not run.ended:
            raise TimeLimitReached(time_limit_text("write the program of a step"))
        values, vectors = found[0]
        large = values > 1e-12 * max(float(values[-1]), 0.0)
        factor = (vectors[:, large] * np.sqrt(values[large] / 2)).T
        return np.asarray(np.where(np.abs(factor) < FACTOR_ENTRY_MIN, 0.0, factor))

    def _write(self) -> Program:
        """Return the program; its columns are the scores, y, t."""
        units, squares, layers = len(self.kept), len(self.factor), len(self.gates)
        width = units + 2 * squares
        matrix = np.zeros((1 + layers + squares, width))
        scale = max(float(self.price.max()), 1.0)
        matrix[0, :units] = self.price / scale
        for layer, (a, b) in enumerate(self.spans):
            matrix[1 + layer, a:b] = 1.0
        matrix[1 + layers :, :units] = -self.factor
        matrix[1 + layers :, units : units + squares] = np.eye(squares)
        shift = -self.factor @ self.kept
        low = np.concatenate([[-np.inf], np.ones(layers), shift])
        high = np.concatenate([[(self.price @ self.kept - self.drop) / scale], np.full(layers, np.inf), shift])
        cost = np.concatenate([self.curve.gradient, np.zeros(squares), np.ones(squares)])
        lower = np.concatenate([np.zeros(units), np.full(squares, -np.inf), np.zeros(squares)])
        upper = np.concatenate([np.ones(units), np.full(2 * squares, np.inf)])
        offset = -float(self.curve.gradient @ self.kept)
        return Program(cost, Rows(Csr(matrix), low, high), lower, upper, np.arange(width) < units, offset=offset)

    def start(self, wanted: Start) -> Array | None:
        """Return the point of the search, or the point with the scores of ``wanted``, given by column."""
        if isinstance(wanted, str):
            return self.completed(self.search()) if wanted == "forward" else None
        return self.completed(wanted[: len(self.kept)])

    def completed(self, scores: Array) -> Array:
        """Return the point with these scores."""
        y = self.factor @ (scores - self.kept)
        return np.concatenate([scores, y, y**2])

    def replay(self, x: Array, *, compare: bool = True) -> tuple[Array, float | None]:
        """Return the point of the rounded scores, and the difference of its sum of squares from the change by H."""
        scores = np.asarray(x[: len(self.kept)] > 0.5, dtype=np.float64)
        point = self.completed(scores)
        truth = self.curve.change(scores - self.kept)
        return point, abs(self.program.objective(point) - truth) / (1 + abs(truth)) if compare else 0.0

    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """Return the scores by gate."""
        found = {gate.name: (gate.dim, x[a:b]) for gate, (a, b) in zip(self.gates, self.spans, strict=True)}
        return xr.Dataset(found, coords={gate.dim: np.arange(gate.units) for gate in self.gates}), x

    def search(self, swaps: int = 1000) -> Array:
        """Return good scores: units are silenced one by one, by loss per parameter, then flipped and swapped while that lowers the loss.

        Nothing is swapped after the deadline; raises `TimeLimitReached` if the units are not chosen before.
        """
        scores, slope, own = self.kept.copy(), self.curve.gradient.copy(), 0.5 * np.diag(self.curve.hessian)
        over = self.drop

        def flip(unit: int) -> None:
            nonlocal over
            change = 1.0 - 2.0 * scores[unit]
            scores[unit] += change
            slope[:] += change * self.curve.hessian[:, unit]
            over += change * self.price[unit]

        while True:
            alone = np.where(self._can_be_silenced(scores), own - slope, np.inf)
            each = np.where(alone <= LOSS_CHANGE_NEGLIGIBLE, -np.inf, alone / np.maximum(self.price, 1e-9))
            each[(self.price <= 0) & (alone > LOSS_CHANGE_NEGLIGIBLE)] = np.inf
            if not (over > 0 or each.min() == -np.inf):
                break
            self.deadline.check("choose the units of a step")
            flip(int(np.lexsort((alone, each))[0]))
        for _ in range(swaps):
            if self.deadline.passed:
                break
            pair = self._best_swap(scores, slope, own, over)
            if pair is None:
                break
            for unit in pair:
                flip(unit)
        return scores

    def _can_be_silenced(self, scores: Array) -> Mask:
        """Return the kept units that are not the last of their layer."""
        free = np.asarray(scores > 0)
        for a, b in self.spans:
            free[a:b] &= scores[a:b].sum() > 1
        return free

    def _best_swap(self, scores: Array, slope: Array, own: Array, over: float) -> tuple[int, ...] | None:
        """Return the unit to silence, to bring back, or both, that lower the objective most; None if none does."""
        go, back = np.flatnonzero(self._can_be_silenced(scores)), np.flatnonzero(scores < 1)
        change = np.zeros((len(go) + 1, len(back) + 1))  # the last row and column stand for no unit
        change[:-1] += (own - slope)[go][:, None]
        change[:, :-1] += (own + slope)[back]
        change[:-1, :-1] -= self.curve.hessian[np.ix_(go, back)]
        after = over - np.append(self.price[go], 0.0)[:, None] + np.append(self.price[back], 0.0)
        change[after > 0] = np.inf
        row, column = np.unravel_index(int(change.argmin()), change.shape)
        if change[row, column] > -LOSS_CHANGE_NEGLIGIBLE:
            return None
        return tuple(int(units[at]) for units, at in ((go, row), (back, column)) if at < len(units))


@dataclass(frozen=True, eq=False)
class ChangeSquares:
    """``t_k >= y_k^2`` by tangents, for ``count`` columns y from ``first_y`` on, followed by the columns t."""

    first_y: int
    count: int

    def first(self, start: Array | None, width: int) -> Rows:
        """Return tangents at the values of the start, and at their negatives."""
        if start is None:
            return self._tangents(np.arange(0), np.empty(0), width)
        each, y = np.arange(self.count), start[self.first_y : self.first_y + self.count]
        return self._tangents(np.tile(each, 2), np.concatenate([y, -y]), width)

    def separate(self, x: Array, width: int) -> Rows:
        """Return a tangent for each square that is too low."""
        y, t = x[self.first_y :][: 2 * self.count].reshape(2, -1)
        low = np.flatnonzero(y**2 - t > TANGENT_VIOLATION_MIN)
        return self._tangents(low, y[low], width)

    def lift(self, x: Array) -> Array:
        """Return the point with each t at its square, if it is lower."""
        y, t = x[self.first_y :][: 2 * self.count].reshape(2, -1)
        return np.concatenate([x[: self.first_y], y, np.maximum(t, y**2), x[self.first_y + 2 * self.count :]])

    def _tangents(self, which: NDArray[np.intp], at: Array, width: int) -> Rows:
        """Return the rows ``t - 2 a y >= -a^2``."""
        rows, y = np.arange(len(which)), self.first_y + which
        data = np.concatenate([np.ones(len(which)), -2.0 * at])
        matrix = Csr((data, (np.tile(rows, 2), np.concatenate([y + self.count, y]))), shape=(len(which), width))
        return Rows(matrix, -(at**2), np.full(len(which), np.inf))
