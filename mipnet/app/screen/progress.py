"""Live progress of a run: on a terminal one live line or table, elsewhere line by line."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mipnet.app.runs.importance_run import EvaluatedPoint
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.results_table import InstanceResult
from mipnet.app.runs.vnncomp_instances import Instance
from mipnet.app.screen.tables import count_text, gap_text, make_table, number, percent, seconds
from mipnet.app.screen.verify_tables import VERDICT_STYLES
from mipnet.backend import Event, Status, relative_gap
from mipnet.pruning.importance.decoupled_parts import PartLabel, SolvedPart

SECONDS_BETWEEN_LINES = 1.0
"""Seconds between two lines of progress where there is no terminal."""

PROGRAM_STYLES = {"waiting": "dim", "at the scheduler": "dim", "running": "bold", "done": "green", "resumed": "cyan"}


class LiveProgress(RunListener):
    """The base class of all live progress: a context manager that keeps `view` on a terminal up to date."""

    def __init__(self, console: Console) -> None:
        self.console, self.terminal, self.began = console, console.is_terminal, time.perf_counter()
        self.live: Live | None = None

    def __enter__(self) -> Self:
        if self.terminal:
            self.live = Live(console=self.console, get_renderable=self.view, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def view(self) -> RenderableType:
        """Return what the terminal shows now."""
        raise NotImplementedError

    def clock(self) -> str:
        """Return the seconds since the begin."""
        return f"{time.perf_counter() - self.began:6.1f} s"

    def print_line(self, *parts: str | tuple[str, str]) -> None:
        """Print a line that stays, after the clock."""
        self.console.print(Text.assemble((self.clock(), "dim"), "  ", *parts), soft_wrap=True)


class LineProgress(LiveProgress):
    """Elapsed time, incumbent, bound, gap and nodes of a solve: one live line on a terminal, or else one line per second.

    ``waiting`` is shown before the first event.
    """

    def __init__(self, console: Console, waiting: str = "building the program") -> None:
        super().__init__(console)
        self.waiting, self.printed_at = waiting, 0.0
        self.last_event: Event | None = None
        self.last_text = self.current = ""

    def solver_event(self, event: Event) -> None:
        """Show an event, unless it is a line of the log, or another was printed less than a second ago."""
        if event.kind == "log":
            return
        self.last_event, self.last_text = event, event.text or self.last_text
        self._show()

    def activity(self, text: str) -> None:
        """Show what the run does next in place of the solve; without a terminal, print a line about it."""
        self.current = text
        if not self.terminal:
            self.print_line(text)

    def point_done(self, parameter: str, point: EvaluatedPoint) -> None:
        """Print a line that stays about a point of a path."""
        r = point.result
        solved = f"{r.status.value}, objective {number(r.objective)}, gap {gap_text(r.gap)}, {seconds(r.runtime)}"
        evaluated = "" if point.accuracy is None else f"; {percent(point.pruned)} pruned, {percent(point.accuracy)} right"
        self.last_event, self.last_text = None, ""
        self.print_line(f"{parameter} {point.value:.3g}: {solved}{evaluated}")

    def _show(self) -> None:
        now = time.perf_counter()
        if not self.terminal and now - self.printed_at >= SECONDS_BETWEEN_LINES:
            self.printed_at = now
            self.console.print(self.view(), soft_wrap=True)

    def view(self) -> Text:
        """Return the state of the solve as one line."""
        if self.current or self.last_event is None:
            return Text.assemble((self.clock(), "dim"), "  ", self.current or self.waiting)
        objective, bound, nodes = self.last_event.objective, self.last_event.bound, self.last_event.nodes
        gap = math.inf if objective is None or bound is None else relative_gap(max(objective, bound), min(objective, bound))
        parts = [f"incumbent {number(objective)}", f"bound {number(bound)}", f"gap {gap_text(gap)}"]
        parts += [count_text(nodes, "node")] if nodes else []
        return Text.assemble((self.clock(), "dim"), "  ", "  ".join(parts + ([self.last_text] if self.last_text else [])))


class ProgramsProgress(LiveProgress):
    """The state of every program of a decoupled run; ``each`` says what there is one program per.

    A program reports only its end.  Programs start in order, so of those that are not done the first ones are running.
    """

    def __init__(self, console: Console, each: str) -> None:
        super().__init__(console)
        self.each = each
        self.labels: Sequence[PartLabel] = ()
        self.parts: dict[PartLabel, SolvedPart] = {}
        self.resumed: frozenset[PartLabel] = frozenset()
        self.at_once: int | None = None

    def programs_begin(self, labels: Sequence[PartLabel], finished: Mapping[PartLabel, SolvedPart], at_once: int | None) -> None:
        """Keep the labels of the programs, and those that are finished."""
        self.labels, self.parts, self.resumed, self.at_once = labels, dict(finished), frozenset(finished), at_once

    def program_done(self, label: PartLabel, part: SolvedPart) -> None:
        """Keep a solved program; without a terminal, print a line about it."""
        first = len(self.parts) == len(self.resumed)
        self.parts[label] = part
        if self.terminal:
            return
        if first:
            resumed = f", {len(self.resumed)} of them resumed" if self.resumed else ""
            self.print_line(f"{count_text(len(self.labels), 'program')}, one per {self.each}{resumed}")
        r = part.result
        numbers = f"objective {number(r.objective)}, gap {gap_text(r.gap)}, {seconds(r.runtime)}"
        self.print_line(f"{self.each} {label}: {r.status.value}, {numbers}  ({len(self.parts)} of {len(self.labels)})")

    def state(self, label: PartLabel) -> str:
        """Return the state of a program: a key of `PROGRAM_STYLES`."""
        if label in self.parts:
            return "resumed" if label in self.resumed else "done"
        if self.at_once is None:
            return "at the scheduler"
        return "running" if label in [each for each in self.labels if each not in self.parts][: self.at_once] else "waiting"

    def view(self) -> RenderableType:
        """Return a table of the state of all programs."""
        if not self.labels:
            return Text.assemble((self.clock(), "dim"), "  reading network and images")
        table = make_table(self.each, "state", "status", "objective", "gap", "time", left=3)
        for label in self.labels:
            state, part = self.state(label), self.parts.get(label)
            r = None if part is None else part.result
            cells = () if r is None else (r.status.value, number(r.objective), gap_text(r.gap), seconds(r.runtime))
            table.add_row(str(label), Text(state, style=PROGRAM_STYLES[state]), *cells)
        solved = sum(part.result.status is Status.OPTIMAL for part in self.parts.values())
        counts = f"{len(self.parts)} of {len(self.labels)} done, {solved} optimal"
        heads = "; heads are trained before the first one starts" if self.each == "layer" and len(self.parts) == len(self.resumed) else ""
        return Group(table, Text(f"{self.clock()}  {counts}{heads}", style="dim"))


class StageProgress(LiveProgress):
    """The current stage of a verification: one live line on a terminal, or else one line per stage.

    ``quiet_stages`` leaves out the lines per stage, for runs over many instances.
    """

    def __init__(self, console: Console, *, quiet_stages: bool = False) -> None:
        super().__init__(console)
        self.current = "reading network and property"
        self.quiet_stages, self.total, self.done_before, self.done_now = quiet_stages, 0, 0, 0

    def stage(self, name: str, clauses_open: int) -> None:
        """Show the stage that begins, and the number of clauses that are still open."""
        self.current = f"{name}: {count_text(clauses_open, 'clause')} open"
        if not self.terminal and not self.quiet_stages:
            self.console.print(self.view(), soft_wrap=True)

    def instances_begin(self, left: Sequence[Instance], done: int) -> None:
        """Keep the number of instances, and print how many were done before."""
        self.total, self.done_before, self.current = len(left) + done, done, ""
        if done:
            self.console.print(f"{count_text(done, 'instance')} of {self.total:,} done before", soft_wrap=True)

    def instance_done(self, result: InstanceResult) -> None:
        """Print a line that stays about the result of an instance."""
        self.done_now += 1
        self.print_line(
            f"{self.done_before + self.done_now} of {self.total}  {result.benchmark} {result.network} {result.question}: ",
            (result.verdict, VERDICT_STYLES[result.verdict]),
            f" {result.stage}, {seconds(result.seconds)}" if result.stage else f", {seconds(result.seconds)}",
            f"  ({result.note})" if result.note else "",
        )

    def view(self) -> Text:
        """Return the current stage as one line."""
        count = f"{self.done_before + self.done_now + 1} of {self.total}: " if self.total else ""
        return Text.assemble((self.clock(), "dim"), "  ", count, self.current)
