"""``mipnet reach``, ``agree``, ``compress``, ``distortion`` and ``margin``: each answers a YAML file of the task of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mipnet.cli_parts import Json, Quiet, Set, print_json

Asking = Annotated[Path, typer.Argument(metavar="FILE.YAML", help="Which network, over which inputs.")]
Seconds = Annotated[float | None, typer.Option(metavar="SECONDS", help="When to stop.")]
Solver = Annotated[str | None, typer.Option(help="The solver for what cheaper stages leave, such as highs or scip.")]
Folder = Annotated[str | None, typer.Option(metavar="DIR", help="The run folder.")]


def add_commands(app: typer.Typer) -> None:
    """Give the command line these commands."""
    for command in (reach, agree, compress, distortion, margin):
        app.command()(command)


def reach(
    file: Asking,
    time_limit: Seconds = None,
    backend: Solver = None,
    output: Folder = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Certify between which values outputs lie, with inputs that attain them.

    Exit status: 0 found to the tolerance, 1 not, 2 wrong input, 130 after Ctrl-C.
    """
    return _run("reach", file, time_limit, backend, output, set_, as_json, quiet)


def agree(
    file: Asking,
    time_limit: Seconds = None,
    backend: Solver = None,
    output: Folder = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Certify by how much two networks differ, or that they name the same class.

    Exit status: 0 proven, 1 not, or a point where they do not agree, 2 wrong input, 130 after Ctrl-C.
    """
    return _run("agree", file, time_limit, backend, output, set_, as_json, quiet)


def compress(
    file: Asking,
    time_limit: Seconds = None,
    backend: Solver = None,
    output: Folder = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make a smaller network that is equal over the set, and prove it.

    Exit status: 0 proven equal, 1 not, 2 wrong input, 130 after Ctrl-C.
    """
    return _run("compress", file, time_limit, backend, output, set_, as_json, quiet)


def distortion(
    file: Asking,
    time_limit: Seconds = None,
    backend: Solver = None,
    output: Folder = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Certify how far from an image the answer holds, with the nearest input found at which it changes.

    Exit status: 0 found to the tolerance, 1 not, 2 wrong input, 130 after Ctrl-C.
    """
    return _run("distortion", file, time_limit, backend, output, set_, as_json, quiet)


def margin(
    file: Asking,
    time_limit: Seconds = None,
    backend: Solver = None,
    output: Folder = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Certify by how much another class gets ahead of the answer over a set, with an input that attains it.

    Exit status: 0 found to the tolerance, 1 not, 2 wrong input, 130 after Ctrl-C.
    """
    return _run("margin", file, time_limit, backend, output, set_, as_json, quiet)


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
    from mipnet import reaching
    from mipnet.specfile import Override

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
