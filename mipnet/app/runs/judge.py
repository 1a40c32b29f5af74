"""What scores are worth: masks, what is left of each layer, and the accuracies on the held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from mipnet.app.files.solve_file import Spec
from mipnet.app.runs.inputs import Asked
from mipnet.app.runs.record import Accuracy, LayerCount, Run
from mipnet.backend import Status
from mipnet.errors import InputError
from mipnet.network.gates import Gate
from mipnet.network.graph import Network
from mipnet.network.sets import LInf
from mipnet.pruning.importance.parts import PartLabel, SolvedPart
from mipnet.pruning.importance.program import Scores
from mipnet.pruning.smaller.masks import accuracy, critical_masks, make_masks, random_masks
from mipnet.pruning.smaller.parameter_counts import remaining_parameters
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.two_networks.masked_agreement import BallAgreements, ImageBalls, agree_around

DRAWS = 5
"""Over how many draws the accuracy with random masks is averaged."""


def check_agree(spec: Spec, asked: Asked) -> None:
    """Raise an error if what ``prune.agree`` asks for cannot be asked: that should not wait for the solver."""
    given = spec.prune.agree
    if given is None:
        return
    with spec.blame("prune", "agree"):
        if asked.holdout is None:
            raise InputError("it is asked around held-out images, and `data.holdout` is `none`; name a split, or leave one of them out")
        if spec.solve.path is not None:
            raise InputError("it is asked of one mask, and `solve.path` makes many; leave one of them out")
        if asked.network.output_shape[0] < 2:
            raise InputError("it is about classes, and the network returns one number; leave it out")
        if given.clip is not None:
            LInf(asked.holdout.images, given.radius, *given.clip)


def judge(
    spec: Spec,
    asked: Asked,
    found: Scores,
    build_seconds: float,
    log: Sequence[str],
    parts: Sequence[SolvedPart] = (),
    resumed: frozenset[PartLabel] = frozenset(),
    kept: Path | None = None,
) -> Run:
    """All that there is to say about the scores of a solved question."""
    masks = None if found.scores is None else make_masks(asked.network, found.gates, found.scores, spec.prune.value)
    agreement = _agreement(spec, asked, found, masks)
    return Run(
        spec=spec,
        result=found.result,
        build_seconds=build_seconds,
        samples=len(asked.images),
        held=0 if asked.holdout is None else len(asked.holdout),
        scores=found.scores,
        masks=masks,
        layers=count_layers(asked.network, found.gates, masks),
        accuracy=_accuracies(asked, found, masks, spec.data.seed),
        notes=(*notes_on(spec, asked.network, found, masks), *_agreement_notes(spec, agreement)),
        log=tuple(log),
        parts=tuple(parts),
        resumed=resumed,
        kept=kept,
        agreement=agreement,
    )


def _agreement(spec: Spec, asked: Asked, found: Scores, masks: xr.Dataset | None) -> BallAgreements | None:
    """What ``prune.agree`` asks for; None if nothing does, there is no point that can be believed, or Ctrl-C has been pressed already."""
    given, held, result = spec.prune.agree, asked.holdout, found.result
    if given is None or held is None or masks is None or not result.verified or result.status is Status.INTERRUPTED:
        return None
    with spec.blame("prune", "agree"):
        return agree_around(
            asked.network,
            found.gates,
            masks,
            held.images,
            ImageBalls(given.radius, given.count, given.clip),
            time_limit=given.time_limit,
            backend=MipSettings(spec.solve.backend, spec.solve.options),
        )


def _agreement_notes(spec: Spec, found: BallAgreements | None) -> tuple[str, ...]:
    if spec.prune.agree is None:
        return ()
    if found is None:
        return ("`prune.agree` was not asked: that takes a point that survives its replay, and no Ctrl-C",)
    if found.interrupted:
        return (f"`prune.agree` was interrupted: {len(found.balls)} of {found.asked} images were asked",)
    wanted = spec.prune.agree.count
    return () if found.asked == wanted else (f"`prune.agree` asks around {wanted} images; both networks classify {found.asked} alike",)


def count_layers(network: Network, gates: Sequence[Gate], masks: xr.Dataset | None) -> tuple[LayerCount, ...]:
    """For every layer with parameters: units kept, and parameters before and after; a module used twice counts once."""
    gate_of = {node: gate for gate in gates for node in gate.nodes}
    after = {} if masks is None else remaining_parameters(network, gates, masks)
    counts: dict[str, LayerCount] = {}
    for node in network.nodes:
        before, gate = sum(w.numel() for w in node.layer.weights().values()), gate_of.get(node.name)
        if before and node.origin not in counts:
            units = gate.units if gate else None
            kept = units if gate is None or masks is None else int(masks[gate.name].sum())
            counts[node.origin] = LayerCount(gate.name if gate else node.name, kept, units, before, after.get(node.name, before))
    return tuple(counts.values())


def _accuracies(asked: Asked, found: Scores, masks: xr.Dataset | None, seed: int) -> Accuracy:
    network, holdout = asked.network, asked.holdout
    if holdout is None:
        return Accuracy()

    def right(chosen: xr.Dataset | None) -> float:
        return accuracy(network, holdout.images, holdout.labels, found.gates, chosen)

    reference = right(None)
    if found.scores is None or masks is None:
        return Accuracy(reference)
    drawn = [right(random_masks(masks, seed + draw)) for draw in range(DRAWS)]
    return Accuracy(reference, right(masks), sum(drawn) / DRAWS, right(critical_masks(masks, found.scores)))


def notes_on(spec: Spec, network: Network, found: Scores, masks: xr.Dataset | None) -> tuple[str, ...]:
    """What should be known before the scores are believed."""
    notes, result = list(network.notes), found.result
    if found.scores is None:
        notes.append("no point was found, so there are no scores: give it more time, or fewer images")
    elif not result.verified:
        notes.append(f"the point does not survive its replay (it differs by {result.max_error:.1g}): do not use these scores")
    elif masks is not None and all(bool(kept.all()) for kept in masks.values()):
        notes.append("no unit scores below the threshold, so nothing goes: a smaller `objective.weight` prunes more")
    if spec.data.holdout == spec.data.split:
        notes.append(f"accuracy is that on the `{spec.data.split}` split, which holds the images of the program too")
    return tuple(notes)
