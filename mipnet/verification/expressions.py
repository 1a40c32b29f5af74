"""A property as one Python function of x and y: comparisons of linear expressions, joined by ``&`` and ``|``.

    question = mn.property_of(lambda x, y: (y[3] - y[1] <= 0) & (y[0] >= 2), region, outputs=10)

The same function of two arrays says whether an input with its output satisfies the property.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Any, NoReturn

import numpy as np

from mipnet.arrays import Shape
from mipnet.errors import InputError, MipnetError, suggest_keywords
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import Box

PROPERTY_ALTERNATIVES_MAX = 10_000
"""Largest number of alternatives into which a property is expanded."""

PROPERTY_RULES = (
    "expected comparisons by <=, >= or == of expressions that are linear in the outputs, or of one input with a number,"
    " joined by & and | with parentheses around each"
)


def refuse(what: str) -> NoReturn:
    """Raise the error for expressions that a property cannot contain."""
    raise InputError(f"the property {what}; {PROPERTY_RULES}")


@dataclass(frozen=True, eq=False)
class Linear:
    """``constant + sum of terms``: one coefficient per variable, ``("x", i)`` or ``("y", i)`` with i in the flattened array."""

    terms: dict[tuple[str, int], float]
    constant: float = 0.0

    __array_ufunc__ = None  # numpy's scalars then call our operators
    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: object) -> Linear:
        other = _linear(other)
        terms = dict(self.terms)
        for key, value in other.terms.items():
            terms[key] = terms.get(key, 0.0) + value
        return Linear({key: value for key, value in terms.items() if value}, self.constant + other.constant)

    def __mul__(self, other: object) -> Linear:
        other = _linear(other)
        if self.terms and other.terms:
            refuse("multiplies variables")
        each, factor = (self, other.constant) if self.terms else (other, self.constant)
        return Linear({key: factor * value for key, value in each.terms.items() if factor}, factor * each.constant)

    def __truediv__(self, other: object) -> Linear:
        other = _linear(other)
        if other.terms or not other.constant:
            refuse("divides by a variable or by 0")
        return self * (1 / other.constant)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Linear:
        return self * -1.0

    def __pos__(self) -> Linear:
        return self

    def __sub__(self, other: object) -> Linear:
        return self + -_linear(other)

    def __rsub__(self, other: object) -> Linear:
        return -self + other

    def __le__(self, other: object) -> Formula:
        return Formula(((self - other,),))

    def __ge__(self, other: object) -> Formula:
        return Formula(((-self + other,),))

    def __eq__(self, other: object) -> Formula:  # type: ignore[override]
        return (self <= other) & (self >= other)

    def __lt__(self, other: object) -> NoReturn:
        refuse("compares by < or >, and solvers know closed sets only")

    __gt__ = __lt__

    def __ne__(self, other: object) -> NoReturn:
        refuse("compares by !=")

    def __bool__(self) -> NoReturn:
        refuse("takes an expression for a truth value")

    def __float__(self) -> NoReturn:
        refuse("is not linear: it calls a function of a variable")

    def __pow__(self, other: object) -> NoReturn:
        refuse("is not linear: it raises a variable to a power")

    def __abs__(self) -> NoReturn:
        refuse("is not linear: it takes an absolute value")


@dataclass(frozen=True, eq=False)
class Formula:
    """A disjunction of ``alternatives``; an alternative holds where each of its expressions is at most 0."""

    alternatives: tuple[tuple[Linear, ...], ...]

    __array_ufunc__ = None

    def __and__(self, other: object) -> Formula:
        other = _formula(other)
        if len(self.alternatives) * len(other.alternatives) > PROPERTY_ALTERNATIVES_MAX:
            refuse(f"has more than {PROPERTY_ALTERNATIVES_MAX} alternatives")
        return Formula(tuple(first + second for first, second in product(self.alternatives, other.alternatives)))

    def __or__(self, other: object) -> Formula:
        return Formula(self.alternatives + _formula(other).alternatives)

    __rand__, __ror__ = __and__, __or__

    def __bool__(self) -> NoReturn:
        refuse("takes a comparison for a truth value, as `and`, `or`, `not`, `if`, `max` and chains like a <= b <= c do")

    def __invert__(self) -> NoReturn:
        refuse("negates by ~")


@suggest_keywords
def property_of(function: Callable[[Any, Any], Any], region: Box, outputs: int | Shape) -> Property:
    """Return the property that a Python function of an input x and an output y describes, over a set of inputs.

    ``x`` has the shape of one sample of ``region``, ``y`` the shape ``outputs``, or the length ``outputs`` if that is a number.  Both
    are numpy arrays, so slices, sums and products with matrices of numbers work.  Comparisons that read only one input narrow the box.
    ``region`` is one box, of shape ``(1, *input_shape)`` or ``(inputs,)``.

    Raises `InputError` for nonlinear expressions, for ``and``, ``or``, ``not``, for strict comparisons, and for rows that mix inputs.
    """
    shape = region.lower.shape[1:] if region.lower.ndim > 1 else region.lower.shape
    if region.lower.ndim > 1 and region.samples != 1:
        raise InputError(f"the region of a property has {region.samples} samples; expected 1")
    flat = region.reshape((1, region.lower.size))
    y_shape = (outputs,) if isinstance(outputs, int) else tuple(outputs)
    try:
        formula = _formula(function(_variables("x", shape), _variables("y", y_shape)))
    except MipnetError:
        raise
    except Exception as error:
        raise InputError(f"the property could not be read ({type(error).__name__}: {error}); {PROPERTY_RULES}") from error
    cases: dict[tuple[bytes, bytes], tuple[Box, list[Clause]]] = {}
    for alternative in formula.alternatives:
        box, clause = _narrowed(flat, alternative), _clause(alternative, int(np.prod(y_shape)))
        if box is not None and clause is not None:
            cases.setdefault((box.lower.tobytes(), box.upper.tobytes()), (box, []))[1].append(clause)
    found = tuple(Case(box, tuple(clauses)) for box, clauses in cases.values())
    return Property(found or (Case(flat, ()),))


def _variables(name: str, shape: Shape) -> Any:
    array = np.empty(int(np.prod(shape)), dtype=object)
    array[:] = [Linear({(name, i): 1.0}) for i in range(array.size)]
    return array.reshape(shape)


def _linear(value: object) -> Linear:
    if isinstance(value, Linear):
        return value
    if not isinstance(value, Real) or not np.isfinite(float(value)):
        refuse(f"computes with {value!r}")
    return Linear({}, float(value))


def _formula(value: object) -> Formula:
    if isinstance(value, Formula):
        return value
    if isinstance(value, bool | np.bool_):
        return Formula(((),) if value else ())
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return _formula(value.item())
    refuse(f"is, or joins, {value!r}")


def _narrowed(region: Box, alternative: Iterable[Linear]) -> Box | None:
    """Return the part of the box where all comparisons that read one input hold, or None if it is empty."""
    lower, upper = region.lower.copy(), region.upper.copy()
    for each in alternative:
        read = [i for name, i in each.terms if name == "x"]
        if not read:
            continue
        if len(each.terms) > 1:
            refuse("compares several inputs, or inputs with outputs, in one row")
        slope, end = each.terms["x", read[0]], -each.constant / each.terms["x", read[0]]
        if slope > 0:
            upper[0, read[0]] = min(upper[0, read[0]], end)
        else:
            lower[0, read[0]] = max(lower[0, read[0]], end)
    return None if (lower > upper).any() else Box(lower, upper, region.ball, region.polytope).named(region.input_names)


def _clause(alternative: Iterable[Linear], outputs: int) -> Clause | None:
    """Return the clause of the comparisons that read outputs, or None if a comparison of numbers fails."""
    rows = [each for each in alternative if all(name == "y" for name, _ in each.terms)]
    if any(not each.terms and each.constant > 0 for each in rows):
        return None
    rows = [each for each in rows if each.terms]
    matrix, rhs = np.zeros((len(rows), outputs)), np.array([-each.constant for each in rows])
    for row, each in zip(matrix, rows, strict=True):
        for (_, i), value in each.terms.items():
            row[i] = value
    return Clause(matrix, rhs)
