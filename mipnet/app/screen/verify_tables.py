"""What `mipnet verify` draws: the stage under way, a table of one verdict, and a table of many by benchmark and stage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mipnet.app.screen.tables import count_text, make_table, number, seconds

if TYPE_CHECKING:
    from mipnet.app.runs.instances import Instance
    from mipnet.app.runs.results_table import Answer

STYLES = {"unsat": "bold green", "sat": "bold red", "unknown": "bold yellow", "timeout": "bold yellow", "error": "bold red"}
MEANING = {
    "unsat": "no input of the set satisfies the property",
    "sat": "an input of the set satisfies it: a counterexample",
    "timeout": "not decided in the time given",
    "unknown": "not decided",
}


class StageProgress:
    """The stage under way: one live line on a terminal, else a line a stage.  Use it as a context manager."""

    def __init__(self, console: Console, *, quiet_stages: bool = False) -> None:
        self.console, self.began, self.doing = console, time.perf_counter(), "reading network and property"
        self.quiet_stages, self.total, self.done_before, self.done_now = quiet_stages, 0, 0, 0
        self.live = Live(console=console, get_renderable=self.line, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> StageProgress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def stage(self, name: str, left: int) -> None:
        """Take note that a stage begins, with so many clauses open."""
        self.doing = f"{name}: {count_text(left, 'clause')} open"
        if self.live is None and not self.quiet_stages:
            self.console.print(self.line(), soft_wrap=True)

    def begin(self, rest: Sequence[Instance], done: int) -> None:
        """Take note of how many instances there are, and how many were done before."""
        self.total, self.done_before, self.doing = len(rest) + done, done, ""
        if done:
            self.console.print(f"{count_text(done, 'instance')} of {self.total:,} done before", soft_wrap=True)

    def done(self, answer: Answer) -> None:
        """Tell of an answer, for good."""
        self.done_now += 1
        named = f"{answer.benchmark} {answer.network} {answer.question}"
        told = Text.assemble(
            (self._clock(), "dim"),
            f"  {self.done_before + self.done_now} of {self.total}  {named}: ",
            (answer.verdict, STYLES[answer.verdict]),
            f" {answer.stage}, {seconds(answer.seconds)}" if answer.stage else f", {seconds(answer.seconds)}",
            f"  ({answer.note})" if answer.note else "",
        )
        self.console.print(told, soft_wrap=True)

    def _clock(self) -> str:
        return f"{time.perf_counter() - self.began:6.1f} s"

    def line(self) -> Text:
        """What is being done, as one line."""
        count = f"{self.done_before + self.done_now + 1} of {self.total}: " if self.total else ""
        return Text.assemble((self._clock(), "dim"), "  ", count, self.doing)


def verdict_report(record: Mapping[str, Any], *, plain: bool = False) -> RenderableType:
    """A verdict and what it rests on, from `mipnet.app.runs.vnncomp.to_record`; ``plain`` lines where there is no terminal."""
    rows = list(_verdict_rows(record))
    if plain:
        return Text("\n".join(f"{name}: {value}" for name, value in rows))
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _verdict_rows(record: Mapping[str, Any]) -> list[tuple[str, Text]]:
    word = record["verdict"]
    refuted, total = record["refuted"], len(record["clauses"])
    told = [f"{count:,} refuted by {stage}" for stage, count in refuted.items()]
    told += [f"{total - sum(refuted.values()):,} open"] if sum(refuted.values()) < total else []
    rows = [
        ("verdict", Text.assemble((word, STYLES[word]), f", {MEANING[word]}" + (" (interrupted)" if record["interrupted"] else ""))),
        ("stage", Text(record["stage"] or "-")),
        ("clauses", Text(", ".join(told) or "none")),
        ("bound", Text(number(record["bound"]))),
        ("time", Text(seconds(record["seconds"]))),
        ("search", Text(f"{count_text(record['parts'], 'part')}, {count_text(record['nodes'], 'node')} of {record['backend']}")),
    ]
    rows += [("confirmed", Text(f"by {record['confirmed_by']}"))] if record["confirmed_by"] else []
    rows += [("note", Text(record["note"], style="yellow"))] if record["note"] else []
    return rows


def summary_report(found: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """By benchmark: the counts of each word, by stage, and times; from `mipnet.app.runs.instances.summary`."""
    table = make_table("benchmark", "decided by", "unsat", "sat", left=2)
    lines = []
    for name, group in found.items():
        stages = [(stage, counts) for stage, counts in group["stages"].items() if counts["unsat"] or counts["sat"]]
        for place, (stage, counts) in enumerate(stages):
            table.add_row("" if place else name, stage, f"{counts['unsat']:,}", f"{counts['sat']:,}")
        table.add_row(name if not stages else "", "all", f"{group['unsat']:,}", f"{group['sat']:,}", style="bold")
        table.add_section()
        rest = ", ".join(f"{group[word]:,} {word}" for word in ("timeout", "unknown", "error") if group[word])
        decided = f"{name}: {group['unsat'] + group['sat']:,} of {count_text(group['instances'], 'instance')} decided"
        times = f"median {seconds(group['median_s'])}, together {seconds(group['total_s'])}"
        lines.append(Text(f"{decided}{', ' + rest if rest else ''}; {times}"))
    return Group(table, *lines)
