"""Branch and bound over the input: boxes are halved until linear bounds decide each of them, many boxes at once.

It is meant for networks with few inputs (ACAS Xu has five) and needs no solver.  A box is halved along the input whose range contributes
most to the bound.  Wang et al., "Formal Security Analysis of Neural Networks using Symbolic Intervals" (USENIX Security 2018), section 4.2;
the bounds are those of `mipnet.bounds.crown`, and each half starts from the bounds of the whole box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import backward_pass, crown, rows_at_once
from mipnet.bounds.crown_rows import CrownRows, KnownBounds
from mipnet.bounds.interval import Interval
from mipnet.bounds.propagation import BoundsQuestion, sweep
from mipnet.errors import TimeLimitReached
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import fits_or_warns
from mipnet.network.graph import Node
from mipnet.network.pass_cost import samples_at_once
from mipnet.network.sets import Ball, Box
from mipnet.verification.clause_network import Excess

SPLITTING_INPUTS_MAX = 10
"""Largest number of inputs of a network whose input set is split."""

BOXES_PER_BATCH = 256
"""Largest number of boxes that are bounded at once."""

PASSES_PER_BOX = 16
"""What it costs to bound a box, in forward passes, if linear bounds are needed for few units; large networks get smaller batches."""

BOX_SEARCH_STEPS = 0.3, 0.2, 0.1, 0.1, 0.05, 0.05
"""Step sizes of the gradient search inside of each box, relative to its width."""

SPLIT_WIDTH_MIN_RELATIVE = 1e-9
"""Smallest range of an input along which a box is halved, relative to the range in the whole set."""

WAITING_BOXES_MAX = 200_000
"""Largest number of boxes that are stored."""

INFINITE_BOUND = torch.tensor(torch.inf, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class SubBoxes:
    """Boxes of shape ``(n, *input_shape)``, the known bounds of nodes over each box, and a lower bound of the excess of every clause.

    ``effect`` is the width of each input times the square root of the sum of its absolute coefficients in the linear bounds.  With the
    coefficients themselves an input is never halved if its effects cancel in the output, although it leaves units unstable: an
    ACAS Xu box that takes 91 boxes was not decided after 14,000.
    """

    box: Interval
    known: Mapping[str, Interval]
    bound: Tensor
    effect: Tensor

    def __len__(self) -> int:
        return len(self.bound)

    @property
    def bytes(self) -> int:
        """The bytes of all tensors."""
        boxes = (self.box, *self.known.values())
        return 8 * (len(self) + self.effect.numel() + sum(2 * each.lower.numel() for each in boxes))

    def fit_beside(self, other: SubBoxes) -> bool:
        """Return True if both may be copied into one; if not, that is added as a warning (`mipnet.limits.result_warnings`)."""
        waiting = f"{len(self) + len(other):,} parts of the input set wait to be halved"
        return fits_or_warns(self.bytes + other.bytes, "the input set was not halved further", waiting)

    def __getitem__(self, which: Tensor | slice) -> SubBoxes:
        """Return the boxes with these numbers."""
        known = {name: box[which] for name, box in self.known.items()}
        return SubBoxes(self.box[which], known, self.bound[which], self.effect[which])

    def __add__(self, other: SubBoxes) -> SubBoxes:
        known = {name: joined(self.known[name], other.known[name]) for name in self.known}
        bound, effect = torch.cat([self.bound, other.bound]), torch.cat([self.effect, other.effect])
        return SubBoxes(joined(self.box, other.box), known, bound, effect)

    def halved(self, along: Tensor) -> SubBoxes:
        """Return both halves of every box along one of its flat inputs; the two halves of a box are neighbours."""
        rows = torch.arange(len(self))
        lower, upper = (end.flatten(1) for end in (self.box.lower, self.box.upper))
        middle = (lower[rows, along] + upper[rows, along]) / 2
        below, above = upper.clone(), lower.clone()
        below[rows, along] = above[rows, along] = middle
        shape, twice = self.box.lower.shape[1:], rows.repeat_interleave(2)
        ends = (torch.stack(pair, 1).reshape(-1, *shape) for pair in ((lower, above), (below, upper)))
        whole = self[twice]
        return SubBoxes(Interval(*ends), whole.known, whole.bound, whole.effect)


def joined(first: Interval, second: Interval) -> Interval:
    """Return the samples of both."""
    return Interval(torch.cat([first.lower, second.lower]), torch.cat([first.upper, second.upper]))


@dataclass(eq=False)
class InputSplitting:
    """Branch and bound over the boxes of an input set, for all clauses together.

    A box is refuted if the bound of every clause exceeds 0.  ``confirm`` is called with candidates; it returns the first of them
    that is a counterexample, or None.  ``boxes`` is the number of boxes bounded so far, ``bound`` the smallest bound of a refuted box, and
    ``corners`` are the inputs at which the smallest linear bounds of the last boxes take their minima.
    """

    excess: Excess
    region: Box
    confirm: Callable[[Array], Array | None]
    deadline: Deadline
    corners: Array = field(init=False)
    boxes: int = 0
    bound: float = torch.inf

    def __post_init__(self) -> None:
        self.at_once = min(BOXES_PER_BATCH, samples_at_once(self.excess.network, PASSES_PER_BOX))

    def run(self) -> tuple[bool, Array | None]:
        """Return whether every box was refuted in time, and the counterexample if one was found."""
        try:
            return self._run()
        except TimeLimitReached:
            return False, None

    def _run(self) -> tuple[bool, Array | None]:
        whole = Interval(torch.tensor(self.region.lower[:1]), torch.tensor(self.region.upper[:1]))
        undecided = SubBoxes(whole, {}, torch.full((1,), -torch.inf, dtype=torch.float64), whole.width)
        while len(undecided):
            if self.deadline.passed:
                return False, None
            rest, boxes = undecided[: -self.at_once], self.bounded(undecided[-self.at_once :])
            refuted = boxes.bound > 0
            self.bound = min(self.bound, float(boxes.bound[refuted].min())) if refuted.any() else self.bound
            boxes = boxes[~refuted]
            if not len(boxes):
                undecided = rest
                continue
            boxes = boxes[boxes.bound.argsort(descending=True)]
            found = self.confirm(self.points(boxes))
            if found is not None:
                return False, found
            effect = effect_of_inputs(boxes, whole)
            if (effect.amax(1) < 0).any():
                return False, None
            halves = boxes.halved(effect.argmax(1))
            if len(rest) and not rest.fit_beside(halves):
                return False, None
            undecided = rest + halves if len(rest) else halves
        return True, None

    def bounded(self, boxes: SubBoxes) -> SubBoxes:
        """Return the same boxes with tighter bounds of nodes and clauses, and with the effect of each input on the bound.

        Raises `TimeLimitReached` if the time ends before there are linear bounds of all rows.
        """
        self.boxes += len(boxes)
        network, polytope = self.excess.network, self.region.polytope
        box = Box(boxes.box.lower.numpy(), boxes.box.upper.numpy(), self.ball(len(boxes)), polytope)
        start = Bounds(network, box, {**{node.name: Interval(-INFINITE_BOUND, INFINITE_BOUND) for node in network.nodes}, **boxes.known})
        found = sweep(BoundsQuestion(network, box, start=start, deadline=self.deadline), [self.refine], "crown")
        read = {node.inputs[0] for node in network.nodes if node.layer.activation}
        known = KnownBounds(network, frozenset(), dict(found.after), ball=box.ball, polytope=polytope)
        lower, slopes = self.row_bounds(known, len(boxes))
        lowest = slopes.take_along_dim(lower.argmin(1).reshape(-1, 1, *[1] * (slopes.ndim - 2)), 1)[:, 0]
        self.corners = torch.where(lowest > 0, boxes.box.lower, boxes.box.upper).numpy()
        bound = torch.maximum(self.excess.largest(lower).amin(1), boxes.bound)
        if box.ball is not None:  # a box without a point of the ball is refuted
            bound[box.ball.distance(box.ball.centre.clip(box.lower, box.upper)) > box.ball.radius * (1 + 1e-9)] = torch.inf
        if polytope is not None:
            bound[polytope.misses(*(end.reshape(len(boxes), -1) for end in (box.lower, box.upper)))] = torch.inf
        effect = slopes.abs().sum(1).sqrt() * boxes.box.width
        return SubBoxes(boxes.box, {name: found.after[name] for name in sorted(read)}, bound, effect)

    def ball(self, count: int) -> Ball | None:
        """Return the ball of the set, repeated for each box."""
        ball = self.region.ball
        return None if ball is None else replace(ball, centre=ball.centre.repeat(count, axis=0))

    def refine(self, known: KnownBounds, node: Node, box: Interval, wanted: Tensor) -> Interval:
        """Apply CROWN to all nodes but the output, of which only the lower bound is needed."""
        return box if node is known.network.output else crown(known, node, box, wanted)

    def row_bounds(self, known: KnownBounds, samples: int) -> tuple[Tensor, Tensor]:
        """Return a lower bound per row of the excess, ``(n, rows)``, and its coefficients of the input, ``(n, rows, *input_shape)``."""
        output, count = known.network.output, len(self.excess.owner)
        sample, element = torch.arange(samples).repeat_interleave(count), torch.arange(count).repeat(samples)
        asked, parts = CrownRows(output, sample, element, torch.ones(len(sample), dtype=torch.float64)), []
        with torch.no_grad():
            for part in asked.split(rows_at_once(known.network, output)):
                self.deadline.check("bound the outputs over a part of the input set")
                parts.append(backward_pass(known, part, known.after[output.name]))
        found, slopes = (torch.cat(each) for each in zip(*parts, strict=True))
        return found.reshape(samples, count), slopes.reshape(samples, count, *slopes.shape[1:])

    def points(self, boxes: SubBoxes) -> Array:
        """Return points of the boxes at which a clause holds: gradient steps from their centres decrease the excess."""
        x = boxes.box.centre
        for step in BOX_SEARCH_STEPS:
            x.requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(self.excess(x).amin(1).sum(), x)
            x = torch.minimum(torch.maximum(x.detach() - step * slope.sign() * boxes.box.width, boxes.box.lower), boxes.box.upper)
        with torch.no_grad():
            holds = self.excess(x).amin(1) <= 0
        return self.region.nearest(x[holds].numpy())


def effect_of_inputs(boxes: SubBoxes, whole: Interval) -> Tensor:
    """Return the effect of each flat input, ``(n, inputs)``; -1 where its range is too small to be halved."""
    return torch.where(boxes.box.width > SPLIT_WIDTH_MIN_RELATIVE * whole.width, boxes.effect, -1.0).flatten(1)


def lower_bound_by_splitting(
    excess: Excess, region: Box, level: Callable[[], float], learn: Callable[[Array], None], deadline: Deadline
) -> tuple[float, int]:
    """Return a lower bound of the smallest excess of any clause, and the number of boxes that were bounded.

    Boxes are halved in the order of their bounds, until the bound is above ``level()`` or the time is over.  The bound is the smallest of
    all boxes, those that still wait to be halved included.  ``learn`` is called with inputs of every box, and may lower the level.
    """
    splitting = InputSplitting(excess, region, lambda x: None, deadline)
    whole = Interval(torch.tensor(region.lower[:1]), torch.tensor(region.upper[:1]))
    waiting, done = SubBoxes(whole, {}, torch.full((1,), -torch.inf, dtype=torch.float64), whole.width), torch.inf
    while len(waiting) and not deadline.passed and len(waiting) < WAITING_BOXES_MAX:
        order = waiting.bound.argsort()
        try:
            boxes = splitting.bounded(waiting[order[: splitting.at_once]])
        except TimeLimitReached:
            break  # these boxes are still among those that wait
        rest = waiting[order[splitting.at_once :]]
        if not rest.fit_beside(boxes):
            break
        learn(np.concatenate([boxes.box.centre.numpy(), splitting.corners]))
        effect = effect_of_inputs(boxes, whole)
        over = (boxes.bound >= level()) | (effect.amax(1) < 0)
        done = min(done, float(boxes.bound[over].min())) if over.any() else done
        halves = boxes[~over].halved(effect[~over].argmax(1))
        waiting = rest + halves if len(rest) else halves
    return min([done, *waiting.bound.tolist()]), splitting.boxes
