"""The code of functions and classes as plain data, for digests: what changes if the user changes what they compute.

Code of mipnet, of Python and of the libraries of `LIBRARY_ROOTS` is known by its name, and that of mipnet by its version.  Other code is
its bytecode with its constants, defaults, closure, and the functions, classes and plain values of its module that it names.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

LIBRARY_ROOTS = frozenset(
    ("mipnet", "mipnet_highs", "mipnet_scip", "torch", "numpy", "scipy", "xarray", "pandas", "linopy", "sklearn", "onnx", "onnxruntime")
)
"""Packages whose code is known by its name, beside those of Python."""

NOT_CODE = frozenset(
    ("__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__annotations__", "_abc_impl", "__firstlineno__")
)
"""Attributes of a class that say nothing of what it computes."""

RULES_BY_CLASS: list[Callable[[type], Iterable[object]]] = []
"""Functions that return what is registered for a class elsewhere, such as the rules of a layer; their rooms add them."""


def is_library(value: object) -> bool:
    """Return whether a function or class is known by its name alone."""
    return is_library_name(str(getattr(value, "__module__", "builtins") or "builtins"))


def is_library_name(module: str) -> bool:
    """Return whether the code of a module is known by its name alone."""
    root = module.partition(".")[0]
    return root in LIBRARY_ROOTS or root in sys.stdlib_module_names or root == "builtins"


def code_data(value: object) -> object:
    """Return a function or a class as plain data; other values as they are."""
    return _part(value, set())


def rules_of(kind: type) -> list[object]:
    """Return the code of the user's that is registered for a class elsewhere."""
    found = (rule for rules in RULES_BY_CLASS for rule in rules(kind))
    return [code_data(rule) for rule in found if not is_library(rule)]


def _part(value: Any, seen: set[int]) -> object:
    if isinstance(value, functools.partial):
        return ["partial", _part(value.func, seen), _parts(value.args, seen), _named(value.keywords.items(), seen)]
    if isinstance(value, types.MethodType):
        return ["method", _part(value.__func__, seen), _part(value.__self__, seen)]
    if isinstance(value, staticmethod | classmethod):
        return _part(value.__func__, seen)
    if isinstance(value, property):
        return _parts((value.fget, value.fset), seen)
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    if isinstance(value, type | types.FunctionType):
        name = f"{value.__module__}.{value.__qualname__}"
        if is_library(value) or id(value) in seen:
            return ["name", name]
        seen.add(id(value))
        return ["code", name, *(_class(value, seen) if isinstance(value, type) else _function(value, seen))]
    if isinstance(value, list | tuple | dict | set | frozenset) and id(value) not in seen and not _is_plain(value):
        seen.add(id(value))
        if isinstance(value, dict):
            return _named(((_label(key), each) for key, each in value.items()), seen)
        return _parts(sorted(value, key=_label) if isinstance(value, set | frozenset) else value, seen)
    return [_part(type(value), seen), value] if not is_library(type(value)) else value


def _is_plain(values: Iterable[object]) -> bool:
    """Return whether the members of a collection, or the values of a mapping, are numbers, texts and the like."""
    found = values.values() if isinstance(values, dict) else values
    return all(each is None or isinstance(each, bool | int | float | complex | str | bytes) for each in found)


def _label(value: object) -> str:
    """Return a text that is the same in all processes: the name of a class or function, the class of an object, else its value."""
    if isinstance(value, type | types.FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value) if is_library(type(value)) else _label(type(value))


def _parts(values: Iterable[object], seen: set[int]) -> list[object]:
    return [_part(value, seen) for value in values]


def _named(values: Iterable[tuple[str, object]], seen: set[int]) -> list[object]:
    return [[name, _part(value, seen)] for name, value in sorted(values, key=lambda each: each[0])]


def _class(kind: type, seen: set[int]) -> Iterator[object]:
    yield _parts(kind.__bases__, seen)
    yield _named(((name, each) for name, each in vars(kind).items() if name not in NOT_CODE and not name.startswith("__dataclass")), seen)


def _function(function: types.FunctionType, seen: set[int]) -> Iterator[object]:
    yield _code(function.__code__)
    yield _parts(function.__defaults__ or (), seen)
    yield _named((function.__kwdefaults__ or {}).items(), seen)
    for cell in function.__closure__ or ():
        try:
            yield _part(cell.cell_contents, seen)
        except ValueError:  # not filled yet
            yield None
    known, names = function.__globals__, _names(function.__code__)
    yield _named(((name, known[name]) for name in names if name in known), seen)
    for module in (known[name] for name in sorted(names) if isinstance(known.get(name), types.ModuleType)):
        if not is_library_name(module.__name__):  # a module of the user's: what is named of it
            yield _named(((name, vars(module)[name]) for name in names if name in vars(module)), seen)


def _names(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes in a code, and in the functions inside of it."""
    return set(code.co_names).union(*(_names(each) for each in code.co_consts if isinstance(each, types.CodeType)))


def _code(code: types.CodeType) -> list[object]:
    constants = [_code(each) if isinstance(each, types.CodeType) else each for each in code.co_consts]
    return [code.co_code, constants, code.co_names, code.co_varnames, code.co_argcount, code.co_kwonlyargcount, code.co_flags]
