"""Digests of arguments: the same SHA-256 for equal networks, arrays, modules and settings, in this process and in later ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial, singledispatch
from pathlib import PurePath
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
import xarray as xr

from mipnet.errors import InputError
from mipnet.limits.code_digests import code_data, is_library, rules_of


def digest(value: object) -> str:
    """Return the SHA-256 of a value as hexadecimal digits.

    It depends on types, shapes and every number: of arrays and tensors, networks and torch modules (their text, classes and state), data
    sets, dataclasses, mappings, sequences, paths, and of functions and classes with their code (`mipnet.limits.code_digests`).  Raises
    `InputError` for other things, such as open files.
    """
    found = hashlib.sha256()
    _feed(found.update, value)
    return found.hexdigest()


def bytes_digest(*data: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    found = hashlib.sha256()
    for each in data:
        found.update(each)
    return found.hexdigest()


def json_digest(data: Any) -> str:
    """Return the SHA-256 of plain JSON data."""
    return bytes_digest(json.dumps(data, sort_keys=True).encode())


Take = Callable[[bytes], None]

_INSIDE_CODE: ContextVar[bool] = ContextVar("_INSIDE_CODE", default=False)
"""True while a value is fed that code names: its class and functions are known by name there, and `code_data` has their code."""


def _feed(take: Take, value: object) -> None:
    kind = type(value)
    take(f"<{kind.__module__}.{kind.__qualname__}>".encode())
    if kind.__module__ != "builtins" and not _INSIDE_CODE.get():
        _feed_code(take, kind)
    _content(value, take)
    take(b"</>")


def _feed_code(take: Take, kind: type) -> None:
    """Feed the code of a class of the user's, and what the user has registered for a class."""
    parts = [*([] if is_library(kind) else [code_data(kind)]), *rules_of(kind)]
    if parts:
        _feed_parts(take, parts)


def _feed_parts(take: Take, parts: list[object]) -> None:
    inside = _INSIDE_CODE.set(True)
    try:
        _feed_loosely(take, parts)
    finally:
        _INSIDE_CODE.reset(inside)


def _feed_loosely(take: Take, value: object) -> None:
    """Feed the parts of code; of a value that nothing is known of, its class."""
    if type(value) is list:
        take(b"[")
        for part in value:
            _feed_loosely(take, part)
        take(b"]")
        return
    try:
        take(digest(value).encode())
    except (InputError, RecursionError):
        take(f"{type(value).__module__}.{type(value).__qualname__}".encode())


def _feed_all(take: Take, values: Iterable[object]) -> None:
    for value in values:
        _feed(take, value)


@singledispatch
def _content(value: object, take: Take) -> None:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | Enum | PurePath):
        take(str(value).encode() if isinstance(value, Enum) else repr(value).encode(errors="backslashreplace"))
    elif is_dataclass(value) and not isinstance(value, type):
        _feed_all(take, (part for field in fields(value) for part in (field.name, getattr(value, field.name))))
    elif isinstance(value, type | FunctionType | MethodType | partial):
        if _INSIDE_CODE.get():
            take(f"{value.__module__}.{value.__qualname__}".encode() if isinstance(value, type | FunctionType) else b"")
        elif type(found := code_data(value)) is list:
            _feed_parts(take, found)
    elif callable(value) and hasattr(value, "__qualname__"):
        take(f"{value.__module__}.{value.__qualname__}".encode())
    elif hasattr(value, "__dict__"):
        _feed(take, vars(value))
    else:
        raise InputError(f"finished parts cannot be kept: it is not known when two of {type(value).__qualname__} are the same")


@_content.register(np.ndarray | np.generic)
def _(value: Any, take: Take) -> None:
    take(f"{value.dtype.str}{value.shape}".encode())
    if value.dtype.hasobject:
        _feed(take, value.tolist())
    else:
        take(np.ascontiguousarray(value).tobytes())


@_content.register
def _(value: torch.Tensor, take: Take) -> None:
    _feed(take, value.detach().cpu().resolve_conj().resolve_neg().numpy())


@_content.register
def _(value: torch.nn.Module, take: Take) -> None:
    _feed_all(take, (repr(value), [type(part) for part in value.modules()], dict(value.state_dict())))


@_content.register
def _(value: xr.Dataset, take: Take) -> None:
    _feed(take, {str(name): (each.dims, each.values) for name, each in value.variables.items()})


@_content.register
def _(value: xr.DataArray, take: Take) -> None:
    _feed_all(take, (value.dims, value.values, {str(name): (each.dims, each.values) for name, each in value.coords.items()}))


@_content.register(Mapping)
def _(value: Mapping[Any, Any], take: Take) -> None:
    _feed_all(take, (part for key in sorted(value, key=repr) for part in (key, value[key])))


@_content.register(list | tuple | range)
def _(value: Sequence[Any], take: Take) -> None:
    _feed_all(take, value)


@_content.register(set | frozenset)
def _(value: Set[Any], take: Take) -> None:
    _feed_all(take, sorted(digest(each) for each in value))
