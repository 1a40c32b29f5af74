"""What `mipnet verify` prints: one verdict, or a table of many by benchmark and stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from mipnet.app.screen.tables import count_text, make_table, number, pairs, seconds

VERDICT_STYLES = {"unsat": "bold green", "sat": "bold red", "unknown": "bold yellow", "timeout": "bold yellow", "error": "bold red"}
VERDICT_MEANINGS = {
    "unsat": "no input of the set satisfies the property",
    "sat": "an input of the set satisfies it: a counterexample",
    "timeout": "not decided in the time given",
    "unknown": "not decided",
}


def print_verdict(record: Mapping[str, Any], console: Console) -> None:
    """Print the record of a verdict as a table on a terminal, or as plain lines."""
    console.print(verdict_report(record, plain=not console.is_terminal), soft_wrap=not console.is_terminal)


def verdict_report(record: Mapping[str, Any], *, plain: bool = False) -> RenderableType:
    """Return a table of a verdict from `mipnet.app.runs.vnncomp.verdict_record`, or ``plain`` lines."""
    rows = list(_verdict_rows(record))
    if plain:
        return Text("\n".join(f"{name}: {value}" for name, value in rows))
    return pairs(rows)


def _verdict_rows(record: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    word = record["verdict"]
    refuted, total = record["refuted"], len(record["clauses"])
    counts = [f"{count:,} refuted by {stage}" for stage, count in refuted.items()]
    counts += [f"{total - sum(refuted.values()):,} open"] if sum(refuted.values()) < total else []
    interrupted = " (interrupted)" if record["interrupted"] else ""
    work = f"{count_text(record['parts'], 'branch', 'branches')}, {count_text(record['nodes'], 'node')} of {record['backend']}"
    rows: list[tuple[str, str | Text]] = [
        ("verdict", Text.assemble((word, VERDICT_STYLES[word]), f", {VERDICT_MEANINGS[word]}{interrupted}")),
        ("stage", Text(record["stage"] or "-")),
        ("clauses", Text(", ".join(counts) or "none")),
        ("bound", Text(number(record["bound"]))),
        ("time", Text(seconds(record["seconds"]))),
        ("search", Text(work)),
    ]
    rows += [("confirmed", Text(f"by {record['confirmed_by']}"))] if record["confirmed_by"] else []
    rows += [("note", Text(record["note"], style="yellow"))] if record["note"] else []
    rows += [("warning", Text(text, style="bold yellow")) for text in record["warnings"]]
    return rows


def summary_report(found: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Return, per benchmark, the numbers of verdicts by stage, and times, from `mipnet.app.runs.results_table.summary`."""
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
