"""``mipnet verify``: one question from two files, many from an instances file, or one from a YAML file."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mipnet.app.cli.options import Json, Quiet, Set, print_json
from mipnet.errors import InputError, MipnetError

if TYPE_CHECKING:
    from mipnet.app.files.source import Override
    from mipnet.app.runs.instances import Settings
    from mipnet.app.screen.verify_tables import StageProgress
    from mipnet.verification.verdict import Verdict

DEFAULT = 60.0
"""Seconds for one question, unless something else is said."""


def verify(
    network: Annotated[Path | None, typer.Argument(metavar="[NET.ONNX|VERIFY.YAML]", help="A network, or a file that asks.")] = None,
    question: Annotated[Path | None, typer.Argument(metavar="[PROP.VNNLIB]", help="What should not happen.")] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For one question, with reading its files; 60 if left out.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="The solver for what cheaper stages leave, such as highs or scip.")] = None,
    cross_check: Annotated[str | None, typer.Option(metavar="BACKEND", help="A second solver that has to refute as well.")] = None,
    results_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the answer as VNN-COMP wants it.")] = None,
    instances: Annotated[list[Path] | None, typer.Option(metavar="CSV", help="Lines of network,property,seconds. May be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder for results.csv, or of a file's run.")] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Of instances: processes side by side; 0 for none.", min=0)] = 0,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of the search for counterexamples; 0 if left out.", min=0)] = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Decide whether some input satisfies a property.

    Exit status: 0 sat, unsat, unknown or timeout, 1 if some of many instances are errors, 2 wrong input, 130 after Ctrl-C.
    """
    from mipnet.app.runs.instances import Settings

    if timeout is not None and not 0 < timeout < float("inf"):
        raise InputError(f"--timeout {timeout:g}: expected a positive number of seconds")
    settings = Settings(backend or "highs", cross_check, timeout, seed or 0)
    if network is not None and network.suffix.lower() in (".yaml", ".yml"):
        if question or instances or workers:
            raise InputError(f"`{network}` asks by itself; leave other files, --instances and --workers out")
        given = {"time_limit": timeout, "backend": backend, "cross_check": cross_check, "seed": seed}
        return _file(network, [*(set_ or []), *_overrides(given, output)], results_file, as_json, quiet)
    if set_:
        raise InputError("--set changes keys of a YAML file, and none is given; leave it out")
    if instances:
        if network or results_file:
            raise InputError("--instances brings its own networks, properties and results; leave the other files out")
        if output is None:
            raise InputError("--instances needs --output DIR, the folder for results.csv")
        return _many(instances, output, settings, workers, as_json, quiet)
    if network is None or question is None:
        raise InputError("expected NET.ONNX and PROP.VNNLIB, or VERIFY.YAML, or --instances CSV")
    if output or workers:
        raise InputError(f"--{'output' if output else 'workers'} is for --instances; a single question takes --results-file")
    return _one(network, question, settings, results_file, as_json, quiet)


def _overrides(solve: dict[str, Any], output: Path | None) -> list[Override]:
    from mipnet.app.files.source import Override

    names = {"time_limit": "timeout", "cross_check": "cross-check"}
    found = [Override(("solve", key), value, f"--{names.get(key, key)} {value}") for key, value in solve.items() if value is not None]
    return found + ([] if output is None else [Override(("output",), str(output), f"--output {output}")])


def _progress(quiet: bool, *, many: bool = False) -> StageProgress | None:
    from mipnet.app.screen.tables import make_console
    from mipnet.app.screen.verify_tables import StageProgress

    return None if quiet else StageProgress(make_console(stderr=True), quiet_stages=many)


def _one(network: Path, question: Path, settings: Settings, results_file: Path | None, as_json: bool, quiet: bool) -> int:
    from mipnet.app.runs import instances
    from mipnet.app.runs import vnncomp as files

    limit = settings.seconds or DEFAULT
    if results_file is not None:
        files.check_writable(results_file)
    progress = _progress(quiet)
    try:
        with progress or nullcontext():
            verdict = instances.decide(network, question, settings, limit, progress.stage if progress else None)
    except (MipnetError, MemoryError):
        _write(results_file, "error", None)
        raise
    word = files.result_word(verdict, limit)
    _write(results_file, word, verdict)
    _show({"network": str(network), "property": str(question)} | files.to_record(verdict, word), as_json, quiet)
    return 130 if verdict.interrupted else 0


def _file(path: Path, changes: list[str | Override], results_file: Path | None, as_json: bool, quiet: bool) -> int:
    from mipnet.app.runs import verify as verifying
    from mipnet.app.runs import vnncomp as files

    spec = verifying.load_verification(path, changes)
    if results_file is not None:
        files.check_writable(results_file)
    progress = _progress(quiet)
    try:
        with progress or nullcontext():
            done = verifying.run_verification(spec, *(() if progress is None else (progress.stage,)))
    except (MipnetError, MemoryError):
        _write(results_file, "error", None)
        raise
    _write(results_file, done.word, done.verdict)
    folder = verifying.save(done)
    _show(done.record, as_json, quiet)
    if folder is not None and not as_json and not quiet:
        print(f"written to {folder}")
    return 130 if done.verdict.interrupted else 0


def _write(results_file: Path | None, word: str, verdict: Verdict | None) -> None:
    from mipnet.app.runs import vnncomp as files

    if results_file is not None:
        files.write_whole(results_file, files.result_text(word, verdict))


def _show(record: dict[str, object], as_json: bool, quiet: bool) -> None:
    """Print a record as JSON, as a table on a terminal, or as plain lines."""
    from mipnet.app.screen.tables import make_console
    from mipnet.app.screen.verify_tables import verdict_report

    if as_json:
        print_json(record)
    elif not quiet:
        console = make_console()
        console.print(verdict_report(record, plain=not console.is_terminal), soft_wrap=not console.is_terminal)


def _many(given: list[Path], output: Path, settings: Settings, workers: int, as_json: bool, quiet: bool) -> int:
    from mipnet.app.runs import instances
    from mipnet.app.runs import results_table as table
    from mipnet.app.screen.tables import make_console
    from mipnet.app.screen.verify_tables import summary_report

    lines = [line for path in given for line in instances.read_instances(path)]
    progress = _progress(quiet, many=True)
    with progress or nullcontext():
        heard: dict[str, Any] = {}
        if progress is not None:
            heard = {"on_begin": progress.begin, "on_done": progress.done, "on_stage": progress.stage}
        try:
            answers = instances.run_instances(lines, output, settings, workers=workers, **heard)
        except KeyboardInterrupt:
            print(f"error: interrupted; what was answered is kept in `{output}`, and the same command goes on", file=sys.stderr)
            return 130
    found = table.summary(answers)
    if as_json:
        print_json({"output": str(output), "summary": found, "answers": [table.to_record(answer) for answer in answers]})
    elif not quiet:
        make_console().print(summary_report(found))
        print(f"written to {output}")
    return 1 if any(answer.verdict == "error" for answer in answers) else 0
