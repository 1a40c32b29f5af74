"""Importance, decoupled by layer: one program per stage of a network, with an auxiliary head after the stage.

The decoupled greedy form of ElAraby, Wolf and Carvalho (CPAIOR 2023).  The network is cut into stages
(`mipnet.pruning.importance.network_cuts`); after each but the last one a head is trained
(`mipnet.pruning.importance.auxiliary_heads`), and the last one ends with the network itself::

    stage k:   minimise   S(s_k)  +  weight * mean over images of loss(head_k(stage_k(x_k, s_k)), label)

x_k is the value at the cut before the stage, in the network without gates, so the programs are independent.  A stage with one gated layer
has S = I_1.  Its program is the `Importance` program of a network that consists of the stage and its head; heads have no gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import xarray as xr

from mipnet.backend import Backend, Limits
from mipnet.errors import suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.limits.result_warnings import carries_warnings
from mipnet.network.gates import find_gates
from mipnet.network.graph import INPUT_NODE
from mipnet.network.sets import Samples
from mipnet.pruning.importance.auxiliary_heads import HEAD_IMAGES_PER_BATCH, Head, HeadTraining, train_heads
from mipnet.pruning.importance.decoupled_parts import (
    PartLabel,
    SolvedPart,
    labelled_images,
    repeat_warnings,
    solve_part,
    stop_after_interrupt,
    summed_result,
)
from mipnet.pruning.importance.network_cuts import Stage, between, chained, find_stages
from mipnet.pruning.importance.program import Importance, Scores
from mipnet.pruning.importance.solve_settings import SolveSettings
from mipnet.solving.parallel import Workers, run_all

HEAD_TRAINING_TIME_SHARE = 0.5
"""Largest share of the time limit of `by_layer` for the training of heads."""


@dataclass(frozen=True, eq=False)
class LayerScores(Scores):
    """The scores of all stages together; ``parts`` holds one `SolvedPart` per stage, labelled by its gates (``conv1``, ``fc1+fc2``).

    ``heads`` holds the heads by the node that they read.  ``scores`` is None unless every stage has a point.  Objective and bound in
    ``result`` are means over the stages, and ``result.verified`` is True only if it is for every stage.
    """

    parts: tuple[SolvedPart, ...] = ()
    heads: Mapping[str, Head] = field(default_factory=dict)


@suggest_keywords
@carries_warnings
def by_layer(
    question: Importance,
    training: HeadTraining,
    *,
    backend: str | Backend | SolveSettings = "highs",
    time_limit: TimeLimit = None,
    limits: Limits | None = None,
    workers: int | Workers | None = 0,
    on_done: Callable[[PartLabel, SolvedPart], None] | None = None,
    finished: Mapping[PartLabel, SolvedPart] | None = None,
) -> LayerScores:
    """Train a head for each stage but the last, and solve one program per stage.

    Parameters
    ----------
    training
        The images and labels on which the heads are trained, in this process, and how; or heads that are trained already.
    backend
        The solver, or `SolveSettings` with its options and the start as well.
    time_limit
        Seconds of the whole call, None for no limit.  The heads get at most `HEAD_TRAINING_TIME_SHARE` of them, and the rest is divided
        among the programs.  A program that is not solved in time has no scores.
    limits
        Further limits of each program.
    workers, on_done, finished
        As for `mipnet.solving.parallel.run_all`, with the label of a part as the key.

    Raises `InputError` for a network that cannot be cut between its gated layers, and `TimeLimitReached` if the time ends before the heads
    are trained at all.
    """
    deadline = Deadline.after(time_limit)
    stages = find_stages(question.network, find_gates(question.network, question.gates))
    labelled_images(question)
    known = dict(training.trained)
    missing = [s.end for s in stages[:-1] if s.end not in known and s.name not in (finished or {})]
    known |= train_heads(question.network, missing, training, deadline.share(HEAD_TRAINING_TIME_SHARE))
    settings, stop = SolveSettings.of(backend), limits or Limits()
    programs: dict[PartLabel, Callable[..., SolvedPart]] = {
        s.name: partial(solve_stage, s, question, known.get(s.end), settings, stop) for s in stages
    }
    parts = run_all(programs, workers=workers, on_done=stop_after_interrupt(on_done), finished=finished, deadline=deadline)
    repeat_warnings(parts.values())
    return joined(question, tuple(parts.values()), known)


def solve_stage(
    stage: Stage, question: Importance, head: Head | None, settings: SolveSettings, limits: Limits, deadline: Deadline = NO_DEADLINE
) -> SolvedPart:
    """Write and solve the program of one stage; the value that the stage reads is computed here, from the images."""
    return solve_part(stage.name, stage_question(stage, question, head), settings, limits, deadline)


def stage_question(stage: Stage, question: Importance, head: Head | None) -> Importance:
    """Return the question about the gates of one stage: its nodes and its head as a network, on the values that the stage reads."""
    images = Samples(question.images).fit(question.network.input_shape).lower
    if stage.source != INPUT_NODE:
        images = between(question.network, INPUT_NODE, stage.source).forward(images.copy(), batch=HEAD_IMAGES_PER_BATCH)
    network = between(question.network, stage.source, stage.end)
    return replace(question, network=network if head is None else chained(network, head.network), images=images, gates=stage.gates)


def joined(question: Importance, parts: tuple[SolvedPart, ...], heads: Mapping[str, Head]) -> LayerScores:
    """Return the scores of all stages in one Dataset, in the order of the network's gates, and all results as one."""
    gates, found = find_gates(question.network, question.gates), [part.scores for part in parts if part.scores is not None]
    scores = None
    if len(found) == len(parts):
        every = xr.merge(found, combine_attrs="override")
        scores = every[[gate.name for gate in gates]]
    return LayerScores(gates, scores, summed_result(parts, scores), parts, heads)
