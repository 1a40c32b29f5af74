"""The group importance of torch-pruning (``pip install mipnet[rivals]``), computed by that package for the units of gates.

torch-pruning traces a module and finds the group of weights that must be removed with a channel.  A network is given to it as a module
whose weight layers and batch norms are those of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mipnet.errors import UnsupportedError
from mipnet.layers import BatchNorm, Conv2d, Dense
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT_NODE, Network, Node
from mipnet.pruning.rivals.registry import rival
from mipnet.pruning.rivals.score_arrays import as_scores, check_gates, check_time
from mipnet.pruning.rivals.weight_matrices import weight_nodes


class NetworkModule(nn.Module):
    """A network as a float64 module; ``parts`` holds one torch module for each weight layer and batch norm, by origin."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.parts: dict[str, nn.Module] = {}
        for node in network.nodes:
            check_time()
            if node.origin not in self.parts and (part := _part(node)) is not None:
                self.parts[node.origin] = part.double().eval()
        self.listed = nn.ModuleList(self.parts.values())

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output."""
        values = {INPUT_NODE: x}
        for node in self.network.nodes:
            read = [values[name] for name in node.inputs]
            part = self.parts.get(node.origin)
            if isinstance(node.layer, Conv2d):
                read = [node.layer.window.pad(read[0], 0.0)]
            values[node.name] = node.layer.forward(*read) if part is None else part(*read)
        return values[self.network.output.name]


def _part(node: Node) -> nn.Module | None:
    """Return the torch module of a dense, convolution or batch norm layer, None for other layers."""
    layer, part = node.layer, None
    if isinstance(layer, Dense):
        part = _filled(nn.Linear(layer.weight.shape[1], len(layer.weight), layer.bias is not None), layer.weight, layer.bias)
    elif isinstance(layer, Conv2d):
        outputs, inputs = len(layer.weight), int(layer.weight.shape[1]) * layer.groups
        options: dict[str, Any] = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
        conv = nn.Conv2d(inputs, outputs, layer.window.kernel, bias=layer.bias is not None, **options)
        part = _filled(conv, layer.weight, layer.bias)
    elif isinstance(layer, BatchNorm):
        norm = (nn.BatchNorm2d if len(node.shape) == 3 else nn.BatchNorm1d)(len(layer.factor), eps=0.0)
        part = _filled(norm, layer.factor, layer.shift)
    return part


def _filled(part: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    part.weight = nn.Parameter(weight.clone())
    if bias is not None:
        part.bias = nn.Parameter(bias.clone())
    module: nn.Module = part
    return module


@rival(
    "torch-pruning",
    about="the group importance of that package, by its own code",
    source="Fang et al., CVPR 2023",
    needs="torch-pruning",
    order=15,
)
def torch_pruning(
    network: Network, gates: Sequence[Gate], images: ArrayLike, labels: ArrayLike, *, seed: int = 0, p: int = 2, reduction: str = "mean"
) -> xr.Dataset:
    """Return `GroupMagnitudeImportance` of torch-pruning: the ``reduction`` of ``|w|^p`` over a group, divided by its mean over the layer.

    Fang, Ma, Song, Mi and Wang, "DepGraph: Towards Any Structural Pruning" (CVPR 2023).  A batch norm counts with its factor
    ``gamma / sqrt(variance + eps)``; units that an addition ties together have one score.  Images and labels are not used.
    """
    import torch_pruning as tp

    check_gates(gates)
    weight_nodes(network)
    check_time()
    module = NetworkModule(network)
    check_time()
    graph = tp.DependencyGraph().build_dependency(
        module, example_inputs=torch.zeros(1, *network.input_shape, dtype=torch.float64), verbose=False
    )
    importance = tp.importance.GroupMagnitudeImportance(p=p, group_reduction=reduction)
    found = {}
    for gate in gates:
        check_time()
        part = module.parts[network[gate.nodes[0]].origin]
        remove = tp.prune_conv_out_channels if isinstance(part, nn.Conv2d) else tp.prune_linear_out_channels
        scores = importance(graph.get_pruning_group(part, remove, idxs=list(range(gate.units))))
        if scores is None or scores.shape != (gate.units,):
            raise UnsupportedError(f"torch-pruning has no importance for the units of `{gate.name}`; leave the rival `torch-pruning` out")
        found[gate.name] = scores.detach().double()
    return as_scores(gates, found, "group importance of torch-pruning")
