"""A run along a path: one question at many values of a parameter, each judged by its masks at the file's threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from mipnet.app.files.solve_file import Spec
from mipnet.app.runs.inputs import Asked, limits_of
from mipnet.app.runs.judge import count_layers, notes_on
from mipnet.app.runs.record import Accuracy, Run, Step
from mipnet.backend import Event, OnEvent, Status
from mipnet.errors import InputError, UnsupportedError
from mipnet.network.gates import Gate
from mipnet.pruning.importance.program import Scores
from mipnet.pruning.importance.solve_settings import SolveSettings
from mipnet.pruning.importance.weight_path import PathPoint, WeightPath, spaced_weights, stacked, weight_path
from mipnet.pruning.smaller.masks import accuracy, make_masks
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.solving.engine import Result

OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Kind:
    """A kind of path: the values from the first to the last, and what solves the question at all of them."""

    values: Callable[[float, float, int], Sequence[float]]
    walk: Callable[..., WeightPath]


KINDS: Mapping[str, Kind] = {"lambda": Kind(spaced_weights, weight_path)}
"""By the parameter's name in ``solve.path``."""


def run_path(spec: Spec, asked: Asked, on_event: OnEvent | None = None, on_step: OnStep | None = None) -> Run:
    """Solve the question along the path of a spec, and judge it point by point; Ctrl-C ends it at the best point so far."""
    wanted, given, log = spec.solve.path, spec.solve, list[str]()
    assert wanted is not None
    kind, steps = KINDS[wanted.along], list[Step]()
    with spec.blame("solve", "path", only=InputError):
        values = kind.values(*wanted.given[wanted.along], wanted.points)

    def hear(event: Event) -> None:
        if event.kind == "log":
            log.append(event.text)
        if on_event is not None:
            on_event(event)

    def on_point(point: PathPoint) -> None:
        log.append(f"--- {wanted.along} {point.value:g}: {point.found.result.status.value} ---")
        steps.append(_judged(spec, asked, point))
        if on_step is not None:
            on_step(steps[-1])

    settings: dict[str, Any] = {"backend": SolveSettings(given.backend, given.options, given.start), "limits": limits_of(spec)}
    with spec.blame("formulation", only=UnsupportedError):
        path = kind.walk(asked.task, values, **settings, on_event=hear, on_point=on_point)
    result = sum_up([step.result for step in steps], path.scores)
    found = Scores(path.gates, path.scores, replace(result, status=Status.INTERRUPTED) if path.interrupted else result)
    return Run(
        spec=spec,
        result=found.result,
        build_seconds=path.build_seconds,
        samples=len(asked.images),
        held=0 if asked.holdout is None else len(asked.holdout),
        scores=path.scores,
        masks=stacked(path.along, [(step.value, step.masks) for step in steps]),
        layers=count_layers(asked.network, path.gates, None),
        accuracy=Accuracy(_right(asked, path.gates, None)),
        notes=notes_on(spec, asked.network, found, None),
        log=tuple(log),
        along=path.along,
        path=tuple(steps),
    )


def _judged(spec: Spec, asked: Asked, point: PathPoint) -> Step:
    found = point.found
    if found.scores is None:
        return Step(point.value, found.result, None, None, None)
    masks = make_masks(asked.network, found.gates, found.scores, spec.prune.value)
    pruned = 100.0 * pruned_share(asked.network, found.gates, masks)
    return Step(point.value, found.result, masks, pruned, _right(asked, found.gates, masks))


def _right(asked: Asked, gates: Sequence[Gate], masks: xr.Dataset | None) -> float | None:
    """Percent right on the held-out images, None if there are none."""
    held = asked.holdout
    return None if held is None else accuracy(asked.network, held.images, held.labels, gates, masks)


def sum_up(results: Sequence[Result], scores: xr.Dataset | None) -> Result:
    """One result for a path: sums of work and the worst of the rest; each point has an objective and a bound of its own, the path none."""
    errors = [r.max_error for r in results if r.max_error is not None]
    work = {name: sum(getattr(r, name) for r in results) for name in ("runtime", "nodes", "iterations", "rounds", "cuts")}
    return replace(
        results[-1],
        **work,
        status=next((r.status for r in reversed(results) if r.status is not Status.OPTIMAL), Status.OPTIMAL),
        x=scores,
        point=None,
        objective=None,
        bound=math.nan,
        gap=math.nan,
        max_error=max(errors, default=None),
        verified=all(r.verified for r in results),
        trace=(),
        message="",
    )
