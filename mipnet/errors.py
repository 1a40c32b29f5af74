"""Every error that mipnet raises on purpose, one class per remedy.

    MipnetError
    ├── InputError (ValueError)      something given is wrong: change it
    │   ├── SpecError                a key of the YAML file
    │   ├── DataError                images, labels, files of data
    │   ├── NetworkError             weights, shapes, wiring
    │   ├── ArgumentError (TypeError) a keyword argument that a function does not have
    │   └── UnsupportedError         a layer, operator or formulation that mipnet does not have
    ├── UnboundedError (ValueError)  a big-M is needed where no finite bound is known
    └── BackendError (RuntimeError)  the solver cannot do this
        ├── BackendMissing           not installed, or no such backend
        ├── OptionError              the solver has no such option, or not with this value
        └── SolverFailure            the solver broke down or contradicted itself

Each message says what was given, what was expected and what to do.  The command line prints it in one line and ends
with exit status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar


class MipnetError(Exception):
    """Base class of every error that mipnet raises on purpose."""


class InputError(MipnetError, ValueError):
    """Something given is wrong; the message says what was expected."""


class SpecError(InputError):
    """A key of the YAML file is missing, unknown or has a wrong value."""


class DataError(InputError):
    """Images, labels or a data file do not fit."""


class NetworkError(InputError):
    """Weights, shapes or the wiring of a network do not fit."""


class UnsupportedError(InputError):
    """A layer, operator or formulation that mipnet does not have."""


class ArgumentError(InputError, TypeError):
    """A function or class of mipnet has no keyword argument of that name; the message suggests one."""


class UnboundedError(MipnetError, ValueError):
    """A big-M is needed where no finite bound is known; mipnet never invents one."""


class BackendError(MipnetError, RuntimeError):
    """The solver cannot do what was asked."""


class BackendMissing(BackendError):
    """The solver is not installed, or no backend has that name."""


class OptionError(BackendError, ValueError):
    """The solver has no such option, or not with that value."""


class SolverFailure(BackendError):
    """The solver broke down, or what it said contradicts itself."""


F = TypeVar("F", bound=Callable[..., Any])


def suggest_keywords(target: F) -> F:
    """Decorate a public function or class: an unknown keyword argument raises `ArgumentError` with the closest name it has."""
    function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    named = [
        name
        for name, each in signature(function).parameters.items()
        if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    ]

    @wraps(function)
    def call(*given: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in named:
                close = difflib.get_close_matches(name, named, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"expected one of {', '.join(n for n in named if n != 'self')}"
                raise ArgumentError(f"`{target.__name__}` has no argument `{name}`; {hint}")
        return function(*given, **keywords)

    if isinstance(target, type):
        target.__init__ = call  # type: ignore[misc]
        return target
    return call  # type: ignore[return-value]
