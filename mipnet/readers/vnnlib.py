"""Properties in VNN-LIB, version 1: declared reals X_i and Y_j, asserted bounds of inputs and linear rows of outputs.

Everything asserted holds at once.  It is brought into disjunctive normal form; the terms with one box of inputs are one case.
Source: Demarchi, Guidotti, Pulina and Tacchella, "Supporting standardization of neural networks verification with VNN-LIB and
CoCoNet" (FoMLAS 2023), as the files of VNN-COMP write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import isfinite, prod
from pathlib import Path
from typing import NoReturn

import numpy as np

from mipnet.arrays import Array
from mipnet.errors import DataError, UnsupportedError
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import Box
from mipnet.readers.packed import unpacked
from mipnet.readers.sexpr import Form, Group, Malformed, line_of, parse, shown

VARIABLE = re.compile(r"([XY])_(0|[1-9]\d{0,8})")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
TERMS = 100_000
"""How many terms a disjunctive normal form may have."""

READS = "mipnet reads <=, >=, and, or over +, -, * of X_i, Y_j and numbers"

Variable = tuple[str, int]
Sum = tuple[dict[Variable, float], float]


@dataclass(frozen=True, slots=True)
class Term:
    """Bounds of inputs ``(i, upper end?, value)`` and rows ``sum_j c_j y_j <= b``, all of which hold."""

    bounds: tuple[tuple[int, bool, float], ...] = ()
    rows: tuple[tuple[dict[int, float], float], ...] = ()


def read_vnnlib(path: str | Path) -> Property:
    """The property of a .vnnlib file, gzipped or not.

    Raises `DataError` for a file that is missing, malformed or leaves an input without a bound, `UnsupportedError` for what
    mipnet does not have: strict inequalities, linear constraints over several inputs, rows with inputs and outputs.
    """
    return parse_vnnlib(unpacked(Path(path), "a .vnnlib file").decode("utf-8", errors="replace"), f"`{path}`")


def parse_vnnlib(text: str, name: str = "the property") -> Property:
    """The property that a text in VNN-LIB describes; ``name`` is what errors call it."""
    reading = _Reading(text, name)
    try:
        forms = parse(text)
    except Malformed as error:
        reading.fail(str(error), error.place)
    parts = [reading.terms(form) for form in reading.asserted(forms)]
    (always,) = _all_of(reading, [part for part in parts if len(part) == 1])
    return _property(reading, always, _all_of(reading, [part for part in parts if len(part) != 1]))


@dataclass(eq=False)
class _Reading:
    """One text being read: what it declares, and how errors name it."""

    text: str
    name: str
    declared: dict[str, Variable] = field(default_factory=dict)
    place: int = 0

    def fail(self, why: str, place: int | None = None, error: type[DataError | UnsupportedError] = DataError) -> NoReturn:
        raise error(f"{self.name}, line {line_of(self.text, self.place if place is None else place)}: {why}")

    def asserted(self, forms: Iterable[Form]) -> Iterator[Group]:
        """The formula of each assertion, after all declarations are taken in."""
        found = []
        for form in forms:
            if isinstance(form, str):
                raise DataError(f"{self.name}: `{form[:40]}` stands outside of brackets; expected (declare-const ...) and (assert ...)")
            self.place = form.place
            if form.head == "assert":
                if len(form.parts) != 2 or not isinstance(form.parts[1], Group):
                    self.fail(f"`{shown(form)}` asserts no formula; {READS}")
                found.append(form.parts[1])
            else:
                self._declare(form)
        for letter, what in (("X", "input"), ("Y", "output")):
            numbers = sorted(number for kind, number in self.declared.values() if kind == letter)
            if numbers != list(range(len(numbers))) or not numbers:
                gap = next((i for i, number in enumerate(numbers) if i != number), len(numbers))
                raise DataError(f"{self.name} declares {len(numbers)} {what}s and not {letter}_{gap}; expected {letter}_0, {letter}_1, ...")
        yield from found

    def _declare(self, form: Group) -> None:
        match form.parts:
            case ["declare-const", str(name), "Real"]:
                pass
            case ["declare-fun", str(name), Group(parts=[]), "Real"]:
                pass
            case _:
                newer = "; it seems to be VNN-LIB 2" if form.head in ("vnnlib-version", "declare-network") else ""
                self.fail(f"`{shown(form)}` is not understood; expected (declare-const X_0 Real) or (assert ...){newer}")
        found = VARIABLE.fullmatch(name)
        if found is None:
            self.fail(f"a variable is called `{name[:40]}`; expected X_0, X_1, ... for inputs and Y_0, Y_1, ... for outputs")
        if name in self.declared:
            self.fail(f"`{name}` is declared twice")
        self.declared[name] = (found[1], int(found[2]))

    def terms(self, form: Form) -> list[Term]:
        """The disjunctive normal form of a formula."""
        if isinstance(form, str):
            self.fail(f"`{form[:40]}` stands where a formula is expected; {READS}")
        self.place = form.place
        match form.parts:
            case ["and", _, *_]:
                return _all_of(self, [self.terms(part) for part in form.parts[1:]])
            case ["or", _, *_]:
                return [term for part in form.parts[1:] for term in self.terms(part)]
            case ["<=", left, right]:
                return self._atom(form, left, right)
            case [">=", left, right]:
                return self._atom(form, right, left)
        strict = "; write <= or >=, which a solver cannot tell from < and >" if form.head in ("<", ">") else ""
        self.fail(f"`{shown(form)}` is not understood; {READS}{strict}", error=UnsupportedError)

    def _atom(self, form: Group, small: Form, large: Form) -> list[Term]:
        """``small <= large`` as a bound of one input or as a row of outputs."""
        if isinstance(small, str) and isinstance(large, str):  # `X_0 <= 0.5`, and that thousands of times
            for one, other, upper in ((small, large, True), (large, small, False)):
                if (found := self.declared.get(one)) and found[0] == "X" and NUMBER.fullmatch(other):
                    return [Term(((found[1], upper, self._number(other)),))]
        (left, below), (right, above) = self._sum(small), self._sum(large)
        factors = {v: left.get(v, 0.0) - right.get(v, 0.0) for v in left | right}
        factors = {v: factor for v, factor in factors.items() if factor != 0}
        rhs = above - below
        if not isfinite(sum(factors.values()) + rhs):
            self.fail(f"`{shown(form)}` has numbers that are too large", form.place)
        kinds = {letter for letter, _ in factors}
        if kinds == {"X"} and len(factors) == 1:
            (((_, number), factor),) = factors.items()
            return [Term(((number, factor > 0, rhs / factor),))]
        if "X" in kinds:
            why = "ties inputs to outputs; mipnet reads boxes of inputs and linear rows of outputs"
            self.fail(
                f"`{shown(form)}` {why if 'Y' in kinds else 'is a linear constraint over several inputs; mipnet reads boxes of inputs'}",
                form.place,
                UnsupportedError,
            )
        if not factors:
            return [Term()] if rhs >= 0 else []
        return [Term((), (({number: factor for (_, number), factor in factors.items()}, rhs),))]

    def _sum(self, form: Form) -> Sum:
        """An expression as the factors of its variables, and a constant."""
        if isinstance(form, str):
            if form in self.declared:
                return {self.declared[form]: 1.0}, 0.0
            return {}, self._number(form)
        match form.parts:
            case ["+", first, *rest]:
                return _added(self._sum(first), [(1.0, self._sum(part)) for part in rest])
            case ["-", only]:
                return _added(({}, 0.0), [(-1.0, self._sum(only))])
            case ["-", first, *rest]:
                return _added(self._sum(first), [(-1.0, self._sum(part)) for part in rest])
            case ["*", _, _, *_]:
                return self._product(form, [self._sum(part) for part in form.parts[1:]])
        self.fail(f"`{shown(form)}` is not understood; {READS}", form.place, UnsupportedError)

    def _product(self, form: Group, parts: list[Sum]) -> Sum:
        varying = [part for part in parts if part[0]]
        if len(varying) > 1:
            self.fail(f"`{shown(form)}` multiplies variables; expected one variable and numbers", form.place, UnsupportedError)
        factor = prod(part[1] for part in parts if not part[0])
        return _added(({}, 0.0), [(factor, varying[0])]) if varying else ({}, factor)

    def _number(self, word: str) -> float:
        if VARIABLE.fullmatch(word):
            self.fail(f"`{word}` is not declared")
        if not NUMBER.fullmatch(word):
            self.fail(f"`{word[:40]}` is neither a number nor a declared variable")
        if not isfinite(value := float(word)):
            self.fail(f"`{word[:40]}` is too large for a number")
        return value


def _added(start: Sum, parts: Iterable[tuple[float, Sum]]) -> Sum:
    factors, constant = dict(start[0]), start[1]
    for times, (other, shift) in parts:
        constant += times * shift
        for variable, factor in other.items():
            factors[variable] = factors.get(variable, 0.0) + times * factor
    return factors, constant


def _all_of(reading: _Reading, parts: list[list[Term]]) -> list[Term]:
    """The terms of a conjunction: one of each part, in all combinations; parts with one term are in every one."""
    if prod(map(len, parts)) > TERMS:
        reading.fail(f"its disjunctions make more than {TERMS:,} combinations; split the property", error=UnsupportedError)
    fixed = [part[0] for part in parts if len(part) == 1]
    bounds = tuple(bound for term in fixed for bound in term.bounds)
    rows = tuple(row for term in fixed for row in term.rows)
    choices = product(*(part for part in parts if len(part) != 1))
    return [Term(sum((t.bounds for t in chosen), bounds), sum((t.rows for t in chosen), rows)) for chosen in choices]


def _property(reading: _Reading, always: Term, terms: list[Term]) -> Property:
    """What holds always, and one of the terms besides, as cases: terms with the same bounds are one, with a clause each."""
    inputs, outputs = (sum(kind == letter for kind, _ in reading.declared.values()) for letter in "XY")
    ends = np.repeat([[-np.inf], [np.inf]], inputs, axis=1)
    _tighten(ends, always)
    boxes: dict[tuple[tuple[int, bool, float], ...], list[Clause]] = {}
    for term in terms:
        boxes.setdefault(term.bounds, []).append(_clause(Term((), always.rows + term.rows), outputs))
    cases = []
    for number, (bounds, clauses) in enumerate(boxes.items()):
        own = ends.copy()
        _tighten(own, Term(bounds))
        _check_bounded(own, reading.name + (f", box {number + 1} of {len(boxes)}" if len(boxes) > 1 else ""))
        if (own[0] <= own[1]).all():  # an empty box has no input
            cases.append(Case(Box(own[:1], own[1:]), tuple(clauses)))
    if not cases:
        raise DataError(f"{reading.name} contradicts itself: no input satisfies its assertions about inputs")
    if not always.rows and not any(term.rows for term in terms):
        raise DataError(f"{reading.name} asserts nothing about the outputs; every input would satisfy it")
    return Property(tuple(cases))


def _tighten(ends: Array, term: Term) -> None:
    """Cut a box, lower and upper ends of shape ``(2, inputs)``, by the bounds of a term."""
    for upper, cut in ((False, np.maximum), (True, np.minimum)):
        mine = [(number, value) for number, of_upper, value in term.bounds if of_upper is upper]
        if mine:
            cut.at(ends[int(upper)], [number for number, _ in mine], [value for _, value in mine])


def _check_bounded(ends: Array, name: str) -> None:
    for row, end in ((0, "lower"), (1, "upper")):
        if not np.isfinite(ends[row]).all():
            first = int(np.flatnonzero(~np.isfinite(ends[row]))[0])
            raise DataError(f"{name}: X_{first} has no {end} bound; expected both bounds of every input")


def _clause(term: Term, outputs: int) -> Clause:
    matrix = np.zeros((len(term.rows), outputs))
    for row, (factors, _) in enumerate(term.rows):
        matrix[row, list(factors)] = list(factors.values())
    return Clause(matrix, np.array([rhs for _, rhs in term.rows]))
