"""Lucky sub-networks: a mask found on one data set, retrained from the initial weights on another data set.

For each seed, three networks are trained from the same weights on batches in the same order: the full network, the masked one, and one
with a random mask of the same layer counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import torch
import xarray as xr
from torch import Tensor, nn

from mipnet.errors import InputError, TimeLimitReached, suggest_keywords
from mipnet.limits.deadline import Deadline
from mipnet.limits.kept_parts import PackedPart, kept_parts
from mipnet.network.gates import find_gates
from mipnet.pruning.smaller.masks import random_masks
from mipnet.pruning.smaller.surgery import as_masks, cut
from mipnet.pruning.training import TRAINING_DEFAULTS, TrainingSettings, evaluate, retrain
from mipnet.readers.data import Dataset
from mipnet.readers.torch import from_torch

LuckyKind = Literal["full", "lucky", "random"]
LUCKY_KINDS: tuple[LuckyKind, ...] = ("full", "lucky", "random")


@dataclass(frozen=True)
class Retrained:
    """One retrained network: ``accuracy`` in percent and mean ``loss`` on the test data, and its number of ``parameters``."""

    kind: LuckyKind
    seed: int
    accuracy: float
    loss: float
    parameters: int


@dataclass(frozen=True)
class LuckyTable:
    """One row for each seed and kind: ``full``, ``lucky`` (the mask), ``random`` (a mask of the same layer counts).

    If Ctrl-C ``interrupted`` the training, or the time limit ``stopped`` it, the rows are those of the networks that were finished.
    """

    rows: tuple[Retrained, ...]
    interrupted: bool = False
    stopped: bool = False

    def accuracies(self, kind: LuckyKind) -> tuple[float, ...]:
        """Return the accuracies of one kind, in the order of the seeds."""
        return tuple(row.accuracy for row in self.rows if row.kind == kind)

    def __str__(self) -> str:
        lines = [f"{'network':<8}  {'accuracy':>8}  {'spread':>6}  {'parameters':>10}"]
        for kind in LUCKY_KINDS:
            found = self.accuracies(kind)
            if not found:
                continue
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            count = statistics.mean(row.parameters for row in self.rows if row.kind == kind)
            lines.append(f"{kind:<8}  {statistics.mean(found):>7.2f}%  {spread:>6.2f}  {count:>10,.0f}")
        if self.interrupted:
            lines.append(f"interrupted: {len(self.rows)} networks were finished")
        if self.stopped:
            lines.append(f"stopped at the time limit: {len(self.rows)} networks were finished")
        return "\n".join(lines)


@suggest_keywords
def lucky(
    module: nn.Module,
    masks: xr.Dataset,
    train_data: Dataset,
    test_data: Dataset,
    *,
    initial_states: Mapping[int, Mapping[str, Tensor]] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int | None = None,
    settings: TrainingSettings = TRAINING_DEFAULTS,
) -> LuckyTable:
    """Retrain the full, the masked and a randomly masked network from the same weights, once per seed, and test them.

    Parameters
    ----------
    initial_states
        The state dict to start from, by seed; if None, the weights of ``module``, which should be those before its first training.
    seeds
        Each seed determines the order of the batches and the random mask.
    epochs, settings
        As for `mipnet.train`; the seed of ``settings`` is not used, and their ``time_limit`` is that of the whole call.

    Ctrl-C or the time limit returns the table of the networks that are finished; before the first one it raises KeyboardInterrupt or
    `TimeLimitReached`.  Inside `mipnet.keep_parts` each finished network is kept.
    """
    states = {seed: module.state_dict() for seed in seeds} if initial_states is None else initial_states
    if not seeds or any(seed not in states for seed in seeds):
        raise InputError(f"seeds are {list(seeds)} and initial states are given for {list(states)}; expected one for each seed")
    deadline = Deadline.after(settings.time_limit)
    how = replace(settings.changed(epochs=epochs), time_limit=deadline)
    network = from_torch(module, torch.zeros(1, *train_data.shape), deadline)
    gates = find_gates(network)
    fixed = as_masks(network, gates, masks)
    data = {"train_data": (train_data.images, train_data.labels), "test_data": (test_data.images, test_data.labels)}
    about = {"module": module, "masks": fixed, **data, "settings": replace(how, on_epoch=None, seed=0, time_limit=None)}

    def retrained(kind: LuckyKind, seed: int, mask: xr.Dataset | None) -> Retrained:
        tuned = retrain(module, states[seed], train_data.images, train_data.labels, seed=seed, masks=mask, settings=how)
        deadline.check("retrain the first network")  # training that was cut short says nothing about the mask
        loss, accuracy = evaluate(tuned, test_data.images, test_data.labels, time_limit=deadline)
        small = module if mask is None else cut(module, network, gates, mask)
        return Retrained(kind, seed, accuracy, loss, sum(p.numel() for p in small.parameters()))

    rows = list[Retrained]()
    try:
        for seed in seeds:
            kept = kept_parts("lucky", about | {"initial_state": dict(states[seed])})
            given: dict[LuckyKind, xr.Dataset | None] = {"full": None, "lucky": fixed, "random": random_masks(fixed, seed)}
            for kind, mask in given.items():
                rows.append(kept.once(f"{kind} {seed}", partial(retrained, kind, seed, mask), _packed, _read_row))
    except (KeyboardInterrupt, TimeLimitReached) as ended:
        if not rows:
            raise
        late = isinstance(ended, TimeLimitReached)
        return LuckyTable(tuple(rows), interrupted=not late, stopped=late)
    return LuckyTable(tuple(rows))


def _packed(row: Retrained) -> PackedPart:
    return PackedPart(asdict(row))


def _read_row(record: Mapping[str, Any], arrays: xr.Dataset | None) -> Retrained:
    return Retrained(**{each.name: record[each.name] for each in fields(Retrained)})
