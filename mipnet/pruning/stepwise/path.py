"""Masks along the whole way from the network to a small one: frozen, pruned a little, frozen again at the pruned point.

The one program of `mipnet.pruning.importance.question` looks from the full network: what it says of a network at half the size is a long
extrapolation, and its few images are few.  Here every step takes away a few percent of the parameters, by the binary quadratic
program of `mipnet.pruning.stepwise.flips`, whose gradient and curvature are taken at the masks reached so far and over thousands of images.
Units that were silenced may come back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.errors import InputError
from mipnet.model.losses import check_labels
from mipnet.network.gates import Gate, find_gates, mask_actions
from mipnet.network.graph import Network
from mipnet.network.sets import Samples
from mipnet.pruning.smaller.parameters import pruned_share, remaining_parameters
from mipnet.pruning.stepwise.curvature import curvature, soft_targets
from mipnet.pruning.stepwise.flips import Flips
from mipnet.solving.engine import Result, solve

SHARES = tuple(float(share) for share in np.round(np.arange(0.025, 0.9, 0.025), 3))
"""The shares of parameters that a path stops at, unless others are given."""


@dataclass(frozen=True, eq=False)
class Step:
    """Masks that prune a ``share`` of the parameters, about the ``target``; ``loss`` is their true mean loss on the path's images.

    ``change`` is what the step's program expected the loss to change by, ``flips`` how many units went and came back, ``seconds`` the
    processor time of the step.  ``result`` tells of the solver's work on it, or is None if the search alone was asked for.
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
class Path:
    """The steps, from the least pruned masks to the most; ``loss`` is that of the full network."""

    gates: tuple[Gate, ...]
    steps: tuple[Step, ...]
    loss: float

    def at(self, share: float) -> Step:
        """The first step that prunes at least a share of the parameters."""
        for step in self.steps:
            if step.share >= share:
                return step
        reached = self.steps[-1].share if self.steps else 0.0
        raise InputError(f"no step prunes {share:g} of the parameters; the path ends at {reached:.3f}")

    def scores(self) -> xr.Dataset:
        """One score a unit: the part of the way, by steps, on which it stayed; 1 if it is in the smallest network and always was."""
        stays = [step.masks for step in self.steps]
        mean = {gate.name: (gate.dim, np.mean([one[gate.name].values for one in stays], axis=0)) for gate in self.gates}
        return xr.Dataset(
            mean, coords={gate.dim: np.arange(gate.units) for gate in self.gates}, attrs={"title": "part of the way it stays"}
        )


def prune_stepwise(
    network: Network,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    shares: Sequence[float] = SHARES,
    gates: str | Sequence[str] = "all",
    hard: float = 1.0,
    backend: str | Backend | None = None,
    time_limit: float = 5.0,
    on_step: Callable[[Step], None] | None = None,
) -> Path:
    """Masks for rising ``shares`` of the parameters, each from the one before.

    A step lands near its share: units of two layers share weights, which the prices of both count.

    Parameters
    ----------
    images, labels
        Thousands, where there are as many: time grows with them, the programs do not.
    hard
        The loss is the cross-entropy to ``hard`` times the label plus ``1 - hard`` times the network's own probabilities.  With few
        images the latter guard against fitting their labels.
    backend
        A solver to improve each step's masks with, for ``time_limit`` seconds; None leaves it at the search, which is rarely beaten.
    on_step
        Called with each `Step`.

    A share that is out of reach, as one unit of each layer stays, ends the path.
    """
    if not 0 <= hard <= 1:
        raise InputError(f"`hard` is {hard}; expected a number in [0, 1]")
    if any(not 0 < a < 1 for a in shares) or list(shares) != sorted(set(shares)) or not shares:
        raise InputError(f"the shares are {list(shares)}; expected rising numbers between 0 and 1")
    found = find_gates(network, gates)
    x = torch.tensor(Samples(images).fit(network.input_shape).lower)
    truth = torch.from_numpy(check_labels(labels, len(x), network.output_shape[0]))
    walk = _Walk(network, found, x, soft_targets(network, x, truth, hard), backend, time_limit)
    full = walk.loss(walk.masks)
    steps: list[Step] = []
    for target in shares:
        if walk.share >= target:
            continue
        step = walk.to(target)
        if step is None:
            break
        steps.append(step)
        if on_step is not None:
            on_step(step)
    return Path(found, tuple(steps), full)


class _Walk:
    """Where a path has come to: the masks, and the share that they prune."""

    def __init__(
        self, network: Network, gates: tuple[Gate, ...], images: Tensor, targets: Tensor, backend: str | Backend | None, seconds: float
    ) -> None:
        self.network, self.gates, self.images, self.targets = network, gates, images, targets
        self.backend, self.seconds = backend, seconds
        self.masks = self._masks(np.ones(sum(gate.units for gate in gates)))
        self.share = 0.0

    def to(self, target: float) -> Step | None:
        """Flip until about a share of the parameters is gone; None if that cannot be."""
        began, kept = time.process_time(), self._vector(self.masks)
        curve = curvature(self.network, self.gates, self.images, self.targets, torch.from_numpy(kept))
        try:
            flips = Flips(self.gates, kept, curve, self._price(kept), (target - self.share) * self.network.parameters)
        except InputError:
            return None
        after, result = self._flipped(flips)
        masks = self._masks(after)
        share = pruned_share(self.network, self.gates, masks)
        if share <= self.share:
            return None
        self.masks, self.share = masks, share
        seconds = time.process_time() - began
        moved = (int((kept > after).sum()), int((kept < after).sum()))
        return Step(target, share, masks, self.loss(masks), curve.change(after - kept), moved, seconds, result)

    def _flipped(self, flips: Flips) -> tuple[Array, Result | None]:
        if self.backend is None:
            return flips.search(), None
        result = solve(flips, self.backend, time_limit=self.seconds)
        return (flips.search() if result.x is None else self._vector(result.x)), replace(result, x=None, point=None)

    def _price(self, kept: Array) -> Array:
        """The parameters that go with one unit of each layer, given the others."""
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

    def loss(self, masks: xr.Dataset) -> float:
        """The true mean loss of the masked network."""
        logits = torch.from_numpy(self.network.forward(self.images, mask_actions(self.gates, masks)))
        return float(-(self.targets * logits.log_softmax(1)).sum(1).mean())

    def _masks(self, kept: Array) -> xr.Dataset:
        parts = np.split(kept > 0.5, np.cumsum([gate.units for gate in self.gates])[:-1])
        found = {gate.name: (gate.dim, part) for gate, part in zip(self.gates, parts, strict=True)}
        return xr.Dataset(found, coords={g.dim: np.arange(g.units) for g in self.gates}, attrs={"title": "True stays, False goes"})

    def _vector(self, masks: xr.Dataset) -> Array:
        return np.concatenate([masks[gate.name].values.astype(np.float64) for gate in self.gates])
