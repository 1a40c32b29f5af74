"""The settings of `mipnet.counterfactual`: the limits of its answers, how many there are, and how the distance is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mipnet.errors import InputError, suggest_keywords
from mipnet.limits.deadline import TimeLimit
from mipnet.network.sets import Box
from mipnet.verification.distortion_settings import DistortionSettings

FOUND_IN_SETTINGS = ("within", "count", "apart", "weights", "increasing", "decreasing", "margin", "time_limit", "gap", "seed", "options")
MOVED_ARGUMENTS_OF_COUNTERFACTUAL = {
    name: f"write `backend=mn.CounterfactualSettings(..., {name}=...)`" for name in (*FOUND_IN_SETTINGS, "formulation")
}
"""What to write in place of arguments that are fields of `CounterfactualSettings`; see `mipnet.errors.suggest_keywords`."""


@suggest_keywords
@dataclass(frozen=True)
class CounterfactualSettings(DistortionSettings):
    """`DistortionSettings` for `mipnet.counterfactual`, with the fields that not every question needs.

        mn.counterfactual(net, x, 1, backend=mn.CounterfactualSettings("scip", within=mn.ConvexHull(data), count=3, time_limit=120))

    Parameters
    ----------
    within
        The input set that answers lie in: a box, a `Polytope`, or the `ConvexHull` of data, for plausible answers.  The input itself need
        not lie in a polytope or hull.  If left out, the features have no bounds but those of one-hot columns.
    count
        The number of answers, each different from the earlier ones, nearest first.
    apart
        How the answers differ.  A number: in at least one feature by this much, in units of the weighted distance.  None: of the features
        that an earlier answer changes, the next one leaves at least one as it is.
    weights
        One positive number w per feature, by name or order: the distance is ``norm(w (x' - x))``, 1 for all if left out.  The inverse of
        the median absolute deviation of each feature is usual.
    increasing, decreasing
        Features that may only grow, or only shrink.
    margin
        By how much the class wins: ``y_target - y_other >= margin``, in the units of the outputs (the logits of a softmax).
    time_limit
        Seconds of the whole call, None for no limit.
    """

    within: Box | None = None
    count: int = 1
    apart: float | None = None
    weights: ArrayLike | Mapping[str, float] | None = None
    increasing: Sequence[Any] = ()
    decreasing: Sequence[Any] = ()
    margin: float = 1e-4
    time_limit: TimeLimit = 60.0

    taken_by: ClassVar[str] = "`counterfactual`"

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise InputError(f"`count` is {self.count}; expected a whole number of at least 1")
        if self.apart is not None and not 0 < self.apart < np.inf:
            raise InputError(f"`apart` is {self.apart}; expected a finite number above 0, or None")
        if not 0 <= self.margin < np.inf:
            raise InputError(f"`margin` is {self.margin}; expected a finite number of at least 0")
