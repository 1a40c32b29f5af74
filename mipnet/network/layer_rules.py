"""Checks of what the open functions of layers are given, such as `mipnet.interval`, whose rules are registered by layer type."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

import torch

from mipnet.errors import InputError, described
from mipnet.errors.argument_kinds import SHARED_KINDS, ArgumentKind, is_of
from mipnet.network.graph import Layer

RULE_ARGUMENT_KINDS = {
    "interval": ArgumentKind(lambda given: is_of(given, "Interval"), "`mn.Interval(lower, upper)` with two tensors"),
    "tensor": ArgumentKind(lambda given: isinstance(given, torch.Tensor), "a torch.Tensor"),
    "choice": ArgumentKind(lambda given: given is None or isinstance(given, torch.Tensor), "a torch.Tensor, or None"),
    "shape": SHARED_KINDS["Shape"],
}
"""What the arguments after the layer are, by name."""

Rules = TypeVar("Rules", bound=Callable[..., Any])


def checks_kinds(*kinds: str) -> Callable[[Rules], Rules]:
    """Return a decorator of a function of a layer, made by `functools.singledispatch`, and of arguments of these `RULE_ARGUMENT_KINDS`.

    The last kind is that of all further arguments.  The decorated function raises `InputError` for other arguments, and for shapes that the
    layer does not take.
    """
    known = [RULE_ARGUMENT_KINDS[kind] for kind in kinds]

    def decorate(rules: Rules) -> Rules:
        dispatched: Any = rules
        names = list(signature(dispatched).parameters)[1:]

        @wraps(dispatched)  # `register` and `dispatch` are among its attributes
        def call(layer: Any, *given: Any, **named: Any) -> Any:
            if not isinstance(layer, Layer):
                raise _wrong(dispatched, layer, SHARED_KINDS["Layer"].one)
            for place, each in [*enumerate(given), *((names.index(name), each) for name, each in named.items() if name in names)]:
                kind = known[min(place, len(known) - 1)]
                if not kind.holds(each):
                    raise _wrong(dispatched, each, kind.one)
            try:
                return dispatched(layer, *given, **named)
            except RuntimeError:
                boxes = [each for each in given if RULE_ARGUMENT_KINDS["interval"].holds(each)]
                if boxes:
                    shape = layer.shape(*(tuple(box.lower.shape[1:]) for box in boxes))  # which says what does not fit
                    if kinds[0] == "tensor" and tuple(given[0].shape[1:]) != shape:
                        raise InputError(
                            f"`{dispatched.__name__}` was given coefficients of shape {tuple(given[0].shape)}; expected (rows, *{shape})"
                        ) from None
                raise

        return cast(Rules, call)

    return decorate


def _wrong(rules: Any, given: object, expected: str) -> InputError:
    return InputError(f"`{rules.__name__}` was given {described(given)}; expected {expected}")
