"""Many questions from a file as VNN-COMP writes it: a line each with network, property and seconds; every answer is kept at once.

A question is done if a line of `mipnet.app.runs.results_table` has its digest: of both files, the seconds and the settings.
"""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mipnet.app.runs.results_table import POINTS, Answer, append, open_table
from mipnet.app.runs.vnncomp import read_question, result_text, result_word, write_whole
from mipnet.backend import get_backend
from mipnet.errors import DataError, InputError
from mipnet.solving.parallel import run_all
from mipnet.verification.pipeline import verify
from mipnet.verification.verdict import Verdict

Tell = Callable[[str, int], None]


@dataclass(frozen=True)
class Instance:
    """A line of an instances file; ``network`` and ``question`` are as it says them, relative to ``folder``."""

    folder: Path
    network: str
    question: str
    seconds: float

    @property
    def benchmark(self) -> str:
        """The name of the folder that the instances file lies in."""
        return self.folder.name

    @property
    def files(self) -> tuple[Path, Path]:
        """Where network and property lie: as named, or else packed by gzip."""
        named = [self.folder / name for name in (self.network, self.question)]
        first, second = (path if path.exists() or not packed_name(path).exists() else packed_name(path) for path in named)
        return first, second


def packed_name(path: Path) -> Path:
    """The name of a file when gzip has packed it."""
    return path.with_name(path.name + ".gz")


@dataclass(frozen=True)
class Settings:
    """How all instances are decided; ``seconds`` overrides those of each line."""

    backend: str = "highs"
    cross_check: str | None = None
    seconds: float | None = None
    seed: int = 0

    def limit(self, instance: Instance) -> float:
        """The seconds for an instance."""
        return self.seconds or instance.seconds

    def digest(self, instance: Instance) -> str:
        """What tells this question from others: twelve hexadecimal digits."""
        found = hashlib.sha256(repr((replace(self, seconds=None), self.limit(instance), instance.network, instance.question)).encode())
        for path in instance.files:
            found.update(path.read_bytes() if path.is_file() else b"missing")
        return found.hexdigest()[:12]


def read_instances(path: str | Path) -> list[Instance]:
    """The lines of an instances file; raises `DataError` naming the line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"no file `{path}`; expected lines of network, property and seconds") from None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"`{path}` cannot be read ({why.lower()}); expected lines of network, property and seconds") from None
    found = [_instance(path, place, line) for place, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise DataError(f"`{path}` is empty; expected lines of network, property and seconds")
    return list(dict.fromkeys(found))


def _instance(path: Path, place: int, line: str) -> Instance:
    cells = [cell.strip() for cell in next(csv.reader([line]))]
    expected = "expected network,property,seconds, such as net.onnx,prop.vnnlib,60"
    if len(cells) != 3 or not all(cells):
        raise DataError(f"`{path}`, line {place}: got `{line[:60]}`; {expected}")
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
    settings: Settings | None = None,
    *,
    workers: int = 0,
    on_begin: Callable[[Sequence[Instance], int], None] = lambda rest, done: None,
    on_done: Callable[[Answer], None] = lambda answer: None,
    on_stage: Tell = lambda stage, left: None,
) -> list[Answer]:
    """The answer of every instance, in their order; those that ``folder`` has are not asked again.

    A question that cannot be read, or fails, is an ``error`` with the reason as its note.  ``workers`` processes run side by side, none
    with 0; then ``on_stage`` hears of the stages.  ``on_begin`` is told which instances are left and how many are done.
    """
    settings, folder = settings or Settings(), Path(folder)
    for backend in (settings.backend, settings.cross_check):
        if backend is not None:
            get_backend(backend)
    table = open_table(folder)
    known = {(answer.benchmark, answer.asked): answer for answer in table}
    asked = {instance: settings.digest(instance) for instance in instances}
    done = {one: known[key] for one in instances if (key := (one.benchmark, asked[one])) in known}
    rest = [one for one in instances if one not in done]
    on_begin(rest, len(done))

    def keep(instance: Instance, answer: Answer) -> None:
        done[instance] = answer
        append(folder, answer)
        on_done(answer)

    tell = None if workers else on_stage
    programs = {one: partial(answer_one, one, settings, folder, asked[one], bool(workers), tell) for one in rest}
    run_all(programs, workers=workers, on_done=keep)
    return [done[one] for one in instances]


def decide(network: Path, question: Path, settings: Settings, limit: float, on_stage: Tell | None = None) -> Verdict:
    """The verdict on the question of two files, reading them included in its seconds and in the limit."""
    began = time.monotonic()
    found = read_question(network, question)
    verdict = verify(
        found.network,
        found.question,
        time_limit=max(0.1, limit - (time.monotonic() - began)),
        backend=settings.backend,
        cross_check=settings.cross_check,
        oracle=found.oracle,
        seed=settings.seed,
        on_stage=on_stage or (lambda stage, left: None),
    )
    return replace(verdict, seconds=time.monotonic() - began)


def answer_one(
    instance: Instance, settings: Settings, folder: Path, asked: str, alone: bool = False, on_stage: Tell | None = None
) -> Answer:
    """Decide one instance, and write its counterexample; ``alone`` in a process that shares the machine with others like it."""
    began, limit = time.monotonic(), settings.limit(instance)
    if alone:
        import torch

        torch.set_num_threads(1)
    blank = Answer(instance.benchmark, instance.network, instance.question, limit, "error", backend=settings.backend, asked=asked)
    try:
        verdict = decide(*instance.files, settings, limit, on_stage)
    except Exception as error:  # whatever is wrong with one question, the others are asked
        return replace(blank, seconds=time.monotonic() - began, note=_reason(error))
    if verdict.interrupted:
        raise KeyboardInterrupt
    word, point = result_word(verdict, limit), ""
    if word == "sat":
        point = f"{POINTS}/{instance.benchmark}_{Path(instance.network).stem}_{Path(instance.question).stem}_{asked}.txt"
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
        note=verdict.note,
    )


def _reason(error: Exception) -> str:
    return " ".join((str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}").split())[:500]
