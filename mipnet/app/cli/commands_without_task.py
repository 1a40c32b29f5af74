"""``mipnet inspect``, ``bounds``, ``backends``, ``init`` and ``schema``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mipnet.app.cli.options import Json, MemoryLimitOption, Set, load_file, option_overrides, print_json, print_warnings
from mipnet.app.tasks import TASKS_BY_NAME, find_task
from mipnet.errors import InputError
from mipnet.limits.disk import check_writable, own_file, write_whole
from mipnet.limits.memory import memory_limit as limited_memory

if TYPE_CHECKING:
    from mipnet.backend import FoundBackend


def inspect(
    file: Annotated[Path | None, typer.Argument(metavar="MODEL.YAML|NET.PT2|NET.ONNX", help="A YAML file, or an exported network.")] = None,
    operators: Annotated[bool, typer.Option("--operators", help="List the operators that are read, in place of a network.")] = False,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", help="The time limit of reading and of writing the program.")] = 60.0,
    memory_limit: MemoryLimitOption = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Show a network, its gates, and the size of its program."""
    if operators:
        return _show_operators(as_json=as_json)
    if file is None:
        raise InputError("no file is given; expected a YAML file or an exported network, or --operators")
    from mipnet.app.files.solve_file import SolveFile
    from mipnet.app.runs.network_description import describe, describe_file
    from mipnet.app.screen.network_tables import network_report
    from mipnet.app.screen.tables import make_console
    from mipnet.readers.files import NETWORK_SUFFIXES, WEIGHT_SUFFIXES, read, suffix_of

    if suffix_of(file) in (*NETWORK_SUFFIXES, *WEIGHT_SUFFIXES):
        if set_:
            raise InputError(f"--set changes keys of a YAML file, and `{file}` is a network; leave it out")
        with limited_memory(memory_limit):
            description = describe(read(file, time_limit=time_limit))
    else:
        spec = load_file(SolveFile, file, [*(set_ or []), *option_overrides({"solve.memory_limit": memory_limit})])
        with limited_memory(spec.solve.memory_limit):
            description = describe_file(spec, time_limit)
    if as_json:
        print_json(description)
    else:
        make_console().print(network_report(description))


def _show_operators(*, as_json: bool) -> None:
    from mipnet.app.screen.network_tables import operator_table
    from mipnet.app.screen.tables import make_console
    from mipnet.readers.operator_list import operator_rows

    if as_json:
        print_json({"operators": [row._asdict() for row in operator_rows()]})
    else:
        make_console().print(operator_table(operator_rows()))


def bounds(
    file: Annotated[Path, typer.Argument(metavar="MODEL.YAML", help="A YAML file with a network and images.")],
    method: Annotated[str, typer.Option(metavar="NAME", help="interval, crown, alpha, lp or mip.")] = "crown",
    epsilon: Annotated[
        float | None, typer.Option(metavar="E", help="Over all inputs within E of an image, with pixels clipped to [0, 1].")
    ] = None,
    gates: Annotated[
        bool | None, typer.Option(help="Whether the bounds hold for every score of the gates; by default they do without --epsilon.")
    ] = None,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", help="The time limit.")] = 60.0,
    memory_limit: MemoryLimitOption = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the bounds to an .npz file.")] = None,
    set_: Set = None,
    as_json: Json = False,
) -> int:
    """Show the bounds of every layer.

    The table has the number of units, of unstable units, and the mean width of the bounds.
    """
    from mipnet.app.files.solve_file import SolveFile
    from mipnet.app.runs.bounds import bounds_record, compute_bounds
    from mipnet.app.screen.network_tables import bounds_table
    from mipnet.app.screen.tables import make_console, warning_lines

    spec = load_file(SolveFile, file, [*(set_ or []), *option_overrides({"solve.memory_limit": memory_limit})])
    with own_file(save):
        with limited_memory(spec.solve.memory_limit):
            on_layer = make_console(stderr=True).print
            found = compute_bounds(spec, method, epsilon=epsilon, gated=gates, time_limit=time_limit, on_layer=on_layer)  # type: ignore[arg-type]
        if as_json:
            print_json(bounds_record(found))
            print_warnings(found.bounds.warnings)
        else:
            print(found)
            make_console().print(bounds_table(found), *warning_lines(found.bounds.warnings), sep="\n")
        if save is not None:
            found.bounds.save(save)
    return 130 if found.interrupted else 0


def list_backends(as_json: Json = False) -> None:
    """List the solvers and the features of each."""
    from mipnet import backend
    from mipnet.app.screen.network_tables import backends_table
    from mipnet.app.screen.tables import make_console

    found = backend.backends()
    if as_json:
        print_json({"backends": [_backend_record(each) for each in found]})
    else:
        make_console().print(backends_table(found))


def _backend_record(found: FoundBackend) -> dict[str, Any]:
    usable = found.backend if not found.problem else None
    return {
        "name": found.name,
        "available": usable is not None,
        "version": None if usable is None else usable.version(),
        "problem": found.problem or None,
        "features": sorted(feature.value for feature in found.backend.features) if found.backend is not None else [],
    }


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The file to write.")] = Path("model.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write a YAML file that explains all keys."""
    template = files("mipnet.app.files").joinpath("template.yaml").read_text(encoding="utf-8")
    check_writable(path)
    if path.exists() and not force:
        raise InputError(f"`{path}` exists; name another file, or overwrite it with --force")
    write_whole(path, template)
    print(f"written to {path}; change `network` and `data`, then: mipnet solve {path}")


def schema(
    task: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="The task or its command, such as solve, verify or reach; solve if left out.")
    ] = None,
    for_compare: Annotated[bool, typer.Option("--compare", help="The same as `mipnet schema compare`.")] = False,
    for_verify: Annotated[bool, typer.Option("--verify", help="The same as `mipnet schema verify`.")] = False,
    for_reach: Annotated[bool, typer.Option("--reach", help="The same as `mipnet schema reach`.")] = False,
) -> None:
    """Print the JSON schema of the YAML file of a task.

    Editors use it to complete and to check the keys.
    """
    given = [task] if task is not None else []
    given += [name for name, chosen in (("compare", for_compare), ("verify", for_verify), ("reach", for_reach)) if chosen]
    if len(given) > 1:
        raise InputError(f"got {' and '.join(f'`{name}`' for name in given)}; expected one task")
    found = find_task(given[0]) if given else TASKS_BY_NAME["importance"]
    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **found.file_class().model_json_schema()})
