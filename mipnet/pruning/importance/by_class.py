"""Importance, decoupled: one program for each class, with its images alone, and the mean of their scores.

This is the per-class form of ElAraby, Wolf and Carvalho (CPAIOR 2023): ``s = mean over the classes c of s^(c)``.  The programs know
nothing of one another, so they run side by side (`mipnet.solving.parallel`).  Objective and bound are means too, and the bound is proven:
no scores, not even different ones for every class, have a smaller mean objective.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.backend import Backend, Event, Limits, Options, Status, relative_gap
from mipnet.errors import DataError
from mipnet.model.losses import check_labels
from mipnet.network.gates import find_gates
from mipnet.network.sets import Samples
from mipnet.pruning.importance.question import Importance, Scores
from mipnet.solving.engine import Result, Start, solve
from mipnet.solving.parallel import run_all

Key = int | str
"""What a part is called: the number of its class, or the names of its gates."""


@dataclass(frozen=True, eq=False)
class Part:
    """One program: its ``label`` (a class, or the gates of a stage), how many images it has, and what came of it.

    ``result.x`` holds the scores alone; ``warnings`` are those that were given on the way, maybe in another process.
    """

    label: Key
    samples: int
    build_seconds: float
    result: Result
    log: tuple[str, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def scores(self) -> xr.Dataset | None:
        """One array a gate, or None if no point was found."""
        return self.result.x


@dataclass(frozen=True, eq=False)
class ClassScores(Scores):
    """The mean of the scores over the classes; ``parts`` holds one `Part` a class, and ``result`` sums them up.

    ``scores`` is None unless every class has a point, and ``result.verified`` is True only if it is for every class.
    """

    parts: tuple[Part, ...] = ()


def by_class(
    question: Importance,
    *,
    backend: str | Backend = "highs",
    time_limit: float = math.inf,
    mip_gap: float = 1e-4,
    limits: Limits | None = None,
    options: Options | None = None,
    start: Start = "forward",
    workers: int | None = 0,
    scheduler: str | None = None,
    on_done: Callable[[Key, Part], None] | None = None,
    finished: Mapping[Key, Part] | None = None,
) -> ClassScores:
    """Solve one program for each class that the labels have, and average the scores.

    The limits hold for every program by itself; ``workers``, ``scheduler``, ``on_done`` and ``finished`` are those of
    `mipnet.solving.parallel.run_all`, by label.  Ctrl-C raises KeyboardInterrupt: the parts that were handed to ``on_done`` are whole.
    """
    settings = {"limits": limits or Limits(time=time_limit, gap=mip_gap), "options": options, "start": start}
    programs: dict[Key, Callable[[], Part]] = {
        label: partial(solve_part, label, part, backend, settings) for label, part in split(question).items()
    }
    parts = run_all(programs, workers=workers, scheduler=scheduler, on_done=on_done, finished=finished)
    retell(parts.values())
    return average(question, tuple(parts.values()))


def split(question: Importance) -> dict[Key, Importance]:
    """The question about each class, in the order of the labels."""
    images, labels = labelled_images(question)
    return {int(c): replace(question, images=images[labels == c], labels=labels[labels == c]) for c in np.unique(labels)}


def labelled_images(question: Importance) -> tuple[Array, NDArray[np.int64]]:
    """The images and labels of a question; raises `DataError` unless they fit the network and one another."""
    images = Samples(question.images).fit(question.network.input_shape).lower
    shape = question.network.output_shape
    if len(shape) != 1:
        raise DataError(f"the network's output has shape {shape} for one sample; labels need one number for each class")
    return images, check_labels(question.labels, len(images), shape[0])


def solve_part(label: Key, question: Importance, backend: str | Backend, settings: Mapping[str, Any]) -> Part:
    """One program, posed and solved; a solve that is interrupted is no part, and raises KeyboardInterrupt."""
    log: list[str] = []

    def hear(event: Event) -> None:
        if event.kind == "log":
            log.append(event.text)

    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        began = time.perf_counter()
        posed = question.pose()
        built = time.perf_counter() - began
        result = solve(posed, backend, on_event=hear, **settings)
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    found = question.read(posed, result)
    kept = replace(result, x=found.scores, point=None, trace=())
    return Part(label, len(np.asarray(question.labels)), built, kept, tuple(log), tuple(str(each.message) for each in given))


def retell(parts: Iterable[Part]) -> None:
    """Give the warnings of all parts here, each once."""
    for text in dict.fromkeys(text for part in parts for text in part.warnings):
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def average(question: Importance, parts: tuple[Part, ...]) -> ClassScores:
    """The mean of the scores, every class with the same weight, and the results in one."""
    found = [part.scores for part in parts if part.scores is not None]
    scores = None
    if len(found) == len(parts):
        means = {str(name): (array.dims, np.mean([one[name].values for one in found], axis=0)) for name, array in found[0].items()}
        scores = xr.Dataset(means, coords=found[0].coords, attrs=found[0].attrs)
    return ClassScores(find_gates(question.network, question.gates), scores, sum_up([p.result for p in parts], scores), parts)


def sum_up(results: list[Result], scores: xr.Dataset | None) -> Result:
    """Means of objective and bound, sums of work, the worst of the rest; ``x`` holds the averaged scores."""
    first, pointless = results[0], scores is None
    objective = None if pointless else float(np.mean([r.objective for r in results if r.objective is not None]))
    bound = float(np.mean([r.bound for r in results]))
    errors = [r.max_error for r in results if r.max_error is not None]
    work = {name: sum(getattr(r, name) for r in results) for name in ("runtime", "nodes", "iterations", "rounds", "cuts")}
    starts = [r.start_accepted for r in results]
    return replace(
        first,
        **work,
        status=next((r.status for r in results if r.status is not Status.OPTIMAL), Status.OPTIMAL),
        x=scores,
        objective=objective,
        bound=bound,
        gap=math.inf if objective is None else relative_gap(objective, bound),
        size={key: sum(r.size.get(key, 0) for r in results) for key in first.size},
        max_error=None if pointless else max(errors, default=None),
        verified=not pointless and all(r.verified for r in results),
        start_accepted=None if None in starts else all(starts),
        message="; ".join(dict.fromkeys(r.message for r in results if r.message)),
    )
