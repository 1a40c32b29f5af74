"""What `mipnet compare` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mipnet.app.runs.compare import ComparisonRun
from mipnet.app.screen.tables import count_text, make_table, note_lines, percent, section, warning_lines
from mipnet.pruning.rivals.comparison_table import ComparisonTable


def comparison_report(run: ComparisonRun) -> RenderableType:
    """Return the better ranking of every method per share, best first, and the number of rivals that the compared scores equal or beat."""
    notes = [*note_lines(run.notes), *warning_lines(run.warnings)]
    if (found := run.table) is None:
        return Group(*notes)
    title = f"Accuracy on {count_text(found.holdout, 'held-out image')}, {percent(found.reference, 2)} without masks"
    won = [f"{sum(found.beaten(t).values())} of {len(found.beaten(t))} at {percent(100 * t, 0)}" for t in found.targets]
    return Group(section(title, _method_table(found)), Text(f"Rivals that {found.name} equals or beats: {', '.join(won)}."), *notes)


def _method_table(found: ComparisonTable) -> Table:
    table = make_table("share", "method", "ranking", "pruned", "accuracy", "spread", "lost", left=3)
    for target in found.targets:
        for place, row in enumerate(sorted((found.best(name, target) for name in found.methods), key=lambda row: -row.accuracy)):
            cells = (percent(100 * row.share), percent(row.accuracy, 2), f"{row.spread:.2f}" if row.spread else "")
            first = "" if place else percent(100 * target, 0)
            style = "bold" if row.rival == found.name else None
            table.add_row(first, row.rival, row.ranking, *cells, f"{found.reference - row.accuracy:.2f}", style=style)
        table.add_section()
    return table
