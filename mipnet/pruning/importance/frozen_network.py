"""The frozen network: the gated network near s = 1, affine in the scores.

Close to s = 1 the activation pattern of each image is that of the network without gates.  With the pattern frozen, every value of the
gated network is an affine function of the scores alone (a gate subtracts ``(1 - s) y0`` from the value ``y0`` at its site)::

    z(s) = z(1) - J (1 - s),      J = dz / ds at s = 1, one Jacobian per image

The reduced-space program (`mipnet.pruning.importance.reduced_program`) is written from these logits and Jacobians.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.memory import check_memory, count_in_memory
from mipnet.network.gates import Gate
from mipnet.network.graph import Network, size
from mipnet.network.pass_cost import GRADIENT_PASSES, gradient_bytes, samples_at_once

JACOBIAN_BYTES = 24
"""Bytes per entry of the Jacobians of all images: themselves, and copies of them."""


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """Logits at s = 1, ``(sample, class)``, and their Jacobian ``(sample, class, score)``; scores in the order of the gates."""

    network: Network
    gates: tuple[Gate, ...]
    images: Tensor
    logits: Array
    jacobian: Array

    def at(self, scores: Array) -> Array:
        """Return the logits of the frozen network at some scores."""
        value: Array = self.logits + np.einsum("nkg,g->nk", self.jacobian, scores - 1.0)
        return value


def freeze(network: Network, gates: Sequence[Gate], images: Array, deadline: Deadline = NO_DEADLINE, *, chunk: int = 256) -> FrozenNetwork:
    """Return the network frozen on ``images``: one forward pass, and one backward pass per class, for each chunk of samples.

    Raises `TimeLimitReached` if that is not finished before the deadline.
    """
    units, outputs = sum(g.units for g in gates), size(network.output_shape)
    each = JACOBIAN_BYTES * units * outputs
    what = f"the derivatives of {outputs:,} outputs with respect to {units:,} scores on {len(images):,} images"
    check_memory(what, each * len(images), "give fewer images, or gates for fewer layers")
    x, chunk = torch.tensor(images), count_in_memory(gradient_bytes(network) + each, min(chunk, samples_at_once(network, GRADIENT_PASSES)))
    logits, jacobians = [], []
    for part in torch.tensor_split(x, list(range(chunk, len(x), chunk))):
        scores = torch.ones(len(part), units, dtype=torch.float64, requires_grad=True)
        y = network.values(part, frozen_actions(gates, scores, nominal(network, part)))[network.output.name]
        grads = []
        for k in range(y.shape[1]):
            deadline.check("freeze the network on all images")
            grads.append(torch.autograd.grad(y[:, k].sum(), scores, retain_graph=True)[0])
        logits.append(y.detach())
        jacobians.append(torch.stack(grads, dim=1))
    return FrozenNetwork(network, tuple(gates), x, torch.cat(logits).numpy(), torch.cat(jacobians).numpy())


def nominal(network: Network, images: Tensor) -> dict[str, Tensor]:
    """Return the value of every node in the network without gates."""
    with torch.no_grad():
        return network.values(images)


def frozen_actions(gates: Sequence[Gate], scores: Tensor, at_one: Mapping[str, Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the action of each gate site, ``y - (1 - s) y0``, whose derivatives at s = 1 are those of the frozen network.

    ``scores`` has shape ``(sample, score)`` or ``(score,)``, with the units of one gate after those of another; ``at_one`` holds y0.
    """
    return {site: partial(subtract_gated, closed=closed, at_one=at_one[site]) for site, closed in closed_at(gates, scores).items()}


def derivative_along(function: Callable[[Tensor], Any], point: Tensor, step: Tensor) -> tuple[Any, Any]:
    """Return a function's value at a point and its derivative along a step, in forward mode."""
    with warnings.catch_warnings():  # torch's own forward-mode rules still use torch.jit
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        value, moved = torch.func.jvp(function, (point,), (step,))[:2]
    return value, moved


def closed_at(gates: Sequence[Gate], scores: Tensor) -> dict[str, Tensor]:
    """Return ``1 - s`` for each gate site, of shape ``(sample or 1, unit)``."""
    ends = np.cumsum([g.units for g in gates])
    parts = (1 - scores[..., end - gate.units : end] for gate, end in zip(gates, ends.tolist(), strict=True))
    return {site: part.reshape(-1, gate.units) for gate, part in zip(gates, parts, strict=True) for site in gate.sites}


def subtract_gated(value: Tensor, closed: Tensor, at_one: Tensor) -> Tensor:
    """Return ``value - (1 - s) at_one`` with ``closed`` = 1 - s of shape ``(sample or 1, unit)``."""
    return value - closed.reshape(*closed.shape, *[1] * (value.ndim - 2)) * at_one
