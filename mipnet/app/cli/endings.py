"""The end of a process of the command line: signals that end it like Ctrl-C, and a pause of them while results are written.

Nothing here runs when `mipnet.app.cli.main.main` is called by another program: only `mipnet.app.cli.main.run_and_exit` sets handlers.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from types import FrameType
from typing import NoReturn

ENDING_SIGNALS = tuple(signal.Signals(getattr(signal, name)) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""The signals that end a command as Ctrl-C does: that of `kill`, and that of a terminal that is closed."""


class OwnProcess:
    """A process that runs one command: signals end it as Ctrl-C does, and it ends with the exit status of the command.

    Signals that have a handler or are ignored, as by ``nohup``, are left as they are.
    """

    def __init__(self) -> None:
        self.status = 0
        atexit.register(self._leave)  # the first one, so it runs after all others
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)

    def end(self, status: int) -> NoReturn:
        """End the process; a solver that still runs, because it did not react to Ctrl-C, is not waited for.

        Further signals, which a terminal or a batch system may send several of, are ignored; the third one ends the process at once.
        """
        self.status, more = status, count(1)

        def hurry(number: int, frame: FrameType | None) -> None:
            if next(more) >= 3:
                self._leave(always=True)

        for number in (signal.SIGINT, *ENDING_SIGNALS):
            if signal.getsignal(number) in (_interrupt, signal.default_int_handler):
                signal.signal(number, hurry)
        progress = sys.modules.get("mipnet.backend.progress")
        if progress is not None and progress.solver_runs():
            self._leave(always=True)
        sys.exit(status)

    def _leave(self, *, always: bool = False) -> None:
        """End the process at once after an interrupt: if that came in the middle of an import, CPython would replace the exit status."""
        if self.status == 130 or always:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self.status)


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
