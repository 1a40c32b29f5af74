"""The importance program in reduced space: posed from a frozen network, solved by cut rounds, replayed by another derivative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from mipnet.arrays import Array, Csr
from mipnet.backend import Program, Rows
from mipnet.errors import InputError
from mipnet.model.losses import check_labels
from mipnet.network.gates import Gate, find_gates
from mipnet.network.graph import Network
from mipnet.network.sets import Samples
from mipnet.pruning.importance.frozen import BUNDLES, Frozen, LossRows, derivative_along, freeze, frozen_actions, nominal, pattern_rows
from mipnet.pruning.importance.sparsity import layer_sizes
from mipnet.solving.problem import Problem, Start
from mipnet.solving.separators import Separator

if TYPE_CHECKING:
    from mipnet.pruning.importance.question import Importance


@dataclass(eq=False)
class Reduced(Problem):
    """The reduced-space program of an importance question, as the engine solves it."""

    frozen: Frozen
    loss: LossRows
    program: Program
    separators: Sequence[Separator]
    sizes: Array

    @property
    def network(self) -> Network:
        """The network in question."""
        return self.frozen.network

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates whose scores are the variables."""
        return self.frozen.gates

    @property
    def count(self) -> int:
        """How many scores there are."""
        return int(self.frozen.jacobian.shape[2])

    def costs_at(self, weight: float) -> Array:
        """What each column costs at a loss weight."""
        cost = self.program.cost.copy()
        cost[self.loss.first_t :] = weight / len(self.loss.labels)
        return cost

    def start(self, wanted: Start) -> Array | None:
        """All gates open, as far as their bounds let them, or the scores of a point given by column."""
        if isinstance(wanted, str):
            opened = np.clip(1.0, self.program.lower[: self.count], self.program.upper[: self.count])
            return None if wanted == "none" else self.completed(opened)
        if wanted.shape != self.program.cost.shape:
            raise InputError(f"the start has shape {wanted.shape}; expected one number for each of {self.program.columns} columns")
        return self.completed(wanted[: self.count])

    def completed(self, scores: Array) -> Array:
        """The point with these scores and everything else as small as it may be."""
        x, layers = np.zeros(self.program.columns), len(self.gates)
        x[: self.count] = scores
        ends = np.cumsum([g.units for g in self.gates])
        level = x[self.count : self.count + layers]
        level[:] = [(scores[e - g.units : e] - 2).sum() / n for g, e, n in zip(self.gates, ends, self.sizes, strict=True)]
        if self.loss.first_t > self.count + layers:
            x[self.count + layers] = np.sort(level)[1]
            x[self.count + layers + 1 : self.loss.first_t] = np.maximum(level - np.sort(level)[1], 0.0)
        return self.loss.lift(x)

    def replay(self, x: Array, *, compare: bool = True) -> tuple[Array, float | None]:
        """Logits by one forward-mode pass along ``scores - 1``, independent of the Jacobians that made the program."""
        scores = np.clip(x[: self.count], 0.0, 1.0)
        scores = np.round(scores) if self.program.integer.any() else scores
        if not compare:
            return self.completed(scores), 0.0
        truth = forward_logits(self.frozen, scores)
        return self.completed(scores), float((np.abs(self.frozen.at(scores) - truth) / (1 + np.abs(truth))).max(initial=0.0))

    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """The scores by gate."""
        return self.scores(x), x

    def scores(self, x: Array) -> xr.Dataset:
        """The scores of a point, one array a gate."""
        ends = np.cumsum([g.units for g in self.gates])
        found = {g.name: (g.dim, x[e - g.units : e]) for g, e in zip(self.gates, ends, strict=True)}
        return xr.Dataset(found, coords={g.dim: np.arange(g.units) for g in self.gates})


def pose_reduced(question: Importance) -> Reduced:
    """Freeze the network on the images and write the reduced-space program."""
    gates = find_gates(question.network, question.gates)
    frozen = freeze(question.network, gates, Samples(question.images).fit(question.network.input_shape).lower)
    program, loss = reduced_program(question, frozen, check_labels(question.labels, *frozen.logits.shape))
    separators: list[Separator] = [loss, *pattern_rows(frozen, question.pattern, question.epsilon)]
    return Reduced(frozen, loss, program, separators, layer_sizes(question.network, gates, question.normalize))


def reduced_program(task: Importance, frozen: Frozen, labels: NDArray[np.int64]) -> tuple[Program, LossRows]:
    """Columns: the scores, I_l of each layer, for ``layers="paper"`` q and r_l, and the losses t_b of the bundles."""
    gates, samples = frozen.gates, len(labels)
    scores, layers = sum(g.units for g in gates), len(gates)
    largest = task.layers == "paper" and layers > 1
    first_t = scores + layers + (1 + layers if largest else 0)
    bundle = np.arange(samples) * min(BUNDLES, samples) // samples
    width = first_t + int(bundle[-1]) + 1
    rows, ends = _sparsity(task, frozen, width, largest)
    cost, lower, upper = np.zeros(width), np.full(width, -np.inf), np.full(width, np.inf)
    cost[scores : scores + layers] = 0.0 if largest else 1.0
    if largest:
        cost[scores + layers], cost[scores + layers + 1 : first_t] = layers - 1, 1.0
        lower[scores + layers + 1 : first_t] = 0.0
    cost[first_t:] = task.weight / samples
    lower[:scores], upper[:scores], lower[first_t:] = 0.0, 1.0, 0.0
    integer = np.arange(width) < (scores if task.kind == "binary" else 0)
    return Program(cost, Rows(rows, *ends), lower, upper, integer), LossRows(frozen, labels, task.loss, bundle, first_t)


def _sparsity(task: Importance, frozen: Frozen, width: int, largest: bool) -> tuple[Csr, tuple[Array, Array]]:
    """``I_l - sum_i s_i / N_l = -2 n_l / N_l`` for each layer l, and ``r_l - I_l + q >= 0``."""
    gates, layers = frozen.gates, len(frozen.gates)
    scores = sum(g.units for g in gates)
    sizes, units = layer_sizes(task.network, gates, task.normalize), np.array([g.units for g in gates])
    matrix = np.zeros((2 * layers if largest else layers, width))
    each = np.arange(layers)
    matrix[np.repeat(each, units), np.arange(scores)] = -1.0 / np.repeat(sizes, units)
    matrix[each, scores + each] = 1.0
    low = high = -2.0 * units / sizes
    if largest:
        matrix[layers + each, scores + each] = -1.0
        matrix[layers:, scores + layers] = 1.0
        matrix[layers + each, scores + layers + 1 + each] = 1.0
        low, high = np.concatenate([low, np.zeros(layers)]), np.concatenate([high, np.full(layers, np.inf)])
    return Csr(matrix), (low, high)


def forward_logits(frozen: Frozen, scores: Array, chunk: int = 512) -> Array:
    """The logits of the frozen network by one forward-mode pass along ``scores - 1``: no Jacobian takes part."""
    step = torch.tensor(scores) - 1.0
    parts = []
    for images in torch.tensor_split(frozen.images, list(range(chunk, len(frozen.images), chunk))):
        at_one = nominal(frozen.network, images)

        def logits(s: torch.Tensor, images: torch.Tensor = images, at_one: dict[str, torch.Tensor] = at_one) -> torch.Tensor:
            return frozen.network.values(images, frozen_actions(frozen.gates, s, at_one))[frozen.network.output.name]

        value, moved = derivative_along(logits, torch.ones_like(step), step)
        parts.append(value + moved)
    return np.asarray(torch.cat(parts).detach().numpy())
