"""A run along a path: one importance question at many loss weights, each evaluated by its masks at the file's threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import xarray as xr

from mipnet.app.files.sections import PathSpec
from mipnet.app.files.solve_file import SolveFile
from mipnet.app.runs.evaluation import count_layers, notes_on, solve_deadline
from mipnet.app.runs.holdout_accuracy import HoldoutAccuracy
from mipnet.app.runs.importance_run import Accuracy, EvaluatedPath, EvaluatedPoint, Evaluation, ImportanceRun, SolvedProgram
from mipnet.app.runs.inputs import ImportanceInputs, limits_of
from mipnet.app.runs.listener import RunListener, logging_to
from mipnet.backend import Status
from mipnet.errors import InputError, UnsupportedError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.result_warnings import collected_warnings
from mipnet.pruning.importance.program import Scores, warn_of_solve
from mipnet.pruning.importance.solve_settings import SolveSettings
from mipnet.pruning.importance.weight_path import PathPoint, spaced_weights, stacked, weight_path
from mipnet.pruning.smaller.mask_check import warn_of_masks
from mipnet.pruning.smaller.masks import make_masks
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.solving.result import Result, summed_work


def run_path(
    file: SolveFile, weight_range: PathSpec, inputs: ImportanceInputs, listener: RunListener, deadline: Deadline = NO_DEADLINE
) -> ImportanceRun:
    """Solve the question along the path of a file, and evaluate each point; Ctrl-C ends the path at the best point so far.

    Raises `TimeLimitReached` if the time ends before the program is written.
    """
    given, log, points = file.solve, list[str](), list[EvaluatedPoint]()
    with file.blame("solve", "path", only=InputError):
        weights = spaced_weights(*weight_range.ends, weight_range.points)

    def on_point(point: PathPoint) -> None:
        log.append(f"--- lambda {point.value:g}: {point.found.result.status.value} ---")
        measured = HoldoutAccuracy(inputs, point.found.gates, deadline, interrupted=point.found.result.interrupted)
        points.append(_evaluated(file, inputs, point, measured))
        listener.point_done("lambda", points[-1])
        if measured.interrupted:
            raise KeyboardInterrupt

    with file.blame("formulation", only=UnsupportedError):
        path = weight_path(
            inputs.question,
            weights,
            backend=SolveSettings(given.backend, given.options, given.start),
            time_limit=solve_deadline(file, deadline),
            limits=limits_of(file),
            on_event=logging_to(log, listener),
            on_point=on_point,
        )
    measured = HoldoutAccuracy(inputs, path.gates, deadline, interrupted=path.interrupted)
    points += [_evaluated(file, inputs, point, measured) for point in path.points[len(points) :]]
    late = [f"{weight:g}" for weight in weights[len(points) :]]
    missing = () if path.interrupted or not late else (f"the time limit ended before the loss weights {', '.join(late)}",)
    result = path_result([point.result for point in points], path.scores)
    found = Scores(path.gates, path.scores, replace(result, status=Status.INTERRUPTED, interrupted=True) if path.interrupted else result)
    accuracy = Accuracy(measured.percent(None))
    return ImportanceRun(
        file=file,
        program=SolvedProgram(found.result, path.build_seconds, len(inputs.images), tuple(log)),
        scores=path.scores,
        masks=stacked(path.along, [(point.value, point.masks) for point in points]),
        evaluation=Evaluation(
            layers=count_layers(inputs.network, path.gates, None),
            accuracy=accuracy,
            images=0 if inputs.holdout is None else len(inputs.holdout),
            interrupted=measured.interrupted,
        ),
        notes=(*notes_on(file, inputs.network, found, None), *missing, *measured.notes),
        path=EvaluatedPath(path.along, tuple(points)),
    )


def _evaluated(file: SolveFile, inputs: ImportanceInputs, point: PathPoint, measured: HoldoutAccuracy) -> EvaluatedPoint:
    found = point.found
    if found.scores is None:
        return EvaluatedPoint(point.value, found.result, None, None, None)
    masks = make_masks(inputs.network, found.gates, found.scores, file.prune.value)
    with collected_warnings(f"at lambda {point.value:.3g}: "):
        warn_of_solve(found.result, file.solve.mip_gap)
        if inputs.holdout is not None and not measured.interrupted:
            warn_of_masks(
                inputs.network, found.gates, masks, inputs.holdout.images, inputs.holdout.labels, file.data.seed, measured.deadline
            )
    pruned = 100.0 * pruned_share(inputs.network, found.gates, masks)
    return EvaluatedPoint(point.value, found.result, masks, pruned, measured.percent(masks))


def path_result(results: Sequence[Result], scores: xr.Dataset | None) -> Result:
    """Return one result for a path: the sums of all work, and the worst status.

    Each point has an objective and a bound of its own, so the path has none.
    """
    return replace(
        results[-1],
        **summed_work(results),
        status=next((r.status for r in reversed(results) if r.status is not Status.OPTIMAL), Status.OPTIMAL),
        x=scores,
        point=None,
        objective=None,
        bound=math.nan,
        gap=math.nan,
        verified=all(r.verified for r in results),
        trace=(),
        message="",
    )
