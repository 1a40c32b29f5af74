"""A decoupled run: many small programs, each kept on disk when it is solved, until the run folder is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mipnet.app.files.solve_file import SolveFile
from mipnet.app.runs.evaluation import evaluate, solve_deadline
from mipnet.app.runs.importance_run import DecoupledParts, ImportanceRun, SolvedProgram
from mipnet.app.runs.inputs import ImportanceInputs, limits_of
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.resume import DecoupledStore, run_store
from mipnet.backend import Status
from mipnet.errors import InputError, UnsupportedError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.digests import bytes_digest, digest
from mipnet.limits.kept_parts import current_store
from mipnet.network.gates import find_gates
from mipnet.pruning.importance.auxiliary_heads import HeadTraining
from mipnet.pruning.importance.by_class import ClassScores, by_class, split
from mipnet.pruning.importance.by_layer import LayerScores, by_layer
from mipnet.pruning.importance.decoupled_parts import PartLabel, SolvedPart
from mipnet.pruning.importance.network_cuts import find_stages
from mipnet.pruning.importance.program import Importance
from mipnet.pruning.importance.solve_settings import SolveSettings
from mipnet.readers.data import Dataset
from mipnet.solving.parallel import Workers


@dataclass(frozen=True)
class Decoupling:
    """A way to decouple a question: the labels of its programs, the images that determine them, and the function that solves all."""

    labels: Callable[[Importance], Sequence[PartLabel]]
    images: Callable[[ImportanceInputs], Sequence[Dataset]]
    solve: Callable[..., ClassScores | LayerScores]


def _solve_by_layer(file: SolveFile, inputs: ImportanceInputs, **settings: Any) -> LayerScores:
    training = HeadTraining(inputs.split.images, inputs.split.labels, seed=file.data.seed)
    return by_layer(inputs.question, training, **settings)


DECOUPLING_WAYS: Mapping[str, Decoupling] = {
    "class": Decoupling(
        labels=lambda question: list(split(question)),
        images=lambda inputs: (inputs.images,),
        solve=lambda file, inputs, **settings: by_class(inputs.question, **settings),
    ),
    "layer": Decoupling(
        labels=lambda question: [stage.name for stage in find_stages(question.network, find_gates(question.network, question.gates))],
        images=lambda inputs: (inputs.images, inputs.split),
        solve=_solve_by_layer,
    ),
}
"""The ways to decouple, by the value of ``solve.decouple``."""


def run_decoupled(
    file: SolveFile, inputs: ImportanceInputs, listener: RunListener | None = None, deadline: Deadline = NO_DEADLINE
) -> ImportanceRun:
    """Solve the programs that no earlier run has finished, and evaluate the scores of all.

    The time is divided among the programs; those that get no solution in time are not kept on disk.  Ctrl-C raises KeyboardInterrupt;
    the parts that are finished stay on disk.
    """
    listener, decoupling = listener or RunListener(), DECOUPLING_WAYS[file.solve.decouple]
    with file.blame("solve", "decouple", only=InputError):
        labels = decoupling.labels(inputs.question)
    store = parts_store(file, inputs)
    finished = {} if store is None else store.finished(labels)
    listener.programs_begin(labels, finished, _at_once(file))

    def on_done(label: PartLabel, part: SolvedPart) -> None:
        if store is not None and (part.scores is not None or part.result.status is not Status.TIME_LIMIT):
            store.keep(label, part)
        listener.program_done(label, part)

    given = file.solve
    with file.blame("formulation", only=UnsupportedError):
        found = decoupling.solve(
            file,
            inputs,
            backend=SolveSettings(given.backend, given.options, given.start),
            time_limit=solve_deadline(file, deadline),
            limits=limits_of(file),
            workers=Workers(given.workers, given.scheduler),
            on_done=on_done,
            finished=finished,
        )
    build_seconds = sum(part.build_seconds for part in found.parts)
    log = tuple(line for part in found.parts for line in (f"--- {given.decouple} {part.label} ---", *part.log))
    program = SolvedProgram(found.result, build_seconds, len(inputs.images), log)
    parts = DecoupledParts(found.parts, frozenset(finished), None if store is None else store.own)
    return evaluate(file, inputs, found, program, parts, deadline)


def parts_store(file: SolveFile, inputs: ImportanceInputs) -> DecoupledStore | None:
    """Return the store of the run's parts; None if nothing is kept, because the file names no run folder.

    The parts depend on the bytes of the weights, and on the labelled images.
    """
    store = current_store() or run_store(file)
    if store is None:
        return None
    images = DECOUPLING_WAYS[file.solve.decouple].images(inputs)
    depends_on = {
        "weights": bytes_digest(file.path(file.network.file).read_bytes()),
        "images": [digest((each.images, each.labels)) for each in images],
    }
    return DecoupledStore(store.open("decoupled", depends_on))


def _at_once(file: SolveFile) -> int | None:
    """Return the number of programs that run at the same time; None if a scheduler decides."""
    if file.solve.scheduler is not None:
        return None
    return 1 if file.solve.workers == 0 else file.solve.workers or os.cpu_count() or 1
