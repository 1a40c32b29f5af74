"""What is proven, held against forward passes: no bound and no program may leave out a point that the network reaches.

A proof is as good as the code and the arithmetic behind it.  A flipped sign, a big-M that is too small or a bound that is too tight make a
network look safe, and no solver can tell.  Forward passes can: from random points and corners, and from points where gradient steps
drive the values before activations to their ends, for there a bound or a big-M that is wrong cuts off most.  They prove nothing of what
they pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array
from mipnet.backend import Program
from mipnet.bounds.boxes import Bounds
from mipnet.errors import SolverFailure
from mipnet.model.encoding import Encoding
from mipnet.network.graph import size
from mipnet.solving.problem import replay
from mipnet.verification.clause_network import Excess

RANDOM = 64
"""So many random points; half of them are corners."""

PUSHED, STEPS, FIRST = 16, 10, 0.5
"""So many elements of a node are driven to either end, in so many steps; the first is this share of the box, and each 2/3 of the last."""

SLACK = 1e-6
"""A forward pass may lie outside by this, relative to its size."""


def telling_points(excess: Excess, bounds: Bounds, seed: int = 0) -> Array:
    """Inputs of the set, ``(n, *input_shape)``: those that drive values to their ends, then random ones.

    Values are those that decide something: undecided ones before activations, and every row of the excess.
    """
    rng, region, network = np.random.default_rng(seed), bounds.region, excess.network
    low, high = torch.tensor(region.lower[:1]), torch.tensor(region.upper[:1])
    wanted = list(_ends(excess, bounds, rng))
    x = torch.tensor(region.nearest(_random(region.lower, region.upper, sum(len(element) for _, element, _ in wanted), rng)))
    for step in FIRST * (2 / 3) ** np.arange(STEPS):
        x.requires_grad_()
        values, first, total = network.values(x), 0, torch.zeros((), dtype=torch.float64)
        for name, element, sign in wanted:
            own = torch.arange(first, first + len(element))
            total, first = total + (sign * values[name].flatten(1)[own, element]).sum(), first + len(element)
        (slope,) = torch.autograd.grad(total, x)
        x = torch.tensor(region.nearest((x.detach() + step * (high - low) * slope.sign()).numpy()))
    return np.concatenate([x.numpy(), region.nearest(_random(region.lower, region.upper, RANDOM, rng))])


def hold_bounds(excess: Excess, bounds: Bounds, proven: Array, x: Array) -> None:
    """Raise `SolverFailure` if a forward pass leaves a node's bounds, or has a smaller excess of a clause than is ``proven``."""
    with torch.no_grad():
        values = excess.network.values(torch.tensor(x))
        least = excess.largest(values[excess.network.output.name]).amin(0).numpy()
    for name, box in bounds.after.items():
        value = values[name]
        slack = SLACK * (1 + value.abs())
        if bool(((value < box.lower - slack) | (value > box.upper + slack)).any()):
            raise SolverFailure(f"the bounds of `{name}` do not hold: a forward pass from inside the set leaves them; please report this")
    wrong = proven > least + SLACK * (1 + np.abs(least))
    if wrong.any():
        k = int(wrong.argmax())
        raise SolverFailure(
            f"clause {k} was said to be missed by {proven[k]:g} everywhere, but a forward pass from inside the set misses it"
            f" by {least[k]:g}; please report this"
        )


def hold_program(encoding: Encoding, program: Program, x: Array) -> None:
    """Raise `SolverFailure` unless forward passes are points of the program, with the values that the network has in torch."""
    for each in x:
        point = encoding.point(each[None])[program.labels]
        missed, error = program.misses(point), replay(encoding, program, point)[1]
        if max(missed, error) > SLACK:
            raise SolverFailure(
                "the program is not that of the network: a forward pass from inside the set "
                + (f"misses a constraint by {missed:g}" if missed > SLACK else f"has other values in torch, by {error:g}")
                + "; please report this"
            )


def _ends(excess: Excess, bounds: Bounds, rng: np.random.Generator) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Elements of nodes, and in which direction each is driven: 1 up, -1 down."""
    network = excess.network
    before = dict.fromkeys(node.inputs[0] for node in network.nodes if node.layer.activation)
    for name in (*before, network.output.name):
        box = bounds.after[name]
        open_ = ((box.lower < 0) & (box.upper > 0)).flatten() if name in before else torch.ones(size(box.lower.shape), dtype=torch.bool)
        found = open_.nonzero()[:, 0].numpy()
        element = torch.tensor(rng.permutation(found)[:PUSHED])
        for sign in (1.0, -1.0) if name in before else (-1.0,):
            yield name, element, torch.full((len(element),), sign, dtype=torch.float64)


def _random(low: Array, high: Array, count: int, rng: np.random.Generator) -> Array:
    share = rng.uniform(size=(count, *low.shape[1:]))
    share[::2] = share[::2].round()
    return np.asarray(low + share * (high - low))
