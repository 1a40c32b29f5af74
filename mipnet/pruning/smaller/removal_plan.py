"""The plan of a smaller network: which elements of each node are removed.

Elements that must be removed together form a group: the whole plane of a channel, an element and its copy after a flattening, the summands
of a residual addition, both uses of a module that is used twice, inputs and outputs of one group of a convolution.  A group is removed if
each of its elements is constant under the masks, or needed by nothing that varies, and none of them must stay.  The input and the output
keep their sizes, and so does everything that is not made by a Linear, Conv2d or BatchNorm module.  A constant other than 0 stays unless
a bias or a running mean can take its effect (`mipnet.pruning.smaller.bias_shifts`).  Masked units that stay are ``zeroed``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mipnet.arrays import Ints, Mask
from mipnet.layers import Add, BatchNorm, Conv2d, Dense, Scale
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT_NODE, Network, Node, size
from mipnet.pruning.smaller.bias_shifts import BiasShifts
from mipnet.pruning.smaller.constant_elements import (
    POOLING_LAYERS,
    REARRANGING_LAYERS,
    find_constants,
    find_needed,
    masked_units,
    path_of,
    places,
    unitwise,
)

CUT_LAYERS = (Dense, Conv2d, BatchNorm, Scale)
"""Layers of modules whose units can be cut out; all others keep their weights."""


@dataclass(frozen=True, eq=False)
class RemovalPlan:
    """The ``kept`` elements of each node and of the input; ``zeroed`` units of each gate; ``shifts`` of biases and ``means``, by path."""

    kept: dict[str, Tensor]
    zeroed: dict[str, Tensor]
    shifts: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)

    def units(self, name: str) -> Tensor:
        """Return which units or channels of a node stay."""
        return self.kept[name].flatten(1).any(dim=1) if self.kept[name].ndim > 1 else self.kept[name]


def plan_removal(network: Network, gates: tuple[Gate, ...], masks: Mapping[str, Tensor], owned: Callable[[Node], bool]) -> RemovalPlan:
    """Return the plan for masks (True: kept) by gate; ``owned`` returns whether a node's weights belong to a module that can be cut."""
    masked = masked_units(network, gates, masks)
    constants = find_constants(network, masked)
    needed = find_needed(network, constants)
    elements = NetworkElements.of(network)
    groups = _groups(network, elements, owned)
    free = elements.flat({name: ~vary | ~needed[name] for name, vary in constants.vary.items()})
    fixed = _fixed(network, elements, owned)
    while True:
        stays = np.bincount(groups, weights=~free | fixed) > 0
        kept = elements.split(stays[groups])
        found = BiasShifts(network, constants, kept, masked, owned)
        refused = [elements.ids[name][(~kept[name] & (constants.value[name] != 0)).numpy()] for name in found.refused]
        more = np.concatenate([np.zeros(0, dtype=np.int64), *_not_a_box(elements, kept), *refused])
        if not len(more):
            zeroed = {gate.name: ~masks[gate.name] & _units(kept[gate.nodes[0]]) for gate in gates if gate.name in masks}
            return RemovalPlan(kept, zeroed, found.shifts, found.means)
        fixed[more] = True


def _units(kept: Tensor) -> Tensor:
    return kept.flatten(1).any(dim=1) if kept.ndim > 1 else kept


@dataclass(frozen=True, eq=False)
class NetworkElements:
    """The elements of the input and of all nodes, numbered; ``ids[name]`` has the shape of that node."""

    ids: dict[str, Ints]
    count: int

    @staticmethod
    def of(network: Network) -> NetworkElements:
        """Return the elements of a network."""
        names = [INPUT_NODE, *(node.name for node in network.nodes)]
        ends = np.cumsum([size(network.shape_of(name)) for name in names])
        starts = np.append(0, ends[:-1])
        ids = {n: np.arange(a, b).reshape(network.shape_of(n)) for n, a, b in zip(names, starts, ends, strict=True)}
        return NetworkElements(ids, int(ends[-1]))

    def flat(self, flags: Mapping[str, Tensor]) -> Mask:
        """Return one flag per element from the flags of each node."""
        return np.concatenate([flags[name].numpy().reshape(-1) for name in self.ids])

    def split(self, flags: Mask) -> dict[str, Tensor]:
        """Return the flags of each node from one flag per element."""
        return {name: torch.from_numpy(flags[ids]) for name, ids in self.ids.items()}


def _groups(network: Network, elements: NetworkElements, owned: Callable[[Node], bool]) -> Ints:
    """Return the number of the group that each element belongs to."""
    pairs = [_pair(a, b) for node in network.nodes for a, b in _ties(node, elements.ids)]
    pairs += [_pair(a, b) for a, b in _shared(network, elements.ids, owned)]
    rows, cols = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
    graph = sparse.coo_array((np.ones(len(rows), dtype=bool), (rows, cols)), shape=(elements.count, elements.count))
    return np.asarray(connected_components(graph, directed=False)[1])


def _pair(a: Ints, b: Ints) -> Ints:
    return np.stack([part.reshape(-1) for part in np.broadcast_arrays(a, b)])


def _ties(node: Node, ids: Mapping[str, Ints]) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of elements of a node and of its inputs that are removed together."""
    layer, out, reads = node.layer, ids[node.name], [ids[name] for name in node.inputs]
    if isinstance(layer, (*POOLING_LAYERS, Conv2d, BatchNorm)):
        yield from ((_first(grid), grid) for grid in (*reads, out))
    if isinstance(layer, Conv2d) and layer.groups > 1:
        members = [_first(grid).reshape(layer.groups, -1) for grid in (*reads, out)]
        yield from ((members[0][:, :1], grid) for grid in members)
    elif isinstance(layer, POOLING_LAYERS):
        yield _first(reads[0]), _first(out)
    elif isinstance(layer, REARRANGING_LAYERS):
        moved = places(layer, [grid.shape for grid in reads]).numpy()
        yield np.concatenate([grid.reshape(-1) for grid in reads])[moved], out
    elif isinstance(layer, Add) or unitwise(node, reads[0].shape):
        yield from ((grid, out) for grid in reads)


def _first(grid: Ints) -> Ints:
    """Return the first element of each unit, in the shape that broadcasts over the other elements of the unit."""
    return grid[(slice(None), *[slice(0, 1)] * (grid.ndim - 1))]


def _shared(network: Network, ids: Mapping[str, Ints], owned: Callable[[Node], bool]) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of the units of a module's first use, inputs and outputs, with those of its other uses."""
    first: dict[str, Node] = {}
    for node in network.nodes:
        if owned(node) and isinstance(node.layer, CUT_LAYERS):
            one = first.setdefault(path_of(network, node), node)
            for a, b in ((one.name, node.name), (one.inputs[0], node.inputs[0])):
                yield _first(ids[a]).reshape(-1), _first(ids[b]).reshape(-1)


def _fixed(network: Network, elements: NetworkElements, owned: Callable[[Node], bool]) -> Mask:
    """Return the elements that must stay: input and output of the network, and of layers that cannot be cut."""
    fixed = np.zeros(elements.count, dtype=bool)
    names = {INPUT_NODE, network.output.name}
    for node in network.nodes:
        if not _cuttable(node, network.shape_of(node.inputs[0]), owned):
            names |= {node.name, *node.inputs}
    for name in names:
        fixed[elements.ids[name]] = True
    return fixed


def _cuttable(node: Node, shape: tuple[int, ...], owned: Callable[[Node], bool]) -> bool:
    layer = node.layer
    if isinstance(layer, Dense | Conv2d | BatchNorm):
        return owned(node)
    if isinstance(layer, Scale):
        single = layer.factor.numel() == layer.shift.numel() == 1
        return unitwise(node, shape) and (single or owned(node))
    return isinstance(layer, (*POOLING_LAYERS, *REARRANGING_LAYERS, Add)) or (unitwise(node, shape) and not layer.weights())


def _not_a_box(elements: NetworkElements, kept: Mapping[str, Tensor]) -> Iterator[Ints]:
    """Yield elements that must stay as well, if a node would otherwise be empty or not be a box."""
    for name, stays in kept.items():
        ids = elements.ids[name]
        if not stays.any():
            yield ids.reshape(-1)[:1]
            continue
        box = torch.ones_like(stays)
        for axis in range(stays.ndim):
            others = [k for k in range(stays.ndim) if k != axis]
            box &= stays.any(dim=others, keepdim=True) if others else stays
        if not torch.equal(box, stays):
            yield ids[~stays.numpy()]
