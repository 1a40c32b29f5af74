"""Activations that are written with positive parts: ReLU, LeakyReLU, PReLU (also the absolute value) and Clip (ReLU6, Hardtanh, clamp)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Shape
from mipnet.bounds.interval import Interval, interval, monotone
from mipnet.bounds.linear_rules import Lines, clip_lines, lines
from mipnet.errors import suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block
from mipnet.formulations.relu import POSITIVE_PART, positive_part
from mipnet.network.graph import Layer, constant, require


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """Base class of functions of one number that are applied to each element."""

    unitwise: ClassVar[bool] = True
    activation: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        (given,) = inputs
        return given


@dataclass(frozen=True, eq=False)
class ReLU(Activation):
    """``y = max(x, 0)``."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the positive part of a batch."""
        return torch.relu(inputs[0])


@suggest_keywords
@dataclass(frozen=True, eq=False)
class LeakyReLU(Activation):
    """``y = x`` for x > 0 and ``slope * x`` otherwise, with ``slope >= 0``."""

    slope: float = 0.01

    def __post_init__(self) -> None:
        require(math.isfinite(self.slope) and self.slope >= 0, f"the slope is {self.slope}; expected a number of at least 0")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the leaky ReLU of a batch."""
        return torch.nn.functional.leaky_relu(inputs[0], self.slope)


@suggest_keywords
@dataclass(frozen=True, eq=False)
class PReLU(Activation):
    """``y = x`` for x > 0 and ``slope * x`` otherwise, with slopes of any sign that broadcast to one sample: ``|x|`` for -1."""

    slope: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", constant(self.slope, "the slopes of a PReLU"))

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        (given,) = inputs
        fits = self.slope.ndim <= len(given) and all(n in (1, m) for n, m in zip(self.slope.shape[::-1], given[::-1], strict=False))
        require(fits, f"slopes of shape {tuple(self.slope.shape)} do not broadcast to an input of shape {given}")
        return given

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the PReLU of a batch."""
        (x,) = inputs
        return torch.where(x > 0, x, self.slope.to(x.dtype) * x)


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Clip(Activation):
    """``y = min(max(x, low), high)``; either end may be infinite.  ReLU6 is ``Clip(0, 6)``, Hardtanh ``Clip(-1, 1)``."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        require(self.low <= self.high, f"it clips to [{self.low}, {self.high}]; expected low <= high")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return a batch clipped to ``[low, high]``."""
        return inputs[0].clamp(self.low, self.high)


for kind in (ReLU, Clip):
    interval.register(kind)(monotone)


@interval.register(LeakyReLU)
def _(layer: LeakyReLU, x: Interval) -> Interval:
    box = monotone(layer, x)
    return box.rounded(box.lower.abs(), box.upper.abs())


@interval.register(PReLU)
def _(layer: PReLU, x: Interval) -> Interval:
    ends = (layer.forward(x.lower), layer.forward(x.upper))
    zero = torch.where((x.lower < 0) & (x.upper > 0), 0.0, ends[0])
    box = Interval(torch.minimum(zero, torch.minimum(*ends)), torch.maximum(zero, torch.maximum(*ends)))
    return box.rounded(box.lower.abs(), box.upper.abs())


@lines.register(ReLU)
def _(layer: ReLU, x: Interval, choice: Tensor | None = None) -> Lines:
    return clip_lines(x, 0.0, math.inf, choice)


@lines.register(LeakyReLU)
def _(layer: LeakyReLU, x: Interval, choice: Tensor | None = None) -> Lines:
    return clip_lines(x, 0.0, math.inf, choice).combined(1 - layer.slope, layer.slope)


@lines.register(PReLU)
def _(layer: PReLU, x: Interval, choice: Tensor | None = None) -> Lines:
    return clip_lines(x, 0.0, math.inf, choice).combined(1 - layer.slope, layer.slope)


@lines.register(Clip)
def _(layer: Clip, x: Interval, choice: Tensor | None = None) -> Lines:
    return clip_lines(x, layer.low, layer.high, choice)


@POSITIVE_PART.encodes(ReLU)
def encode_relu(layer: ReLU, block: Block, x: Affine) -> Affine:
    """Write ``max(x, 0)``."""
    return positive_part(block, "", x, *block.finite())


@POSITIVE_PART.encodes(LeakyReLU)
def encode_leaky(layer: LeakyReLU, block: Block, x: Affine) -> Affine:
    """Write ``(1 - slope) max(x, 0) + slope x``."""
    return positive_part(block, "", x, *block.finite()) * (1 - layer.slope) + x * layer.slope


@POSITIVE_PART.encodes(PReLU)
def encode_prelu(layer: PReLU, block: Block, x: Affine) -> Affine:
    """Write ``(1 - slope) max(x, 0) + slope x`` with the slope of each element."""
    slope = np.broadcast_to(layer.slope.numpy(), block.shape)
    return positive_part(block, "", x, *block.finite()) * (1 - slope) + x * slope


@POSITIVE_PART.encodes(Clip)
def encode_clip(layer: Clip, block: Block, x: Affine) -> Affine:
    """Write ``low + max(x - low, 0) - max(x - high, 0)``, without the positive part of an end that is infinite."""
    lower, upper = block.finite()
    value = x
    if math.isfinite(layer.low):
        value = positive_part(block, "low", x - layer.low, lower - layer.low, upper - layer.low) + layer.low
    if math.isfinite(layer.high):
        value = value - positive_part(block, "high", x - layer.high, lower - layer.high, upper - layer.high)
    return value
