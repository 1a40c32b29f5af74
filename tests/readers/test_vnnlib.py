"""VNN-LIB: properties compared with a direct evaluation of the expressions, and an error of one line for everything that is refused."""

import bz2
import gzip
import lzma
import operator
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mipnet.errors import DataError, InputError, UnsupportedError
from mipnet.readers.vnnlib import parse_vnnlib, read_vnnlib

DATA = Path(os.environ.get("MIPNET_DATA", "")) / "vnncomp"


def declare(inputs: int, outputs: int) -> str:
    return "".join(f"(declare-const X_{i} Real)\n" for i in range(inputs)) + "".join(
        f"(declare-const Y_{j} Real)\n" for j in range(outputs)
    )


def unit(inputs: int) -> str:
    return "".join(f"(assert (>= X_{i} 0))(assert (<= X_{i} 1))\n" for i in range(inputs))


COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq}


class Direct:
    """Direct evaluation of a text at points, by a separate recursive descent without normal form, boxes and matrices."""

    def __init__(self, text: str) -> None:
        self.words = re.findall(r"\(|\)|[^()\s]+", re.sub(";.*", "", text))
        self.forms: list[Any] = []
        while self.words:
            self.forms.append(self.form())

    def form(self) -> Any:
        word = self.words.pop(0)
        if word != "(":
            return word
        parts = []
        while self.words[0] != ")":
            parts.append(self.form())
        self.words.pop(0)
        return parts

    def holds(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        values = {f"X_{i}": x[:, i] for i in range(x.shape[1])} | {f"Y_{j}": y[:, j] for j in range(y.shape[1])}

        def value(form: Any) -> Any:
            if isinstance(form, str):
                return values[form] if form in values else float(form)
            if len(form) == 1:
                return value(form[0])
            op, *rest = form[0], *map(value, form[1:])
            if op in COMPARISONS:
                return np.logical_and.reduce([COMPARISONS[op](a, b) for a, b in pairwise(rest)])
            if op == "not":
                return np.logical_not(*rest)
            if op == "=>":
                return np.logical_or(np.logical_not(rest[0]), rest[1])
            if op == "/":
                return rest[0] / np.prod(rest[1:])
            if op == "and":
                return np.logical_and.reduce(np.broadcast_arrays(*rest))
            if op == "or":
                return np.logical_or.reduce(np.broadcast_arrays(*rest))
            if op == "+":
                return sum(rest)
            if op == "*":
                return np.prod(np.broadcast_arrays(*rest), axis=0)
            assert op == "-"
            return -rest[0] if len(rest) == 1 else rest[0] - sum(rest[1:])

        each = [np.broadcast_to(value(form[1]), len(x)) for form in self.forms if form[0] == "assert"]
        return np.logical_and.reduce(each)


def agree(text: str, inputs: int, outputs: int) -> float:
    """Compare with `Direct` at many points; the share of them that satisfies the property."""
    g = np.random.default_rng(0)
    x = np.round(g.uniform(-0.5, 1.5, (4000, inputs)) * 16) / 16  # on a grid where sums are exact: ties count as both would have it
    y = np.round(g.normal(scale=1.5, size=(len(x), outputs)) * 16) / 16
    wanted = Direct(text).holds(x, y)
    assert (parse_vnnlib(text).holds_at(x, y) == wanted).all()
    return float(wanted.mean())


FORMULAS = [
    "(assert (<= Y_0 Y_1))",
    "(assert (>= Y_0 0.3))(assert (<= Y_1 -2e-1))",
    "(assert (or (and (<= Y_0 Y_1)) (and (<= Y_2 Y_1))))",
    "(assert (or (<= Y_0 Y_1) (and (>= Y_2 0.5) (<= Y_1 +.7))))",
    "(assert (and (or (<= Y_0 0) (<= Y_1 0)) (or (>= Y_2 0) (>= Y_1 1) (<= Y_0 Y_2))))",
    "(assert (or (and (or (<= Y_0 0) (<= Y_1 0)) (>= Y_2 0)) (>= Y_2 1)))",
    "(assert (<= (+ Y_0 (* 2 Y_1) -0.5) (- Y_2 (* -3.0 Y_0) 1)))",
    "(assert (>= (- Y_0) (* (+ 1 1) (- Y_1 Y_2) 0.5)))",
    "(assert (<= (* 2 (- 0.25)) (+ Y_0 Y_1 Y_2 Y_0)))",
    "(assert (<= (- Y_0 Y_0) 1))(assert (<= Y_1 0))",
    "(assert (or (<= 1 0) (<= Y_1 0)))",
    "(assert (or (<= 0 1) (<= Y_1 0)))(assert (>= Y_0 0))",
    "(assert (or (and (<= X_0 0.5) (<= Y_0 0)) (and (>= X_0 0.5) (<= X_1 0.4) (<= Y_1 0))))",
    "(assert (or (<= X_0 0.5) (>= X_1 0.5)))(assert (or (<= Y_0 0) (<= Y_1 0)))",
    "(assert (or (<= X_0 -1) (>= X_1 0.5)))(assert (<= Y_0 0))",
    "(assert (<= (* 2 X_0) (- 1.5 0.5)))(assert (<= 0.6 (* -2 (- X_1 1))))(assert (<= Y_0 0))",
    "(assert (<= Y_0 0)) ; (assert (<= Y_0 -9)) ))) is a comment",
    "(assert (< Y_0 0.5))(assert (> Y_1 -0.25))",
    "(assert (or (and (< Y_0 Y_1) (>= Y_0 0)) (> Y_2 (+ Y_0 Y_1))))",
    "(assert (< X_0 0.5))(assert (> X_1 0.25))(assert (<= Y_0 0))",
    "(assert (< X_0 0.5))(assert (<= X_0 0.5))(assert (<= Y_0 0))",
    "(assert (< X_0 0.75))(assert (<= X_0 0.5))(assert (<= Y_0 0))",
    "(assert (or (< X_0 0.5) (> (* -2 X_0) -0.5) (< Y_0 0)))(assert (> 1 X_1))(assert (<= Y_1 0))",
    "(assert (or (< 1 1) (<= Y_1 0)))(assert (<= 1 1))",
    "(assert (<= -0.5 Y_0 0.5))",
    "(assert (> 1 Y_0 Y_1 -1))",
    "(assert (= X_0 0.5))(assert (<= Y_1 0))",
    "(assert (or (= Y_0 Y_1) (= X_1 0 X_0) (< Y_2 -1)))",
    "(assert (not (<= Y_0 0)))(assert (not (or (< Y_1 0) (and (> Y_2 0) (>= Y_1 1)))))",
    "(assert (not (= Y_0 0.5)))(assert (not (not (<= Y_1 0))))",
    "(assert (not (< -1 Y_0 1)))",
    "(assert (=> (<= Y_0 0) (> Y_1 0)))(assert (not (=> (> Y_2 0) (< Y_1 -1))))",
    "(assert (<= (/ Y_0 2) (/ (- Y_1) -4 0.5)))",
    "(assert ((<= Y_0 0)))(assert (((or ((<= (Y_1) ((0.5)))) (((>= Y_2 (- (1)))))))))",
    "(set-logic QF_LRA)(set-info :status unknown)(assert (and (<= Y_0 0)))(check-sat)(get-model)(exit)",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_equals_direct_evaluation(formula: str) -> None:
    share = agree(declare(2, 3) + unit(2) + formula, 2, 3)
    assert 0.001 < share < 0.999


def random_formula(g: np.random.Generator, depth: int) -> str:
    if depth == 0 or g.random() < 0.2:
        a, b = g.choice(["Y_0", "Y_1", "Y_2", "(* 0.5 Y_1)", "(+ Y_0 Y_2)", "0.25", "(- Y_1 0.5)"], 2)
        if g.random() < 0.3:
            return f"({g.choice(['<=', '>=', '<', '>'])} X_{g.integers(2)} {g.integers(17) / 16})"
        return f"({g.choice(['<=', '>=', '<', '>'])} {a} {b})"
    if g.random() < 0.15:
        return f"(not {random_formula(g, depth - 1)})"
    parts = " ".join(random_formula(g, depth - 1) for _ in range(g.integers(1, 4)))
    return f"({g.choice(['and', 'or'])} {parts})"


@pytest.mark.parametrize("seed", range(40))
def test_random_formulas_equal_direct_evaluation(seed: int) -> None:
    g = np.random.default_rng(seed)
    formula = "".join(f"(assert {random_formula(g, 3)})" for _ in range(g.integers(1, 3)))
    try:
        agree(declare(2, 3) + unit(2) + "(assert (<= (+ Y_0 Y_1 Y_2) 3.05))" + formula, 2, 3)
    except DataError as error:
        assert "contradicts itself" in str(error)  # noqa: PT017
        x = g.uniform(0, 1, (4000, 2))
        assert not Direct(declare(2, 3) + unit(2) + formula).holds(x, g.normal(size=(4000, 3))).any()


def test_terms_with_one_box_are_one_case() -> None:
    both = "(assert (or (<= X_0 0.5) (>= X_1 0.5)))(assert (or (<= Y_0 0) (<= Y_1 0) (>= Y_2 1)))"
    prop = parse_vnnlib(declare(2, 3) + unit(2) + both)
    assert [len(case.clauses) for case in prop.cases] == [3, 3]
    assert prop.cases[0].region.upper.tolist() == [[0.5, 1.0]]
    assert prop.cases[1].region.lower.tolist() == [[0.0, 0.5]]
    assert prop.cases[0].clauses[2].matrix.tolist() == [[0, 0, -1]]
    assert prop.cases[0].clauses[2].rhs.tolist() == [-1]


def test_a_repeated_bound_tightens() -> None:
    prop = parse_vnnlib(declare(1, 1) + "(assert (<= X_0 2))(assert (<= X_0 1))(assert (<= X_0 3))(assert (>= X_0 0))(assert (<= Y_0 0))")
    assert prop.cases[0].region.upper.tolist() == [[1.0]]


@pytest.mark.parametrize("text", ["(<= X_0 (+ 0.25 0.25))", "(>= (+ 0.25 0.25) X_0)", "(<= (* 2 X_0) 1)"])
def test_a_bound_may_be_an_expression_on_one_side(text: str) -> None:
    prop = parse_vnnlib(declare(1, 1) + f"(assert {text})(assert (>= X_0 0))(assert (<= Y_0 0))")
    assert prop.cases[0].region.upper.tolist() == [[0.5]]


def test_declared_as_functions_in_any_order() -> None:
    text = "(declare-fun Y_0 () Real)(declare-fun X_1 () Real)(declare-fun X_0 () Real)" + unit(2) + "(assert (<= Y_0 0))"
    assert parse_vnnlib(text).inputs == 2


def test_assertions_may_come_before_declarations_of_others() -> None:
    text = "(declare-const X_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))(declare-const Y_0 Real)(assert (<= Y_0 0))"
    assert parse_vnnlib(text).inputs == 1


PACKERS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_files(tmp_path: Path, suffix: str, encoding: str) -> None:
    """The last three begin with a byte order mark."""
    data = ("; größer\n" + declare(1, 1) + unit(1) + "(assert (<= Y_0 0))").encode(encoding)
    path = tmp_path / f"p.vnnlib{suffix}"
    path.write_bytes(PACKERS[suffix](data))
    assert read_vnnlib(path).inputs == 1


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_both_byte_orders_of_utf_16(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "p.vnnlib"
    path.write_bytes(mark + (declare(1, 1) + unit(1) + "(assert (<= Y_0 0))").encode("utf-16-le" if mark[0] == 255 else "utf-16-be"))
    assert read_vnnlib(path).inputs == 1


def test_a_text_that_begins_with_a_mark() -> None:
    assert parse_vnnlib("\ufeff" + declare(1, 1) + unit(1) + "(assert (<= Y_0 0))").inputs == 1


def test_strict_rows_and_open_ends() -> None:
    prop = parse_vnnlib(declare(2, 2) + unit(2) + "(assert (< X_0 1))(assert (< X_1 2))(assert (or (< Y_0 0) (<= Y_1 0)))")
    (case,) = prop.cases
    assert case.open_ends is not None
    assert case.open_ends.tolist() == [[False, False], [True, False]]
    assert [np.asarray(clause.strict).tolist() for clause in case.clauses] == [[True], [False]]
    assert case.region.upper.tolist() == [[1.0, 1.0]]
    assert case.contains(np.array([[1.0, 1.0], [1 - 1e-12, 1.0]]), 1e-3).tolist() == [False, True]


GOOD = declare(2, 2) + unit(2)  # lines 1 to 6

REFUSED = [
    ("(assert (<= Y_0 0)", DataError, "line 7: a bracket is never closed"),
    ("(assert (<= Y_0 0)))", DataError, "line 7: a bracket is closed that was never opened"),
    ("(" * 200 + ")" * 200, DataError, "nested more than 100 deep"),
    ("\n\n(assert (!= Y_0 0))", UnsupportedError, r"line 9: `\(!= Y_0 0\)` is not understood; mipnet reads <=, >=, <, >"),
    ("(assert (distinct Y_0 0))", UnsupportedError, "is not understood"),
    ("(assert (not (<= Y_0 0) (<= Y_1 0)))", UnsupportedError, "is not understood"),
    ("(assert (=> (<= Y_0 0)))", UnsupportedError, "is not understood"),
    ("(assert (< Y_0))", UnsupportedError, "is not understood"),
    ("(assert ())", UnsupportedError, "is not understood"),
    ("(assert (<= () Y_0))", UnsupportedError, "is not understood"),
    ("(assert ((<= Y_0 0) (<= Y_1 0)))", UnsupportedError, "is not understood"),
    ("(assert (< X_0 0))(assert (<= Y_0 0))", DataError, "contradicts itself"),
    ("(assert (< 1 1))(assert (<= Y_0 0))", DataError, "contradicts itself"),
    ("(assert (and))", UnsupportedError, "is not understood"),
    ("(assert true)", DataError, "asserts no formula"),
    ("(assert (or Y_0 (<= Y_0 0)))", DataError, "`Y_0` stands where a formula is expected"),
    ("(assert (<= Y_0 0) (<= Y_1 0))", DataError, "asserts no formula"),
    ("(assert (<= (* Y_0 Y_1) 0))", UnsupportedError, "multiplies variables"),
    ("(assert (<= (/ Y_0 0) 0))", UnsupportedError, r"`\(/ Y_0 0\)` divides by a variable or by 0"),
    ("(assert (<= (/ 1 Y_0) 0))", UnsupportedError, "divides by a variable or by 0"),
    ("(assert (<= (ite Y_0 1 2) 0))", UnsupportedError, "is not understood"),
    ("(assert (<= (+ X_0 X_1) 1))", UnsupportedError, r"line 7: `.*` is a linear constraint over several inputs"),
    ("(assert (<= Y_0 X_1))", UnsupportedError, "ties inputs to outputs"),
    ("(assert (<= Y_7 0))", DataError, "line 7: `Y_7` is not declared"),
    ("(assert (<= Y_0 zero))", DataError, "`zero` is neither a number"),
    ("(assert (<= Y_0 nan))", DataError, "`nan` is neither a number"),
    ("(assert (<= Y_0 1_0))", DataError, "`1_0` is neither a number"),
    ("(assert (<= Y_0 1e999))", DataError, "`1e999` is too large"),
    ("(assert (<= (* 1e200 1e200 Y_0) 1))", DataError, "numbers that are too large"),
    ("(declare-const Y_0 Real)(assert (<= Y_0 0))", DataError, "`Y_0` is declared twice"),
    ("(declare-const Y_3 Real)(assert (<= Y_0 0))", DataError, "declares 3 outputs and not Y_2"),
    ("(declare-const Z_0 Real)(assert (<= Y_0 0))", DataError, "a variable is called `Z_0`"),
    ("(declare-const Y_02 Real)(assert (<= Y_0 0))", DataError, "a variable is called `Y_02`"),
    ("(declare-const Y_2 Int)(assert (<= Y_0 0))", DataError, "is not understood"),
    ("(declare-fun Y_2 (Real) Real)(assert (<= Y_0 0))", DataError, "is not understood"),
    ("(vnnlib-version <2.0>)", DataError, "seems to be VNN-LIB 2"),
    ("(push 1)", DataError, "is not understood"),
    ("assert", DataError, "`assert` stands outside of brackets"),
    ("", DataError, "asserts nothing about the outputs"),
    ("(assert (<= 1 0))(assert (<= Y_0 0))", DataError, "contradicts itself"),
    ("(assert (<= X_0 -1))(assert (<= Y_0 0))", DataError, "contradicts itself"),
    ("".join("(assert (or (<= Y_0 0) (<= Y_1 0)))" for _ in range(20)), UnsupportedError, "more than 100,000 combinations"),
    ("\x00\x01\x02", DataError, "outside of brackets"),
]


@pytest.mark.parametrize(("text", "kind", "message"), REFUSED)
def test_refused_in_one_line(text: str, kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        parse_vnnlib(GOOD + text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (declare(2, 1) + "(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= X_1 1))(assert (<= Y_0 0))", "X_1 has no lower bound"),
        (declare(1, 1) + "(assert (>= X_0 1))(assert (<= Y_0 0))", "X_0 has no upper bound"),
        (
            declare(1, 1) + "(assert (>= X_0 0))(assert (or (and (<= X_0 1) (<= Y_0 0)) (<= Y_0 -1)))",
            "box 2 of 2: X_0 has no upper bound",
        ),
        (declare(1, 0) + unit(1), "declares 0 outputs and not Y_0"),
        ("", "declares 0 inputs and not X_0"),
    ],
)
def test_what_is_missing_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_vnnlib(text)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*none\.vnnlib"):
        read_vnnlib(tmp_path / "none.vnnlib")
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(gzip.compress(GOOD.encode())[:40])
    with pytest.raises(DataError, match="cannot be read"):
        read_vnnlib(path)
    path.write_text(GOOD + "(assert (<= Y_0 Z))")
    with pytest.raises(DataError, match=r"p\.vnnlib\.gz`, line 7: `Z`"):
        read_vnnlib(path)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the files of VNN-COMP")
@pytest.mark.parametrize("folder", ["acasxu", "mnist_fc"])
def test_files_of_vnncomp_equal_direct_evaluation(folder: str) -> None:
    files = sorted((DATA / folder / "vnnlib").glob("*.vnnlib"))
    assert len(files) == {"acasxu": 10, "mnist_fc": 30}[folder]
    g = np.random.default_rng(0)
    for path in files if folder == "acasxu" else files[:6]:
        text, prop = path.read_text(), read_vnnlib(path)
        ends = np.concatenate([[case.region.lower[0], case.region.upper[0]] for case in prop.cases])
        x = ends[g.integers(0, len(ends), (300, prop.inputs)), np.arange(prop.inputs)]  # corners, also of two boxes mixed
        x[::5] = ends[0]
        x[1::5] = ends[-1]
        x[2::5, 0] += 1e-3 * g.normal(size=60)
        outputs = prop.cases[0].clauses[0].matrix.shape[1]
        y = g.normal(scale=3, size=(300, outputs))
        wanted = Direct(text).holds(x, y)
        assert (prop.holds_at(x, y) == wanted).all()
        assert wanted.any()
        assert not wanted.all()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the files of VNN-COMP")
def test_known_numbers_of_vnncomp() -> None:
    sixth = read_vnnlib(DATA / "acasxu/vnnlib/prop_6.vnnlib")
    assert [len(case.clauses) for case in sixth.cases] == [4, 4]
    assert sixth.cases[0].region.lower[0].tolist() == [-0.129289109, 0.11140846, -0.499999896, -0.5, -0.5]
    assert sixth.cases[1].region.upper[0].tolist() == [0.700434925, -0.11140846, -0.499204121, 0.5, 0.5]
    first = read_vnnlib(DATA / "acasxu/vnnlib/prop_1.vnnlib").cases[0].clauses[0]
    assert first.matrix.tolist() == [[-1, 0, 0, 0, 0]]
    assert first.rhs.tolist() == [-3.991125645861615]
    for path in sorted((DATA / "mnist_fc/vnnlib").glob("*.vnnlib")):
        prop = read_vnnlib(path)
        assert prop.inputs == 784
        assert [len(case.clauses) for case in prop.cases] == [9]
