"""SNIP scores: the connection sensitivity of the incoming weights."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from numpy.typing import ArrayLike

from mipnet.errors import InputError
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.rivals.gradients import weight_gradients
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import as_scores, check_gates
from mipnet.pruning.rivals.weight_matrices import matrix


@rival("snip", about="connection sensitivity of incoming weights, summed", source="Lee et al., ICLR 2019", order=7)
def snip(
    network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0, at: Network | None = None
) -> xr.Dataset:
    """Return the connection sensitivity of the incoming weights: ``sum_j |dL/dw_kj * w_kj|`` with L the mean cross-entropy.

    Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (ICLR 2019), whose
    connection sensitivity ``|dL/dc|`` at c = 1 is that product.  The loss is cross-entropy of the log-softmax.  Biases are not counted.
    ``at`` is a network of the same form whose weights and gradients are taken: the one before training, as in the paper.
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
