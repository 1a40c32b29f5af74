"""Branch and bound over the signs of ReLUs: linear bounds with Lagrange multipliers for the signs, many branches at once.

Wang et al., "Beta-CROWN: Efficient Bound Propagation with Per-neuron Split Constraints" (NeurIPS 2021), section 3: where s z >= 0
holds for a unit, ``f >= f - beta s z`` for every beta >= 0, and the multipliers are optimised along with the slopes
(`mipnet.bounds.alpha_crown`).  Bounds before activations are those of the whole set, with the signs.  The unit to split is chosen by
trying each of the units that loosen the linear bound most (De Palma et al., "Improved Branch and Bound for Neural Network Verification via
Lagrangian Decomposition", 2021, section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import backward_pass
from mipnet.bounds.crown_rows import CrownRows, KnownBounds, largest_absolute
from mipnet.bounds.interval import Interval
from mipnet.bounds.projected_adam import AdamVariable, ProjectedAdam
from mipnet.formulations.registry import is_affine
from mipnet.layers.activations import ReLU
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import fits_or_warns
from mipnet.network.graph import Network, size
from mipnet.network.pass_cost import samples_at_once
from mipnet.verification.clause_network import Excess

BRANCHES_PER_BATCH = 64
"""Largest number of branches that are split at once."""

PASSES_PER_BRANCH = 8
"""What a gradient step for both halves of a branch costs, in forward passes; large networks get smaller batches."""

BRANCHING_STEPS = 12
"""Number of gradient steps per branch; the whole set gets twice as many."""

SLOPE_RATE, MULTIPLIER_RATE, BRANCHING_RATE_DECAY = 0.2, 0.05, 0.95
"""The step sizes of slopes and of multipliers, and the factor by which each step shrinks both."""

ORDINARY_RATIO_MIN, ORDINARY_RATIO_MAX = 2.0**-6, 2.0**8
"""Where the excess and a unit's value differ in size by a factor in this range, the multiplier is in units of 1."""

UNITS_TRIED_UPPER, UNITS_TRIED_LOWER = 2, 2
"""Number of units that are tried before one is split: those whose upper line costs most, and those whose lower line costs most."""


@dataclass(frozen=True, eq=False)
class Branches:
    """Branches of the input set by the ``signs`` of unstable units, ``(n, units)``: 1, -1, or 0 where both signs are possible.

    ``slopes`` and ``multipliers`` ``(n, units)`` are the best ones found so far, and ``bound`` ``(n,)`` is the lower bound that they give.
    """

    signs: Tensor
    slopes: Tensor
    multipliers: Tensor
    bound: Tensor

    def __len__(self) -> int:
        return len(self.bound)

    def fit_beside(self, other: Branches) -> bool:
        """Return True if both may be copied into one; if not, that is added as a warning (`mipnet.limits.result_warnings`)."""
        together = sum(getattr(each, part.name).nbytes for each in (self, other) for part in fields(self))
        return fits_or_warns(together, "no further signs of ReLUs were branched on", f"{len(self) + len(other):,} branches wait")

    def __getitem__(self, which: Tensor | slice) -> Branches:
        """Return the branches with these numbers."""
        return Branches(*(getattr(self, each.name)[which] for each in fields(self)))

    def __add__(self, other: Branches) -> Branches:
        return Branches(*(torch.cat([getattr(self, each.name), getattr(other, each.name)]) for each in fields(self)))

    def split(self, unit: Tensor) -> Branches:
        """Split each branch by the sign of one unstable unit: first all branches with sign 1, then all with -1."""
        rows, both = torch.arange(len(self)), self[torch.arange(len(self)).repeat(2)]
        signs, multipliers = both.signs.clone(), both.multipliers.clone()
        signs[rows, unit], signs[rows + len(self), unit] = 1, -1
        multipliers[torch.arange(2 * len(self)), unit.repeat(2)] = 0.0
        return Branches(signs, both.slopes, multipliers, both.bound)


@dataclass(frozen=True, eq=False)
class SignedBounds:
    """The signs of some branches, and the bounds of all nodes with these signs."""

    signs: Tensor
    known: KnownBounds


@dataclass(eq=False)
class SignBranching:
    """Branch and bound for one row of a property: is its excess above 0 in the whole set?

    ``confirm`` is called with inputs that minimise a linear bound; it returns the first of them that is a counterexample, or None.
    ``branches`` is the number of branches bounded so far, ``bound`` the smallest bound of a waiting branch, and ``refuted``
    the smallest bound of a refuted one.
    """

    excess: Excess
    bounds: Bounds
    row: int
    confirm: Callable[[Array], Array | None]
    deadline: Deadline
    branches: int = 0
    bound: float = -torch.inf
    refuted: float = torch.inf

    @staticmethod
    def applies_to(network: Network) -> bool:
        """Return True if every layer is affine or a ReLU."""
        return all(isinstance(node.layer, ReLU) or is_affine(node.layer) for node in network.nodes)

    def run(self) -> tuple[bool, Array | None]:
        """Return whether every branch was refuted in time, and the counterexample if one was found."""
        count = len(self.unstable)
        if not count:
            return False, None
        whole = Branches(
            torch.zeros(1, count), torch.full((1, count), 0.5).double(), torch.zeros(1, count).double(), torch.full((1,), -torch.inf)
        )
        waiting = self.bounded(whole, BRANCHING_STEPS * 2)
        at_once = min(BRANCHES_PER_BATCH, samples_at_once(self.excess.network, PASSES_PER_BRANCH))
        while len(waiting):
            self.bound = float(waiting.bound.min())
            if self.deadline.passed:
                return False, None
            order = waiting.bound.argsort()
            branches, rest = waiting[order[:at_once]], waiting[order[at_once:]]
            if (branches.signs != 0).all(1).any():
                return False, None
            found = self.confirm(self.corners)
            if found is not None:
                return False, found
            unit = self.choose(branches)
            if unit is None:
                return False, None
            halves = self.bounded(branches.split(unit), BRANCHING_STEPS)
            if not rest.fit_beside(halves):
                return False, None
            waiting = rest + halves
        self.bound = self.refuted
        return True, None

    @cached_property
    def unstable(self) -> Tensor:
        """The positions of the unstable units among all values before a ReLU."""
        ends = [self.bounds.after[name] for name in self.before]
        return torch.cat([((end.lower < 0) & (end.upper > 0)).flatten() for end in ends]).nonzero()[:, 0]

    @cached_property
    def size(self) -> float:
        """The largest absolute value of the excess within its bounds: its natural unit."""
        box = self.bounds.after[self.excess.network.output.name]
        return float(largest_absolute(box).flatten()[self.row]) or 1.0

    @cached_property
    def multiplier_units(self) -> Tensor:
        """The units of the multipliers, ``(units,)``: the size of the excess over that of the unit's value, 1 if that is ordinary."""
        sizes = torch.cat([largest_absolute(self.bounds.after[name]).flatten() for name in self.before])[self.unstable]
        ratio = self.size / sizes
        return torch.where((ratio < ORDINARY_RATIO_MIN) | (ratio > ORDINARY_RATIO_MAX), ratio, 1.0)

    @cached_property
    def places(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Per node that a ReLU reads: the numbers of its unstable units, and their positions in its flat value."""
        found, first = {}, 0
        for name in self.before:
            count = size(self.excess.network.shape_of(name))
            units = ((self.unstable >= first) & (self.unstable < first + count)).nonzero()[:, 0]
            found[name], first = (units, self.unstable[units] - first), first + count
        return found

    @cached_property
    def before(self) -> tuple[str, ...]:
        """The nodes that ReLUs read."""
        return tuple(dict.fromkeys(node.inputs[0] for node in self.excess.network.nodes if isinstance(node.layer, ReLU)))

    def bounded(self, branches: Branches, steps: int) -> Branches:
        """Tighten the bounds of branches by gradient steps, at least by one, and return the branches that are not refuted."""
        self.branches += len(branches)
        slopes, multipliers = (each.clone().requires_grad_() for each in (branches.slopes, branches.multipliers))
        adam = ProjectedAdam(
            [AdamVariable(slopes, SLOPE_RATE, 1.0), AdamVariable(multipliers, MULTIPLIER_RATE, torch.inf)], BRANCHING_RATE_DECAY
        )
        best, known = branches, self.signed(branches.signs)
        with torch.enable_grad():
            for _ in range(steps):
                found, coefficients = self.lower_bounds(known, slopes, multipliers)
                better = found.detach() > best.bound
                best = Branches(
                    branches.signs,
                    torch.where(better[:, None], slopes.detach(), best.slopes),
                    torch.where(better[:, None], multipliers.detach(), best.multipliers),
                    torch.maximum(found.detach(), best.bound),
                )
                if bool((best.bound > 0).all()) or self.deadline.passed or not found.requires_grad:
                    break
                # only the branches that are not refuted yet are optimised further
                wanted = (slopes, multipliers)
                loss = -found[best.bound <= 0].sum() / self.size
                adam.step(torch.autograd.grad(loss, wanted))
        region, falls = self.bounds.region, (coefficients.detach() > 0).numpy()
        left = best.bound <= 0
        self.refuted = min(self.refuted, float(best.bound[~left].min())) if bool((~left).any()) else self.refuted
        corners = torch.tensor(region.lower).where(torch.tensor(falls), torch.tensor(region.upper))
        self.corners = region.nearest(corners[left].numpy())
        return best[left]

    def lower_bounds(
        self, signed: SignedBounds, slopes: Tensor, multipliers: Tensor, seen: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return a lower bound of the excess per branch for these slopes and multipliers, and the coefficients of the input in it."""
        network, signs = self.excess.network, signed.signs
        choices, added = {}, {}
        for name, (units, at) in self.places.items():
            shape = (len(signs), *network.shape_of(name))
            blank = slopes.new_zeros(len(signs), size(network.shape_of(name)))
            factors = self.multiplier_units[units] * signs[:, units]
            added[name] = blank.index_copy(1, at, -multipliers[:, units] * factors).reshape(shape)
            for reader in network.consumers[name]:
                if isinstance(reader.layer, ReLU):
                    choices[reader.name] = blank.index_copy(1, at, slopes[:, units]).reshape(shape)
        rows = CrownRows(network.output, torch.arange(len(signs)), torch.full((len(signs),), self.row), torch.ones(len(signs)).double())
        return backward_pass(signed.known, rows, self.bounds.after[network.output.name], choices, added, seen)

    def signed(self, signs: Tensor) -> SignedBounds:
        """Return the bounds with the signs of some branches."""
        after, region = dict(self.bounds.after), self.bounds.region
        for name, (units, at) in self.places.items():
            box, shape = self.bounds.after[name], (len(signs), *self.excess.network.shape_of(name))
            low, high = (end.flatten(1).repeat(len(signs), 1) for end in (box.lower, box.upper))
            low[:, at] = torch.where(signs[:, units] > 0, 0.0, low[:, at])
            high[:, at] = torch.where(signs[:, units] < 0, 0.0, high[:, at])
            after[name] = Interval(low.reshape(shape), high.reshape(shape))
        return SignedBounds(signs, KnownBounds(self.excess.network, frozenset(), after, ball=region.ball, polytope=region.polytope))

    def choose(self, branches: Branches) -> Tensor | None:
        """Return, per branch, the number of the unstable unit whose split raises the bound most, among the units with the highest cost.

        Returns None if the time ends before all of these units are tried.
        """
        with torch.no_grad():
            seen: dict[str, Tensor] = {}
            self.lower_bounds(self.signed(branches.signs), branches.slopes, branches.multipliers, seen)
            cost = self.cost(seen, branches)
            counts = (UNITS_TRIED_UPPER, UNITS_TRIED_LOWER)
            tried = torch.cat([each.topk(min(count, cost.shape[-1]), 1).indices for each, count in zip(cost, counts, strict=True)], 1)
            worth = []
            for unit in tried.T:
                if self.deadline.passed:
                    return None
                halves = branches.split(unit)
                found = self.lower_bounds(self.signed(halves.signs), halves.slopes, halves.multipliers)[0].reshape(2, -1)
                free = branches.signs.gather(1, unit[:, None])[:, 0] == 0
                lowest, sums = found.clamp(max=1e-6 * self.size).amin(0), found.clamp(max=self.size).sum(0)
                worth.append(torch.where(free, lowest + 1e-3 * sums, -torch.inf))
            return tried.gather(1, torch.stack(worth).argmax(0)[:, None])[:, 0]

    def cost(self, seen: dict[str, Tensor], branches: Branches) -> Tensor:
        """Return the cost of the upper and of the lower line per unstable unit, ``(2, n, units)``: coefficient times gap to the ReLU."""
        found = []
        for name in self.before:
            box = self.bounds.after[name]
            total = torch.zeros(len(branches), box.lower[0].numel(), dtype=torch.float64)
            for reader in self.excess.network.consumers[name]:  # one that does not reach the row is not among those seen
                total = total + seen[reader.name].flatten(1) if reader.name in seen else total
            low, high = box.lower.flatten(1).clamp(max=0), box.upper.flatten(1).clamp(min=0)
            height = torch.where(high > low, -low * high / (high - low), 0.0)
            found.append(torch.stack([-total.clamp(max=0) * height, total.clamp(min=0) * torch.minimum(-low, high)]))
        cost = torch.cat(found, 2)[..., self.unstable]
        return torch.where(branches.signs == 0, cost, -1.0)
