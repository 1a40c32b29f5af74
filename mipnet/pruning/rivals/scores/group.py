"""Group magnitude: the norm of all weights that are removed with a unit."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from numpy.typing import ArrayLike

from mipnet.network.gates import Gate, path_to_site
from mipnet.network.graph import Network
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import as_scores, check_gates, check_time
from mipnet.pruning.rivals.weight_matrices import batch_norms, incoming, matrix, outgoing, weight_nodes


@rival("group", about="L2 norm of all weights that leave with a unit", source="Fang et al., CVPR 2023", normalize="mean", order=14)
def group(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> xr.Dataset:
    """Return the L2 norm of all that is removed with a unit: incoming weights, bias, batch norm and outgoing weights.

    After Fang, Ma, Song, Mi and Wang, "DepGraph: Towards Any Structural Pruning" (CVPR 2023).  Reconstructed: torch-pruning averages
    over the members of a group where this is one norm over all of them; a batch norm counts with its factor
    ``gamma / sqrt(variance + eps)`` and its shift; units that an addition ties together are scored, and pruned, one
    by one.  Images and labels are not used.
    """
    check_gates(gates)
    squares, found = {}, {}
    for node in weight_nodes(network):
        check_time()
        squares[node.name] = matrix(node.layer) ** 2
    for gate in gates:
        check_time()
        norms = batch_norms(network, path_to_site(network, network[gate.nodes[0]]))
        own = incoming(network, gate, 2) + sum(n.factor**2 + n.shift**2 for n in norms)
        found[gate.name] = (own + outgoing(network, gate, squares, "sum")).sqrt()
    return as_scores(gates, found, "group magnitude")
