"""The question whether two networks name different classes: one clause for each pair of classes that their bounds leave."""

from __future__ import annotations

import numpy as np

from mipnet.arrays import Array, Ints, Mask
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import CROWN_ROUNDING_RELATIVE
from mipnet.bounds.propagation import propagate
from mipnet.limits.deadline import Deadline
from mipnet.limits.memory import check_memory, count_in_memory
from mipnet.network.properties import Clause
from mipnet.network.sets import Box
from mipnet.verification.clause_network import Excess
from mipnet.verification.two_networks.joint_network import JointNetwork

COEFFICIENT_BYTES = 8

COPIES_OF_CLAUSES = 3
"""How often the coefficients of the clauses are held at the same time: in the clauses, and in the network that returns their excess."""

COPIES_OF_DIFFERENCES = 6
"""How often the coefficients of differences are held while their bounds are computed."""


DIFFERENCE_COEFFICIENTS_AT_ONCE = 2**24
"""The number of coefficients of differences that are bounded between two looks at the clock."""


def class_clauses(joined: JointNetwork, region: Box, bounds: tuple[Bounds, Bounds], margin: Array, deadline: Deadline) -> list[Clause]:
    """Return one clause per pair of classes that may be the largest in the first and in the second network.

    Its rows say that each class exceeds all others in its network by the ``margin`` of that network, ``(2,)``; rows that the bounds settle
    are left out.  One more row is the sum of the two rows that compare the pair: it bounds the difference of the networks, which is small.
    Raises `MemoryLimitReached` if the rows would not fit into memory, and `TimeLimitReached`.
    """
    possible = [possible_classes(each, least) for each, least in zip(bounds, margin, strict=True)]
    count = len(possible[0])
    a, b = (each[~np.eye(count, dtype=bool)] for each in np.indices((count, count)))  # all ordered pairs; the function is y_a - y_b
    low, high = _bounds_of_differences(joined, region, (a, b), possible, deadline)
    extra = np.stack([np.zeros(len(a)), joined.slack[a] + joined.slack[b]])
    never = high + extra < margin[:, None]  # y_a does not exceed y_b by the margin anywhere
    always = low - extra >= margin[:, None]
    tops = [np.flatnonzero(~never[side].reshape(count, -1).any(axis=1)) for side in (0, 1)]
    rows = [(~always[side]).reshape(count, -1).sum(axis=1)[tops[side]] for side in (0, 1)]
    pairs = len(tops[0]) * len(tops[1])
    coefficients = 2 * count * (int(rows[0].sum()) * len(tops[1]) + int(rows[1].sum()) * len(tops[0]) + pairs)
    what, remedy = (
        f"the question for {pairs:,} pairs of {count:,} classes",
        "give a smaller input set, over which fewer classes can be named",
    )
    check_memory(what, float(COEFFICIENT_BYTES * COPIES_OF_CLAUSES * coefficients), remedy)
    clauses = []
    for top in tops[0]:
        for other in tops[1]:
            if top == other:
                continue
            deadline.check("write the question for every pair of classes")
            keep = ((a == top) & ~always[0], (a == other) & ~always[1])
            kept = [_rows(count, np.full(keep[side].sum(), side), a[keep[side]], b[keep[side]]) for side in (0, 1)]
            pair = _rows(count, np.array([0, 1]), np.array([top, other]), np.array([other, top])).sum(axis=0, keepdims=True)
            shift = [extra[side, keep[side]] - margin[side] for side in (0, 1)]
            both = extra[1, (a == other) & (b == top)] - margin.sum()
            clauses.append(Clause(np.concatenate([-kept[0], -kept[1], -pair]), np.concatenate([*shift, both])))
    return clauses


def possible_classes(bounds: Bounds, margin: float) -> Mask:
    """Return which classes the bounds of a network allow to exceed all others by the margin."""
    box = bounds.after[bounds.network.output.name]
    lower, upper = (end.numpy().reshape(-1) for end in (box.lower, box.upper))
    rounding = CROWN_ROUNDING_RELATIVE * max(np.abs(lower).max(), np.abs(upper).max())
    others = np.where(np.arange(len(lower)) == lower.argmax(), np.partition(lower, -2)[-2], lower.max())
    return np.asarray(upper + rounding >= others + margin)


def _rows(count: int, side: Ints, a: Ints, b: Ints) -> Array:
    """Return the rows of ``y_a - y_b`` of the networks number ``side``, on the outputs of both."""
    rows = np.zeros((len(a), 2 * count))
    rows[np.arange(len(a)), side * count + a] = 1.0
    rows[np.arange(len(a)), side * count + b] = -1.0
    return rows


def _bounds_of_differences(
    joined: JointNetwork, region: Box, pairs: tuple[Ints, Ints], possible: list[Mask], deadline: Deadline
) -> tuple[Array, Array]:
    """Return bounds of ``y_a - y_b`` of each network for all pairs, each ``(2, pairs)``; -inf where a is no possible class.

    As many pairs are bounded at once as fit into memory, at most `DIFFERENCE_COEFFICIENTS_AT_ONCE` coefficients.
    """
    a, b = pairs
    low, high = np.full((2, len(a)), -np.inf), np.full((2, len(a)), -np.inf)
    side, pair = np.nonzero(np.stack([possible[0][a], possible[1][a]]))
    count = len(possible[0])
    most = max(1, min(len(side), DIFFERENCE_COEFFICIENTS_AT_ONCE // (2 * count)))
    at_once = count_in_memory(2 * count * COEFFICIENT_BYTES * COPIES_OF_DIFFERENCES, most)
    for first in range(0, len(side), at_once):
        deadline.check("bound the differences of every pair of classes")
        sides, part = side[first : first + at_once], pair[first : first + at_once]
        rows = Clause(_rows(count, sides, a[part], b[part]), np.zeros(len(part)))
        excess = Excess.of(joined.network, [rows])
        known = propagate(excess.network, region, method="crown", given=joined.given, time_limit=deadline)
        box = known.after[excess.network.output.name]
        low[sides, part], high[sides, part] = box.lower[0].numpy(), box.upper[0].numpy()
    return low, high
