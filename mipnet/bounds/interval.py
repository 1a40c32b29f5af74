"""Interval bounds: the rule of each layer maps boxes of its inputs to a box that contains every output.

`interval` is open: register a rule for a layer of your own with ``@interval.register(MyLayer)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

import torch
from torch import Tensor

from mipnet.errors import InputError, UnsupportedError, shown, suggest_keywords
from mipnet.network.graph import Layer
from mipnet.network.layer_rules import checks_kinds

Method = Literal["auto", "interval", "crown", "alpha"]
"""How bounds are computed; `auto` is CROWN, with intervals for nodes where CROWN would take too long."""

Mode = Literal["sound", "paper", "interval", "crown", "alpha"]
"""For which scores bounds hold, and how they are computed: `paper` for the network without gates, all others for every score."""

INTERVAL_ROUNDING_RELATIVE = 1e-12
"""Intervals are rounded outwards by this, relative to the sum of the absolute values of the terms; the precision of float64 is 1e-16.

An interval of one point stays one: the values of a fixed input are those that the network computes in float64.
"""


@suggest_keywords(kinds=False)
@dataclass(frozen=True, eq=False)
class Interval:
    """``lower <= value <= upper``: tensors of shape ``(sample, *shape)``; raises `InputError` for anything else."""

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            if not isinstance(given := getattr(self, name), Tensor):
                raise InputError(f"`Interval` was given {shown(given)} as `{name}`; expected a torch.Tensor of shape (samples, *shape)")

    @property
    def centre(self) -> Tensor:
        """The midpoint."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return (self.upper - self.lower) / 2

    @property
    def width(self) -> Tensor:
        """Upper end minus lower end."""
        return self.upper - self.lower

    @property
    def with_zero(self) -> Interval:
        """The smallest interval that also contains 0: the bounds after a gate acts."""
        return Interval(self.lower.clamp(max=0), self.upper.clamp(min=0))

    def rounded(self, below: Tensor, above: Tensor) -> Interval:
        """Return the intervals rounded outwards, for ends that are sums of terms with these absolute values; single points stay."""
        share = torch.where(self.upper > self.lower, INTERVAL_ROUNDING_RELATIVE, 0.0)
        return Interval(self.lower - share * below, self.upper + share * above)

    def __and__(self, other: Interval) -> Interval:
        """Return the intersection; ends that cross because of rounding are swapped."""
        lower, upper = torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper)
        return Interval(torch.minimum(lower, upper), torch.maximum(lower, upper))

    def __getitem__(self, samples: Tensor | slice) -> Interval:
        """Return the intervals of some samples."""
        return Interval(self.lower[samples], self.upper[samples])


@checks_kinds("interval")
@singledispatch
def interval(layer: Layer, *inputs: Interval) -> Interval:
    """Return a box that contains a layer's output, given boxes of its inputs."""
    raise UnsupportedError(
        f"no interval rule for layer `{layer.label}`; register one with `@mipnet.interval.register({type(layer).__name__})`"
    )


@checks_kinds("interval")
def monotone(layer: Layer, *inputs: Interval) -> Interval:
    """Apply the rule of a layer that is nondecreasing in each input, and whose outputs are numbers of its inputs."""
    return Interval(layer.forward(*(i.lower for i in inputs)), layer.forward(*(i.upper for i in inputs)))


def monotone_sum(layer: Layer, x: Interval) -> Interval:
    """Apply the rule of a layer that is nondecreasing in its input and computes sums and products, rounded outwards."""
    return monotone(layer, x).rounded(layer.forward(x.lower.abs()), layer.forward(x.upper.abs()))


def linear(forward: Callable[[Tensor], Tensor], absolute: Callable[[Tensor], Tensor], x: Interval) -> Interval:
    """Apply the rule of an affine layer: the centre through the layer, the radius through its absolute weights, rounded outwards."""
    centre, radius = forward(x.centre), absolute(x.radius)
    terms = 2 * absolute(x.centre.abs() + x.radius) + centre.abs()  # at least the sum of the absolute terms, the constant among them
    reach = torch.where(radius > 0, radius + INTERVAL_ROUNDING_RELATIVE * terms, 0.0)
    return Interval(centre - reach, centre + reach)
