"""Tables and texts that all reports share, drawn with Rich; made for 80 columns, with colour for what needs attention."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that colours nothing by itself."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def number(value: float | None, digits: int = 6) -> str:
    """Return a number as tables show it; a dash for one that is infinite or unknown."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a percentage as tables show it; a dash for one that is infinite or unknown."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f} %"


def gap_text(gap: float) -> str:
    """Return a relative gap in percent, with two significant digits."""
    return "-" if not math.isfinite(gap) else f"{100 * gap:.2g} %"


def seconds(value: float) -> str:
    """Return a time in seconds, with two decimals below ten seconds."""
    return f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def count_text(count: int, singular: str, plural: str = "") -> str:
    """Return a number of things, such as ``1 node`` or ``2 nodes``; the plural adds an ``s`` if it is not given."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def size_text(size: Mapping[str, int]) -> str:
    """Return the size of a program in words; integer columns and nonlinear constraints only if there are any."""
    kinds = {"rows": "row", "columns": "column", "nonzeros": "nonzero", "integers": "integer column", "special": "nonlinear constraint"}
    if not size:  # the time ended before
        return "not written"
    return ", ".join(count_text(size[key], word) for key, word in kinds.items() if size.get(key) or key in ("rows", "columns", "nonzeros"))


def make_table(*columns: str, left: int = 1) -> Table:
    """Return a table without vertical lines; all columns but the first ``left`` are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    return table


def section(title: str, body: RenderableType) -> RenderableType:
    """Return a title with an indented body below it."""
    return Group(Text(title, style="bold"), Padding(body, (0, 0, 1, 2), expand=False))


def pairs(rows: Sequence[tuple[str, str | Text]]) -> Table:
    """Return a table of names and values without a head."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def warning_lines(warnings: Iterable[str]) -> list[Text]:
    """Return a line per warning."""
    return [Text(f"warning: {warning}", style="bold yellow") for warning in warnings]


def note_lines(notes: Iterable[str]) -> list[Text]:
    """Return a line per note."""
    return [Text(f"note: {note}", style="yellow") for note in notes]
