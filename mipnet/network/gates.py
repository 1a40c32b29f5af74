"""Gates: one importance score s in [0, 1] for each unit of a prunable layer, shared by all samples and positions.

A gate belongs to a module (`Dense`, `Conv2d`) and acts at a *site*: the value behind the activation that follows the module, or
the last unit-wise node behind it if no activation follows (a linear bottleneck).  With U the upper and L the lower bound of
the value y at the site, per sample and element, the gated value is the soft threshold

    y'  =  max(0, y - (1-s) max(U, 0))  -  max(0, -y - (1-s) max(-L, 0))

so s = 1 leaves y, s = 0 gives 0, and for y = relu(z) it is the gated ReLU ``max(0, z - (1-s) U)`` of ElAraby et al. (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from mipnet.errors import InputError
from mipnet.network.graph import Network, Node, dims_of


@dataclass(frozen=True)
class Gate:
    """The scores of one module: ``name`` (its path), ``units``, the ``dim`` they are labelled by, the ``sites`` they act at.

    ``nodes`` are the prunable nodes themselves; a module that is used twice has two nodes, two sites and one gate.
    """

    name: str
    units: int
    dim: str
    nodes: tuple[str, ...]
    sites: tuple[str, ...]


def find_gates(network: Network, layers: str | Sequence[str] = "all") -> tuple[Gate, ...]:
    """The gates of a network: all prunable modules except those behind which no other one follows (the output layer).

    ``layers`` may list modules by name instead; raises `InputError` for one that has no gate.
    """
    feeds = _prunable_downstream(network)
    found: dict[str, list[Node]] = {}
    for node in network.nodes:
        if node.layer.prunable and feeds[node.name]:
            found.setdefault(node.origin, []).append(node)
    if layers != "all":
        wanted = [layers] if isinstance(layers, str) else list(layers)
        unknown = [name for name in wanted if name not in found]
        if unknown or not wanted:
            raise InputError(f"gates asked for {unknown or 'no layer'}; the layers that can carry gates are {list(found)}")
        found = {name: found[name] for name in found if name in wanted}
    return tuple(_gate(network, name, nodes) for name, nodes in found.items())


def wanted_gates(network: Network, gates: Sequence[Gate] | str | Sequence[str] | None) -> tuple[Gate, ...]:
    """Gates as users give them: None for no gates, ``"all"``, some modules by name, or gates that were found before."""
    if gates is None:
        return ()
    given = [g for g in gates if isinstance(g, Gate)] if not isinstance(gates, str) else []
    if given:
        return tuple(given)
    return find_gates(network, gates if isinstance(gates, str) else [str(g) for g in gates])


def _gate(network: Network, name: str, nodes: list[Node]) -> Gate:
    shape = nodes[0].shape
    sites = tuple(way_to_site(network, node)[-1] for node in nodes)
    return Gate(name, shape[0], dims_of(name, shape)[0], tuple(n.name for n in nodes), sites)


def way_to_site(network: Network, node: Node) -> list[str]:
    """The nodes from a prunable one to where its gate acts: its activation, or the last unit-wise node before the way forks."""
    way = [node]
    while not way[-1].layer.activation:
        behind = network.consumers[way[-1].name]
        if len(behind) != 1 or not _keeps_units(behind[0], node):
            break
        way.append(behind[0])
    return [n.name for n in way]


def _keeps_units(behind: Node, node: Node) -> bool:
    return (behind.layer.unitwise or behind.layer.channelwise) and behind.shape[0] == node.shape[0]


def _prunable_downstream(network: Network) -> dict[str, bool]:
    """For each node: does a prunable node lie strictly behind it?"""
    behind: dict[str, bool] = {}
    for node in reversed(network.nodes):
        behind[node.name] = any(n.layer.prunable or behind[n.name] for n in network.consumers[node.name])
    return behind


def gated_value(value: Tensor, score: Tensor, tops: Mapping[str, NDArray[np.float64]]) -> Tensor:
    """What a gate makes of a value: the formula of this module's docstring, with the thresholds that an encoding used.

    ``score`` has one number for each unit, ``(unit,)`` or ``(sample, unit)``; ``tops`` holds ``above`` = max(U, 0) and ``below`` =
    max(-L, 0) of shape ``(sample, unit, ...)`` (0 where left out), or ``published`` = U for the form ``y - (1-s) U`` of the reference.
    """
    lead = score if score.ndim > 1 else score[None]
    closed = 1 - lead.reshape(*lead.shape, *[1] * (value.ndim - 2))
    if "published" in tops:
        return value - closed * torch.as_tensor(tops["published"])
    above, below = (closed * torch.as_tensor(tops.get(side, np.zeros(1))) for side in ("above", "below"))
    return torch.relu(value - above) - torch.relu(-value - below)


def scaled(value: Tensor, score: Tensor) -> Tensor:
    """A value times its scores, ``(unit,)`` or ``(sample, unit)``: what every gate does at scores 0 and 1."""
    lead = score if score.ndim > 1 else score[None]
    return value * lead.to(value.dtype).reshape(*lead.shape, *[1] * (value.ndim - 2))


def mask_actions(gates: Sequence[Gate], masks: xr.Dataset) -> dict[str, Callable[[Tensor], Tensor]]:
    """For each gate site the multiplication by its mask; for `Network.values` and `Network.forward`."""
    actions: dict[str, Callable[[Tensor], Tensor]] = {}
    for gate in gates:
        kept = torch.tensor(masks[gate.name].values)
        actions |= {site: partial(scaled, score=kept) for site in gate.sites}
    return actions
