"""The accuracy on held-out images, measured batch by batch, so that Ctrl-C or the time limit ends it soon and does not lose the scores."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from mipnet.app.runs.inputs import ImportanceInputs
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.gates import Gate
from mipnet.network.pass_cost import samples_at_once
from mipnet.pruning.smaller.masks import accuracy

IMAGES_PER_BATCH = 1024
"""Largest number of images between two looks at the clock."""

SECONDS_AFTER_INTERRUPT = 0.3
"""Time limit of all accuracies of a run that Ctrl-C or its time limit has ended."""


class HoldoutAccuracy:
    """The accuracies of masked networks on the held-out images of a run; ``interrupted`` is True after Ctrl-C here or in the solve.

    What is not measured at the deadline is None, and ``left_out`` is True; there are always `SECONDS_AFTER_INTERRUPT`, and no more after
    Ctrl-C.
    """

    def __init__(
        self, inputs: ImportanceInputs, gates: Sequence[Gate], deadline: Deadline = NO_DEADLINE, *, interrupted: bool = False
    ) -> None:
        self.network, self.holdout, self.gates = inputs.network, inputs.holdout, gates
        self.deadline, self.interrupted, self.left_out = deadline.at_least(SECONDS_AFTER_INTERRUPT), False, False
        if interrupted:
            self._end_soon()

    def percent(self, masks: xr.Dataset | None) -> float | None:
        """Return percent right with these masks; None without held-out images, or if the measurement was ended."""
        while True:
            try:
                return self._percent(masks)
            except KeyboardInterrupt:
                if self.interrupted:
                    raise
                self._end_soon()

    @property
    def notes(self) -> tuple[str, ...]:
        """A note if something was left out."""
        why = "the run was interrupted" if self.interrupted else "the time limit ended"
        return (f"{why}, so accuracies that take long were not measured",) if self.left_out else ()

    def _end_soon(self) -> None:
        self.interrupted, self.deadline = True, NO_DEADLINE.within(SECONDS_AFTER_INTERRUPT)

    def _percent(self, masks: xr.Dataset | None) -> float | None:
        if self.holdout is None:
            return None
        images, labels, right = self.holdout.images, self.holdout.labels, 0
        if not len(images):
            return accuracy(self.network, images, labels, self.gates, masks)
        at_once = min(IMAGES_PER_BATCH, samples_at_once(self.network))
        for first in range(0, len(images), at_once):
            if self.deadline.passed:
                self.left_out = True
                return None
            part = slice(first, first + at_once)
            percent = accuracy(self.network, images[part], labels[part], self.gates, masks)
            right += round(percent * len(images[part]) / 100)
        return 100.0 * (right / len(images))
