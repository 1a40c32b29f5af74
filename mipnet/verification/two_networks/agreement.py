"""Agree: by how much can the outputs of two networks differ over a box, and can they name different classes?

The proof that a pruned or compressed network may take the place of the original.  Both networks are one network on a shared input, in
which equal units are there once (`mipnet.verification.two_networks.joint`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from mipnet.arrays import Array
from mipnet.backend import Backend
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.errors import InputError, suggest_keywords
from mipnet.network.graph import Network, size
from mipnet.network.properties import Case, Clause, Property
from mipnet.network.sets import Box
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.minimum import Minimising, MinimumSettings, Rows
from mipnet.verification.oracle import Oracle
from mipnet.verification.pipeline import verify
from mipnet.verification.reach import check_numbers, one_box
from mipnet.verification.two_networks.joint import Joined, check_shapes, side_by_side

NEAR = 1e3
"""With this in place of `mipnet.verification.two_networks.joint.SAME`, every unit is compared with the one that it is nearest to."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """Whether two networks agree: True if proven, False with a ``point`` at which they do not, None if neither was found in time.

    ``largest`` is the largest difference of an output that was found, at ``point``, and ``bound`` a certified one: nowhere in the box
    is the difference larger.  ``method`` is where the bound, or the proof that classes agree, is from; ``near`` is a bound on how
    far each unit is from the nearest one of the other network.  ``first`` and ``second`` are the outputs at the point.  ``shared``
    counts the units of the second network that are the first's.
    """

    agree: bool | None
    question: str
    largest: float
    bound: float
    point: Array | None
    first: Array | None
    second: Array | None
    method: str | None
    shared: int
    seconds: float
    parts: int
    nodes: int
    backend: str
    interrupted: bool


@suggest_keywords
def agree(
    first: Network,
    second: Network,
    region: Box,
    *,
    within: float | None = None,
    backend: str | Backend | MipSettings = "highs",
    time_limit: float = 60.0,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Agreement:
    """The largest ``|first(x) - second(x)|`` of any output over a box, certified from above, with the input at which most was found.

    Parameters
    ----------
    within
        A difference up to this is agreement: it ends with a proof that there is none larger, or with an input where there is.  If
        left out the largest difference is looked for, and ``agree`` is about ``tolerance``.
    tolerance
        As that of `mipnet.reach`.
    backend, time_limit, seed
        As those of `mipnet.reach`.
    """
    check_shapes(first, second)
    region = one_box(first, region)
    check_numbers(time_limit, tolerance)
    if within is not None and not within > 0:
        raise InputError(f"`within` is {within}; expected a number above 0")
    settings = MinimumSettings(MipSettings.of(backend), time.monotonic() + time_limit, tolerance, seed=seed)
    return compare_outputs(first, second, region, within, settings)


def compare_outputs(
    first: Network, second: Network, region: Box, within: float | None, settings: MinimumSettings, known: Bounds | None = None
) -> Agreement:
    """Return what `agree` returns; ``known`` are bounds of the first network's nodes over the box, alpha-CROWN's if None."""
    began = time.monotonic()
    bounds = known or propagate(first, region, method="alpha"), propagate(second, region, method="alpha")
    joined = side_by_side(first, second, region, bounds=bounds)
    count, slack = size(first.output_shape), float(joined.slack.max())
    target = None if within is None else slack - within
    settings = replace(settings, target=target)
    matrix = np.concatenate([np.eye(count), -np.eye(count)])
    rows = Rows(matrix, np.zeros(2 * count), np.zeros(2 * count, dtype=np.int64))
    found = Minimising(joined.network, rows, region, settings, joined.given)
    found.improve("near", np.arange(2 * count), np.full(2 * count, slack - _near(first, second, region, bounds)))
    (end,) = found.run()
    x = end.point[None]
    y = [each.forward(x).reshape(-1) for each in (first, second)]
    largest, bound, method = float(np.abs(y[0] - y[1]).max()), slack - end.bound, end.method
    limit = settings.tolerance if within is None else within
    agreed = True if bound <= limit else False if largest > limit else None
    seconds = time.monotonic() - began
    return Agreement(
        agreed,
        "difference",
        largest,
        max(bound, largest),
        end.point,
        y[0],
        y[1],
        method,
        joined.shared,
        seconds,
        found.parts,
        found.nodes,
        settings.mip.solver.name,
        found.interrupted,
    )


def _near(first: Network, second: Network, region: Box, bounds: tuple[Bounds, Bounds]) -> float:
    """A bound on the difference that pairs each unit of the second network with the nearest one of the first: good if they are close."""
    joined = side_by_side(first, second, region, bounds=bounds, same=NEAR)
    box = propagate(joined.network, region, given=joined.given).after[joined.network.output.name]
    return float((np.maximum(-box.lower.numpy(), box.upper.numpy())[0] + joined.slack).max())


@suggest_keywords
def agree_on_class(
    first: Network,
    second: Network,
    region: Box,
    *,
    margin: float = 1e-6,
    backend: str | Backend | MipSettings = "highs",
    time_limit: float = 60.0,
    seed: int = 0,
) -> Agreement:
    """Whether no input of a box gets different classes, where both networks' best outputs lead by ``margin`` at least.

    Without a margin a tie of two classes would be a disagreement, of a network with itself too.  For each pair of classes that may be
    first in the one and in the other network, `mipnet.verify` is asked for an input; arguments are its own.
    """
    check_shapes(first, second)
    region = one_box(first, region)
    check_numbers(time_limit, margin)
    began, count = time.monotonic(), size(first.output_shape)
    if count < 2:
        raise InputError("the networks return one number; classes need at least two: ask for the difference")
    bounds = propagate(first, region, method="alpha"), propagate(second, region, method="alpha")
    joined = side_by_side(first, second, region, "both", bounds=bounds)
    clauses = _clauses(joined, region, count, margin)
    flat = region.reshape((1, region.lower.size))

    def run(x: Array) -> Array:
        return np.concatenate([each.forward(x).reshape(len(x), -1) for each in (first, second)], axis=1)

    verdict = verify(
        joined.network,
        Property((Case(flat, tuple(clauses)),)),
        time_limit=max(0.01, time_limit - (time.monotonic() - began)),
        backend=backend,
        oracle=Oracle("torch", run),
        seed=seed,
    )
    x = verdict.counterexample
    y = None if x is None else run(x[None])[0]
    differ = y is not None and int(y[:count].argmax()) != int(y[count:].argmax())
    return Agreement(
        False if differ else True if verdict.status == "unsat" else None,
        "class",
        0.0 if y is None else float(np.abs(y[:count] - y[count:]).max()),
        np.inf,
        x,
        None if y is None else y[:count],
        None if y is None else y[count:],
        verdict.stage if clauses else "crown",
        joined.shared,
        time.monotonic() - began,
        verdict.parts,
        verdict.nodes,
        verdict.backend,
        verdict.interrupted,
    )


def _clauses(joined: Joined, region: Box, count: int, margin: float) -> list[Clause]:
    """For each pair of classes that may be first: by how much each leads in its network, as far as bounds do not settle it.

    The sum of the two rows that compare the pair is one more, for it is about the difference of the networks, which is small.
    """
    a, b = (each[~np.eye(count, dtype=bool)] for each in np.indices((count, count)))  # all ordered pairs: a - b is asked
    lead = np.zeros((2, len(a), 2 * count))
    for side in (0, 1):
        lead[side, np.arange(len(a)), side * count + a] = 1.0
        lead[side, np.arange(len(a)), side * count + b] = -1.0
    excess = Excess.of(joined.network, [Clause(row[None], np.zeros(1)) for row in lead.reshape(-1, 2 * count)])
    box = propagate(excess.network, region, method="crown", given=joined.given).after[excess.network.output.name]
    low, high = (end[0].numpy().reshape(2, -1) for end in (box.lower, box.upper))
    extra = np.stack([np.zeros(len(a)), joined.slack[a] + joined.slack[b]])
    never = high + extra < margin  # a does not lead b anywhere
    always = low - extra >= margin
    tops = [[k for k in range(count) if not never[side, a == k].any()] for side in (0, 1)]
    clauses = []
    for top in tops[0]:
        for other in tops[1]:
            if top == other:
                continue
            keep = ((a == top) & ~always[0], (a == other) & ~always[1])
            pair = (lead[0, (a == top) & (b == other)], lead[1, (a == other) & (b == top)])
            shift = [extra[side, keep[side]] - margin for side in (0, 1)]
            both = extra[1, (a == other) & (b == top)] - 2 * margin
            matrix = np.concatenate([-lead[0, keep[0]], -lead[1, keep[1]], -pair[0] - pair[1]])
            clauses.append(Clause(matrix, np.concatenate([*shift, both])))
    return clauses
