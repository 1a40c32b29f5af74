"""A YAML file as plain data, with the line of every key, and with the values that the command line sets."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mipnet.app.files.yaml_document import Keys, line_of, parse, plain_value
from mipnet.errors import SpecError, shown

YAML_BYTES_MAX = 4 * 2**20
"""A larger file is refused."""

PLACE_DIGITS_MAX = 9
"""A number of more digits in the key of ``--set`` is no place in a list."""


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
    places = tuple(int(key) if key.isdecimal() and len(key) < PLACE_DIGITS_MAX else key for key in keys)
    return Override(places, _option_value(f"--set {text}", value), f"--set {text}")


def parse_path(text: str) -> Override:
    """Return the override of ``--path lambda=0.5:20`` or ``--path lambda=0.5:20:12``."""
    name, equals, value = text.partition("=")
    given = value.split(":")
    if not (equals and name.strip()) or not 2 <= len(given) <= 3:
        raise SpecError(f"--path {text}: expected NAME=FIRST:LAST or NAME=FIRST:LAST:POINTS, such as lambda=0.5:20")
    first, last, *points = (_option_value(f"--path {text}", part) for part in given)
    return Override(("solve", "path"), {name.strip(): [first, last]} | ({"points": points[0]} if points else {}), f"--path {text}")


def _option_value(words: str, text: str) -> Any:
    """Return the value of an option, which is YAML."""
    try:
        root = parse(words, text)
        return None if root is None else plain_value(words, root)
    except SpecError as error:
        said = str(error).replace(f"{words}, line 1: not YAML", f"{words}: the value is not YAML", 1)
        raise SpecError(said.replace(f"{words}, line 1", words, 1)) from None


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
        return ", ".join([f"{self.name}, line {line_of(self.root, keys)}", *inside])


def read_source(path: str | Path, overrides: Sequence[Override] = ()) -> Source:
    """Read a YAML file whose top level is a mapping; raises `SpecError` in one line for anything else."""
    name = str(path)
    root = parse(name, _read(Path(path)))
    if root is None:
        raise SpecError(f"{name} is empty; expected a mapping that begins with `mipnet: 1`")
    data = plain_value(name, root)
    if not isinstance(data, dict):
        raise SpecError(f"{name}, line {root.start_mark.line + 1}: got {shown(data)}; expected a mapping that begins with `mipnet: 1`")
    for override in overrides:
        _apply(data, override)
    return Source(name, Path(path).absolute().parent, data, root, tuple(overrides))


def _read(path: Path) -> bytes:
    try:
        if Path(os.path.realpath(path)).is_fifo():  # not the pipes of `<(...)`, which have no path
            raise SpecError(f"`{path}` is a named pipe, and mipnet would wait for it; expected a YAML file")
        with path.open("rb") as stream:
            content = stream.read(YAML_BYTES_MAX + 1)
    except FileNotFoundError:
        raise SpecError(f"no file `{path}`; expected a YAML file (`mipnet init` writes one)") from None
    except SpecError:
        raise
    except (OSError, ValueError) as error:  # ValueError: the path holds the character U+0000
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"`{path}` cannot be read ({reason.lower()}); expected a YAML file") from None
    if len(content) > YAML_BYTES_MAX:
        raise SpecError(f"`{path}` is larger than {YAML_BYTES_MAX // 2**20} MiB; expected a YAML file")
    return content


def _apply(data: dict[str, Any], override: Override) -> None:
    """Set the value of an override in the data, and create the mappings above it that are missing."""
    target: Any = data
    for depth, key in enumerate(override.keys):
        last = depth == len(override.keys) - 1
        if isinstance(target, list):
            if not isinstance(key, int) or key >= len(target):
                above = ".".join(map(str, override.keys[:depth]))
                places = f"a place from 0 to {len(target) - 1}" if target else "a list with this place"
                raise SpecError(f"{override.words}: `{above}` is a list of {len(target)}; expected {places}")
        elif isinstance(target, dict):
            key = str(key)
            if not last and target.get(key) is None:
                target[key] = {}
        else:
            above = ".".join(map(str, override.keys[:depth]))
            raise SpecError(f"{override.words}: `{above}` is {shown(target)}, which has no keys")
        if last:
            target[key] = copy.deepcopy(override.value)
        else:
            target = target[key]
