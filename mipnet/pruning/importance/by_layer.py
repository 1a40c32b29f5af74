"""Importance, decoupled by layer: one program for each stage of a network, closed by an auxiliary head of its own.

The decoupled greedy form of ElAraby, Wolf and Carvalho (CPAIOR 2023).  The network is cut into stages
(`mipnet.pruning.importance.network_cuts`); after each but the last one a head is trained
(`mipnet.pruning.importance.auxiliary_heads`), and the last one ends with the network itself::

    stage k:   minimise   S(s_k)  +  weight * mean over images of loss(head_k(stage_k(x_k, s_k)), label)

x_k is the value at the cut before the stage, in the network without gates, so the programs know nothing of one another.  A stage with
one gated layer has S = I_1.  Its program is ordinary `Importance` of a network as deep as one stage and a head; heads have no gates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import xarray as xr
from numpy.typing import ArrayLike

from mipnet.backend import Backend, Limits, Options
from mipnet.network.gates import find_gates
from mipnet.network.graph import INPUT
from mipnet.network.sets import Samples
from mipnet.pruning.importance.auxiliary_heads import BATCH, Head, train_heads
from mipnet.pruning.importance.by_class import Key, Part, labelled_images, retell, solve_part, sum_up
from mipnet.pruning.importance.network_cuts import Stage, between, chained, find_stages
from mipnet.pruning.importance.question import Importance, Scores
from mipnet.solving.engine import Start
from mipnet.solving.parallel import run_all


@dataclass(frozen=True, eq=False)
class LayerScores(Scores):
    """The scores of all stages side by side; ``parts`` holds one `Part` a stage, labelled by its gates (``conv1``, ``fc1+fc2``).

    ``heads`` has the heads by the node that they stand behind.  ``scores`` is None unless every stage has a point.  Objective and
    bound in ``result`` are means over the stages, and ``result.verified`` is True only if it is for every one.
    """

    parts: tuple[Part, ...] = ()
    heads: Mapping[str, Head] = field(default_factory=dict)


def by_layer(
    question: Importance,
    train_images: ArrayLike,
    train_labels: ArrayLike,
    *,
    heads: Mapping[str, Head] | None = None,
    epochs: int | None = None,
    seed: int = 0,
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
) -> LayerScores:
    """Train a head for each stage but the last on the training images, and solve one program a stage.

    ``heads`` of an earlier call take the place of training, each by itself; ``epochs`` and ``seed`` are those of `train_heads`, which
    runs in this process.  The limits hold for every program by itself; ``workers``, ``scheduler``, ``on_done`` and ``finished`` are
    those of `mipnet.solving.parallel.run_all`, by the label of a part.  Raises `InputError` for a network without a place to cut.
    """
    stages = find_stages(question.network, find_gates(question.network, question.gates))
    labelled_images(question)
    known = dict(heads or {})
    missing = [s.end for s in stages[:-1] if s.end not in known and s.name not in (finished or {})]
    known |= train_heads(question.network, missing, train_images, train_labels, epochs=epochs, seed=seed)
    settings = {"limits": limits or Limits(time=time_limit, gap=mip_gap), "options": options, "start": start}
    programs: dict[Key, Callable[[], Part]] = {
        s.name: partial(solve_stage, s, question, known.get(s.end), backend, settings) for s in stages
    }
    parts = run_all(programs, workers=workers, scheduler=scheduler, on_done=on_done, finished=finished)
    retell(parts.values())
    return joined(question, tuple(parts.values()), known)


def solve_stage(stage: Stage, question: Importance, head: Head | None, backend: str | Backend, settings: Mapping[str, Any]) -> Part:
    """The program of one stage, posed and solved; the value that the stage reads is computed here, from the images."""
    return solve_part(stage.name, stage_question(stage, question, head), backend, settings)


def stage_question(stage: Stage, question: Importance, head: Head | None) -> Importance:
    """The question about the gates of one stage: its nodes and its head as a network, on the value before it."""
    images = Samples(question.images).fit(question.network.input_shape).lower
    if stage.source != INPUT:
        images = between(question.network, INPUT, stage.source).forward(images.copy(), batch=BATCH)
    network = between(question.network, stage.source, stage.end)
    return replace(question, network=network if head is None else chained(network, head.network), images=images, gates=stage.gates)


def joined(question: Importance, parts: tuple[Part, ...], heads: Mapping[str, Head]) -> LayerScores:
    """The scores of all stages in one Dataset, in the order of the network's gates, and the results in one."""
    gates, found = find_gates(question.network, question.gates), [part.scores for part in parts if part.scores is not None]
    scores = None
    if len(found) == len(parts):
        every = xr.merge(found, combine_attrs="override")
        scores = every[[gate.name for gate in gates]]
    return LayerScores(gates, scores, sum_up([part.result for part in parts], scores), parts, heads)
