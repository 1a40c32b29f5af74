"""Masks on a torch module, in the form of `torch.nn.utils.prune`: the weights and the bias of a masked unit are 0.

The weights and bias of a removed unit are masked, and so is the batch norm on the path to where its gate acts (`Gate.sites`).
A batch norm without weights has nothing to mask; its running mean for that channel is set to 0, which is that of a masked
channel.  Masked units stay 0 in training, because torch multiplies by the mask in every forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import prune as torch_prune

from mipnet.errors import UnsupportedError
from mipnet.layers import BatchNorm, Conv2d, Dense, Scale
from mipnet.network.gates import Gate, by_unit, path_to_site
from mipnet.network.graph import Layer, Network, Node

Weighted = nn.Linear | nn.Conv2d | _BatchNorm
"""The modules whose units can be masked and removed."""


def torch_masks(module: nn.Module, network: Network, gates: Sequence[Gate], masks: xr.Dataset) -> nn.Module:
    """Put masks on a module and return it: it then computes ``network.outputs(x, mask_actions(gates, masks))``.

    ``network`` and ``gates`` are those of the module (`from_torch`, `find_gates`); gates without a variable in ``masks``
    keep all units.  Raises `UnsupportedError` for a unit that zero weights do not silence.
    """
    masks = by_unit(gates, masks, some=True)
    kept = {gate.name: torch.tensor(masks[gate.name].values, dtype=torch.bool) for gate in gates if gate.name in masks}
    for path, stays in silenced(module, network, gates, kept).items():
        _mask(owner(module, path), stays)
    return module


def remove_masks(module: nn.Module) -> nn.Module:
    """Make the masks of `torch_masks` permanent and return the module: plain parameters, with zeros in removed units."""
    for mask in _hooks(module):
        mask.hook.remove(mask.part)
        del mask.part._forward_pre_hooks[mask.key]
    return module


def refuse_masks(module: nn.Module) -> None:
    """Raise `UnsupportedError` if a module carries masks of `torch.nn.utils.prune`: torch cannot copy it."""
    if _hooks(module):
        raise UnsupportedError(
            "the module carries masks of torch.nn.utils.prune; make them permanent first (`torch.nn.utils.prune.remove`)"
        )


class MaskHook(NamedTuple):
    """A mask of `torch.nn.utils.prune`: its module, and its forward hook with the key of the hook."""

    part: nn.Module
    key: int
    hook: torch_prune.BasePruningMethod


def _hooks(module: nn.Module) -> list[MaskHook]:
    found = [(part, key, hook) for part in module.modules() for key, hook in part._forward_pre_hooks.items()]
    return [MaskHook(part, key, hook) for part, key, hook in found if isinstance(hook, torch_prune.BasePruningMethod)]


def owner(module: nn.Module, path: str) -> nn.Module:
    """Return the module at ``path`` if it is a Linear, Conv2d or BatchNorm with its own parameters, else raise `UnsupportedError`."""
    found = module.get_submodule(path)
    if not isinstance(found, Weighted):
        raise UnsupportedError(f"`{path}` is a {type(found).__name__}; units of Linear, Conv2d and BatchNorm modules can be removed")
    for name in ("weight", "bias"):
        if getattr(found, name, None) is not None and not isinstance(found._parameters.get(name), nn.Parameter):
            raise UnsupportedError(
                f"`{name}` of `{path}` is computed from other tensors (a parametrization or a mask); make it permanent first"
            )
    return found


MASKABLE_MODULES: dict[type[Layer], type[nn.Module]] = {Dense: nn.Linear, Conv2d: nn.Conv2d, BatchNorm: _BatchNorm, Scale: _BatchNorm}


def is_owned(module: nn.Module, network: Network, node: Node) -> bool:
    """Return True if a node is the call of a Linear, Conv2d or BatchNorm module."""
    path, kind = network.modules.get(node.origin), MASKABLE_MODULES.get(type(node.layer))
    return path is not None and kind is not None and isinstance(module.get_submodule(path), kind)


def silenced(module: nn.Module, network: Network, gates: Sequence[Gate], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, by the path of each module to mask, which of its units stay; raises `UnsupportedError` if that does not silence a unit."""
    found: dict[str, Tensor] = {}
    for gate, node in _gated(network, gates, kept):
        for name in path_to_site(network, node):
            if is_owned(module, network, network[name]):
                path = network.modules[network[name].origin]
                found[path] = found.get(path, torch.zeros(gate.units, dtype=torch.bool)) | kept[gate.name]
    for gate, node in _gated(network, gates, kept):
        _check_zero_output(network, gate, node, kept[gate.name], found)
    return found


def _gated(network: Network, gates: Sequence[Gate], kept: Mapping[str, Tensor]) -> Iterator[tuple[Gate, Node]]:
    for gate in gates:
        if gate.name in kept and not bool(kept[gate.name].all()):
            yield from ((gate, network[name]) for name in gate.nodes)


def _check_zero_output(network: Network, gate: Gate, node: Node, kept: Tensor, masks: Mapping[str, Tensor]) -> None:
    """Raise unless zeros at the gated node are zeros at its site, for the removed units."""
    if network.modules.get(node.origin) not in masks:
        raise UnsupportedError(f"the weights of `{gate.name}` belong to no plain Linear or Conv2d module; its units cannot be masked")
    value = torch.zeros(1, *node.shape, dtype=torch.float64)
    for name in path_to_site(network, node)[1:]:
        value = network[name].layer.forward(value)
        mask = masks.get(network.modules.get(network[name].origin, ""))
        if mask is not None:
            value = value * mask.to(value.dtype).reshape(-1, *[1] * (value.ndim - 2))
    if bool((value[0, ~kept] != 0).any()):
        way = ", ".join(f"`{name}`" for name in path_to_site(network, node)[1:])
        raise UnsupportedError(
            f"a unit of `{gate.name}` cannot be silenced by zero weights: {way} after it turn zeros into other numbers;"
            " keep the units of this layer"
        )


def _mask(part: nn.Module, stays: Tensor) -> None:
    for name in ("weight", "bias"):
        value = part._parameters.get(name)
        if value is not None:
            mask = stays.to(value.device).reshape(-1, *[1] * (value.ndim - 1)).expand_as(value)
            torch_prune.custom_from_mask(part, name, mask.to(value.dtype))  # type: ignore[no-untyped-call]
    statistics = part._buffers.get("running_mean")
    if statistics is not None and part._parameters.get("bias") is None:
        statistics[~stays.to(statistics.device)] = 0.0
