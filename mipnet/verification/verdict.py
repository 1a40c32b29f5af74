"""The result of a verification: a verdict, and what was proven of every clause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mipnet.arrays import Array

VerdictStatus = Literal["sat", "unsat", "unknown"]

STAGE_NAMES = ("interval", "crown", "search", "splitting", "alpha", "branching", "mip")
"""The names of all stages, in the order in which `mipnet.verification.stages` runs them.

`splitting` halves boxes of inputs, `branching` decides signs of ReLUs.
"""


@dataclass(frozen=True)
class Finding:
    """The result for one clause of one case: the ``stage`` that refuted it, or None, and a proven lower bound on its excess."""

    case: int
    clause: int
    stage: str | None
    bound: float


@dataclass(frozen=True, eq=False)
class Verdict:
    """``sat`` with a counterexample, ``unsat`` with a bound above 0 for every clause, or ``unknown``.

    ``warnings`` say which stages were left out, or cut short, for want of memory.
    ``stage`` is the last stage that was needed.  ``counterexample`` has the network's input shape, and ``output`` is the output that the
    oracle ``confirmed_by`` computed for it.  ``parts`` counts the parts of the input set that splitting and branching bounded, ``nodes``
    the solver's nodes.
    """

    status: VerdictStatus
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
    warnings: tuple[str, ...] = ()

    @property
    def bound(self) -> float:
        """The smallest proven bound: no clause has a smaller excess anywhere in the set.  Above 0, it is the margin of the proof."""
        none = float("-inf" if self.status == "unknown" else "inf")
        return min((finding.bound for finding in self.findings), default=none)

    @property
    def refuted(self) -> Mapping[str, int]:
        """The number of clauses that each stage refuted, in order of stages."""
        counted = Counter(finding.stage for finding in self.findings if finding.stage is not None)
        return {stage: counted[stage] for stage in STAGE_NAMES if stage in counted}


def unread(backend: str, seconds: float, note: str) -> Verdict:
    """Return the verdict ``unknown`` of a question that could not be read in the time given; ``note`` says what took it."""
    return Verdict("unknown", None, (), None, None, None, seconds, 0, 0, backend, note=note)
