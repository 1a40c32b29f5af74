"""Primal search: good points of a network's program by projected gradient steps in torch, without a solver.

Where a program is a network over a box, or one whose gates have scores, all of its variables follow from a few *free* ones, the input
and the scores: a forward pass computes the others.  So the objective is a function of the free ones that torch can differentiate, and
many starts take steps down it at once, as one batch in float64.  Half of them step by the sign of the slope (Madry et al. 2018), half by
Adam, both in units of each variable's range; whole-numbered ones are rounded before the pass and take the slope as if they were not.

Rows that read nothing but what a pass computes (a budget on scores, a property of the output) are penalised by their violation.  A
search proves nothing, and whoever uses a point of it checks that it is feasible.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipnet.arrays import Array, Columns
from mipnet.backend import Program
from mipnet.model.encoding import Encoding
from mipnet.model.to_program import column_lookup
from mipnet.network.gates import gated_value
from mipnet.network.graph import INPUT, size

STEP_SIZE_FIRST, STEP_SIZE_LAST = 0.25, 0.01
"""Sizes of the first and the last step, in units of a variable's range."""

BATCH_VALUES_MAX = 20_000_000
"""So many values of nodes are held for one batch: 160 MB."""

VIOLATION_PENALTY = 10.0
"""What a unit of violation costs, in units of the largest coefficient of the objective."""

PENALISED_ROW_TOLERANCE = 1e-9
"""A point counts as one if it misses no penalised row or bound by more than this times its size."""


@dataclass(eq=False)
class GradientSearch:
    """The search for points of small objective of a program, most of whose columns belong to the networks in ``encodings``."""

    program: Program
    encodings: Sequence[Encoding]

    @cached_property
    def free(self) -> Columns:
        """The columns that all else follows from: the networks' inputs, as far as they are not fixed, and their scores."""
        labels = [_inputs(each) for each in self.encodings]
        labels += [variable.labels.values for each in self.encodings for variable in each.scores.values()]
        return self._where[np.unique(np.concatenate(labels))] if labels else np.empty(0, dtype=np.int64)

    @cached_property
    def differentiable(self) -> bool:
        """True if the objective reads only what a forward pass in torch computes; else points can be tried, but not improved."""
        return bool(self._known[np.flatnonzero(self.program.cost)].all())

    @property
    def starts(self) -> Array:
        """The middle of the free columns' bounds, or their upper ends for scores: where a plain forward pass is taken."""
        lower, upper = self._ends
        middle = (lower + upper) / 2
        owned = [self._where[v.labels.values] for each in self.encodings for v in each.scores.values()]
        scores = np.isin(self.free, np.concatenate(owned)) if owned else np.zeros(len(middle), dtype=np.bool_)
        return np.where(scores, upper, middle)

    @cached_property
    def at_once(self) -> int:
        """How many starts fit into a batch: `BATCH_VALUES_MAX` numbers in all, and one at least."""
        each = sum(len(e.samples) * sum(size(e.network.shape_of(node.name)) for node in e.network.nodes) for e in self.encodings)
        return max(1, BATCH_VALUES_MAX // max(1, each))

    def random(self, count: int, rng: np.random.Generator) -> Array:
        """Points for the free columns: half of them uniform, half corners."""
        lower, upper = self._ends
        share = rng.uniform(size=(count, len(lower)))
        share[count // 2 :] = np.round(share[count // 2 :])
        return lower + share * (upper - lower)

    def descend(self, begin: Array, steps: int, seconds: float) -> Array:
        """The best point on the way from each start (rows of ``begin``, values of the free columns, `at_once` of them), best first.

        Those that miss what is penalised come last.  The starts themselves count, and no step is begun after ``seconds``.
        """
        ends = time.perf_counter() + seconds
        steps, begin = steps if self.differentiable else 0, begin[: self.at_once]
        lower, upper = (torch.as_tensor(end) for end in self._ends)
        span = upper - lower
        place = ((torch.as_tensor(begin) - lower) / torch.where(span > 0, span, 1.0)).clamp(0, 1)
        step, best = _SignOrAdamStep(place), _BestPoints(place)
        for k in range(steps + 1):
            place.requires_grad_(steps > 0)
            merit, value, missed = self._merit(self._rounded(lower + span * place))
            best.see(place.detach(), value.detach(), missed.detach())
            if k == steps or time.perf_counter() > ends:
                break
            (slope,) = torch.autograd.grad(merit.sum(), place)
            place = step(place.detach(), slope, STEP_SIZE_FIRST * (STEP_SIZE_LAST / STEP_SIZE_FIRST) ** (k / max(1, steps - 1)))
        with torch.no_grad():
            found = self._rounded(lower + span * best.place)
        return np.asarray(found[torch.argsort(best.value)].numpy())

    def completed(self, free: Array, x: Array | None = None) -> Array:
        """A point by column with these free values: elsewhere as in ``x``, or unknown."""
        point = np.full(self.program.columns, np.nan) if x is None else x[: self.program.columns].copy()
        point[self.free] = free
        return point

    @cached_property
    def _where(self) -> Columns:
        return column_lookup(np.asarray(self.program.labels))

    @cached_property
    def _ends(self) -> tuple[Array, Array]:
        return self.program.lower[self.free], self.program.upper[self.free]

    @cached_property
    def _whole(self) -> Tensor:
        return torch.as_tensor(self.program.integer[self.free])

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        """The columns that a pass in torch computes: the free ones, outputs, and what is derived of these."""
        known = np.zeros(self.program.columns, dtype=np.bool_)
        known[self.free] = True
        for each in self.encodings:
            for labels in (each.output.labels.values, *(labels for labels, _ in each.derived)):
                known[self._where[np.asarray(labels).reshape(-1)]] = True
        return known

    @cached_property
    def _penalised(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows that read known columns only, each divided by its size: a sparse matrix and both ends; and the known columns."""
        rows = self.program.rows.part(abs(self.program.rows.matrix) @ (~self._known).astype(np.float64) == 0)
        norm = np.maximum(1e-12, np.sqrt((rows.matrix * rows.matrix).sum(axis=1)))
        entries = rows.matrix.tocoo()
        index = torch.as_tensor(np.stack([entries.row, entries.col]).astype(np.int64))
        matrix = torch.sparse_coo_tensor(index, entries.data / norm[entries.row], entries.shape, check_invariants=False).coalesce()
        lower, upper = (torch.as_tensor(end / norm) for end in (rows.lower, rows.upper))
        return matrix, lower, upper, torch.as_tensor(np.flatnonzero(self._known))

    def _rounded(self, free: Tensor) -> Tensor:
        """Whole-numbered columns rounded; their slopes are those of the columns before."""
        return torch.where(self._whole, free + (torch.round(free) - free).detach(), free)

    def _merit(self, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What to descend, the objective, and the largest violation, each by start."""
        point = self._pass(free)
        matrix, lower, upper, known = self._penalised
        rows, columns = (matrix @ point.T).T, point[:, known]
        ends = (torch.as_tensor(end)[known] for end in (self.program.lower, self.program.upper))
        missed = torch.cat([_outside(rows, lower, upper), _outside(columns, *ends)], dim=1)
        value = point @ torch.as_tensor(self.program.cost)
        largest = float(np.abs(self.program.cost).max(initial=1e-12))
        if not self.differentiable:
            value = self._evaluated(free)
        worst = (missed / (1 + torch.cat([rows, columns], dim=1).abs())).amax(dim=1) if missed.shape[1] else torch.zeros(len(free))
        return value + VIOLATION_PENALTY * largest * missed.sum(dim=1), value, worst

    def _pass(self, free: Tensor) -> Tensor:
        """A point by column for each start, known columns filled in: forward passes of all networks in one batch each."""
        point = torch.zeros(len(free), self.program.columns, dtype=torch.float64).index_copy(1, torch.as_tensor(self.free), free)
        for each in self.encodings:
            output = self._output(each, point)
            point = point.index_copy(1, self._columns(each.output.labels.values), output.reshape(len(free), -1))
            for labels, function in each.derived:
                value = function(self._by_label(each, point))
                point = point.index_copy(1, self._columns(labels), value.reshape(len(free), -1))
        return point

    def _columns(self, labels: Columns) -> Tensor:
        return torch.as_tensor(self._where[np.asarray(labels).reshape(-1)])

    def _by_label(self, encoding: Encoding, point: Tensor) -> Tensor:
        wide = torch.zeros(len(point), encoding.model._xCounter, dtype=torch.float64)
        return wide.index_copy(1, torch.as_tensor(np.asarray(self.program.labels)), point)

    def _output(self, encoding: Encoding, point: Tensor) -> Tensor:
        count, source = len(point), encoding.values[INPUT]
        x = torch.tensor(source.constant).expand(count, *source.shape)
        if not source.is_fixed:
            x = point[:, self._columns(_inputs(encoding))].reshape(count, *source.shape)
        return encoding.network.values(x.flatten(0, 1), self._gates(encoding, point))[encoding.network.output.name]

    def _gates(self, encoding: Encoding, point: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
        actions: dict[str, Callable[[Tensor], Tensor]] = {}
        for gate in encoding.gates:
            score = point[:, self._columns(encoding.scores[gate.name].labels.values)]
            score = score.repeat_interleave(len(encoding.samples), dim=0)
            for site in gate.sites:
                tops = {side: np.concatenate([top] * len(point)) for side, top in encoding.blocks[site].notes.gate_thresholds.items()}
                actions[site] = partial(gated_value, thresholds=tops, score=score)
        return actions

    def _evaluated(self, free: Tensor) -> Tensor:
        """The objective by the encodings' own forward passes, for one that reads what torch does not compute; NaN counts as infinite."""
        values = []
        for each in free.detach().numpy():
            point = np.full(int(np.max(np.asarray(self.program.labels))) + 1, np.nan)
            point[np.asarray(self.program.labels)[self.free]] = each
            for encoding in self.encodings:
                scores = {name: point[v.labels.values] for name, v in encoding.scores.items()}
                found = encoding.point(encoding.value(INPUT, point), scores)[: len(point)]
                point = np.where(np.isnan(found), point, found)
            values.append(float(self.program.cost @ point[self.program.labels]))
        return torch.nan_to_num(torch.tensor(values, dtype=torch.float64), nan=torch.inf)


class _SignOrAdamStep:
    """Steps by sign for even starts, by Adam for odd ones."""

    def __init__(self, place: Tensor) -> None:
        self.first, self.second, self.count = torch.zeros_like(place), torch.zeros_like(place), 0
        self.even = (torch.arange(len(place)) % 2 == 0)[:, None]

    def __call__(self, place: Tensor, slope: Tensor, size: float) -> Tensor:
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * slope
        self.second = 0.99 * self.second + 0.01 * slope * slope
        first, second = self.first / (1 - 0.9**self.count), self.second / (1 - 0.99**self.count)
        move = torch.where(self.even, torch.sign(slope), first / (second.sqrt() + 1e-12))
        return (place - size * move).clamp(0, 1)


class _BestPoints:
    """The best place that each start has seen; one that misses what is penalised counts as infinitely bad."""

    def __init__(self, place: Tensor) -> None:
        self.place, self.value = place.clone(), torch.full((len(place),), torch.inf, dtype=torch.float64)

    def see(self, place: Tensor, value: Tensor, missed: Tensor) -> None:
        value = torch.where(missed <= PENALISED_ROW_TOLERANCE, value, torch.inf)
        better = value < self.value
        self.place, self.value = torch.where(better[:, None], place, self.place), torch.where(better, value, self.value)


def _inputs(encoding: Encoding) -> Columns:
    """The labels of the variables that a network reads, none if its input is fixed."""
    source = encoding.values[INPUT]
    return np.empty(0, dtype=np.int64) if source.is_fixed else source.terms.indices.astype(np.int64)


def _outside(value: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.relu(lower - value) + torch.relu(value - upper)
