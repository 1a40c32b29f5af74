"""The summary of a network in a model, as text, for Rich and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import linopy

from mipnet.formulations.block import Block


@dataclass(frozen=True)
class EncodingSummary:
    """What a network in a model consists of: a title, facts by name, and one row per node under ``heads``.

    ``print(summary)`` shows it as text, `rich.print` in bold heads, and a notebook as a table.
    """

    title: str
    facts: Mapping[str, str]
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __str__(self) -> str:
        return "\n".join([self.title, *self._facts(), *self._table()])

    def __rich__(self) -> str:
        head, *rows = (line.replace("[", "\\[") for line in self._table())
        return "\n".join(
            [f"[bold]{self.title}[/bold]", *(fact.replace("[", "\\[") for fact in self._facts()), f"[bold]{head}[/bold]", *rows]
        )

    def _repr_html_(self) -> str:
        facts = "".join(f"<li>{escape(name)}: {escape(fact)}</li>" for name, fact in self.facts.items())
        head = "".join(f"<th>{escape(each)}</th>" for each in self.heads)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div><b>{escape(self.title)}</b><ul>{facts}</ul>{table}</div>"

    def _facts(self) -> list[str]:
        width = max(map(len, self.facts))
        return [f"  {name:<{width}}  {fact}" for name, fact in self.facts.items()]

    def _table(self) -> list[str]:
        every = [self.heads, *self.rows]
        widths = [max(len(row[i]) for row in every) for i in range(len(self.heads))]
        lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in every]
        return [line.rstrip() for line in lines]


BLOCK_HEADS = ("node", "layer", "formulation", "unstable", "variables", "binaries", "rows")
"""Heads of `block_row`."""


def block_row(model: linopy.Model, block: Block, unstable: int) -> tuple[str, ...]:
    """Return the name, the layer, the formulation and the size of a block."""
    made = [int((each.labels.values >= 0).sum()) for each in block.variables.values()]
    binary = [n for n, each in zip(made, block.variables.values(), strict=True) if each.attrs["binary"]]
    rows = sum(int(model.constraints[name].labels.size) for name in block.constraints if name in model.constraints)
    sizes = (unstable, sum(made), sum(binary), rows)
    return (block.node.name, block.node.layer.label, block.formulation or "-", *(f"{n:,}" for n in sizes))
