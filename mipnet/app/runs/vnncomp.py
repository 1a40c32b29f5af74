"""Networks and properties in files, and results in the format of VNN-COMP: a word, and for ``sat`` the counterexample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import Network
from mipnet.network.properties import Property
from mipnet.readers.files import read
from mipnet.readers.vnnlib import read_vnnlib
from mipnet.verification.oracle import Oracle
from mipnet.verification.verdict import Verdict
from mipnet.verification.verify import check_property

VNNCOMP_WORDS = ("sat", "unsat", "timeout", "unknown", "error")
"""The words that the first line of a result file may be."""

TIMEOUT_SHARE = 0.95
"""An undecided verification that took this share of the time limit counts as ``timeout``."""


@dataclass(frozen=True, eq=False)
class VerificationQuestion:
    """A network, a property of it, and the oracle that confirms a counterexample."""

    network: Network
    property: Property
    oracle: Oracle


def read_question(network_file: str | Path, property_file: str | Path, deadline: Deadline = NO_DEADLINE) -> VerificationQuestion:
    """Read a network and a property, such as net.onnx and prop.vnnlib; raises an error as `check_property` unless they fit."""
    network = read(network_file, time_limit=deadline)
    found = read_vnnlib(property_file, deadline)
    check_property(network, found)
    return VerificationQuestion(network, found, Oracle.of_file(network_file, network, deadline))


def result_word(verdict: Verdict, time_limit: float | None) -> str:
    """Return ``sat``, ``unsat``, ``timeout`` if the time was used up, or else ``unknown``."""
    late = time_limit is not None and verdict.seconds >= TIMEOUT_SHARE * time_limit
    return "timeout" if late and verdict.status == "unknown" and not verdict.interrupted else verdict.status


def result_text(word: str, verdict: Verdict | None) -> str:
    """Return the word, and the counterexample with the outputs that the oracle computed: ``((X_0 0.5)`` and so on, one value per line."""
    if word != "sat" or verdict is None or verdict.counterexample is None or verdict.output is None:
        return f"{word}\n"
    parts = (("X", verdict.counterexample), ("Y", verdict.output))
    values = [f"({letter}_{k} {float(value)!r})" for letter, array in parts for k, value in enumerate(array.reshape(-1))]
    return "sat\n(" + "\n".join(values) + ")\n"


def verdict_record(verdict: Verdict, word: str) -> dict[str, Any]:
    """Return a verdict as plain JSON data: a number that is infinite is null."""
    copied = ("stage", "seconds", "parts", "nodes", "backend", "confirmed_by", "interrupted", "note")
    x, y = verdict.counterexample, verdict.output
    return {
        "mipnet": version("mipnet"),
        "task": "verify",
        "verdict": word,
        "status": verdict.status,
        **{name: getattr(verdict, name) for name in copied},
        "bound": _finite(verdict.bound),
        "refuted": dict(verdict.refuted),
        "clauses": [{"case": f.case, "clause": f.clause, "stage": f.stage, "bound": _finite(f.bound)} for f in verdict.findings],
        "counterexample": None if x is None else x.tolist(),
        "output": None if y is None else y.tolist(),
        "warnings": list(verdict.warnings),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
