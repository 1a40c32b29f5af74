"""A YAML file as plain data, with the line of every key, and with the values that the command line sets.

Nothing in a file is executed: PyYAML's safe loader reads it.  Values such as ``1e-4`` are numbers, as in YAML 1.2.
"""

from __future__ import annotations

import copy
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mipnet.errors import SpecError

Keys = tuple[str | int, ...]

YAML_BYTES_MAX = 4 * 2**20
"""A larger file is refused."""


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


@dataclass(frozen=True)
class Override:
    """A value from the command line: the keys that it is set for, and the words of the command line, for error messages."""

    keys: Keys
    value: Any
    words: str


def parse_set(text: str) -> Override:
    """Return the override of ``--set key.sub=value``; the value is read as YAML, and a number among the keys is an index into a list."""
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise SpecError(f"--set {text}: expected key=value, such as solve.time_limit=10")
    try:
        parsed = yaml.load(value, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"--set {text}: the value is not YAML ({_problem(error)})") from None
    return Override(tuple(int(key) if key.isdecimal() else key for key in keys), parsed, f"--set {text}")


def parse_path(text: str) -> Override:
    """Return the override of ``--path lambda=0.5:20`` or ``--path lambda=0.5:20:12``."""
    name, equals, value = text.partition("=")
    try:
        first, last, *points = (yaml.load(part, _Loader) for part in value.split(":"))
    except (yaml.YAMLError, ValueError, RecursionError):
        equals = ""
    if not (equals and name.strip()) or len(points) > 1:
        raise SpecError(f"--path {text}: expected NAME=FIRST:LAST or NAME=FIRST:LAST:POINTS, such as lambda=0.5:20")
    return Override(("solve", "path"), {name.strip(): [first, last]} | ({"points": points[0]} if points else {}), f"--path {text}")


@dataclass(frozen=True, eq=False)
class Source:
    """The ``data`` of a YAML file with all overrides applied, and what is needed to say where a key stands in the file.

    Relative paths in the file are relative to ``folder``.
    """

    name: str
    folder: Path
    data: dict[str, Any]
    root: yaml.Node
    overrides: tuple[Override, ...] = ()

    def at(self, keys: Keys) -> str:
        """Return the place of a key: ``model.yaml, line 12``, and the words of the command line if they set the key or a part of it."""
        for override in reversed(self.overrides):
            if keys[: len(override.keys)] == override.keys:
                return override.words
        inside = [override.words for override in self.overrides if override.keys[: len(keys)] == keys]
        return ", ".join([f"{self.name}, line {_line(self.root, keys)}", *inside])


def read_source(path: str | Path, overrides: Sequence[Override] = ()) -> Source:
    """Read a YAML file whose top level is a mapping; raises `SpecError` in one line for anything else."""
    name = str(path)
    root = _compose(name, _read(Path(path)))
    _refuse_duplicates(name, root)
    data = _construct(name, root)
    if not isinstance(data, dict):
        raise SpecError(f"{name}, line {root.start_mark.line + 1}: got {shown(data)}; expected a mapping that begins with `mipnet: 1`")
    data = copy.deepcopy(data)
    for override in overrides:
        _apply(data, override)
    return Source(name, Path(path).absolute().parent, data, root, tuple(overrides))


def shown(value: Any) -> str:
    """Return a value as error messages show it: short, on one line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    text = "nothing" if value is None else short.repr(value)
    if len(text) <= 80:
        return text
    return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}" if isinstance(value, list | tuple) else f"{text[:77]}..."


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(YAML_BYTES_MAX + 1)
    except FileNotFoundError:
        raise SpecError(f"no file `{path}`; expected a YAML file (`mipnet init` writes one)") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"`{path}` cannot be read ({reason.lower()}); expected a YAML file") from None
    if len(content) > YAML_BYTES_MAX:
        raise SpecError(f"`{path}` is larger than {YAML_BYTES_MAX // 2**20} MiB; expected a YAML file")
    return content


def _compose(name: str, content: bytes) -> yaml.Node:
    try:
        root: yaml.Node | None = yaml.compose(content, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{name}{_mark(error)}: not YAML ({_problem(error)})") from None
    if root is None:
        raise SpecError(f"{name} is empty; expected a mapping that begins with `mipnet: 1`")
    return root


def _construct(name: str, root: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise SpecError(f"{name}{_mark(error)}: {_problem(error)}; expected plain mappings, lists, strings and numbers") from None
    finally:
        loader.dispose()


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    text = " ".join(str(part) for part in parts if part) or str(error)
    return " ".join(str(text).split())[:160]


def _mark(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def _refuse_duplicates(name: str, root: yaml.Node) -> None:
    """Raise `SpecError` if a mapping has a key twice; PyYAML itself would silently keep the last value."""
    waiting, seen = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        children = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(name, [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            children = [value for _, value in node.value]
        waiting += [child for child in children if id(child) not in seen]
        seen |= {id(child) for child in children}


def _refuse_twice(name: str, keys: Sequence[yaml.ScalarNode]) -> None:
    lines: dict[str, int] = {}
    for key in keys:
        line = key.start_mark.line + 1
        if key.value in lines:
            raise SpecError(f"{name}, line {line}: `{key.value}` is given twice (first in line {lines[key.value]}); keep one")
        lines[key.value] = line


def _line(root: yaml.Node, keys: Keys) -> int:
    """Return the line of a key, or of the last key above it that the file has."""
    node, line = root, root.start_mark.line + 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [(k.start_mark.line, v) for k, v in node.value if isinstance(k, yaml.ScalarNode) and k.value == str(key)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = [(node.value[key].start_mark.line, node.value[key])]
        else:
            break
        if not found:
            break
        line, node = found[-1][0] + 1, found[-1][1]
    return line


def _apply(data: dict[str, Any], override: Override) -> None:
    """Set the value of an override in the data, and create the mappings above it that are missing."""
    target: Any = data
    for depth, key in enumerate(override.keys):
        last = depth == len(override.keys) - 1
        if isinstance(target, list):
            if not isinstance(key, int) or key >= len(target):
                above = ".".join(map(str, override.keys[:depth]))
                raise SpecError(f"{override.words}: `{above}` is a list of {len(target)}; expected a place from 0 to {len(target) - 1}")
        elif isinstance(target, dict):
            key = str(key)
            if not last and target.get(key) is None:
                target[key] = {}
        else:
            above = ".".join(map(str, override.keys[:depth]))
            raise SpecError(f"{override.words}: `{above}` is {shown(target)}, which has no keys")
        if last:
            target[key] = override.value
        else:
            target = target[key]
