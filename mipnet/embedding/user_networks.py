"""The network that a user embeds: one that was read already, a torch module, or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mipnet.errors import InputError
from mipnet.network.graph import Network
from mipnet.readers.files import read
from mipnet.readers.torch import from_torch


def as_network(given: Network | torch.nn.Module | str | Path, x: Any, feature_dim: Any) -> Network:
    """Return the network; the number of inputs of a module is that of ``x``, or that of its first linear layer.

    Raises `InputError` if a module has no number of inputs that is known, and for anything else.
    """
    if isinstance(given, Network):
        return given
    if isinstance(given, str | Path):
        return read(given)
    if not isinstance(given, torch.nn.Module):
        raise InputError(f"the network is a {type(given).__name__}; expected a `Network`, a torch module, or the path of a file")
    count = _inputs_of(given, x, feature_dim)
    if count is None:
        raise InputError(
            f"the number of inputs of the {type(given).__name__} is not known; read it with `mn.from_torch(module, example_input)`, or name"
            " the dimension of the features in `feature_dim`"
        )
    dtype = next((each.dtype for each in given.parameters()), torch.float64)
    return from_torch(given, torch.zeros(1, *count, dtype=dtype))


def _inputs_of(module: torch.nn.Module, x: Any, feature_dim: Any) -> tuple[int, ...] | None:
    if isinstance(x, Mapping) or (isinstance(x, Sequence) and not isinstance(x, str)):
        return (len(x),)
    sizes = dict(getattr(x, "sizes", {}))
    dims = () if feature_dim is None else (feature_dim,) if isinstance(feature_dim, str) else tuple(feature_dim)
    if dims and all(dim in sizes for dim in dims):
        return tuple(int(sizes[dim]) for dim in dims)
    leaves = [each for each in module.modules() if not list(each.children())]
    first = next((each for each in leaves if list(each.parameters(recurse=False))), None)
    if isinstance(first, torch.nn.Linear):
        return (first.in_features,)
    return (first.num_features,) if isinstance(first, torch.nn.BatchNorm1d) else None
