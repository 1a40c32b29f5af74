"""Checks of proofs by forward passes: every value that the network takes has to satisfy all bounds and programs.

A proof is only as good as the code and the arithmetic that it rests on.  With a flipped sign, a big-M that is too small or a bound that is
too tight, a network looks safe, and a solver does not notice.  Forward passes notice: they start at random points, at corners, and at
points where gradient steps have moved the values before activations to their extremes, where a wrong bound or big-M excludes most values.
Passing these checks proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.backend import Program
from mipnet.bounds.boxes import Bounds
from mipnet.errors import ContradictedProof, TooFineForFloat64
from mipnet.formulations.distance import Norm
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.model.encoding import Encoding
from mipnet.network.graph import size
from mipnet.network.pass_cost import samples_at_once
from mipnet.solving.replay import replay
from mipnet.verification.clause_network import Excess
from mipnet.verification.counterexamples import SEARCH_PASSES_PER_STEP

CHECK_POINTS_RANDOM = 64
"""Number of random points; half of them are corners."""

CHECK_ELEMENTS_PER_NODE = 16
"""Number of elements per node that are moved to their smallest and to their largest value."""

CHECK_STEPS, CHECK_STEP_FIRST = 10, 0.5
"""The number of gradient steps, and the first step size relative to the width of the box; each further step is 2/3 of the one before."""

CHECK_SLACK_RELATIVE = 1e-6
"""How far a forward pass may lie outside, relative to the size of what it leaves."""

DISTANCE_ROUNDING_MAX = 1e-6
"""Largest rounding error of a distance, relative to the radius, with which a program about distances is used."""

CHECK_ROUNDING_RELATIVE = 1e-9
"""How far a forward pass may lie outside because of rounding, relative to its absolute value."""


def check_points(excess: Excess, bounds: Bounds, seed: int = 0, deadline: Deadline = NO_DEADLINE) -> Array:
    """Return inputs of the set, ``(n, *input_shape)``: first those that move values to their extremes, then random ones.

    These values are the inputs of activations whose sign is not decided by the bounds, and every row of the excess.  Values whose turn
    does not come in time keep a random input.
    """
    rng, region, network = np.random.default_rng(seed), bounds.region, excess.network
    width = torch.tensor(region.upper[:1] - region.lower[:1])
    wanted = list(_pushed_elements(excess, bounds, rng))
    x = region.nearest(_random(region.lower, region.upper, len(wanted), rng))
    at_once = samples_at_once(network, SEARCH_PASSES_PER_STEP)
    for first in range(0, len(wanted), at_once):
        pushed, part = torch.tensor(x[first : first + at_once]), wanted[first : first + at_once]
        for step in CHECK_STEP_FIRST * (2 / 3) ** np.arange(CHECK_STEPS):
            if deadline.passed:
                break
            pushed.requires_grad_()
            (slope,) = torch.autograd.grad(_total(network.values(pushed), part), pushed)
            pushed = torch.tensor(region.nearest((pushed.detach() + step * width * slope.sign()).numpy()))
        x[first : first + at_once] = pushed.numpy()
    return region.inside(np.concatenate([x, region.nearest(_random(region.lower, region.upper, CHECK_POINTS_RANDOM, rng))]))


def _total(values: Mapping[str, Tensor], pushed: Sequence[_PushedElement]) -> Tensor:
    """Return the sum of each element, times its sign, in the sample of the same number."""
    total = torch.zeros((), dtype=torch.float64)
    for name in dict.fromkeys(each.node for each in pushed):
        own = [k for k, each in enumerate(pushed) if each.node == name]
        sign = torch.tensor([pushed[k].sign for k in own], dtype=torch.float64)
        total = total + (sign * values[name].flatten(1)[own, [pushed[k].element for k in own]]).sum()
    return total


def check_bounds(excess: Excess, bounds: Bounds, proven: Array, x: Array, deadline: Deadline = NO_DEADLINE) -> None:
    """Raise `ContradictedProof` if a forward pass leaves a node's bounds, or has a smaller excess of a clause than is ``proven``.

    Passes that are left at the deadline are not made.
    """
    at_once = samples_at_once(excess.network)
    for first in range(0, len(x), at_once):
        _check_passes(excess, bounds, proven, torch.tensor(x[first : first + at_once]))
        if deadline.passed:
            return


def _check_passes(excess: Excess, bounds: Bounds, proven: Array, x: Tensor) -> None:
    with torch.no_grad():
        values = excess.network.values(x)
        smallest = excess.largest(values[excess.network.output.name]).amin(0).numpy()
    for name, box in bounds.after.items():
        value = values[name]
        slack = CHECK_SLACK_RELATIVE * box.width.max() + CHECK_ROUNDING_RELATIVE * value.abs()
        if bool(((value < box.lower - slack) | (value > box.upper + slack)).any()):
            raise ContradictedProof(
                f"the bounds of `{name}` do not hold: a forward pass from inside the set leaves them; please report this"
            )
    widths = bounds.after[excess.network.output.name].width[0].numpy()
    wide = np.array([widths[excess.owner == clause].max() for clause in range(excess.clauses)])
    wrong = proven > smallest + CHECK_SLACK_RELATIVE * wide + CHECK_ROUNDING_RELATIVE * np.abs(smallest)
    if wrong.any():
        k = int(wrong.argmax())
        raise ContradictedProof(
            f"the excess of clause {k} was bounded by {proven[k]:g} from below, but a forward pass from inside the set has an excess"
            f" of {smallest[k]:g}; please report this"
        )


def distance_rounding(centre: Array, radius: float | Array, norm: Norm) -> float:
    """Return the rounding error of float64 in the distance of an input from a point, relative to a radius, or to those of all inputs."""
    steps = np.spacing(np.abs(centre) + radius) / radius
    return float(steps.max() if norm == "linf" else steps.sum())


def check_distances(centre: Array, radius: float | Array, norm: Norm) -> None:
    """Raise `TooFineForFloat64` unless the rounding errors of distances are far smaller than a radius."""
    rounding = distance_rounding(centre, radius, norm)
    if rounding > DISTANCE_ROUNDING_MAX:
        raise TooFineForFloat64(
            f"float64 rounds inputs within {np.max(radius):.3g} of one of size {np.abs(centre).max():.3g} by {rounding:.1g} of this"
            f" distance; expected at most {DISTANCE_ROUNDING_MAX:g}: shift the inputs towards 0, in the first layer as well"
        )


def check_program(encoding: Encoding, program: Program, x: Array, deadline: Deadline = NO_DEADLINE) -> None:
    """Raise `ContradictedProof` unless forward passes are feasible in the program, with the values that the network has in torch.

    Raises `TimeLimitReached` if the time ends before all of them are compared: an unchecked program proves nothing.  Raises
    `TooFineForFloat64` if the set is a ball that float64 hardly tells from its centre.
    """
    if (ball := encoding.region.ball) is not None:
        check_distances(ball.centre, ball.radius, ball.norm)
    for each in x:
        deadline.check("check the program by forward passes")
        point = encoding.point(each[None])[program.labels]
        missed, error = program.relative_violation(point), replay(encoding, program, point)[1]
        if max(missed, error) > CHECK_SLACK_RELATIVE:
            raise ContradictedProof(
                "the program is not that of the network: a forward pass from inside the set "
                + (f"misses a constraint by {missed:g}" if missed > CHECK_SLACK_RELATIVE else f"has other values in torch, by {error:g}")
                + "; please report this"
            )


class _PushedElement(NamedTuple):
    """An element of a node that gradient steps increase (``sign`` 1) or decrease (-1)."""

    node: str
    element: int
    sign: float


def _pushed_elements(excess: Excess, bounds: Bounds, rng: np.random.Generator) -> Iterator[_PushedElement]:
    """Yield the elements that gradient steps move to their extremes."""
    network = excess.network
    before = dict.fromkeys(node.inputs[0] for node in network.nodes if node.layer.activation)
    for name in (*before, network.output.name):
        box = bounds.after[name]
        open_ = ((box.lower < 0) & (box.upper > 0)).flatten() if name in before else torch.ones(size(box.lower.shape), dtype=torch.bool)
        chosen = rng.permutation(open_.nonzero()[:, 0].numpy())[:CHECK_ELEMENTS_PER_NODE].tolist()
        for sign in (1.0, -1.0) if name in before else (-1.0,):
            yield from (_PushedElement(name, element, sign) for element in chosen)


def _random(low: Array, high: Array, count: int, rng: np.random.Generator) -> Array:
    share = rng.uniform(size=(count, *low.shape[1:]))
    share[::2] = share[::2].round()
    return np.asarray(low + share * (high - low))
