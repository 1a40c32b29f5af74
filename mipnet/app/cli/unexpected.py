"""The report of an error that mipnet does not expect: one line on the screen, and a file with the traceback."""

from __future__ import annotations

import os
import platform
import shlex
import tempfile
import time
import traceback
from collections.abc import Sequence

from mipnet.version import __version__


def report(error: Exception, arguments: Sequence[str]) -> str:
    """Write the traceback of an error to a file in the folder for temporary files, and return the message that names the file."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
    about = f"mipnet {__version__}, Python {platform.python_version()}, {platform.platform()}"
    text = f"{about}\nmipnet {shlex.join(arguments)}\n\n{''.join(traceback.format_exception(error))}"
    try:
        handle, name = tempfile.mkstemp(".txt", time.strftime("mipnet-error-%Y%m%d-%H%M%S-"))
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError as refused:
        return f"mipnet failed ({said}); this is its own mistake, please report it (its traceback cannot be written: {refused})"
    return f"mipnet failed ({said}); this is its own mistake, please report it with the file `{name}`"
