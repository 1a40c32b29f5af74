"""Activations made of positive parts: ReLU, LeakyReLU, and Clip (ReLU6, Hardtanh, clamp)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipnet.arrays import Shape
from mipnet.bounds.interval import Interval, interval, monotone
from mipnet.bounds.linear_rules import Lines, clip_lines, lines
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block
from mipnet.formulations.relu import POSITIVE_PART, positive_part
from mipnet.network.graph import Layer, require


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """A function of one number, applied to each element."""

    unitwise: ClassVar[bool] = True
    activation: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """The shape of the input."""
        (given,) = inputs
        return given


@dataclass(frozen=True, eq=False)
class ReLU(Activation):
    """``y = max(x, 0)``."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """The positive part."""
        return torch.relu(inputs[0])


@dataclass(frozen=True, eq=False)
class LeakyReLU(Activation):
    """``y = x`` for x > 0, ``slope * x`` else, with ``slope >= 0``."""

    slope: float = 0.01

    def __post_init__(self) -> None:
        require(math.isfinite(self.slope) and self.slope >= 0, f"the slope is {self.slope}; expected a number of at least 0")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Leaky rectification."""
        return torch.nn.functional.leaky_relu(inputs[0], self.slope)


@dataclass(frozen=True, eq=False)
class Clip(Activation):
    """``y = min(max(x, low), high)``; either end may be infinite.  ReLU6 is ``Clip(0, 6)``, Hardtanh ``Clip(-1, 1)``."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        require(self.low <= self.high, f"it clips to [{self.low}, {self.high}]; expected low <= high")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Clamping."""
        return inputs[0].clamp(self.low, self.high)


for kind in (ReLU, LeakyReLU, Clip):
    interval.register(kind)(monotone)


@lines.register(ReLU)
def _(layer: ReLU, x: Interval, choice: Tensor | None = None) -> Lines:
    return clip_lines(x, 0.0, math.inf, choice)


@lines.register(LeakyReLU)
def _(layer: LeakyReLU, x: Interval, choice: Tensor | None = None) -> Lines:
    return clip_lines(x, 0.0, math.inf, choice).combined(1 - layer.slope, layer.slope)


@lines.register(Clip)
def _(layer: Clip, x: Interval, choice: Tensor | None = None) -> Lines:
    return clip_lines(x, layer.low, layer.high, choice)


@POSITIVE_PART.encodes(ReLU)
def encode_relu(layer: ReLU, block: Block, x: Affine) -> Affine:
    """The positive part of x."""
    return positive_part(block, "", x, *block.finite())


@POSITIVE_PART.encodes(LeakyReLU)
def encode_leaky(layer: LeakyReLU, block: Block, x: Affine) -> Affine:
    """``(1 - slope) max(x, 0) + slope x``."""
    return positive_part(block, "", x, *block.finite()) * (1 - layer.slope) + x * layer.slope


@POSITIVE_PART.encodes(Clip)
def encode_clip(layer: Clip, block: Block, x: Affine) -> Affine:
    """``low + max(x - low, 0) - max(x - high, 0)``, or with one of the two parts if an end is infinite."""
    lower, upper = block.finite()
    value = x
    if math.isfinite(layer.low):
        value = positive_part(block, "low", x - layer.low, lower - layer.low, upper - layer.low) + layer.low
    if math.isfinite(layer.high):
        value = value - positive_part(block, "high", x - layer.high, lower - layer.high, upper - layer.high)
    return value
