"""Fisher scores: the second-order change of the loss with the Fisher information as Hessian."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from numpy.typing import ArrayLike

from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.rivals.gradients import gate_gradients
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import as_scores


@rival("fisher", about="mean squared first-order change of the loss", source="Theis et al., 2018", order=6)
def fisher(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> xr.Dataset:
    """Return the squared gradient ``1 / (2 N) sum_n g[n, k]^2``, the second-order change of the loss.

    The Fisher information takes the place of the Hessian.
    Theis, Korshunova, Tejani and Huszár, "Faster gaze prediction with dense networks and Fisher pruning" (2018), without their term
    for computational cost.  The labels are the true ones (the empirical Fisher).
    """
    found = gate_gradients(network, gates, images, labels)
    return as_scores(gates, {name: 0.5 * (g**2).mean(dim=0) for name, g in found.items()}, "Fisher")
