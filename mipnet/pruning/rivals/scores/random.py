"""Random scores: units drawn without replacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import as_scores, check_gates


@rival("random", about="units drawn without replacement", source="the usual control", drawn=True, order=1)
def random(network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> xr.Dataset:
    """Return uniform numbers in [0, 1): the k best are k units drawn without replacement.  Images and labels are not used."""
    check_gates(gates)
    rng = np.random.default_rng(seed)
    return as_scores(gates, {gate.name: torch.as_tensor(rng.random(gate.units)) for gate in gates}, "random")
