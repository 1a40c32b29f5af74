"""The run folder: checked before anything is solved, written under another name and moved to its place as a whole.

A folder is overwritten only if it is empty, or holds a ``result.json`` and nothing that mipnet did not write.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mipnet.app.files.base import SpecFile
from mipnet.app.files.yaml_document import written
from mipnet.app.runs.result import INTERRUPTED_STATUS, RunResult
from mipnet.app.runs.resume import remove_finished_parts
from mipnet.app.tasks import TASKS_BY_NAME
from mipnet.errors import InputError
from mipnet.limits.disk import naming
from mipnet.limits.output_lock import only_writer


def check_output(file: SpecFile) -> None:
    """Raise `InputError` unless the run folder of a file may be written, if the file names one."""
    if file.output_folder is not None:
        with file.blame("output"):
            check_folder(file.output_folder, TASKS_BY_NAME[file.task].folder)


def save_result(result: RunResult) -> Path | None:
    """Write the run folder of a result, and return its path; None if the file names none.

    The parts that the run has kept are removed then, unless it was interrupted.
    """
    file, folder = result.file, result.file.output_folder
    if folder is None:
        return None
    names = TASKS_BY_NAME[file.task].folder
    with file.blame("output"), naming(folder), new_folder(folder, names) as fresh:
        (fresh / names[0]).write_text(written(file.resolved()))
        result.write_files(fresh)
        (fresh / "result.json").write_text(json.dumps(result.record, indent=2, allow_nan=False) + "\n")
    if result.status != INTERRUPTED_STATUS:
        remove_finished_parts(file)
    return folder


def check_folder(folder: Path, names: Sequence[str]) -> None:
    """Raise `InputError` unless a run folder with files of these names may be written there."""
    if folder.exists():
        _check_ours(folder, names)
    try:
        for parent in (folder, *folder.absolute().parents):
            if parent.is_symlink() and not parent.exists():
                raise InputError(f"`{folder}` cannot be made: `{parent}` is a link to nothing; name another folder")
        above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    except OSError as error:
        raise InputError(f"`{folder}` cannot be written ({_reason(error)}); name another folder") from None
    if not above.is_dir():
        raise InputError(f"`{folder}` cannot be made: `{above}` is a file; name another folder")
    place = folder.absolute().parent if folder.exists() else above
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"`{folder}` cannot be written: no permission to write to `{place}`; name another folder")
    try:
        tempfile.TemporaryDirectory(dir=place).cleanup()  # places such as /proc grant the permission and still refuse to write
    except OSError as error:
        raise InputError(f"`{folder}` cannot be written ({_reason(error)}); name another folder") from None


def _check_ours(folder: Path, names: Sequence[str]) -> None:
    if not folder.is_dir():
        raise InputError(f"`{folder}` is a file; expected a folder that is new, empty or a run folder of mipnet")
    found = sorted(entry.name for entry in folder.iterdir())
    foreign = [name for name in found if name not in names]
    if found and (foreign or "result.json" not in found):
        raise InputError(f"`{folder}` holds `{(foreign or found)[0]}` and is no run folder of mipnet: name another, or move that away")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


@contextmanager
def own_output(file: SpecFile) -> Iterator[None]:
    """Be the only process that writes the run folder of a file, if the file names one; what a killed process has left there is removed.

    Raises `InputError` unless the folder may be written, and `OutputInUse` if another process writes it.
    """
    check_output(file)
    if file.output_folder is None:
        yield
        return
    with ExitStack() as stack:
        with file.blame("output"):
            stack.enter_context(own_folder(file.output_folder))
        yield


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Be the only process that writes a run folder, and remove what a killed process has left beside it."""
    with only_writer(folder) as locked:
        if locked:
            _clear_remains(folder.absolute())
        yield


def _clear_remains(folder: Path) -> None:
    """Remove the folders of a process that was killed while it wrote a run folder; if it had moved the old one away, move that back."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}\.(new|old)")
    remains = [each for each in folder.parent.iterdir() if pattern.fullmatch(each.name)]
    for each in remains:
        if each.suffix == ".old" and not folder.exists():
            each.rename(folder)
        else:
            shutil.rmtree(each, ignore_errors=True)


@contextmanager
def new_folder(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a new folder to write into; it replaces ``folder`` when the block ends, and is removed if the block raises an error."""
    with own_folder(folder), _new_folder(folder.absolute(), names) as fresh:
        yield fresh


@contextmanager
def _new_folder(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    mark = uuid.uuid4().hex[:8]
    fresh, old = (folder.with_name(f".{folder.name}.{mark}.{kind}") for kind in ("new", "old"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh.mkdir()
    try:
        yield fresh
        check_folder(folder, names)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
