"""Decoupled by class, by layer, and jointly, at the same shares of pruned parameters: LeNet-5, and a network that is larger.

Every way of scoring sees the same 300 images, and by layer the training images too, for its heads.  For each share the loss weight is
chosen on images put aside; the test set is looked at with that weight alone.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from statistics import mean
from typing import Any

import xarray as xr
from torch import nn

import mipnet as mn
from mipnet.pruning.importance.auxiliary_heads import Head, HeadTraining, train_heads
from mipnet.pruning.importance.by_class import by_class
from mipnet.pruning.importance.by_layer import LayerScores, by_layer
from mipnet.pruning.importance.decoupled_parts import SolvedPart
from mipnet.pruning.importance.network_cuts import find_stages
from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.program import Importance, Scores
from mipnet.pruning.smaller.masks import critical_masks, random_masks
from mipnet.pruning.smaller.ranking import at_share
from mipnet.pruning.training import evaluate
from tests.bench.importance.judge import commit
from tests.bench.importance.search import FROZEN, Case
from tests.bench.trained import Split, load_split
from tests.bench.vgg import IMAGES, trained_vgg

WEIGHTS = (5.0, 20.0, 50.0)
COUNT, ASIDE, DRAWS = 300, 2_000, 3
SHARES = {"lenet5": (0.3, 0.4, 0.5), "vgg": (0.3, 0.5, 0.7)}
LIMITS = {"limits": mn.Limits(time=60, gap=1e-3)}

Heads = Mapping[str, Head]


class Large(Case):
    """The VGG-style network, with the images that it was trained on in place of all."""

    @cached_property
    def split(self) -> Split:
        """The images."""
        whole = load_split(self.source, self.seed)
        return replace(whole, train=(whole.train[0][:IMAGES], whole.train[1][:IMAGES]))

    @cached_property
    def module(self) -> nn.Sequential:
        """The trained network."""
        return trained_vgg(self.seed)


def _jointly(case: Case, question: Importance, heads: Heads) -> Scores:
    return question.solve(**LIMITS)


def _by_class(case: Case, question: Importance, heads: Heads) -> Scores:
    return by_class(question, **LIMITS)


def _by_layer(case: Case, question: Importance, heads: Heads) -> Scores:
    return by_layer(question, HeadTraining(*case.split.train, trained=heads), **LIMITS)


WAYS: dict[str, Callable[[Case, Importance, Heads], Scores]] = {"jointly": _jointly, "by class": _by_class, "by layer": _by_layer}


def jobs() -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured and kept, by name."""
    small = [("lenet5", seed, way) for seed in range(3) for way in WAYS]
    large = [("vgg", 0, way) for way in ("jointly", "by layer")]
    return {f"layers-{net}-{seed}-{way.replace(' ', '-')}": partial(row, net, seed, way) for net, seed, way in (*small, *large)}


@dataclass(frozen=True, eq=False)
class Tried:
    """Scores at one loss weight, and the CPU seconds of all programs."""

    weight: float
    found: Scores
    seconds: float

    def masks(self, case: Case, share: float) -> xr.Dataset:
        """By one order over all layers."""
        return at_share(case.network, case.gates, self.found.scores, share)


def row(net: str, seed: int, way: str) -> dict[str, Any]:
    """One way of scoring one network: accuracies at all shares, and what the scores took."""
    case = (Large if net == "vgg" else Case)("fashion-mnist", net, seed)
    _ = case.gates, case.split  # read before the clock starts
    began = time.process_time()
    heads = _heads(case) if way == "by layer" else {}
    trained = time.process_time() - began
    tried = [_scored(case, way, weight, heads) for weight in WEIGHTS]
    longest = max(tried, key=lambda one: one.seconds)
    result = longest.found.result
    return {
        "net": case.net,
        "seed": case.seed,
        "way": way,
        "training": trained,
        "seconds": longest.seconds,
        "columns": result.size["columns"],
        "cuts": result.cuts,
        "verified": all(one.found.result.verified for one in tried),
        "optimal": all(one.found.result.status is mn.Status.OPTIMAL for one in tried),
        "parts": _parts(longest.found),
        "parameters": case.network.parameters,
        "reference": evaluate(case.module, *case.split.test)[1],
        "shares": [_at(case, share, tried) for share in SHARES[case.net]],
        "commit": commit(),
        "date": str(datetime.date.today()),
    }


def _heads(case: Case) -> Heads:
    ends = [stage.end for stage in find_stages(case.network, case.gates)[:-1]]
    return train_heads(case.network, ends, HeadTraining(*case.split.train, seed=case.seed))


def _scored(case: Case, way: str, weight: float, heads: Heads) -> Tried:
    question = Importance(case.network, *case.images(COUNT), Objective(weight, layers="all"), formulation=FROZEN)
    began = time.process_time()
    found = WAYS[way](case, question, heads)
    return Tried(weight, found, time.process_time() - began)


def _at(case: Case, share: float, tried: list[Tried]) -> dict[str, Any]:
    """Accuracy on the test set at one share, with the weight that is best on images put aside; controls of the same layer counts."""
    aside, test = [part[:ASIDE] for part in case.split.choose], case.split.test
    best = max(tried, key=lambda one: _accuracy(case, one.masks(case, share), *aside))
    masks = best.masks(case, share)
    return {
        "share": share,
        "weight": best.weight,
        "masked": _accuracy(case, masks, *test),
        "random": mean(_accuracy(case, random_masks(masks, seed), *test) for seed in range(DRAWS)),
        "critical": _accuracy(case, critical_masks(masks, best.found.scores), *test),
        "kept": {name: int(kept.sum()) for name, kept in masks.items()},
    }


def _accuracy(case: Case, masks: xr.Dataset, images: Any, labels: Any) -> float:
    """Of the really smaller network, in percent."""
    return evaluate(mn.prune(case.module, masks, case.split.train[0][:1]), images, labels)[1]


def _parts(found: Scores) -> list[dict[str, Any]]:
    """What each stage came to, and how well its head does on the images it was trained on."""
    if not isinstance(found, LayerScores):
        return []
    accuracies = [head.accuracy for head in found.heads.values()] + [None]
    return [_part(part, head) for part, head in zip(found.parts, accuracies, strict=True)]


def _part(part: SolvedPart, head: float | None) -> dict[str, Any]:
    result = part.result
    sizes = {"columns": result.size["columns"], "cuts": result.cuts, "status": result.status.value}
    return {"label": str(part.label), "head": head, "build": part.build_seconds, "solve": result.runtime, **sizes}
