"""Networks from files: .pt2 and .onnx hold a network; .safetensors, .pt and .pth hold weights, and need a list of layers."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipnet.errors import NetworkError, UnsupportedError, suggest_keywords
from mipnet.network.graph import Network
from mipnet.readers.conversion import one_line
from mipnet.readers.file_bytes import PACKED_SUFFIXES
from mipnet.readers.pt2 import read_pt2
from mipnet.readers.torch import from_torch

__all__ = ["build_module", "read", "read_pt2", "read_safetensors", "read_weights"]

INLINE_LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *(nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.MaxPool2d),
        *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity, nn.Softmax, nn.LogSoftmax),
    )
}
"""The types of inline layers: classes of torch.nn, by their names."""

HIDDEN_ARGUMENTS = {"self", "device", "dtype", "args", "kwargs", "min_value", "max_value"}
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
ONNX_SUFFIXES = (".onnx", *(f".onnx{packed}" for packed in PACKED_SUFFIXES))
NETWORK_SUFFIXES = (".pt2", *ONNX_SUFFIXES)
"""Suffixes of files that hold a whole network: layers and weights."""


def suffix_of(path: str | Path) -> str:
    """Return the suffix in lower case, with the one before it if the file is compressed (`.onnx.gz`)."""
    name = Path(path).name.lower()
    return next((suffix for suffix in ONNX_SUFFIXES if name.endswith(suffix)), Path(name).suffix)


@suggest_keywords
def read(path: str | Path, layers: Sequence[Mapping[str, Any]] | None = None, input_shape: Sequence[int] | None = None) -> Network:
    """Read the network of a file, by the file's suffix.

    ``.pt2``                          a file of `torch.export.save`, see `read_pt2`
    ``.onnx``                         see `mipnet.readers.onnx_file.from_onnx`; also compressed (``.onnx.gz, .onnx.xz, .onnx.bz2``)
    ``.safetensors``, ``.pt, .pth``   weights, together with ``layers`` and ``input_shape``, see `build_module`
    """
    suffix = suffix_of(path)
    if suffix == ".pt2":
        return read_pt2(path)
    if suffix in ONNX_SUFFIXES:
        from mipnet.readers.onnx_file import from_onnx

        return from_onnx(path)
    if suffix not in WEIGHT_SUFFIXES:
        raise UnsupportedError(f"`{path}` has the suffix `{suffix}`; expected .pt2, {', '.join((*ONNX_SUFFIXES, *WEIGHT_SUFFIXES))}")
    return read_safetensors(path, layers, input_shape)


def read_safetensors(path: str | Path, layers: Sequence[Mapping[str, Any]] | None, input_shape: Sequence[int] | None) -> Network:
    """Read the weights of a file and return the network of these inline layers; see `build_module`."""
    if not Path(path).is_file():
        raise NetworkError(f"no file `{path}`; expected weights ({', '.join(WEIGHT_SUFFIXES)})")
    if layers is None or input_shape is None:
        missing = "layers" if layers is None else "input_shape"
        raise NetworkError(f"`{path}` holds weights only; give `{missing}`, or export the module with `torch.export.save` as .pt2")
    return from_torch(build_module(layers, path, input_shape), torch.zeros(1, *input_shape))


@suggest_keywords
def build_module(layers: Sequence[Mapping[str, Any]], weights_path: str | Path, input_shape: Sequence[int]) -> nn.Module:
    """Build a `torch.nn.Sequential` of inline layers, with the weights of a file, in eval mode and in the file's number type.

    A layer is a mapping with ``name``, ``type`` (see `INLINE_LAYERS`) and the arguments of that class of torch.nn.  Raises `NetworkError`
    for wrong layers and for weights that are missing, left over or of another shape, naming the layer and the key.
    """
    if not layers:
        raise NetworkError("the network has no layers; expected at least one mapping with `name` and `type`")
    if not input_shape or any(not isinstance(n, int) or n < 1 for n in input_shape):
        raise NetworkError(f"input_shape is {input_shape}; expected the positive sizes of one sample, such as [1, 28, 28]")
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for place, entry in enumerate(layers):
        name = _layer_name(entry, place, parts)
        parts[name] = _build(name, entry)
    module = nn.Sequential(parts).eval()
    _load(module, read_weights(weights_path), weights_path)
    return module


def _layer_name(entry: Any, place: int, known: Mapping[str, nn.Module]) -> str:
    if not isinstance(entry, Mapping) or "type" not in entry:
        raise NetworkError(f"layer {place + 1} is {entry!r:.80}; expected a mapping with `name`, `type` and arguments")
    name = str(entry.get("name", place))
    if not name or "." in name or name in known or hasattr(nn.Sequential, name):
        raise NetworkError(f"layer {place + 1} is called `{name}`; expected a name of its own, without dots, not a method of modules")
    return name


def _build(name: str, entry: Mapping[str, Any]) -> nn.Module:
    kind = INLINE_LAYERS.get(str(entry["type"]))
    if kind is None:
        raise UnsupportedError(f"layer `{name}` has type `{entry['type']}`; expected one of {', '.join(INLINE_LAYERS)}")
    given = {str(key): tuple(v) if isinstance(v, list) else v for key, v in entry.items() if key not in ("name", "type")}
    allowed = [key for key in inspect.signature(kind).parameters if key not in HIDDEN_ARGUMENTS] if kind is not nn.Identity else []
    if kind is nn.Hardtanh:
        allowed = ["min_val", "max_val", "inplace"]
    unknown = [key for key in given if key not in allowed]
    if unknown:
        raise NetworkError(f"layer `{name}`: {kind.__name__} has no argument `{unknown[0]}`; it has {', '.join(allowed) or 'none'}")
    try:
        return kind(**given)
    except Exception as error:
        raise NetworkError(f"layer `{name}`: {kind.__name__}({_shown(given)}) fails ({one_line(error)})") from None


def _shown(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in given.items())


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a state dict in a .pt or .pth file (without running code), by name."""
    path = Path(path)
    if not path.is_file():
        raise NetworkError(f"no file `{path}`; expected weights ({', '.join(WEIGHT_SUFFIXES)})")
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise UnsupportedError(f"`{path}` has the suffix `{path.suffix}`; expected weights ({', '.join(WEIGHT_SUFFIXES)})")
    try:
        found = _safetensors(path) if path.suffix.lower() == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        hint = "write `torch.save(module.state_dict(), path)`, or `safetensors.torch.save_file(module.state_dict(), path)`"
        raise NetworkError(f"`{path}` holds no tensors that can be read safely ({one_line(error)}); {hint}") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise NetworkError(f"`{path}` holds a {type(found).__name__}; expected a state dict, names with tensors (`module.state_dict()`)")
    return {str(key): value for key, value in found.items()}


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _load(module: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Load the weights; raises `NetworkError` if some are missing or unexpected, except `num_batches_tracked`, which may be missing."""
    wanted = module.state_dict()
    optional = {key for key in wanted if key.endswith(".num_batches_tracked")}
    missing = [key for key in wanted if key not in weights and key not in optional]
    unexpected = [key for key in weights if key not in wanted]
    if missing or unexpected:
        lacks = [f"lacks {', '.join(f'`{key}`' for key in missing)}"] if missing else []
        extra = [f"has {', '.join(f'`{key}`' for key in unexpected)} in addition"] if unexpected else []
        raise NetworkError(f"`{path}` {' and '.join(lacks + extra)}; expected {', '.join(key for key in wanted if key not in optional)}")
    for key, value in weights.items():
        if value.shape != wanted[key].shape:
            raise NetworkError(f"`{key}` of `{path}` has shape {tuple(value.shape)}; the layers expect {tuple(wanted[key].shape)}")
    types = {value.dtype for value in weights.values() if value.is_floating_point()}
    module.to(types.pop() if len(types) == 1 else torch.float64)
    module.load_state_dict({**{key: wanted[key] for key in optional}, **weights}, strict=True)
