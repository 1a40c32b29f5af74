"""The exceptions of mipnet, one class per kind of remedy, and the words of their messages.

    MipnetError
    ├── InputError (ValueError)      something given is wrong: change it
    │   ├── SpecError                a key of the YAML file
    │   ├── DataError                images, labels, files of data
    │   ├── NetworkError             weights, shapes, wiring
    │   ├── ArgumentError (TypeError) a keyword argument that a function does not have
    │   └── UnsupportedError         a layer, operator or formulation that mipnet does not have
    ├── UnboundedError (ValueError)  a big-M is needed where no finite bound is known
    ├── MemoryLimitReached (MemoryError)  something would not fit into memory: make it smaller, or raise the limit
    │   └── OutOfMemory              memory ended although it should have sufficed
    ├── OutputInUse (RuntimeError)   another process writes there: wait, or name another place
    └── BackendError (RuntimeError)  the solver cannot do this
        ├── BackendMissing           not installed, or no such backend
        ├── OptionError              the solver has no such option, or not with this value
        └── SolverFailure            the solver failed or contradicted a known point

Each message says what was given, what was expected and what to do.  The command line prints it in one line and ends with exit status 2.
"""

from __future__ import annotations

import difflib
import operator
import os
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from inspect import Parameter, signature
from typing import Any, Self, TypeVar, overload


class MipnetError(Exception):
    """Base class of the exceptions of mipnet."""

    keys: tuple[str | int, ...] = ()
    """Where the mistake is inside of the argument that the message is about, such as ``("layers", 2, "bias")``."""

    def at(self, *keys: str | int) -> Self:
        """Return this exception, with the keys of its mistake."""
        self.keys = keys
        return self


class InputError(MipnetError, ValueError):
    """An argument is wrong; the message says what was expected."""


class SpecError(InputError):
    """A key of the YAML file is missing, unknown or has a wrong value."""


class DataError(InputError):
    """Images, labels or a data file do not fit."""


class NetworkError(InputError):
    """Weights, shapes or the wiring of a network do not fit."""


class UnsupportedError(InputError):
    """A layer, operator or formulation that mipnet does not have."""


class ArgumentError(InputError, TypeError):
    """A function or class of mipnet has no keyword argument with that name; the message suggests one."""


class UnboundedError(MipnetError, ValueError):
    """A big-M is needed where no finite bound is known; mipnet never uses a default one."""


class TimeLimitReached(MipnetError, TimeoutError):
    """The time limit ended before there was any result; a function that has a proven part of its result returns that instead."""


class MemoryLimitReached(MipnetError, MemoryError):
    """Something would take more memory than the limit; the message says what, how much, the limit, and what to do."""


class OutOfMemory(MemoryLimitReached):
    """Memory ended while something was made that should have fitted; the message says what."""


class OutputInUse(MipnetError, RuntimeError):
    """Another process writes to a run folder or a file; the message names it."""


class BackendError(MipnetError, RuntimeError):
    """The solver is missing, does not support the request, or failed."""


class BackendMissing(BackendError):
    """The solver is not installed, or no backend has that name."""


class OptionError(BackendError, ValueError):
    """The solver has no such option, or not with that value."""


class SolverFailure(BackendError):
    """The solver failed, or its results contradict each other or a known point."""


Decorated = TypeVar("Decorated", bound=Callable[..., Any])


SIMILARITY_MIN = 0.66
"""A known name is suggested for an unknown one if their similarity, by `difflib`, is at least this."""

SHOWN_CHARACTERS_MAX = 80
"""A value that is longer as text is described by its kind and size in messages."""


def shown(value: object) -> str:
    """Return a value as messages show it: short, on one line; arrays by their kind and shape."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and not isinstance(value, type):
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    try:
        text = " ".join(short.repr(value).split())
    except Exception:  # of a class of the user's, or of a whole number with more digits than Python prints
        text = f"a {type(value).__name__}"
    if len(text) <= SHOWN_CHARACTERS_MAX:
        return text
    return (
        "a mapping" if isinstance(value, Mapping) else f"a list of {len(value)}" if isinstance(value, list | tuple) else f"{text[:77]}..."
    )


def closest(given: object, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a given one, whatever its case, hyphens and underscores; None if none is like it."""
    by_letters = {_letters(name): name for name in known}
    found = difflib.get_close_matches(_letters(str(given)[:100]), by_letters, n=1, cutoff=SIMILARITY_MIN)
    return by_letters[found[0]] if found else None


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum()) or name


def meant(given: object, known: Iterable[str]) -> str:
    """Return ``; did you mean ...?``, the end of a message, if a known name is like the given one; empty if none is."""
    name = closest(given, known)
    return "" if name is None else f"; did you mean `{name}`?"


def expected_one_of(given: object, known: Iterable[str]) -> str:
    """Return ``expected one of ...``, with ``did you mean ...?`` if a known name is like the given one."""
    names = list(known)
    return f"expected {'one of ' if len(names) > 1 else ''}{', '.join(names) or 'none'}{meant(given, names)}"


def check_choice(what: str, given: object, known: Iterable[str], failure: type[InputError] = InputError) -> None:
    """Raise ``failure`` unless a given name is one of those that are known; ``what`` is the subject of the message, `the method`."""
    names = list(known)
    if not isinstance(given, str) or given not in names:
        text = f"`{given[:60]}`" if isinstance(given, str) else shown(given)
        raise failure(f"{what} is {text}; {expected_one_of(given, names)}")


def _instead_of_network(given: object) -> str | None:
    torch = sys.modules.get("torch")  # a module of torch cannot be here before torch is loaded
    found = torch is not None and isinstance(given, torch.nn.Module)
    return "a network: write `mn.from_torch(module, example_input)`" if found else None


def _instead_of_module(given: object) -> str | None:
    found = (type(given).__module__, type(given).__name__) == ("mipnet.network.graph", "Network")
    return "a torch.nn.Module: give the module that the network was read from" if found else None


def _instead_of_formulation(given: object) -> str | None:
    if given is None or isinstance(given, Mapping) or _is_of(given, "EmbeddingSettings"):
        return None
    return f"a mapping from layers to names, such as {{'relu': {given!r}}}" if isinstance(given, str) else "a mapping from layers to names"


EXPECTED_KINDS: dict[str, Callable[[object], str | None]] = {
    **dict.fromkeys(("network", "first", "second"), _instead_of_network),
    "module": _instead_of_module,
    "formulation": _instead_of_formulation,
}
"""For arguments that are easily mistaken: what is expected in place of a value of the wrong kind, or None if it is not wrong."""


def _is_of(given: object, *names: str) -> bool:
    """Return whether a value is of a class of mipnet with one of these names, which cannot be imported here."""
    return any(each.__name__ in names and each.__module__.partition(".")[0] == "mipnet" for each in type(given).__mro__)


def _no_whole_number(given: object) -> bool:
    return isinstance(given, bool) or not hasattr(given, "__index__") or getattr(given, "ndim", 0) != 0 or operator.index(given) < 0


def _no_path(given: object) -> bool:
    return not isinstance(given, str | os.PathLike)


EXPECTED_BY_ANNOTATION: dict[str, tuple[Callable[[object], bool], str]] = {
    "Network": (lambda given: not _is_of(given, "Network"), "a network, as `mn.read` and `mn.from_torch` return"),
    "Network | nn.Module": (
        lambda given: not _is_of(given, "Network") and not hasattr(given, "state_dict"),
        "a network, as `mn.read` and `mn.from_torch` return, or a torch.nn.Module",
    ),
    "Box": (lambda given: not _is_of(given, "Box"), "an input set, such as `mn.Box(lower, upper)` or `mn.LInf(x, radius)`"),
    "Property": (lambda given: not _is_of(given, "Property"), "a property, as `mn.read_vnnlib` and `mn.robustness_property` return"),
    "str | Path": (_no_path, "a path"),
    "str | os.PathLike[str]": (_no_path, "a path"),
    "Encoding | linopy.Model | Problem": (
        lambda given: type(given).__module__ in ("builtins", "numpy") or hasattr(given, "state_dict") or _is_of(given, "Network", "Box"),
        "an encoding, as `mn.encode` returns, or a linopy model",
    ),
}
"""For annotations of arguments: whether a value is of the wrong kind, and what is expected."""

NOT_MISTAKEN = (
    "Network | nn.Module",
    "str",
    "Network | torch.nn.Module | str | Path",
)
"""Annotations of arguments that are called as in `EXPECTED_KINDS`, and take what is a mistake elsewhere."""

EXPECTED_SEED = (_no_whole_number, "a whole number of at least 0")


def _wrong_kind(name: str, annotation: str, given: object) -> str | None:
    """Return what is expected for an argument in place of a value of the wrong kind, None if it is not wrong."""
    if name in EXPECTED_KINDS and annotation not in NOT_MISTAKEN and (expected := EXPECTED_KINDS[name](given)) is not None:
        return expected
    is_wrong, words = EXPECTED_SEED if (name, annotation) == ("seed", "int") else EXPECTED_BY_ANNOTATION.get(annotation, (None, ""))
    return words if is_wrong is not None and is_wrong(given) else None


@overload
def suggest_keywords(target: Decorated) -> Decorated: ...


@overload
def suggest_keywords(*, moved: Mapping[str, str]) -> Callable[[Decorated], Decorated]: ...


def suggest_keywords(target: Any = None, *, moved: Mapping[str, str] | None = None) -> Any:
    """Decorate a public function, method or class: an unknown keyword argument raises `ArgumentError` with the closest known name.

    ``moved`` maps the name of an argument that an earlier version had to what to do instead, such as
    ``{"kind": "write `mn.Importance(..., kind=...)`"}``.
    """
    hints = moved or {}
    return partial(_checking_keywords, hints=hints) if target is None else _checking_keywords(target, hints)


def _checking_keywords(target: Any, hints: Mapping[str, str]) -> Any:
    function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    keyword_kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    parameters = signature(function).parameters
    known = [name for name, each in parameters.items() if each.kind in keyword_kinds and name != "self"]
    kinds = {name: str(each.annotation) for name, each in parameters.items()}
    checked = [
        (place, name)
        for place, name in enumerate(kinds)
        if name in EXPECTED_KINDS or kinds[name] in EXPECTED_BY_ANNOTATION or (name, kinds[name]) == ("seed", "int")
    ]

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in known:
                raise ArgumentError(f"`{target.__qualname__}` has no argument `{name}`; {_remedy(name, known, hints)}")
        for place, name in checked:
            if place >= len(arguments) and name not in keywords:
                continue
            given = arguments[place] if place < len(arguments) else keywords[name]
            if (expected := _wrong_kind(name, kinds[name], given)) is not None:
                what = shown(given) if isinstance(given, str | int | float | None) else f"a {type(given).__name__}"
                raise InputError(f"`{target.__qualname__}` was given {what} as `{name}`; expected {expected}")
        return function(*arguments, **keywords)

    if isinstance(target, type):
        target.__init__ = call  # type: ignore[misc]
        return target
    return call


def _remedy(name: str, known: list[str], hints: Mapping[str, str]) -> str:
    """Return what to write in place of an unknown argument."""
    if name in hints:
        return hints[name]
    found = closest(name, known)
    return f"did you mean `{found}`?" if found is not None else f"expected one of {', '.join(known)}"
