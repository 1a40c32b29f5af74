"""What a solver calls things (`Dialect`), what it leaves behind (`Said`), and what linopy makes of that."""

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
from numpy.typing import NDArray

from mipnet.backend import Limits, Options, Status
from mipnet.backend.helpers import Raw

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Said:
    """What is left of a run of ``seconds`` at most.

    ``result`` is None where linopy broke down; ``native`` is the solver's own object, if it has one.
    """

    result: Result | None
    native: Any
    folder: Path
    log: str
    size: int
    seconds: float = math.inf

    @property
    def solution(self) -> Path:
        """The file that a command writes its solution to."""
        return self.folder / "solution"

    @property
    def exact(self) -> Path:
        """The file that `glpsol` writes all digits of its solution to."""
        return self.folder / "exact"


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a solver calls things.

    ``relative`` and ``absolute`` are its options for the gap, ``always`` what it is told unless an option says otherwise, and
    ``build`` what linopy is told when it builds the model.  A ``command`` is run by linopy, anything else is a Python package.
    ``check`` raises `OptionError` for options that it does not take (a solver without is tried on a program of one column),
    ``start`` offers it a point (by label) and returns the options that this takes, ``read`` says how a solve went, with ``x`` by
    label.
    """

    title: str
    io_api: Literal["lp", "direct"]
    time: str
    relative: str
    absolute: str | None = None
    nodes: str | None = None
    command: bool = False
    whole_seconds: bool = False
    always: Mapping[str, object] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Said], Raw]
    check: Callable[[Options], None] | None = None
    version: Callable[[], str]
    start: Callable[[Any, Array, Path], Options] | None = None
    pack: Callable[[Options], dict[str, Any]] = dict

    @property
    def owned(self) -> dict[str, str]:
        """The options that every solve sets from its `Limits`, and the limit that each is set from."""
        names = {self.time: "time", self.relative: "gap", self.absolute: "gap", self.nodes: "nodes"}
        return {name: limit for name, limit in names.items() if name is not None}

    def limits(self, limits: Limits, seconds: float) -> dict[str, object]:
        """The options that say the limits."""
        options: dict[str, object] = {self.relative: relative(limits.gap)}
        if self.absolute is not None:
            options[self.absolute] = min(limits.gap, 1e20)
        if seconds < math.inf:
            options[self.time] = seconds if not self.whole_seconds else math.ceil(seconds) if seconds > 0.5 else 0
        if self.nodes is not None and limits.nodes is not None:
            options[self.nodes] = limits.nodes
        return options


def relative(gap: float) -> float:
    """A gap relative to the larger one of objective and bound, as some solvers mean it, that is never looser than `relative_gap`."""
    return gap / (1.0 + gap) if gap < math.inf else 1.0


NUMBER = r"([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|inf))"


def least(text: str) -> float:
    """The least number that is printed like this: a bound that is read from a log is never better than the one that was printed."""
    value = Decimal(text)
    if not value.is_finite():
        return float(value)
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return float(value - Decimal((0, (1,), exponent)))


def last_number(pattern: str, text: str) -> str | None:
    """What the number behind the last match of a pattern is."""
    found = re.findall(pattern + NUMBER, text)
    return found[-1] if found else None


CONDITION: dict[str, Status | None] = {
    "optimal": Status.OPTIMAL,
    "infeasible": Status.INFEASIBLE,
    "unbounded": Status.UNBOUNDED,
    "infeasible_or_unbounded": Status.UNBOUNDED,
    "time_limit": Status.TIME_LIMIT,
    "user_interrupt": None,
}
"""What linopy's termination conditions mean; any other proves nothing.  Who says unbounded is asked again without a cost."""


def read_result(said: Said) -> Raw:
    """What linopy says itself: a status that proves something, or a point that is checked against the program."""
    if said.result is None:
        return Raw(Status.STALLED)
    condition = str(said.result.status.termination_condition.value)
    solution, report = said.result.solution, said.result.report
    x = None if solution is None or len(solution.primal) != said.size else np.asarray(solution.primal, dtype=np.float64)
    known = report.dual_bound if report is not None else None
    return Raw(
        CONDITION.get(condition, Status.STALLED),
        x,
        -math.inf if known is None or math.isnan(known) else known,
        message=f"{condition} ({said.result.status.legacy_status})",
    )
