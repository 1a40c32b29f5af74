"""Checks of proofs by forward passes: every value that the network takes has to satisfy all bounds and programs.

A proof is only as good as the code and the arithmetic that it rests on.  With a flipped sign, a big-M that is too small or a bound that is
too tight, a network looks safe, and a solver does not notice.  Forward passes notice: they start at random points, at corners, and at
points where gradient steps have moved the values before activations to their extremes, where a wrong bound or big-M excludes most values.
Passing these checks proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.backend import Program
from mipnet.bounds.boxes import Bounds
from mipnet.errors import SolverFailure
from mipnet.model.encoding import Encoding
from mipnet.network.graph import size
from mipnet.solving.replay import replay
from mipnet.verification.clause_network import Excess

CHECK_POINTS_RANDOM = 64
"""Number of random points; half of them are corners."""

CHECK_ELEMENTS_PER_NODE = 16
"""Number of elements per node that are moved to their smallest and to their largest value."""

CHECK_STEPS, CHECK_STEP_FIRST = 10, 0.5
"""The number of gradient steps, and the first step size relative to the width of the box; each further step is 2/3 of the one before."""

CHECK_SLACK_RELATIVE = 1e-6
"""How far a forward pass may lie outside, relative to 1 + its absolute value."""


def check_points(excess: Excess, bounds: Bounds, seed: int = 0) -> Array:
    """Return inputs of the set, ``(n, *input_shape)``: first those that move values to their extremes, then random ones.

    These values are the inputs of activations whose sign is not decided by the bounds, and every row of the excess.
    """
    rng, region, network = np.random.default_rng(seed), bounds.region, excess.network
    low, high = torch.tensor(region.lower[:1]), torch.tensor(region.upper[:1])
    wanted = list(_pushed_elements(excess, bounds, rng))
    x = torch.tensor(region.nearest(_random(region.lower, region.upper, sum(len(each.element) for each in wanted), rng)))
    for step in CHECK_STEP_FIRST * (2 / 3) ** np.arange(CHECK_STEPS):
        x.requires_grad_()
        values, first, total = network.values(x), 0, torch.zeros((), dtype=torch.float64)
        for each in wanted:
            own = torch.arange(first, first + len(each.element))
            total, first = total + each.sign * values[each.node].flatten(1)[own, each.element].sum(), first + len(own)
        (slope,) = torch.autograd.grad(total, x)
        x = torch.tensor(region.nearest((x.detach() + step * (high - low) * slope.sign()).numpy()))
    return np.concatenate([x.numpy(), region.nearest(_random(region.lower, region.upper, CHECK_POINTS_RANDOM, rng))])


def check_bounds(excess: Excess, bounds: Bounds, proven: Array, x: Array) -> None:
    """Raise `SolverFailure` if a forward pass leaves a node's bounds, or has a smaller excess of a clause than is ``proven``."""
    with torch.no_grad():
        values = excess.network.values(torch.tensor(x))
        smallest = excess.largest(values[excess.network.output.name]).amin(0).numpy()
    for name, box in bounds.after.items():
        value = values[name]
        slack = CHECK_SLACK_RELATIVE * (1 + value.abs())
        if bool(((value < box.lower - slack) | (value > box.upper + slack)).any()):
            raise SolverFailure(f"the bounds of `{name}` do not hold: a forward pass from inside the set leaves them; please report this")
    wrong = proven > smallest + CHECK_SLACK_RELATIVE * (1 + np.abs(smallest))
    if wrong.any():
        k = int(wrong.argmax())
        raise SolverFailure(
            f"the excess of clause {k} was bounded by {proven[k]:g} from below, but a forward pass from inside the set has an excess"
            f" of {smallest[k]:g}; please report this"
        )


def check_program(encoding: Encoding, program: Program, x: Array) -> None:
    """Raise `SolverFailure` unless forward passes are feasible in the program, with the values that the network has in torch."""
    for each in x:
        point = encoding.point(each[None])[program.labels]
        missed, error = program.relative_violation(point), replay(encoding, program, point)[1]
        if max(missed, error) > CHECK_SLACK_RELATIVE:
            raise SolverFailure(
                "the program is not that of the network: a forward pass from inside the set "
                + (f"misses a constraint by {missed:g}" if missed > CHECK_SLACK_RELATIVE else f"has other values in torch, by {error:g}")
                + "; please report this"
            )


class _PushedElements(NamedTuple):
    """Elements of a node that gradient steps increase (``sign`` 1) or decrease (-1)."""

    node: str
    element: Tensor
    sign: float


def _pushed_elements(excess: Excess, bounds: Bounds, rng: np.random.Generator) -> Iterator[_PushedElements]:
    """Yield the elements that gradient steps move to their extremes."""
    network = excess.network
    before = dict.fromkeys(node.inputs[0] for node in network.nodes if node.layer.activation)
    for name in (*before, network.output.name):
        box = bounds.after[name]
        open_ = ((box.lower < 0) & (box.upper > 0)).flatten() if name in before else torch.ones(size(box.lower.shape), dtype=torch.bool)
        found = open_.nonzero()[:, 0].numpy()
        element = torch.tensor(rng.permutation(found)[:CHECK_ELEMENTS_PER_NODE])
        for sign in (1.0, -1.0) if name in before else (-1.0,):
            yield _PushedElements(name, element, sign)


def _random(low: Array, high: Array, count: int, rng: np.random.Generator) -> Array:
    share = rng.uniform(size=(count, *low.shape[1:]))
    share[::2] = share[::2].round()
    return np.asarray(low + share * (high - low))
