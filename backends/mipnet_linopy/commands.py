"""CBC and GLPK, which linopy runs as commands: their files and logs, read here because linopy reads too much into them, or too little.

Of CBC, linopy 0.10 forgets every point of a stopped solve, and does not know ``Integer infeasible``.  CBC itself counts the seconds of
the processor unless told otherwise, and calls a program infeasible, or the point of a relaxation optimal, where time is up early.
Of GLPK, linopy takes ``integer empty``, an infeasible program, for a solution of zeros, ``integer undefined``, a time limit, for an
infeasible or unbounded program, and six digits of a solution for all of it.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipnet.backend import Options, Status
from mipnet.backend.helpers import Raw
from mipnet.errors import OptionError, SolverFailure
from mipnet_linopy.words import Dialect, Said, last_number, least

Array = NDArray[np.float64]


def find_command(name: str) -> str | None:
    """Where a command is; those that pip put beside this Python are found whether or not its environment is active."""
    beside = str(Path(sys.executable).parent)
    if shutil.which(name) is None and shutil.which(name, path=beside) is not None:
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), beside])  # linopy looks there only
    return shutil.which(name)


def _say(*command: str) -> str:
    """What a command prints."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SolverFailure(f"`{command[0]}` does not run: {error}") from error
    return done.stdout.decode(errors="replace")


def _arguments(dash: str, options: Options) -> list[str]:
    """The options as arguments; True stands for one without a value."""
    arguments = []
    for name, value in options.items():
        if value is False or value is None or re.search(r"\s", f"{name}{value}") or not name:
            raise OptionError(f"`{name}` = {value!r} cannot be an option of a command; expected text without blanks, a number, or True")
        arguments += [dash + name] if value is True else [dash + name, str(value)]
    return arguments


def _pack(dash: str, options: Options) -> dict[str, Any]:
    """The options as linopy wants them, which puts a dash before each name and a value behind: the last one carries all others."""
    *names, value = _arguments(dash, dict(sorted(options.items(), key=lambda item: item[1] is not True)))
    return {" ".join(names)[len(dash) :]: value}


@cache
def _cbc_version() -> str:
    said = _say("cbc", "-exit")
    found = re.search(r"Version:?\s+(\S+)|CBC (.*\))", said)
    return "?" if found is None else found[1] or found[2]


REFUSED = re.compile(r"No match for .*|Unrecognized parameter.*|Multiple matches.*|.*[Ii]llegal .*|.*valid range is.*|.*Possible options.*")


def _check_cbc(options: Options) -> None:
    for name, value in options.items():
        refused = REFUSED.search(_say("cbc", *_arguments("-", {name: value}), "-exit"))
        if refused is not None:
            raise OptionError(f"CBC does not take {value!r} for `{name}`: {refused[0].strip()}")


def _cbc_start(solver: Any, values: Array, folder: Path) -> Options:
    """A file with the point, in the format of CBC's own solutions; every value is said, for what is missing is taken for zero."""
    path = folder / "start"
    lines = (f"{i} x{i} {value!r} 0" for i, value in enumerate(values.tolist()))
    path.write_text("\n".join(["Feasible - objective value 0", *lines]) + "\n")
    return {"mipstart": path}


CBC_WORDS = {
    "Optimal": Status.OPTIMAL,
    "Infeasible": Status.INFEASIBLE,
    "Integer infeasible": Status.INFEASIBLE,
    "Unbounded": Status.UNBOUNDED,
    "Stopped on time": Status.TIME_LIMIT,
    "Stopped on nodes": Status.NODE_LIMIT,
    "Stopped on iterations": Status.NODE_LIMIT,
    "Stopped on ctrl-c": None,
}


def read_cbc(said: Said) -> Raw:
    """The first line of the solution is the status; the log knows the bound, the nodes and what became of a start."""
    if not said.solution.exists():
        return Raw(Status.STALLED)
    first, *lines = said.solution.read_text(errors="replace").splitlines() or [""]
    word = first.split(" - ")[0].split(" (")[0].strip()
    status = CBC_WORDS.get(word, Status.STALLED)
    if status is Status.NODE_LIMIT and "Stopped on node limit" not in said.log:
        status = Status.STALLED
    proved = status in (Status.OPTIMAL, Status.INFEASIBLE)
    if proved and _out_of_time(said) and not re.search(r"Result - (?:Optimal|Problem proven infeasible)", said.log):
        status = Status.TIME_LIMIT  # where its time ends before the search begins, CBC says one or the other of the relaxation
    # without a point CBC writes its last relaxation, and says so, or that its value is 1e50
    no_point = "no integer solution" in first or "No feasible solution found" in said.log or "1e+50" in first
    bound = last_number(r"\nLower bound:\s+", said.log)
    return Raw(
        status,
        None if no_point or "nfeasible" in word or status is Status.UNBOUNDED else _cbc_point(lines, said.size),
        -math.inf if bound is None else least(bound),
        int(last_number(r"\nEnumerated nodes:\s+", said.log) or 0),
        int(last_number(r"\nTotal iterations:\s+", said.log) or 0),
        "MIPStart provided solution" in said.log if "MIPStart values read" in said.log else None,
        first.strip(),
    )


def _out_of_time(said: Said) -> bool:
    took = last_number(r"\(Wallclock seconds\):\s+", said.log)
    return said.seconds < math.inf and (took is None or float(took) > 0.95 * said.seconds - 0.05)


def _cbc_point(lines: list[str], size: int) -> Array:
    x = np.zeros(size)
    for _, name, value, *_ in (line.replace("**", "").split() for line in lines):
        if name.startswith("x"):
            x[int(name[1:])] = float(value)
    return x


cbc = Dialect(
    title="CBC",
    io_api="lp",
    command=True,
    time="seconds",
    relative="ratioGap",
    absolute="allowableGap",
    nodes="maxNodes",
    always={"timeMode": "elapsed"},
    read=read_cbc,
    check=_check_cbc,
    version=_cbc_version,
    start=_cbc_start,
    pack=lambda options: _pack("-", options),
)


@cache
def _glpk_version() -> str:
    found = re.search(r"Solver\s+(?:v)?([\d.]+)", _say("glpsol", "--version"))
    return "?" if found is None else found[1]


def _check_glpk(options: Options) -> None:
    for name, value in options.items():
        said = _say("glpsol", *_arguments("--", {name: value}), "--version")
        if "GLPSOL" not in said.split("\n")[0] or "nvalid" in said:
            raise OptionError(f"GLPK does not take {value!r} for `{name}`: {said.strip().splitlines()[0] if said.strip() else 'no word'}")


GLPK_WORDS = (
    (r"NO (?:PRIMAL|INTEGER) FEASIBLE SOLUTION", Status.INFEASIBLE),
    (r"UNBOUNDED PRIMAL SOLUTION|NO DUAL FEASIBLE SOLUTION", Status.UNBOUNDED),
    (r"TIME LIMIT EXCEEDED", Status.TIME_LIMIT),
    (r"OPTIMAL (?:LP )?SOLUTION FOUND|MIP GAP TOLERANCE REACHED", Status.OPTIMAL),
)
"""What the log says, the first that is found: the relaxation's optimum is told before the time limit, a proof of none after it."""


def read_glpk(said: Said) -> Raw:
    """The log says why the solve ended and its last line of progress the bound; the point is in the file with all digits."""
    integer = "Integer optimization begins" in said.log or "INTEGER" in said.log
    ends = said.log.split("Integer optimization begins")[-1]
    status = next((status for pattern, status in GLPK_WORDS if re.search(pattern, ends)), Status.STALLED)
    bound = last_number(r">=\s+", ends)
    points = status not in (Status.INFEASIBLE, Status.UNBOUNDED) and said.exact.exists() and said.solution.exists()
    steps = last_number(r"\n[+*]?\s*(?=\d+:)", said.log)
    return Raw(
        status,
        _glpk_point(said.exact.read_text(), said.solution.read_text(), said.size) if points else None,
        -math.inf if bound is None or not integer else least(bound),
        iterations=int(steps or 0),
        message=_glpk_status(said.exact.read_text()) if said.exact.exists() else "",
    )


def _glpk_status(text: str) -> str:
    return next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("c Status:")), "")


def _glpk_point(exact: str, report: str, size: int) -> Array | None:
    """Values are numbered by the order in the LP file, and only the report knows the names; ``o`` and ``f`` are feasible points."""
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


glpk = Dialect(
    title="GLPK",
    io_api="lp",
    command=True,
    time="tmlim",
    relative="mipgap",
    whole_seconds=True,
    read=read_glpk,
    check=_check_glpk,
    version=_glpk_version,
    pack=lambda options: _pack("--", options),
)
