"""The evaluation of scores: masks, what is left of each layer, and the accuracies on the held-out images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import xarray as xr

from mipnet.app.files.solve_file import SolveFile
from mipnet.app.runs.holdout_accuracy import HoldoutAccuracy
from mipnet.app.runs.importance_run import Accuracy, DecoupledParts, Evaluation, ImportanceRun, PrunedLayer, SolvedProgram
from mipnet.app.runs.inputs import ImportanceInputs
from mipnet.errors import InputError
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.network.sets import LInf
from mipnet.pruning.importance.program import Scores, warn_of_solve
from mipnet.pruning.smaller.mask_check import warn_of_masks
from mipnet.pruning.smaller.masks import critical_masks, make_masks, random_masks
from mipnet.pruning.smaller.parameter_counts import remaining_parameters
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.two_networks.masked_agreement import BallAgreements, ImageBalls, agree_around

ACCURACY_TIME_SHARE, AGREE_TIME_SHARE_MAX = 0.1, 0.4
"""Share of the time limit of a run that is left for the accuracies after the solve, and largest share for the proofs of ``prune.agree``."""

RANDOM_MASK_DRAWS = 5
"""The accuracy with random masks is the mean over this number of draws."""


def check_agree(file: SolveFile, inputs: ImportanceInputs) -> None:
    """Raise an error if the proofs of ``prune.agree`` are not possible, before anything is solved."""
    given = file.prune.agree
    if given is None:
        return
    with file.blame("prune", "agree"):
        if inputs.holdout is None:
            raise InputError("it is about held-out images, and `data.holdout` is `none`; name a split, or leave one of them out")
        if file.solve.path is not None:
            raise InputError("it is about one mask per layer, and `solve.path` makes many; leave one of them out")
        if inputs.network.output_shape[0] < 2:
            raise InputError("it is about classes, and the network returns one number; leave it out")
        if given.clip is not None:
            LInf(inputs.holdout.images, given.radius, *given.clip)


def evaluate(
    file: SolveFile,
    inputs: ImportanceInputs,
    found: Scores,
    program: SolvedProgram,
    decoupled: DecoupledParts | None = None,
    deadline: Deadline = NO_DEADLINE,
) -> ImportanceRun:
    """Prune by the scores of a solved program, evaluate the smaller network, and return the result of the run.

    What is not known at the deadline is left out, and a note says so.
    """
    masks = None if found.scores is None else make_masks(inputs.network, found.gates, found.scores, file.prune.value)
    agreement = _agreement(file, inputs, found, masks, deadline.share(1 - ACCURACY_TIME_SHARE))
    interrupted = found.result.interrupted or (agreement is not None and agreement.interrupted)
    measured = HoldoutAccuracy(inputs, found.gates, deadline, interrupted=interrupted)
    accuracies = _accuracies(measured, found, masks, file.data.seed)
    if decoupled is None:  # else each program has said it
        warn_of_solve(found.result, file.solve.mip_gap)
    if masks is not None and inputs.holdout is not None and not measured.interrupted:
        warn_of_masks(inputs.network, found.gates, masks, inputs.holdout.images, inputs.holdout.labels, file.data.seed, deadline)
    return ImportanceRun(
        file=file,
        program=program,
        scores=found.scores,
        masks=masks,
        evaluation=Evaluation(
            layers=count_layers(inputs.network, found.gates, masks),
            accuracy=accuracies,
            images=0 if inputs.holdout is None else len(inputs.holdout),
            agreement=agreement,
            interrupted=measured.interrupted,
        ),
        notes=(*notes_on(file, inputs.network, found, masks), *_agreement_notes(file, agreement), *measured.notes),
        decoupled=decoupled or DecoupledParts(),
    )


def solve_deadline(file: SolveFile, deadline: Deadline) -> Deadline:
    """Return the deadline of the solve in a run: enough of the time is left for the proofs of ``prune.agree`` and for the accuracies."""
    given = file.prune.agree
    if given is None or deadline == NO_DEADLINE:
        return deadline.share(1 - ACCURACY_TIME_SHARE)
    wanted = math.inf if given.time_limit is None else given.time_limit / deadline.seconds
    return deadline.share(1 - ACCURACY_TIME_SHARE - min(AGREE_TIME_SHARE_MAX, wanted))


def _agreement(
    file: SolveFile, inputs: ImportanceInputs, found: Scores, masks: xr.Dataset | None, deadline: Deadline
) -> BallAgreements | None:
    """Return the proofs of ``prune.agree``; None without ``prune.agree``, without a verified solution, or after Ctrl-C."""
    given, holdout, result = file.prune.agree, inputs.holdout, found.result
    if given is None or holdout is None or masks is None or not result.verified or result.interrupted:
        return None
    with file.blame("prune", "agree"):
        return agree_around(
            inputs.network,
            found.gates,
            masks,
            holdout.images,
            ImageBalls(given.radius, given.count, given.clip),
            time_limit=deadline if given.time_limit is None else deadline.within(given.time_limit),
            backend=MipSettings(file.solve.backend, file.solve.options),
        )


def _agreement_notes(file: SolveFile, found: BallAgreements | None) -> tuple[str, ...]:
    if file.prune.agree is None:
        return ()
    if found is None:
        return ("`prune.agree` was not proven: the solve has to end with a verified solution, and without Ctrl-C",)
    if found.interrupted:
        return (f"`prune.agree` was interrupted: {len(found.balls)} of {found.asked} images are done",)
    wanted = file.prune.agree.count
    return () if found.asked == wanted else (f"`prune.agree` is about {wanted} images; both networks classify only {found.asked} alike",)


def count_layers(network: Network, gates: Sequence[Gate], masks: xr.Dataset | None) -> tuple[PrunedLayer, ...]:
    """Return units and parameters before and after pruning, for every layer with parameters; a module used twice counts once."""
    gate_of = {node: gate for gate in gates for node in gate.nodes}
    after = {} if masks is None else remaining_parameters(network, gates, masks)
    layers: dict[str, PrunedLayer] = {}
    for node in network.nodes:
        before, gate = sum(w.numel() for w in node.layer.weights().values()), gate_of.get(node.name)
        if before and node.origin not in layers:
            units = gate.units if gate else None
            kept = units if gate is None or masks is None else int(masks[gate.name].sum())
            layers[node.origin] = PrunedLayer(gate.name if gate else node.name, kept, units, before, after.get(node.name, before))
    return tuple(layers.values())


def _accuracies(measured: HoldoutAccuracy, found: Scores, masks: xr.Dataset | None, seed: int) -> Accuracy:
    reference = measured.percent(None)
    if reference is None or found.scores is None or masks is None:
        return Accuracy(reference)
    masked, critical = measured.percent(masks), measured.percent(critical_masks(masks, found.scores))
    drawn = [measured.percent(random_masks(masks, seed + draw)) for draw in range(RANDOM_MASK_DRAWS)]
    known = [value for value in drawn if value is not None]
    return Accuracy(reference, masked, sum(known) / len(known) if len(known) == len(drawn) else None, critical)


def notes_on(file: SolveFile, network: Network, found: Scores, masks: xr.Dataset | None) -> tuple[str, ...]:
    """Return the notes of a run: why there are no scores, or why scores, masks or accuracies may mislead."""
    notes, result = list(network.notes), found.result
    if found.scores is None:
        notes.append("no point was found, so there are no scores: set a longer time limit, or use fewer images")
    elif not result.verified:
        notes.append(f"the point does not survive its replay (it differs by {result.max_error:.1g}): do not use these scores")
    elif masks is not None and all(bool(kept.all()) for kept in masks.values()):
        notes.append("no unit scores below the threshold, so nothing is pruned: a smaller `objective.weight` prunes more")
    if file.data.holdout == file.data.split:
        notes.append(f"accuracy is measured on the `{file.data.split}` split, which contains the images of the program")
    return tuple(notes)
