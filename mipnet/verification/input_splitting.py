"""Branch and bound over the input: boxes are halved until linear bounds decide each part, many boxes at once.

Made for few inputs (ACAS Xu has five), where it needs no solver.  A box is halved along the input whose range does most to the bound.
Wang et al., "Formal Security Analysis of Neural Networks using Symbolic Intervals" (USENIX Security 2018), section 4.2; the bounds are
those of `mipnet.bounds.crown`, and a half begins with what is known of the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import Known, Rows, crown, walk
from mipnet.bounds.interval import Interval
from mipnet.bounds.propagation import Question, sweep
from mipnet.network.graph import Node
from mipnet.network.sets import Ball, Box
from mipnet.verification.clause_network import Excess

BATCH = 256
"""So many boxes are bounded together."""

STEPS = 0.3, 0.2, 0.1, 0.1, 0.05, 0.05
"""Steps of the search inside of each part, relative to its width."""

THINNEST = 1e-9
"""A box is not halved along an input whose range is shorter than this, relative to that of the whole set."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Boxes of shape ``(n, *input_shape)``, what is known of each of the network's nodes there, and the ``least`` excess of any clause.

    ``reach`` is each input's width times the square root of its coefficients in the linear bounds: the plain ones starve an input whose
    effects cancel in the output but leave units undecided (an ACAS Xu box that takes 91 parts was not done after 14,000 then).
    """

    box: Interval
    known: Mapping[str, Interval]
    least: Tensor
    reach: Tensor

    def __len__(self) -> int:
        return len(self.least)

    def __getitem__(self, which: Tensor | slice) -> Parts:
        """The boxes of these numbers."""
        return Parts(self.box[which], {name: box[which] for name, box in self.known.items()}, self.least[which], self.reach[which])

    def __add__(self, other: Parts) -> Parts:
        known = {name: joined(self.known[name], other.known[name]) for name in self.known}
        return Parts(joined(self.box, other.box), known, torch.cat([self.least, other.least]), torch.cat([self.reach, other.reach]))

    def halved(self, along: Tensor) -> Parts:
        """Both halves of every box along one of its (flat) inputs, side by side."""
        rows = torch.arange(len(self))
        lower, upper = (end.flatten(1) for end in (self.box.lower, self.box.upper))
        middle = (lower[rows, along] + upper[rows, along]) / 2
        below, above = upper.clone(), lower.clone()
        below[rows, along] = above[rows, along] = middle
        shape, twice = self.box.lower.shape[1:], rows.repeat_interleave(2)
        ends = (torch.stack(pair, 1).reshape(-1, *shape) for pair in ((lower, above), (below, upper)))
        whole = self[twice]
        return Parts(Interval(*ends), whole.known, whole.least, whole.reach)


def joined(first: Interval, second: Interval) -> Interval:
    """The samples of both."""
    return Interval(torch.cat([first.lower, second.lower]), torch.cat([first.upper, second.upper]))


@dataclass(eq=False)
class Splitting:
    """Which boxes are undecided, and how many were looked at.

    ``margin`` is what a bound has to exceed.  ``confirm`` is called with candidates, and returns the one that is a counterexample, or
    None.  ``least`` is the least bound that refuted a part, and ``corners`` are where the lowest linear bounds of the last boxes are least.
    """

    excess: Excess
    region: Box
    margin: float
    confirm: Callable[[Array], Array | None]
    corners: Array = field(init=False)
    boxes: int = 0
    least: float = torch.inf

    def run(self, end: float) -> tuple[bool, Array | None]:
        """True if every part was decided and none holds a counterexample; the counterexample, if one was found."""
        whole = Interval(torch.tensor(self.region.lower[:1]), torch.tensor(self.region.upper[:1]))
        undecided = Parts(whole, {}, torch.full((1,), -torch.inf, dtype=torch.float64), whole.width)
        while len(undecided):
            if time.monotonic() >= end:
                return False, None
            rest, parts = undecided[:-BATCH], self.bounded(undecided[-BATCH:])
            refuted = parts.least > self.margin
            self.least = min(self.least, float(parts.least[refuted].min())) if refuted.any() else self.least
            parts = parts[~refuted]
            if not len(parts):
                undecided = rest
                continue
            parts = parts[parts.least.argsort(descending=True)]
            found = self.confirm(self.points(parts))
            if found is not None:
                return False, found
            reach = torch.where(parts.box.width > THINNEST * whole.width, parts.reach, -1.0).flatten(1)
            if (reach.amax(1) < 0).any():
                return False, None
            halves = parts.halved(reach.argmax(1))
            undecided = rest + halves if len(rest) else halves
        return True, None

    def bounded(self, parts: Parts) -> Parts:
        """The same boxes with better bounds, the least that the largest excess of some clause can be, and what each input does to it."""
        self.boxes += len(parts)
        network, box = self.excess.network, Box(parts.box.lower.numpy(), parts.box.upper.numpy(), self.ball(len(parts)))
        start = Bounds(network, box, {**{node.name: Interval(-INFINITE, INFINITE) for node in network.nodes}, **parts.known})
        found = sweep(Question(network, box, start=start), [self.inside], "crown")
        read = {node.inputs[0] for node in network.nodes if node.layer.activation}
        least, slopes = self.rows(Known(network, frozenset(), dict(found.after), ball=box.ball), len(parts))
        lowest = slopes.take_along_dim(least.argmin(1).reshape(-1, 1, *[1] * (slopes.ndim - 2)), 1)[:, 0]
        self.corners = torch.where(lowest > 0, parts.box.lower, parts.box.upper).numpy()
        least = torch.maximum(self.excess.largest(least).amin(1), parts.least)
        if box.ball is not None:  # a box without a point of the ball
            least[box.ball.distance(box.ball.centre.clip(box.lower, box.upper)) > box.ball.radius * (1 + 1e-9)] = torch.inf
        reach = slopes.abs().sum(1).sqrt() * parts.box.width
        return Parts(parts.box, {name: found.after[name] for name in sorted(read)}, least, reach)

    def ball(self, parts: int) -> Ball | None:
        """The ball of the set, once for each part."""
        ball = self.region.ball
        return None if ball is None else replace(ball, centre=ball.centre.repeat(parts, axis=0))

    def inside(self, known: Known, node: Node, box: Interval, wanted: Tensor) -> Interval:
        """CROWN for all nodes but the output, of which one end alone is of use."""
        return box if node is known.network.output else crown(known, node, box, wanted)

    def rows(self, known: Known, samples: int) -> tuple[Tensor, Tensor]:
        """The least value of every row's excess, ``(n, rows)``, and the coefficients of the input in it, ``(n, rows, *input_shape)``."""
        output, count = known.network.output, len(self.excess.owner)
        sample, element = torch.arange(samples).repeat_interleave(count), torch.arange(count).repeat(samples)
        with torch.no_grad():
            asked = Rows(output, sample, element, torch.ones(len(sample), dtype=torch.float64))
            found, slopes = walk(known, asked, known.after[output.name])
        return found.reshape(samples, count), slopes.reshape(samples, count, *slopes.shape[1:])

    def points(self, parts: Parts) -> Array:
        """Points of the parts at which a clause holds: their centres, after a few steps down the excess."""
        x = parts.box.centre
        for step in STEPS:
            x.requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(self.excess(x).amin(1).sum(), x)
            x = torch.minimum(torch.maximum(x.detach() - step * slope.sign() * parts.box.width, parts.box.lower), parts.box.upper)
        with torch.no_grad():
            holds = self.excess(x).amin(1) <= 0
        return self.region.nearest(x[holds].numpy())


INFINITE = torch.tensor(torch.inf, dtype=torch.float64)


HELD = 200_000
"""As many boxes are kept at most."""


def narrow(excess: Excess, region: Box, level: Callable[[], float], learn: Callable[[Array], None], end: float) -> tuple[float, int]:
    """A bound below the least excess of any clause, and how many boxes were looked at.

    Boxes whose bound is above ``level()`` are done with.  ``learn`` is called with inputs of every box, and may lower the level.
    """
    splitting = Splitting(excess, region, 0.0, lambda x: None)
    whole = Interval(torch.tensor(region.lower[:1]), torch.tensor(region.upper[:1]))
    waiting, done = Parts(whole, {}, torch.full((1,), -torch.inf, dtype=torch.float64), whole.width), torch.inf
    while len(waiting) and time.monotonic() < end and len(waiting) < HELD:
        order = waiting.least.argsort()
        rest, parts = waiting[order[BATCH:]], splitting.bounded(waiting[order[:BATCH]])
        learn(np.concatenate([parts.box.centre.numpy(), splitting.corners]))
        reach = torch.where(parts.box.width > THINNEST * whole.width, parts.reach, -1.0).flatten(1)
        over = (parts.least >= level()) | (reach.amax(1) < 0)
        done = min(done, float(parts.least[over].min())) if over.any() else done
        halves = parts[~over].halved(reach[~over].argmax(1))
        waiting = rest + halves if len(rest) else halves
    return min([done, *waiting.least.tolist()]), splitting.boxes
