"""``mipnet verify``: one property, from two files or from a YAML file, or many from an instances file."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mipnet.app.cli.options import (
    Json,
    MemoryLimitOption,
    Printing,
    Quiet,
    Set,
    finish,
    load_file,
    option_overrides,
    print_json,
    print_warnings,
)
from mipnet.app.tasks import TASKS_BY_NAME
from mipnet.errors import InputError
from mipnet.limits.disk import own_file
from mipnet.limits.memory import memory_limit as limited_memory

if TYPE_CHECKING:
    from mipnet.app.files.yaml_source import Override
    from mipnet.app.runs.vnncomp_instances import VerifySettings
    from mipnet.app.screen.progress import StageProgress
    from mipnet.verification.verdict import Verdict

VERIFY_SECONDS_DEFAULT = 60.0
"""The time limit of one property, in seconds."""


def verify(
    network: Annotated[Path | None, typer.Argument(metavar="[NET.ONNX|VERIFY.YAML]", help="A network, or a YAML file.")] = None,
    property_file: Annotated[Path | None, typer.Argument(metavar="[PROP.VNNLIB]", help="The property: what must not happen.")] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Per property, including the time to read its files; 60 if left out.")
    ] = None,
    memory_limit: MemoryLimitOption = None,
    backend: Annotated[str | None, typer.Option(help="The solver for what bounds cannot decide, such as highs or scip.")] = None,
    cross_check: Annotated[str | None, typer.Option(metavar="BACKEND", help="A second solver that has to refute as well.")] = None,
    results_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result in the format of VNN-COMP.")] = None,
    instances: Annotated[list[Path] | None, typer.Option(metavar="CSV", help="Lines of network,property,seconds. May be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder for results.csv, or the run folder of a file.")] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="With --instances: processes at the same time; 0 for none.", min=0)] = 0,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of the search for counterexamples; 0 if left out.", min=0)] = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run `mipnet verify`; the help is that of the task."""
    from mipnet.app.runs.vnncomp_instances import VerifySettings

    if timeout is not None and not 0 < timeout < float("inf"):
        raise InputError(f"--timeout {timeout:g}: expected a positive number of seconds")
    settings = VerifySettings(backend or "highs", cross_check, timeout, seed or 0)
    printing = Printing(as_json, quiet)
    if network is not None and network.suffix.lower() in (".yaml", ".yml"):
        if property_file or instances or workers:
            raise InputError(f"`{network}` names its own network and property; leave other files, --instances and --workers out")
        given = {
            "solve.time_limit": timeout,
            "solve.memory_limit": memory_limit,
            "solve.backend": backend,
            "solve.cross_check": cross_check,
            "solve.seed": seed,
        }
        overrides = option_overrides(given | {"output": None if output is None else str(output)}, names={"solve.time_limit": "timeout"})
        with own_file(results_file):
            return _verify_yaml(network, [*(set_ or []), *overrides], results_file, printing)
    if set_:
        raise InputError("--set changes keys of a YAML file, and none is given; leave it out")
    if instances:
        if network or results_file:
            raise InputError("--instances brings its own networks, properties and results; leave the other files out")
        if output is None:
            raise InputError("--instances needs --output DIR, the folder for results.csv")
        with limited_memory(memory_limit):
            return _verify_instances(instances, output, settings, workers, printing)
    if network is None or property_file is None:
        raise InputError("expected NET.ONNX and PROP.VNNLIB, or VERIFY.YAML, or --instances CSV")
    if output or workers:
        raise InputError(f"--{'output' if output else 'workers'} is for --instances; a single property takes --results-file")
    with limited_memory(memory_limit), own_file(results_file):
        return _verify_files(network, property_file, settings, results_file, printing)


def _progress(quiet: bool, *, many: bool = False) -> AbstractContextManager[StageProgress | None]:
    from mipnet.app.screen.progress import StageProgress
    from mipnet.app.screen.tables import make_console

    return nullcontext() if quiet else StageProgress(make_console(stderr=True), quiet_stages=many)


def _verify_files(network: Path, property_file: Path, settings: VerifySettings, results_file: Path | None, printing: Printing) -> int:
    from mipnet.app.runs.vnncomp import result_word, verdict_record
    from mipnet.app.runs.vnncomp_instances import verify_files
    from mipnet.app.screen.tables import make_console
    from mipnet.app.screen.verify_tables import print_verdict
    from mipnet.readers.libraries import load_libraries

    load_libraries([network.name])
    limit = settings.seconds or VERIFY_SECONDS_DEFAULT
    try:
        with _progress(printing.quiet) as progress:
            verdict = verify_files(network, property_file, settings, limit, progress.stage if progress else None)
    except Exception:
        _write(results_file, "error", None)
        raise
    word = result_word(verdict, limit)
    _write(results_file, word, verdict)
    record = {"network": str(network), "property": str(property_file)} | verdict_record(verdict, word)
    if printing.as_json:
        print_json(record)
    elif not printing.quiet:
        print_verdict(record, make_console())
    if printing.as_json or printing.quiet:
        print_warnings(verdict.warnings)
    return 130 if verdict.interrupted else 0


def _verify_yaml(path: Path, overrides: list[str | Override], results_file: Path | None, printing: Printing) -> int:
    from mipnet.app.runs.folder import own_output

    task = TASKS_BY_NAME["verify"]
    file = load_file(task.file_class(), path, overrides)
    with own_output(file):
        try:
            with _progress(printing.quiet) as progress:
                result = task.run_function()(file, progress)
        except Exception:
            _write(results_file, "error", None)
            raise
        _write(results_file, result.word, result.verdict)
        return finish(task, result, printing)


def _write(results_file: Path | None, word: str, verdict: Verdict | None) -> None:
    from mipnet.app.runs.vnncomp import result_text
    from mipnet.limits.disk import write_whole

    if results_file is not None:
        write_whole(results_file, result_text(word, verdict))


def _verify_instances(files: list[Path], output: Path, settings: VerifySettings, workers: int, printing: Printing) -> int:
    from mipnet.app.runs.results_table import result_record, summary
    from mipnet.app.runs.vnncomp_instances import read_instances, run_instances
    from mipnet.app.screen.tables import make_console
    from mipnet.app.screen.verify_tables import summary_report

    lines = [line for path in files for line in read_instances(path)]
    with _progress(printing.quiet, many=True) as progress:
        callbacks: dict[str, Any] = {}
        if progress is not None:
            callbacks = {"on_begin": progress.instances_begin, "on_done": progress.instance_done, "on_stage": progress.stage}
        try:
            results = run_instances(lines, output, settings, workers=workers, **callbacks)
        except KeyboardInterrupt:
            print(f"error: interrupted; the results so far are kept in `{output}`: the same command goes on from there", file=sys.stderr)
            return 130
    found = summary(results)
    if printing.as_json:
        print_json({"output": str(output), "summary": found, "answers": [result_record(result) for result in results]})
    elif not printing.quiet:
        make_console().print(summary_report(found))
        print(f"written to {output}")
    return 1 if any(result.verdict == "error" for result in results) else 0
