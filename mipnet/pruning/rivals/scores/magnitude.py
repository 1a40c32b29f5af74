"""Magnitude: the norm of the incoming weights of a unit."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from numpy.typing import ArrayLike

from mipnet.errors import InputError
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import as_scores, check_gates
from mipnet.pruning.rivals.weight_matrices import incoming


@rival("magnitude", about="L2 norm of incoming weights and bias", source="Li et al., ICLR 2017", normalize="mean", order=2)
def magnitude(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0, norm: int = 2) -> xr.Dataset:
    """Return the norm of the incoming weights and bias: ``sqrt(sum_j w_kj^2 + b_k^2)``, or ``sum_j |w_kj| + |b_k|`` for ``norm=1``.

    Li, Kadav, Durdanovic, Samet and Graf, "Pruning Filters for Efficient ConvNets" (ICLR 2017), who use the L1 norm without bias.
    Batch norm after the layer is not counted.  Images and labels are not used.
    """
    check_gates(gates)
    if norm not in (1, 2):
        raise InputError(f"the norm is {norm}; expected 1 or 2")
    found = {gate.name: incoming(network, gate, norm) ** (1 / norm) for gate in gates}
    return as_scores(gates, found, f"magnitude (L{norm})")
