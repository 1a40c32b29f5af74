"""Interval bounds: each layer's rule maps boxes of inputs to a box that holds every output.

`interval` is open: register a rule for a layer of your own with ``@interval.register(MyLayer)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Literal

import torch
import xarray as xr
from torch import Tensor

from mipnet.errors import NetworkError, UnsupportedError
from mipnet.gates import Gate
from mipnet.ir import INPUT, Layer, Network, dims_of
from mipnet.sets import Box

Mode = Literal["sound", "paper"]


@dataclass(frozen=True, eq=False)
class Interval:
    """``lower <= value <= upper``: tensors of shape ``(sample, *shape)``."""

    lower: Tensor
    upper: Tensor

    @property
    def centre(self) -> Tensor:
        """The middle."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return (self.upper - self.lower) / 2

    @property
    def with_zero(self) -> Interval:
        """The smallest interval that also holds 0: what a gate makes of it."""
        return Interval(self.lower.clamp(max=0), self.upper.clamp(min=0))


@singledispatch
def interval(layer: Layer, *inputs: Interval) -> Interval:
    """The box of a layer's output, given boxes of its inputs."""
    raise UnsupportedError(
        f"no interval rule for layer `{layer.label}`; register one with `@mipnet.interval.register({type(layer).__name__})`"
    )


def monotone(layer: Layer, *inputs: Interval) -> Interval:
    """The rule of every layer that is nondecreasing in each input."""
    return Interval(layer.forward(*(i.lower for i in inputs)), layer.forward(*(i.upper for i in inputs)))


def linear(forward: Callable[[Tensor], Tensor], absolute: Callable[[Tensor], Tensor], x: Interval) -> Interval:
    """The rule of an affine layer: centre through the layer, radius through its absolute weights."""
    centre, radius = forward(x.centre), absolute(x.radius)
    return Interval(centre - radius, centre + radius)


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds of every node, as later nodes read it (`after`), and at gate sites before the gate acts (`ungated`).

    ``mode`` says for which gate values they hold: ``sound`` for every s in [0, 1]; ``paper`` for s = 1 only, over the input
    widened by epsilon, as in the published method, where they serve as big-Ms of the gated network all the same.
    """

    network: Network
    after: Mapping[str, Interval]
    ungated: Mapping[str, Interval] = field(default_factory=dict)
    mode: Mode = "sound"

    def before_gate(self, name: str) -> Interval:
        """The value that a node computes, before a gate acts on it."""
        return self.ungated.get(name, self.after[name])

    def __getitem__(self, name: str) -> xr.Dataset:
        """Labelled ``lower`` and ``upper`` of what a node computes (before its gate), with the node's dimensions."""
        if name not in self.after:
            raise NetworkError(f"no bounds for `{name}`; the nodes are {', '.join(self.after)}")
        box, dims = self.before_gate(name), ("sample", *dims_of(name, self.network.shape_of(name)))
        return xr.Dataset({"lower": (dims, box.lower.numpy()), "upper": (dims, box.upper.numpy())})

    def unstable(self) -> dict[str, int]:
        """For each activation: how many of its inputs, over all samples, may have either sign."""
        counts = {}
        for node in self.network.nodes:
            if node.layer.activation:
                box = self.after[node.inputs[0]]
                counts[node.name] = int(((box.lower < 0) & (box.upper > 0)).sum())
        return counts

    def width(self) -> dict[str, float]:
        """For each node: the mean of upper - lower before its gate."""
        return {n.name: float((self.before_gate(n.name).upper - self.before_gate(n.name).lower).mean()) for n in self.network.nodes}


def propagate(network: Network, region: Box, gates: Sequence[Gate] = (), mode: Mode = "sound", epsilon: float = 0.0) -> Bounds:
    """Interval bounds of every node over ``region`` (widened by ``epsilon``), in one pass over all samples.

    In ``sound`` mode a gated value ranges over the hull of 0 and its own interval, so the bounds of later nodes hold for
    every gate value.  In ``paper`` mode gates are not seen, as in the reference implementation (ElAraby et al. 2023, section 3).
    """
    box = region.fit(network.input_shape).widen(epsilon)
    after = {INPUT: Interval(torch.tensor(box.lower), torch.tensor(box.upper))}
    sites = {site for gate in gates for site in gate.sites}
    ungated: dict[str, Interval] = {}
    for node in network.nodes:
        value = interval(node.layer, *(after[source] for source in node.inputs))
        if node.name in sites:
            ungated[node.name] = value
            value = value.with_zero if mode == "sound" else value
        after[node.name] = value
    return Bounds(network, after, ungated, mode)
