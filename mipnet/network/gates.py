"""Gates: one importance score s in [0, 1] per unit of a prunable layer, shared by all samples and positions.

A gate belongs to a module (`Dense`, `Conv2d`) and acts at a *site*: the output of the activation that follows the module, or of
the last unit-wise node after the module if no activation follows (a linear bottleneck).  With the upper bound U and the lower bound
L of the value y at the site, per sample and element, the gated value is the soft threshold

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
from torch import Tensor

from mipnet.arrays import Array, Ints
from mipnet.errors import InputError, meant, suggest_keywords
from mipnet.network.graph import Network, Node, dims_of


@suggest_keywords
@dataclass(frozen=True)
class Gate:
    """The gate of one module: its path ``name``, the number of ``units``, their dimension ``dim``, and the ``sites`` where it acts.

    ``nodes`` are the prunable nodes themselves; a module that is used twice has two nodes, two sites and one gate.
    """

    name: str
    units: int
    dim: str
    nodes: tuple[str, ...]
    sites: tuple[str, ...]


@suggest_keywords
def find_gates(network: Network, layers: str | Sequence[str] = "all") -> tuple[Gate, ...]:
    """Return the gates of a network: one per prunable module that another prunable module follows, so none for the output layer.

    ``layers`` may list modules by name instead; raises `InputError` for a module that has no gate.
    """
    feeds = _prunable_downstream(network)
    found: dict[str, list[Node]] = {}
    for node in network.nodes:
        if node.layer.prunable and feeds[node.name]:
            found.setdefault(node.origin, []).append(node)
    if not (isinstance(layers, str) and layers == "all"):
        wanted = [layers] if isinstance(layers, str) else list(layers)
        unknown = [name for name in wanted if name not in found]
        if unknown or not wanted:
            hint = meant(unknown[0], found) if unknown else ""
            raise InputError(f"gates asked for {unknown or 'no layer'}; the layers that can carry gates are {list(found)}{hint}")
        found = {name: found[name] for name in found if name in wanted}
    return tuple(_gate(network, name, nodes) for name, nodes in found.items())


def resolve_gates(network: Network, gates: Sequence[Gate] | str | Sequence[str] | None) -> tuple[Gate, ...]:
    """Return the gates that a user asks for: None for no gates, ``"all"``, modules by name, or gates from `find_gates`."""
    if gates is None:
        return ()
    given = [g for g in gates if isinstance(g, Gate)] if not isinstance(gates, str) else []
    if given:
        return tuple(given)
    return find_gates(network, gates if isinstance(gates, str) else [str(g) for g in gates])


def _gate(network: Network, name: str, nodes: list[Node]) -> Gate:
    shape = nodes[0].shape
    sites = tuple(path_to_site(network, node)[-1] for node in nodes)
    return Gate(name, shape[0], dims_of(name, shape)[0], tuple(n.name for n in nodes), sites)


def path_to_site(network: Network, node: Node) -> list[str]:
    """Return the nodes from a prunable node to its gate's site: its activation, or the last unit-wise node before the path forks."""
    path = [node]
    while not path[-1].layer.activation:
        followers = network.consumers[path[-1].name]
        if len(followers) != 1 or not _keeps_units(followers[0], node):
            break
        path.append(followers[0])
    return [n.name for n in path]


def _keeps_units(follower: Node, node: Node) -> bool:
    return (follower.layer.unitwise or follower.layer.channelwise) and follower.shape[0] == node.shape[0]


def _prunable_downstream(network: Network) -> dict[str, bool]:
    """Return for each node whether it feeds a prunable node, directly or through others."""
    feeds: dict[str, bool] = {}
    for node in reversed(network.nodes):
        feeds[node.name] = any(n.layer.prunable or feeds[n.name] for n in network.consumers[node.name])
    return feeds


def gated_value(value: Tensor, score: Tensor, thresholds: Mapping[str, Array]) -> Tensor:
    """Return the gated value: the formula of this module's docstring, with the thresholds of an encoding.

    ``score`` has one number per unit, ``(unit,)`` or ``(sample, unit)``.  ``thresholds`` holds ``above`` = max(U, 0) and ``below`` =
    max(-L, 0) of shape ``(sample, unit, ...)``, 0 if missing, or ``published`` = U for the form ``y - (1-s) U`` of the reference.
    """
    lead = score if score.ndim > 1 else score[None]
    closed = 1 - lead.reshape(*lead.shape, *[1] * (value.ndim - 2))
    if "published" in thresholds:
        return value - closed * torch.as_tensor(thresholds["published"])
    above, below = (closed * torch.as_tensor(thresholds.get(side, np.zeros(1))) for side in ("above", "below"))
    return torch.relu(value - above) - torch.relu(-value - below)


def scaled(value: Tensor, score: Tensor) -> Tensor:
    """Return a value times its scores, ``(unit,)`` or ``(sample, unit)``; equal to every gate at scores 0 and 1."""
    lead = score if score.ndim > 1 else score[None]
    return value * lead.to(value.dtype).reshape(*lead.shape, *[1] * (value.ndim - 2))


def by_unit(gates: Sequence[Gate], given: xr.Dataset, what: str = "masks", *, some: bool = False) -> xr.Dataset:
    """Return masks or scores with the units of each gate in the order of their labels 0, 1, 2, ...

    Arrays without labels are in that order already.  Raises `InputError` unless there is one variable per gate (with ``some``, for some of
    the gates), with one value for each unit: no label may be missing, foreign or there twice, and the dimension not be that of other units.
    Masks are True and False, or 1 and 0; scores are finite numbers.
    """
    if not isinstance(given, xr.Dataset):
        raise InputError(f"the {what} are a {type(given).__name__}; expected an xarray.Dataset with one variable per gate")
    missing = [gate.name for gate in gates if gate.name not in given.data_vars]
    if missing and not some:
        raise InputError(f"the {what} are of {list(given.data_vars)}; expected one variable per gate, also for `{missing[0]}`")
    for gate in gates:
        if gate.name in given.data_vars:
            _check_values(gate, given[gate.name], what)
            order = _unit_order(gate, given[gate.name], what)
            given = given if (order == np.arange(gate.units)).all() else given.isel({given[gate.name].dims[0]: order})
    return given


def _check_values(gate: Gate, values: xr.DataArray, what: str) -> None:
    numbers = values.values
    if numbers.dtype.kind not in "biuf" or not np.isfinite(numbers).all():
        raise InputError(f"the {what} of `{gate.name}` are not all finite numbers; expected numbers in [0, 1], or booleans")
    if what == "masks" and not np.isin(numbers, (0, 1)).all():
        odd = numbers[~np.isin(numbers, (0, 1))][0]
        raise InputError(
            f"the masks of `{gate.name}` hold {odd:.4g}; expected True for a unit that stays and False for one that goes:"
            " `mn.make_masks` makes masks of scores"
        )


def _unit_order(gate: Gate, values: xr.DataArray, what: str) -> Ints:
    """Return the positions of units 0, 1, 2, ... of a gate in an array of masks or scores."""
    if values.shape != (gate.units,):
        raise InputError(f"`{gate.name}` has {what} of shape {values.shape}; expected one for each of {gate.units} units")
    (dim,), units = values.dims, np.arange(gate.units)
    if dim != gate.dim and str(dim).endswith(("_unit", "_channel")):
        raise InputError(f"`{gate.name}` has {what} along `{dim}`; expected them along `{gate.dim}`, the units of this layer")
    if dim not in values.coords:
        return units
    labels = values.coords[dim].values
    order = np.argsort(labels, kind="stable") if labels.dtype.kind in "iuf" else units
    if not (labels[order] == units).all():
        known = labels.tolist()
        odd = next((label for label in known if label not in range(gate.units) or known.count(label) > 1), known[0])
        why = "there twice" if known.count(odd) > 1 else "no unit of it"
        raise InputError(f"`{gate.name}` has {what} for units 0 to {gate.units - 1}, and label {odd!r} is {why}; expected each unit once")
    return order


def mask_actions(gates: Sequence[Gate], masks: xr.Dataset) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return, per site of the gates, the multiplication by the mask; for ``after`` of `Network.values` and `Network.forward`."""
    actions: dict[str, Callable[[Tensor], Tensor]] = {}
    masks = by_unit(gates, masks)
    for gate in gates:
        kept = torch.tensor(masks[gate.name].values)
        actions |= {site: partial(scaled, score=kept) for site in gate.sites}
    return actions
