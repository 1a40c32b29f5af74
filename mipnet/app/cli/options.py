"""What the commands share: options that mean the same everywhere, and JSON on standard output."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables; only warnings and errors.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the file, such as solve.mip_gap=1e-3. May be repeated.")
]


def print_json(data: Any) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(data, indent=2, allow_nan=False), flush=True)
