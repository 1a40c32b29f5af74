"""Weight layers as matrices, and the weights that read a unit.

A unit is read by the weights of the prunable layers after its site.  Between the two its elements pass activations, pooling, flattening,
sums and concatenations; an indicator of the unit is propagated through these (as in `mipnet.pruning.smaller.parameter_counts`).
A dense or convolutional layer is seen as one matrix ``(groups, outputs / groups, J)`` applied to patches
``(sample, patch, group, J)``, with ``J`` the inputs of a dense layer (one patch), or ``inputs / groups * kernel`` of a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mipnet.errors import UnsupportedError
from mipnet.layers import Add, BatchNorm, Conv2d, Dense
from mipnet.network.gates import Gate
from mipnet.network.graph import Layer, Network, Node, size
from mipnet.pruning.rivals.score_arrays import check_time, slices
from mipnet.pruning.smaller.constant_elements import REARRANGING_LAYERS

PATCH_NUMBER_BYTES = 32
"""Bytes per number of an array of patches: itself, and copies by sign."""

TEMPORARY_NUMBERS_MAX = 2**23
"""Numbers in the largest temporary array."""


def weight_nodes(network: Network) -> list[Node]:
    """Return the prunable nodes; raises `UnsupportedError` for a user's layer, whose weights cannot be read as a matrix."""
    nodes = [node for node in network.nodes if node.layer.prunable]
    for node in nodes:
        matrix(node.layer)
    return nodes


def matrix(layer: Layer) -> Tensor:
    """Return the weight as ``(groups, outputs / groups, J)``."""
    if isinstance(layer, Dense):
        return layer.weight[None]
    if isinstance(layer, Conv2d):
        return layer.weight.reshape(layer.groups, len(layer.weight) // layer.groups, -1)
    raise UnsupportedError(f"a layer of type {layer.label} has no weight matrix that mipnet knows; expected Dense or Conv2d")


def patches(layer: Layer, x: Tensor) -> Tensor:
    """Return the patches ``(sample, patch, group, J)`` of a batch of inputs, to which the matrix is applied."""
    if not isinstance(layer, Conv2d):
        return x[:, None, None, :]
    kernel = layer.window.kernel
    columns = F.unfold(layer.window.pad(x, 0.0), kernel, dilation=layer.dilation, stride=layer.stride)  # (sample, C * kernel, patch)
    return columns.reshape(len(x), layer.groups, -1, columns.shape[2]).permute(0, 3, 1, 2)


def patches_bytes(network: Network) -> float:
    """Return the bytes of the largest array of patches of one image, with temporary copies of it."""
    nodes = weight_nodes(network)
    return PATCH_NUMBER_BYTES * max((size(node.shape[1:]) * matrix(node.layer)[:, 0].numel() for node in nodes), default=0)


def by_patch(layer: Layer, y: Tensor) -> Tensor:
    """Return a value or gradient of the layer's output as ``(sample, patch, group, outputs / groups)``."""
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    return y.reshape(len(y), groups, len(matrix(layer)[0]), -1).permute(0, 3, 1, 2)


def readers(network: Network, gate: Gate) -> dict[str, Tensor]:
    """Return, for each weight layer that reads the gate's units, which of its input features belong to which unit.

    Features are elements, or channels.  The result holds booleans of shape ``(units, features)`` by the name of the reading node.
    """
    largest = max(size(node.shape) for node in network.nodes)
    parts = [_trace(network, gate, torch.arange(gate.units)[few]) for few in slices(gate.units, TEMPORARY_NUMBERS_MAX // largest)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _trace(network: Network, gate: Gate, units: Tensor) -> dict[str, Tensor]:
    """Return the readers of a few units, by propagating their indicators through the network."""
    marked: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for node in network.nodes:
        check_time()
        if any(name in marked for name in node.inputs):
            empty = [torch.zeros(len(units), *network.shape_of(name), dtype=torch.float64) for name in node.inputs]
            read = [marked.get(name, none) for name, none in zip(node.inputs, empty, strict=True)]
            if node.layer.prunable:
                found[node.name] = read[0].flatten(2).any(dim=2) if isinstance(node.layer, Conv2d) else read[0] > 0
            else:
                marked[node.name] = _moved(node, read)
        if node.name in gate.sites:
            own = (units[:, None] == torch.arange(gate.units)).double()
            marked[node.name] = own.reshape(len(units), -1, *[1] * (len(node.shape) - 1)).expand(-1, *node.shape)
    return found


def _moved(node: Node, read: list[Tensor]) -> Tensor:
    """Return which elements of a node's output depend on a unit, as 0 and 1."""
    if isinstance(node.layer, REARRANGING_LAYERS):
        return (node.layer.forward(*read) > 0).double()
    if isinstance(node.layer, Add):
        return torch.stack(read).amax(dim=0)
    if node.layer.unitwise and tuple(read[0].shape[1:]) == node.shape:
        return read[0]
    return (node.layer.forward(*read) != node.layer.forward(*(torch.zeros_like(r) for r in read))).double()


def outgoing(network: Network, gate: Gate, weights: Mapping[str, Tensor], combine: str) -> Tensor:
    """Return, for each unit, the ``sum`` or ``max`` of the numbers of its outgoing weights, of shape ``(units,)``.

    ``weights`` holds, for each weight layer, a number >= 0 for each weight, in the form of `matrix`.
    """
    total = torch.zeros(gate.units, dtype=torch.float64)
    for name, member in readers(network, gate).items():
        layer, values = network[name].layer, weights[name]
        groups, outputs, _ = values.shape
        channels = layer.weight.shape[1] if isinstance(layer, Conv2d) else values.shape[2]
        each = values.reshape(groups, outputs, channels, -1)
        if combine == "sum":
            total += member.double() @ each.sum(dim=(1, 3)).reshape(-1)
        else:
            total = torch.maximum(total, (member * each.amax(dim=(1, 3)).reshape(-1)).amax(dim=1))
    return total


def incoming(network: Network, gate: Gate, norm: int) -> Tensor:
    """Return ``sum |w|^norm`` over the incoming weights and the bias of each unit."""
    layer = network[gate.nodes[0]].layer
    total = (matrix(layer).abs() ** norm).sum(dim=2).reshape(-1)
    bias = layer.weights().get("bias")
    return total if bias is None else total + bias.abs() ** norm


def batch_norms(network: Network, path: Sequence[str]) -> list[BatchNorm]:
    """Return the batch norms on the path from a prunable node to its site."""
    return [layer for layer in (network[name].layer for name in path) if isinstance(layer, BatchNorm)]
