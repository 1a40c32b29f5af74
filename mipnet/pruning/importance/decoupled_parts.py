"""The parts of a decoupled importance question: independent programs, their results, and one result for all of them."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mipnet.arrays import Array
from mipnet.backend import Event, Limits, Status, get_backend, relative_gap
from mipnet.errors import DataError, SolverFailure, TimeLimitReached
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.result_warnings import add_warning, collected_warnings
from mipnet.model.losses import check_labels
from mipnet.network.sets import Samples
from mipnet.pruning.importance.program import Importance, warn_of_solve
from mipnet.pruning.importance.solve_settings import SolveSettings
from mipnet.solving.engine import solve
from mipnet.solving.result import Result, summed_work, unsolved_result

PartLabel = int | str
"""The label of a part: the number of its class, or the names of its gates."""


@dataclass(frozen=True, eq=False)
class SolvedPart:
    """One solved program.

    ``label`` is its class, or the names of the gates of its stage; ``samples`` is the number of its images.  ``result.x`` holds the scores
    alone.  ``log`` holds the lines of the solver, ``warnings`` the texts of all warnings, also of those raised in another process, and
    ``result_warnings`` those of its result, as in `mipnet.pruning.importance.program.Scores`.
    """

    label: PartLabel
    samples: int
    build_seconds: float
    result: Result
    log: tuple[str, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()
    result_warnings: tuple[str, ...] = ()

    @property
    def scores(self) -> xr.Dataset | None:
        """One array per gate, or None if no point was found."""
        return self.result.x


def solve_part(
    label: PartLabel, question: Importance, settings: SolveSettings, limits: Limits, deadline: Deadline = NO_DEADLINE
) -> SolvedPart:
    """Write and solve the program of one part; raises KeyboardInterrupt if the solve is interrupted before its end.

    If the time ends before the program is written, or the solver fails, its result has no point.
    """
    log: list[str] = []

    def hear(event: Event) -> None:
        if event.kind == "log":
            log.append(event.text)

    with warnings.catch_warnings(record=True) as caught, collected_warnings(passed_on=False) as added:
        warnings.simplefilter("always")
        began = time.perf_counter()
        try:
            posed = question.pose(time_limit=deadline)
            built = time.perf_counter() - began
            result = solve(
                posed, settings.backend, time_limit=deadline, limits=limits, options=settings.options, start=settings.start, on_event=hear
            )
        except (TimeLimitReached, SolverFailure) as error:  # the other parts are kept
            posed, built = None, time.perf_counter() - began
            result = unsolved_result(get_backend(settings.backend), built, str(error))
            if isinstance(error, SolverFailure):
                result = replace(result, status=Status.STALLED)
                add_warning(f"it has no scores, because the solver failed: {error}")
        warn_of_solve(result, limits.gap)
    if result.interrupted and result.status is not Status.OPTIMAL:
        raise KeyboardInterrupt
    scores = None if posed is None else question.read(posed, result).scores
    kept, texts = replace(result, x=scores, point=None, trace=()), tuple(str(each.message) for each in caught)
    return SolvedPart(label, len(np.asarray(question.labels)), built, kept, tuple(log), texts, tuple(added))


def stop_after_interrupt(on_done: Callable[[PartLabel, SolvedPart], None] | None) -> Callable[[PartLabel, SolvedPart], None]:
    """Return the function, which takes solved parts, but raises KeyboardInterrupt after a part whose solve Ctrl-C reached at its end."""

    def take(label: PartLabel, part: SolvedPart) -> None:
        if on_done is not None:
            on_done(label, replace(part, result=replace(part.result, interrupted=False)))
        if part.result.interrupted:
            raise KeyboardInterrupt

    return take


def labelled_images(question: Importance) -> tuple[Array, NDArray[np.int64]]:
    """Return the images and labels of a question; raises `DataError` unless they fit the network and each other."""
    images = Samples(question.images).fit(question.network.input_shape).lower
    shape = question.network.output_shape
    if len(shape) != 1:
        raise DataError(f"the network's output has shape {shape} for one sample; labels need one number for each class")
    return images, check_labels(question.labels, len(images), shape[0])


def repeat_warnings(parts: Iterable[SolvedPart]) -> None:
    """Raise the warnings of all parts in this process, each text once, and add those of their results to the result of all."""
    parts = list(parts)
    for part in parts:
        with collected_warnings(f"program {part.label}: "):
            for text in part.result_warnings:
                add_warning(text)
    for text in dict.fromkeys(text for part in parts for text in part.warnings):
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def summed_result(parts: Sequence[SolvedPart], scores: xr.Dataset | None) -> Result:
    """Return one result for all parts; ``x`` holds ``scores``, those of all parts together.

    Objective and bound are means over the parts, work is summed.  The status is optimal, and ``verified`` True, only if it is so for every
    part.
    """
    results, pointless = [part.result for part in parts], scores is None
    objective = None if pointless else float(np.mean([r.objective for r in results if r.objective is not None]))
    bound = float(np.mean([r.bound for r in results]))
    work = summed_work(results)
    starts = [r.start_accepted for r in results]
    return replace(
        results[0],
        **(work | {"max_error": None} if pointless else work),
        status=next((r.status for r in results if r.status is not Status.OPTIMAL), Status.OPTIMAL),
        x=scores,
        objective=objective,
        bound=bound,
        gap=math.inf if objective is None else relative_gap(objective, bound),
        size={key: sum(r.size.get(key, 0) for r in results) for key in dict.fromkeys(key for r in results for key in r.size)},
        verified=not pointless and all(r.verified for r in results),
        start_accepted=None if None in starts else all(starts),
        message="; ".join(dict.fromkeys(r.message for r in results if r.message)),
    )
