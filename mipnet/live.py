"""Live progress of a decoupled run: one table of all programs on a terminal, else a line for each that is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mipnet.backend import Status
from mipnet.report import gap_text, make_table, number, seconds
from mipnet.tasks.decouple import Key, Part

STYLES = {"waiting": "dim", "at the scheduler": "dim", "running": "bold", "done": "green", "resumed": "cyan"}


class PartsProgress:
    """The state of every program of a decoupled run; a `mipnet.decoupled.Watch` to be used as a context manager.

    Nothing is heard of a program before it is done.  Programs start in order, so of those that are not done the first few are running.
    """

    def __init__(self, console: Console, each: str) -> None:
        self.console, self.each, self.began = console, each, time.perf_counter()
        self.keys: Sequence[Key] = ()
        self.parts: dict[Key, Part] = {}
        self.resumed: frozenset[Key] = frozenset()
        self.side_by_side: int | None = None
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> PartsProgress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def begin(self, keys: Sequence[Key], finished: Mapping[Key, Part], side_by_side: int | None) -> None:
        """Take note of the programs."""
        self.keys, self.parts, self.resumed, self.side_by_side = keys, dict(finished), frozenset(finished), side_by_side

    def done(self, key: Key, part: Part) -> None:
        """Take note of a part, and tell of it."""
        if len(self.parts) == len(self.resumed):
            known = f", {len(self.resumed)} of them resumed" if self.resumed else ""
            self._tell(f"{len(self.keys)} programs, one a {self.each}{known}")
        self.parts[key] = part
        r = part.result
        numbers = f"objective {number(r.objective)}, gap {gap_text(r.gap)}, {seconds(r.runtime)}"
        self._tell(f"{self.each} {key}: {r.status.value}, {numbers}  ({len(self.parts)} of {len(self.keys)})")

    def _tell(self, text: str) -> None:
        if self.live is None:
            self.console.print(Text.assemble((self._clock(), "dim"), "  ", text), soft_wrap=True)

    def _clock(self) -> str:
        return f"{time.perf_counter() - self.began:6.1f} s"

    def state(self, key: Key) -> str:
        """What is known of a program."""
        if key in self.parts:
            return "resumed" if key in self.resumed else "done"
        if self.side_by_side is None:
            return "at the scheduler"
        return "running" if key in [k for k in self.keys if k not in self.parts][: self.side_by_side] else "waiting"

    def table(self) -> RenderableType:
        """The state of all programs, as it is now."""
        if not self.keys:
            return Text.assemble((self._clock(), "dim"), "  reading network and images")
        table = make_table(self.each, "state", "status", "objective", "gap", "time", left=3)
        for key in self.keys:
            state, part = self.state(key), self.parts.get(key)
            r = None if part is None else part.result
            cells = () if r is None else (r.status.value, number(r.objective), gap_text(r.gap), seconds(r.runtime))
            table.add_row(str(key), Text(state, style=STYLES[state]), *cells)
        solved = sum(part.result.status is Status.OPTIMAL for part in self.parts.values())
        told = f"{len(self.parts)} of {len(self.keys)} done, {solved} optimal"
        heads = "; heads are trained before the first one starts" if self.each == "layer" and len(self.parts) == len(self.resumed) else ""
        return Group(table, Text(f"{self._clock()}  {told}{heads}", style="dim"))
