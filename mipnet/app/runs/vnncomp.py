"""Questions in files, and answers as VNN-COMP wants them: a word in the first line, and for ``sat`` the point as an s-expression."""

from __future__ import annotations

import math
import os
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mipnet.errors import InputError, UnsupportedError
from mipnet.network.graph import Network
from mipnet.network.properties import Property
from mipnet.readers.conversion import SOFTMAX_NOTES
from mipnet.readers.files import read
from mipnet.readers.vnnlib import read_vnnlib
from mipnet.verification.oracle import Oracle
from mipnet.verification.verdict import Verdict

WORDS = ("sat", "unsat", "timeout", "unknown", "error")
"""What the first line of a result file may be."""

LATE = 0.95
"""An answer that took this share of the time limit, and is none, ran out of time."""


@dataclass(frozen=True, eq=False)
class Question:
    """A network, a property of it, and who confirms a counterexample."""

    network: Network
    question: Property
    oracle: Oracle


def read_question(network: str | Path, question: str | Path) -> Question:
    """The question of two files, such as net.onnx and prop.vnnlib; raises `InputError` unless they fit."""
    net = read(network)
    found = read_vnnlib(question)
    check_last(net, found)
    return Question(net, found, Oracle.of_file(network, net))


def check_last(network: Network, question: Property) -> None:
    """Raise `UnsupportedError` if a reader took off a softmax and the property does more than compare outputs, which stay in order."""
    taken = [note for note in network.notes if note in SOFTMAX_NOTES.values()]
    rows = [row for case in question.cases for clause in case.clauses for row in np.column_stack([clause.matrix, clause.rhs])]
    if taken and not all(len(row.nonzero()[0]) == 2 and row.sum() == 0 and row[-1] == 0 for row in rows):
        raise UnsupportedError(f"{taken[0]}; expected a property that compares outputs with each other, or a network without it")


def result_word(verdict: Verdict, time_limit: float) -> str:
    """``sat``, ``unsat``, ``timeout`` if the time was used up, else ``unknown``."""
    late = verdict.status == "unknown" and verdict.seconds >= LATE * time_limit and not verdict.interrupted
    return "timeout" if late else verdict.status


def result_text(word: str, verdict: Verdict | None) -> str:
    """The word, and the counterexample with the outputs that the oracle gave: ``((X_0 0.5)`` and so on, one value a line."""
    if word != "sat" or verdict is None or verdict.counterexample is None or verdict.output is None:
        return f"{word}\n"
    parts = (("X", verdict.counterexample), ("Y", verdict.output))
    values = [f"({letter}_{k} {float(value)!r})" for letter, array in parts for k, value in enumerate(array.reshape(-1))]
    return "sat\n(" + "\n".join(values) + ")\n"


def check_writable(path: Path) -> None:
    """Raise `InputError` unless a file may be written there."""
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        why = "it is a folder" if path.is_dir() else f"`{path.absolute().parent}` is no folder that can be written to"
        raise InputError(f"`{path}` cannot be written: {why}; name another file")


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with fresh.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def to_record(verdict: Verdict, word: str) -> dict[str, Any]:
    """A verdict as plain JSON data: a number that is infinite is null."""
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
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
