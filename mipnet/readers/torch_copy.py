"""Copies of torch modules, also of those that compute weights from other tensors: masks of `torch.nn.utils.prune`, weight norms."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mipnet.errors import UnsupportedError
from mipnet.readers.conversion import one_line

WEIGHT_HOOKS = (BasePruningMethod, SpectralNorm, WeightNorm)
"""Hooks that compute a weight before each forward pass."""


def copied(module: nn.Module) -> nn.Module:
    """Return a copy of a module; raises `UnsupportedError` if torch cannot copy it."""
    try:
        return copy.deepcopy(module, _computed_tensors(module))
    except Exception as error:
        raise UnsupportedError(f"`{type(module).__name__}` cannot be copied ({one_line(error)}); expected an ordinary module") from None


def with_plain_weights(module: nn.Module) -> nn.Module:
    """Replace the hooks of `torch.nn.utils` that compute weights by the weights that they give, and return the module."""
    for part in module.modules():
        for key, hook in list(part._forward_pre_hooks.items()):
            if isinstance(hook, WEIGHT_HOOKS):
                hook.remove(part)
                del part._forward_pre_hooks[key]
    return module


def _computed_tensors(module: nn.Module) -> dict[int, Any]:
    """Return copies of the tensors of a module that a hook computes from parameters, such as masked weights; `deepcopy` refuses these."""
    held = (value for part in module.modules() for value in vars(part).values())
    return {id(value): value.detach().clone() for value in held if isinstance(value, Tensor) and not value.is_leaf}
