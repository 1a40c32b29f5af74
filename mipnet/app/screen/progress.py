"""Live progress: of one solve, or of a decoupled run with one table of all programs; without a terminal line by line."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mipnet.app.files.specpath import PathSpec
from mipnet.app.runs.record import Step
from mipnet.app.screen.tables import count_text, gap_text, make_table, number, percent, seconds
from mipnet.backend import Event, Status, relative_gap
from mipnet.pruning.importance.parts import PartLabel, SolvedPart

EVERY = 1.0
"""Seconds between two lines of progress where there is no terminal."""

STYLES = {"waiting": "dim", "at the scheduler": "dim", "running": "bold", "done": "green", "resumed": "cyan"}


class PartsProgress:
    """The state of every program of a decoupled run; a `mipnet.app.runs.decoupled.Watch` to be used as a context manager.

    Nothing is heard of a program before it is done.  Programs start in order, so of those that are not done the first few are running.
    """

    def __init__(self, console: Console, each: str) -> None:
        self.console, self.each, self.began = console, each, time.perf_counter()
        self.keys: Sequence[PartLabel] = ()
        self.parts: dict[PartLabel, SolvedPart] = {}
        self.resumed: frozenset[PartLabel] = frozenset()
        self.side_by_side: int | None = None
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> PartsProgress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def begin(self, keys: Sequence[PartLabel], finished: Mapping[PartLabel, SolvedPart], side_by_side: int | None) -> None:
        """Take note of the programs."""
        self.keys, self.parts, self.resumed, self.side_by_side = keys, dict(finished), frozenset(finished), side_by_side

    def done(self, key: PartLabel, part: SolvedPart) -> None:
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

    def state(self, key: PartLabel) -> str:
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


class Progress:
    """Elapsed time, incumbent, bound, gap, nodes and cuts of a solve under way: one live line on a terminal, else a line a second.

    Use it as a context manager, and hand `hear` to the solve.
    """

    def __init__(self, console: Console) -> None:
        self.console, self.began, self.printed = console, time.perf_counter(), 0.0
        self.last: Event | None = None
        self.text = self.doing = ""
        self.live = Live(console=console, get_renderable=self.line, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def hear(self, event: Event) -> None:
        """Take note of an event, and tell of it if it is time to."""
        if event.kind == "log":
            return
        self.last, self.text = event, event.text or self.text
        self._show()

    def tell(self, what: str) -> None:
        """Say what is being done, after a solve or without one."""
        self.doing = what
        self._show()

    def done(self, path: PathSpec, step: Step) -> None:
        """Tell of a point of a path, for good."""
        r = step.result
        told = f"{r.status.value}, objective {number(r.objective)}, gap {gap_text(r.gap)}, {seconds(r.runtime)}"
        judged = "" if step.accuracy is None else f"; {percent(step.pruned)} pruned, {percent(step.accuracy)} right"
        self.last, self.text = None, ""
        clock = f"{time.perf_counter() - self.began:6.1f} s"
        self.console.print(Text.assemble((clock, "dim"), f"  {path.along} {step.value:.3g}: {told}{judged}"), soft_wrap=True)

    def _show(self) -> None:
        now = time.perf_counter()
        if self.live is None and now - self.printed >= EVERY:
            self.printed = now
            self.console.print(self.line(), soft_wrap=True)

    def line(self) -> Text:
        """The state as one line."""
        clock = f"{time.perf_counter() - self.began:6.1f} s"
        if self.doing:
            return Text.assemble((clock, "dim"), "  ", self.doing)
        if self.last is None:
            return Text.assemble((clock, "dim"), "  building the program")
        objective, bound, nodes = self.last.objective, self.last.bound, self.last.nodes
        gap = math.inf if objective is None or bound is None else relative_gap(max(objective, bound), min(objective, bound))
        parts = [f"incumbent {number(objective)}", f"bound {number(bound)}", f"gap {gap_text(gap)}"]
        parts += [f"{count_text(nodes, 'node')}"] if nodes else []
        return Text.assemble((clock, "dim"), "  ", "  ".join(parts + ([self.text] if self.text else [])))
