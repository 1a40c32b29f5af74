"""The distance of the nearest input that the network classifies differently, with a certified lower bound and an attained upper bound."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.errors import check_choice, suggest_keywords
from mipnet.formulations.distance import Norm
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.kept_parts import kept_parts
from mipnet.limits.result_warnings import carries_warnings
from mipnet.network.graph import Network, size
from mipnet.network.properties import Clause
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.distance_domain import DistanceDomain
from mipnet.verification.distortion_search import DistortionSearch
from mipnet.verification.distortion_settings import DistortionSettings
from mipnet.verification.robustness import TARGETS_HINT, Classes, ClipRange, class_differences, image_and_classes

MOVED_ARGUMENTS_OF_DISTORTION = {
    name: f"write `backend=mn.DistortionSettings(..., {name}=...)`" for name in ("options", "formulation", "gap", "seed")
} | {"targets": TARGETS_HINT}
"""What to write instead of arguments that `minimum_distortion` does not have any more; see `mipnet.errors.suggest_keywords`."""


@dataclass(frozen=True, eq=False)
class Distortion:
    """The smallest distance at which the class changes lies in ``[lower, upper]``.

    ``upper`` is attained at ``point``, of the network's input shape, where the network returns ``output``.  If no such point was found
    within the given distance, ``upper`` is infinite and ``lower`` is at most that distance.  ``gap`` is ``(upper - lower) / upper``.
    ``warnings`` say what was not closed or left out.
    """

    lower: float
    upper: float
    point: Array | None
    output: Array | None
    norm: Norm
    label: int
    seconds: float
    nodes: int
    interrupted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """The gap relative to ``upper``; 1 if no point was found."""
        return (self.upper - self.lower) / self.upper if 0 < self.upper < math.inf else 1.0 if self.upper else 0.0


@suggest_keywords(moved=MOVED_ARGUMENTS_OF_DISTORTION)
@carries_warnings
def minimum_distortion(
    network: Network,
    x: ArrayLike,
    label: int | Classes | None = None,
    *,
    upper: float,
    norm: Norm = "linf",
    clip: ClipRange = (0.0, 1.0),
    time_limit: TimeLimit = 60.0,
    backend: str | Backend | MipSettings | DistortionSettings = "highs",
) -> Distortion:
    """Bound the smallest distance from ``x`` at which another class (or one of the targets) is at least as high as the label.

    Parameters
    ----------
    label
        The class that should win; the predicted class of ``x`` if left out; with targets as ``Classes(label, targets)``.
    upper
        Only inputs within this distance are considered.
    backend
        The solver, a `MipSettings`, or a `DistortionSettings` with the gap and the seed of the search as well.

    Gradient search gives the first point, and halving the radius with linear bounds gives the first lower bound.  Then one program is
    solved per class that linear bounds leave open within the distance of the nearest point.  Its objective is the distance; for ``l2`` it
    is the square of the distance, linearised by tangents, which is an outer approximation, so the lower bound holds.  The solver's
    tolerances are subtracted.  If the programs are not solved in time, the range of radii is halved by `mipnet.verify`.  ``time_limit`` is
    in seconds of the whole call, None for no limit.  Inside `mipnet.keep_parts` what is known of the distance is kept after each of these
    steps.  The other arguments are those of `mipnet.robustness`.
    """
    check_choice("the norm", norm, get_args(Norm))
    began, deadline = time.monotonic(), Deadline.after(time_limit)
    settings = DistortionSettings.of(backend)
    image, classes = image_and_classes(network, x, label)
    count, own = size(network.output_shape), classes.winner
    clauses = tuple(Clause(class_differences(count, c, [own]), np.zeros(1)) for c in classes.others(count))
    search = DistortionSearch(Excess.of(network, clauses), DistanceDomain(image, norm, clip), upper, deadline, settings)
    search.kept = kept_parts(
        "minimum_distortion",
        {"network": network, "x": image, "classes": classes, "upper": upper, "norm": norm, "clip": clip, "settings": settings},
    )
    search.learn(image)
    search.go_on()
    if search.best > 0:
        search.run(network, clauses)
    search.warn_if_open()
    found = search.point
    output = None if found is None else network.outputs(found)[0]
    return Distortion(
        min(search.lower, search.best),
        search.best,
        None if found is None else found[0],
        output,
        norm,
        own,
        time.monotonic() - began,
        search.nodes,
        search.interrupted,
    )
