"""What a function of arrays expects, said where NumPy or Python would say what failed inside of it.

Arguments are not checked before the call, so that functions which are called often stay as fast as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

from mipnet.errors import InputError, MipnetError, described

Expecting = TypeVar("Expecting", bound=Callable[..., Any])

ERRORS_OF_WRONG_ARGUMENTS = (TypeError, ValueError, IndexError, KeyError, AttributeError)
"""What Python and NumPy raise for arguments that do not fit."""


def expects(words: str) -> Callable[[Expecting], Expecting]:
    """Decorate a function that computes with its arguments and does nothing else: errors become an `InputError` with ``words``.

    The message names the arguments and what was given: ```Rows.slack` was given 3 as `x`; expected a number for each variable``.  A call
    with too few or too many arguments, and errors of mipnet, pass unchanged.
    """

    def decorate(function: Expecting) -> Expecting:
        parameters = signature(function)

        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            try:
                return function(*arguments, **keywords)
            except MipnetError:
                raise
            except ERRORS_OF_WRONG_ARGUMENTS as error:
                given = parameters.bind(*arguments, **keywords).arguments
                parts = [f"{described(value)} as `{name}`" for name, value in given.items() if name not in ("self", "cls")]
                raise InputError(f"`{function.__qualname__}` was given {' and '.join(parts)}; expected {words}") from error

        return cast(Expecting, call)

    return decorate
