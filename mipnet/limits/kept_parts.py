"""Finished parts of long computations, kept on disk, so that one that was killed or interrupted goes on from them.

A function that can be resumed opens its `KeptParts` with what they depend on, reads the parts that are there, and keeps each part as soon
as it is finished.  Without a `PartsStore` around it, nothing is kept.

``<store>/<function>-<digest>/`` belongs to one question: ``question.json`` describes it, and the digest is the SHA-256 of that description.
A part is a file of numbers, and a file of arrays if it has any.  The file of numbers is written last, under another name, and then renamed;
it contains the digest of the arrays and of itself.  So a part on disk is complete, or it is computed again.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import quote

import numpy as np
import xarray as xr

from mipnet.errors import InputError, suggest_keywords
from mipnet.limits.digests import bytes_digest, digest, json_digest
from mipnet.limits.disk import whole_file, write_whole
from mipnet.limits.output_lock import only_writer
from mipnet.limits.result_warnings import add_warning, collected_warnings
from mipnet.version import __version__

QUESTION_FILE = "question.json"

Part = TypeVar("Part")

Label = int | float | str
"""The label of a part; `json` writes it and reads it back."""

ERRORS_OF_DAMAGED_PARTS = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading a damaged part raises."""


class PackedPart(NamedTuple):
    """What is written of a part: ``record``, which is JSON data with NumPy numbers and infinite ones allowed, and its arrays."""

    record: Mapping[str, Any]
    arrays: xr.Dataset | None = None


@dataclass(frozen=True)
class KeptParts:
    """The finished parts of one question, in the folder ``own``; if it is None, nothing is read or kept."""

    own: Path | None
    question: Mapping[str, Any] = field(default_factory=dict)

    def read(self, label: Label, understand: Callable[[Mapping[str, Any], xr.Dataset | None], Part]) -> Part | None:
        """Return a finished part, as ``understand`` makes it of its numbers and arrays; None if there is none.

        A part that is damaged, or that ``understand`` refuses, gives a warning and counts as none.
        """
        if self.own is None or not (numbers := self._numbers(label)).exists():
            return None
        try:
            return understand(*self._content(label, numbers))
        except ERRORS_OF_DAMAGED_PARTS as error:
            reason = " ".join(str(error).split())[:120]
            text = f"`{numbers}` or its arrays are damaged ({reason}); this part is computed again"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
            return None

    def once(
        self,
        label: Label,
        compute: Callable[[], Part],
        pack: Callable[[Part], PackedPart | None],
        understand: Callable[[Mapping[str, Any], xr.Dataset | None], Part],
    ) -> Part:
        """Return a part that is there, with the warnings of its result, or compute it and keep it unless ``pack`` returns None."""
        found = self.read(label, lambda record, arrays: _ReadPart(understand(record, arrays), tuple(record["warnings"])))
        if found is not None:
            for text in found.warnings:
                add_warning(text)
            part: Part = found.part
            return part
        with collected_warnings() as added:
            part = compute()
        packed = pack(part)
        if packed is not None:
            self.keep(label, {**packed.record, "warnings": added}, packed.arrays)
        return part

    def keep(self, label: Label, record: Mapping[str, Any], arrays: xr.Dataset | None = None) -> None:
        """Write a part to disk, in place of an earlier one of this label; the arguments are those of `PackedPart`."""
        if self.own is None:
            return
        self.own.mkdir(parents=True, exist_ok=True)
        if not (self.own / QUESTION_FILE).exists():
            write_whole(self.own / QUESTION_FILE, json.dumps(self.question, indent=2) + "\n")
        numbers, before, file = self._numbers(label), None, None
        if arrays is not None:
            before, file = self._arrays(label)
            with whole_file(self.own / file, arrays.nbytes) as fresh:
                arrays.to_netcdf(fresh, engine="netcdf4")
        whole = {"key": label, **record, "arrays": file}
        whole |= {"arrays_digest": None if file is None else bytes_digest((self.own / file).read_bytes())}
        whole = json.loads(json.dumps(whole, default=_plain))
        write_whole(numbers, json.dumps(whole | {"digest": self._digest(whole)}, indent=2) + "\n")
        if before is not None:
            (self.own / before).unlink(missing_ok=True)

    def _numbers(self, label: Label) -> Path:
        assert self.own is not None
        return self.own / f"{_file_name(label)}.json"

    def _arrays(self, label: Label) -> tuple[str, str]:
        """Return the names of the file of arrays of the part that is there, if there is one, and of the one to be written."""
        name = _file_name(label)
        names = f"{name}+.nc", f"{name}.nc"  # no label has a name with a plus sign
        assert self.own is not None
        return names if (self.own / names[0]).exists() or not (self.own / names[1]).exists() else (names[1], names[0])

    def _content(self, label: Label, numbers: Path) -> tuple[Mapping[str, Any], xr.Dataset | None]:
        record = json.loads(numbers.read_bytes())
        said = record.pop("digest")
        if record["key"] != label:
            raise ValueError(f"it is part {record['key']}")
        if said != self._digest(record):
            raise ValueError("its SHA-256 is not the one that was written with it")
        if record["arrays"] is None:
            return record, None
        arrays = numbers.with_name(record["arrays"])
        if bytes_digest(arrays.read_bytes()) != record["arrays_digest"]:
            raise ValueError(f"the SHA-256 of `{arrays.name}` is not the one that was written with its numbers")
        with xr.open_dataset(arrays, engine="netcdf4") as written:
            return record, written.load()

    def _digest(self, record: Mapping[str, Any]) -> str:
        """Return the digest of the numbers of a part of this question."""
        return json_digest([json_digest(self.question), record])


class _ReadPart(NamedTuple):
    part: Any
    warnings: tuple[str, ...]


NOTHING_KEPT = KeptParts(None)


def _plain(value: Any) -> Any:
    """Return a NumPy number or array as JSON takes it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a record of a part holds a {type(value).__name__}")


def _file_name(label: Label) -> str:
    return f"part-{quote(str(label), safe='')}"


def _refuse(text: str) -> NoReturn:
    raise InputError(text)


@dataclass(frozen=True)
class PartsStore:
    """A folder of kept parts.  ``about`` is what all its questions depend on beside the arguments of the functions.

    If it is ``exclusive``, it is that of one run, and ``refuse`` is called with what is wrong if it holds anything else.
    """

    folder: Path
    about: Mapping[str, Any] = field(default_factory=lambda: {"mipnet": __version__})
    exclusive: bool = False
    refuse: Callable[[str], NoReturn] = _refuse

    def open(self, function: str, depends_on: Mapping[str, Any]) -> KeptParts:
        """Return the parts of a function for plain JSON data on which they depend."""
        question = {**self.about, **depends_on, "function": function}
        own = self.folder / f"{function}-{json_digest(question)[:16]}"
        if self.exclusive:
            for entry in sorted(self.folder.glob("*")):
                self._check(entry, own, question)
        return KeptParts(own, question)

    def _check(self, entry: Path, own: Path, question: Mapping[str, Any]) -> None:
        """Refuse an entry of the folder that is of another run, or of the same function with other arguments."""
        found = read_question(entry)
        if found is None:
            self.refuse(f"`{self.folder}` holds `{entry.name}`, which mipnet did not write: move it away, or remove that folder")
        compared = question.keys() | found.keys() if found.get("function") == question["function"] else self.about.keys()
        here, there = (_flat({key: data[key] for key in compared if key in data}) for data in (question, found))
        changed = [name for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name)]
        if entry != own and changed:
            names = [name.partition(".")[2] for name in changed if name.startswith("spec.")] or changed
            keys = " and ".join(f"`{name.removeprefix('arguments.')}`" for name in names[:3])
            self.refuse(f"`{self.folder}` holds parts of another run, with a different {keys}: change it back, or remove that folder")


def read_question(entry: Path) -> dict[str, Any] | None:
    """Return the question of a folder of parts; None if it is none."""
    try:
        found = json.loads((entry / QUESTION_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _flat(data: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested mappings as one, by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def remove_parts(folder: Path, about: Mapping[str, Any]) -> None:
    """Remove the parts of the questions of a store that are about this, and its folder if nothing else is in it."""
    if not folder.is_dir():
        return
    wanted = json.loads(json.dumps(dict(about)))
    for entry in folder.iterdir():
        found = read_question(entry)
        if found is not None and all(found.get(key) == value for key, value in wanted.items()):
            shutil.rmtree(entry, ignore_errors=True)
    if not any(folder.iterdir()):
        folder.rmdir()


_store: ContextVar[PartsStore | None] = ContextVar("store of finished parts of mipnet", default=None)


@contextmanager
def keeping_parts(store: PartsStore | None) -> Iterator[None]:
    """Keep the finished parts of what is computed in the block in this store; nowhere for None."""
    token = _store.set(store)
    try:
        yield
    finally:
        _store.reset(token)


def current_store() -> PartsStore | None:
    """Return the store in which finished parts are kept here, if there is one."""
    return _store.get()


def kept_parts(function: str, arguments: Mapping[str, object]) -> KeptParts:
    """Return the finished parts of a function with these arguments, which are compared by `digest`.

    Nothing is kept without a store; and what a function calls with a store of its own is not kept twice.
    """
    store = _store.get()
    if store is None:
        return NOTHING_KEPT
    return store.open(function, {"arguments": {name: digest(value) for name, value in arguments.items()}})


@suggest_keywords
@contextmanager
def keep_parts(folder: str | Path) -> Iterator[None]:
    """Keep the finished parts of long computations in a folder, and go on from those that are there.

        with mn.keep_parts("parts"):
            found = mn.compress(network, region)

    After Ctrl-C, a kill or a power failure, the same script goes on: what was finished is read and not computed again.  Parts belong to
    the function, its arguments, and the version of mipnet; for other arguments others are kept beside them.  A damaged
    part is computed again, with a warning.  Remove the folder when the results are saved.

    These functions keep parts: `mipnet.weight_path` each loss weight, `mipnet.compare` each rival, `mipnet.minimum_distortion` the bracket,
    `mipnet.compress` the states of units, `mipnet.pruning.rivals.lucky_subnetworks.lucky` each retrained network, and
    `mipnet.pruning.rivals.parsimonious.learn` each epoch.  One process at a time may use a folder;
    `OutputInUse` is raised for a second one.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise InputError(f"`{place}` is a file; expected a folder for finished parts")
    with only_writer(place), keeping_parts(PartsStore(place)):
        yield
