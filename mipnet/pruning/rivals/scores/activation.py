"""Mean absolute activation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import IMAGES_PER_PASS, as_scores, check_gates, check_images, images_at_once, slices


@rival("activation", about="mean absolute activation", source="Molchanov et al., ICLR 2017", normalize="l2", order=3)
def activation(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> xr.Dataset:
    """Return the mean absolute value of a unit after its activation function, over samples, positions and sites.

    One of the criteria of Molchanov et al. (ICLR 2017).  The labels are not used.
    """
    check_gates(gates)
    x = check_images(network, images)
    total = {gate.name: torch.zeros(gate.units, dtype=torch.float64) for gate in gates}
    for batch in slices(len(x), images_at_once(network, IMAGES_PER_PASS)):
        with torch.no_grad():
            values = network.values(x[batch])
        for gate in gates:
            means = [values[site].abs().flatten(2).mean(dim=2) if values[site].ndim > 2 else values[site].abs() for site in gate.sites]
            total[gate.name] += torch.stack(means).mean(dim=0).sum(dim=0) / len(x)
    return as_scores(gates, total, "mean activation")
