"""The inputs among which the one nearest to an image is sought: those in some limits that satisfy some rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from mipnet.arrays import Array, Mask
from mipnet.formulations.distance import Norm
from mipnet.model.encoding import Encoding
from mipnet.network.polytopes import InputPolytope
from mipnet.network.sets import Box
from mipnet.verification.robustness import ClipRange, clipped_ball

NORM_ORDERS = {"linf": math.inf, "l1": 1.0, "l2": 2.0}

EXTENSIONS_RELATIVE = np.concatenate([[0.0], np.geomspace(1e-10, 1e-2, 33)])
"""A solver's point on the boundary of two classes is moved away from the input by these shares of its distance until the class changes."""

POLYTOPE_TOLERANCE_RELATIVE = 1e-6
"""How far a point that satisfies rules may lie outside of a polytope, relative to the widest range of its inputs."""


class InputRules(Protocol):
    """Rules that an input has to satisfy, such as whole numbers; inputs are flat, ``(n, inputs)``."""

    def repaired(self, x: Array) -> Array:
        """Return inputs near those given that satisfy the rules where that is easy, some of them in several variants."""

    def hold(self, x: Array) -> Mask:
        """Return which inputs satisfy the rules."""

    def possible(self, lower: Array, upper: Array) -> bool:
        """Return False if no input between ``lower`` and ``upper`` ``(inputs,)`` satisfies the rules; True if one may."""

    def write(self, encoding: Encoding) -> None:
        """Add the rules to the program of a network over a part of the domain, with what a forward pass makes of their variables."""


@dataclass(frozen=True, eq=False)
class InputLimits:
    """The inputs ``lower <= x <= upper`` in a polytope, if there is one; ends of shape ``(1, *input_shape)`` that may be infinite."""

    lower: Array
    upper: Array
    polytope: InputPolytope | None = None


@dataclass(frozen=True, eq=False)
class DistanceDomain:
    """All inputs x in ``limits`` that satisfy the ``rules``, with the distance ``norm((x - image) / scale)``.

    ``image`` has shape ``(1, *input_shape)``; the limits are a valid range of every input, or `InputLimits`; ``scale`` is a number or has
    the shape of the image.
    """

    image: Array
    norm: Norm
    limits: ClipRange | InputLimits = None
    scale: float | Array = 1.0
    rules: InputRules | None = None

    @property
    def plain(self) -> bool:
        """Whether every ball within the limits is in the domain."""
        return self.rules is None and not isinstance(self.limits, InputLimits) and isinstance(self.scale, float)

    @cached_property
    def ends(self) -> tuple[Array, Array]:
        """The smallest and the largest value of every input, of the shape of the image; infinite where there is no limit."""
        limits = self.limits
        low, high = (limits.lower, limits.upper) if isinstance(limits, InputLimits) else limits or (-np.inf, np.inf)
        return np.broadcast_to(low, self.image.shape), np.broadcast_to(high, self.image.shape)

    @property
    def reach(self) -> float:
        """The largest distance of a point within the limits; infinite without limits."""
        away = np.maximum(np.abs(self.ends[0] - self.image), np.abs(self.ends[1] - self.image)) / self.scale
        return float(np.linalg.norm(away.reshape(-1), NORM_ORDERS[self.norm]))

    def region(self, radius: float) -> Box | None:
        """Return a set that contains all inputs of the domain within a radius; None if there are none."""
        if self.plain:
            return clipped_ball(self.image, radius, self.norm, None if isinstance(self.limits, InputLimits) else self.limits)
        step = radius * self.scale
        low, high = np.maximum(self.ends[0], self.image - step), np.minimum(self.ends[1], self.image + step)
        if (low > high).any() or not (self.rules is None or self.rules.possible(low.reshape(-1), high.reshape(-1))):
            return None
        return Box(low, high, polytope=self.limits.polytope if isinstance(self.limits, InputLimits) else None)

    def distance(self, x: Array) -> Array:
        """Return the distance of each input ``(n, *input_shape)`` from the image."""
        away = ((x - self.image) / self.scale).reshape(len(x), -1)
        return np.asarray(np.linalg.norm(away, NORM_ORDERS[self.norm], axis=1))

    def admitted(self, x: Array) -> Array:
        """Return those of some inputs ``(n, *input_shape)``, or inputs near them, that lie in the domain."""
        if self.plain or not len(x):
            return x
        low, high = self.ends
        x = np.clip(x, low, high)
        polytope = self.limits.polytope if isinstance(self.limits, InputLimits) else None
        flat, room = x.reshape(len(x), -1), 0.0
        if polytope is not None:
            flat = polytope.nearest(flat, low.reshape(1, -1), high.reshape(1, -1))
            room = POLYTOPE_TOLERANCE_RELATIVE * float((high - low).max()) if self.rules is not None else 1e-9
        if self.rules is not None:
            flat = self.rules.repaired(flat)
            flat = flat[self.rules.hold(flat)]
        flat = flat[((flat >= low.reshape(1, -1)) & (flat <= high.reshape(1, -1))).all(axis=1)]
        if polytope is not None and len(flat):
            flat = flat[polytope.violation(flat) <= room]
        return np.asarray(flat.reshape(len(flat), *x.shape[1:]))

    def beyond(self, x: Array) -> Array:
        """Return an input ``(1, *input_shape)``, and further ones slightly farther from the image, within the limits."""
        steps = (1 + EXTENSIONS_RELATIVE).reshape(-1, *[1] * (x.ndim - 1))
        return np.clip(self.image + steps * (x - self.image), *self.ends)

    def between(self, x: Array) -> Array:
        """Return 64 points on the line from the image to each of some inputs."""
        return np.concatenate([self.image + t * (x - self.image) for t in np.linspace(0.0, 1.0, 65)[1:]])
