"""The importance program in reduced space: scores and losses only, for networks and batches that the full program cannot hold.

Close to s = 1 the activation pattern of each image is that of the plain network, and with the pattern frozen every value of the
gated network is an affine function of the scores alone (a gate takes ``(1 - s) y0`` off the value ``y0`` at its site)::

    z(s) = z(1) - J (1 - s),      J = dz / ds at s = 1, one Jacobian an image

so the program of `mipnet.pruning.importance.question` needs the scores, the sparsity of each layer and one loss variable for each bundle of
images.  Everything else is written row by row, when a point violates it: tangents of the loss, and the pattern itself::

    paper   0 <= z <= u  for units that are on,  l <= z <= 0  for units that are off,  the winner of each pooling window ahead
    upper   only the upper ends:  z <= u,  z <= 0
    free    nothing: the loss alone decides

``paper`` has the optimum of the published program (ElAraby et al. 2023) under its bounds, at a fraction of the cost.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipnet.arrays import Array, Csr
from mipnet.backend import Rows
from mipnet.backend.program import stack
from mipnet.bounds.propagation import propagate
from mipnet.errors import InputError, UnsupportedError
from mipnet.layers import MaxPool2d, ReLU
from mipnet.model.losses import Loss
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.network.sets import Box

Pattern = Literal["free", "upper", "paper"]

BUNDLES = 200
"""Loss variables at most: with more images, a loss variable holds the sum over several of them."""


@dataclass(frozen=True, eq=False)
class Frozen:
    """Logits at s = 1, ``(sample, class)``, and their Jacobian ``(sample, class, score)``; scores in the order of the gates."""

    network: Network
    gates: tuple[Gate, ...]
    images: Tensor
    logits: Array
    jacobian: Array

    def at(self, scores: Array) -> Array:
        """The logits of the frozen network at some scores."""
        value: Array = self.logits + np.einsum("nkg,g->nk", self.jacobian, scores - 1.0)
        return value


def freeze(network: Network, gates: Sequence[Gate], images: Array, chunk: int = 256) -> Frozen:
    """The frozen network on ``images``: one forward pass, and one backward pass a class, for each chunk of samples."""
    x = torch.tensor(images)
    logits, jacobians = [], []
    for part in torch.tensor_split(x, list(range(chunk, len(x), chunk))):
        scores = torch.ones(len(part), sum(g.units for g in gates), dtype=torch.float64, requires_grad=True)
        y = network.values(part, frozen_actions(gates, scores, nominal(network, part)))[network.output.name]
        grads = [torch.autograd.grad(y[:, k].sum(), scores, retain_graph=True)[0] for k in range(y.shape[1])]
        logits.append(y.detach())
        jacobians.append(torch.stack(grads, dim=1))
    return Frozen(network, tuple(gates), x, torch.cat(logits).numpy(), torch.cat(jacobians).numpy())


def nominal(network: Network, images: Tensor) -> dict[str, Tensor]:
    """Every node's value in the plain network."""
    with torch.no_grad():
        return network.values(images)


def frozen_actions(gates: Sequence[Gate], scores: Tensor, at_one: Mapping[str, Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    """What gates do to values, such that derivatives at s = 1 are those of the frozen network: ``y - (1 - s) y0``.

    ``scores`` has shape ``(sample, score)`` or ``(score,)``, its columns the gates' units one after another; ``at_one`` holds y0.
    """
    return {site: partial(_take_off, closed=closed, at_one=at_one[site]) for site, closed in closed_at(gates, scores).items()}


def derivative_along(function: Callable[[Tensor], Any], point: Tensor, step: Tensor) -> tuple[Any, Any]:
    """A function's value at a point and its derivative along a step, in forward mode."""
    with warnings.catch_warnings():  # torch's own forward-mode rules still go through torch.jit
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        value, moved = torch.func.jvp(function, (point,), (step,))[:2]
    return value, moved


def closed_at(gates: Sequence[Gate], scores: Tensor) -> dict[str, Tensor]:
    """``1 - s`` for each gate site, of shape ``(sample or 1, unit)``."""
    ends = np.cumsum([g.units for g in gates])
    parts = (1 - scores[..., end - gate.units : end] for gate, end in zip(gates, ends.tolist(), strict=True))
    return {site: part.reshape(-1, gate.units) for gate, part in zip(gates, parts, strict=True) for site in gate.sites}


def _take_off(value: Tensor, closed: Tensor, at_one: Tensor) -> Tensor:
    return value - closed.reshape(*closed.shape, *[1] * (value.ndim - 2)) * at_one


@dataclass(frozen=True, eq=False)
class LossRows:
    """The loss as a separator: ``t_b >= sum of the loss over bundle b``, by tangents; columns are the scores first, the t last."""

    frozen: Frozen
    labels: NDArray[np.int64]
    loss: Loss
    bundle: NDArray[np.int64]
    first_t: int

    def first(self, start: Array | None, width: int) -> Rows:
        """Tangents where all gates are open, and where all are half open."""
        count = sum(g.units for g in self.frozen.gates)
        return stack(*(self._tangents(np.full(count, level), np.arange(self.bundle[-1] + 1), width) for level in (1.0, 0.5)))

    def separate(self, x: Array, width: int) -> Rows:
        """Tangents for the bundles that carry most of what the model misses."""
        missed = self.totals(x) - x[self.first_t :]
        scale = max(1e-7, 0.2 * float(np.maximum(missed, 0).mean()))
        which = np.flatnonzero(missed > scale)
        return self._tangents(x[: self.frozen.jacobian.shape[2]], which, width)

    def lift(self, x: Array) -> Array:
        """The point with each t at its true total."""
        x = x.copy()
        x[self.first_t :] = np.maximum(x[self.first_t :], self.totals(x))
        return x

    def totals(self, x: Array) -> Array:
        """The summed loss of each bundle at the scores of a point."""
        return self._sum(self.loss.values(self.frozen.at(x[: self.frozen.jacobian.shape[2]]), self.labels))

    def _sum(self, each: Array) -> Array:
        starts = np.flatnonzero(np.diff(self.bundle, prepend=-1))
        return np.asarray(np.add.reduceat(each, starts, axis=0))

    def _tangents(self, scores: Array, which: NDArray[np.int64], width: int) -> Rows:
        logits = self.frozen.at(scores)
        value = self._sum(self.loss.values(logits, self.labels))[which]
        slopes = np.einsum("nk,nkg->ng", self.loss.slopes(logits, self.labels), self.frozen.jacobian)
        slope = self._sum(slopes)[which]
        slope[np.abs(slope) < 1e-9] = 0.0  # solvers drop such entries; without them the row is off by less than its own tolerance
        matrix = np.zeros((len(which), width))
        matrix[:, : slope.shape[1]] = -slope
        matrix[np.arange(len(which)), self.first_t + which] = 1.0
        return Rows(Csr(matrix), value - slope @ scores, np.full(len(which), np.inf))


@dataclass(frozen=True, eq=False)
class PatternRows:
    """The activation pattern as a separator; the rows that a point misses most, a few for each image and layer.

    ``ends`` holds lower and upper bound of every argument, by node, of shape ``(sample, ...)``.
    """

    frozen: Frozen
    at_one: Mapping[str, Tensor]
    ends: Mapping[str, tuple[Tensor, Tensor]]
    most: int = 3

    def first(self, start: Array | None, width: int) -> Rows:
        """None: nearly all of them never matter."""
        return Rows(Csr((0, width)), np.empty(0), np.empty(0))

    def separate(self, x: Array, width: int) -> Rows:
        """The rows missed by more than 1e-7, the worst first."""
        values = self.values(torch.tensor(x[: self.frozen.jacobian.shape[2]]))
        found = [self._rows(name, samples, places) for name, samples, places in self._worst(values)]
        if not found:
            return self.first(None, width)
        slopes, lower, upper = (np.concatenate([rows[i] for rows in found]) for i in range(3))
        padded = np.pad(np.where(np.abs(slopes) < 1e-9, 0.0, slopes), ((0, 0), (0, width - slopes.shape[1])))
        return Rows(Csr(padded), lower, upper)

    def lift(self, x: Array) -> Array | None:
        """The point itself if it keeps the pattern."""
        values = self.values(torch.tensor(x[: self.frozen.jacobian.shape[2]]))
        return x if all(float(self._missed(name, value).max()) <= 1e-6 for name, value in values.items()) else None

    def values(self, scores: Tensor) -> dict[str, Tensor]:
        """The arguments at some scores, by the derivative along ``scores - 1``."""
        at_one, probes, slopes = self._linear
        moved = torch.autograd.grad(slopes, list(probes.values()), scores - 1, retain_graph=True)
        return {name: at_one[name] + move for name, move in zip(probes, moved, strict=True)}

    @cached_property
    def _linear(self) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """The arguments at s = 1, a probe u for each, and ``J' u``, kept with its graph: its derivative by u along a step is ``J step``."""
        ones = torch.ones(self.frozen.jacobian.shape[2], dtype=torch.float64, requires_grad=True)
        values = self._arguments(ones, self.frozen.images, self.at_one)
        probes = {name: torch.zeros_like(value, requires_grad=True) for name, value in values.items()}
        (slopes,) = torch.autograd.grad(list(values.values()), ones, list(probes.values()), create_graph=True)
        return {name: value.detach() for name, value in values.items()}, probes, slopes

    def _missed(self, name: str, value: Tensor) -> Tensor:
        lower, upper = self.ends[name]
        return torch.maximum(lower - value, value - upper).flatten(1)

    def _worst(self, values: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, value in values.items():
            missed = self._missed(name, value)
            worst, places = missed.topk(min(self.most, missed.shape[1]), dim=1)
            for rank in range(worst.shape[1]):
                samples = torch.nonzero(worst[:, rank] > 1e-7)[:, 0]
                if len(samples):
                    yield name, samples, places[samples, rank]

    def _rows(self, name: str, samples: Tensor, places: Tensor) -> tuple[Array, Array, Array]:
        """Slopes and ends of one argument each for some samples: ``v(1) - g (1 - s)`` within the ends."""
        scores = torch.ones(len(samples), self.frozen.jacobian.shape[2], dtype=torch.float64, requires_grad=True)
        at_one = {key: value[samples] for key, value in self.at_one.items()}
        value = self._arguments(scores, self.frozen.images[samples], at_one)[name].flatten(1).gather(1, places[:, None])[:, 0]
        (slopes,) = torch.autograd.grad(value.sum(), scores)
        shift = (slopes.sum(dim=1) - value.detach()).numpy()
        lower, upper = (end[samples].flatten(1).gather(1, places[:, None])[:, 0].numpy() for end in self.ends[name])
        return slopes.numpy(), lower + shift, upper + shift

    def _arguments(self, scores: Tensor, images: Tensor, at_one: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the pattern bounds: each ReLU's ``z - (1 - s) max(z0, 0)``, each pooling window's winner less its inputs."""
        network, gates = self.frozen.network, self.frozen.gates
        closed = closed_at(gates, scores)
        values = network.values(images, frozen_actions(gates, scores, at_one))
        arguments = {}
        for node in network.nodes:
            if isinstance(node.layer, ReLU):
                z = values[node.inputs[0]]
                arguments[node.name] = _take_off(z, closed[node.name], at_one[node.name]) if node.name in closed else z
            elif isinstance(node.layer, MaxPool2d):
                given = values[node.inputs[0]]
                places = torch.tensor(node.layer.window.places(tuple(given.shape[1:]))).clamp(min=0)
                arguments[node.name] = values[node.name].flatten(2)[..., None] - given.flatten(2)[..., places]
        return arguments


def pattern_rows(frozen: Frozen, pattern: Pattern, epsilon: float) -> list[PatternRows]:
    """The separator of a pattern, or none for ``free``; raises `UnsupportedError` for activations other than ReLU."""
    if pattern == "free":
        return []
    if pattern not in ("upper", "paper"):
        raise InputError(f"the pattern is `{pattern}`; expected `free`, `upper` or `paper`")
    network = frozen.network
    others = {n.layer.label for n in network.nodes if n.layer.activation and not isinstance(n.layer, ReLU)}
    if others:
        raise UnsupportedError(f"pattern `{pattern}` is known for ReLU only and the network has {sorted(others)}; use `pattern: free`")
    bounds = propagate(network, Box(frozen.images.numpy(), frozen.images.numpy()), (), "paper", epsilon)
    at_one = nominal(network, frozen.images)
    ends = {}
    for node in network.nodes:
        if isinstance(node.layer, ReLU):
            box, on = bounds.after[node.inputs[0]], at_one[node.inputs[0]] > 0
            zero = torch.zeros_like(box.lower)
            low = torch.where(on, zero, box.lower) if pattern == "paper" else torch.full_like(zero, -torch.inf)
            ends[node.name] = (low, torch.where(on, box.upper, zero))
        elif isinstance(node.layer, MaxPool2d):
            inside = torch.tensor(node.layer.window.places(network.shape_of(node.inputs[0])) >= 0)
            shape = (len(frozen.images), node.shape[0], *inside.shape)
            low = torch.where(inside, 0.0, -torch.inf).to(torch.float64).expand(shape)
            ends[node.name] = (low if pattern == "paper" else torch.full_like(low, -torch.inf), torch.full_like(low, torch.inf))
    return [PatternRows(frozen, at_one, ends)]
