"""Pickling a network in a linopy model, with the functions inside, which Python's pickle does not take.

The values of variables in a forward pass are functions that formulations define where they write a variable, also those of a user.  Here
such a function is pickled as its code, its defaults and what it captured; it finds its module by name.  Python of another minor version
cannot read it.  The objects that a network shares with its model are left out and pickled beside it, so that after unpickling they are one.
"""

from __future__ import annotations

import io
import marshal
import pickle
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import CellType, FunctionType
from typing import Any

import linopy

from mipnet.errors import DataError

_EMPTY = "an empty cell of a function"


def packed(state: object) -> tuple[bytes, list[Any]]:
    """Return a state as bytes, and the linopy objects in it, which are not in the bytes."""
    stream, shared = io.BytesIO(), list[Any]()
    _Pickler(stream, shared).dump(state)
    return stream.getvalue(), shared


def unpacked(data: bytes, shared: Sequence[Any]) -> Any:
    """Return the state again, with these objects; raises `DataError` for bytes that another version of Python wrote."""
    return _Unpickler(io.BytesIO(data), shared).load()


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, shared: list[Any]) -> None:
        super().__init__(stream, protocol=pickle.HIGHEST_PROTOCOL)
        self.shared = shared

    def persistent_id(self, obj: Any) -> int | None:
        if isinstance(obj, linopy.Variable):
            if obj.model.variables.data.get(obj.name) is not obj:  # a part of one, for example
                return None
        elif not isinstance(obj, linopy.Model):
            return None
        for number, each in enumerate(self.shared):
            if each is obj:
                return number
        self.shared.append(obj)
        return len(self.shared) - 1

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType) and _found_by_name(obj) is not obj:
            captured = [_content(cell) for cell in obj.__closure__ or ()]
            parts = (obj.__name__, obj.__defaults__, obj.__kwdefaults__, captured)
            return _function, (sys.version_info[:2], obj.__module__, marshal.dumps(obj.__code__), *parts)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, shared: Sequence[Any]) -> None:
        super().__init__(stream)
        self.shared = shared

    def persistent_load(self, pid: Any) -> Any:
        return self.shared[pid]


def _found_by_name(function: FunctionType) -> object:
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _function(
    version: tuple[int, int], module: str, code: bytes, name: str, defaults: Any, keywords: Any, captured: Sequence[Any]
) -> Callable[..., Any]:
    if version != sys.version_info[:2]:
        python, own = (f"{major}.{minor}" for major, minor in (version, sys.version_info[:2]))
        raise DataError(f"the network was pickled by Python {python}, and this is Python {own}; expected the same version")
    cells = tuple(CellType() if isinstance(each, str) and each == _EMPTY else CellType(each) for each in captured)
    made = FunctionType(marshal.loads(code), vars(import_module(module)), name, defaults, cells)
    made.__kwdefaults__ = keywords
    return made
