"""The command line: all commands, and how errors and warnings are shown.

Exit status: 0 success, 1 no success or a failure of the machine, 2 wrong input, 130 after Ctrl-C or SIGTERM.  Modules that take long
to import are imported inside the commands, so that ``mipnet --help`` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from traceback import walk_tb
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from mipnet.app.cli import commands_without_task
from mipnet.app.cli.endings import OwnProcess
from mipnet.app.cli.options import task_help
from mipnet.app.cli.solve import solve
from mipnet.app.cli.task_commands import TaskCommand, task_command
from mipnet.app.cli.unexpected import report
from mipnet.app.cli.verify import verify
from mipnet.app.tasks import IMPORT_HINT, TASKS_BY_NAME
from mipnet.errors import FAILURES_OF_THE_RUN, MipnetError
from mipnet.limits.disk import ERRORS_OF_MACHINE
from mipnet.version import __version__

OWN_COMMANDS: dict[str, Callable[..., int]] = {"importance": solve, "verify": verify}
"""The tasks whose command has more options than `mipnet.app.cli.task_commands.task_command`."""

LINE_CHARACTERS_MAX = 1000
"""A longer message is cut in the middle."""


def command_line() -> typer.Typer:
    """Return the command line: one command for each task, and those without a task."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(top)
    for task in TASKS_BY_NAME.values():
        own = OWN_COMMANDS.get(task.name)
        kind = TyperCommand if own else TaskCommand
        app.command(task.command, cls=kind, help=task_help(task), short_help=task.summary)(own or task_command(task))
    app.command()(commands_without_task.inspect)
    app.command()(commands_without_task.bounds)
    app.command("backends")(commands_without_task.list_backends)
    app.command()(commands_without_task.init)
    app.command()(commands_without_task.schema)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; every error is one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            status = _run(given)
            sys.stdout.flush()
            return status
        except BrokenPipeError as error:
            _drop_output(error)
            return 1
        except (KeyboardInterrupt, typer.Abort):
            return _fail("interrupted", 130)
        except FAILURES_OF_THE_RUN as error:
            return _fail(str(error), 1)
        except MipnetError as error:
            return _fail(str(error))
        except OSError as error:
            return _fail(_system_words(_drop_output(error)), 1 if error.errno in ERRORS_OF_MACHINE else 2)
        except MemoryError as error:
            hint = "try fewer images or a smaller network, or set --memory-limit"
            return _fail(f"memory ended{_in_function(error)}; {hint}", 1)
        except Exception as error:
            if not hasattr(error, "format_message"):  # every usage error of typer has one
                return _fail(report(error, given), 1)
            said = _with_given(error.format_message(), given)
            hint = f"; {IMPORT_HINT}" if said.startswith("No such command") else ""
            return _fail(f"{said} (see `mipnet --help`{hint})")


def _with_given(said: str, arguments: list[str]) -> str:
    """Return the message of typer for a wrong value of an option, with the value in place of typer's words about numbers."""
    found = re.fullmatch(r"Invalid value for '(--?[\w-]+)[^']*': Input should be a valid (\w+)\b.*", said)
    if found is None:
        return said
    following = [each for name, each in pairwise(arguments) if name == found[1]]
    values = following or [each.partition("=")[2] for each in arguments if each.startswith(f"{found[1]}=")]
    return f"{found[1]}: got `{values[-1]}`; expected a {found[2].replace('integer', 'whole number')}" if values else said


def run_and_exit() -> NoReturn:
    """Run the command line in a process of its own and end that process; SIGTERM ends a command as Ctrl-C does."""
    process = OwnProcess()
    process.end(main())


def _run(arguments: list[str]) -> int:
    """Run a command; typer's own ``main`` would end with status 130 after Ctrl-C, without a word."""
    command = typer.main.get_command(command_line())
    try:
        with command.make_context("mipnet", arguments) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as ended:
        return ended.exit_code


def _drop_output(error: OSError) -> OSError:
    """Return the error; if it is that standard output takes nothing any more, name it, and let the flush at exit end nowhere."""
    if error.filename is not None:
        return error
    try:
        print(flush=True)  # only to see whether it is taken
    except OSError as refused:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        refused.filename = "standard output"
        return refused
    return error


def _system_words(error: OSError) -> str:
    """Return an error of the operating system as a message: the file, and what is wrong with it."""
    said = " ".join(str(error.strerror or error).split())
    return f"`{error.filename}`: {said[:1].lower()}{said[1:]}" if error.filename else said


def _in_function(error: BaseException) -> str:
    """Return the function of mipnet in which an error was raised, and what the error says, in words."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if str(frame.f_globals.get("__name__")).startswith("mipnet.")]
    place = f" in {frames[-1].f_globals['__name__']}.{frames[-1].f_code.co_name}" if frames else ""
    return f"{place} ({error})" if str(error) else place


def _fail(message: str, status: int = 2) -> int:
    print(f"error: {_one_line(message)}", file=sys.stderr)
    return status


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"warning: {_one_line(str(message))}", file=sys.stderr)


def _one_line(text: str) -> str:
    """Return a text in one line; of a very long one, such as a path of thousands of characters, the beginning and the end."""
    line = " ".join(text.split())
    half = LINE_CHARACTERS_MAX // 2
    return line if len(line) <= LINE_CHARACTERS_MAX else f"{line[:half]} ... {line[-half:]}"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mipnet {__version__}")
        raise typer.Exit


def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Trained neural networks as mixed-integer programs, on open solvers."""
    if context.invoked_subcommand is None:
        print(context.get_help())
