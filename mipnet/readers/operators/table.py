"""The table of operators: what each is read as, and the names that torch and ONNX have for it.

A rule is a function that gets the call of a reader (`mipnet.readers.conversion.ConversionCall`), values and constants, all for one sample,
and adds layers.  It is registered with `operator`.  The readers map the names and argument forms of torch and ONNX onto it, and register
each name with the operator that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

Rule = TypeVar("Rule", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operator:
    """An operator: its name, what it computes, the layers that it is read as, whether they are exact, and its names elsewhere."""

    name: str
    about: str
    layers: str
    exact: bool = True
    torch: list[str] = field(default_factory=list)
    onnx: list[str] = field(default_factory=list)


class OperatorRow(NamedTuple):
    """An operator as a row of text: what it computes, its names in torch and in ONNX, its layers, and whether they are exact."""

    about: str
    torch: str
    onnx: str
    layers: str
    exact: str


READ_OPERATORS: dict[str, Operator] = {}
"""All operators, by name."""


def operator(layers: str, *, exact: bool = True) -> Callable[[Rule], Rule]:
    """Register a function as the rule of the operator that has its name; the first line of its docstring says what it computes."""

    def register(rule: Rule) -> Rule:
        name = rule.__name__
        about = (rule.__doc__ or "").strip().splitlines()[0].rstrip(".")
        READ_OPERATORS[name] = Operator(name, about, layers, exact)
        return rule

    return register


def name_operator(operator_name: str | None, names: Iterable[str], library: str) -> None:
    """Record names that ``library``, torch or onnx, has for an operator; None for an operator that is not in the table."""
    if operator_name is not None:
        known: list[str] = getattr(READ_OPERATORS[operator_name], library)
        known += [name for name in names if name not in known]
