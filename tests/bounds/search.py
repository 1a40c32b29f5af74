"""Activations that bounds have to contain: from samples, from corners of the set, and moved to their extremes by gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

import mipnet as mn
from mipnet.arrays import Array
from mipnet.bounds.boxes import Bounds
from mipnet.network.gates import gated_value
from mipnet.network.graph import Network, size
from tests.nets import Generator, sample

Values = dict[str, Tensor]
TOLERANCE = 1e-9


def activations(network: Network, x: Array, act: Mapping[str, Callable[[Tensor], Tensor]] | None = None) -> Values:
    """The value of every node before its gate acts."""
    before: Values = {}

    def kept(name: str, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(value: Tensor) -> Tensor:
            before[name] = value
            return function(value)

        return run

    values = network.values(torch.tensor(x), {name: kept(name, function) for name, function in (act or {}).items()})
    return {**values, **before}


def pushed(network: Network, region: mn.Box, g: Generator, steps: int = 12) -> Array:
    """One point per direction and element, for up to 24 elements per node, moved there from the inside or a corner by signed gradients."""
    found = []
    lower, upper = torch.tensor(region.lower[0]), torch.tensor(region.upper[0])
    for node in network.nodes:
        count = min(24, size(node.shape))
        elements = torch.tensor(np.concatenate([g.choice(size(node.shape), count, replace=False)] * 2))
        sign = torch.cat([torch.ones(count), -torch.ones(count)])
        x = torch.tensor(g.uniform(region.lower[0], region.upper[0], (2 * count, *network.input_shape)))
        for k in range(steps):
            x.requires_grad_()
            value = network.values(x)[node.name].flatten(1)[torch.arange(2 * count), elements]
            (slope,) = torch.autograd.grad((sign * value).sum(), x)
            x = (x.detach() + slope.sign() * (upper - lower) / 2 ** (k / 3)).clamp(lower, upper)
        found.append(x.numpy())
    return np.concatenate(found)


def sets(g: Generator, network: Network) -> dict[str, mn.Box]:
    """Input sets of every kind, with one sample each."""
    x = g.uniform(0.2, 0.8, (1, *network.input_shape))
    ends = np.sort(g.uniform(-0.5, 1.5, (2, 1, *network.input_shape)), axis=0)
    ends[1] = np.where(g.uniform(size=x.shape) < 0.2, ends[0], ends[1])  # some inputs are fixed
    return {"ball": mn.LInf(x, 0.15), "clipped": mn.LInf(x, 0.5, lower=0, upper=1), "box": mn.Box(*ends), "image": mn.Samples(x)}


def gate_acts(bounds: Bounds, g: Generator, count: int, gates: Sequence[mn.Gate]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Gates with scores per point, 0, 1 or between; a gate is the soft threshold of an encoding with these bounds."""
    acts = {}
    for gate in gates:
        scores = torch.tensor(g.choice([0.0, 1.0, 0.5, 0.9], (count, gate.units)))
        for site in gate.sites:
            box = bounds.before_gate(site)
            tops = {"above": box.upper.clamp(min=0), "below": (-box.lower).clamp(min=0)}
            acts[site] = lambda y, s=scores, t=tops: torch.cat([gated_value(y[k : k + 1], s[k], t) for k in range(len(y))])
    return acts


def first_outside(bounds: Bounds, values: Values) -> str | None:
    """The first node with a value outside of its bounds, or None; all values belong to the first sample."""
    for node in bounds.network.nodes:
        box, value = bounds.before_gate(node.name), values[node.name]
        if bool(((value < box.lower[0] - TOLERANCE) | (value > box.upper[0] + TOLERANCE)).any()):
            return node.name
    return None


def everything(network: Network, region: mn.Box, g: Generator) -> Array:
    """4,000 points, half of them corners, and those that gradients found."""
    return np.concatenate([sample(region, 4000, g), pushed(network, region, g)])
