"""The command line: ``mipnet solve model.yaml`` and what helps to write that file.

Exit status: 0 solved, with a point that survived its replay; 1 no point, or it did not survive; 2 wrong input, in one line on
standard error; 130 after Ctrl-C (the best point so far is shown first, or finished parts are kept for ``--resume``).  Heavy modules
are imported inside the commands, so that ``mipnet --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mipnet.app.cli.certify import add_commands
from mipnet.app.cli.options import Json, Quiet, Set, print_json
from mipnet.app.cli.verify import verify
from mipnet.errors import InputError, MipnetError
from mipnet.version import __version__

if TYPE_CHECKING:
    from mipnet.app.files.solve_file import Spec
    from mipnet.app.files.source import Override
    from mipnet.app.runs.record import Run
    from mipnet.backend import FoundBackend

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

app.command()(verify)
add_commands(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; whatever the user can mend is told in one line on standard error."""
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            return int(app(list(sys.argv[1:] if arguments is None else arguments), prog_name="mipnet", standalone_mode=False) or 0)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit does not fail as well
            return 1
        except (KeyboardInterrupt, typer.Abort):
            return _fail("interrupted", 130)
        except MipnetError as error:
            return _fail(str(error))
        except OSError as error:
            return _fail(f"`{error.filename}`: {(error.strerror or str(error)).lower()}" if error.filename else str(error))
        except MemoryError:
            return _fail("out of memory; try fewer images, or a smaller network")
        except Exception as error:
            if not hasattr(error, "format_message"):  # every usage error of typer has one
                raise
            return _fail(f"{error.format_message()} (see `mipnet --help`)")


def _fail(message: str, status: int = 2) -> int:
    print(f"error: {_one_line(message)}", file=sys.stderr)
    return status


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"warning: {_one_line(str(message))}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mipnet {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Trained neural networks as mixed-integer programs, on open solvers."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def solve(
    file: Annotated[Path, typer.Argument(metavar="MODEL.YAML", help="What to ask; `mipnet init` writes one.")],
    backend: Annotated[str | None, typer.Option(help="The solver, such as highs or scip.")] = None,
    time_limit: Annotated[float | None, typer.Option(metavar="SECONDS", help="When to stop.")] = None,
    set_: Set = None,
    output: Annotated[str | None, typer.Option(metavar="DIR", help="The run folder.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Decoupled: processes; one a core if left out, 0 for none.")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Decoupled: a running dask scheduler, tcp://...")] = None,
    path: Annotated[str | None, typer.Option(metavar="NAME=FIRST:LAST[:POINTS]", help="Many weights, such as lambda=0.5:20.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Decoupled: keep what an earlier run has finished.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Solve a YAML file and show what came of it.

    Exit status: 0 solved, 1 no point or a wrong one, 2 wrong input, 130 after Ctrl-C.
    """
    from mipnet.app.files.source import Override, parse_path
    from mipnet.app.runs import record as records
    from mipnet.app.runs import resume as parts
    from mipnet.app.runs import solve as runs
    from mipnet.app.screen import tables as report

    given = (
        (("solve", "backend"), backend, "--backend"),
        (("solve", "time_limit"), time_limit, "--time-limit"),
        (("solve", "workers"), workers, "--workers"),
        (("solve", "scheduler"), scheduler, "--scheduler"),
        (("output",), output, "--output"),
    )
    overrides = [Override(keys, value, f"{option} {value}") for keys, value, option in given if value is not None]
    overrides += [] if path is None else [parse_path(path)]
    spec = _spec(file, set_, overrides)
    try:
        run = _run(spec, resume, quiet)
    except KeyboardInterrupt:
        return _fail(f"interrupted{parts.what_is_kept(spec)}", 130)
    try:
        if as_json:
            print_json(records.to_json(run))
        elif not quiet:
            report.make_console().print(report.run_report(run))
    finally:  # also if nobody reads any more
        folder = runs.save(run)
    if folder is not None and not as_json and not quiet:
        print(f"written to {folder}")
    return _status(run)


def _run(spec: Spec, resume: bool, quiet: bool) -> Run:
    """The run of a spec, with progress on standard error unless it is to be quiet."""
    from mipnet.app.runs import solve as runs
    from mipnet.app.screen import progress as live
    from mipnet.app.screen import tables as report

    if quiet:
        return runs.run_importance(spec, resume=resume)
    console = report.make_console(stderr=True)
    if spec.solve.decouple != "none":
        with live.PartsProgress(console, spec.solve.decouple) as watch:
            return runs.run_importance(spec, watch=watch, resume=resume)
    with live.Progress(console) as progress:
        on_step = None if spec.solve.path is None else partial(progress.done, spec.solve.path)
        return runs.run_importance(spec, progress.hear, on_step=on_step, resume=resume)


def _spec(file: Path, sets: Sequence[str] | None, overrides: Sequence[Override] = ()) -> Spec:
    from mipnet.app.files.solve_file import load_spec

    return load_spec(file, [*(sets or []), *overrides])


def _status(run: Run) -> int:
    return 130 if run.interrupted else 0 if run.good else 1


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="MODEL.YAML|NET.PT2|NET.ONNX", help="A YAML file, or an exported network.")],
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Show a network, its gates and its program's size."""
    from mipnet.app.runs import inputs as questions
    from mipnet.app.runs import record as records
    from mipnet.app.screen import tables as report
    from mipnet.readers.files import NETWORK_SUFFIXES, WEIGHT_SUFFIXES, read, suffix_of

    if suffix_of(file) in (*NETWORK_SUFFIXES, *WEIGHT_SUFFIXES):
        if set_:
            raise InputError(f"--set changes keys of a YAML file, and `{file}` is a network; leave it out")
        description = records.describe(read(file))
    else:
        spec = _spec(file, set_)
        asked = questions.ask(spec)
        description = records.describe(asked.network, questions.pose(spec, asked), questions.backend_if_there(spec))
    if as_json:
        print_json(description)
    else:
        report.make_console().print(report.network_report(description))


@app.command()
def backends(as_json: Json = False) -> None:
    """List the solvers and what each can do."""
    from mipnet.app.screen import tables as report
    from mipnet.backend import contract as backend

    found = backend.backends()
    if as_json:
        print_json({"backends": [_backend(each) for each in found]})
    else:
        report.make_console().print(report.backends_table(found))


def _backend(found: FoundBackend) -> dict[str, Any]:
    usable = found.backend if not found.problem else None
    return {
        "name": found.name,
        "available": usable is not None,
        "version": None if usable is None else usable.version(),
        "problem": found.problem or None,
        "features": sorted(feature.value for feature in found.backend.features) if found.backend is not None else [],
    }


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The file to write.")] = Path("model.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write a YAML file with all keys explained."""
    template = files("mipnet.app.files").joinpath("template.yaml").read_text(encoding="utf-8")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(template)
    except FileExistsError:
        raise InputError(f"`{path}` exists; name another file, or overwrite it with --force") from None
    print(f"written to {path}; change `network` and `data`, then: mipnet solve {path}")


@app.command()
def schema(
    for_compare: Annotated[bool, typer.Option("--compare", help="That of a file for `mipnet compare`.")] = False,
    for_verify: Annotated[bool, typer.Option("--verify", help="That of a file for `mipnet verify`.")] = False,
    for_reach: Annotated[bool, typer.Option("--reach", help="That of a file for `mipnet reach` and its like.")] = False,
) -> None:
    """Print the JSON schema of the YAML file."""
    kinds = {
        "runs.compare.Comparison": for_compare,
        "runs.verify.Verification": for_verify,
        "runs.certify.RangeFile": for_reach,
        "files.solve_file.Spec": True,
    }
    module, kind = next(name for name, wanted in kinds.items() if wanted).rsplit(".", 1)
    described = getattr(import_module(f"mipnet.app.{module}"), kind).model_json_schema()
    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **described})


@app.command()
def compare(
    file: Annotated[Path, typer.Argument(metavar="COMPARE.YAML", help="Whose scores, which rivals, which shares.")],
    set_: Set = None,
    output: Annotated[str | None, typer.Option(metavar="DIR", help="The folder for table and curve.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compare scores with rivals at the same share of pruned parameters.

    Exit status as that of `solve`.
    """
    from mipnet.app.files.source import Override
    from mipnet.app.runs import compare as comparison
    from mipnet.app.screen import progress as live
    from mipnet.app.screen import tables as report

    overrides = [] if output is None else [Override(("output",), output, f"--output {output}")]
    spec = comparison.load_comparison(file, [*(set_ or []), *overrides])
    progress = None if quiet else live.Progress(report.make_console(stderr=True))
    with progress or nullcontext():
        done = comparison.run_comparison(spec, *(() if progress is None else (progress.hear, progress.tell)))
    if as_json:
        print_json(comparison.to_record(done))
    elif not quiet:
        report.make_console().print(report.comparison_report(done))
    folder = comparison.save(done)
    if folder is not None and not as_json and not quiet:
        print(f"written to {folder}")
    return done.status


@app.command()
def bounds(
    file: Annotated[Path, typer.Argument(metavar="MODEL.YAML", help="Which network, around which images.")],
    method: Annotated[str, typer.Option(metavar="NAME", help="interval, crown, alpha, lp or mip.")] = "crown",
    epsilon: Annotated[float | None, typer.Option(metavar="E", help="Of every input within E of an image, pixels kept in [0, 1].")] = None,
    gates: Annotated[bool | None, typer.Option(help="With gates at any score; yes without --epsilon, no with it.")] = None,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", help="lp, mip: when to stop.")] = 60.0,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the bounds to an .npz file.")] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Show how wide the bounds of every layer are, and how many units are unstable."""
    from mipnet.app.runs import bounds as bounding
    from mipnet.app.screen import tables as report

    spec, tell = _spec(file, set_), report.make_console(stderr=True).print
    found = bounding.measure(spec, method, epsilon=epsilon, gated=gates, time_limit=time_limit, tell=tell)  # type: ignore[arg-type]
    if as_json:
        print_json(bounding.to_record(found))
    else:
        print(found)
        report.make_console().print(report.bounds_table(found))
    if save is not None:
        found.bounds.save(save)
