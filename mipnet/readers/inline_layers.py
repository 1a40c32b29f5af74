"""Inline layers: mappings with a name, a type and the arguments of that class of torch.nn, as YAML files list them.

An error has the place of its mistake in `MipnetError.keys`, such as ``("layers", 2, "bias")``.
"""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import Tensor, nn

from mipnet.errors import MemoryLimitReached, NetworkError, UnsupportedError, closest, expected_one_of, meant, shown
from mipnet.readers.conversion import one_line, reading

INLINE_LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *(nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.MaxPool2d),
        *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity, nn.Softmax, nn.LogSoftmax),
    )
}
"""The types of inline layers: classes of torch.nn, by their names."""

HIDDEN_ARGUMENTS = {"self", "device", "dtype", "args", "kwargs", "min_value", "max_value"}

SIZE_ARGUMENTS = (
    *("in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups", "num_features"),
    "output_size",
)
"""The arguments that are positive sizes."""

SAMPLE_ELEMENTS_MAX = 2**31
"""Largest number of elements of one sample."""

TRUTH_WORDS = {"yes": True, "on": True, "no": False, "off": False}
"""Words that YAML 1.1 takes for true and false; an argument that is true or false takes them as well."""


def check_input_shape(shape: Any) -> None:
    """Raise `NetworkError` unless a shape holds the positive sizes of one sample."""
    sizes = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else []
    if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise NetworkError(f"input_shape is {shown(shape)}; expected the positive sizes of one sample, such as [1, 28, 28]").at(
            "input_shape"
        )
    if math.prod(sizes) > SAMPLE_ELEMENTS_MAX:
        raise NetworkError(f"input_shape is {shown(shape)}; expected sizes of one sample with at most {SAMPLE_ELEMENTS_MAX:,} elements").at(
            "input_shape"
        )


def build_layers(layers: Any) -> nn.Sequential:
    """Build the module of inline layers, with random weights."""
    if isinstance(layers, Sequence) and not layers:
        raise NetworkError("the network has no layers; expected at least one mapping with `name` and `type`").at("layers")
    if not isinstance(layers, Sequence) or isinstance(layers, str):
        raise NetworkError(f"layers is {shown(layers)}; expected a list of mappings with `name`, `type` and arguments").at("layers")
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for place, entry in enumerate(layers):
        name = _layer_name(entry, place, parts)
        parts[name] = _build(name, entry, place)
    return nn.Sequential(parts)


def check_shapes(module: nn.Sequential, example: Tensor) -> None:
    """Raise `NetworkError` for the first layer that does not take what the layers before it give."""
    x = example
    for place, (name, part) in enumerate(module.named_children()):
        try:
            with torch.no_grad():
                following = part(x)
        except Exception as error:
            what = f"layer `{name}`: {type(part).__name__} cannot take an input of shape {tuple(x.shape[1:])} for one sample"
            raise NetworkError(f"{what} ({one_line(error)})").at("layers", place) from None
        x = following


def _layer_name(entry: Any, place: int, known: Mapping[str, nn.Module]) -> str:
    if not isinstance(entry, Mapping) or "type" not in entry:
        keys = [key for key in entry if closest(key, ["type"])] if isinstance(entry, Mapping) else []
        hint = f"; did you mean `type` by `{keys[0]}`?" if keys else ""
        expected = f"expected a mapping with `name`, `type` and arguments{hint}"
        raise NetworkError(f"layer {place + 1} is {shown(entry)}; {expected}").at("layers", place, *keys[:1])
    given = entry.get("name", place)
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise NetworkError(f"layer {place + 1} is called {shown(given)}; expected a name as a string, in quotes").at(
            "layers", place, "name"
        )
    name = str(given)
    if not name or "." in name or name in known or hasattr(nn.Sequential, name):
        why = "a name of its own, without dots, not a method of modules"
        raise NetworkError(f"layer {place + 1} is called `{name}`; expected {why}").at("layers", place, "name")
    return name


def _build(name: str, entry: Mapping[str, Any], place: int) -> nn.Module:
    kind = INLINE_LAYERS.get(given_type := str(entry["type"]))
    if kind is None:
        expected = expected_one_of(given_type, INLINE_LAYERS)
        raise UnsupportedError(f"layer `{name}` has type `{given_type[:60]}`; {expected}").at("layers", place, "type")
    known = {key: each for key, each in inspect.signature(kind).parameters.items() if key not in HIDDEN_ARGUMENTS}
    given: dict[str, Any] = {}
    for key, value in entry.items():
        if key in ("name", "type"):
            continue
        what = f"layer `{name}`: {kind.__name__}"
        if key not in known:
            hint = expected_one_of(key, known) if known and not closest(key, ["name"]) else meant(key, ["name"])[2:] or "it takes none"
            raise NetworkError(f"{what} has no argument `{key}`; {hint}").at("layers", place, str(key))
        given[key] = TRUTH_WORDS.get(value, value) if known[key].annotation is bool and isinstance(value, str) else value
        given[key] = tuple(value) if isinstance(value, list) else given[key]
        if wanted := _misfit(key, given[key], known[key].annotation):
            raise NetworkError(f"{what} got {key}={shown(value)}; expected {wanted}").at("layers", place, str(key))
    if lacking := [key for key, each in known.items() if each.default is each.empty and key not in given]:
        raise NetworkError(f"layer `{name}`: {kind.__name__} lacks {', '.join(f'`{key}`' for key in lacking)}").at("layers", place)
    try:
        with torch.device("meta"):  # without memory
            parameters = sum(value.numel() for value in kind(**given).state_dict().values())
        with reading(f"layer `{name}`", parameters):
            return kind(**given)
    except MemoryLimitReached as error:
        raise error.at("layers", place) from None
    except Exception as error:
        raise NetworkError(f"layer `{name}`: {kind.__name__}({_written(given)}) fails ({one_line(error)})").at("layers", place) from None


def _misfit(key: str, value: Any, annotation: Any) -> str:
    """Return what an argument should be, empty if the value is of its type and, for sizes, positive."""
    if not _fits(value, annotation):
        return _type_words(annotation)
    numbers = [part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, int)]
    if key in SIZE_ARGUMENTS and any(number < 1 or number > SAMPLE_ELEMENTS_MAX for number in numbers):
        return f"a size from 1 to {SAMPLE_ELEMENTS_MAX:,}"
    return ""


def _fits(value: Any, annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return (
            isinstance(value, tuple) and all(_fits(part, arguments[0]) for part in value) and ("..." in str(annotation) or len(value) == 2)
        )
    if annotation in (int, float):
        return not isinstance(value, bool) and isinstance(value, int if annotation is int else int | float)
    return not isinstance(annotation, type) or annotation is inspect.Parameter.empty or isinstance(value, annotation)


def _type_words(annotation: Any) -> str:
    """Return the words for a type of arguments: `a whole number or a list of whole numbers`."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", NoneType: "null"}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_type_words(each) for each in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    return "a list of whole numbers" if origin is tuple else words.get(annotation, str(annotation))


def _written(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in given.items())
