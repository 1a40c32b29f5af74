"""``mipnet solve``: the importance scores of a YAML file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mipnet.app.cli.options import (
    Json,
    MemoryLimitOption,
    Output,
    Printing,
    Quiet,
    Set,
    Solver,
    TimeLimitOption,
    load_file,
    option_overrides,
    run_task,
)
from mipnet.app.tasks import TASKS_BY_NAME

if TYPE_CHECKING:
    from mipnet.app.files.solve_file import SolveFile
    from mipnet.app.screen.progress import LiveProgress


def solve(
    file: Annotated[Path, typer.Argument(metavar="MODEL.YAML", help="A YAML file; `mipnet init` writes one.")],
    backend: Solver = None,
    time_limit: TimeLimitOption = None,
    memory_limit: MemoryLimitOption = None,
    set_: Set = None,
    output: Output = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Of a decoupled run: processes; one per core if left out, 0 for none.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a decoupled run: a running dask scheduler, such as tcp://10.0.0.1:8786.")
    ] = None,
    path: Annotated[
        str | None, typer.Option(metavar="NAME=FIRST:LAST[:POINTS]", help="Solve at many loss weights, such as lambda=0.5:20.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Of a decoupled run or a path: keep what an earlier run has finished.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run `mipnet solve`; the help is that of the task."""
    from mipnet.app.files.yaml_source import parse_path
    from mipnet.app.runs.solve import has_parts

    task = TASKS_BY_NAME["importance"]
    options = option_overrides(
        {
            "solve.backend": backend,
            "solve.time_limit": time_limit,
            "solve.memory_limit": memory_limit,
            "solve.workers": workers,
            "solve.scheduler": scheduler,
            "output": output,
        }
    )
    spec = load_file(task.file_class(), file, [*(set_ or []), *options, *([] if path is None else [parse_path(path)])])
    return run_task(task, spec, Printing(as_json, quiet), partial(_progress, spec), resume=resume, keeps_parts=has_parts(spec))


def _progress(file: SolveFile) -> LiveProgress:
    from mipnet.app.screen.progress import LineProgress, ProgramsProgress
    from mipnet.app.screen.tables import make_console

    console, decouple = make_console(stderr=True), file.solve.decouple
    return LineProgress(console) if decouple == "none" else ProgramsProgress(console, decouple)
