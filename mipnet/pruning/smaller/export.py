"""Small modules in files: weights with the layers they belong to (.safetensors), exported programs (.pt2) and ONNX (.onnx).

A file is written completely or not at all.  Exported programs take batches of any size.
"""

from __future__ import annotations

import inspect
import io
import math
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mipnet.errors import InputError, MipnetError, NetworkError, UnsupportedError, suggest_keywords
from mipnet.limits.disk import check_writable, whole_file
from mipnet.network.graph import Network
from mipnet.pruning.smaller.onnx_translations import onnx_translations
from mipnet.pruning.smaller.surgery import fit_sizes, replace_tensor
from mipnet.readers.conversion import one_line
from mipnet.readers.files import read, read_weights
from mipnet.readers.inline_layers import HIDDEN_ARGUMENTS, INLINE_LAYERS
from mipnet.readers.torch import EXPORT_SAMPLES, from_torch, silent
from mipnet.readers.torch_copy import copied, with_plain_weights
from mipnet.readers.weight_names import plain_names
from mipnet.readers.weight_types import check_weights

EXPORT_DIFFERENCE_MAX = 1e-3
"""Largest difference between a module and its exported file, relative to the largest output or to 1: what rounding of weights explains."""


@suggest_keywords
def export(module: nn.Module, path: str | os.PathLike[str], example_input: ArrayLike | Tensor) -> Path:
    """Write a module, in eval mode, to a file and return its path; the suffix determines the format.

    ``.safetensors``  the weights.  A second file ``<name>.layers.yaml`` holds the `network` section of a YAML file if the module is a
                      `torch.nn.Sequential` of layers that such a file can describe, otherwise the size of every layer (see `rebuild`)
    ``.pt2``          an exported program, which torch and `mipnet.read` load without the module's code
    ``.onnx``         needs `pip install mipnet[onnx]`; the input is called `input`, the output `output`

    ``example_input`` has the shape ``(samples, *shape of one sample)``.

    Programs and ONNX files are read again before they stand under their name.  Raises `UnsupportedError` if mipnet cannot read what torch
    wrote, or if it is not the module.
    """
    target = Path(path)
    check_export(target)
    network = from_torch(module, example_input)
    value = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
    ours = with_plain_weights(copied(module)).to("cpu").eval().requires_grad_(False)
    batch = torch.zeros(EXPORT_SAMPLES, *network.input_shape, dtype=value.dtype)
    MODULE_WRITERS[target.suffix.lower()](ours, target, batch, network)
    return target


def check_export(target: Path) -> None:
    """Raise `UnsupportedError` for a suffix that `export` does not write, and `InputError` unless the file may be written."""
    if target.suffix.lower() not in MODULE_WRITERS:
        has = f"the suffix `{target.suffix}`" if target.suffix else "no suffix"
        raise UnsupportedError(f"`{target}` has {has}; expected one of {', '.join(MODULE_WRITERS)}")
    check_writable(target)


def _bytes_of(module: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def _safetensors(module: nn.Module, target: Path, batch: Tensor, network: Network) -> None:
    from safetensors.torch import save_file

    tensors = {name: value.contiguous().clone() for name, value in module.state_dict().items()}
    sheet = {"network": {"file": target.name, "input_shape": list(batch.shape[1:]), **_described(module)}}
    with whole_file(target, _bytes_of(module)) as weights, whole_file(target.with_suffix(".layers.yaml")) as layers:
        layers.write_text(yaml.safe_dump(sheet, sort_keys=False), encoding="utf-8")
        save_file(tensors, weights)


def _described(module: nn.Module) -> dict[str, Any]:
    """Return the layers of a plain Sequential, or for other modules the sizes of all parts that have weights."""
    if type(module) is nn.Sequential and all(type(part) in INLINE_LAYERS.values() for part in module):
        return {"layers": [{"name": name, **layer_entry(part)} for name, part in module.named_children()]}
    parts = {name: part for name, part in module.named_modules() if type(part) in INLINE_LAYERS.values() and part.state_dict()}
    return {"sizes": {name: layer_entry(part) for name, part in parts.items()}}


def layer_entry(part: nn.Module) -> dict[str, Any]:
    """Return the type of a layer of torch.nn and its arguments that differ from the defaults, as in a YAML file."""
    entry: dict[str, Any] = {"type": type(part).__name__}
    for key, parameter in inspect.signature(type(part)).parameters.items():
        if key in HIDDEN_ARGUMENTS or key == "inplace" or type(part) is nn.Identity:
            continue
        value = getattr(part, key)
        value = value is not None if key == "bias" else list(value) if isinstance(value, tuple) else value
        if value != parameter.default:
            entry[key] = value
    return entry


def _pt2(module: nn.Module, target: Path, batch: Tensor, network: Network) -> None:
    def write(path: Path) -> None:
        program = torch.export.export(module, (batch,), dynamic_shapes=_any_batch(), strict=False)
        content = io.BytesIO()  # torch's own writer of archives ends the process if the disk is full
        torch.export.save(program, content)
        path.write_bytes(content.getbuffer())

    _guarded(module, target, network, write)


def _onnx(module: nn.Module, target: Path, batch: Tensor, network: Network) -> None:
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise UnsupportedError(f"ONNX files need {' and '.join(missing)}; run `pip install mipnet[onnx]`")

    def write(path: Path) -> None:
        torch.onnx.export(
            module,
            (batch,),
            path,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=_any_batch(),
            dynamo=True,
            external_data=False,
            verbose=False,
            custom_translation_table=onnx_translations(network),
        )

    _guarded(module, target, network, write)


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


def _guarded(module: nn.Module, target: Path, network: Network, write: Callable[[Path], None]) -> None:
    try:
        with torch.no_grad(), silent(), whole_file(target, _bytes_of(module)) as fresh:
            write(fresh)
            _check_written(fresh, target, network)
    except (OSError, MipnetError):
        raise
    except Exception as error:
        raise UnsupportedError(f"`{target}` cannot be written: torch's exporter says {one_line(error)}") from None


def _check_written(fresh: Path, target: Path, network: Network) -> None:
    """Raise `UnsupportedError` unless the written file is read as the same function, up to the rounding of its number type."""
    try:
        found = read(fresh)
    except InputError as refused:
        why = str(refused).replace(str(fresh), str(target))
        raise UnsupportedError(
            f"`{target}` is not written: mipnet could not read what torch's exporter makes of the module ({why})"
        ) from None
    x = torch.randn(EXPORT_SAMPLES, *network.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, wanted = (each.outputs(x).reshape(len(x), -1) for each in (found, network))
    error = abs(y - wanted).max() / max(1.0, abs(wanted).max()) if y.shape == wanted.shape else math.inf
    if not error <= EXPORT_DIFFERENCE_MAX:
        raise UnsupportedError(
            f"`{target}` is not written: what torch's exporter makes of the module differs from it by {error:.1e}, relative to the largest"
            " output; does its forward use constants of another number type?"
        )


MODULE_WRITERS: dict[str, Callable[[nn.Module, Path, Tensor, Network], None]] = {".safetensors": _safetensors, ".pt2": _pt2, ".onnx": _onnx}
"""The writer for each suffix."""


def rebuild(module: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Return a copy of a module with the weights and sizes that `export` wrote for a smaller copy of it (.safetensors)."""
    weights = read_weights(Path(path))
    small = copied(module)
    wanted = small.state_dict()
    weights = plain_names(weights, wanted, path).weights
    check_weights(weights, wanted, path)
    odd = sorted(set(wanted) ^ set(weights))
    if odd:
        raise NetworkError(
            f"`{path}` and the module do not have the same tensors: {', '.join(odd[:5])}; expected the class it was made from"
        )
    for owner, tensors in _by_owner(weights).items():
        part = small.get_submodule(owner)
        for name, value in tensors.items():
            replace_tensor(part, name, value)
        fit_sizes(part)
    return small


def _by_owner(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        path, _, name = key.rpartition(".")
        found.setdefault(path, {})[name] = value
    return found
