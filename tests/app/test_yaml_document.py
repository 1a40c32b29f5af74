"""YAML text as plain data: the values of YAML 1.2, and a refusal of what people read in two ways."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipnet.app.files.yaml_document import line_of, parse, plain_value, written
from mipnet.errors import SpecError


def value(text: str | bytes) -> Any:
    root = parse("f", text)
    return None if root is None else plain_value("f", root)


def test_words_and_numbers_are_those_of_yaml_1_2() -> None:
    text = """
strings: [no, Yes, on, OFF, 1:30, 20:30:50, 2020-01-01, 0b11, 1_0, 1__000, nan, inf, .5.5, 1e, '5', "1e3", <<]
numbers: [5, -5, +5, 0x1F, 0o17, 1_000, 1_000_000.5, 1e3, 1E-3, 2.e1, .5, -.5, 0, 0.0]
words: [true, False, TRUE, null, ~, Null, ]
"""
    found = value(text)
    plain = "no Yes on OFF 1:30 20:30:50 2020-01-01 0b11 1_0 1__000 nan inf .5.5 1e"
    assert found["strings"] == [*plain.split(), "5", "1e3", "<<"]
    assert found["numbers"] == [5, -5, 5, 31, 15, 1000, 1000000.5, 1000.0, 0.001, 20.0, 0.5, -0.5, 0, 0.0]
    assert [type(number) for number in found["numbers"]] == [int] * 6 + [float] * 6 + [int, float]
    assert found["words"] == [True, False, True, None, None, None]
    assert value("a: [.inf, -.INF]")["a"] == [math.inf, -math.inf]
    assert math.isnan(value("a: .nan")["a"])


def test_keys_are_words() -> None:
    assert value("{5: a, no: b, true: c, 1.5: d}") == {"5": "a", "no": "b", "true": "c", "1.5": "d"}


def test_merge_keys_give_the_first_of_several_and_the_own_value_wins() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\n"
    root = parse("f", text)
    assert root is not None
    assert plain_value("f", root)["c"] == {"x": 3, "y": 1, "z": 2}
    assert [line_of(root, ("c", key)) for key in "xyz"] == [5, 1, 2]


def test_an_alias_is_a_copy() -> None:
    found = value("a: &a {x: [1]}\nb: *a\n")
    found["a"]["x"].append(2)
    assert found["b"] == {"x": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {b: 1,5}", "f, line 1: a.b: got `1,5`, which is two values; expected one number: a decimal has a point (1.5)"),
        ("a: {b: -0,05, c: 2}", "a.b: got `-0,05`, which is two values"),
        ("a:\n  - {b: 1,\n     5}", "f, line 3: a.0.b: got `1,5`"),
        ("{a:b}", "f, line 1: `a:b` has no value; expected `key: value`, with a space after the colon"),
        ("a: 012", "f, line 1: a: got 012, whose leading zero may mean octal; write 12, or '012' as a string"),
        ("a: [1, 08]", "a.1: got 08, whose leading zero may mean octal; write 8"),
        ("a: 00", "write 0, or"),
        (f"a: {'9' * 400}", "a: got 99999999999999999999... (400 characters); expected a whole number of at most 9223372036854775807"),
        (f"a: 0x{'f' * 9000}", "(9002 characters); expected a whole number of at most 9223372036854775807"),
        (f"a: {2**63}", "a: got 9223372036854775808; expected a whole number of at most 9223372036854775807"),
        ("a: 1e400", "a: got 1e400; expected a number below 1.8e308"),
        ("a: !!bool abc", "a: the tag `!!bool` is not known; expected plain mappings, lists, strings and numbers, without tags"),
        ("a: !!int abc", "a: got `abc`, which is no whole number; take the tag away"),
        ("a: !!float abc", "a: got `abc`, which is no number; take the tag away"),
        ("a: !!binary aGk=", "the tag `!!binary` is not known"),
        ("a: !!set {b}", "the tag `!!set` is not known"),
        ("[1]: 2", "a key is a list; expected a word"),
        ("a: {b: 1, b: 2}", "a: `b` is given twice (first in line 1); keep one"),
        ("a: {<<: 5}", "a: `<<` merges mappings; expected a mapping, or a list of mappings"),
        ("a: &a [*a]", "f, line 1: it contains itself"),
        ("a: &a {<<: *a}", "f, line 1: it contains itself"),
        ("a: b\u00a0c", "a: a no-break space (U+00A0) stands in"),
        ("a: \u201cb\u201d", "in typographic quotes; expected ' or \""),
        ("a:\n\tb: 1", "f, line 2: not YAML (a tab stands where YAML takes spaces only)"),
        ("a: 1\nb:2\n", "f, line 2: not YAML (expected `key: value`; is the space after the colon missing?)"),
        ("a: b: c", "f, line 1: not YAML (a colon stands where none may"),
        ("a: 1\n b: 2", "f, line 2: not YAML"),
        ("a: [1\n\n", "f, line 1: not YAML (a bracket is opened here and never closed)"),
        ("a: [1,\n", "f, line 2: not YAML (a bracket is opened above and never closed)"),
        ("a: 'b\n", "f, line 1: not YAML (a quote is opened here and never closed)"),
        ("a: @b", "f, line 1: not YAML (put a value that begins with this character in quotes)"),
        ("a: 1\n---\nb: 1", "f, line 2: not YAML (expected a single document"),
        ("a: 1\n# \x07", "f, line 2: not YAML (it holds the character U+0007)"),
        (b"a: 1\nb: \xfc\n", "f, line 2: not YAML (byte 0xfc is not UTF-8); expected text, saved as UTF-8"),
        ("a: 1".encode("utf-16-be"), "f, line 1: not YAML (it holds the character U+0000)"),
        ("[" * 20_000, "f: it is nested too deeply"),
        ("a: " + "[" * 300 + "]" * 300, None),
    ],
)
def test_what_is_refused(text: str | bytes, message: str | None) -> None:
    if message is None:
        assert value(text)
        return
    with pytest.raises(SpecError) as caught:
        value(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_their_mark(encoding: str) -> None:
    assert value("a: Z\u00fcrich".encode(encoding)) == {"a": "Z\u00fcrich"}


HARD = [
    "no",
    "08",
    "012",
    "1e3",
    "1_000",
    "~",
    "",
    " a",
    "a: b",
    "- a",
    "#a",
    "a #b",
    "\u201ca\u201d",
    "a\u00a0b",
    "<<",
    "=",
    "@a",
    "1:30",
    "a\nb",
    "\t",
]


@pytest.mark.parametrize("text", HARD)
def test_a_string_is_written_so_that_it_is_read_back(text: str) -> None:
    assert value(written({"a": text, "b": [text]})) == {"a": text, "b": [text]}


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**40), 2**40)
        | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
        | st.sampled_from(HARD),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), inner, max_size=3),
        max_leaves=6,
    )
)
def test_what_is_written_is_read_back(data: Any) -> None:
    assert value(written(data)) == data
