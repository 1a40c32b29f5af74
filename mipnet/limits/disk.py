"""Files that are written whole or not at all, and the errors of a disk that takes no more."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mipnet.errors import InputError, MipnetError
from mipnet.limits.output_lock import only_writer

PROBE_BYTES = 2**20
"""Size of the file that is written to find out whether the disk takes one."""


@contextmanager
def whole_file(target: Path, size: int = PROBE_BYTES) -> Iterator[Path]:
    """Yield the path of a file to write; it replaces ``target`` when the block ends, and is removed if the block raises an error.

    ``size`` is about that of the file, in bytes.  If the disk does not take the file, OSError with the target's path is raised, whatever
    the library that writes it raises.
    """
    fresh = target.with_name(f".{target.stem[:80]}-{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        with naming(target, size):
            yield fresh
            os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def own_file(target: Path | None) -> Iterator[None]:
    """Be the only process that writes a file, and remove what a killed process has left of it; do nothing for None.

    Raises `InputError` unless the file may be written, and `OutputInUse` if another process writes it.
    """
    if target is None:
        yield
        return
    check_writable(target)
    with only_writer(target) as locked:
        if locked:
            clear_remains(target)
        yield


def clear_remains(target: Path) -> None:
    """Remove the files that a process which was killed while it wrote ``target`` has left; its lock must be held."""
    pattern = re.compile(rf"\.{re.escape(target.stem[:80])}-[0-9a-f]{{8}}({re.escape(target.suffix)}|\.probe)")
    for each in target.absolute().parent.iterdir():
        if pattern.fullmatch(each.name):
            with suppress(OSError):
                each.unlink()


@contextmanager
def naming(target: Path, size: int = PROBE_BYTES) -> Iterator[None]:
    """Raise OSError with the path of ``target`` if the disk does not take what is written inside, whatever a library raises.

    Libraries such as netCDF, safetensors and torch raise errors of their own, without the reason: then the system's error is that of a
    file of ``size`` bytes beside the target.
    """
    try:
        yield
    except MipnetError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error
    except Exception as error:
        refused = _refusal(target, size)
        if refused is None:
            raise
        raise OSError(refused.errno, refused.strerror, str(target)) from error


def _refusal(target: Path, size: int) -> OSError | None:
    """Return the error of the system for a file of that size beside the target; None if it can be written."""
    probe = target.with_name(f".{target.stem[:80]}-{uuid.uuid4().hex[:8]}.probe")
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(size))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error
    finally:
        probe.unlink(missing_ok=True)
    return None


def check_writable(path: Path) -> None:
    """Raise `InputError` unless an ordinary file may be written there; nothing is made."""
    try:
        folder = path.absolute().parent
        if path.is_dir():
            why = "it is a folder"
        elif path.is_symlink() and not path.exists():
            why = "it is a link to nothing"
        elif path.exists() and (not path.is_file() or folder == Path("/dev")):
            why = "it is no ordinary file"
        elif not folder.is_dir():
            why = f"`{folder}` is no folder" if folder.exists() else f"there is no folder `{folder}`; make it first, or"
        elif not os.access(folder, os.W_OK | os.X_OK):
            why = f"no permission to write to `{folder}`;"
        elif len(os.fsencode(path.name)) > os.pathconf(folder, "PC_NAME_MAX"):
            why = "its name is too long"
        else:
            return
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
    why = why if why.endswith(("or", ";")) else f"{why};"
    raise InputError(f"`{path}` cannot be written: {why} name another file")


def write_whole(path: Path, text: str) -> None:
    """Write a text file completely, or leave the old one in place; wait until it is on disk."""
    with whole_file(path, len(text)) as fresh, fresh.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


_MACHINE_NAMES = ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "ENOMEM", "EMFILE", "ENFILE")
ERRORS_OF_MACHINE = frozenset(getattr(errno, name) for name in _MACHINE_NAMES if hasattr(errno, name))
"""Numbers of errors of the system that are a failure of the machine, such as a full disk, and no wrong input."""
