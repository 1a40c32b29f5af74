"""Properties in VNN-LIB, version 1: declared reals X_i and Y_j, asserted bounds of inputs and linear rows of outputs.

The conjunction of all assertions is brought into disjunctive normal form; all terms with the same box of inputs form one case.  Of SMT-LIB,
of which VNN-LIB is a part, comparisons of more than two sums, `=`, `not`, `=>`, division by a number and superfluous brackets are read too.
Source: Demarchi, Guidotti, Pulina and Tacchella, "Supporting standardization of neural networks verification with VNN-LIB and
CoCoNet" (FoMLAS 2023), as the files of VNN-COMP write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import isfinite, prod
from pathlib import Path
from typing import NoReturn

from mipnet.errors import DataError, UnsupportedError, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.network.properties import Property
from mipnet.readers.file_bytes import read_text
from mipnet.readers.sexpr import Form, Group, Malformed, line_of, parse, shown
from mipnet.readers.vnnlib_terms import InputBound, OutputRow, Term, property_of_terms

VARIABLE_PATTERN = re.compile(r"([XY])_(0|[1-9]\d{0,8})")
NUMBER_PATTERN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
NORMAL_FORM_TERMS_MAX = 100_000
"""Largest number of terms of a disjunctive normal form."""

VNNLIB_SUBSET = "mipnet reads <=, >=, <, >, =, and, or, not, => over +, -, *, / of X_i, Y_j and numbers"

READING_WORK = "read the property"
"""What a time limit ends, in the words of `Deadline.check`."""

IGNORED_COMMANDS = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "exit")
"""Commands of SMT-LIB that say nothing about the property."""

NEGATED_COMPARISONS = {"<=": ">", ">": "<=", ">=": "<", "<": ">="}

Variable = tuple[str, int]
"""The letter and the number of a variable: ``("X", 0)``."""

LinearSum = tuple[dict[Variable, float], float]
"""The factors of variables, and a constant."""


@suggest_keywords
def read_vnnlib(path: str | Path, time_limit: TimeLimit = None) -> Property:
    """Read the property of a .vnnlib file, compressed (gzip, xz, bzip2) or not, with or without a byte order mark.

    Strict comparisons (``<``, ``>``) become strict rows of a `Clause` and open ends of a `Case`.

    Raises `DataError` if the file is missing or malformed, or if an input has no lower or no upper bound.  Raises `UnsupportedError`
    for linear constraints over several inputs, and for rows with inputs and outputs.  Raises `TimeLimitReached` after ``time_limit``
    seconds, None for no limit.
    """
    deadline = Deadline.after(time_limit)
    text = read_text(Path(path), "a .vnnlib file", errors="replace")
    if "\0" in text:
        raise DataError(f"`{path}` is no text; expected a .vnnlib file: (declare-const X_0 Real), ..., (assert ...)")
    return parse_vnnlib(text, f"`{path}`", deadline)


def parse_vnnlib(text: str, name: str = "the property", deadline: Deadline = NO_DEADLINE) -> Property:
    """Read the property that a text in VNN-LIB describes; errors call it ``name``."""
    text = text.removeprefix("\ufeff")
    parser = _PropertyParser(text, name, deadline)
    deadline.check(READING_WORK)
    try:
        forms = parse(text)
    except Malformed as error:
        parser.fail(str(error), error.place)
    parts = [parser.terms(form) for form in parser.asserted(forms)]
    (always,) = _conjunction(parser, [part for part in parts if len(part) == 1])
    inputs, outputs = (sum(kind == letter for kind, _ in parser.declared.values()) for letter in "XY")
    terms = _conjunction(parser, [part for part in parts if len(part) != 1])
    deadline.check(READING_WORK)
    return property_of_terms(always, terms, inputs, outputs, name, deadline)


@dataclass(eq=False)
class _PropertyParser:
    """The parser of one text: its declared variables, and its name in errors."""

    text: str
    name: str
    deadline: Deadline = NO_DEADLINE
    declared: dict[str, Variable] = field(default_factory=dict)
    place: int = 0

    def fail(self, why: str, place: int | None = None, error: type[DataError | UnsupportedError] = DataError) -> NoReturn:
        raise error(f"{self.name}, line {line_of(self.text, self.place if place is None else place)}: {why}")

    def asserted(self, forms: Iterable[Form]) -> Iterator[Group]:
        """Yield the formula of each assertion, after all declarations are read."""
        found = []
        for form in forms:
            if isinstance(form, str):
                raise DataError(f"{self.name}: `{form[:40]}` stands outside of brackets; expected (declare-const ...) and (assert ...)")
            while len(form.parts) == 1 and isinstance(form.parts[0], Group):
                form = form.parts[0]
            self.place = form.place
            if form.head in IGNORED_COMMANDS:
                continue
            if form.head == "assert":
                if len(form.parts) != 2 or not isinstance(form.parts[1], Group):
                    self.fail(f"`{shown(form)}` asserts no formula; {VNNLIB_SUBSET}")
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
        found = VARIABLE_PATTERN.fullmatch(name)
        if found is None:
            self.fail(f"a variable is called `{name[:40]}`; expected X_0, X_1, ... for inputs and Y_0, Y_1, ... for outputs")
        if name in self.declared:
            self.fail(f"`{name}` is declared twice")
        self.declared[name] = (found[1], int(found[2]))

    def terms(self, form: Form, negated: bool = False) -> list[Term]:
        """Return the disjunctive normal form of a formula, or of its negation."""
        if isinstance(form, str):
            self.fail(f"`{form[:40]}` stands where a formula is expected; {VNNLIB_SUBSET}")
        self.deadline.check(READING_WORK)
        self.place = form.place
        match form.parts:
            case [Group() as only]:
                return self.terms(only, negated)
            case ["not", only]:
                return self.terms(only, not negated)
            case ["=>", premise, conclusion]:
                return self._joined([self.terms(premise, not negated), self.terms(conclusion, negated)], every=negated)
            case ["and" | "or" as head, _, *_]:
                return self._joined([self.terms(part, negated) for part in form.parts[1:]], every=(head == "and") != negated)
            case ["<=" | ">=" | "<" | ">" as relation, _, _, *_]:
                way = NEGATED_COMPARISONS[relation] if negated else relation
                pairs = [self._compare(form, way, one, other) for one, other in pairwise(form.parts[1:])]
                return self._joined(pairs, every=not negated)
            case ["=", _, _, *_]:
                ways = ("<", ">") if negated else ("<=", ">=")
                each = [self._compare(form, way, one, other) for one, other in pairwise(form.parts[1:]) for way in ways]
                return self._joined(each, every=not negated)
        self.fail(f"`{shown(form)}` is not understood; {VNNLIB_SUBSET}", error=UnsupportedError)

    def _joined(self, parts: list[list[Term]], *, every: bool) -> list[Term]:
        """Return the conjunction of formulas in normal form if ``every`` one has to hold, else their disjunction."""
        return _conjunction(self, parts) if every else [term for part in parts for term in part]

    def _compare(self, form: Group, relation: str, left: Form, right: Form) -> list[Term]:
        """Return ``left relation right`` as a bound of one input or as a row of outputs."""
        small, large = (left, right) if relation in ("<=", "<") else (right, left)
        return self._atom(form, small, large, strict=relation in ("<", ">"))

    def _atom(self, form: Group, small: Form, large: Form, *, strict: bool) -> list[Term]:
        """Return ``small <= large``, or ``small < large``."""
        if isinstance(small, str) and isinstance(large, str):  # a shortcut for `X_0 <= 0.5`, of which a file may have thousands
            for one, other, upper in ((small, large, True), (large, small, False)):
                if (found := self.declared.get(one)) and found[0] == "X" and NUMBER_PATTERN.fullmatch(other):
                    return [Term((InputBound(found[1], upper, self._number(other), strict),))]
        (left, below), (right, above) = self._sum(small), self._sum(large)
        factors = {v: left.get(v, 0.0) - right.get(v, 0.0) for v in left | right}
        factors = {v: factor for v, factor in factors.items() if factor != 0}
        rhs = above - below
        if not isfinite(sum(factors.values()) + rhs):
            self.fail(f"`{shown(form)}` has numbers that are too large", form.place)
        kinds = {letter for letter, _ in factors}
        if kinds == {"X"} and len(factors) == 1:
            (((_, number), factor),) = factors.items()
            return [Term((InputBound(number, factor > 0, rhs / factor, strict),))]
        if "X" in kinds:
            why = "is a linear constraint over several inputs; mipnet reads boxes of inputs"
            if "Y" in kinds:
                why = "ties inputs to outputs; mipnet reads boxes of inputs and linear rows of outputs"
            self.fail(f"`{shown(form)}` {why}", form.place, UnsupportedError)
        if not factors:
            return [Term()] if rhs > 0 or (rhs == 0 and not strict) else []
        return [Term((), (OutputRow({number: factor for (_, number), factor in factors.items()}, rhs, strict),))]

    def _sum(self, form: Form) -> LinearSum:
        """Return an expression as the factors of its variables, and a constant."""
        if isinstance(form, str):
            if form in self.declared:
                return {self.declared[form]: 1.0}, 0.0
            return {}, self._number(form)
        match form.parts:
            case [only]:
                return self._sum(only)
            case ["+", first, *rest]:
                return _added(self._sum(first), [(1.0, self._sum(part)) for part in rest])
            case ["-", only]:
                return _added(({}, 0.0), [(-1.0, self._sum(only))])
            case ["-", first, *rest]:
                return _added(self._sum(first), [(-1.0, self._sum(part)) for part in rest])
            case ["*", _, _, *_]:
                return self._product(form, [self._sum(part) for part in form.parts[1:]])
            case ["/", first, *rest] if rest:
                return self._product(form, [self._sum(first), *(self._inverse(form, part) for part in rest)])
        self.fail(f"`{shown(form)}` is not understood; {VNNLIB_SUBSET}", form.place, UnsupportedError)

    def _product(self, form: Group, parts: list[LinearSum]) -> LinearSum:
        varying = [part for part in parts if part[0]]
        if len(varying) > 1:
            self.fail(f"`{shown(form)}` multiplies variables; expected one variable and numbers", form.place, UnsupportedError)
        factor = prod(part[1] for part in parts if not part[0])
        return _added(({}, 0.0), [(factor, varying[0])]) if varying else ({}, factor)

    def _inverse(self, form: Group, part: Form) -> LinearSum:
        factors, value = self._sum(part)
        if factors or not value:
            self.fail(f"`{shown(form)}` divides by a variable or by 0; expected a number", form.place, UnsupportedError)
        return {}, 1.0 / value

    def _number(self, word: str) -> float:
        if VARIABLE_PATTERN.fullmatch(word):
            self.fail(f"`{word}` is not declared")
        if not NUMBER_PATTERN.fullmatch(word):
            self.fail(f"`{word[:40]}` is neither a number nor a declared variable")
        if not isfinite(value := float(word)):
            self.fail(f"`{word[:40]}` is too large for a number")
        return value


def _added(start: LinearSum, parts: Iterable[tuple[float, LinearSum]]) -> LinearSum:
    factors, constant = dict(start[0]), start[1]
    for times, (other, shift) in parts:
        constant += times * shift
        for variable, factor in other.items():
            factors[variable] = factors.get(variable, 0.0) + times * factor
    return factors, constant


def _conjunction(parser: _PropertyParser, parts: list[list[Term]]) -> list[Term]:
    """Return the terms of a conjunction: all combinations of one term per part."""
    if prod(map(len, parts)) > NORMAL_FORM_TERMS_MAX:
        parser.fail(f"its disjunctions make more than {NORMAL_FORM_TERMS_MAX:,} combinations; split the property", error=UnsupportedError)
    fixed = [part[0] for part in parts if len(part) == 1]
    bounds = tuple(bound for term in fixed for bound in term.bounds)
    rows = tuple(row for term in fixed for row in term.rows)
    found = []
    for chosen in product(*(part for part in parts if len(part) != 1)):
        parser.deadline.check(READING_WORK)
        found.append(Term(sum((t.bounds for t in chosen), bounds), sum((t.rows for t in chosen), rows)))
    return found
