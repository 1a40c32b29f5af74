"""Which elements of each node a smaller network does without.

NetworkElements that must go together form a group: a channel's whole plane, an element and its copy behind a flattening, the summands
of a residual addition, both uses of a module used twice, inputs and outputs of one group of a convolution.  A group goes if each
of its elements is constant under the masks, or needed by nothing that varies, and nothing holds it: the input and the output
keep their sizes, and so does what is made by other means than Linear, Conv2d and BatchNorm modules.  A constant other
than 0 stays unless its effect can move elsewhere (`mipnet.pruning.smaller.bias_shifts`).  Units that are masked and stay are `zeroed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mipnet.layers import Add, BatchNorm, Conv2d, Dense, Scale
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT_NODE, Network, Node, size
from mipnet.pruning.smaller.bias_shifts import BiasShifts
from mipnet.pruning.smaller.constant_elements import (
    POOLING_LAYERS,
    REARRANGING_LAYERS,
    find_constants,
    find_needed,
    path_of,
    places,
    silent_units,
    unitwise,
)

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RemovalPlan:
    """``kept`` elements of each node and of the input; ``zeroed`` units of each gate; ``shifts`` of biases and ``means``, by path."""

    kept: dict[str, Tensor]
    zeroed: dict[str, Tensor]
    shifts: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)

    def units(self, name: str) -> Tensor:
        """Which units or channels of a node stay."""
        return self.kept[name].flatten(1).any(dim=1) if self.kept[name].ndim > 1 else self.kept[name]


def plan_removal(network: Network, gates: tuple[Gate, ...], masks: Mapping[str, Tensor], owned: Callable[[Node], bool]) -> RemovalPlan:
    """The plan for masks (True stays) by gate; ``owned`` says whether a node's weights can be cut out of a module of their own."""
    silent = silent_units(network, gates, masks)
    constants = find_constants(network, silent)
    needed = find_needed(network, constants)
    elements = NetworkElements.of(network)
    groups = _groups(network, elements, owned)
    free = elements.flat({name: ~vary | ~needed[name] for name, vary in constants.vary.items()})
    held = _held(network, elements, owned)
    while True:
        stays = np.bincount(groups, weights=~free | held) > 0
        kept = elements.split(stays[groups])
        found = BiasShifts(network, constants, kept, silent, owned)
        refused = [elements.ids[name][(~kept[name] & (constants.value[name] != 0)).numpy()] for name in found.refused]
        more = np.concatenate([np.zeros(0, dtype=np.int64), *_not_a_box(elements, kept), *refused])
        if not len(more):
            zeroed = {gate.name: ~masks[gate.name] & _units(kept[gate.nodes[0]]) for gate in gates if gate.name in masks}
            return RemovalPlan(kept, zeroed, found.shifts, found.means)
        held[more] = True


def _units(kept: Tensor) -> Tensor:
    return kept.flatten(1).any(dim=1) if kept.ndim > 1 else kept


@dataclass(frozen=True, eq=False)
class NetworkElements:
    """The elements of the input and of all nodes, counted through; ``ids[name]`` has the shape of that node."""

    ids: dict[str, Ids]
    count: int

    @staticmethod
    def of(network: Network) -> NetworkElements:
        """The elements of a network."""
        names = [INPUT_NODE, *(node.name for node in network.nodes)]
        ends = np.cumsum([size(network.shape_of(name)) for name in names])
        starts = np.append(0, ends[:-1])
        ids = {n: np.arange(a, b).reshape(network.shape_of(n)) for n, a, b in zip(names, starts, ends, strict=True)}
        return NetworkElements(ids, int(ends[-1]))

    def flat(self, flags: Mapping[str, Tensor]) -> Flags:
        """One flag an element from the flags of each node."""
        return np.concatenate([flags[name].numpy().reshape(-1) for name in self.ids])

    def split(self, flags: Flags) -> dict[str, Tensor]:
        """The flags of each node from one flag an element."""
        return {name: torch.from_numpy(flags[ids]) for name, ids in self.ids.items()}


def _groups(network: Network, elements: NetworkElements, owned: Callable[[Node], bool]) -> Ids:
    """The number of the group that each element belongs to."""
    pairs = [_pair(a, b) for node in network.nodes for a, b in _ties(node, elements.ids)]
    pairs += [_pair(a, b) for a, b in _shared(network, elements.ids, owned)]
    rows, cols = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
    graph = sparse.coo_array((np.ones(len(rows), dtype=bool), (rows, cols)), shape=(elements.count, elements.count))
    return np.asarray(connected_components(graph, directed=False)[1])


def _pair(a: Ids, b: Ids) -> Ids:
    return np.stack([part.reshape(-1) for part in np.broadcast_arrays(a, b)])


def _ties(node: Node, ids: Mapping[str, Ids]) -> Iterator[tuple[Ids, Ids]]:
    """Pairs of elements of a node and of its inputs that go together."""
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


def _first(grid: Ids) -> Ids:
    """The first element of each unit, in the shape that broadcasts over the unit's others."""
    return grid[(slice(None), *[slice(0, 1)] * (grid.ndim - 1))]


def _shared(network: Network, ids: Mapping[str, Ids], owned: Callable[[Node], bool]) -> Iterator[tuple[Ids, Ids]]:
    """Units of the inputs and outputs of a module's first use with those of its other uses."""
    first: dict[str, Node] = {}
    for node in network.nodes:
        if owned(node) and isinstance(node.layer, Dense | Conv2d | BatchNorm | Scale):
            one = first.setdefault(path_of(network, node), node)
            for a, b in ((one.name, node.name), (one.inputs[0], node.inputs[0])):
                yield _first(ids[a]).reshape(-1), _first(ids[b]).reshape(-1)


def _held(network: Network, elements: NetworkElements, owned: Callable[[Node], bool]) -> Flags:
    """The elements that no group may lose: the ends of the network, and of layers that cannot be cut."""
    held = np.zeros(elements.count, dtype=bool)
    names = {INPUT_NODE, network.output.name}
    for node in network.nodes:
        if not _cuttable(node, network.shape_of(node.inputs[0]), owned):
            names |= {node.name, *node.inputs}
    for name in names:
        held[elements.ids[name]] = True
    return held


def _cuttable(node: Node, shape: tuple[int, ...], owned: Callable[[Node], bool]) -> bool:
    layer = node.layer
    if isinstance(layer, Dense | Conv2d | BatchNorm):
        return owned(node)
    if isinstance(layer, Scale):
        single = layer.factor.numel() == layer.shift.numel() == 1
        return unitwise(node, shape) and (single or owned(node))
    return isinstance(layer, (*POOLING_LAYERS, *REARRANGING_LAYERS, Add)) or (unitwise(node, shape) and not layer.weights())


def _not_a_box(elements: NetworkElements, kept: Mapping[str, Tensor]) -> Iterator[Ids]:
    """The elements to hold where what stays of a node is nothing, or no rectangle."""
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
