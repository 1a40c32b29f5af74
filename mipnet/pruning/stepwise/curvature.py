"""The gradient and curvature of the frozen loss at any masks, over many images.

At masks m in {0, 1} a gate multiplies the value at its site by s.  With the activation pattern frozen at m the logits are affine in
the scores, ``z(s) = z(m) + J (s - m)``, so the mean cross-entropy to targets q has at m exactly::

    g = mean J' (p - q)        H = mean J' (diag(p) - p p') J        p = softmax(z(m))

and ``g (s - m) + (s - m)' H (s - m) / 2`` is its change to second order; H is the Gauss-Newton matrix of the network itself
(Schraudolph, "Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent", 2002).  Unlike the rows of
`mipnet.pruning.importance.frozen_loss_rows`, g and H do not grow with the number of images.  The masks m can be any: a unit that is
removed has a column, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.memory import check_memory, count_in_memory
from mipnet.network.gates import Gate, scaled
from mipnet.network.graph import Network
from mipnet.network.pass_cost import GRADIENT_PASSES, gradient_bytes, samples_at_once

HESSIAN_BYTES = 64
"""Bytes per entry of the Hessian: itself, its eigenvectors, and the rows of a step's program, with copies."""

FORWARD_IMAGES_AT_ONCE = 512
"""Largest number of images between two looks at the clock."""

CURVATURE_MULTIPLICATIONS_MAX = 2**30
"""Largest number of multiplications of one product of derivatives, which takes some tenths of a second."""

CLASS_PROBABILITY_MIN = 1e-7
"""Classes of at most this probability are left out of H; in float64 their part cannot be distinguished from rounding."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """The ``gradient`` (score,) and ``hessian`` (score, score) of the mean ``loss`` over some images, scores in the order of the gates."""

    loss: float
    gradient: Array
    hessian: Array

    def change(self, step: Array) -> float:
        """Return the change of the loss along ``step``, to second order."""
        return float(self.gradient @ step + 0.5 * step @ self.hessian @ step)


def curvature(
    network: Network,
    gates: Sequence[Gate],
    images: Tensor,
    targets: Tensor,
    kept: Tensor,
    deadline: Deadline = NO_DEADLINE,
    *,
    chunk: int = 512,
) -> Curvature:
    """Return gradient and Hessian of the frozen loss at masks ``kept`` (score,); ``targets`` are probabilities ``(sample, class)``.

    Raises `TimeLimitReached` if they are not known at the deadline.
    """
    units = sum(gate.units for gate in gates)
    check_memory(f"the curvature of the loss in {units:,} scores", HESSIAN_BYTES * units**2, "give gates for fewer layers")
    in_time = max(1, CURVATURE_MULTIPLICATIONS_MAX // (targets.shape[1] * units**2))
    chunk = min(chunk, in_time, samples_at_once(network, GRADIENT_PASSES))
    chunk = count_in_memory(gradient_bytes(network) + 24 * units * targets.shape[1], chunk)
    loss, gradient, hessian = 0.0, torch.zeros(units, dtype=torch.float64), torch.zeros(units, units, dtype=torch.float64)
    for part, q in zip(torch.split(images, chunk), torch.split(targets, chunk), strict=True):
        scores = kept.to(torch.float64).repeat(len(part), 1).requires_grad_()
        z = network.values(part, products(gates, scores))[network.output.name]
        columns = []
        for column in z.unbind(1):
            deadline.check("compute the curvature of the loss over all images")
            columns.append(torch.autograd.grad(column.sum(), scores, retain_graph=True)[0])
        jacobian = torch.stack(columns, dim=1)
        log_p = z.detach().log_softmax(1)
        p = log_p.exp()
        loss -= float((q * log_p).sum())
        gradient += torch.einsum("nk,nkg->g", p - q, jacobian)
        apart = jacobian - torch.einsum("nk,nkg->ng", p, jacobian)[:, None]
        rows = apart[p > CLASS_PROBABILITY_MIN] * p[p > CLASS_PROBABILITY_MIN].sqrt()[:, None]
        hessian += rows.T @ rows
    count = len(images)
    return Curvature(loss / count, np.asarray(gradient / count), np.asarray(hessian / count))


def forward_in_parts(
    network: Network, images: Tensor, deadline: Deadline, after: Mapping[str, Callable[[Tensor], Tensor]] | None = None
) -> Tensor:
    """Return the logits of all images; raises `TimeLimitReached` if they are not known at the deadline."""
    found = []
    for part in torch.split(images, min(FORWARD_IMAGES_AT_ONCE, samples_at_once(network))):
        deadline.check("run the network on all images")
        found.append(torch.from_numpy(network.forward(part, after)))
    return torch.cat(found)


def soft_targets(network: Network, images: Tensor, labels: Tensor, hard: float, deadline: Deadline = NO_DEADLINE) -> Tensor:
    """Return ``hard`` times the true class, plus ``1 - hard`` times the network's own probabilities (as in distillation)."""
    own = forward_in_parts(network, images, deadline).softmax(1)
    return (1 - hard) * own + hard * torch.nn.functional.one_hot(labels, own.shape[1])


def products(gates: Sequence[Gate], scores: Tensor) -> dict[str, partial[Tensor]]:
    """Return, for each gate site, the product with its scores ``(sample or 1, score)``; for scores 0 and 1 this is the gate itself."""
    parts = torch.split(scores, [gate.units for gate in gates], dim=1)
    return {site: partial(scaled, score=part) for gate, part in zip(gates, parts, strict=True) for site in gate.sites}
