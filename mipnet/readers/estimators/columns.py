"""The columns of an estimator's table while it passes transformers: each is a function of one input of the network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mipnet.arrays import Array

Affine1d = tuple[float, float]
"""Factor and shift of ``factor x + shift``."""


@dataclass(frozen=True)
class ColumnStep:
    """One operation on a column, in the arithmetic of scikit-learn: with ``value``, or a clip to ``[value, high]``.  No step decreases."""

    operation: Literal["subtract", "add", "multiply", "divide", "clip"]
    value: float
    high: float = math.inf

    def apply(self, x: Array) -> Array:
        """Return the values after the operation, in float64."""
        if self.operation == "clip":
            return np.clip(x, self.value, self.high)
        with np.errstate(over="ignore"):
            value: Array = getattr(np, self.operation)(x, self.value)
        return value

    def after(self, line: Affine1d) -> Affine1d:
        """Return factor and shift of this operation, which is no clip, after a line."""
        factor, shift = line
        if self.operation in ("add", "subtract"):
            return factor, shift + (self.value if self.operation == "add" else -self.value)
        scale = self.value if self.operation == "multiply" else 1 / self.value
        return factor * scale, shift * scale


@dataclass(frozen=True)
class InputColumn:
    """A column: an input of the network, followed by operations.

    The input is a feature of the estimator, given by its number, or with ``code`` one of the columns in which a one-hot encoder codes the
    feature.
    """

    feature: int
    code: int | None = None
    steps: tuple[ColumnStep, ...] = ()

    @property
    def source(self) -> tuple[int, int | None]:
        """The input."""
        return self.feature, self.code

    def then(self, *steps: ColumnStep) -> InputColumn:
        """Return the column after further operations."""
        return replace(self, steps=(*self.steps, *steps))

    def apply(self, x: Array) -> Array:
        """Return the values of the column at values of its input."""
        for step in self.steps:
            x = step.apply(x)
        return x

    @property
    def clips(self) -> tuple[tuple[float, float], ...]:
        """The ranges to which the column is clipped, in order."""
        return tuple((step.value, step.high) for step in self.steps if step.operation == "clip")

    @property
    def lines(self) -> tuple[Affine1d, ...]:
        """The lines before, between and after the clips."""
        found = [(1.0, 0.0)]
        for step in self.steps:
            if step.operation == "clip":
                found.append((1.0, 0.0))
            else:
                found[-1] = step.after(found[-1])
        return tuple(found)
