"""Writes docs/operators.md, the table of operators that are read: ``python -m tests.operators_page``."""

from __future__ import annotations

from pathlib import Path

from mipnet.readers.operator_list import operator_rows

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"

HEAD = """# Operators

The operators that are read from torch modules (`torch.export`) and from ONNX files, and the layers that each is read as;
`mipnet inspect --operators` prints them. Both readers use the same rules. "Exact" means that the layers compute what the operator
computes. A factor is a constant unless both are said to be values. A softmax or log-softmax is read as the last operation only, see
[Reading networks](reading.md#onnx). What depends on constants alone is computed by the reader.

| what it computes | in torch | in ONNX | layers | |
|---|---|---|---|---|
"""


def page() -> str:
    """The text of the page."""
    rows = [f"| {escaped(r.about)} | {r.torch} | {r.onnx} | {r.layers} | {r.exact} |" for r in operator_rows()]
    return HEAD + "\n".join(rows) + "\n"


def escaped(text: str) -> str:
    """A cell of the table: vertical bars would end it."""
    return text.replace("``", "`").replace("`|x|`", "the absolute value of x").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
