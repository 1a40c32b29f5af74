"""The interface to one solver that linopy runs: its options (`SolverInterface`), its output (`SolverOutput`), and how to read it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
from linopy.constants import Result

from mipnet.arrays import Array
from mipnet.backend import Limits, Options, Status
from mipnet.backend.checks import RawOutcome


@dataclass(frozen=True, eq=False)
class SolverOutput:
    """The output of one run with a time limit of ``seconds``: linopy's result, the solver's object, its files and its log.

    ``result`` is None if linopy raised an exception; ``native`` is None if the solver has no Python object.  ``size`` is the number
    of columns of the linopy model.
    """

    result: Result | None
    native: Any
    folder: Path
    log: str
    size: int
    seconds: float = math.inf

    @property
    def solution(self) -> Path:
        """The file to which a command writes its solution."""
        return self.folder / "solution"

    @property
    def exact(self) -> Path:
        """The file to which `glpsol` writes all digits of its solution."""
        return self.folder / "exact"


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """A solver's names of the options that set the limits of a solve; None if it has no such option.

    ``whole_seconds``: the time limit is an integer.
    """

    time: str
    relative_gap: str
    absolute_gap: str | None = None
    nodes: str | None = None
    whole_seconds: bool = False

    @property
    def names(self) -> dict[str, str]:
        """The field of `Limits` that sets each option, by the option's name."""
        names = {self.time: "time", self.relative_gap: "gap", self.absolute_gap: "gap_abs", self.nodes: "nodes"}
        return {name: limit for name, limit in names.items() if name is not None}

    def values(self, limits: Limits, seconds: float) -> dict[str, object]:
        """Return the options for these limits, with ``seconds`` left."""
        options: dict[str, object] = {self.relative_gap: strict_gap(limits.gap)}
        if self.absolute_gap is not None:
            options[self.absolute_gap] = min(limits.gap_abs, 1e20)
        if seconds < math.inf:
            options[self.time] = seconds if not self.whole_seconds else math.ceil(seconds) if seconds > 0.5 else 0
        if self.nodes is not None and limits.nodes is not None:
            options[self.nodes] = limits.nodes
        return options


@dataclass(frozen=True, kw_only=True)
class SolverInterface:
    """How linopy runs one solver.

    ``title``      the solver's name in messages
    ``io_api``     whether linopy hands the model over as an LP file or directly
    ``limits``     the options for the limits of a solve
    ``command``    returns the arguments of a program that is run on the files of a folder; None for a Python package, which linopy runs
    ``defaults``   options that are set unless the user sets them
    ``build``      arguments of linopy when it builds the model
    ``read``       returns the result of a run, with ``x`` in the order of linopy's labels
    ``check``      raises `OptionError` for invalid options; without it, options are tried on a program with one column
    ``version``    returns the version of the solver
    ``start``      sets a start point (in the order of the labels) and returns the options that this needs
    """

    title: str
    io_api: Literal["lp", "direct"]
    limits: LimitOptions
    command: Callable[[Path, Options], list[str]] | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[SolverOutput], RawOutcome]
    check: Callable[[Options], None] | None = None
    version: Callable[[], str]
    start: Callable[[Any, Array, Path], Options] | None = None


def strict_gap(gap: float) -> float:
    """Return a gap relative to ``max(|objective|, |bound|)``, as some solvers define it, that implies `relative_gap` <= ``gap``."""
    return gap / (1.0 + gap) if gap < math.inf else 1.0


NUMBER_IN_LOG = r"([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|inf))"


def smallest_printed_as(text: str) -> float:
    """Return the smallest number that may be printed as ``text``, so that a bound from a log is at most the solver's bound."""
    value = Decimal(text)
    if not value.is_finite():
        return float(value)
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return float(value - Decimal((0, (1,), exponent)))


def last_number(pattern: str, text: str) -> str | None:
    """Return the number after the last match of a pattern; None without a match."""
    found = re.findall(pattern + NUMBER_IN_LOG, text)
    return found[-1] if found else None


LINOPY_STATUSES: dict[str, Status | None] = {
    "optimal": Status.OPTIMAL,
    "infeasible": Status.INFEASIBLE,
    "unbounded": Status.UNBOUNDED,
    "infeasible_or_unbounded": Status.UNBOUNDED,
    "time_limit": Status.TIME_LIMIT,
    "user_interrupt": None,
}
"""The status for each of linopy's termination conditions; all others prove nothing.  Unbounded programs are solved again without cost."""


def read_result(output: SolverOutput) -> RawOutcome:
    """Return linopy's own result: its status, and its point, which is checked against the program later."""
    if output.result is None:
        return RawOutcome(Status.STALLED)
    condition = str(output.result.status.termination_condition.value)
    solution, report = output.result.solution, output.result.report
    x = None if solution is None or len(solution.primal) != output.size else np.asarray(solution.primal, dtype=np.float64)
    known = report.dual_bound if report is not None else None
    return RawOutcome(
        LINOPY_STATUSES.get(condition, Status.STALLED),
        x,
        -math.inf if known is None or math.isnan(known) else known,
        message=f"{condition} ({output.result.status.legacy_status})",
    )
