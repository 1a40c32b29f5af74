"""S-expressions with the line of each one: nested lists of words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

COMMENT = re.compile(r";[^\n]*")
TOKEN = re.compile(r"[()]|[^\s()]+")
DEPTH = 100
"""How deep brackets may be nested."""

Form: TypeAlias = "str | Group"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """What stands between two brackets; ``place`` is the number of the opening one among all tokens."""

    place: int
    parts: list[Form]

    @property
    def head(self) -> str:
        """The first word, or nothing if there is none."""
        return self.parts[0] if self.parts and isinstance(self.parts[0], str) else ""


class Malformed(ValueError):
    """The brackets do not fit; ``place`` is the number of the token where that shows."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def parse(text: str) -> list[Form]:
    """All forms of a text, from a semicolon to the end of its line is comment; raises `Malformed`."""
    top: list[Form] = []
    stack: list[list[Form]] = [top]
    opened: list[int] = []
    for place, token in enumerate(TOKEN.findall(COMMENT.sub("", text))):
        if token == "(":
            group = Group(place, [])
            stack[-1].append(group)
            stack.append(group.parts)
            opened.append(place)
            if len(stack) > DEPTH:
                raise Malformed(f"brackets are nested more than {DEPTH} deep", place)
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
    """The line, counted from 1, of the token with this number."""
    bare = COMMENT.sub("", text)
    for number, found in enumerate(TOKEN.finditer(bare)):
        if number == place:
            return bare.count("\n", 0, found.start()) + 1
    return bare.count("\n") + 1


def shown(form: Form, length: int = 60) -> str:
    """A form as text, cut off where it is long."""
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
