"""The separators of the reduced-space importance program: rows that are written when a point violates them.

`LossRows` are the tangents of the loss.  `PatternRows` are the rows of the activation pattern::

    paper   0 <= z <= u  for active units,  l <= z <= 0  for inactive units,  the winner of each pooling window stays the winner
    upper   only the upper ends:  z <= u,  z <= 0
    free    no rows: the loss alone decides

``paper`` has the optimum of the published program (ElAraby et al. 2023) under its bounds, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipnet.arrays import Array, Csr
from mipnet.backend import Rows
from mipnet.backend.rows import stack_rows
from mipnet.bounds.propagation import propagate
from mipnet.errors import UnsupportedError
from mipnet.layers import ReLU
from mipnet.layers.maximum import WindowMaximum
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.memory import check_memory
from mipnet.model.losses import Loss
from mipnet.network.graph import size
from mipnet.network.sets import Box
from mipnet.pruning.importance.frozen_network import FrozenNetwork, closed_at, frozen_actions, nominal, subtract_gated
from mipnet.pruning.importance.paper_bounds import PaperBounds

PATTERN_ROWS_MAX = 3
"""Largest number of rows per image and layer that are written at once."""

PATTERN_ELEMENT_BYTES, PATTERN_ENTRY_BYTES = 64, 24
"""Bytes per element of all nodes and images, with its derivatives, and per entry of the rows that are written at once."""


@dataclass(frozen=True, eq=False)
class LossRows:
    """The loss as a separator: ``t_b >= sum of the loss over bundle b``, by tangents.  Scores are the first columns, t the last."""

    frozen: FrozenNetwork
    labels: NDArray[np.int64]
    loss: Loss
    bundle: NDArray[np.int64]
    first_t: int

    def first(self, start: Array | None, width: int) -> Rows:
        """Return the tangents at scores of 1, and at scores of 1/2."""
        count = sum(g.units for g in self.frozen.gates)
        return stack_rows(*(self._tangents(np.full(count, level), np.arange(self.bundle[-1] + 1), width) for level in (1.0, 0.5)))

    def separate(self, x: Array, width: int) -> Rows:
        """Return the tangents of the bundles whose loss the program underestimates most."""
        missed = self.totals(x) - x[self.first_t :]
        scale = max(1e-7, 0.2 * float(np.maximum(missed, 0).mean()))
        which = np.flatnonzero(missed > scale)
        return self._tangents(x[: self.frozen.jacobian.shape[2]], which, width)

    def lift(self, x: Array) -> Array:
        """Return the point with each t at the true loss of its bundle."""
        x = x.copy()
        x[self.first_t :] = np.maximum(x[self.first_t :], self.totals(x))
        return x

    def totals(self, x: Array) -> Array:
        """Return the summed loss of each bundle at the scores of a point."""
        return self._sum(self.loss.values(self.frozen.at(x[: self.frozen.jacobian.shape[2]]), self.labels))

    def _sum(self, each: Array) -> Array:
        starts = np.flatnonzero(np.diff(self.bundle, prepend=-1))
        return np.asarray(np.add.reduceat(each, starts, axis=0))

    def _tangents(self, scores: Array, which: NDArray[np.int64], width: int) -> Rows:
        logits = self.frozen.at(scores)
        value = self._sum(self.loss.values(logits, self.labels))[which]
        slopes = np.einsum("nk,nkg->ng", self.loss.slopes(logits, self.labels), self.frozen.jacobian)
        slope = self._sum(slopes)[which]
        slope[np.abs(slope) < 1e-9] = 0.0  # solvers drop such entries; leaving them out changes the row by less than the cut tolerance
        matrix = np.zeros((len(which), width))
        matrix[:, : slope.shape[1]] = -slope
        matrix[np.arange(len(which)), self.first_t + which] = 1.0
        return Rows(Csr(matrix), value - slope @ scores, np.full(len(which), np.inf))


class LinearArguments(NamedTuple):
    """The arguments of a pattern as linear functions of the scores.

    ``at_one`` holds their values at s = 1, ``probes`` a tensor u for each, and ``slopes`` is ``J' u`` with its graph: its derivative with
    respect to u along a step is ``J step``.
    """

    at_one: dict[str, Tensor]
    probes: dict[str, Tensor]
    slopes: Tensor


class ArgumentRows(NamedTuple):
    """Rows ``lower <= slopes @ scores <= upper``; ``slopes`` has shape ``(row, score)``."""

    slopes: Array
    lower: Array
    upper: Array


@dataclass(frozen=True, eq=False)
class PatternRows:
    """The activation pattern as a separator: the rows that a point violates most, at most ``rows_max`` per image and layer.

    ``ends`` holds lower and upper bound of every argument, by node, of shape ``(sample, ...)``.
    """

    frozen: FrozenNetwork
    at_one: Mapping[str, Tensor]
    ends: Mapping[str, tuple[Tensor, Tensor]]
    rows_max: int = PATTERN_ROWS_MAX

    def first(self, start: Array | None, width: int) -> Rows:
        """Return no rows: most of them are never violated."""
        return Rows(Csr((0, width)), np.empty(0), np.empty(0))

    def separate(self, x: Array, width: int) -> Rows:
        """Return the rows violated by more than 1e-7, the most violated first."""
        values = self.values(torch.tensor(x[: self.frozen.jacobian.shape[2]]))
        found = [self._rows(name, samples, places) for name, samples, places in self._worst(values)]
        if not found:
            return self.first(None, width)
        slopes, lower, upper = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        padded = np.pad(np.where(np.abs(slopes) < 1e-9, 0.0, slopes), ((0, 0), (0, width - slopes.shape[1])))
        return Rows(Csr(padded), lower, upper)

    def lift(self, x: Array) -> Array | None:
        """Return the point itself if it keeps the pattern, else None."""
        values = self.values(torch.tensor(x[: self.frozen.jacobian.shape[2]]))
        return x if all(float(self._missed(name, value).max()) <= 1e-6 for name, value in values.items()) else None

    def values(self, scores: Tensor) -> dict[str, Tensor]:
        """Return the arguments at some scores, by the derivative along ``scores - 1``."""
        linear = self._linear
        moved = torch.autograd.grad(linear.slopes, list(linear.probes.values()), scores - 1, retain_graph=True)
        return {name: linear.at_one[name] + move for name, move in zip(linear.probes, moved, strict=True)}

    @cached_property
    def _linear(self) -> LinearArguments:
        ones = torch.ones(self.frozen.jacobian.shape[2], dtype=torch.float64, requires_grad=True)
        values = self._arguments(ones, self.frozen.images, self.at_one)
        probes = {name: torch.zeros_like(value, requires_grad=True) for name, value in values.items()}
        (slopes,) = torch.autograd.grad(list(values.values()), ones, list(probes.values()), create_graph=True)
        return LinearArguments({name: value.detach() for name, value in values.items()}, probes, slopes)

    def _missed(self, name: str, value: Tensor) -> Tensor:
        lower, upper = self.ends[name]
        return torch.maximum(lower - value, value - upper).flatten(1)

    def _worst(self, values: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, value in values.items():
            missed = self._missed(name, value)
            worst, places = missed.topk(min(self.rows_max, missed.shape[1]), dim=1)
            for rank in range(worst.shape[1]):
                samples = torch.nonzero(worst[:, rank] > 1e-7)[:, 0]
                if len(samples):
                    yield name, samples, places[samples, rank]

    def _rows(self, name: str, samples: Tensor, places: Tensor) -> ArgumentRows:
        """Return the rows of one argument for each of some samples: ``v(1) - g (1 - s)`` within its ends."""
        scores = torch.ones(len(samples), self.frozen.jacobian.shape[2], dtype=torch.float64, requires_grad=True)
        at_one = {key: value[samples] for key, value in self.at_one.items()}
        value = self._arguments(scores, self.frozen.images[samples], at_one)[name].flatten(1).gather(1, places[:, None])[:, 0]
        (slopes,) = torch.autograd.grad(value.sum(), scores)
        shift = (slopes.sum(dim=1) - value.detach()).numpy()
        lower, upper = (end[samples].flatten(1).gather(1, places[:, None])[:, 0].numpy() for end in self.ends[name])
        return ArgumentRows(slopes.numpy(), lower + shift, upper + shift)

    def _arguments(self, scores: Tensor, images: Tensor, at_one: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the bounded arguments: ``z - (1 - s) max(z0, 0)`` of each ReLU, the winner of each pooling window minus its inputs."""
        network, gates = self.frozen.network, self.frozen.gates
        closed = closed_at(gates, scores)
        values = network.values(images, frozen_actions(gates, scores, at_one))
        arguments = {}
        for node in network.nodes:
            if isinstance(node.layer, ReLU):
                z = values[node.inputs[0]]
                arguments[node.name] = subtract_gated(z, closed[node.name], at_one[node.name]) if node.name in closed else z
            elif isinstance(node.layer, WindowMaximum):
                given = values[node.inputs[0]]
                places = torch.tensor(node.layer.candidates(tuple(given.shape[1:]))).clamp(min=0)
                largest = values[node.name].reshape(len(given), *places.shape[:-1], 1)
                arguments[node.name] = largest - given.flatten(1)[:, places]
        return arguments


def pattern_rows(frozen: FrozenNetwork, paper: PaperBounds, deadline: Deadline = NO_DEADLINE) -> list[PatternRows]:
    """Return the separator of a pattern, no separator for ``free``; raises `UnsupportedError` for activations other than ReLU."""
    if paper.pattern == "free":
        return []
    network, pattern = frozen.network, paper.pattern
    others = {n.layer.label for n in network.nodes if n.layer.activation and not isinstance(n.layer, ReLU)}
    if others:
        raise UnsupportedError(f"pattern `{pattern}` is known for ReLU only and the network has {sorted(others)}; use `pattern: free`")
    count, units = len(frozen.images), frozen.jacobian.shape[2]
    layers = sum(node.layer.activation or isinstance(node.layer, WindowMaximum) for node in network.nodes)
    values = PATTERN_ELEMENT_BYTES * count * sum(size(node.shape) for node in network.nodes)
    rows = PATTERN_ENTRY_BYTES * count * layers * PATTERN_ROWS_MAX * units
    check_memory(f"the activation pattern of {count:,} images", values + rows, "give fewer images, or take `pattern: free`")
    bounds = propagate(network, Box(frozen.images.numpy(), frozen.images.numpy()).widen(paper.epsilon), (), "paper", time_limit=deadline)
    at_one = nominal(network, frozen.images)
    ends = {}
    for node in network.nodes:
        if isinstance(node.layer, ReLU):
            box, on = bounds.after[node.inputs[0]], at_one[node.inputs[0]] > 0
            zero = torch.zeros_like(box.lower)
            low = torch.where(on, zero, box.lower) if pattern == "paper" else torch.full_like(zero, -torch.inf)
            ends[node.name] = (low, torch.where(on, box.upper, zero))
        elif isinstance(node.layer, WindowMaximum):
            inside = torch.tensor(node.layer.candidates(network.shape_of(node.inputs[0])) >= 0)
            shape = (len(frozen.images), *inside.shape)
            low = torch.where(inside, 0.0, -torch.inf).to(torch.float64).expand(shape)
            ends[node.name] = (low if pattern == "paper" else torch.full_like(low, -torch.inf), torch.full_like(low, torch.inf))
    return [PatternRows(frozen, at_one, ends)]
