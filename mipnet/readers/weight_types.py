"""The number types of weights in files: floating-point numbers are weights, other numbers are codes of a quantised network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mipnet.errors import NetworkError, UnsupportedError

WEIGHT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types of tensors that are read as weights."""

QUANTISED_NAME_PATTERN = re.compile(r"_packed_params|(^|[._])(q?zeros?|zero_points?|qweight|q?scales?|scale_inv|absmax|quant_\w+|g_idx)$")
"""Names that libraries give to the scales, the zero points and the packed weights of a quantised layer."""

WHOLE_WEIGHTS_MIN = 16
"""Whole weights of at least this size, somewhere in a network, may be codes; binary and ternary networks have smaller ones."""

DEQUANTISE_HINT = "expected the floating-point weights: save the network before it is quantised, or dequantise it"


def check_weights(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: object) -> None:
    """Raise `UnsupportedError` for a tensor of a file that is no floating-point weight, where a module wants one.

    ``wanted`` is the state dict of the module.  Tensors that it does not have are checked too: their names and types say more of what the
    file is than a list of names that do not fit.
    """
    for key, value in weights.items():
        if key in wanted and not wanted[key].is_floating_point():
            continue
        if value.layout != torch.strided:
            raise NetworkError(f"`{key}` of `{path}` has the layout {value.layout}; expected a dense tensor (`.to_dense()`)")
        if value.is_complex():
            raise UnsupportedError(f"`{key}` of `{path}` is of type {value.dtype}; expected real numbers")
        if (value.is_quantized or value.dtype not in WEIGHT_TYPES) and (key in wanted or quantised_name(key)):
            kind = str(value.dtype).removeprefix("torch.")
            raise UnsupportedError(f"`{key}` of `{path}` is of type {kind}: such numbers are codes, not weights; {DEQUANTISE_HINT}")


def note_of_codes(weights: Mapping[str, Tensor]) -> str:
    """Return a note if all matrices of weights hold whole numbers, as codes do whose type was changed; else an empty text."""
    matrices = [each for each in weights.values() if each.ndim > 1 and each.numel()]
    if not matrices or not all(bool((each == each.round()).all()) for each in matrices):
        return ""
    largest = max(float(each.abs().max()) for each in matrices)
    if largest < WHOLE_WEIGHTS_MIN:
        return ""
    return f"all weights are whole numbers, the largest {largest:g}: if they are codes of a quantised network, multiply them by its scales"


def quantised_name(key: str) -> bool:
    """Return True if a name in a state dict is one that only quantised layers have."""
    return QUANTISED_NAME_PATTERN.search(key) is not None


def not_tensors(found: Any, path: object) -> NetworkError:
    """Return the error for the content of a weight file that is not a mapping of names to tensors."""
    expected = "expected a state dict, names with tensors (`module.state_dict()`)"
    if not isinstance(found, Mapping):
        return NetworkError(f"`{path}` holds a {type(found).__name__}; {expected}")
    odd = next((key for key, value in found.items() if not isinstance(value, Tensor)), None)
    what = f"`{path}` holds `{odd}`, which is a {type(found.get(odd)).__name__}" if odd is not None else f"`{path}` holds no names"
    if any(quantised_name(str(key)) for key in found):
        return NetworkError(f"{what}: a part of a quantised network; {DEQUANTISE_HINT}")
    inside = [key for key, value in found.items() if isinstance(value, Mapping)]
    hint = f"; save the part `{inside[0]}` alone" if inside else ""
    return NetworkError(f"{what}; {expected}{hint}")
