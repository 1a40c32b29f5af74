"""The answers to many questions as a table that grows by one whole line an answer, which is on the disk before the next one comes."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mipnet.app.runs.vnncomp import WORDS, write_whole
from mipnet.errors import InputError
from mipnet.verification.verdict import STAGES

TABLE, POINTS = "results.csv", "counterexamples"
"""What the folder of a run holds: the answers, and a result file for each ``sat``."""


@dataclass(frozen=True)
class Answer:
    """A line of ``results.csv``.

    ``refuted`` counts clauses by stage, as in ``crown:8 mip:1``; ``point`` names the counterexample's file; ``asked`` is the question's
    digest.
    """

    benchmark: str
    network: str
    question: str
    timeout: float
    verdict: str
    stage: str = ""
    seconds: float = 0.0
    bound: float = float("nan")
    refuted: str = ""
    parts: int = 0
    nodes: int = 0
    backend: str = ""
    confirmed_by: str = ""
    point: str = ""
    note: str = ""
    asked: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is an answer to."""
        return self.benchmark, self.network, self.question


COLUMNS = tuple(each.name for each in fields(Answer))


def open_table(folder: Path) -> list[Answer]:
    """The answers that a folder has, after a line that a kill cut off is taken away; makes the folder if need be.

    Raises `InputError` for a folder with a ``results.csv`` that was not written here, or with other things and none.
    """
    path = folder / TABLE
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`{folder}` is a file; expected a folder that is new, empty or of an earlier run")
    if folder.is_dir() and not path.exists() and (foreign := sorted(entry.name for entry in folder.iterdir() if entry.name != POINTS)):
        raise InputError(f"`{folder}` holds `{foreign[0]}` and no `{TABLE}`; expected a folder that is new, empty or of an earlier run")
    (folder / POINTS).mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.exists() else b""
    whole = written[: written.rfind(b"\n") + 1]
    lines = list(csv.reader(io.StringIO(whole.decode("utf-8", errors="replace"))))
    if (written and not lines) or (lines and tuple(lines[0]) != COLUMNS):
        raise InputError(f"`{path}` was not written by this version of mipnet; move it away, or name another folder")
    if len(whole) < len(written):
        os.truncate(path, len(whole))
    if not lines:
        write_whole(path, _line(COLUMNS))
    return list(_answers(path, lines[1:]))


def _answers(path: Path, lines: Sequence[Sequence[str]]) -> Iterator[Answer]:
    kinds: Mapping[str, type] = {"timeout": float, "seconds": float, "bound": float, "parts": int, "nodes": int}
    for place, line in enumerate(lines, 2):
        try:
            cells = {name: kinds.get(name, str)(cell) for name, cell in zip(COLUMNS, line, strict=True)}
        except ValueError:
            raise InputError(f"`{path}`, line {place} is not understood; take it away, and that instance runs again") from None
        yield Answer(**cells)


def append(folder: Path, answer: Answer) -> None:
    """Add an answer to the table in one write, and wait until it is on the disk."""
    with (folder / TABLE).open("ab", buffering=0) as stream:
        stream.write(_line(asdict(answer).values()).encode())
        os.fsync(stream.fileno())


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells)
    return text.getvalue()


def summary(answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """By benchmark: how many were decided by each stage, how many were not, and the median and the sum of their seconds."""
    found = {}
    for benchmark in dict.fromkeys(answer.benchmark for answer in answers):
        own = [answer for answer in answers if answer.benchmark == benchmark]
        words = {word: [answer for answer in own if answer.verdict == word] for word in WORDS}
        seconds = sorted(answer.seconds for answer in own)
        middle = len(seconds) // 2
        found[benchmark] = {
            "instances": len(own),
            **{word: len(group) for word, group in words.items()},
            "stages": {stage: {w: sum(a.stage == stage for a in words[w]) for w in ("unsat", "sat")} for stage in STAGES},
            "median_s": (seconds[middle] + seconds[-1 - middle]) / 2,
            "total_s": sum(seconds),
        }
    return found


def to_record(answer: Answer) -> dict[str, Any]:
    """An answer as plain JSON data: a bound that is not finite is null."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(answer).items()}
