"""Resuming a killed run: what it has finished is kept beside its run folder, in ``<output>.parts``, for ``--resume``.

The parts belong to all keys of the file that they depend on, to the version of mipnet, and to the bytes of networks and images.
`mipnet.limits.kept_parts` says what is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import xarray as xr

from mipnet.app.files.base import SpecFile
from mipnet.errors import InputError, SpecError
from mipnet.limits.kept_parts import KeptParts, PartsStore, keeping_parts, remove_parts
from mipnet.pruning.importance.decoupled_parts import PartLabel, SolvedPart
from mipnet.solving.result_records import result_numbers, result_of
from mipnet.version import __version__

KEYS_WITHOUT_EFFECT_ON_PARTS: Mapping[str, tuple[str, ...]] = {
    "importance": ("output", "prune", "data.holdout", "solve.workers", "solve.scheduler"),
    "compare": ("output", "solve.workers", "solve.scheduler"),
    "distortion": ("output", "solve.time_limit"),
    "compress": ("output", "save", "solve.time_limit"),
}
"""Keys that do not change what a finished part is, by task: where a run runs, how its result is evaluated, when a proof has to end."""


def parts_folder(output: Path) -> Path:
    """Return the folder of a run's parts: ``<output>.parts``, beside the run folder."""
    named = output if output.name not in ("", "..") else output.resolve()
    return named.with_name(f"{named.name}.parts")


@contextmanager
def resumable(file: SpecFile, resume: bool) -> Iterator[None]:
    """Keep what is finished in the block, if the file names a run folder; what an earlier run has finished is read with ``resume``.

    Raises `InputError` if there is nothing to resume from, or if there are parts and ``resume`` is False.
    """
    store = run_store(file)
    if store is None:
        if resume:
            raise InputError("--resume keeps the parts beside the run folder, and no `output` is given; name it, or leave --resume out")
        yield
        return
    with file.blame("output"):
        check_parts(store.folder, resume)
    with keeping_parts(store):
        yield


def check_parts(folder: Path, resume: bool) -> None:
    """Raise `InputError` if there are parts and ``resume`` is False."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`{folder}` is a file, and the parts of the run have to be written there; move it away, or name another output")
    if folder.exists() and not resume:
        raise InputError(f"`{folder}` holds parts of a run that was not finished; continue it with --resume, or remove that folder")


def run_store(file: SpecFile) -> PartsStore | None:
    """Return the store of a run's parts; None if the file names no run folder."""
    if file.output_folder is None:
        return None

    def refuse(text: str) -> NoReturn:
        try:
            with file.blame("output"):
                raise InputError(text)
        except InputError as error:
            raise SpecError(str(error)) from None  # which names its place already

    return PartsStore(parts_folder(file.output_folder), _about(file), exclusive=True, refuse=refuse)


def remove_finished_parts(file: SpecFile) -> None:
    """Remove the parts of a run, once its run folder is written."""
    if file.output_folder is not None:
        remove_parts(parts_folder(file.output_folder), _about(file))


def kept_parts_text(file: SpecFile) -> str:
    """Return what an interrupted run keeps; "" if that is nothing."""
    if file.output_folder is None:
        return ""
    folder = parts_folder(file.output_folder)
    count = len(list(folder.glob("*/part-*.json")))
    kept = "1 finished part is" if count == 1 else f"{count} finished parts are"
    return f"{kept} kept in `{folder}`: the same command with --resume goes on from there" if count else ""


def interrupted_text(file: SpecFile) -> str:
    """Return the message of a run that was interrupted before it had a result."""
    kept = kept_parts_text(file)
    if file.output_folder is None:
        return "interrupted, and nothing is kept, because there is no `output`"
    return f"interrupted; {kept}" if kept else "interrupted"


def _about(file: SpecFile) -> dict[str, Any]:
    """Return what all parts of a run depend on: the keys of its file, and the version of mipnet."""
    data = file.resolved()
    for name in KEYS_WITHOUT_EFFECT_ON_PARTS.get(file.task, ("output",)):
        section, _, key = name.partition(".")
        (data.get(section, {}) if key else data).pop(key or section, None)
    return {"mipnet": __version__, "spec": data}


class DecoupledStore:
    """The finished programs of a decoupled run."""

    def __init__(self, parts: KeptParts) -> None:
        self.parts = parts

    @property
    def own(self) -> Path | None:
        """The folder of the programs of this question."""
        return self.parts.own

    @property
    def question(self) -> Mapping[str, Any]:
        """What the programs depend on."""
        return self.parts.question

    def finished(self, labels: Iterable[PartLabel]) -> dict[PartLabel, SolvedPart]:
        """Return the complete parts with these labels."""
        found = {label: self.parts.read(label, _part) for label in labels}
        return {label: part for label, part in found.items() if part is not None}

    def keep(self, label: PartLabel, part: SolvedPart) -> None:
        """Write a part to disk."""
        copied = ("samples", "build_seconds", "log", "warnings", "result_warnings")
        record = {name: getattr(part, name) for name in copied}
        self.parts.keep(label, record | {"result": result_numbers(part.result)}, part.scores)


def _part(record: Mapping[str, Any], scores: xr.Dataset | None) -> SolvedPart:
    """Return the part of a record; raises an error of any kind if it is not one."""
    texts = (tuple(record[name]) for name in ("log", "warnings", "result_warnings"))
    return SolvedPart(record["key"], record["samples"], record["build_seconds"], result_of(record["result"], scores), *texts)
