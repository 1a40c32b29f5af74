"""Importance, decoupled by class: one program per class, on the images of that class alone, and the mean of the scores.

This is the per-class form of ElAraby, Wolf and Carvalho (CPAIOR 2023): ``s = mean over the classes c of s^(c)``.  The programs are
independent, so they run in parallel (`mipnet.solving.parallel`).  Objective and bound are means too, and the bound is proven: no scores,
not even different ones for every class, have a smaller mean objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr

from mipnet.backend import Backend, Limits
from mipnet.errors import suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import carries_warnings
from mipnet.network.gates import find_gates
from mipnet.pruning.importance.decoupled_parts import (
    PartLabel,
    SolvedPart,
    labelled_images,
    repeat_warnings,
    solve_part,
    stop_after_interrupt,
    summed_result,
)
from mipnet.pruning.importance.program import Importance, Scores
from mipnet.pruning.importance.solve_settings import SolveSettings
from mipnet.solving.parallel import Workers, run_all


@dataclass(frozen=True, eq=False)
class ClassScores(Scores):
    """The mean of the scores over the classes; ``parts`` holds one `SolvedPart` per class, ``result`` the results of all of them as one.

    ``scores`` is None unless every class has a point, and ``result.verified`` is True only if it is for every class.
    """

    parts: tuple[SolvedPart, ...] = ()


@suggest_keywords
@carries_warnings
def by_class(
    question: Importance,
    *,
    backend: str | Backend | SolveSettings = "highs",
    time_limit: TimeLimit = None,
    mip_gap: float = 1e-4,
    limits: Limits | None = None,
    workers: int | Workers | None = 0,
    on_done: Callable[[PartLabel, SolvedPart], None] | None = None,
    finished: Mapping[PartLabel, SolvedPart] | None = None,
) -> ClassScores:
    """Solve one program for each class that the labels have, and average the scores.

    Parameters
    ----------
    backend
        The solver, or `SolveSettings` with its options and the start as well.
    time_limit
        Seconds of the whole call, None for no limit, divided among the programs.  A program that is not solved in time has no scores.
    mip_gap, limits
        The relative gap at which a solve stops, or further limits of each program.
    workers, on_done, finished
        As for `mipnet.solving.parallel.run_all`, with the class as the key.

    Ctrl-C raises KeyboardInterrupt; the parts that were passed to ``on_done`` are complete.
    """
    deadline = Deadline.after(time_limit)
    settings, stop = SolveSettings.of(backend), limits or Limits(gap=mip_gap)
    programs: dict[PartLabel, Callable[..., SolvedPart]] = {
        label: partial(solve_part, label, part, settings, stop) for label, part in split(question).items()
    }
    parts = run_all(programs, workers=workers, on_done=stop_after_interrupt(on_done), finished=finished, deadline=deadline)
    repeat_warnings(parts.values())
    return average(question, tuple(parts.values()))


def split(question: Importance) -> dict[PartLabel, Importance]:
    """Return the question restricted to each class, in the order of the labels."""
    images, labels = labelled_images(question)
    return {int(c): replace(question, images=images[labels == c], labels=labels[labels == c]) for c in np.unique(labels)}


def average(question: Importance, parts: tuple[SolvedPart, ...]) -> ClassScores:
    """Return the mean of the scores, every class with the same weight, and the results of all parts as one."""
    found = [part.scores for part in parts if part.scores is not None]
    scores = None
    if len(found) == len(parts):
        means = {str(name): (array.dims, np.mean([one[name].values for one in found], axis=0)) for name, array in found[0].items()}
        scores = xr.Dataset(means, coords=found[0].coords, attrs=found[0].attrs)
    return ClassScores(find_gates(question.network, question.gates), scores, summed_result(parts, scores), parts)
