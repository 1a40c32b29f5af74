"""YAML text as plain data: mappings, lists, strings, numbers, true, false and null, as in YAML 1.2.

Nothing in a text is executed.  PyYAML parses it; the values are made here, so that ``no`` and ``1:30`` are strings, ``1e-4`` is a number,
and whatever people read in two ways, such as ``012`` or ``{mip_gap: 1,5}``, is refused with its line.  Aliases and merge keys are copied,
up to a limit, so that no part of the data is shared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from mipnet.errors import SpecError

Keys = tuple[str | int, ...]

REPEATED_VALUES_MAX = 100_000
"""The aliases and merge keys of a text may repeat this number of values."""

WHOLE_NUMBER_MAX = 2**63 - 1

_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, dict[str, bool | None]] = {"bool": {"true": True, "false": False}, "null": {"": None, "~": None, "null": None}}
_PLAIN = "expected plain mappings, lists, strings and numbers"
_DECIMAL_PARTS = (re.compile(r"[-+]?\d+"), re.compile(r"\d+([eE][-+]?\d+)?%?"))
_LOOKALIKES = {"\u00a0": "a no-break space", "\u200b": "a zero-width space", "\u202f": "a narrow no-break space", "\u3000": "a wide space"}
_QUOTES = "\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"


class _Parser(yaml.SafeLoader):
    """PyYAML's parser with the words and numbers of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - declared so by PyYAML


for _name, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    ("int", r"[-+]?(\d+|[1-9]\d{0,2}(_\d{3})+|0o[0-7]+|0x[\da-fA-F]+)\Z", list("-+0123456789")),
    ("float", r"[-+]?(\.\d+|\d+(\.\d*)?|[1-9]\d{0,2}(_\d{3})+\.\d*)([eE][-+]?\d+)?\Z", list("-+.0123456789")),
    ("float", r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z", list("-+.")),
    ("merge", r"<<\Z", ["<"]),
):
    _Parser.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


PARSER_HINTS = (
    (r"character '\\t'", "a tab stands where YAML takes spaces only", "problem"),
    (r"could not find expected ':'", "expected `key: value`; is the space after the colon missing?", "context"),
    (r"mapping values are not allowed", "a colon stands where none may; put a value that contains `: ` in quotes", "problem"),
    (r"expected <block end>", "the indentation fits no line above", "problem"),
    (r"flow node.*'<stream end>'", "a bracket is opened above and never closed", "problem"),
    (r"'<stream end>'", "a bracket is opened here and never closed", "context"),
    (r"expected ',' or '[]}]'", "expected a comma or a closing bracket", "problem"),
    (r"found unexpected end of stream", "a quote is opened here and never closed", "context"),
    (r"character '.' that cannot start any token", "put a value that begins with this character in quotes", "problem"),
    (r"found another document", "expected a single document, and here a second one begins", "problem"),
)
"""For messages of the parser: plain words, and which of its two places they are about."""


def parse(name: str, content: str | bytes) -> yaml.Node | None:
    """Return the parsed YAML text, None if it is empty; raises `SpecError` in one line that begins with ``name``."""
    text = content if isinstance(content, str) else _decoded(name, content)
    try:
        root: yaml.Node | None = yaml.compose(text, _Parser)
    except RecursionError:
        raise SpecError(f"{name}: it is nested too deeply; {_PLAIN}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{name}{_parser_words(text, error)}") from None
    if root is not None:
        _check_repetition(name, root)
    return root


def plain_value(name: str, root: yaml.Node) -> Any:
    """Return the data of a parsed text; raises `SpecError` in one line that begins with ``name``."""
    return _Values(name).of(root)


class _Writer(yaml.SafeDumper):
    """PyYAML's writer, with quotes around every string that `parse` would not read as that string."""


def _represent_text(writer: _Writer, text: str) -> yaml.Node:
    try:
        root = parse("", f"- {text}\n")
        as_it_is = root is not None and plain_value("", root) == [text]
    except SpecError:
        as_it_is = False
    return writer.represent_scalar(f"{_TAG}str", text, style=None if as_it_is else '"')


_Writer.add_representer(str, _represent_text)


def written(data: Any) -> str:
    """Return plain data as YAML text that `parse` reads back."""
    return str(yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True))


def line_of(root: yaml.Node, keys: Keys) -> int:
    """Return the line of a key, or of the last key above it that the text has."""
    node, line = root, root.start_mark.line + 1
    for key in keys:
        if isinstance(node, yaml.MappingNode) and str(key) in (found := _entries(node)):
            key_node, node = found[str(key)]
            line = key_node.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _decoded(name: str, content: bytes) -> str:
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = next((found for mark, found in marks.items() if content.startswith(mark)), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        if b"\0" in content[:1000]:
            raise SpecError(f"`{name}` is no text; expected a YAML file, which names the network and the data") from None
        raise SpecError(f"{name}, line {line}: not YAML (byte {byte:#04x} is not UTF-8); expected text, saved as UTF-8") from None


def _parser_words(text: str, error: Exception) -> str:
    """Return the line of an error of the parser, and what is wrong in plain words."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return f", line {line}: not YAML (it holds the character U+{ord(text[error.position]):04X}); expected text, saved as UTF-8"
    said = " ".join(str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part) or str(error)
    words, about = next(((words, about) for pattern, words, about in PARSER_HINTS if re.search(pattern, said)), (said, "problem"))
    mark = getattr(error, f"{about}_mark", None) or getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f", line {mark.line + 1}" if mark is not None else ""
    return f"{place}: not YAML ({' '.join(words.split())[:160]})"


def _check_repetition(name: str, root: yaml.Node) -> None:
    """Raise `SpecError` if the text contains itself, or if its aliases and merge keys repeat too many values."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        found = sizes.get(id(node))
        if found is None:
            sizes[id(node)] = 0
            sizes[id(node)] = found = 1 + sum(map(size, _children(node)))
        elif not found:
            raise SpecError(f"{name}, line {node.start_mark.line + 1}: it contains itself; {_PLAIN}")
        return found

    try:
        repeated = size(root) - len(sizes)
    except RecursionError:
        raise SpecError(f"{name}: it is nested too deeply; {_PLAIN}") from None
    if repeated > REPEATED_VALUES_MAX:
        line = max(_children(root), key=size, default=root).start_mark.line + 1
        raise SpecError(f"{name}, line {line}: references (`*name`, `<<`) repeat more than {REPEATED_VALUES_MAX:,} values; write fewer")


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    for child in node.value if not isinstance(node, yaml.ScalarNode) else ():
        yield from child if isinstance(child, tuple) else (child,)


def _entries(node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Return key and value of each entry of a mapping, those of its merge keys included, by the text of the key."""
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if key.tag == f"{_TAG}merge":
            for part in value.value if isinstance(value, yaml.SequenceNode) else (value,):
                merged = _entries(part) | merged if isinstance(part, yaml.MappingNode) else merged
        else:
            own[key.value if isinstance(key, yaml.ScalarNode) else ""] = (key, value)
    return merged | own


@dataclass(frozen=True)
class _Values:
    """The values of the nodes of a text called ``name``, which stand below ``keys``."""

    name: str
    keys: list[str] = field(default_factory=list)

    def of(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            return [self._below(str(place), child) for place, child in enumerate(node.value)]
        self._check_tag(node, "map")
        mapping = cast(yaml.MappingNode, node)
        self._check_keys(mapping)
        return {key: self._below(key, value) for key, (_, value) in _entries(mapping).items()}

    def _below(self, key: str, node: yaml.Node) -> Any:
        self.keys.append(key)
        value = self.of(node)
        self.keys.pop()
        return value

    def _fail(self, node: yaml.Node, words: str, *more: str) -> SpecError:
        keys = ".".join([*self.keys, *more])
        return SpecError(f"{self.name}, line {node.start_mark.line + 1}: {keys + ': ' if keys else ''}{words}")

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != _TAG + kind:
            tag = node.tag.replace(_TAG, "!!")
            raise self._fail(node, f"the tag `{tag[:60]}` is not known; {_PLAIN}, without tags")

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """Raise `SpecError` for a key that is no word, has no value, or is given twice."""
        lines: dict[str, int] = {}
        for place, (key, value) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode):
                self._check_characters(key)
            else:
                raise self._fail(key, f"a key is a {'list' if isinstance(key, yaml.SequenceNode) else 'mapping'}; expected a word")
            if key.tag == f"{_TAG}merge":
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                if not all(isinstance(part, yaml.MappingNode) for part in parts):
                    raise self._fail(key, "`<<` merges mappings; expected a mapping, or a list of mappings")
            if node.flow_style and _has_no_colon(key, value):
                raise self._without_colon(node.value[place - 1] if place else None, key)
            if key.value in lines:
                raise self._fail(key, f"`{key.value}` is given twice (first in line {lines[key.value]}); keep one")
            lines[key.value] = key.start_mark.line + 1

    def _without_colon(self, before: tuple[yaml.Node, yaml.Node] | None, key: yaml.ScalarNode) -> SpecError:
        """Return the error for a key in {...} without a colon, such as 5 in ``{mip_gap: 1,5}``."""
        whole, part = _DECIMAL_PARTS
        if before is not None and isinstance(before[1], yaml.ScalarNode) and whole.fullmatch(before[1].value) and part.fullmatch(key.value):
            given = f"{before[1].value},{key.value}"
            meant = "a decimal has a point (1.5), and thousands have no separator (1000)"
            return self._fail(key, f"got `{given}`, which is two values; expected one number: {meant}", str(before[0].value))
        return self._fail(key, f"`{key.value[:60]}` has no value; expected `key: value`, with a space after the colon")

    def _check_characters(self, node: yaml.ScalarNode) -> None:
        """Raise `SpecError` for characters outside of quotes that look like spaces or quotes of YAML and are none."""
        if node.style is None:
            for character, words in _LOOKALIKES.items():
                if character in node.value:
                    raise self._fail(node, f"{words} (U+{ord(character):04X}) stands in `{node.value[:60]}`; type an ordinary space")
            if node.value[:1] in _QUOTES and node.value:
                raise self._fail(node, f"got {node.value[:60]}, in typographic quotes; expected ' or \"")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        if tag == "int":
            return self._whole(node, text.replace("_", ""))
        if tag == "float":
            return self._real(node, text.replace("_", ""))
        if tag in _WORDS and text.lower() in _WORDS[tag]:
            return _WORDS[tag][text.lower()]
        if tag != "merge":
            self._check_tag(node, "str")
        self._check_characters(node)
        return text

    def _whole(self, node: yaml.ScalarNode, text: str) -> int:
        if re.fullmatch(r"[-+]?0\d+", text):
            meant = text.lstrip("-+0") or "0"
            raise self._fail(node, f"got {text[:24]}, whose leading zero may mean octal; write {meant[:24]}, or '{text[:24]}' as a string")
        try:
            value = 2 * WHOLE_NUMBER_MAX if len(text) > 24 else int(text, 8 if text.lstrip("-+").startswith("0o") else 0)
        except ValueError:
            raise self._fail(node, f"got `{text[:60]}`, which is no whole number; take the tag away") from None
        if abs(value) > WHOLE_NUMBER_MAX:
            shown = text if len(text) <= 24 else f"{text[:20]}... ({len(text)} characters)"
            raise self._fail(node, f"got {shown}; expected a whole number of at most {WHOLE_NUMBER_MAX}, or one such as 1e21")
        return value

    def _real(self, node: yaml.ScalarNode, text: str) -> float:
        if text.lstrip("-+").lower() in (".inf", ".nan"):
            return float(text.replace(".", "", 1))
        try:
            value = float(text)
        except ValueError:
            raise self._fail(node, f"got `{text[:60]}`, which is no number; take the tag away") from None
        if math.isinf(value):
            raise self._fail(node, f"got {text[:40]}; expected a number below 1.8e308")
        return value


def _has_no_colon(key: yaml.ScalarNode, value: yaml.Node) -> bool:
    """True if an entry in {...} is a key alone: its empty value begins where the key ends, and no colon stands there."""
    if not isinstance(value, yaml.ScalarNode) or value.value or value.style is not None:
        return False
    text, at = key.end_mark.buffer, key.end_mark.pointer
    return text is None or not text[at:].lstrip().startswith(":")
