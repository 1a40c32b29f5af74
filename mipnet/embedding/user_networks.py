"""The network that a user embeds: one that was read already, a torch module, an estimator of scikit-learn, or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mipnet.errors import InputError, NetworkError, meant
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import Network
from mipnet.readers.conversion import one_line
from mipnet.readers.estimators.reader import Estimator, from_sklearn, is_estimator
from mipnet.readers.files import read
from mipnet.readers.torch import from_torch


def as_network(
    given: Network | torch.nn.Module | Estimator | str | Path, x: Any, feature_dim: Any, deadline: Deadline = NO_DEADLINE
) -> Network:
    """Return the network; the number of inputs of a module is that of ``x``, or that of its first linear layer.

    Raises `InputError` if a module has no number of inputs that is known, or does not take the features of ``x``, and for anything else.
    """
    if isinstance(given, Network):
        return given
    if isinstance(given, str | Path):
        return read(given, time_limit=deadline)
    if not isinstance(given, torch.nn.Module):
        if is_estimator(given):
            return from_sklearn(given, deadline)
        raise InputError(
            f"the network is a {type(given).__name__}; expected a `Network`, a torch module, an estimator of scikit-learn, or the path of a"
            " file"
        )
    count = _inputs_of(given, x, feature_dim)
    if count is None:
        raise InputError(
            f"the number of inputs of the {type(given).__name__} is not known; read it with `mn.from_torch(module, example_input)`, or name"
            " the dimension of the features in `feature_dim`"
        )
    dtype = next((each.dtype for each in given.parameters()), torch.float64)
    wanted = _first_layer_inputs(given)
    if len(count) == 1 and wanted not in (None, count[0]):
        raise InputError(f"{_features(x, feature_dim, count)}; the {type(given).__name__} takes {wanted} features")
    try:
        return from_torch(given, torch.zeros(1, *count, dtype=dtype), deadline)
    except NetworkError as error:
        if not isinstance(error.__context__, RuntimeError | ValueError | IndexError | TypeError):
            raise
        why = f"its forward fails ({one_line(error.__context__)})"
        raise InputError(f"{_features(x, feature_dim, count)}; the {type(given).__name__} does not take such an input: {why}") from None


def _features(x: Any, feature_dim: Any, count: tuple[int, ...]) -> str:
    """Return in words how many features a user gave, and by what."""
    if isinstance(x, Mapping | Sequence):
        return f"{len(x)} inputs are given"
    called = f"variable `{x.name}`" if getattr(x, "name", None) and hasattr(x, "labels") else "the input `x`"
    if feature_dim is None:
        return f"{called} gives inputs of shape {count}"
    dims = (feature_dim,) if isinstance(feature_dim, str) else tuple(feature_dim)
    shape = f"length {count[0]}" if len(count) == 1 else f"lengths {count}"
    return f"`feature_dim` is {', '.join(f'`{dim}`' for dim in dims)} of {called}, of {shape}"


def _inputs_of(module: torch.nn.Module, x: Any, feature_dim: Any) -> tuple[int, ...] | None:
    if isinstance(x, Mapping) or (isinstance(x, Sequence) and not isinstance(x, str)):
        return (len(x),)
    sizes = {dim: n for dim, n in dict(getattr(x, "sizes", {})).items() if dim != "_term"}  # of an expression of linopy
    dims = () if feature_dim is None else (feature_dim,) if isinstance(feature_dim, str) else tuple(feature_dim)
    if sizes and (missing := [dim for dim in dims if dim not in sizes]):
        shown = ", ".join(f"{dim}: {n}" for dim, n in sizes.items())
        called = f"variable `{x.name}`" if hasattr(x, "labels") else "the input `x`"
        raise InputError(f"`feature_dim` is `{missing[0]}`; {called} has dimensions ({shown}){meant(missing[0], map(str, sizes))}")
    if dims and sizes:
        return tuple(int(sizes[dim]) for dim in dims)
    inputs = _first_layer_inputs(module)
    return None if inputs is None else (inputs,)


def _first_layer_inputs(module: torch.nn.Module) -> int | None:
    """Return the number of inputs that the first layer with weights takes, None if it does not say one."""
    leaves = [each for each in module.modules() if not list(each.children())]
    first = next((each for each in leaves if list(each.parameters(recurse=False))), None)
    if isinstance(first, torch.nn.Linear):
        return first.in_features
    return first.num_features if isinstance(first, torch.nn.BatchNorm1d) else None
