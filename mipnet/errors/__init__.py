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
            ├── ContradictedProof    a proof contradicts a forward pass
            └── TooFineForFloat64    the inputs of a question differ by little more than rounding errors

Each message says what was given, what was expected and what to do.  The command line prints it in one line and ends with exit status 2,
or 1 for `FAILURES_OF_THE_RUN`.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from inspect import Parameter, signature
from typing import Any, Self, TypeVar, overload

from mipnet.errors.argument_kinds import is_checked, wrong_kind


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


class ContradictedProof(SolverFailure):
    """A forward pass contradicts a bound or a program: none of the proofs that they were part of can be trusted."""


class TooFineForFloat64(SolverFailure):
    """The inputs of a question differ by little more than the rounding errors of float64, so that a program about them proves nothing."""


FAILURES_OF_THE_RUN = (OutOfMemory, OutputInUse, SolverFailure, TimeLimitReached)
"""Errors that are no mistake in what was given: the command line ends with exit status 1."""

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


def described(value: object) -> str:
    """Return an argument as messages show it: numbers, text, lists and arrays by `shown`, all others by their class."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    plain = isinstance(value, str | int | float | complex | list | tuple | None) or hasattr(value, "shape")
    return shown(value) if plain else f"a {type(value).__name__}"


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


@overload
def suggest_keywords(target: Decorated) -> Decorated: ...


@overload
def suggest_keywords(*, moved: Mapping[str, str] | None = None, kinds: bool = True) -> Callable[[Decorated], Decorated]: ...


def suggest_keywords(target: Any = None, *, moved: Mapping[str, str] | None = None, kinds: bool = True) -> Any:
    """Decorate a public function, method or class: an unknown keyword argument raises `ArgumentError` with the closest known name.

    An argument of another kind than its annotation says raises `InputError` (`mipnet.errors.argument_kinds`), unless ``kinds`` is False.
    ``moved`` maps the name of an argument that an earlier version had to what to do instead, such as
    ``{"kind": "write `mn.Importance(..., kind=...)`"}``.
    """
    decorate = partial(_checking_keywords, hints=moved or {}, checks_kinds=kinds)
    return decorate if target is None else decorate(target)


def _checking_keywords(target: Any, hints: Mapping[str, str], checks_kinds: bool) -> Any:
    function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    keyword_kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    parameters = signature(function).parameters
    known = [name for name, each in parameters.items() if each.kind in keyword_kinds and name != "self"]
    kinds = {name: str(each.annotation) for name, each in parameters.items() if checks_kinds}
    single = (Parameter.POSITIONAL_ONLY, *keyword_kinds)
    checked = [(place, name) for place, name in enumerate(kinds) if is_checked(name, kinds[name]) and parameters[name].kind in single]

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in known:
                raise ArgumentError(f"`{target.__qualname__}` has no argument `{name}`; {_remedy(name, known, hints)}")
        for place, name in checked:
            if place >= len(arguments) and name not in keywords:
                continue
            given = arguments[place] if place < len(arguments) else keywords[name]
            if (expected := wrong_kind(name, kinds[name], given)) is not None:
                raise InputError(f"`{target.__qualname__}` was given {described(given)} as `{name}`; expected {expected}")
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
