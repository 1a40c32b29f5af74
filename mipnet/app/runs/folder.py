"""A run folder: checked before anything is solved, written beside its place and moved there whole.

A folder is overwritten only if it is empty, or holds a ``result.json`` and nothing that mipnet did not write.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mipnet.errors import InputError

FILES = ("model.yaml", "result.json", "scores.nc", "masks.nc", "parts.nc", "curve.svg", "solver.log")
"""What a run folder holds: the spec, the numbers, the scores and masks (if a point was found), those of each part, the curve of a path,
the solver's log."""


def check_folder(folder: Path, files: Sequence[str] = FILES) -> None:
    """Raise `InputError` unless a run folder with these files may be written there."""
    if folder.exists():
        _check_ours(folder, files)
    try:
        above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    except OSError as error:
        raise InputError(f"`{folder}` cannot be written ({_reason(error)}); name another folder") from None
    if not above.is_dir():
        raise InputError(f"`{folder}` cannot be made: `{above}` is a file; name another folder")
    place = folder.absolute().parent if folder.exists() else above
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"`{folder}` cannot be written: no permission to write to `{place}`; name another folder")
    try:
        tempfile.TemporaryDirectory(dir=place).cleanup()  # a place such as /proc says yes and means no
    except OSError as error:
        raise InputError(f"`{folder}` cannot be written ({_reason(error)}); name another folder") from None


def _check_ours(folder: Path, files: Sequence[str]) -> None:
    if not folder.is_dir():
        raise InputError(f"`{folder}` is a file; expected a folder that is new, empty or a run folder of mipnet")
    found = sorted(entry.name for entry in folder.iterdir())
    foreign = [name for name in found if name not in files]
    if found and (foreign or "result.json" not in found):
        raise InputError(f"`{folder}` holds `{(foreign or found)[0]}` and is no run folder of mipnet: name another, or move that away")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


@contextmanager
def new_folder(folder: Path, files: Sequence[str] = FILES) -> Iterator[Path]:
    """A folder to write into; when the block ends without an error it takes the place of ``folder``, else it is gone."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    fresh, old = (folder.with_name(f".{folder.name}.{mark}.{kind}") for kind in ("new", "old"))
    fresh.mkdir()
    try:
        yield fresh
        check_folder(folder, files)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
