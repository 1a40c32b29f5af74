"""By how much another class can get ahead over a set: certified from above, attained from below."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.bounds.propagation import propagate
from mipnet.errors import InputError, suggest_keywords
from mipnet.network.graph import Network, size
from mipnet.network.properties import Clause
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.by_solver import Exact
from mipnet.verification.clause_network import Excess
from mipnet.verification.counterexamples import Search
from mipnet.verification.robustness import Classes, differences


@dataclass(frozen=True, eq=False)
class Margin:
    """The largest ``y_c - y_label`` over the set and all other classes c lies in ``[lower, upper]``.

    ``lower`` is attained: at ``point``, of the network's input shape, where the output is ``output`` and c is ``target``.  ``gap`` is
    ``upper - lower``; ``uppers`` has the certified upper end of every class that was asked for, by class.
    """

    lower: float
    upper: float
    point: Array
    output: Array
    target: int
    uppers: dict[int, float]
    seconds: float
    nodes: int

    @property
    def gap(self) -> float:
        """``upper - lower``."""
        return self.upper - self.lower


@suggest_keywords
def maximum_margin(
    network: Network,
    region: Box,
    label: int | Classes,
    *,
    gap: float = 1e-4,
    time_limit: float = 60.0,
    backend: str | Backend | MipSettings = "highs",
    seed: int = 0,
) -> Margin:
    """The largest ``y_c - y_label`` over a set of inputs and over all classes c, or over the targets of ``Classes(label, targets)``.

    Linear bounds come first, then gradient search for a point, then one program for each class that could still have a larger value than
    the best point.  A solver ends a class once it cannot beat the best point by more than ``gap``.  Bounds hold up to nothing: what a
    solver's tolerances may hide is added (`mipnet.solving.extremes.margin`), so ``gap`` can only be reached if it is above that.

    Raises `InputError` for a class that the network does not have.
    """
    began, count, classes = time.monotonic(), size(network.output_shape), Classes.of(label)
    if classes.label is None:
        raise InputError("`label` names no class that should win; expected its number, or `Classes` with a label")
    others, settings = classes.others(count), MipSettings.of(backend)
    region = region.fit(network.input_shape)
    excess = Excess.of(network, [Clause(differences(count, c, [classes.label]), np.zeros(1)) for c in others])
    bounds = propagate(excess.network, region, method="alpha")
    least = bounds.after[excess.network.output.name].lower[0].numpy().copy()  # of y_label - y_c, for each c
    best = _Best(excess, region)
    best.see(Search.of(excess, region, seed).descend(torch.arange(excess.clauses), began + 0.2 * time_limit)[0].numpy())
    nodes = 0
    with Exact(excess, bounds, settings, best.see) as exact:
        for k in least.argsort():
            seconds = began + time_limit - time.monotonic()
            if least[k] >= best.value - gap or seconds <= 0:
                continue
            answer = exact.least(int(k), seconds, best.value - gap)
            nodes += answer.nodes
            least[k] = max(least[k], answer.bound)
            if answer.interrupted:
                break
    uppers = {c: -float(value) for c, value in zip(others, least, strict=True)}
    upper = max(-best.value, max(uppers.values()))
    output = network.forward(best.x)[0]
    return Margin(-best.value, upper, best.x[0], output, others[best.clause], uppers, time.monotonic() - began, nodes)


class _Best:
    """The point with the least excess so far, its value and its clause."""

    def __init__(self, excess: Excess, region: Box) -> None:
        self.excess, self.value, self.clause = excess, np.inf, 0
        self.x = region.centre
        self.see(region.centre)

    def see(self, x: Array) -> Array | None:
        """Take inputs into account; none of them ends anything."""
        with torch.no_grad():
            found = self.excess(torch.tensor(x)).numpy()
        row, clause = np.unravel_index(found.argmin(), found.shape)
        if found[row, clause] < self.value:
            self.value, self.clause, self.x = float(found[row, clause]), int(clause), x[row : row + 1]
        return None
