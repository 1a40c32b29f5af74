"""The bytes of a file, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from mipnet.errors import DataError, InputError

LIMIT = 2**32
"""The largest number of bytes that a packed file may hold."""


def unpacked(path: Path, expected: str, failure: type[InputError] = DataError) -> bytes:
    """What the file holds, unpacked if it begins as gzip does; raises ``failure`` if it is missing or cannot be read."""
    if not path.is_file():
        raise failure(f"no file `{path}`; expected {expected}")
    try:
        with path.open("rb") as stream:
            if stream.peek(2)[:2] != b"\x1f\x8b":
                return stream.read()
            data = gzip.GzipFile(fileobj=stream).read(LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}".rstrip(": ")
        raise failure(f"`{path}` cannot be read ({why}); fetch it again") from None
    if len(data) > LIMIT:
        raise failure(f"`{path}` holds more than {LIMIT:,} bytes when unpacked; unpack it yourself if that is right")
    return data
