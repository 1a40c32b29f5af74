"""S-expressions: nested lists of words, with the line of each one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

COMMENT_PATTERN = re.compile(r";[^\n]*")
TOKEN_PATTERN = re.compile(r"[()]|[^\s()]+")
NESTING_MAX = 100
"""Largest depth of nested brackets."""

Form: TypeAlias = "str | Group"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The forms between two brackets; ``place`` is the index of the opening bracket among all tokens."""

    place: int
    parts: list[Form]

    @property
    def head(self) -> str:
        """The first word, or the empty string if there is none."""
        return self.parts[0] if self.parts and isinstance(self.parts[0], str) else ""


class Malformed(ValueError):
    """The brackets do not match; ``place`` is the index of the token where that shows."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def parse(text: str) -> list[Form]:
    """Return all forms of a text, in which a semicolon starts a comment up to the end of the line; raises `Malformed`."""
    top: list[Form] = []
    stack: list[list[Form]] = [top]
    opened: list[int] = []
    for place, token in enumerate(TOKEN_PATTERN.findall(COMMENT_PATTERN.sub("", text))):
        if token == "(":
            group = Group(place, [])
            stack[-1].append(group)
            stack.append(group.parts)
            opened.append(place)
            if len(stack) > NESTING_MAX:
                raise Malformed(f"brackets are nested more than {NESTING_MAX} deep", place)
        elif token == ")":
            if not opened:
                raise Malformed("a bracket is closed that was never opened", place)
            stack.pop()
            opened.pop()
        else:
            stack[-1].append(token)
    if opened:
        raise Malformed("a bracket is never closed; is the file cut off?", opened[0])
    return top


def line_of(text: str, place: int) -> int:
    """Return the line, counted from 1, of the token with this index."""
    bare = COMMENT_PATTERN.sub("", text)
    for number, found in enumerate(TOKEN_PATTERN.finditer(bare)):
        if number == place:
            return bare.count("\n", 0, found.start()) + 1
    return bare.count("\n") + 1


def shown(form: Form, length: int = 60) -> str:
    """Return a form as text of at most ``length`` characters."""
    text = _text(form, length)
    return text if len(text) <= length else text[: length - 3] + "..."


def _text(form: Form, length: int) -> str:
    if isinstance(form, str):
        return form
    parts: list[str] = []
    for part in form.parts:
        parts.append(_text(part, length))
        if sum(map(len, parts)) > length:
            break
    return f"({' '.join(parts)})"
