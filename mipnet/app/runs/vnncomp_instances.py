"""Many instances of a file in the format of VNN-COMP, one line per instance: network, property, seconds.

Every result is written to disk immediately.  An instance is done if a line of `mipnet.app.runs.results_table` has its digest, which
depends on both files, the seconds, the settings and the version of mipnet.
"""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mipnet.app.runs.results_table import COUNTEREXAMPLES_FOLDER, InstanceResult, append, open_table, own_table
from mipnet.app.runs.vnncomp import read_question, result_text, result_word
from mipnet.backend import get_backend
from mipnet.errors import DataError, InputError, TimeLimitReached
from mipnet.limits.deadline import Deadline
from mipnet.limits.disk import write_whole
from mipnet.readers.file_bytes import PACKED_SUFFIXES, read_text
from mipnet.solving.parallel import run_all
from mipnet.verification.verdict import Verdict, unread
from mipnet.verification.verify import verify
from mipnet.version import __version__

OnStage = Callable[[str, int], None]
"""A function that takes the stage that begins, and the number of clauses that are still open."""


@dataclass(frozen=True)
class Instance:
    """A line of an instances file; the paths of ``network`` and property (``question``) are relative to ``folder``."""

    folder: Path
    network: str
    question: str
    seconds: float

    @property
    def benchmark(self) -> str:
        """The name of the folder of the instances file."""
        return self.folder.name

    @property
    def files(self) -> tuple[Path, Path]:
        """The paths of network and property, with the suffix of a compressed file if only that exists."""
        return present(self.folder / self.network), present(self.folder / self.question)


def present(path: Path) -> Path:
    """Return the path, or that of the compressed file (`PACKED_SUFFIXES`) if only that exists."""
    packed = (path.with_name(path.name + suffix) for suffix in PACKED_SUFFIXES)
    return path if path.exists() else next((each for each in packed if each.exists()), path)


@dataclass(frozen=True)
class VerifySettings:
    """The solver, a second solver that has to refute as well, the seconds (those of each line if None), and the seed of the search."""

    backend: str = "highs"
    cross_check: str | None = None
    seconds: float | None = None
    seed: int = 0

    def limit(self, instance: Instance) -> float:
        """Return the seconds for an instance."""
        return self.seconds or instance.seconds

    def digest(self, instance: Instance) -> str:
        """Return twelve hexadecimal digits that identify the files, the seconds, the settings and the version of mipnet."""
        settings = replace(self, seconds=None)
        found = hashlib.sha256(repr((__version__, settings, self.limit(instance), instance.network, instance.question)).encode())
        for path in instance.files:
            content = path.read_bytes() if path.is_file() else b"missing"
            found.update(f"{len(content)} bytes".encode() + content)
        return found.hexdigest()[:12]


def read_instances(path: str | Path) -> list[Instance]:
    """Read an instances file; raises `DataError` naming the line."""
    path = Path(path)
    text = read_text(path, "lines of network, property and seconds")
    found = [_instance(path, place, line) for place, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise DataError(f"`{path}` is empty; expected lines of network, property and seconds")
    return list(dict.fromkeys(found))


def _instance(path: Path, place: int, line: str) -> Instance:
    cells = [cell.strip() for cell in next(csv.reader([line]))]
    expected = "expected network,property,seconds, such as net.onnx,prop.vnnlib,60"
    if len(cells) != 3 or not all(cells):
        decimal = len(cells) == 4 and cells[2].isdecimal() and cells[3].isdecimal()
        hint = f"; is there a decimal comma? write {cells[2]}.{cells[3]}" if decimal else ""
        raise DataError(f"`{path}`, line {place}: got `{line[:60]}`; {expected}{hint}")
    try:
        seconds = float(cells[2])
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise DataError(f"`{path}`, line {place}: `{cells[2][:40]}` is no positive number of seconds; {expected}")
    return Instance(path.absolute().parent, cells[0], cells[1], seconds)


def run_instances(
    instances: Sequence[Instance],
    folder: str | Path,
    settings: VerifySettings | None = None,
    *,
    workers: int = 0,
    on_begin: Callable[[Sequence[Instance], int], None] = lambda rest, done: None,
    on_done: Callable[[InstanceResult], None] = lambda result: None,
    on_stage: OnStage = lambda stage, clauses_open: None,
) -> list[InstanceResult]:
    """Return the result of every instance, in their order; results that ``folder`` has are not computed again.

    An instance that cannot be read, or fails, is an ``error`` with the reason as its note.  ``workers`` processes run at the same time;
    with 0 all run in this process, and ``on_stage`` is called for each stage.  ``on_begin`` takes the instances that are left and the
    number of those that are done.  Raises `OutputInUse` if another process writes to the folder.
    """
    settings, folder = settings or VerifySettings(), Path(folder)
    for backend in (settings.backend, settings.cross_check):
        if backend is not None:
            get_backend(backend)
    with own_table(folder):
        table = open_table(folder)
        known = {(result.benchmark, result.asked): result for result in table}
        asked = {instance: settings.digest(instance) for instance in instances}
        done = {one: known[key] for one in instances if (key := (one.benchmark, asked[one])) in known}
        rest = [one for one in instances if one not in done]
        on_begin(rest, len(done))

        def keep(instance: Instance, result: InstanceResult) -> None:
            done[instance] = result
            append(folder, result)
            on_done(result)

        stage = None if workers else on_stage
        programs = {one: partial(run_instance, one, settings, folder, asked[one], bool(workers), stage) for one in rest}
        run_all(programs, workers=workers, on_done=keep)
    return [done[one] for one in instances]


def verify_files(network: Path, property_file: Path, settings: VerifySettings, limit: float, on_stage: OnStage | None = None) -> Verdict:
    """Return the verdict on the property of two files; its seconds and the limit include the time to read them."""
    began, deadline = time.monotonic(), Deadline.after(limit)
    try:
        found = read_question(network, property_file, deadline)
    except TimeLimitReached as error:
        return unread(settings.backend, time.monotonic() - began, str(error))
    verdict = verify(
        found.network,
        found.property,
        time_limit=deadline,
        backend=settings.backend,
        cross_check=settings.cross_check,
        oracle=found.oracle,
        seed=settings.seed,
        on_stage=on_stage or (lambda stage, clauses_open: None),
    )
    return replace(verdict, seconds=time.monotonic() - began)


def run_instance(
    instance: Instance, settings: VerifySettings, folder: Path, asked: str, one_thread: bool = False, on_stage: OnStage | None = None
) -> InstanceResult:
    """Verify one instance, and write its counterexample; ``one_thread`` in a process beside others."""
    began, limit = time.monotonic(), settings.limit(instance)
    if one_thread:
        import torch

        torch.set_num_threads(1)
    blank = InstanceResult(instance.benchmark, instance.network, instance.question, limit, "error", backend=settings.backend, asked=asked)
    try:
        verdict = verify_files(*instance.files, settings, limit, on_stage)
    except Exception as error:  # an error in one instance must not stop the others
        return replace(blank, seconds=time.monotonic() - began, note=_reason(error))
    if verdict.interrupted:
        raise KeyboardInterrupt
    word, point = result_word(verdict, limit), ""
    if word == "sat":
        point = f"{COUNTEREXAMPLES_FOLDER}/{instance.benchmark}_{Path(instance.network).stem}_{Path(instance.question).stem}_{asked}.txt"
        write_whole(folder / point, result_text(word, verdict))
    return replace(
        blank,
        verdict=word,
        stage=verdict.stage or "",
        seconds=verdict.seconds,
        bound=verdict.bound,
        refuted=" ".join(f"{stage}:{count}" for stage, count in verdict.refuted.items()),
        parts=verdict.parts,
        nodes=verdict.nodes,
        confirmed_by=verdict.confirmed_by or "",
        point=point,
        note="; ".join(filter(None, (verdict.note, *verdict.warnings))),
    )


def _reason(error: Exception) -> str:
    return " ".join((str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}").split())[:500]
