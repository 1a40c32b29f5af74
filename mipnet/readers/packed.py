"""The bytes of a file, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from mipnet.errors import DataError, InputError


def unpacked(path: Path, expected: str, failure: type[InputError] = DataError) -> bytes:
    """What the file holds, unpacked if it begins as gzip does; raises ``failure`` if it is missing or cannot be read."""
    if not path.is_file():
        raise failure(f"no file `{path}`; expected {expected}")
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}".rstrip(": ")
        raise failure(f"`{path}` cannot be read ({why}); fetch it again") from None
