"""The terms of a property's disjunctive normal form, and the cases that they make: all terms with the same box of inputs are one case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mipnet.arrays import Array, Mask
from mipnet.errors import DataError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import Box

PROPERTY_WORK = "make the cases of the property"
"""What a time limit ends, in the words of `Deadline.check`."""


class InputBound(NamedTuple):
    """``x <= value`` for one input if ``upper``, else ``x >= value``; ``<`` or ``>`` if ``strict``."""

    number: int
    upper: bool
    value: float
    strict: bool


class OutputRow(NamedTuple):
    """``sum_j factors[j] y_j <= rhs``, or ``<`` if ``strict``."""

    factors: dict[int, float]
    rhs: float
    strict: bool


@dataclass(frozen=True, slots=True)
class Term:
    """A conjunction of bounds of inputs and of rows of outputs."""

    bounds: tuple[InputBound, ...] = ()
    rows: tuple[OutputRow, ...] = ()


def property_of_terms(always: Term, terms: list[Term], inputs: int, outputs: int, name: str, deadline: Deadline = NO_DEADLINE) -> Property:
    """Return the property ``always and (terms[0] or terms[1] or ...)``: one case per set of bounds, one clause per term.

    Raises `DataError`, with the ``name`` of the property, if an input has no bound on one side, or if nothing is asserted of the outputs.
    """
    ends = np.repeat([[-np.inf], [np.inf]], inputs, axis=1)
    _tighten(ends, always)
    boxes: dict[tuple[InputBound, ...], list[Clause]] = {}
    for term in terms:
        deadline.check(PROPERTY_WORK)
        boxes.setdefault(term.bounds, []).append(_clause(Term((), always.rows + term.rows), outputs))
    cases = []
    for number, (bounds, clauses) in enumerate(boxes.items()):
        deadline.check(PROPERTY_WORK)
        own = ends.copy()
        _tighten(own, Term(bounds))
        _check_bounded(own, name + (f", box {number + 1} of {len(boxes)}" if len(boxes) > 1 else ""))
        openings = _open_ends(own, (*always.bounds, *bounds))
        if ((own[0] < own[1]) | ((own[0] == own[1]) & ~openings.any(axis=0))).all():  # an empty box contains no input
            cases.append(Case(Box(own[:1], own[1:]), tuple(clauses), openings if openings.any() else None))
    if not cases:
        raise DataError(f"{name} contradicts itself: no input satisfies its assertions about inputs")
    if not always.rows and not any(term.rows for term in terms):
        raise DataError(f"{name} asserts nothing about the outputs; every input would satisfy it")
    return Property(tuple(cases))


def _tighten(ends: Array, term: Term) -> None:
    """Intersect a box, lower and upper ends of shape ``(2, inputs)``, with the bounds of a term, in place."""
    for upper, cut in ((False, np.maximum), (True, np.minimum)):
        bounds = [bound for bound in term.bounds if bound.upper is upper]
        if bounds:
            cut.at(ends[int(upper)], [bound.number for bound in bounds], [bound.value for bound in bounds])


def _open_ends(ends: Array, bounds: Iterable[InputBound]) -> Mask:
    """Return which ends of a box, of shape ``(2, inputs)``, come from a strict bound."""
    found = np.zeros(ends.shape, dtype=bool)
    for bound in bounds:
        if bound.strict and ends[int(bound.upper), bound.number] == bound.value:
            found[int(bound.upper), bound.number] = True
    return found


def _check_bounded(ends: Array, name: str) -> None:
    for row, end in ((0, "lower"), (1, "upper")):
        if not np.isfinite(ends[row]).all():
            first = int(np.flatnonzero(~np.isfinite(ends[row]))[0])
            raise DataError(f"{name}: X_{first} has no {end} bound; expected both bounds of every input")


def _clause(term: Term, outputs: int) -> Clause:
    matrix = np.zeros((len(term.rows), outputs))
    for place, row in enumerate(term.rows):
        matrix[place, list(row.factors)] = list(row.factors.values())
    return Clause(matrix, np.array([row.rhs for row in term.rows]), np.array([row.strict for row in term.rows], dtype=bool))
