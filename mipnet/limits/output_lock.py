"""One writer at a time for a run folder or a result file: a lock beside it, which the operating system releases when its process ends.

The lock of the path ``runs/a`` is that of the file ``runs/.a.lock``.  It belongs to one process: a process that it forks does not keep it,
and one that is killed loses it, so that the next one takes it over.  The text of the file says who holds it, for the message to others.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mipnet.errors import OutputInUse

LOCK_TEXT_BYTES_MAX = 4096
"""Largest size of the text of a lock; on Windows the byte after it is the one that is locked."""

NAMING_TRIES, NAMING_PAUSE_SECONDS = 20, 0.05
"""A lock whose holder has not written its text yet is read again so often, after pauses of this length."""

FOLDER_TRIES = 1000
"""A folder that other runs make and remove again is made so often."""


class _Held:
    """The locks that this process holds: the file descriptor, the thread and the depth of each, by the path of the lock."""

    def __init__(self) -> None:
        self.locks: dict[Path, tuple[int, int, int]] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Close the descriptors in a forked process: the locks are those of the process that forked it."""
        for descriptor, _, _ in self.locks.values():
            with suppress(OSError):
                os.close(descriptor)
        self.locks.clear()


_held = _Held()


def lock_path(path: Path) -> Path:
    """Return the path of the file that is locked for a run folder or a file."""
    named = Path(os.path.realpath(path))
    return named.with_name(f".{named.name}.lock")


@contextmanager
def only_writer(path: Path) -> Iterator[bool]:
    """Hold the lock of a run folder or a file; the same thread may hold it several times.  Missing folders above it are made.

    Yields whether the place can be locked.  If not, as on some network file systems, there is a warning, and nothing is held.

    Raises `OutputInUse` if another process, or another thread of this one, holds it.
    """
    place = lock_path(path)
    missing = [each for each in (place.parent, *place.parent.parents) if not each.exists()]
    try:
        known = _held.locks.get(place)
        if known is not None and known[1] != threading.get_ident():
            raise OutputInUse(_refusal(path, _own_text() | {"since": None}))
        descriptor = known[0] if known is not None else _locked(path, place)
        if descriptor is None:
            yield False
            return
        _held.locks[place] = (descriptor, threading.get_ident(), 1 if known is None else known[2] + 1)
        try:
            yield True
        finally:
            _release(place)
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()  # only if it is empty


def _locked(path: Path, place: Path) -> int | None:
    """Lock the file at ``place`` and return its descriptor; None if files cannot be locked there."""
    tries = 0
    while True:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):  # another run may have just removed the empty folder
            tries += 1
            if tries == FOLDER_TRIES:
                raise
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):  # nothing can be written there either, which the writer says
                _warn(path, error)
            return None
        try:
            if not _try_lock(descriptor):
                raise OutputInUse(_refusal(path, _holder(place)))
            if _is_at(descriptor, place):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_own_text()).encode()[:LOCK_TEXT_BYTES_MAX])
                return descriptor
        except OSError as error:
            os.close(descriptor)
            _warn(path, error)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before has removed the file meanwhile


def _warn(path: Path, error: OSError) -> None:
    reason = " ".join(str(error.strerror or error).split()).lower()
    warnings.warn(
        f"`{path}` cannot be locked ({reason}): a second run that writes there would not be noticed", RuntimeWarning, stacklevel=5
    )


def _release(place: Path) -> None:
    descriptor, thread, depth = _held.locks.pop(place)
    if depth > 1:
        _held.locks[place] = (descriptor, thread, depth - 1)
        return
    if sys.platform == "win32":  # an open file cannot be removed there
        os.close(descriptor)
        with suppress(OSError):
            place.unlink()
        return
    with suppress(OSError):
        place.unlink()
    os.close(descriptor)


def _is_at(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, LOCK_TEXT_BYTES_MAX, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _own_text() -> dict[str, Any]:
    return {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _holder(place: Path) -> dict[str, Any]:
    """Return the text of a lock; an empty one if its holder does not write it soon."""
    for _ in range(NAMING_TRIES):
        with suppress(OSError, ValueError):
            found = json.loads(place.read_bytes()[:LOCK_TEXT_BYTES_MAX])
            if isinstance(found, dict):
                return found
        time.sleep(NAMING_PAUSE_SECONDS)
    return {}


def _refusal(path: Path, holder: dict[str, Any]) -> str:
    """Return the message that names the holder of a lock."""
    if not holder:
        who = "another process"
    else:
        mine = holder.get("process") == os.getpid() and holder.get("host") == socket.gethostname()
        since = f" since {holder['since']}" if holder.get("since") else ""
        who = f"{'this process' if mine else 'process'} {holder.get('process')} on {holder.get('host')}{since}"
    return f"`{path}` is being written by {who}; wait until that has ended, or name another place"
