"""What came of a verification: a verdict, and the evidence for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mipnet.arrays import Array

Status = Literal["sat", "unsat", "unknown"]

STAGES = ("interval", "crown", "search", "alpha", "splitting", "branching", "mip")
"""The stages in order of cost; `splitting` halves the input, `branching` decides signs of ReLUs."""


@dataclass(frozen=True)
class Finding:
    """What is known of one clause of one case: the ``stage`` that refuted it, or None, and a proven lower bound on its excess."""

    case: int
    clause: int
    stage: str | None
    bound: float


@dataclass(frozen=True, eq=False)
class Verdict:
    """``sat`` with a counterexample, ``unsat`` with a bound above 0 for every clause, or ``unknown``.

    ``stage`` is the one that ended it: the last one that was needed.  ``counterexample`` has the network's input shape, and ``output``
    is what ``confirmed_by`` computed there.  ``parts`` counts what splitting and branching looked at, ``nodes`` is the solver's.
    """

    status: Status
    stage: str | None
    findings: tuple[Finding, ...]
    counterexample: Array | None
    output: Array | None
    confirmed_by: str | None
    seconds: float
    parts: int
    nodes: int
    backend: str
    interrupted: bool = False
    note: str = ""

    @property
    def bound(self) -> float:
        """No excess of any clause is below this anywhere in the set: the network is safe by as much, where it is positive."""
        return min((finding.bound for finding in self.findings), default=float("inf"))

    @property
    def refuted(self) -> Mapping[str, int]:
        """How many clauses each stage refuted, in order of stages."""
        counted = Counter(finding.stage for finding in self.findings if finding.stage is not None)
        return {stage: counted[stage] for stage in STAGES if stage in counted}
