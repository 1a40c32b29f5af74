"""Resuming a killed run: the finished parts of a decoupled run, which are kept beside its run folder for ``--resume``.

``<output>.parts/<digest>/`` belongs to one question: ``question.json`` describes it, and the digest is the SHA-256 of that description.
A part is a file of scores and a file of numbers.  The file of numbers is written last, under another name, and then renamed; it
contains the digest of the scores.  So a part on disk is complete, or it is solved again.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from mipnet.app.files.solve_file import SolveFile
from mipnet.app.runs.result import plain, write_netcdf
from mipnet.backend import Status
from mipnet.errors import InputError
from mipnet.limits.disk import whole_file, write_whole
from mipnet.pruning.importance.decoupled_parts import PartLabel, SolvedPart
from mipnet.readers.data import Dataset
from mipnet.solving.engine import Result
from mipnet.version import __version__

KEYS_WITHOUT_EFFECT_ON_PARTS = ("output", "prune", "data.holdout", "solve.workers", "solve.scheduler")
"""Keys that say where a run runs and how it is evaluated; the programs do not depend on them."""


@dataclass(frozen=True)
class PartsStore:
    """The store of the parts of one question: ``folder`` is ``<output>.parts``, ``question`` the description of the question."""

    folder: Path
    question: Mapping[str, Any]

    @property
    def own(self) -> Path:
        """The folder of this question's parts."""
        return self.folder / _digest(json.dumps(self.question, sort_keys=True).encode())[:16]

    def finished(self, labels: Iterable[PartLabel]) -> dict[PartLabel, SolvedPart]:
        """Return the complete parts with these labels; raises `InputError` if the folder holds parts of another question."""
        others = [entry for entry in sorted(self.folder.glob("*")) if entry != self.own]
        if others:
            raise InputError(f"`{self.folder}` holds {_difference(others[0], self.question)}, or remove that folder")
        return {label: part for label in labels if (part := self._read(label)) is not None}

    def keep(self, label: PartLabel, part: SolvedPart) -> None:
        """Write a part to disk."""
        self.own.mkdir(parents=True, exist_ok=True)
        if not (self.own / "question.json").exists():
            write_whole(self.own / "question.json", json.dumps(self.question, indent=2) + "\n")
        scores, numbers = self._files(label)
        if part.scores is not None:
            with whole_file(scores, part.scores.nbytes) as fresh:
                write_netcdf(part.scores, fresh)
        write_whole(numbers, json.dumps(_record(label, part, scores), indent=2, allow_nan=False) + "\n")

    def _files(self, label: PartLabel) -> tuple[Path, Path]:
        name = f"part-{quote(str(label), safe='')}"
        return self.own / f"{name}.nc", self.own / f"{name}.json"

    def _read(self, label: PartLabel) -> SolvedPart | None:
        scores, numbers = self._files(label)
        if not numbers.exists():
            return None
        try:
            return _part(label, json.loads(numbers.read_bytes()), scores)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:120]
            warnings.warn(f"`{numbers}` or its scores are damaged ({reason}); this part is solved again", RuntimeWarning, stacklevel=2)
            return None


def parts_folder(output: Path) -> Path:
    """Return the folder of a run's parts: ``<output>.parts``, beside the run folder."""
    named = output if output.name not in ("", "..") else output.resolve()
    return named.with_name(f"{named.name}.parts")


def check_parts(folder: Path, resume: bool) -> None:
    """Raise `InputError` if there are parts and ``resume`` is False."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`{folder}` is a file, and the parts of the run have to be written there; move it away, or name another output")
    if folder.exists() and not resume:
        raise InputError(f"`{folder}` holds parts of a run that was not finished; continue it with --resume, or remove that folder")


def kept_parts_text(file: SolveFile) -> str:
    """Return what an interrupted run keeps, as the end of the message ``interrupted``."""
    if file.solve.decouple == "none":
        return ""
    if file.output_folder is None:
        return ", and nothing is kept, because there is no `output`"
    folder = parts_folder(file.output_folder)
    count = len(list(folder.glob("*/part-*.json")))
    return f"; {count} finished parts are kept in `{folder}`: the same command with --resume goes on from there" if count else ""


def remove_parts(own: Path) -> None:
    """Remove the parts of one question, and ``<output>.parts`` if nothing else is in it."""
    shutil.rmtree(own, ignore_errors=True)
    if own.parent.is_dir() and not any(own.parent.iterdir()):
        own.parent.rmdir()


def question_record(file: SolveFile, images: Sequence[Dataset]) -> dict[str, Any]:
    """Return what the programs of a run depend on: keys, the bytes of the weights, labelled images, and the version of mipnet."""
    data = file.resolved()
    for name in KEYS_WITHOUT_EFFECT_ON_PARTS:
        section, _, key = name.partition(".")
        (data.get(section, {}) if key else data).pop(key or section, None)
    return {
        "mipnet": __version__,
        "spec": data,
        "weights": _digest(file.path(file.network.file).read_bytes()),
        "images": [_digest(repr(each.shape).encode(), each.images, each.labels) for each in images],
    }


def _digest(*data: Any) -> str:
    digest = hashlib.sha256()
    for each in data:
        digest.update(np.ascontiguousarray(each).data if isinstance(each, np.ndarray) else each)
    return digest.hexdigest()


def _record(label: PartLabel, part: SolvedPart, scores: Path) -> dict[str, Any]:
    """Return a part as plain data, with the digest of its scores instead of the scores."""
    result = {name: value for name, value in vars(part.result).items() if name not in ("x", "point", "trace")}
    record: dict[str, Any] = plain(
        {
            "key": label,
            "samples": part.samples,
            "build_seconds": part.build_seconds,
            "result": result | {"status": part.result.status.value, "size": dict(part.result.size)},
            "log": part.log,
            "warnings": part.warnings,
            "result_warnings": part.result_warnings,
        }
    )
    return record | {"scores": None if part.scores is None else _digest(scores.read_bytes())}


def _part(label: PartLabel, record: Mapping[str, Any], scores: Path) -> SolvedPart:
    """Return the part of a record; raises an error of any kind if the record or its scores are damaged."""
    if record["key"] != label:
        raise ValueError(f"it is part {record['key']}")
    x, given = None, record["result"]
    if record["scores"] is not None:
        if _digest(scores.read_bytes()) != record["scores"]:
            raise ValueError(f"the SHA-256 of `{scores.name}` is not the one that was written with its numbers")
        with xr.open_dataset(scores, engine="netcdf4") as written:
            x = written.load()
    known = {
        "status": Status(given["status"]),
        "bound": -math.inf if given["bound"] is None else given["bound"],
        "gap": math.inf if given["gap"] is None else given["gap"],
        "rewritten": tuple(given["rewritten"]),
    }
    result = Result(**given | known, x=x, point=None)
    texts = tuple(record["warnings"]), tuple(record.get("result_warnings", ()))
    return SolvedPart(label, record["samples"], record["build_seconds"], result, tuple(record["log"]), *texts)


def _difference(found: Path, question: Mapping[str, Any]) -> str:
    """Return what a folder of another question holds, and what to do about it."""
    try:
        other = _flat(json.loads((found / "question.json").read_bytes()))
    except (OSError, ValueError, AttributeError):
        return f"`{found.name}`, which mipnet did not write: move it away"
    own = _flat(question)
    changed = [name for name in sorted(own.keys() | other.keys()) if own.get(name) != other.get(name)]
    keys = [name.removeprefix("spec.") for name in changed if name.startswith("spec.")] or changed
    return f"parts of another run, with a different {' and '.join(f'`{key}`' for key in keys[:3])}: change it back"


def _flat(data: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested mappings as one, by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat
