"""What the commands share: options, overrides from options, and how a task is run and its result printed and saved."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from inspect import getattr_static
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from mipnet.app.cli.endings import finish_writing
from mipnet.app.tasks import Task
from mipnet.errors import InputError

if TYPE_CHECKING:
    from mipnet.app.files.base import SpecFile
    from mipnet.app.files.yaml_source import Override
    from mipnet.app.runs.listener import RunListener
    from mipnet.app.runs.result import RunResult

LoadedFile = TypeVar("LoadedFile", bound="SpecFile")

TimeLimitOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="The time limit.")]
MemoryLimitOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help='The memory limit of this process, such as "4 GB"; a share of what is free if left out.')
]
Solver = Annotated[str | None, typer.Option(help="The solver, such as highs or scip.")]
Output = Annotated[str | None, typer.Option(metavar="DIR", help="The run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables; only warnings and errors.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the file, such as solve.mip_gap=1e-3. May be repeated.")
]


Resume = Annotated[bool, typer.Option("--resume", help="Keep what an earlier run of the same file has finished.")]

RESULT_ATTRIBUTES = ("file", "status", "record", "lines", "write_files")
"""The attributes of a `mipnet.app.runs.result.RunResult`."""


class Printing(NamedTuple):
    """What a command prints: one JSON object, nothing, or tables (neither)."""

    as_json: bool
    quiet: bool


def print_json(data: Any) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(data, indent=2, allow_nan=False), flush=True)


def print_warnings(texts: Iterable[str]) -> None:
    """Print the warnings of a result on standard error, one line each."""
    for text in texts:
        print(f"warning: {' '.join(text.split())}", file=sys.stderr, flush=True)


def option_overrides(options: Mapping[str, Any], names: Mapping[str, str] | None = None) -> list[Override]:
    """Return the overrides of the options that are given (not None), by the dotted key that each sets.

    An option has the name of the last part of its key, with hyphens, unless ``names`` has another: ``--time-limit`` sets
    ``solve.time_limit``.
    """
    from mipnet.app.files.yaml_source import Override

    found = []
    for key, value in options.items():
        if value is not None:
            name = (names or {}).get(key) or key.rpartition(".")[2].replace("_", "-")
            found.append(Override(tuple(key.split(".")), value, f"--{name} {value}"))
    return found


def load_file(kind: type[LoadedFile], path: str | Path, overrides: Sequence[Override | str] = ()) -> LoadedFile:
    """Read a YAML file as a file of this class, and load what a run of it and its end need.

    So its time limit does not count that, and the result comes soon after Ctrl-C.
    """
    from mipnet.app.files.base import load_as
    from mipnet.readers.libraries import load_libraries

    file = load_as(kind, path, overrides)
    load_libraries(file.texts)
    import_module("mipnet.app.screen.report")
    return file


def run_task(
    task: Task,
    file: SpecFile,
    printing: Printing,
    progress: Callable[[], AbstractContextManager[RunListener]],
    *,
    resume: bool,
    keeps_parts: bool,
) -> int:
    """Run a task with its progress, finish the result, and return the exit status.

    Ctrl-C before there is a result says what a task that ``keeps_parts`` keeps.
    """
    from mipnet.app.runs.folder import own_output
    from mipnet.app.runs.listener import RunListener
    from mipnet.app.runs.resume import interrupted_text

    run, more = task.run_function(), {"resume": resume} if task.resumes else {}
    with own_output(file):
        try:
            with nullcontext(RunListener()) if printing.quiet else progress() as listener:
                result = run(file, listener, **more)
        except KeyboardInterrupt:
            if not keeps_parts:
                raise
            print(f"error: {interrupted_text(file)}", file=sys.stderr)
            return 130
        return finish(task, result, printing)


def finish(task: Task, result: RunResult, printing: Printing) -> int:
    """Print a result, save its run folder, and return the exit status; the folder is saved even if standard output is closed.
    A result that cannot be saved is printed as JSON.

    Raises `InputError` if the run function of the task did not return a result.
    """
    from mipnet.app.runs.result import INTERRUPTED_STATUS
    from mipnet.app.runs.resume import kept_parts_text
    from mipnet.app.screen.report import show_result
    from mipnet.app.screen.tables import make_console

    _check_result(task, result)
    with finish_writing():
        try:
            if printing.as_json:
                print_json(result.record)
            elif not printing.quiet:
                show_result(result, make_console())
            if printing.as_json or printing.quiet:
                print_warnings(getattr(result, "warnings", None) or ())
        finally:
            folder = _save(task, result, printing)
        if folder is not None and not printing.as_json and not printing.quiet:
            print(f"written to {folder}")
        if result.status == INTERRUPTED_STATUS and task.resumes and (kept := kept_parts_text(result.file)):
            print(kept, file=sys.stderr)
    return result.status


def _save(task: Task, result: RunResult, printing: Printing) -> Any:
    """Save the run folder of a result; if the disk does not take it, print the record, unless that is printed already."""
    try:
        return task.save_function()(result)
    except OSError:
        if not printing.as_json:
            print_json(result.record)
        raise


def _check_result(task: Task, result: Any) -> None:
    if any(getattr_static(result, name, _check_result) is _check_result for name in RESULT_ATTRIBUTES):
        raise InputError(
            f"the run function of task `{task.name}` returned {'None' if result is None else f'a `{type(result).__name__}`'};"
            " expected a result, such as `TaskResult(file, record, lines)`"
        )


def task_help(task: Task) -> str:
    """Return the help of a task's command."""
    return f"{task.help}\n\nExit status: 0 {task.success}, 1 otherwise, 2 wrong input, 130 after Ctrl-C or SIGTERM."
