"""The table of a run over many instances, ``results.csv``: one line per instance, on disk before the next instance begins."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from mipnet.app.runs.vnncomp import VNNCOMP_WORDS
from mipnet.errors import InputError
from mipnet.limits.disk import clear_remains, naming, write_whole
from mipnet.limits.output_lock import lock_path, only_writer
from mipnet.verification.verdict import STAGE_NAMES

RESULTS_FILE = "results.csv"
"""The table of results in the folder of a run."""

COUNTEREXAMPLES_FOLDER = "counterexamples"
"""The folder with a result file for each ``sat``."""


class InstanceKey(NamedTuple):
    """The benchmark, the network and the property of an instance."""

    benchmark: str
    network: str
    question: str


@dataclass(frozen=True)
class InstanceResult:
    """A line of ``results.csv``.

    ``refuted`` counts clauses by stage, such as ``crown:8 mip:1``.  ``point`` is the path of the counterexample's file.  ``asked`` is
    the digest of files, seconds and settings.
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
    def key(self) -> InstanceKey:
        """The instance that it is the result of."""
        return InstanceKey(self.benchmark, self.network, self.question)


RESULT_COLUMNS = tuple(each.name for each in fields(InstanceResult))


def open_table(folder: Path) -> list[InstanceResult]:
    """Return the results in a folder, after an incomplete last line is removed; create the folder if it does not exist.

    Raises `InputError` for a ``results.csv`` of another origin, and for a folder with other files and without ``results.csv``.
    """
    path, expected = folder / RESULTS_FILE, "expected a folder that is new, empty or of an earlier run"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`{folder}` is a file; {expected}")
    if folder.is_dir() and not path.exists():
        own = (COUNTEREXAMPLES_FOLDER, lock_path(path).name)
        foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in own)
        if foreign:
            raise InputError(f"`{folder}` holds `{foreign[0]}` and no `{RESULTS_FILE}`; {expected}")
    (folder / COUNTEREXAMPLES_FOLDER).mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.exists() else b""
    whole = written[: written.rfind(b"\n") + 1]
    lines = list(csv.reader(io.StringIO(whole.decode("utf-8-sig", errors="replace"))))
    if (written and not lines) or (lines and tuple(lines[0]) != RESULT_COLUMNS):
        raise InputError(f"`{path}` was not written by this version of mipnet; move it away, or name another folder")
    if len(whole) < len(written):
        os.truncate(path, len(whole))
    if not lines:
        write_whole(path, _line(RESULT_COLUMNS))
    return list(_read_lines(path, lines[1:]))


@contextmanager
def own_table(folder: Path) -> Iterator[None]:
    """Be the only process that writes the results in a folder; raises `OutputInUse` if another one does."""
    if folder.exists() and not folder.is_dir():
        open_table(folder)
    with only_writer(folder / RESULTS_FILE) as locked:
        if locked:
            clear_remains(folder / RESULTS_FILE)
        yield


def _read_lines(path: Path, lines: Sequence[Sequence[str]]) -> Iterator[InstanceResult]:
    kinds: Mapping[str, type] = {"timeout": float, "seconds": float, "bound": float, "parts": int, "nodes": int}
    for place, line in enumerate(lines, 2):
        try:
            cells = {name: kinds.get(name, str)(cell) for name, cell in zip(RESULT_COLUMNS, line, strict=True)}
        except ValueError:
            raise InputError(f"`{path}`, line {place} is not understood; take it away, and that instance runs again") from None
        yield InstanceResult(**cells)


def append(folder: Path, result: InstanceResult) -> None:
    """Add a result to the table in one write, and wait until it is on disk."""
    with naming(folder / RESULTS_FILE), (folder / RESULTS_FILE).open("ab", buffering=0) as stream:
        stream.write(_line(asdict(result).values()).encode())
        os.fsync(stream.fileno())


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells)
    return text.getvalue()


def summary(results: Sequence[InstanceResult]) -> dict[str, dict[str, Any]]:
    """Return, per benchmark, the number of instances by verdict and by stage, and the median and the sum of their seconds."""
    found = {}
    for benchmark in dict.fromkeys(result.benchmark for result in results):
        own = [result for result in results if result.benchmark == benchmark]
        words = {word: [result for result in own if result.verdict == word] for word in VNNCOMP_WORDS}
        seconds = sorted(result.seconds for result in own)
        middle = len(seconds) // 2
        found[benchmark] = {
            "instances": len(own),
            **{word: len(group) for word, group in words.items()},
            "stages": {stage: {w: sum(a.stage == stage for a in words[w]) for w in ("unsat", "sat")} for stage in STAGE_NAMES},
            "median_s": (seconds[middle] + seconds[-1 - middle]) / 2,
            "total_s": sum(seconds),
        }
    return found


def result_record(result: InstanceResult) -> dict[str, Any]:
    """Return a result as plain JSON data: a bound that is not finite is null."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(result).items()}
