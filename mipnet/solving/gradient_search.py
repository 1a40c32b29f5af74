"""Primal search: good points of a network's program by projected gradient steps in torch, without a solver.

If the input of a network ranges over a box, or its gates have scores, then the *free* variables, the input and the scores, determine all
others by a forward pass.  The objective is then a differentiable function of the free variables.  The search takes gradient steps from
many starting points at once, as one batch in float64.  Half of the points step by the sign of the gradient (Madry et al. 2018), and half
by Adam, both in units of each variable's range.  Integer variables are rounded before the forward pass, and their gradient is that of
the value before rounding.

Rows whose variables are all computed by the forward pass, such as a budget on scores or a property of the output, are penalised by their
violation.  The points of a search may be infeasible, so they have to be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array, Columns, Mask
from mipnet.backend import Program
from mipnet.formulations.affine import Affine
from mipnet.limits.deadline import Deadline
from mipnet.limits.memory import count_in_memory
from mipnet.model.encoding import Encoding
from mipnet.model.to_program import column_lookup
from mipnet.network.gates import gated_value
from mipnet.network.graph import size
from mipnet.network.pass_cost import GRADIENT_ELEMENT_BYTES

STEP_SIZE_FIRST, STEP_SIZE_LAST = 0.25, 0.01
"""Sizes of the first and the last step, in units of a variable's range."""

BATCH_VALUES_MAX = 20_000_000
"""Largest number of node values in one batch; they take 160 MB."""

VIOLATION_PENALTY = 10.0
"""Penalty per unit of violation, relative to the largest absolute coefficient of the objective."""

PENALISED_ROW_TOLERANCE = 1e-9
"""Largest violation of a penalised row or bound by a point that the search returns as feasible, relative to 1 + the absolute value."""


class PenalisedRows(NamedTuple):
    """Rows that contain computed columns only, each divided by its norm: ``lower <= matrix @ x <= upper``; and the computed columns."""

    matrix: Tensor
    lower: Tensor
    upper: Tensor
    columns: Tensor


class Merit(NamedTuple):
    """The values of some points, one per point: objective plus penalty, the objective, and the largest relative violation."""

    penalised: Tensor
    objective: Tensor
    violation: Tensor


@dataclass(eq=False)
class GradientSearch:
    """A search for points of a program with a small objective, by forward passes of the networks in ``encodings``."""

    program: Program
    encodings: Sequence[Encoding]

    @cached_property
    def free(self) -> Columns:
        """The free columns: the inputs of the networks that are not fixed, and their scores."""
        labels = [_input_labels(each) for each in self.encodings]
        labels += [variable.labels.values for each in self.encodings for variable in each.scores.values()]
        return self._where[np.unique(np.concatenate(labels))] if labels else np.empty(0, dtype=np.int64)

    @cached_property
    def differentiable(self) -> bool:
        """True if a forward pass in torch computes all columns of the objective; otherwise the search only compares its starts."""
        quadratic = self.program.quadratic
        used = self.program.cost != 0 if quadratic is None else (self.program.cost != 0) | (np.diff(quadratic.indptr) > 0)
        return bool(self._computed[used].all())

    @property
    def starts(self) -> Array:
        """The point of a forward pass without a search: the centre of the bounds of the inputs, and the upper bounds of the scores."""
        lower, upper = self._ends
        middle = (lower + upper) / 2
        owned = [self._where[v.labels.values] for each in self.encodings for v in each.scores.values()]
        scores = np.isin(self.free, np.concatenate(owned)) if owned else np.zeros(len(middle), dtype=np.bool_)
        return np.where(scores, upper, middle)

    @cached_property
    def batch_size(self) -> int:
        """Number of points in one batch: at most `BATCH_VALUES_MAX` node values, no more than fit into memory, and at least one point."""
        each = sum(len(e.samples) * sum(size(e.network.shape_of(node.name)) for node in e.network.nodes) for e in self.encodings)
        return count_in_memory(GRADIENT_ELEMENT_BYTES * each, max(1, BATCH_VALUES_MAX // max(1, each)))

    def random(self, count: int, rng: np.random.Generator) -> Array:
        """Return ``count`` values of the free columns, shape ``(count, free)``: half of them uniform, half corners of their bounds."""
        lower, upper = self._ends
        share = rng.uniform(size=(count, len(lower)))
        share[count // 2 :] = np.round(share[count // 2 :])
        return lower + share * (upper - lower)

    def descend(self, begin: Array, steps: int, deadline: Deadline) -> Array:
        """Return the best point that gradient steps reach from each start, the best one first; points that violate a row come last.

        ``begin`` has shape ``(starts, free)``; the first `batch_size` rows are used.  The starts themselves are candidates too.  No step
        begins after the deadline.
        """
        steps, begin = steps if self.differentiable else 0, begin[: self.batch_size]
        lower, upper = (torch.as_tensor(end) for end in self._ends)
        span = upper - lower
        place = ((torch.as_tensor(begin) - lower) / torch.where(span > 0, span, 1.0)).clamp(0, 1)
        step, best = _SignOrAdamStep(place), _BestPoints(place)
        for k in range(steps + 1):
            place.requires_grad_(steps > 0)
            merit = self._merit(self._rounded(lower + span * place))
            best.update(place.detach(), merit.objective.detach(), merit.violation.detach())
            if k == steps or deadline.passed:
                break
            (gradient,) = torch.autograd.grad(merit.penalised.sum(), place)
            place = step(place.detach(), gradient, STEP_SIZE_FIRST * (STEP_SIZE_LAST / STEP_SIZE_FIRST) ** (k / max(1, steps - 1)))
        with torch.no_grad():
            found = self._rounded(lower + span * best.place)
        return np.asarray(found[torch.argsort(best.value)].numpy())

    def completed(self, free: Array, x: Array | None = None) -> Array:
        """Return a point by column with the given free values; the other columns are those of ``x``, or NaN."""
        point = np.full(self.program.columns, np.nan) if x is None else x[: self.program.columns].copy()
        point[self.free] = free
        return point

    @cached_property
    def _where(self) -> Columns:
        """The column of each variable label."""
        return column_lookup(np.asarray(self.program.labels))

    @cached_property
    def _ends(self) -> tuple[Array, Array]:
        lower, upper = self.program.implied_bounds
        return lower[self.free], upper[self.free]

    @cached_property
    def _computed(self) -> Mask:
        """True for the columns that a forward pass in torch computes: free columns, outputs, and variables derived from them."""
        computed = np.zeros(self.program.columns, dtype=np.bool_)
        computed[self.free] = True
        for each in self.encodings:
            for labels in (each.output_labels, *(labels for labels, _ in each.derived)):
                computed[self._where[np.asarray(labels).reshape(-1)]] = True
        return computed

    @cached_property
    def _penalised(self) -> PenalisedRows:
        rows = self.program.rows.part(abs(self.program.rows.matrix) @ (~self._computed).astype(np.float64) == 0)
        norm = np.maximum(1e-12, np.sqrt((rows.matrix * rows.matrix).sum(axis=1)))
        entries = rows.matrix.tocoo()
        index = torch.as_tensor(np.stack([entries.row, entries.col]).astype(np.int64))
        matrix = torch.sparse_coo_tensor(index, entries.data / norm[entries.row], entries.shape, check_invariants=False).coalesce()
        lower, upper = (torch.as_tensor(end / norm) for end in (rows.lower, rows.upper))
        return PenalisedRows(matrix, lower, upper, torch.as_tensor(np.flatnonzero(self._computed)))

    def _rounded(self, free: Tensor) -> Tensor:
        """Round the integer columns; their gradient is that of the values before rounding."""
        integer = torch.as_tensor(self.program.integer[self.free])
        return torch.where(integer, free + (torch.round(free) - free).detach(), free)

    def _merit(self, free: Tensor) -> Merit:
        point, penalised = self._forward(free), self._penalised
        rows, columns = (penalised.matrix @ point.T).T, point[:, penalised.columns]
        ends = (torch.as_tensor(end)[penalised.columns] for end in (self.program.lower, self.program.upper))
        violation = torch.cat([_violation(rows, penalised.lower, penalised.upper), _violation(columns, *ends)], dim=1)
        objective = self._objective(point) if self.differentiable else self._evaluated(free)
        penalty = VIOLATION_PENALTY * float(np.abs(self.program.cost).max(initial=1e-12))
        relative = violation / (1 + torch.cat([rows, columns], dim=1).abs())
        largest = relative.amax(dim=1) if relative.shape[1] else torch.zeros(len(free))
        return Merit(objective + penalty * violation.sum(dim=1), objective, largest)

    def _objective(self, point: Tensor) -> Tensor:
        linear = point @ torch.as_tensor(self.program.cost)
        if self.program.quadratic is None:
            return linear
        entries = self.program.quadratic.tocoo()
        row, column, factor = (torch.as_tensor(np.asarray(part)) for part in (entries.row, entries.col, entries.data))
        return linear + (point[:, row.long()] * point[:, column.long()] * factor).sum(dim=1) / 2

    def _forward(self, free: Tensor) -> Tensor:
        """Return points by column, one per row of ``free``, with all computed columns; one forward pass per network for the batch."""
        point = torch.zeros(len(free), self.program.columns, dtype=torch.float64).index_copy(1, torch.as_tensor(self.free), free)
        for each in self.encodings:
            output = self._network_output(each, point)
            point = point.index_copy(1, self._columns(each.output_labels), output.reshape(len(free), -1))
            for labels, function in each.derived:
                value = function(self._by_label(each, point))
                point = point.index_copy(1, self._columns(labels), value.reshape(len(free), -1))
        return point

    def _columns(self, labels: Columns) -> Tensor:
        return torch.as_tensor(self._where[np.asarray(labels).reshape(-1)])

    def _by_label(self, encoding: Encoding, point: Tensor) -> Tensor:
        wide = torch.zeros(len(point), encoding.model._xCounter, dtype=torch.float64)
        return wide.index_copy(1, torch.as_tensor(np.asarray(self.program.labels)), point)

    def _network_output(self, encoding: Encoding, point: Tensor) -> Tensor:
        count, source = len(point), encoding.source
        x = torch.tensor(source.constant).expand(count, *source.shape)
        if not source.is_fixed:
            x = self._input(source, point)
        return encoding.network.values(x.flatten(0, 1), self._gates(encoding, point))[encoding.network.output.name]

    def _input(self, source: Affine, point: Tensor) -> Tensor:
        """Return the input of a network at points by column, shape ``(point, sample, *input_shape)``."""
        own = self._columns(source.terms.indices.astype(np.int64))
        if (source.row_sizes == 1).all() and (source.terms.data == 1).all() and not source.constant.any():
            return point[:, own].reshape(len(point), *source.shape)
        row = torch.as_tensor(np.repeat(np.arange(source.constant.size), source.row_sizes))
        each = torch.tensor(source.constant.reshape(-1)).expand(len(point), -1)
        return each.index_add(1, row, point[:, own] * torch.as_tensor(source.terms.data)).reshape(len(point), *source.shape)

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
        """Return the objective by `Encoding.point`, which computes more columns than the pass in torch; NaN becomes infinity."""
        values = []
        for each in free.detach().numpy():
            point = np.full(int(np.max(np.asarray(self.program.labels))) + 1, np.nan)
            point[np.asarray(self.program.labels)[self.free]] = each
            for encoding in self.encodings:
                scores = {name: point[v.labels.values] for name, v in encoding.scores.items()}
                found = encoding.point(encoding.source.evaluate(point), scores)[: len(point)]
                point = np.where(np.isnan(found), point, found)
            values.append(self.program.minimised(point[self.program.labels]))
        return torch.nan_to_num(torch.tensor(values, dtype=torch.float64), nan=torch.inf)


class _SignOrAdamStep:
    """Steps by the sign of the gradient for starts with an even number, and by Adam for the others."""

    def __init__(self, place: Tensor) -> None:
        self.first, self.second, self.count = torch.zeros_like(place), torch.zeros_like(place), 0
        self.even = (torch.arange(len(place)) % 2 == 0)[:, None]

    def __call__(self, place: Tensor, gradient: Tensor, size: float) -> Tensor:
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.99 * self.second + 0.01 * gradient * gradient
        first, second = self.first / (1 - 0.9**self.count), self.second / (1 - 0.99**self.count)
        move = torch.where(self.even, torch.sign(gradient), first / (second.sqrt() + 1e-12))
        return (place - size * move).clamp(0, 1)


class _BestPoints:
    """The best point so far per start; the value of a point that violates a penalised row or bound is infinite."""

    def __init__(self, place: Tensor) -> None:
        self.place, self.value = place.clone(), torch.full((len(place),), torch.inf, dtype=torch.float64)

    def update(self, place: Tensor, value: Tensor, violation: Tensor) -> None:
        value = torch.where(violation <= PENALISED_ROW_TOLERANCE, value, torch.inf)
        better = value < self.value
        self.place, self.value = torch.where(better[:, None], place, self.place), torch.where(better, value, self.value)


def _input_labels(encoding: Encoding) -> Columns:
    """Return the labels of the input variables of a network; none if its input is fixed."""
    source = encoding.source
    return np.empty(0, dtype=np.int64) if source.is_fixed else source.terms.indices.astype(np.int64)


def _violation(value: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.relu(lower - value) + torch.relu(value - upper)
