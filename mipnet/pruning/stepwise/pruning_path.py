"""Masks along a path from the full network to a small one: frozen, pruned a little, and frozen again at the pruned point.

The importance program (`mipnet.pruning.importance.program`) is taken at the full network, on few images; what it says about a network of
half the size is a long extrapolation.  Here each step prunes a few percent of the parameters, by the binary quadratic program of
`mipnet.pruning.stepwise.step_program`.  Its gradient and curvature are taken at the masks reached so far, over thousands of images.  Units
that were silenced can come back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.errors import InputError, SolverFailure, TimeLimitReached, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import add_warning, carries_warnings
from mipnet.model.losses import check_labels
from mipnet.network.gates import Gate, find_gates, mask_actions
from mipnet.network.graph import Network
from mipnet.network.image_check import warn_of_images
from mipnet.network.labelled_samples import align_samples
from mipnet.network.sets import Samples
from mipnet.pruning.smaller.mask_check import warn_of_masks
from mipnet.pruning.smaller.parameter_counts import pruned_share, remaining_parameters
from mipnet.pruning.stepwise.curvature import curvature, forward_in_parts, soft_targets
from mipnet.pruning.stepwise.step_program import StepProgram
from mipnet.solving.engine import Result, solve

STEP_SOLVE_SECONDS_MAX = 5.0
"""Longest time of the solver for one step, in seconds."""

STEPWISE_SHARES = tuple(float(share) for share in np.round(np.arange(0.025, 0.9, 0.025), 3))
"""The shares of parameters to prune along a path, unless others are given."""


@dataclass(frozen=True, eq=False)
class PruningStep:
    """Masks that prune a ``share`` of the parameters, close to the ``target``.

    ``loss`` is the true mean loss with these masks on the images of the path, ``change`` the change of the loss that the program of the
    step predicted.  ``flips`` holds the numbers of units that were silenced and brought back, ``seconds`` the processor time of the step.
    ``result`` is the result of the solve, or None if no backend was given.
    """

    target: float
    share: float
    masks: xr.Dataset
    loss: float
    change: float
    flips: tuple[int, int]
    seconds: float
    result: Result | None = None


@dataclass(frozen=True, eq=False)
class PruningPath:
    """The steps, from the least to the most pruned masks; ``loss`` is that of the full network.

    If Ctrl-C ``interrupted`` the path, or the time limit ``stopped`` it, the steps are those that were finished.  ``warnings`` say whether
    the last masks do no better than random ones, and whether the images look unscaled.
    """

    gates: tuple[Gate, ...]
    steps: tuple[PruningStep, ...]
    loss: float
    interrupted: bool = False
    stopped: bool = False
    warnings: tuple[str, ...] = ()

    @suggest_keywords
    def at(self, share: float) -> PruningStep:
        """Return the first step that prunes at least a share of the parameters; raises `InputError` if no step does."""
        for step in self.steps:
            if step.share >= share:
                return step
        reached = self.steps[-1].share if self.steps else 0.0
        raise InputError(f"no step prunes {share:g} of the parameters; the path ends at {reached:.3f}")

    def scores(self) -> xr.Dataset:
        """Return one score per unit: the share of the steps after which it stayed, so 1 if no step silenced it."""
        stays = [step.masks for step in self.steps]
        mean = {gate.name: (gate.dim, np.mean([one[gate.name].values for one in stays], axis=0)) for gate in self.gates}
        return xr.Dataset(
            mean,
            coords={gate.dim: np.arange(gate.units) for gate in self.gates},
            attrs={"title": "share of the steps after which a unit stays"},
        )


@suggest_keywords
@carries_warnings
def prune_stepwise(
    network: Network,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    shares: Sequence[float] = STEPWISE_SHARES,
    gates: str | Sequence[str] = "all",
    hard: float = 1.0,
    backend: str | Backend | None = None,
    time_limit: TimeLimit = None,
) -> PruningPath:
    """Return masks for rising ``shares`` of the parameters, each made from the one before.

    A step ends near its share, not at it: two layers share weights, and the parameter counts of both include them.  A share that cannot
    be reached, because one unit of each layer stays, ends the path.  `StepwisePruner` takes the steps one at a time.

    Parameters
    ----------
    images, labels
        Thousands of them, if possible: time grows with their number, the size of the programs does not.
    hard
        The loss is the cross-entropy to ``hard`` times the label plus ``1 - hard`` times the network's own probabilities.  With few
        images the latter guard against overfitting their labels.
    backend
        A solver that improves the masks of each step, for at most `STEP_SOLVE_SECONDS_MAX` seconds; if None, the masks are those of the
        search, which solvers rarely improve.
    time_limit
        Seconds of the whole call, None for no limit.

    Ctrl-C or the time limit ends the path and returns the steps that are finished.  Raises `TimeLimitReached` if the time ends before the
    loss of the full network is known.
    """
    if not len(shares) or any(not 0 < a < 1 for a in shares) or list(shares) != sorted(set(shares)):
        raise InputError(f"the shares are {list(shares)}; expected rising numbers between 0 and 1")
    pruner = StepwisePruner(network, images, labels, gates=gates, hard=hard, backend=backend, time_limit=time_limit)
    full, steps, stopped = pruner.loss(pruner.masks), list[PruningStep](), False
    warn_of_images(network, pruner.images, pruner.labels, pruner.deadline)
    try:
        for target in shares:
            if pruner.share >= target:
                continue
            step = pruner.prune_to(target)
            if step is None:
                break
            steps.append(step)
    except KeyboardInterrupt:
        return PruningPath(pruner.gates, tuple(steps), full, interrupted=True)
    except TimeLimitReached:
        stopped = True
    if steps:
        warn_of_masks(network, pruner.gates, steps[-1].masks, pruner.images, pruner.labels, deadline=pruner.deadline)
    return PruningPath(pruner.gates, tuple(steps), full, stopped=stopped)


@suggest_keywords
class StepwisePruner:
    """The steps of `prune_stepwise`, one at a time, on ``images`` with ``labels``.

    ``masks`` are those reached so far, which prune ``share`` of the parameters.  ``time_limit`` is that of all steps together, from the
    creation of this object on.
    """

    @align_samples
    def __init__(
        self,
        network: Network,
        images: ArrayLike,
        labels: ArrayLike,
        *,
        gates: str | Sequence[str] = "all",
        hard: float = 1.0,
        backend: str | Backend | None = None,
        time_limit: TimeLimit = None,
    ) -> None:
        if not 0 <= hard <= 1:
            raise InputError(f"`hard` is {hard}; expected a number in [0, 1]")
        self.network, self.gates = network, find_gates(network, gates)
        self.backend, self.deadline = backend, Deadline.after(time_limit)
        self.images = Samples(images).fit(network.input_shape).lower
        self.labels = check_labels(labels, len(self.images), network.output_shape[0])
        self._images, truth = torch.tensor(self.images), torch.from_numpy(self.labels)
        self._targets = soft_targets(network, self._images, truth, hard, self.deadline)
        self.masks = self._masks(np.ones(sum(gate.units for gate in self.gates)))
        self.share = 0.0

    @suggest_keywords
    def prune_to(self, target: float) -> PruningStep | None:
        """Change the masks until they prune about a share of the parameters; returns None if that cannot be reached.

        Raises KeyboardInterrupt after Ctrl-C during the solve, and `TimeLimitReached` at the end of the time; the masks are those before.
        """
        began, kept = time.process_time(), self._vector(self.masks)
        curve = curvature(self.network, self.gates, self._images, self._targets, torch.from_numpy(kept), self.deadline)
        try:
            drop = (target - self.share) * self.network.parameters
            program = StepProgram(self.gates, kept, curve, self._price(kept), drop, self.deadline, self.backend is not None)
        except InputError:
            return None
        after, result = self._solved(program)
        masks = self._masks(after)
        share = pruned_share(self.network, self.gates, masks)
        if share <= self.share:
            return None
        loss = self.loss(masks)
        self.masks, self.share = masks, share
        seconds = time.process_time() - began
        moved = (int((kept > after).sum()), int((kept < after).sum()))
        return PruningStep(target, share, masks, loss, curve.change(after - kept), moved, seconds, result)

    def loss(self, masks: xr.Dataset) -> float:
        """Return the true mean loss of the masked network."""
        logits = forward_in_parts(self.network, self._images, self.deadline, mask_actions(self.gates, masks))
        return float(-(self._targets * logits.log_softmax(1)).sum(1).mean())

    def _solved(self, program: StepProgram) -> tuple[Array, Result | None]:
        if self.backend is None:
            return program.search(), None
        try:
            result = solve(program, self.backend, time_limit=self.deadline.within(STEP_SOLVE_SECONDS_MAX))
        except SolverFailure as error:
            add_warning(f"some masks are those of the search alone, because the solver failed: {error}")
            return program.search(), None
        if result.interrupted:
            raise KeyboardInterrupt
        return (program.search() if result.x is None else self._vector(result.x)), replace(result, x=None, point=None)

    def _price(self, kept: Array) -> Array:
        """Return, for each unit, the parameters that one unit of its layer takes with it, given the others."""
        price, start = np.empty(len(kept)), 0
        full = sum(remaining_parameters(self.network, self.gates, self._masks(kept)).values())
        for gate in self.gates:
            own = kept[start : start + gate.units]
            fewer = kept.copy()
            fewer[start + int(np.argmax(own))] = 0.0
            less = full - sum(remaining_parameters(self.network, self.gates, self._masks(fewer)).values()) if own.sum() > 1 else 0
            price[start : start + gate.units] = less
            start += gate.units
        return price

    def _masks(self, kept: Array) -> xr.Dataset:
        parts = np.split(kept > 0.5, np.cumsum([gate.units for gate in self.gates])[:-1])
        found = {gate.name: (gate.dim, part) for gate, part in zip(self.gates, parts, strict=True)}
        return xr.Dataset(found, coords={g.dim: np.arange(g.units) for g in self.gates}, attrs={"title": "True = kept"})

    def _vector(self, masks: xr.Dataset) -> Array:
        return np.concatenate([masks[gate.name].values.astype(np.float64) for gate in self.gates])
