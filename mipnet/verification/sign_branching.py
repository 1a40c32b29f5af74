"""Branch and bound over the signs of ReLUs: linear bounds with Lagrange multipliers for the signs, many parts at once.

Wang et al., "Beta-CROWN: Efficient Bound Propagation with Per-neuron Split Constraints" (NeurIPS 2021), section 3: where s z >= 0
is known of a unit, ``f >= f - beta s z`` for every beta >= 0, and the multipliers are optimised along with the slopes
(`mipnet.bounds.alpha_crown`).  Bounds before activations are those of the whole set, with the signs.  The unit to split is picked among
those that the linear bounds pay most for, by trying each (De Palma et al., "Improved Branch and Bound for Neural Network Verification via
Lagrangian Decomposition", 2021, section 5).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import Known, Rows, walk
from mipnet.bounds.interval import Interval
from mipnet.formulations.registry import is_affine
from mipnet.layers.activations import ReLU
from mipnet.network.graph import Network, size
from mipnet.verification.clause_network import Excess

BATCH = 64
"""So many parts are bounded together."""

STEPS, SLOPE_RATE, MULTIPLIER_RATE, DECAY = 12, 0.2, 0.05, 0.95
"""Gradient steps a part, their sizes, and what becomes of these from step to step."""

TRIED = 2, 2
"""So many units are tried before one is split, of those whose upper line costs most and of those whose lower line does."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts of the input set by the signs of undecided units: 1, -1, or 0 where both are possible, ``(n, units)``.

    ``slopes`` and ``multipliers`` are the best found so far, ``(n, units)``, and ``least`` is the bound that they give, ``(n,)``.
    """

    signs: Tensor
    slopes: Tensor
    multipliers: Tensor
    least: Tensor

    def __len__(self) -> int:
        return len(self.least)

    def __getitem__(self, which: Tensor | slice) -> Parts:
        """The parts of these numbers."""
        return Parts(*(getattr(self, each.name)[which] for each in fields(self)))

    def __add__(self, other: Parts) -> Parts:
        return Parts(*(torch.cat([getattr(self, each.name), getattr(other, each.name)]) for each in fields(self)))

    def split(self, unit: Tensor) -> Parts:
        """Both signs of one undecided unit of each part: first all with sign 1, then all with -1."""
        rows, both = torch.arange(len(self)), self[torch.arange(len(self)).repeat(2)]
        signs, multipliers = both.signs.clone(), both.multipliers.clone()
        signs[rows, unit], signs[rows + len(self), unit] = 1, -1
        multipliers[torch.arange(2 * len(self)), unit.repeat(2)] = 0.0
        return Parts(signs, both.slopes, multipliers, both.least)


@dataclass(frozen=True, eq=False)
class Signed:
    """The signs of some parts, and the boxes of all nodes with them."""

    signs: Tensor
    boxes: Known


@dataclass(eq=False)
class Branching:
    """One row of a property, over the set of some bounds: is its excess above ``margin`` everywhere?

    ``confirm`` is called with inputs that minimise a linear bound, and returns the one that is a counterexample, or None.
    """

    excess: Excess
    bounds: Bounds
    row: int
    margin: float
    confirm: Callable[[Array], Array | None]
    parts: int = 0
    least: float = -torch.inf
    refuted: float = torch.inf

    @staticmethod
    def knows(network: Network) -> bool:
        """True if every activation is a ReLU, and no layer is nonlinear but for that."""
        return all(isinstance(node.layer, ReLU) or is_affine(node.layer) for node in network.nodes)

    def run(self, end: float) -> tuple[bool, Array | None]:
        """True if every part was decided and none holds a counterexample; the counterexample, if one was found."""
        count = len(self.where)
        if not count:
            return False, None
        whole = Parts(
            torch.zeros(1, count), torch.full((1, count), 0.5).double(), torch.zeros(1, count).double(), torch.full((1,), -torch.inf)
        )
        waiting = self.bounded(whole, end, STEPS * 2)
        while len(waiting):
            self.least = float(waiting.least.min())
            if time.monotonic() >= end:
                return False, None
            order = waiting.least.argsort()
            parts, rest = waiting[order[:BATCH]], waiting[order[BATCH:]]
            if (parts.signs != 0).all(1).any():
                return False, None
            found = self.confirm(self.corners)
            if found is not None:
                return False, found
            waiting = rest + self.bounded(parts.split(self.choose(parts)), end, STEPS)
        self.least = self.refuted
        return True, None

    @cached_property
    def where(self) -> Tensor:
        """The undecided units, by their place among all values before a ReLU."""
        ends = [self.bounds.after[name] for name in self.before]
        return torch.cat([((end.lower < 0) & (end.upper > 0)).flatten() for end in ends]).nonzero()[:, 0]

    @cached_property
    def places(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each of the nodes that ReLUs read: the numbers of its undecided units, and where these stand in its value."""
        found, first = {}, 0
        for name in self.before:
            count = size(self.excess.network.shape_of(name))
            mine = ((self.where >= first) & (self.where < first + count)).nonzero()[:, 0]
            found[name], first = (mine, self.where[mine] - first), first + count
        return found

    @cached_property
    def before(self) -> tuple[str, ...]:
        """The nodes whose values ReLUs read."""
        return tuple(dict.fromkeys(node.inputs[0] for node in self.excess.network.nodes if isinstance(node.layer, ReLU)))

    def bounded(self, parts: Parts, end: float, steps: int) -> Parts:
        """The parts whose row may still be kept, with bounds made tighter by gradient steps."""
        self.parts += len(parts)
        slopes, multipliers = (each.clone().requires_grad_() for each in (parts.slopes, parts.multipliers))
        adam = torch.optim.Adam([{"params": [slopes], "lr": SLOPE_RATE}, {"params": [multipliers], "lr": MULTIPLIER_RATE}])
        best, known = parts, self.signed(parts.signs)
        with torch.enable_grad():
            for _ in range(steps):
                least, coefficients = self.walk(known, slopes, multipliers)
                better = least.detach() > best.least
                best = Parts(
                    parts.signs,
                    torch.where(better[:, None], slopes.detach(), best.slopes),
                    torch.where(better[:, None], multipliers.detach(), best.multipliers),
                    torch.maximum(least.detach(), best.least),
                )
                if bool((best.least > self.margin).all()) or time.monotonic() >= end or not least.requires_grad:
                    break
                # parts that are decided are done; the others want more
                wanted = (slopes, multipliers)
                loss = -least[best.least <= self.margin].sum()
                for each, slope in zip(wanted, torch.autograd.grad(loss, wanted), strict=True):
                    each.grad = slope
                adam.step()
                with torch.no_grad():
                    slopes.clamp_(0.0, 1.0)
                    multipliers.clamp_(min=0.0)
                for group in adam.param_groups:
                    group["lr"] *= DECAY
        region, falls = self.bounds.region, (coefficients.detach() > 0).numpy()
        left = best.least <= self.margin
        self.refuted = min(self.refuted, float(best.least[~left].min())) if bool((~left).any()) else self.refuted
        corners = torch.tensor(region.lower).where(torch.tensor(falls), torch.tensor(region.upper))
        self.corners = region.nearest(corners[left].numpy())
        return best[left]

    def walk(self, known: Signed, slopes: Tensor, multipliers: Tensor, seen: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The least excess of each part under these slopes and multipliers, and the coefficients of the input in that bound."""
        network, signs = self.excess.network, known.signs
        choices, added = {}, {}
        for name, (mine, at) in self.places.items():
            shape = (len(signs), *network.shape_of(name))
            blank = slopes.new_zeros(len(signs), size(network.shape_of(name)))
            added[name] = blank.index_copy(1, at, -multipliers[:, mine] * signs[:, mine]).reshape(shape)
            for reader in network.consumers[name]:
                if isinstance(reader.layer, ReLU):
                    choices[reader.name] = blank.index_copy(1, at, slopes[:, mine]).reshape(shape)
        rows = Rows(network.output, torch.arange(len(signs)), torch.full((len(signs),), self.row), torch.ones(len(signs)).double())
        return walk(known.boxes, rows, self.bounds.after[network.output.name], choices, added, seen)

    def signed(self, signs: Tensor) -> Signed:
        """The bounds with the signs of some parts."""
        after = dict(self.bounds.after)
        for name, (mine, at) in self.places.items():
            box, shape = self.bounds.after[name], (len(signs), *self.excess.network.shape_of(name))
            low, high = (end.flatten(1).repeat(len(signs), 1) for end in (box.lower, box.upper))
            low[:, at] = torch.where(signs[:, mine] > 0, 0.0, low[:, at])
            high[:, at] = torch.where(signs[:, mine] < 0, 0.0, high[:, at])
            after[name] = Interval(low.reshape(shape), high.reshape(shape))
        return Signed(signs, Known(self.excess.network, frozenset(), after, ball=self.bounds.region.ball))

    def choose(self, parts: Parts) -> Tensor:
        """The unit of each part whose split helps most, among those that cost the bound most: a number among the undecided units."""
        with torch.no_grad():
            seen: dict[str, Tensor] = {}
            self.walk(self.signed(parts.signs), parts.slopes, parts.multipliers, seen)
            cost = self.cost(seen, parts)
            units = torch.cat([each.topk(min(count, cost.shape[-1]), 1).indices for each, count in zip(cost, TRIED, strict=True)], 1)
            worth = []
            for unit in units.T:
                halves = parts.split(unit)
                found = self.walk(self.signed(halves.signs), halves.slopes, halves.multipliers)[0].reshape(2, -1)
                free = parts.signs.gather(1, unit[:, None])[:, 0] == 0
                worth.append(
                    torch.where(free, found.clamp(max=self.margin + 1e-6).amin(0) + 1e-3 * found.clamp(max=1.0).sum(0), -torch.inf)
                )
            return units.gather(1, torch.stack(worth).argmax(0)[:, None])[:, 0]

    def cost(self, seen: dict[str, Tensor], parts: Parts) -> Tensor:
        """What the upper line and the lower line of each undecided unit may cost the bound, ``(2, n, units)``: coefficient times gap."""
        found = []
        for name in self.before:
            box = self.bounds.after[name]
            total = sum(seen[each.name].flatten(1) for each in self.excess.network.consumers[name] if each.name in seen)
            assert isinstance(total, Tensor)
            low, high = box.lower.flatten(1).clamp(max=0), box.upper.flatten(1).clamp(min=0)
            height = -low * high / (high - low).clamp(min=1e-12)
            found.append(torch.stack([-total.clamp(max=0) * height, total.clamp(min=0) * torch.minimum(-low, high)]))
        cost = torch.cat(found, 2)[..., self.where]
        return torch.where(parts.signs == 0, cost, -1.0)
