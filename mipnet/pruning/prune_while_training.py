"""Pruning while training: a module is trained, scored, pruned and trained on, by a schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mipnet.errors import suggest_keywords
from mipnet.limits.deadline import Deadline
from mipnet.network.labelled_samples import align_samples
from mipnet.pruning.smaller.masks import Threshold
from mipnet.pruning.smaller.surgery import prune
from mipnet.pruning.training import TRAINING_DEFAULTS, TrainingSettings, train, training_data
from mipnet.readers.torch_copy import copied


@suggest_keywords
@dataclass(frozen=True, eq=False)
class PruningSchedule:
    """When a module is pruned while it trains, and how far.

    Parameters
    ----------
    every
        Epochs between two prunings.
    threshold
        As for `mipnet.make_masks`; each pruning applies it to the module as it is then.
    at_start
        Whether to prune before the first epoch as well.
    until
        The last epoch after which to prune; the last but one if None.  ``at_start=True, until=0`` prunes at initialisation only.
    """

    every: int
    threshold: Threshold = 0.1
    at_start: bool = False
    until: int | None = None

    @suggest_keywords
    def epochs(self, total: int) -> list[int]:
        """Return the epochs after which to prune, of a training of ``total`` epochs."""
        last = total - 1 if self.until is None else self.until
        return [*([0] if self.at_start else []), *range(self.every, min(last, total) + 1, self.every)]


@suggest_keywords
@align_samples
def prune_while_training(
    module: nn.Module,
    score: Callable[[nn.Module], xr.Dataset],
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    schedule: PruningSchedule,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    settings: TrainingSettings = TRAINING_DEFAULTS,
) -> nn.Module:
    """Return a smaller, trained copy of a module: it is trained, scored by ``score(module)``, pruned, and trained on, by a schedule.

    ``epochs`` and ``seed`` are in place of those of ``settings``, whose ``time_limit`` is that of the whole call; after it, the module is
    pruned without training.  The optimizer starts anew after each pruning.
    """
    how = settings.changed(epochs=epochs, seed=seed)
    how = replace(how, time_limit=Deadline.after(how.time_limit))
    small, done, prunings = copied(module), 0, schedule.epochs(how.epochs)
    for epoch in sorted({*prunings, how.epochs}):
        train(small, images, labels, settings=how.changed(epochs=epoch - done, seed=how.seed + done))
        done = epoch
        if epoch in prunings:
            small = prune(small, score(small), training_data(small, images, labels)[0][:1].double(), threshold=schedule.threshold)
    return small
