"""The number of parameters that masks remove, counted over the smaller network that `mipnet.pruning.smaller.surgery` makes.

With a unit, its own weights and bias are removed, its batch norm, and every weight that reads it through flattening, pooling and
concatenation.  A silenced unit that cannot be cut out, such as one summand of a residual addition, stays and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xarray as xr

from mipnet.network.gates import Gate, by_unit
from mipnet.network.graph import Network
from mipnet.pruning.smaller.removal_plan import CUT_LAYERS, plan_removal


def remaining_parameters(network: Network, gates: Sequence[Gate], masks: xr.Dataset) -> dict[str, int]:
    """Return, for each node with parameters, how many of them `mipnet.prune` leaves; a module used twice counts once."""
    masks = by_unit(gates, masks)
    flags = {gate.name: torch.tensor(masks[gate.name].values) for gate in gates}
    plan = plan_removal(network, tuple(gates), flags, lambda node: True)
    kept: dict[str, int] = {}
    counted: set[str] = set()
    for node in network.nodes:
        if node.layer.weights() and node.origin not in counted:
            weights = list(node.layer.weights().values())
            if isinstance(node.layer, CUT_LAYERS):
                made, read = plan.units(node.name), plan.units(node.inputs[0])
                weights = [w[made][:, read] if w.ndim > 1 and w.shape[1] == len(read) else w[made] for w in weights]
            kept[node.name] = sum(w.numel() for w in weights)
            counted.add(node.origin)
    return kept


def pruned_share(network: Network, gates: Sequence[Gate], masks: xr.Dataset) -> float:
    """Return the share of the network's parameters that masks remove, in [0, 1]."""
    return 1.0 - sum(remaining_parameters(network, gates, masks).values()) / network.parameters
