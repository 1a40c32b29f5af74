"""``mipnet reach``, ``agree``, ``compress``, ``distortion`` and ``margin``: each answers a YAML file of the task of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mipnet.app.cli.options import Json, Quiet, Set, print_json

Asking = Annotated[Path, typer.Argument(metavar="FILE.YAML", help="Which network, over which inputs.")]
Seconds = Annotated[float | None, typer.Option(metavar="SECONDS", help="When to stop.")]
Solver = Annotated[str | None, typer.Option(help="The solver for what cheaper stages leave, such as highs or scip.")]
Folder = Annotated[str | None, typer.Option(metavar="DIR", help="The run folder.")]


COMMANDS = {
    "reach": ("Certify between which values outputs lie, with inputs that attain them.", "found to the tolerance, 1 not"),
    "agree": (
        "Certify by how much two networks differ, or that they name the same class.",
        "proven, 1 not, or a point where they do not agree",
    ),
    "compress": ("Make a smaller network that is equal over the set, and prove it.", "proven equal, 1 not"),
    "distortion": (
        "Certify how far from an image the answer holds, with the nearest input found at which it changes.",
        "found to the tolerance, 1 not",
    ),
    "margin": (
        "Certify by how much another class gets ahead of the answer over a set, with an input that attains it.",
        "found to the tolerance, 1 not",
    ),
}
"""What each command does, and what exit status 0 says."""


def add_commands(app: typer.Typer) -> None:
    """Give the command line these commands."""
    for task, (what, good) in COMMANDS.items():
        app.command(task, help=f"{what}\n\nExit status: 0 {good}, 2 wrong input, 130 after Ctrl-C.")(_command(task))


def _command(task: str) -> Callable[..., int]:
    """The command of a task: they all take the same."""

    def command(
        file: Asking,
        time_limit: Seconds = None,
        backend: Solver = None,
        output: Folder = None,
        set_: Set = None,
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        return _run(task, file, time_limit, backend, output, set_, as_json, quiet)

    return command


def _run(
    task: str,
    file: Path,
    time_limit: float | None,
    backend: str | None,
    output: str | None,
    sets: list[str] | None,
    as_json: bool,
    quiet: bool,
) -> int:
    from mipnet.app.files.source import Override
    from mipnet.app.runs import certify as reaching

    given = (
        (("solve", "time_limit"), time_limit, "--time-limit"),
        (("solve", "backend"), backend, "--backend"),
        (("output",), output, "--output"),
    )
    overrides = [Override(keys, value, f"{option} {value}") for keys, value, option in given if value is not None]
    done = reaching.run_range(reaching.load_range(file, [*(sets or []), *overrides], task))
    folder = reaching.save(done)
    if as_json:
        print_json(done.record)
    elif not quiet:
        print("\n".join([*done.lines, *([] if folder is None else [f"written to {folder}"])]))
    return done.status
