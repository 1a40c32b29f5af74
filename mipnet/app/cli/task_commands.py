"""The commands that take nothing but a YAML file: one for each row of `mipnet.app.tasks` without a command of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mipnet.app.cli.options import (
    Json,
    MemoryLimitOption,
    Output,
    Printing,
    Quiet,
    Resume,
    Set,
    Solver,
    TimeLimitOption,
    load_file,
    option_overrides,
    run_task,
)
from mipnet.app.tasks import Task, find_task

TaskFile = Annotated[Path, typer.Argument(metavar="FILE.YAML", help="A YAML file of this task; `mipnet schema TASK` prints its keys.")]

SOLVE_OPTIONS = ("time_limit", "memory_limit", "backend")
"""The options that set a key of the section ``solve``."""


class TaskCommand(TyperCommand):
    """The command of a task; it has the options `SOLVE_OPTIONS` only if its files have these keys, and ``--resume`` only if it resumes."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the command; reads the file class, which ``mipnet --help`` does not need."""
        from mipnet.app.files.key_errors import known_keys

        task = find_task(str(self.name))
        left_out = set(SOLVE_OPTIONS) - set(known_keys(task.file_class(), ("solve",))) | (set() if task.resumes else {"resume"})
        return [each for each in super().get_params(ctx) if each.name not in left_out]


def task_command(task: Task) -> Callable[..., int]:
    """Return the command of a task."""

    def command(
        file: TaskFile,
        time_limit: TimeLimitOption = None,
        memory_limit: MemoryLimitOption = None,
        backend: Solver = None,
        output: Output = None,
        resume: Resume = False,
        set_: Set = None,
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        from mipnet.app.screen.progress import LineProgress
        from mipnet.app.screen.tables import make_console

        options = option_overrides(
            {"solve.time_limit": time_limit, "solve.memory_limit": memory_limit, "solve.backend": backend, "output": output}
        )
        spec = load_file(task.file_class(), file, [*(set_ or []), *options])

        def progress() -> LineProgress:
            return LineProgress(make_console(stderr=True), f"{task.command} {file}")

        return run_task(task, spec, Printing(as_json, quiet), progress, resume=resume, keeps_parts=task.resumes)

    return command
