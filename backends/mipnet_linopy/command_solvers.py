"""Interfaces to CBC and GLPK, which are run as commands on the LP file of a linopy model, with readers for their solution files and logs.

linopy would run them, too, but only those that it finds in PATH.  For CBC, linopy 0.10 loses every point of a stopped solve, and does not
know ``Integer infeasible``.  CBC itself measures CPU time by default, and if the time ends early it reports a program as infeasible, or the
point of a relaxation as optimal.  For GLPK, linopy reads ``integer empty``, an infeasible program, as a solution of zeros, and ``integer
undefined``, a time limit, as an infeasible or unbounded program; it reads only six digits of a solution.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Options, Status
from mipnet.backend.checks import RawOutcome
from mipnet.errors import OptionError, SolverFailure
from mipnet_linopy.interface import LimitOptions, SolverInterface, SolverOutput, last_number, smallest_printed_as


def find_command(name: str) -> str | None:
    """Return the path of a command; those that pip installed beside this Python are found even if its environment is not active."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _printed_by(name: str, *arguments: str) -> str:
    """Run a command and return what it prints."""
    try:
        command = [find_command(name) or name, *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SolverFailure(f"`{name}` does not run: {error}") from error
    return done.stdout.decode(errors="replace")


def _arguments(dash: str, options: Options) -> list[str]:
    """Return the options as arguments; True stands for an option without a value."""
    arguments = []
    for name, value in options.items():
        if value is False or value is None or re.search(r"\s", f"{name}{value}") or not name:
            raise OptionError(f"`{name}` = {value!r} cannot be an option of a command; expected text without blanks, a number, or True")
        arguments += [dash + name] if value is True else [dash + name, str(value)]
    return arguments


def run_command(name: str, arguments: Sequence[str], folder: Path) -> None:
    """Run a command, whose output becomes the log of a run; raises `SolverFailure` if it writes no solution."""
    with open(folder / "log", "w") as log:
        command = [find_command(name) or name, *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False)
    if not (folder / "solution").exists():
        raise SolverFailure(f"`{name}` wrote no solution, and ended with exit status {done.returncode}")


def _cbc_arguments(folder: Path, options: Options) -> list[str]:
    given = _arguments("-", options)
    return ["-printingOptions", "all", "-import", str(folder / "program.lp"), *given, "-solve", "-solu", str(folder / "solution")]


@cache
def _cbc_version() -> str:
    output = _printed_by("cbc", "-exit")
    found = re.search(r"Version:?\s+(\S+)|CBC (.*\))", output)
    return "?" if found is None else found[1] or found[2]


CBC_REFUSAL = re.compile(
    r"No match for .*|Unrecognized parameter.*|Multiple matches.*|.*[Ii]llegal .*|.*valid range is.*|.*Possible options.*"
)


def _check_cbc(options: Options) -> None:
    for name, value in options.items():
        refused = CBC_REFUSAL.search(_printed_by("cbc", *_arguments("-", {name: value}), "-exit"))
        if refused is not None:
            raise OptionError(f"CBC does not take {value!r} for `{name}`: {refused[0].strip()}")


def _cbc_start(solver: Any, values: Array, folder: Path) -> Options:
    """Write the point to a file in the format of CBC's solutions, with every value: CBC reads missing values as zero."""
    path = folder / "start"
    lines = (f"{i} x{i} {value!r} 0" for i, value in enumerate(values.tolist()))
    path.write_text("\n".join(["Feasible - objective value 0", *lines]) + "\n")
    return {"mipstart": path}


CBC_STATUSES = {
    "Optimal": Status.OPTIMAL,
    "Infeasible": Status.INFEASIBLE,
    "Integer infeasible": Status.INFEASIBLE,
    "Unbounded": Status.UNBOUNDED,
    "Stopped on time": Status.TIME_LIMIT,
    "Stopped on nodes": Status.NODE_LIMIT,
    "Stopped on iterations": Status.NODE_LIMIT,
    "Stopped on ctrl-c": None,
}


def read_cbc(output: SolverOutput) -> RawOutcome:
    """Read the status from the first line of the solution; the bound, the nodes and whether a start was accepted from the log."""
    if not output.solution.exists():
        return RawOutcome(Status.STALLED)
    first, *lines = output.solution.read_text(errors="replace").splitlines() or [""]
    word = first.split(" - ")[0].split(" (")[0].strip()
    status = CBC_STATUSES.get(word, Status.STALLED)
    if status is Status.NODE_LIMIT and "Stopped on node limit" not in output.log:
        status = Status.STALLED
    proved = status in (Status.OPTIMAL, Status.INFEASIBLE)
    if proved and _out_of_time(output) and not re.search(r"Result - (?:Optimal|Problem proven infeasible)", output.log):
        status = Status.TIME_LIMIT  # if the time ends before the search begins, CBC reports the result of the relaxation
    # without a point CBC writes the solution of its last relaxation with a remark, or an objective of 1e50
    no_point = "no integer solution" in first or "No feasible solution found" in output.log or "1e+50" in first
    bound = last_number(r"\nLower bound:\s+", output.log)
    return RawOutcome(
        status,
        None if no_point or "nfeasible" in word or status is Status.UNBOUNDED else _cbc_point(lines, output.size),
        -math.inf if bound is None else smallest_printed_as(bound),
        int(last_number(r"\nEnumerated nodes:\s+", output.log) or 0),
        int(last_number(r"\nTotal iterations:\s+", output.log) or 0),
        "MIPStart provided solution" in output.log if "MIPStart values read" in output.log else None,
        first.strip(),
    )


def _out_of_time(output: SolverOutput) -> bool:
    took = last_number(r"\(Wallclock seconds\):\s+", output.log)
    return output.seconds < math.inf and (took is None or float(took) > 0.95 * output.seconds - 0.05)


def _cbc_point(lines: list[str], size: int) -> Array:
    x = np.zeros(size)
    for _, name, value, *_ in (line.replace("**", "").split() for line in lines):
        if name.startswith("x"):
            x[int(name[1:])] = float(value)
    return x


cbc = SolverInterface(
    title="CBC",
    io_api="lp",
    limits=LimitOptions(time="seconds", relative_gap="ratioGap", absolute_gap="allowableGap", nodes="maxNodes"),
    command=_cbc_arguments,
    defaults={"timeMode": "elapsed"},
    read=read_cbc,
    check=_check_cbc,
    version=_cbc_version,
    start=_cbc_start,
)


@cache
def _glpk_version() -> str:
    found = re.search(r"Solver\s+(?:v)?([\d.]+)", _printed_by("glpsol", "--version"))
    return "?" if found is None else found[1]


def _check_glpk(options: Options) -> None:
    for name, value in options.items():
        output = _printed_by("glpsol", *_arguments("--", {name: value}), "--version")
        if "GLPSOL" not in output.split("\n")[0] or "nvalid" in output:
            raise OptionError(
                f"GLPK does not take {value!r} for `{name}`: {output.strip().splitlines()[0] if output.strip() else 'no output'}"
            )


GLPK_STATUSES = (
    (r"NO (?:PRIMAL|INTEGER) FEASIBLE SOLUTION", Status.INFEASIBLE),
    (r"UNBOUNDED PRIMAL SOLUTION|NO DUAL FEASIBLE SOLUTION", Status.UNBOUNDED),
    (r"TIME LIMIT EXCEEDED", Status.TIME_LIMIT),
    (r"OPTIMAL (?:LP )?SOLUTION FOUND|MIP GAP TOLERANCE REACHED", Status.OPTIMAL),
)
"""Patterns of the log with their status, in order of precedence."""


def read_glpk(output: SolverOutput) -> RawOutcome:
    """Read the status and the bound from the log, and the point from the file with all digits."""
    integer = "Integer optimization begins" in output.log or "INTEGER" in output.log
    ends = output.log.split("Integer optimization begins")[-1]
    status = next((status for pattern, status in GLPK_STATUSES if re.search(pattern, ends)), Status.STALLED)
    bound = last_number(r">=\s+", ends)
    points = status not in (Status.INFEASIBLE, Status.UNBOUNDED) and output.exact.exists() and output.solution.exists()
    steps = last_number(r"\n[+*]?\s*(?=\d+:)", output.log)
    return RawOutcome(
        status,
        _glpk_point(output.exact.read_text(), output.solution.read_text(), output.size) if points else None,
        -math.inf if bound is None or not integer else smallest_printed_as(bound),
        iterations=int(steps or 0),
        message=_glpk_status(output.exact.read_text()) if output.exact.exists() else "",
    )


def _glpk_status(text: str) -> str:
    return next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("c Status:")), "")


def _glpk_point(exact: str, report: str, size: int) -> Array | None:
    """Return the point, numbered as in the LP file and named in the report; None unless it is feasible (``o`` or ``f``)."""
    lines = [line.split() for line in exact.splitlines()]
    kind, *head = next(line[1:] for line in lines if line[0] == "s")
    if head[2] not in "of":
        return None
    number = dict(_glpk_names(report))
    x = np.zeros(size)
    for line in lines:
        if line[0] == "j":
            x[number[line[1]]] = float(line[2] if kind == "mip" else line[3])
    return x


def _glpk_names(report: str) -> Iterator[tuple[str, int]]:
    columns = report.split("Column name", 1)[1].splitlines()[2:]
    for line in columns:
        if not line.strip():
            return
        index, name, *_ = line.split()
        yield index, int(name[1:])


def _glpk_arguments(folder: Path, options: Options) -> list[str]:
    files = ["--lp", str(folder / "program.lp"), "--output", str(folder / "solution"), "-w", str(folder / "exact")]
    return [*files, *_arguments("--", options)]


glpk = SolverInterface(
    title="GLPK",
    io_api="lp",
    limits=LimitOptions(time="tmlim", relative_gap="mipgap", whole_seconds=True),
    command=_glpk_arguments,
    read=read_glpk,
    check=_check_glpk,
    version=_glpk_version,
)
