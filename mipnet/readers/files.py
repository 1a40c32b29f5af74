"""Networks from files: .pt2, .onnx and the models of boosters hold a network; .safetensors, .pt and .pth hold weights, and need layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipnet.errors import NetworkError, UnsupportedError, meant, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.network.graph import Network
from mipnet.readers.conversion import check_file, one_line
from mipnet.readers.estimators.boosters import read_booster
from mipnet.readers.file_bytes import PACKED_SUFFIXES, no_file
from mipnet.readers.inline_layers import build_layers, check_input_shape, check_shapes
from mipnet.readers.pt2 import read_pt2
from mipnet.readers.torch import from_torch, quiet
from mipnet.readers.weight_names import plain_names
from mipnet.readers.weight_types import check_weights, not_tensors, note_of_codes

__all__ = ["build_module", "read", "read_pt2", "read_safetensors", "read_weights"]

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
ONNX_SUFFIXES = (".onnx", *(f".onnx{packed}" for packed in PACKED_SUFFIXES))
BOOSTER_SUFFIXES = (".json", ".txt")
"""Suffixes of models of LightGBM (text) and XGBoost (JSON)."""
NETWORK_SUFFIXES = (".pt2", *ONNX_SUFFIXES, *BOOSTER_SUFFIXES)
"""Suffixes of files that hold a whole network: layers and weights."""


def suffix_of(path: str | Path) -> str:
    """Return the suffix in lower case, with the one before it if the file is compressed (`.onnx.gz`)."""
    name = Path(path).name.lower()
    return next((suffix for suffix in ONNX_SUFFIXES if name.endswith(suffix)), Path(name).suffix)


@suggest_keywords
def read(
    path: str | Path,
    layers: Sequence[Mapping[str, Any]] | None = None,
    input_shape: Sequence[int] | None = None,
    time_limit: TimeLimit = None,
) -> Network:
    """Read the network of a file, by the file's suffix.

    ``.pt2``                          a file of `torch.export.save`, see `read_pt2`
    ``.onnx``                         see `mipnet.readers.onnx_file.from_onnx`; also compressed (``.onnx.gz, .onnx.xz, .onnx.bz2``)
    ``.txt``, ``.json``               trees: a LightGBM model as text, an XGBoost model as JSON, as their `save_model` writes them
    ``.safetensors``, ``.pt, .pth``   weights, together with ``layers`` and ``input_shape``, see `build_module`

    ``time_limit`` is in seconds of the whole call, None for no limit; what it does not end is said in `from_onnx`, `read_pt2` and
    `mipnet.readers.torch.from_torch`.  Raises `NetworkError` for ``layers`` or ``input_shape`` where the file holds a whole network, and
    `TimeLimitReached` at the end of the time.
    """
    suffix, deadline = suffix_of(path), Deadline.after(time_limit)
    if suffix in NETWORK_SUFFIXES:
        for name, given in (("layers", layers), ("input_shape", input_shape)):
            if given is not None:
                raise NetworkError(f"`{path}` holds a whole network, and `{name}` is for files of weights; leave it out").at(name)
    if suffix == ".pt2":
        return read_pt2(path, deadline)
    if suffix in ONNX_SUFFIXES:
        from mipnet.readers.onnx_file import from_onnx

        return from_onnx(path, deadline)
    if suffix in BOOSTER_SUFFIXES:
        return read_booster(path, deadline)
    if suffix not in WEIGHT_SUFFIXES:
        has = f"the suffix `{suffix}`" if suffix else "no suffix"
        known = (*NETWORK_SUFFIXES, *WEIGHT_SUFFIXES)
        raise UnsupportedError(f"`{path}` has {has}; expected {', '.join(known)}{meant(suffix, known) if suffix else ''}")
    return read_safetensors(path, layers, input_shape, deadline)


def read_safetensors(
    path: str | Path, layers: Sequence[Mapping[str, Any]] | None, input_shape: Sequence[int] | None, time_limit: TimeLimit = None
) -> Network:
    """Read the weights of a file and return the network of these inline layers; see `build_module` and `read`."""
    deadline = Deadline.after(time_limit)
    if not Path(path).is_file():
        raise NetworkError(f"{no_file(Path(path))}; expected weights ({', '.join(WEIGHT_SUFFIXES)})")
    if layers is None or input_shape is None:
        read_weights(path)  # which says if it holds a whole module
        missing = " and ".join(f"`{name}`" for name, given in (("layers", layers), ("input_shape", input_shape)) if given is None)
        raise NetworkError(f"`{path}` holds weights only; give {missing}, or export the module with `torch.export.save` as .pt2")
    check_input_shape(input_shape)
    deadline.check(f"read `{path}`")
    module, notes = _built(layers, path)
    deadline.check(f"read `{path}`")
    example = torch.zeros(1, *input_shape, dtype=next((each.dtype for each in module.parameters()), torch.float64))
    check_shapes(module, example)
    network = from_torch(module, example, deadline)
    return network.with_notes(*notes) if notes else network


@suggest_keywords
def build_module(layers: Sequence[Mapping[str, Any]], weights_path: str | Path, input_shape: Sequence[int]) -> nn.Sequential:
    """Build a `torch.nn.Sequential` of inline layers, with the weights of a file, in eval mode and in the file's number type.

    A layer is a mapping with ``name``, ``type`` (see `mipnet.readers.inline_layers.INLINE_LAYERS`) and the arguments of that class of
    torch.nn.  Raises `NetworkError` for wrong layers and for weights that are missing, left over or of another shape, naming the layer
    and the key.
    """
    check_input_shape(input_shape)
    return _built(layers, weights_path)[0]


def _built(layers: Sequence[Mapping[str, Any]], path: str | Path) -> tuple[nn.Sequential, list[str]]:
    """Return the module, and notes on the names and the numbers of its weights."""
    with torch.device("meta"):  # sizes that do not fit the weights allocate no memory
        module = build_layers(layers).eval()
    named = plain_names(read_weights(path), module.state_dict(), path)
    _load(module, named.weights, path)
    return module, [note for note in (named.note, note_of_codes(named.weights)) if note]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a state dict in a .pt or .pth file (without running code), by name."""
    path = Path(path)
    if not path.is_file():
        raise NetworkError(f"{no_file(Path(path))}; expected weights ({', '.join(WEIGHT_SUFFIXES)})")
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise UnsupportedError(f"`{path}` has the suffix `{path.suffix}`; expected weights ({', '.join(WEIGHT_SUFFIXES)})")
    check_file(path, path.stat().st_size)
    try:
        with quiet():
            found = _safetensors(path) if path.suffix.lower() == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        hint = "write `torch.save(module.state_dict(), path)`, or `safetensors.torch.save_file(module.state_dict(), path)`"
        raise NetworkError(f"`{path}` holds {_unsafe(error)}; {hint}") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise not_tensors(found, path)
    return {str(key): value for key, value in found.items()}


def _unsafe(error: Exception) -> str:
    """Return what a file holds that torch cannot read without running code."""
    if found := re.search(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)", str(error)):
        return f"a pickle of more than tensors (`{found[1] or found[2]}`), such as a whole module, and reading it could run code"
    if "TorchScript" in str(error):
        return "a TorchScript module, which mipnet does not read"
    found = re.search(r"WeightsUnpickler error: (.{1,100})", str(error))
    return f"no tensors that can be read safely ({found[1].strip() if found else one_line(error)})"


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _load(module: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Load the weights; raises `NetworkError` if some are missing or unexpected, except `num_batches_tracked`, which may be missing."""
    wanted = module.state_dict()
    check_weights(weights, wanted, path)
    optional = {key for key in wanted if key.endswith(".num_batches_tracked")}
    missing = [key for key in wanted if key not in weights and key not in optional]
    unexpected = [key for key in weights if key not in wanted]
    if missing or unexpected:
        lacks = [f"lacks {_some(missing)}"] if missing else []
        extra = [f"has {_some(unexpected)} in addition"] if unexpected else []
        place = _layer_of(module, missing[0]) if missing else ("layers",)
        listed = _some([key for key in wanted if key not in optional]).replace("`", "")
        raise NetworkError(f"`{path}` {' and '.join(lacks + extra)}{_computed(unexpected)}; expected {listed}").at(*place)
    for key, value in weights.items():
        if value.shape != wanted[key].shape:
            raise NetworkError(f"`{key}` of `{path}` has shape {tuple(value.shape)}; the layers expect {tuple(wanted[key].shape)}").at(
                *_layer_of(module, key)
            )
    types = {value.dtype for value in weights.values() if value.is_floating_point()}
    dtype = types.pop() if len(types) == 1 else torch.float64
    read = {key: value.to(dtype) if wanted[key].is_floating_point() else value for key, value in weights.items()}
    module.load_state_dict({**{key: torch.zeros_like(wanted[key], device="cpu") for key in optional}, **read}, strict=True, assign=True)


LISTED_NAMES_MAX = 8
"""Number of names of weights that a message lists."""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED_NAMES_MAX} more" if len(names) > LISTED_NAMES_MAX else ""
    return ", ".join(f"`{name}`" for name in names[:LISTED_NAMES_MAX]) + more


COMPUTED_WEIGHTS = (
    (r"(.*)parametrizations\..+", "parametrizations; write the weights by `torch.nn.utils.parametrize.remove_parametrizations(...)`"),
    (r"(.+)_(orig|mask)", 'masks of torch.nn.utils.prune; write the masked weights by `torch.nn.utils.prune.remove(module, "weight")`'),
    (r"(.+)_[guv]", "a weight norm; write the weights themselves by `torch.nn.utils.remove_weight_norm(module)`"),
)
"""Names in a state dict that a module computes its weights from, and what to do about it."""


def _computed(names: Sequence[str]) -> str:
    """Return what to do about weights that have to be computed, as a part of a message; empty if there are none."""
    found = (words for pattern, words in COMPUTED_WEIGHTS if any(re.fullmatch(pattern, name) for name in names))
    return next((f": it holds {words}" for words in found), "")


def _layer_of(module: nn.Module, key: str) -> tuple[str | int, ...]:
    """Return the place of the layer of a weight, for `MipnetError.keys`."""
    return ("layers", [name for name, _ in module.named_children()].index(key.partition(".")[0]))
