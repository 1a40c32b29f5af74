"""What reads a unit, and weight layers as matrices: the ground that scores of units stand on.

A unit is read by the weights of the prunable layers behind its site.  Between the two its elements move through activations,
pooling, flattening, sums and concatenations, which an indicator of the unit is run through (as in `mipnet.pruning.smaller.parameters`).
A dense or convolutional layer is seen as one matrix ``(groups, outputs / groups, J)`` applied to patches
``(sample, patch, group, J)``, with ``J`` the inputs of a dense layer (one patch), or ``inputs / groups * kernel`` of a convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.errors import DataError, InputError, UnsupportedError
from mipnet.layers import Add, BatchNorm, Conv2d, Dense
from mipnet.model.losses import check_labels
from mipnet.network.gates import Gate
from mipnet.network.graph import Layer, Network, Node, size
from mipnet.pruning.smaller.constants import MOVES

CHUNK = 2**23
"""Numbers in the largest temporary array."""


def check_gates(gates: Sequence[Gate]) -> None:
    """Raise `InputError` if there is nothing to score."""
    if not gates:
        raise InputError("no gates were given; expected at least one, from `find_gates`")


def check_images(network: Network, images: ArrayLike | Tensor) -> Tensor:
    """Images as a float64 tensor ``(n, *input_shape)``; raises `DataError` unless n >= 1 and every number is finite."""
    x = torch.as_tensor(images).detach().to("cpu", torch.float64)
    if tuple(x.shape[1:]) != network.input_shape or not len(x):
        shape = ", ".join(map(str, network.input_shape))
        raise DataError(f"the images have shape {tuple(x.shape)}; expected (n, {shape}) with n >= 1")
    if not bool(torch.isfinite(x).all()):
        raise DataError("the images hold NaN or infinite numbers; expected finite ones")
    return x


def check_classes(network: Network, labels: ArrayLike, samples: int) -> Tensor:
    """Labels as a tensor ``(samples,)``; raises `InputError` unless the network gives logits that they fit."""
    if len(network.output_shape) != 1:
        raise InputError(f"a loss needs one vector of logits a sample; the network's output has shape {network.output_shape}")
    return torch.as_tensor(check_labels(labels, samples, network.output_shape[0]))


def as_scores(gates: Sequence[Gate], found: Mapping[str, Tensor], title: str) -> xr.Dataset:
    """One variable a gate, along its dim; larger is more important."""
    return xr.Dataset({gate.name: (gate.dim, found[gate.name].numpy().copy()) for gate in gates}, attrs={"title": title})


def pieces(count: int, step: int) -> Iterator[slice]:
    """``range(count)`` in slices of at most ``step``."""
    yield from (slice(a, b) for a, b in pairwise([*range(0, count, max(1, step)), count]))


def weight_nodes(network: Network) -> list[Node]:
    """The prunable nodes; raises `UnsupportedError` for a layer of one's own, whose weights cannot be read as a matrix."""
    nodes = [node for node in network.nodes if node.layer.prunable]
    for node in nodes:
        matrix(node.layer)
    return nodes


def matrix(layer: Layer) -> Tensor:
    """The weight as ``(groups, outputs / groups, J)``."""
    if isinstance(layer, Dense):
        return layer.weight[None]
    if isinstance(layer, Conv2d):
        return layer.weight.reshape(layer.groups, len(layer.weight) // layer.groups, -1)
    raise UnsupportedError(f"a layer of type {layer.label} has no weight matrix that mipnet knows; expected Dense or Conv2d")


def patches(layer: Layer, x: Tensor) -> Tensor:
    """What the matrix is applied to: ``(sample, patch, group, J)`` from a batch of inputs."""
    if not isinstance(layer, Conv2d):
        return x[:, None, None, :]
    kernel = layer.window.kernel
    columns = F.unfold(layer.window.pad(x, 0.0), kernel, dilation=layer.dilation, stride=layer.stride)  # (sample, C * kernel, patch)
    return columns.reshape(len(x), layer.groups, -1, columns.shape[2]).permute(0, 3, 1, 2)


def by_patch(layer: Layer, y: Tensor) -> Tensor:
    """A value or gradient of the layer's output as ``(sample, patch, group, outputs / groups)``."""
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    return y.reshape(len(y), groups, len(matrix(layer)[0]), -1).permute(0, 3, 1, 2)


def readers(network: Network, gate: Gate) -> dict[str, Tensor]:
    """For each weight layer that reads the gate's units: which of its input features (elements, or channels) belong to which unit.

    Booleans of shape ``(units, features)``, by the reading node's name.
    """
    largest = max(size(node.shape) for node in network.nodes)
    parts = [_trace(network, gate, torch.arange(gate.units)[piece]) for piece in pieces(gate.units, CHUNK // largest)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _trace(network: Network, gate: Gate, units: Tensor) -> dict[str, Tensor]:
    """The readers of a few units, by running their indicators through the network."""
    marked: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for node in network.nodes:
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
    """Which elements of a node's output depend on a unit, as 0 and 1."""
    if isinstance(node.layer, MOVES):
        return (node.layer.forward(*read) > 0).double()
    if isinstance(node.layer, Add):
        return torch.stack(read).amax(dim=0)
    if node.layer.unitwise and tuple(read[0].shape[1:]) == node.shape:
        return read[0]
    return (node.layer.forward(*read) != node.layer.forward(*(torch.zeros_like(r) for r in read))).double()


def outgoing(network: Network, gate: Gate, weights: Mapping[str, Tensor], combine: str) -> Tensor:
    """For each unit the ``sum`` or ``max`` of what its outgoing weights carry, ``(units,)``.

    ``weights`` holds for each weight layer a number >= 0 for each weight, in the form of `matrix`.
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


def norms_behind(network: Network, way: Sequence[str]) -> list[BatchNorm]:
    """The batch norms on the way from a prunable node to its site."""
    return [layer for layer in (network[name].layer for name in way) if isinstance(layer, BatchNorm)]
