"""A mask for one network, chosen on training data alone: the way to make masks, and how far to prune.

Masks come from 50,000 training images; the 10,000 put aside decide: of all settings the largest share of parameters
pruned whose accuracy on them stays within the budget.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import mipnet as mn
from mipnet.network.gates import Gate, find_gates
from mipnet.network.graph import Network
from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.paper_bounds import PaperBounds
from mipnet.pruning.importance.program import Importance, Scores
from mipnet.pruning.smaller.masks import make_masks
from mipnet.pruning.smaller.parameter_counts import pruned_share
from mipnet.pruning.stepwise.pruning_path import STEPWISE_SHARES, prune_stepwise
from tests.bench.trained import Split, load_split, trained

FROZEN = {"relu": "frozen"}
SHARES = np.arange(0.80, 0.0, -0.02)


@dataclass(frozen=True)
class Setting:
    """How scores are made: the mean over ``batches`` programs of ``images`` each, with a loss ``weight`` and objective.

    ``path`` holds shares of parameters that are pruned before the network that is left is frozen and scored anew.
    """

    images: int
    batches: int
    weight: float
    normalize: str = "units"
    layers: str = "all"
    path: tuple[float, ...] = ()

    @property
    def seen(self) -> int:
        """How many images the scores are made from."""
        return self.images * self.batches

    @property
    def words(self) -> str:
        """For the page."""
        path = f", anew at {', '.join(f'{100 * share:.0f} %' for share in self.path)}" if self.path else ""
        told = f"weight {self.weight:g}, `normalize: {self.normalize}`, `layers: {self.layers}`{path}"
        return f"one look: {self.batches} x {self.images:,} images, {told}"


@dataclass(frozen=True)
class Stepwise:
    """`mipnet.prune_stepwise` over some ``images`` with a share of ``hard`` labels in the targets, to a share of ``until``."""

    images: int
    hard: float
    until: float = 0.8

    @property
    def seen(self) -> int:
        """How many images the scores are made from."""
        return self.images

    @property
    def words(self) -> str:
        """For the page."""
        return f"stepwise: {self.images:,} images, {100 * self.hard:.0f} % hard labels"


@dataclass(frozen=True)
class Case:
    """A trained network, its data, and how many points of accuracy a mask may cost."""

    source: str
    net: str
    seed: int

    @property
    def name(self) -> str:
        """As in file names."""
        return f"{self.source}-{self.net}-{self.seed}"

    @cached_property
    def split(self) -> Split:
        """The images."""
        return load_split(self.source, self.seed)

    @cached_property
    def module(self) -> nn.Sequential:
        """The trained network."""
        return trained(self.source, self.net, self.seed)

    @cached_property
    def network(self) -> Network:
        """The same, as mipnet holds it."""
        return mn.from_torch(self.module, self.split.train[0][:1])

    @cached_property
    def gates(self) -> tuple[Gate, ...]:
        """One a hidden layer."""
        return tuple(find_gates(self.network))

    def images(self, count: int, batch: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Training images, as many of each class, drawn by the seed; batches of the same size have no image in common."""
        images, labels = self.split.train
        rng, each = np.random.default_rng([self.seed, 2]), count // 10
        drawn = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
        index = np.concatenate([one[batch * each : (batch + 1) * each] for one in drawn])
        return images[index], labels[index]


class Quick:
    """Accuracy on some images, in percent, by the module in float32, with or without masks."""

    def __init__(self, case: Case, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
        self.module, self.names = case.module, [gate.name for gate in case.gates]
        self.right = self.hits()
        self.reference = 100.0 * float(self.right.mean())

    def lost(self, masks: xr.Dataset, budget: float) -> float:
        """Points of accuracy lost, of the first 2,000 images alone if that is far too much."""
        few = 100.0 * float((self.right[:2000] - self.hits(masks, 2000)).mean())
        return few if few > budget + 1.5 else self.reference - self.accuracy(masks)

    def accuracy(self, masks: xr.Dataset) -> float:
        """In percent, with masks."""
        return 100.0 * float(self.hits(masks).mean())

    def hits(self, masks: xr.Dataset | None = None, first: int | None = None) -> Tensor:
        """1 for each image that is right, 0 for the others."""
        kept = iter([] if masks is None else [torch.tensor(masks[name].values) for name in self.names])
        values = self.images[:first]
        with torch.no_grad():
            for layer in self.module:
                values = layer(values)
                if masks is not None and isinstance(layer, nn.ReLU):
                    values *= _wide(next(kept), values)
        return (values.argmax(dim=1) == self.labels[:first]).double()


def _wide(kept: Tensor, values: Tensor) -> Tensor:
    return kept.to(values.dtype).reshape(-1, *[1] * (values.ndim - 2))


@dataclass(frozen=True, eq=False)
class Found:
    """Scores and masks of one setting: ``share`` pruned and points ``lost`` on the images put aside, CPU ``seconds`` for the scores.

    ``programs`` of so many ``columns`` were solved, with at most so many ``cuts`` added to one.
    """

    setting: Setting | Stepwise
    scores: xr.Dataset
    masks: xr.Dataset
    share: float
    lost: float
    seconds: float
    programs: int
    columns: int
    cuts: int


@dataclass(frozen=True, eq=False)
class Ranked:
    """What a setting makes: scores, masks from the most pruned to the least, and its programs as in `Found`."""

    scores: xr.Dataset
    masks: Iterable[xr.Dataset]
    programs: int
    columns: int
    cuts: int


def solved(network: Network, images: np.ndarray, labels: np.ndarray, setting: Setting) -> Scores:
    """The free frozen program of a setting."""
    objective = Objective(setting.weight, normalize=setting.normalize, layers=setting.layers)
    question = Importance(network, images, labels, objective, formulation=FROZEN, bounds=PaperBounds(pattern="free"))
    return question.solve(time_limit=60, mip_gap=1e-3)


def mean_scores(network: Network, case: Case, setting: Setting) -> tuple[xr.Dataset, list[mn.Result]]:
    """The mean of the scores of each batch, and how the programs were solved."""
    found = [solved(network, *case.images(setting.images, batch), setting) for batch in range(setting.batches)]
    return sum(one.scores for one in found) / len(found), [one.result for one in found]


def score(case: Case, setting: Setting) -> tuple[xr.Dataset, list[mn.Result]]:
    """Scores of a setting; along a path what went stays below what is left."""
    joined, results = mean_scores(case.network, case, setting)
    example, rounds = case.images(10)[0], 1 + len(setting.path)
    joined = joined / rounds
    for done, share in enumerate(setting.path, start=1):
        kept = make_masks(case.network, case.gates, joined, {"params": share})
        smaller = mn.from_torch(mn.prune(case.module, kept, example), example)
        again, more = mean_scores(smaller, case, setting)
        results += more
        for name, value in zip(list(joined), again.values(), strict=True):
            joined[name].values[kept[name].values] = (done + value.values) / rounds
    return joined, results


def ranked(case: Case, setting: Setting | Stepwise) -> Ranked:
    """Scores and masks of a setting."""
    if isinstance(setting, Stepwise):
        shares = [share for share in STEPWISE_SHARES if share <= setting.until]
        path = prune_stepwise(case.network, *case.images(setting.images), shares=shares, hard=setting.hard)
        return Ranked(path.scores(), [step.masks for step in path.steps[::-1]], len(path.steps), sum(g.units for g in case.gates), 0)
    scores, results = score(case, setting)
    masks = (make_masks(case.network, case.gates, scores, {"params": float(share)}) for share in SHARES)
    return Ranked(scores, masks, len(results), results[0].size["columns"], max(one.cuts for one in results))


def best(case: Case, settings: Sequence[Setting | Stepwise], budget: float) -> tuple[Found, list[Found]]:
    """The setting that prunes most within the budget, and what each came to; with nothing within it, the least loss."""
    quick = Quick(case, *case.split.choose)
    tried = [_tried(case, quick, setting, budget) for setting in settings]
    return max(tried, key=lambda one: _rank(one, budget)), tried


def _rank(found: Found, budget: float) -> tuple[bool, float]:
    within = found.lost <= budget
    return within, found.share if within else -found.lost


def _tried(case: Case, quick: Quick, setting: Setting | Stepwise, budget: float) -> Found:
    """The largest share within the budget, from above in steps: the threshold of a setting."""
    began = time.process_time()
    made = ranked(case, setting)
    seconds = time.process_time() - began
    for masks in made.masks:
        lost = quick.lost(masks, budget)
        if lost <= budget:
            break
    share = pruned_share(case.network, case.gates, masks)
    return Found(setting, made.scores, masks, share, lost, seconds, made.programs, made.columns, made.cuts)
