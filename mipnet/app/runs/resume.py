"""The finished parts of a decoupled run beside its run folder, from where ``--resume`` takes them up after an end of any kind.

``<output>.parts/<digest>/`` belongs to one question: ``question.json`` says which, and the digest is its SHA-256.  A part is a file of
scores and a file of numbers, which is written last, beside its place, and moved there; it holds the digest of the scores.  So a part
is whole, or it is solved again, whatever happened when.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from mipnet.app.files.solve_file import Spec
from mipnet.app.runs.record import plain
from mipnet.backend import Status
from mipnet.errors import InputError
from mipnet.pruning.importance.parts import PartLabel, SolvedPart
from mipnet.readers.data import Dataset
from mipnet.solving.engine import Result
from mipnet.version import __version__

APART = ("output", "prune", "data.holdout", "solve.workers", "solve.scheduler")
"""Keys that say where a run runs and how it is judged; its programs are the same whatever they are."""


@dataclass(frozen=True)
class Store:
    """Where the parts of one question are kept: ``folder`` is ``<output>.parts``, ``question`` what makes them these parts."""

    folder: Path
    question: Mapping[str, Any]

    @property
    def own(self) -> Path:
        """The folder of this question's parts."""
        return self.folder / _digest(json.dumps(self.question, sort_keys=True).encode())[:16]

    def finished(self, keys: Iterable[PartLabel]) -> dict[PartLabel, SolvedPart]:
        """The parts that are there and whole; raises `InputError` if there are those of another question."""
        others = [entry for entry in sorted(self.folder.glob("*")) if entry != self.own]
        if others:
            raise InputError(f"`{self.folder}` holds {_difference(others[0], self.question)}, or remove that folder")
        return {key: part for key in keys if (part := self._read(key)) is not None}

    def keep(self, key: PartLabel, part: SolvedPart) -> None:
        """Write a part; what is there afterwards is there for good."""
        self.own.mkdir(parents=True, exist_ok=True)
        if not (self.own / "question.json").exists():
            _write(self.own / "question.json", json.dumps(self.question, indent=2))
        scores, numbers = self._files(key)
        if part.scores is not None:
            fresh = _beside(scores)
            part.scores.to_netcdf(fresh, engine="netcdf4")
            fresh.replace(scores)
        _write(numbers, json.dumps(_record(key, part, scores), indent=2, allow_nan=False))

    def _files(self, key: PartLabel) -> tuple[Path, Path]:
        name = f"part-{quote(str(key), safe='')}"
        return self.own / f"{name}.nc", self.own / f"{name}.json"

    def _read(self, key: PartLabel) -> SolvedPart | None:
        scores, numbers = self._files(key)
        if not numbers.exists():
            return None
        try:
            return _part(key, json.loads(numbers.read_bytes()), scores)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            said = " ".join(str(error).split())[:120]
            warnings.warn(f"`{numbers}` or its scores are damaged ({said}); this part is solved again", RuntimeWarning, stacklevel=2)
            return None


def parts_folder(output: Path) -> Path:
    """Where the parts of a run are kept: ``<output>.parts``, beside the run folder."""
    named = output if output.name not in ("", "..") else output.resolve()
    return named.with_name(f"{named.name}.parts")


def check_parts(folder: Path, resume: bool) -> None:
    """Raise `InputError` if parts are there that nobody asked to resume."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`{folder}` is a file, and parts of the run are to be kept there; move it away, or name another output")
    if folder.exists() and not resume:
        raise InputError(f"`{folder}` holds parts of a run that has not come to its end; continue it with --resume, or remove that folder")


def what_is_kept(spec: Spec) -> str:
    """What an interrupted run leaves behind, in words that follow on."""
    if spec.solve.decouple == "none":
        return ""
    if spec.output is None:
        return ", and nothing is kept, as there is no `output`"
    folder = parts_folder(Path(spec.output).expanduser())
    count = len(list(folder.glob("*/part-*.json")))
    return f"; {count} finished parts are kept in `{folder}`: the same command with --resume goes on from there" if count else ""


def remove_parts(own: Path) -> None:
    """Remove the parts of one question, and the folder around them if nothing else is in it."""
    shutil.rmtree(own, ignore_errors=True)
    if own.parent.is_dir() and not any(own.parent.iterdir()):
        own.parent.rmdir()


def question_of(spec: Spec, *images: Dataset) -> dict[str, Any]:
    """What decides the programs of a run: the spec, the bytes of the weights, images with their labels, and the version of mipnet."""
    data = spec.resolved()
    for name in APART:
        section, _, key = name.partition(".")
        (data.get(section, {}) if key else data).pop(key or section, None)
    return {
        "mipnet": __version__,
        "spec": data,
        "weights": _digest(spec.path(spec.network.file).read_bytes()),
        "images": [_digest(repr(each.shape).encode(), each.images, each.labels) for each in images],
    }


def _digest(*data: Any) -> str:
    digest = hashlib.sha256()
    for each in data:
        digest.update(np.ascontiguousarray(each).data if isinstance(each, np.ndarray) else each)
    return digest.hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def _write(path: Path, text: str) -> None:
    fresh = _beside(path)
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(path)


def _record(key: PartLabel, part: SolvedPart, scores: Path) -> dict[str, Any]:
    """A part as plain data: all but its scores, of which it holds the digest."""
    result = {name: value for name, value in vars(part.result).items() if name not in ("x", "point", "trace")}
    record: dict[str, Any] = plain(
        {
            "key": key,
            "samples": part.samples,
            "build_seconds": part.build_seconds,
            "result": result | {"status": part.result.status.value, "size": dict(part.result.size)},
            "log": part.log,
            "warnings": part.warnings,
        }
    )
    return record | {"scores": None if part.scores is None else _digest(scores.read_bytes())}


def _part(key: PartLabel, record: Mapping[str, Any], scores: Path) -> SolvedPart:
    """The part that a record was made of; raises an error of one kind or another if it is not whole."""
    if record["key"] != key:
        raise ValueError(f"it is part {record['key']}")
    x, given = None, record["result"]
    if record["scores"] is not None:
        if _digest(scores.read_bytes()) != record["scores"]:
            raise ValueError("the scores are others")
        with xr.open_dataset(scores, engine="netcdf4") as written:
            x = written.load()
    known = {
        "status": Status(given["status"]),
        "bound": -math.inf if given["bound"] is None else given["bound"],
        "gap": math.inf if given["gap"] is None else given["gap"],
        "rewritten": tuple(given["rewritten"]),
    }
    result = Result(**given | known, x=x, point=None)
    return SolvedPart(key, record["samples"], record["build_seconds"], result, tuple(record["log"]), tuple(record["warnings"]))


def _difference(found: Path, question: Mapping[str, Any]) -> str:
    """What stands in a folder that is not this question's, and what to do about it."""
    try:
        other = _flat(json.loads((found / "question.json").read_bytes()))
    except (OSError, ValueError, AttributeError):
        return f"`{found.name}`, which no run of mipnet left there: move it away"
    mine = _flat(question)
    changed = [name for name in sorted(mine.keys() | other.keys()) if mine.get(name) != other.get(name)]
    keys = [name.removeprefix("spec.") for name in changed if name.startswith("spec.")] or changed
    return f"parts of another run, with other {' and '.join(f'`{key}`' for key in keys[:3])}: give back what was changed"


def _flat(data: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat
