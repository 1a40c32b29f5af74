"""A decoupled run: programs by key, parts as they come, kept beside the run folder until it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mipnet.app.files.solve_file import Spec
from mipnet.app.runs.inputs import Asked, limits_of
from mipnet.app.runs.judge import judge
from mipnet.app.runs.record import Run
from mipnet.app.runs.resume import Store, check_parts, parts_folder, question_of
from mipnet.errors import InputError, UnsupportedError
from mipnet.network.gates import find_gates
from mipnet.pruning.importance.auxiliary_heads import HeadTraining
from mipnet.pruning.importance.by_class import ClassScores, by_class, split
from mipnet.pruning.importance.by_layer import LayerScores, by_layer
from mipnet.pruning.importance.network_cuts import find_stages
from mipnet.pruning.importance.parts import PartLabel, SolvedPart
from mipnet.pruning.importance.program import Importance
from mipnet.pruning.importance.solve_settings import SolveSettings
from mipnet.readers.data import Dataset
from mipnet.solving.parallel import Workers


@dataclass(frozen=True)
class Way:
    """A way to decouple a question: what its programs are called, the images that decide them, and how all are solved and combined."""

    keys: Callable[[Importance], Sequence[PartLabel]]
    images: Callable[[Asked], Sequence[Dataset]]
    solve: Callable[..., ClassScores | LayerScores]


def _by_layer(spec: Spec, asked: Asked, **settings: Any) -> LayerScores:
    training = HeadTraining(asked.split.images, asked.split.labels, seed=spec.data.seed)
    return by_layer(asked.task, training, **settings)


WAYS: Mapping[str, Way] = {
    "class": Way(
        keys=lambda question: list(split(question)),
        images=lambda asked: (asked.images,),
        solve=lambda spec, asked, **settings: by_class(asked.task, **settings),
    ),
    "layer": Way(
        keys=lambda question: [stage.name for stage in find_stages(question.network, find_gates(question.network, question.gates))],
        images=lambda asked: (asked.images, asked.split),
        solve=_by_layer,
    ),
}
"""By the word of ``solve.decouple``."""


class Watch(Protocol):
    """Whoever wants to know how far a decoupled run is."""

    def begin(self, keys: Sequence[PartLabel], finished: Mapping[PartLabel, SolvedPart], side_by_side: int | None) -> None:
        """The programs are known, some are finished; the others start in this order, so many at a time (None: nobody knows)."""

    def done(self, key: PartLabel, part: SolvedPart) -> None:
        """A program is done."""


def check_resume(spec: Spec, resume: bool) -> None:
    """Raise `InputError` if there is nothing that could be resumed, or parts are there that should be and are not."""
    decoupled = spec.solve.decouple != "none"
    if resume and not decoupled:
        raise InputError("--resume takes up the parts of a decoupled run, and `solve.decouple` is `none`; leave it out")
    if resume and spec.output is None:
        raise InputError("--resume takes up the parts beside the run folder, and no `output` is given; name it, or leave --resume out")
    if decoupled and spec.output is not None:
        with spec.blame("output"):
            check_parts(parts_folder(Path(spec.output).expanduser()), resume)


def run_decoupled(spec: Spec, asked: Asked, watch: Watch | None = None) -> Run:
    """Solve the programs that are not finished yet, and judge the scores of all.

    Ctrl-C raises KeyboardInterrupt, and the parts that are finished stay where they are.
    """
    way = WAYS[spec.solve.decouple]
    with spec.blame("solve", "decouple", only=InputError):
        keys = way.keys(asked.task)
    store = store_of(spec, asked)
    with spec.blame("output"):
        finished = {} if store is None else store.finished(keys)
    if watch is not None:
        watch.begin(keys, finished, _side_by_side(spec))

    def on_done(key: PartLabel, part: SolvedPart) -> None:
        if store is not None:
            store.keep(key, part)
        if watch is not None:
            watch.done(key, part)

    given = spec.solve
    settings = {"backend": SolveSettings(given.backend, given.options, given.start), "limits": limits_of(spec)}
    place = {"workers": Workers(given.workers, given.scheduler), "on_done": on_done, "finished": finished}
    with spec.blame("formulation", only=UnsupportedError):
        found = way.solve(spec, asked, **settings, **place)
    built = sum(part.build_seconds for part in found.parts)
    log = [line for part in found.parts for line in (f"--- {given.decouple} {part.label} ---", *part.log)]
    return judge(spec, asked, found, built, log, found.parts, frozenset(finished), None if store is None else store.own)


def store_of(spec: Spec, asked: Asked) -> Store | None:
    """Where the parts of a run are kept; nowhere if it has no run folder."""
    if spec.output is None:
        return None
    return Store(parts_folder(Path(spec.output).expanduser()), question_of(spec, *WAYS[spec.solve.decouple].images(asked)))


def _side_by_side(spec: Spec) -> int | None:
    if spec.solve.scheduler is not None:
        return None
    return 1 if spec.solve.workers == 0 else spec.solve.workers or os.cpu_count() or 1
