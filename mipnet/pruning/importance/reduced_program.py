"""The importance program in reduced space: written from a frozen network, with the scores and losses as its only variables.

The program of `mipnet.pruning.importance.program` holds every value of the gated network.  This one holds the scores, the sparsity of
each layer and one loss variable per bundle of images, for networks and batches that are too large for the full program.  All other rows
are written when a point violates them (`mipnet.pruning.importance.frozen_loss_rows`).  A point is replayed by forward-mode derivatives,
which are independent of the Jacobians in the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from mipnet.arrays import Array, Csr, Ints
from mipnet.backend import Program, Rows
from mipnet.errors import InputError
from mipnet.limits.deadline import Deadline
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.importance.frozen_loss_rows import LossRows, pattern_rows
from mipnet.pruning.importance.frozen_network import FrozenNetwork, derivative_along, frozen_actions, nominal
from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.paper_bounds import PaperBounds
from mipnet.pruning.importance.sparsity import layer_sizes
from mipnet.solving.problem import Problem, Start
from mipnet.solving.separators import Separator

LOSS_VARIABLES_MAX = 200
"""Loss variables of one program; with more images, a loss variable holds the sum over several of them, a bundle."""


@dataclass(eq=False)
class ReducedProgram(Problem):
    """The reduced-space program of an importance question, as the engine solves it."""

    frozen: FrozenNetwork
    loss: LossRows
    program: Program
    separators: Sequence[Separator]
    sizes: Array

    @property
    def network(self) -> Network:
        """The network."""
        return self.frozen.network

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates whose scores are the variables."""
        return self.frozen.gates

    @property
    def count(self) -> int:
        """The number of scores."""
        return int(self.frozen.jacobian.shape[2])

    def costs_at(self, weight: float) -> Array:
        """Return the cost of each column at a loss weight."""
        cost = self.program.cost.copy()
        cost[self.loss.first_t :] = weight / len(self.loss.labels)
        return cost

    def start(self, wanted: Start) -> Array | None:
        """Return the point with all scores at 1 (or at the nearer bound), or the point with the scores of ``wanted``, given by column."""
        if isinstance(wanted, str):
            opened = np.clip(1.0, self.program.lower[: self.count], self.program.upper[: self.count])
            return None if wanted == "none" else self.completed(opened)
        if wanted.shape != self.program.cost.shape:
            raise InputError(f"the start has shape {wanted.shape}; expected one number for each of {self.program.columns} columns")
        return self.completed(wanted[: self.count])

    def completed(self, scores: Array) -> Array:
        """Return the point with these scores, and the smallest feasible value of every other column."""
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
        """Return the point of the replayed scores, and the largest difference of its logits from those of a forward-mode pass."""
        scores = np.clip(x[: self.count], 0.0, 1.0)
        scores = np.round(scores) if self.program.integer.any() else scores
        if not compare:
            return self.completed(scores), 0.0
        truth = forward_logits(self.frozen, scores)
        return self.completed(scores), float((np.abs(self.frozen.at(scores) - truth) / (1 + np.abs(truth))).max(initial=0.0))

    def labelled(self, x: Array) -> tuple[xr.Dataset, Array]:
        """Return the scores by gate."""
        return self.scores(x), x

    def scores(self, x: Array) -> xr.Dataset:
        """Return the scores of a point, one array per gate."""
        ends = np.cumsum([g.units for g in self.gates])
        found = {g.name: (g.dim, x[e - g.units : e]) for g, e in zip(self.gates, ends, strict=True)}
        return xr.Dataset(found, coords={g.dim: np.arange(g.units) for g in self.gates})


def reduced_program(
    frozen: FrozenNetwork, labels: Ints, objective: Objective, paper: PaperBounds, deadline: Deadline, *, binary: bool
) -> ReducedProgram:
    """Write the reduced-space program of a frozen network.

    Columns: the scores, I_l of each layer, for ``layers="paper"`` q and r_l, and the losses t_b of the bundles.
    """
    gates, samples = frozen.gates, len(labels)
    scores, layers, sizes = sum(g.units for g in gates), len(gates), layer_sizes(frozen.network, gates, objective.normalize)
    largest = objective.layers == "paper" and layers > 1
    first_t = scores + layers + (1 + layers if largest else 0)
    bundle = np.arange(samples) * min(LOSS_VARIABLES_MAX, samples) // samples
    width = first_t + int(bundle[-1]) + 1
    cost, lower, upper = np.zeros(width), np.full(width, -np.inf), np.full(width, np.inf)
    cost[scores : scores + layers] = 0.0 if largest else 1.0
    if largest:
        cost[scores + layers], cost[scores + layers + 1 : first_t] = layers - 1, 1.0
        lower[scores + layers + 1 : first_t] = 0.0
    cost[first_t:] = objective.weight / samples
    lower[:scores], upper[:scores], lower[first_t:] = 0.0, 1.0, 0.0
    integer = np.arange(width) < (scores if binary else 0)
    program = Program(cost, _sparsity_rows(gates, sizes, width, largest), lower, upper, integer)
    loss = LossRows(frozen, labels, objective.loss, bundle, first_t)
    return ReducedProgram(frozen, loss, program, [loss, *pattern_rows(frozen, paper, deadline)], sizes)


def _sparsity_rows(gates: Sequence[Gate], sizes: Array, width: int, largest: bool) -> Rows:
    """Return ``I_l - sum_i s_i / N_l = -2 n_l / N_l`` for each layer l, and ``r_l - I_l + q >= 0``."""
    layers, units = len(gates), np.array([g.units for g in gates])
    scores = int(units.sum())
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
    return Rows(Csr(matrix), low, high)


def forward_logits(frozen: FrozenNetwork, scores: Array, chunk: int = 512) -> Array:
    """Return the logits of the frozen network by one forward-mode pass along ``scores - 1``, without its Jacobians."""
    step = torch.tensor(scores) - 1.0
    parts = []
    for images in torch.tensor_split(frozen.images, list(range(chunk, len(frozen.images), chunk))):
        at_one = nominal(frozen.network, images)

        def logits(s: torch.Tensor, images: torch.Tensor = images, at_one: dict[str, torch.Tensor] = at_one) -> torch.Tensor:
            return frozen.network.values(images, frozen_actions(frozen.gates, s, at_one))[frozen.network.output.name]

        value, moved = derivative_along(logits, torch.ones_like(step), step)
        parts.append(value + moved)
    return np.asarray(torch.cat(parts).detach().numpy())
