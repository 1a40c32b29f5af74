"""The end of a process of the command line: signals that end it like Ctrl-C, and a pause of them while results are written.

Nothing here runs when `mipnet.app.cli.main.main` is called by another program: only `mipnet.app.cli.main.run_and_exit` sets handlers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

ENDING_SIGNALS = tuple(signal.Signals(getattr(signal, name)) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""The signals that end a command as Ctrl-C does: that of `kill`, and that of a terminal that is closed."""


def end_by_signals() -> None:
    """Let the ending signals raise KeyboardInterrupt in this process, except those that have a handler or are ignored, as by ``nohup``."""
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def finish_writing() -> Iterator[None]:
    """Ignore the first Ctrl-C or ending signal inside, where results are printed and written; the second one raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING_SIGNALS)}
    raising = {number: handler for number, handler in handlers.items() if handler in (_interrupt, signal.default_int_handler)}
    came: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    try:
        for number in raising:
            signal.signal(number, take)
        yield
    finally:
        for number, handler in raising.items():
            signal.signal(number, handler)


def end_process(status: int) -> NoReturn:
    """End this process with an exit status, at once after an interrupt.

    Then the interpreter is not shut down: it would wait for solvers that do not react, and after an interrupt that came in the middle of
    an import, CPython replaces the exit status by the signal.
    """
    if status != 130:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
