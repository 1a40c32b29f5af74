"""The bytes of a file, which may be compressed by gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from mipnet.errors import DataError, InputError

UNPACKED_BYTES_MAX = 2**32
"""Largest accepted size of an unpacked file."""


def read_bytes(path: Path, expected: str, failure: type[InputError] = DataError) -> bytes:
    """Return the content of a file, unpacked if it begins as gzip does.

    ``expected`` describes the file for the error.  Raises ``failure`` if the file is missing or cannot be read.
    """
    if not path.is_file():
        raise failure(f"no file `{path}`; expected {expected}")
    try:
        with path.open("rb") as stream:
            if stream.peek(2)[:2] != b"\x1f\x8b":
                return stream.read()
            data = gzip.GzipFile(fileobj=stream).read(UNPACKED_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}".rstrip(": ")
        raise failure(f"`{path}` cannot be read ({why}); fetch it again") from None
    if len(data) > UNPACKED_BYTES_MAX:
        raise failure(f"`{path}` holds more than {UNPACKED_BYTES_MAX:,} bytes when unpacked; unpack it yourself if that is right")
    return data
