"""The bytes and the text of a file, which may be compressed (gzip, xz, bzip2) and may begin with a byte order mark."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from mipnet.errors import DataError, InputError, MemoryLimitReached, closest
from mipnet.limits.memory import check_memory, memory_left, shown_bytes

UNPACKED_BYTES_MAX = 2**32
"""Largest accepted size of an unpacked file."""

UNPACKING_COPIES = 3
"""Copies of the content that exist while a file is unpacked."""

PACKED_SUFFIXES = (".gz", ".xz", ".bz2")
"""The last suffix of a compressed file; its content decides how it is unpacked."""

UNPACKING_FUNCTIONS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}
"""The function that opens a compressed file, by the first bytes of the file."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The encoding of a text that begins with these bytes; the mark of UTF-32 begins with that of UTF-16 and is looked for first."""


NEIGHBOURS_MAX = 1000
"""Number of names in a folder that are compared with the name of a missing file."""


def no_file(path: Path) -> str:
    """Return in words that a path is no file: it is a folder, an address, its folder is missing, or a file of a similar name is there."""
    if path.is_dir():
        return f"`{path}` is a folder, not a file"
    if re.search(r"(^|/)(https?|ftp|s3|gs):/", str(path)):
        return f"no file `{path}` (mipnet reads no addresses: fetch the file first)"
    try:
        names = [each.name for each in islice(path.parent.iterdir(), NEIGHBOURS_MAX) if each.is_file()]
    except (OSError, ValueError):
        return f"no file `{path}` (there is no folder `{path.parent}`)"
    found = closest(path.name, names)
    return f"no file `{path}`" if found is None else f"no file `{path}` (there is `{found}`)"


def read_bytes(path: Path, expected: str, failure: type[InputError] = DataError) -> bytes:
    """Return the content of a file, unpacked if it begins as gzip, xz or bzip2 does.

    ``expected`` describes the file for the error.  Raises ``failure`` if the file is missing or cannot be read.
    """
    if not path.is_file():
        raise failure(f"{no_file(path)}; expected {expected}")
    try:
        with path.open("rb") as stream:
            begin = stream.peek(8)
            unpack = next((unpack for start, unpack in UNPACKING_FUNCTIONS.items() if begin.startswith(start)), None)
            if unpack is None:
                check_memory(f"the content of `{path}`", path.stat().st_size, "give a smaller file")
                return stream.read()
            most = max(1, int(min(UNPACKED_BYTES_MAX, memory_left() / UNPACKING_COPIES)))
            with unpack(stream) as unpacked:
                data: bytes = unpacked.read(most + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}".rstrip(": ")
        raise failure(f"`{path}` cannot be read ({why}); fetch it again") from None
    if most < len(data) <= UNPACKED_BYTES_MAX:
        room = f"{shown_bytes(most)}, which would fit into memory"
        raise MemoryLimitReached(f"the unpacked content of `{path}` is larger than {room}: give a smaller file, or raise `memory_limit`")
    if len(data) > UNPACKED_BYTES_MAX:
        raise failure(f"`{path}` holds more than {UNPACKED_BYTES_MAX:,} bytes when unpacked; unpack it yourself if that is right")
    return data


def read_text(path: Path, expected: str, *, errors: str = "strict") -> str:
    """Return the text of a file, compressed or not, in UTF-8 or as its byte order mark says, without the mark.

    ``errors`` is that of `bytes.decode`.  Raises `DataError` if the file is missing, cannot be read, or is no text.
    """
    data = read_bytes(path, expected)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError:
        raise DataError(f"`{path}` cannot be read (it is no text); expected {expected}") from None
