"""The elements of each node that masks make constant, and their values.

A masked unit is 0 after its activation.  A node that reads only constants is constant too, but not always 0: a batch norm after the
activation adds its shift, a depthwise convolution its bias.  Weights that happen to be 0 make nothing constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mipnet.layers import AdaptiveAvgPool2d, Add, AvgPool2d, Concat, Conv2d, MaxPool2d, Permute, Reshape
from mipnet.network.gates import Gate, path_to_site
from mipnet.network.graph import INPUT_NODE, Layer, Network, Node

POOLING_LAYERS = (MaxPool2d, AvgPool2d, AdaptiveAvgPool2d)
REARRANGING_LAYERS = (Reshape, Permute, Concat)


@dataclass(frozen=True, eq=False)
class ConstantElements:
    """Per node, and for the input: which elements of one sample ``vary`` with the input, and the ``value`` of the others."""

    vary: dict[str, Tensor]
    value: dict[str, Tensor]


def path_of(network: Network, node: Node) -> str:
    """Return the path of the module that a node's weights belong to, or the name of its origin if no module is known."""
    return network.modules.get(node.origin, node.origin)


def unitwise(node: Node, shape: tuple[int, ...]) -> bool:
    """Return True if output element k of the node depends on input element k alone."""
    return node.layer.unitwise and node.shape == shape


def find_constants(network: Network, masked: Mapping[str, Tensor]) -> ConstantElements:
    """Return the constants of a network in which the units ``masked[node]`` are 0 at that node."""
    vary = {INPUT_NODE: torch.ones(network.input_shape, dtype=torch.bool)}
    value = {INPUT_NODE: torch.zeros(network.input_shape, dtype=torch.float64)}
    for node in network.nodes:
        reads = [vary[name] for name in node.inputs]
        changed = _varies(node, reads)
        found = node.layer.forward(*(value[name][None] for name in node.inputs))[0]
        if node.name in masked:
            off = masked[node.name].reshape(-1, *[1] * (len(node.shape) - 1))
            changed, found = changed & ~off, found.masked_fill(off, 0.0)
        vary[node.name], value[node.name] = changed, found.masked_fill(changed, 0.0)
    return ConstantElements(vary, value)


def _varies(node: Node, reads: list[Tensor]) -> Tensor:
    layer = node.layer
    if unitwise(node, tuple(reads[0].shape)):
        return reads[0]
    if isinstance(layer, REARRANGING_LAYERS + POOLING_LAYERS):
        return layer.forward(*(r[None].double() for r in reads))[0] > 0
    if isinstance(layer, Add):
        return torch.stack(reads).any(dim=0)
    if isinstance(layer, Conv2d):
        return layer._apply(reads[0][None].double(), torch.ones_like(layer.weight), None)[0] > 0
    changes = any(bool(read.any()) for read in reads)
    return torch.full(node.shape, changes)


def find_needed(network: Network, constants: ConstantElements) -> dict[str, Tensor]:
    """Return, per node and for the input, the elements that a varying element of the output depends on."""
    needed = {name: torch.zeros_like(vary) for name, vary in constants.vary.items()}
    needed[network.output.name] |= True
    for node in reversed(network.nodes):
        wanted = needed[node.name] & constants.vary[node.name]
        for name, asked in zip(node.inputs, _needs(node, wanted, [network.shape_of(n) for n in node.inputs]), strict=True):
            needed[name] |= asked
    return needed


def _needs(node: Node, wanted: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Return which elements of each input a node needs for the elements ``wanted`` of its output."""
    layer = node.layer
    if unitwise(node, shapes[0]) or isinstance(layer, Add):
        return [wanted] * len(shapes)
    if isinstance(layer, REARRANGING_LAYERS):
        ids = places(layer, shapes)
        flat = torch.zeros(sum(torch.Size(s).numel() for s in shapes), dtype=torch.bool)
        flat[ids[wanted]] = True
        parts = torch.split(flat, [torch.Size(s).numel() for s in shapes])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    if isinstance(layer, POOLING_LAYERS):
        return [wanted.flatten(1).any(dim=1)[:, None, None].expand(shapes[0])]
    if isinstance(layer, Conv2d):
        groups = wanted.reshape(layer.groups, -1).any(dim=1)
        return [groups.repeat_interleave(shapes[0][0] // layer.groups)[:, None, None].expand(shapes[0])]
    return [torch.full(shape, bool(wanted.any())) for shape in shapes]


def places(layer: Layer, shapes: list[tuple[int, ...]]) -> Tensor:
    """Return, for a layer that rearranges elements, the index of the input element at each place of the output, over all inputs."""
    counts = [torch.Size(shape).numel() for shape in shapes]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    ids = [torch.arange(start, start + n).reshape(1, *s) for start, n, s in zip(starts, counts, shapes, strict=True)]
    return layer.forward(*ids)[0]


def masked_units(network: Network, gates: tuple[Gate, ...], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, for every node on the path from a gated node to its site, which units the masks silence."""
    return {
        name: ~kept[gate.name]
        for gate in gates
        if gate.name in kept
        for start in gate.nodes
        for name in path_to_site(network, network[start])
    }
