"""Scores from gradients of the cross-entropy: Taylor, Fisher, SNIP.

A gate s_k multiplies unit k at its sites, for every position, with s = 1 the network as it is.  One backward pass over a batch gives
the derivative of every sample's own loss with respect to its own gates::

    g[n, k]  =  d L_n / d s_k  =  sum over sites and positions of  a * dL_n/da         at s = 1
    L_n      =  logsumexp(logits_n) - logits_n[label_n]

The activation a is what stands behind the unit's activation function, as in `mipnet.network.gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.errors import InputError
from mipnet.network.gates import Gate, scaled
from mipnet.network.graph import Network
from mipnet.pruning.rivals.unit_weights import (
    as_scores,
    by_patch,
    check_classes,
    check_gates,
    check_images,
    matrix,
    patches,
    pieces,
    weight_nodes,
)

BATCH = 256
TAYLOR = ("mean-abs", "abs-mean", "squared")


def gate_gradients(
    network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, batch: int = BATCH
) -> dict[str, Tensor]:
    """``g[n, k] = dL_n/ds_k`` at s = 1, of shape ``(sample, unit)``, for each gate."""
    check_gates(gates)
    x = check_images(network, images)
    y = check_classes(network, labels, len(x))
    parts = [_gradients(network, gates, x[piece], y[piece]) for piece in pieces(len(x), batch)]
    return {gate.name: torch.cat([part[i] for part in parts]) for i, gate in enumerate(gates)}


def _gradients(network: Network, gates: Sequence[Gate], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    scores = [torch.ones(len(x), gate.units, dtype=torch.float64, requires_grad=True) for gate in gates]
    after: dict[str, Callable[[Tensor], Tensor]] = {}
    for gate, score in zip(gates, scores, strict=True):
        after |= {site: partial(scaled, score=score) for site in gate.sites}
    logits = network.values(x, after)[network.output.name]
    return torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), scores)


def taylor(
    network: Network,
    gates: Sequence[Gate],
    images: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int = 0,
    variant: str = "mean-abs",
    batch: int = 32,
) -> xr.Dataset:
    """First-order Taylor: how much the loss would change if a unit were silenced, to first order.

    ``mean-abs`` (default)  ``mean_n |g[n, k]|``, with l2-normalised layers the criterion of Molchanov et al., "Pruning Convolutional
                            Neural Networks for Resource Efficient Inference" (ICLR 2017): their mean over positions in place of
                            our sum is one constant a layer, which the normalisation cancels
    ``abs-mean``            ``|mean_n g[n, k]|``, where samples may cancel: the first-order change of the mean loss
    ``squared``             the mean over minibatches of ``(mean_n g[n, k])^2``: the gate form (Taylor-FO-BN) of Molchanov et al.,
                            "Importance Estimation for Neural Network Pruning" (CVPR 2019); ``batch`` is the size of a minibatch
    """
    if variant not in TAYLOR:
        raise InputError(f"the Taylor variant is `{variant}`; expected one of {', '.join(TAYLOR)}")
    if batch < 1:
        raise InputError(f"`batch` is {batch}; expected at least 1")
    found = gate_gradients(network, gates, images, labels)
    reduce: dict[str, Callable[[Tensor], Tensor]] = {
        "mean-abs": lambda g: g.abs().mean(dim=0),
        "abs-mean": lambda g: g.mean(dim=0).abs(),
        "squared": lambda g: torch.stack([part.mean(dim=0) ** 2 for part in torch.split(g, batch)]).mean(dim=0),
    }
    return as_scores(gates, {name: reduce[variant](g) for name, g in found.items()}, f"first-order Taylor ({variant})")


def fisher(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> xr.Dataset:
    """Squared gradient: ``1 / (2 N) sum_n g[n, k]^2``, the second-order change of the loss with the Fisher information as Hessian.

    Theis, Korshunova, Tejani and Huszár, "Faster gaze prediction with dense networks and Fisher pruning" (2018), without their term
    for computational cost.  The labels are the true ones (the empirical Fisher).
    """
    found = gate_gradients(network, gates, images, labels)
    return as_scores(gates, {name: 0.5 * (g**2).mean(dim=0) for name, g in found.items()}, "Fisher")


def weight_gradients(network: Network, images: ArrayLike, labels: ArrayLike, *, batch: int = BATCH) -> dict[str, Tensor]:
    """The gradient of the mean loss with respect to every weight, by node, in the form of `mipnet.pruning.rivals.unit_weights.matrix`.

    Nodes of one module share its weights: each of them carries the sum.
    """
    x = check_images(network, images)
    y = check_classes(network, labels, len(x))
    nodes = weight_nodes(network)
    total = {node.origin: torch.zeros_like(matrix(node.layer)) for node in nodes}
    for piece in pieces(len(x), batch):
        probes = {node.name: torch.zeros(len(x[piece]), *node.shape, dtype=torch.float64, requires_grad=True) for node in nodes}
        values = network.values(x[piece], {name: partial(torch.add, other=probe) for name, probe in probes.items()})
        loss = F.cross_entropy(values[network.output.name], y[piece], reduction="sum") / len(x)
        deltas = torch.autograd.grad(loss, list(probes.values()))
        for node, delta in zip(nodes, deltas, strict=True):
            read = patches(node.layer, values[node.inputs[0]].detach())
            total[node.origin] += torch.einsum("npgo,npgj->goj", by_patch(node.layer, delta), read)
    return {node.name: total[node.origin] for node in nodes}


def snip(
    network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0, at: Network | None = None
) -> xr.Dataset:
    """Connection sensitivity, summed over the incoming weights of a unit: ``sum_j |dL/dw_kj * w_kj|`` with L the mean cross-entropy.

    Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (ICLR 2019), whose
    connection sensitivity ``|dL/dc|`` at c = 1 is that product.  The loss is cross-entropy of the log-softmax.  Biases take no part.
    ``at`` is a network of the same form to take weights and gradients from: the one before training, as in the paper.
    """
    check_gates(gates)
    source = network if at is None else at
    other = [node.name for node in network.nodes if node.layer.prunable and _shape(source, node.name) != node.shape]
    if other:
        raise InputError(f"the network given as `at` has no such nodes as {other}; expected the same network, with other weights")
    gradients = weight_gradients(source, images, labels)
    found = {}
    for gate in gates:
        layer = source[gate.nodes[0]].layer
        found[gate.name] = (gradients[gate.nodes[0]] * matrix(layer)).abs().sum(dim=2).reshape(-1)
    return as_scores(gates, found, "SNIP")


def _shape(network: Network, name: str) -> tuple[int, ...] | None:
    return next((node.shape for node in network.nodes if node.name == name), None)
