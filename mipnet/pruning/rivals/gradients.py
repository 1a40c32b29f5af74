"""Gradients of the cross-entropy with respect to gates and weights, for the scores Taylor, Fisher and SNIP.

A gate s_k multiplies unit k at its sites, for every position, with s = 1 the network as it is.  One backward pass over a batch gives
the derivative of every sample's own loss with respect to its own gates::

    g[n, k]  =  d L_n / d s_k  =  sum over sites and positions of  a * dL_n/da         at s = 1
    L_n      =  logsumexp(logits_n) - logits_n[label_n]

The activation a is the value after the unit's activation function, as in `mipnet.network.gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.network.gates import Gate, scaled
from mipnet.network.graph import Network
from mipnet.network.labelled_samples import align_samples
from mipnet.pruning.rivals.score_arrays import IMAGES_PER_PASS, check_classes, check_gates, check_images, images_at_once, slices
from mipnet.pruning.rivals.weight_matrices import by_patch, matrix, patches, patches_bytes, weight_nodes


@align_samples
def gate_gradients(
    network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, batch: int = IMAGES_PER_PASS
) -> dict[str, Tensor]:
    """Return ``g[n, k] = dL_n/ds_k`` at s = 1, of shape ``(sample, unit)``, for each gate."""
    check_gates(gates)
    x = check_images(network, images)
    y = check_classes(network, labels, len(x))
    parts = [_gradients(network, gates, x[few], y[few]) for few in slices(len(x), images_at_once(network, batch))]
    return {gate.name: torch.cat([part[i] for part in parts]) for i, gate in enumerate(gates)}


def _gradients(network: Network, gates: Sequence[Gate], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    scores = [torch.ones(len(x), gate.units, dtype=torch.float64, requires_grad=True) for gate in gates]
    after: dict[str, Callable[[Tensor], Tensor]] = {}
    for gate, score in zip(gates, scores, strict=True):
        after |= {site: partial(scaled, score=score) for site in gate.sites}
    logits = network.values(x, after)[network.output.name]
    return torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), scores)


@align_samples
def weight_gradients(network: Network, images: ArrayLike, labels: ArrayLike, *, batch: int = IMAGES_PER_PASS) -> dict[str, Tensor]:
    """Return the gradient of the mean loss with respect to every weight, by node, in the form of `weight_matrices.matrix`.

    Nodes of one module share its weights: each of them has the sum.
    """
    x = check_images(network, images)
    y = check_classes(network, labels, len(x))
    nodes = weight_nodes(network)
    total = {node.origin: torch.zeros_like(matrix(node.layer)) for node in nodes}
    for few in slices(len(x), images_at_once(network, batch, patches_bytes(network))):
        probes = {node.name: torch.zeros(len(x[few]), *node.shape, dtype=torch.float64, requires_grad=True) for node in nodes}
        values = network.values(x[few], {name: partial(torch.add, other=probe) for name, probe in probes.items()})
        loss = F.cross_entropy(values[network.output.name], y[few], reduction="sum") / len(x)
        deltas = torch.autograd.grad(loss, list(probes.values()))
        for node, delta in zip(nodes, deltas, strict=True):
            read = patches(node.layer, values[node.inputs[0]].detach())
            total[node.origin] += torch.einsum("npgo,npgj->goj", by_patch(node.layer, delta), read)
    return {node.name: total[node.origin] for node in nodes}
