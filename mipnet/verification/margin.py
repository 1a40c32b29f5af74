"""The largest margin of another class over the label in a set of inputs, with a certified upper bound and an attained value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.errors import TimeLimitReached, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import add_warning, carries_warnings, kept_if_solver_fails, left_out_if_too_large
from mipnet.network.graph import Network, size
from mipnet.network.properties import Clause
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.clause_program import ClauseProgram
from mipnet.verification.counterexamples import CounterexampleSearch
from mipnet.verification.robustness import ENDS_TOLERANCE_FACTOR, TARGETS_HINT, Classes, class_differences

MARGIN_TIME_SHARES = {"bounds": 0.4, "search": 0.2}
"""Share of the remaining time that linear bounds and gradient search may use."""

MarginScale = Literal["outputs", "logits"]


@dataclass(frozen=True, eq=False)
class Margin:
    """The largest ``y_c - y_label`` over the set and all other classes c lies in ``[lower, upper]``.

    ``lower`` is attained by class ``target`` at ``point``, of the network's input shape, where the network returns ``output``.  ``gap`` is
    ``upper - lower``, and ``size`` the largest absolute difference that was found.  ``uppers`` holds the certified upper bound of every
    class that was asked about.  ``scale`` says what y is: the ``outputs``, or the ``logits`` of a network that ends in a softmax, whose
    differences are ``ln(p_c / p_label)`` of its outputs p.  ``warnings`` say what was not closed or left out.
    """

    lower: float
    upper: float
    point: Array
    output: Array
    target: int
    uppers: dict[int, float]
    seconds: float
    nodes: int
    scale: MarginScale = "outputs"
    interrupted: bool = False
    warnings: tuple[str, ...] = ()
    size: float = 1.0

    @property
    def gap(self) -> float:
        """``upper - lower``."""
        return self.upper - self.lower


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS | {"targets": TARGETS_HINT})
@carries_warnings
def maximum_margin(
    network: Network,
    region: Box,
    label: int | Classes,
    *,
    gap: float = 1e-4,
    time_limit: TimeLimit = 60.0,
    backend: str | Backend | MipSettings = "highs",
    seed: int = 0,
) -> Margin:
    """Bound the largest ``y_c - y_label`` over a set of inputs and over all classes c, or over the targets of ``Classes(label, targets)``.

    First linear bounds are computed, then gradient search looks for a point.  Then one program is solved per class that may have a larger
    value than the best point.  A solve ends once the class cannot exceed the best point by more than ``gap``, relative to the largest
    absolute difference that was found.  The upper bounds include the solver's tolerances
    (`mipnet.solving.element_bounds.tolerance_margin`), so only a ``gap`` above these is reached.  ``time_limit`` is in
    seconds of the whole call, None for no limit; the bounds proven by then are returned, and are infinite if there are none.

    For a network that ends in a softmax, y are the logits: ``y_c - y_label = ln(p_c / p_label)``, which has the sign of ``p_c - p_label``.
    Raises `InputError` for a class that the network does not have, and `UnsupportedError` for a softmax over several groups of outputs.
    """
    network.check_classes()
    began, deadline, count, classes = time.monotonic(), Deadline.after(time_limit), size(network.output_shape), Classes.of(label)
    others, settings = classes.others(count), MipSettings.of(backend)
    region = region.fit(network.input_shape, network.input_names)
    excess = Excess.of(network, [Clause(class_differences(count, c, [classes.winner]), np.zeros(1)) for c in others])
    search = _MarginSearch(excess, region, settings, deadline, gap)
    search.run(seed)
    lower, best = search.lower, search.best
    uppers = {c: -float(value) for c, value in zip(others, lower, strict=True)}
    upper = max(-best.value, max(uppers.values()))
    if not upper + best.value <= ENDS_TOLERANCE_FACTOR * gap * best.size:
        add_warning(f"the largest margin lies between {-best.value:.6g} and {upper:.6g}: it is not closed to {gap:g}")
    output, seconds, scale = network.outputs(best.x)[0], time.monotonic() - began, _scale(network)
    return Margin(
        -best.value, upper, best.x[0], output, others[best.clause], uppers, seconds, search.nodes, scale, search.interrupted, size=best.size
    )


def _scale(network: Network) -> MarginScale:
    """Return what the margin is a difference of; differences of log-probabilities are those of the logits."""
    return "logits" if network.softmax is not None and network.softmax.kind == "softmax" else "outputs"


class _MarginSearch:
    """The search: ``lower`` are proven bounds of ``y_label - y_c`` per class c, ``best`` is the best point so far."""

    def __init__(self, excess: Excess, region: Box, settings: MipSettings, deadline: Deadline, gap: float) -> None:
        self.excess, self.region, self.settings, self.deadline, self.gap = excess, region, settings, deadline, gap
        self.lower, self.nodes, self.best = np.full(excess.clauses, -np.inf), 0, _BestMargin(excess, region)
        self.interrupted = False

    def run(self, seed: int) -> None:
        """Run all stages, or those that there is time for."""
        try:
            end = self.deadline.share(MARGIN_TIME_SHARES["bounds"])
            bounds = propagate(self.excess.network, self.region, method="alpha", time_limit=end)
            self.lower = bounds.after[self.excess.network.output.name].lower[0].numpy().copy()
            search = CounterexampleSearch.of(self.excess, self.region, seed)
            end = self.deadline.share(MARGIN_TIME_SHARES["search"])
            self.best.learn(search.descend(torch.arange(self.excess.clauses), end)[0].numpy())
            with left_out_if_too_large("the solver"), kept_if_solver_fails("the last stage"):
                self._solve(bounds)
        except TimeLimitReached:  # what was proven before holds
            pass
        except KeyboardInterrupt:
            self.interrupted = True

    @property
    def level(self) -> float:
        """A class is finished once its bound is at least this."""
        return self.best.value - self.gap * self.best.size

    def _solve(self, bounds: Bounds) -> None:
        if not (self.lower < self.level).any() or self.deadline.passed:
            return
        with ClauseProgram(self.excess, bounds, self.settings, self.best.learn, self.deadline) as program:
            for k in self.lower.argsort():
                if self.lower[k] >= self.level or self.deadline.passed:
                    continue
                with kept_if_solver_fails("the last stage"):
                    result = program.minimise(int(k), self.level)
                    self.nodes += result.nodes
                    self.lower[k] = max(self.lower[k], result.bound)
                    if result.interrupted:
                        raise KeyboardInterrupt


class _BestMargin:
    """The point with the smallest excess so far, its value and its clause, and the largest absolute excess so far."""

    def __init__(self, excess: Excess, region: Box) -> None:
        self.excess, self.value, self.clause, self.size = excess, np.inf, 0, 0.0
        self.x = region.centre
        self.learn(region.centre)

    def learn(self, x: Array) -> None:
        """Store the best of some inputs, if it is better than the best so far."""
        if not len(x):
            return
        with torch.no_grad():
            found = self.excess(torch.tensor(x)).numpy()
        self.size = max(self.size, float(np.abs(found).max()))
        row, clause = np.unravel_index(found.argmin(), found.shape)
        if found[row, clause] < self.value:
            self.value, self.clause, self.x = float(found[row, clause]), int(clause), x[row : row + 1]
