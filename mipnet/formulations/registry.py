"""The registry of formulations: named ways to write a layer type as variables and rows, and whether each is exact.

A layer type is written in one of three ways.  An affine layer registers `linear_map` and needs neither variables nor rows.  Any other
layer registers its own functions with `encoding`, or it is written with a `Family`: one condition that several layer types share, such
as ``h = 0 or g = 0`` of the positive part.  A formulation that is registered with a family is available for every layer type of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any, TypeVar

from mipnet.arrays import Csr, Shape
from mipnet.errors import InputError, UnsupportedError, shown, suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.program_size import ProgramSize
from mipnet.limits.code_digests import RULES_BY_CLASS
from mipnet.network.graph import Layer
from mipnet.network.layer_rules import checks_kinds

Encoder = Callable[..., Affine]
"""``(layer, block, *inputs) -> value``: writes a layer into a block and returns its value."""

RESERVED_FORMULATION_NAMES = frozenset({"auto", "frozen"})
"""Names with a meaning of their own: `auto` chooses a formulation, `frozen` asks for the importance program in reduced space."""

Writer = TypeVar("Writer", bound=Callable[..., Affine])


@checks_kinds("shape")
@singledispatch
def linear_map(layer: Layer, *shapes: Shape) -> tuple[Csr, ...]:
    """Return the matrices of an affine layer: one sparse matrix per input, of shape ``(output elements, elements of that input)``.

    Elements are flat in C order.  Raises `UnsupportedError` if the layer is not affine.
    """
    raise UnsupportedError(f"layer {f'`{layer.label}`' if isinstance(layer, Layer) else shown(layer)} is not affine")


def is_affine(layer: Layer) -> bool:
    """Return True if the layer has registered `linear_map`."""
    return linear_map.dispatch(type(layer)) is not linear_map.dispatch(object)


@dataclass(frozen=True, eq=False)
class RegisteredFormulation:
    """A formulation of a layer type or of a family: its name, the function that writes it, and whether it is a relaxation.

    A relaxation allows points that the layer does not; the optimum of a program with a relaxation is only a bound.  ``size`` estimates
    what it writes (`mipnet.formulations.program_size`); without it, a formulation is taken to be as large as the default one.
    """

    name: str
    write: Callable[..., Affine]
    relaxed: bool = False
    family: Family | None = None
    size: Callable[..., ProgramSize] | None = None


@dataclass(frozen=True, eq=False)
class Family:
    """The formulations, by name, of a condition that several layer types share; the first one is the default."""

    condition: str
    formulations: dict[str, RegisteredFormulation] = field(default_factory=dict)

    def register(self, name: str, *, relaxed: bool = False, size: Callable[..., ProgramSize] | None = None) -> Callable[[Writer], Writer]:
        """Return a decorator that registers a function as a formulation of every layer type of this family."""

        def decorate(write: Writer) -> Writer:
            _check_name(self.formulations, name, write)
            self.formulations[name] = RegisteredFormulation(name, write, relaxed, self, size)
            return write

        return decorate

    def encodes(self, *layers: type[Layer]) -> Callable[[Writer], Writer]:
        """Return a decorator that registers a function as the encoder of layer types, which are then written with this family."""

        def decorate(encoder: Writer) -> Writer:
            _FAMILY_ENCODERS.update(dict.fromkeys(layers, (self, encoder)))
            return encoder

        return decorate


_OWN_FORMULATIONS: dict[type[Layer], dict[str, RegisteredFormulation]] = {}
_FAMILY_ENCODERS: dict[type[Layer], tuple[Family, Encoder]] = {}


@suggest_keywords
def encoding(layer: type[Layer], formulation: str, *, relaxed: bool = False) -> Callable[[Writer], Writer]:
    """Return a decorator that registers a function as the encoding of a layer type, under a formulation name.

        @mn.encoding(MyLayer, "big-m")
        def _(layer, block, x):
            h = block.variable("", lower, upper, value=lambda point: layer_in_numpy(x.evaluate(point)))
            block.rows("above", h - x, ">=")
            return h

    Set ``relaxed`` if the rows allow points that the layer does not.  By default, the formulation counts as exact, whatever its name.
    """

    def decorate(write: Writer) -> Writer:
        known = _OWN_FORMULATIONS.setdefault(layer, {})
        _check_name(known, formulation, write)
        known[formulation] = RegisteredFormulation(formulation, write, relaxed)
        return write

    return decorate


def _check_name(known: Mapping[str, RegisteredFormulation], name: str, write: Callable[..., Affine]) -> None:
    """Raise `InputError` if the name is reserved, or if another module has registered it.

    A module may register its own name again, as a notebook does.
    """
    if name in RESERVED_FORMULATION_NAMES:
        raise InputError(f"the name `{name}` is reserved and cannot be registered; choose another name for the formulation")
    if name in known and known[name].write.__module__ != write.__module__:
        raise InputError(f"formulation `{name}` is registered by `{known[name].write.__module__}` already; choose another name")


def formulations(layer: type[Layer]) -> Mapping[str, RegisteredFormulation]:
    """Return the formulations of a layer type by name, the default first; empty if there is none.

    A subclass without its own formulations has those of its nearest base class.
    """
    for base in layer.__mro__:
        if base in _OWN_FORMULATIONS or base in _FAMILY_ENCODERS:
            return _of_family(base) | _OWN_FORMULATIONS.get(base, {})
    return {}


def _of_family(layer: type[Any]) -> dict[str, RegisteredFormulation]:
    if layer not in _FAMILY_ENCODERS:
        return {}
    family, encoder = _FAMILY_ENCODERS[layer]
    return {name: replace(each, write=encoder) for name, each in family.formulations.items()}


def all_formulations() -> dict[str, tuple[str, ...]]:
    """Return the formulation names of every layer type that has any, by lower-case layer name."""
    layers = dict.fromkeys((*_FAMILY_ENCODERS, *_OWN_FORMULATIONS))
    return {layer.__name__.lower(): tuple(formulations(layer)) for layer in layers}


def _writers(kind: type) -> list[object]:
    """Return the functions that write a layer type, for digests."""
    return [linear_map.dispatch(kind), *(each.write for each in formulations(kind).values())] if issubclass(kind, Layer) else []


RULES_BY_CLASS.append(_writers)
