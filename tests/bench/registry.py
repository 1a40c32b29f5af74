"""What `make bench` measures, and the page it writes."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
VERSIONS = ("mipnet", "linopy", "xarray", "numpy", "scipy", "torch", "highspy", "pyscipopt")

HEAD = """# Benchmarks

This page is written by `make bench`. Each number was measured on one machine on one day. Compare the ratios: the runs that a ratio
compares were alternated. Times are CPU times, the best of five runs.
"""

Row = Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Bench:
    """One line of a table: its name, how it is measured, and in what unit each column stands."""

    name: str
    run: Callable[[], Row]
    unit: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Section:
    """A table of the page, with what is said above it; ``packages`` are those beyond `VERSIONS` that it depends on."""

    title: str
    text: str
    benches: tuple[Bench, ...]
    packages: tuple[str, ...] = ()


Measured = Mapping[str, Row]


def page(old: str, sections: Mapping[Section, Measured]) -> str:
    """The page with these sections measured anew, each with a table of its own; sections that were not run stay as they are."""
    kept = {part.partition("\n")[0]: part for part in old.split("\n## ")[1:]}
    kept |= {s.title: f"{s.title}\n\n{s.text.strip()}\n\n{_table(s, rows)}\n{where_measured(s.packages)}" for s, rows in sections.items()}
    return HEAD + "".join(f"\n## {part.strip()}\n" for part in kept.values())


def where_measured(packages: tuple[str, ...] = ()) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in (*VERSIONS, *packages))
    return f"Measured on {datetime.date.today()}: {_processor()}, {platform.system()}, Python {platform.python_version()}, {versions}."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _table(section: Section, rows: Measured) -> str:
    units = section.benches[0].unit
    lines = [
        "| | " + " | ".join(f"{column} ({unit})" if unit else column for column, unit in units.items()) + " |",
        "|---|" + "---:|" * len(units),
    ]
    lines += [f"| {name} | " + " | ".join(_shown(values.get(column)) for column in units) + " |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
