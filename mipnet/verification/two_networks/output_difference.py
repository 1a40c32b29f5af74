"""The largest difference of the outputs of two networks, from functions of the difference of their last nodes.

For two softmaxes p and q of logits y and z, let ``d = y - z`` and ``s = max_k d_k - min_k d_k`` over the outputs of one group.  From
``p_k = q_k exp(d_k) / sum_j q_j exp(d_j)`` follows::

    |log p_k - log q_k|  <=  s              |p_k - q_k|  <=  tanh(s / 4)

The first holds because ``log sum_j q_j exp(d_j)`` is a mean of the d_j.  For the second, p_k is largest for a given ``q_k = t`` if d_k is s
above all others; ``t e^s / (t e^s + 1 - t) - t`` is largest at ``t = 1 / (1 + e^(s/2))``, where it is ``tanh(s / 4)``.  Both are attained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mipnet.arrays import Array, Shape
from mipnet.errors import UnsupportedError
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.graph import Network, size

PAIRED_OUTPUTS_MAX = 32
"""In groups of more outputs than this, s is bounded by twice the largest absolute difference, not from all pairs of outputs."""

TANH_ROUNDING_RELATIVE = 1e-14
"""Relative rounding error of the conversions of s."""


@dataclass(frozen=True)
class DifferenceScale:
    """How the difference of the outputs follows from the difference of the last nodes, for outputs of ``shape``."""

    softmax: FinalSoftmax | None
    shape: Shape

    @staticmethod
    def of(first: Network, second: Network) -> DifferenceScale:
        """Return the scale of two networks; raises `UnsupportedError` unless both end in the same softmax, or in none."""
        one, other = first.softmax, second.softmax
        same = one == other and (one is None or first.output_shape == second.output_shape)
        if not same:
            said = ["ends in no softmax" if each is None else f"ends in a {each.kind} over axes {each.axes}" for each in (one, other)]
            raise UnsupportedError(
                f"the first network {said[0]}, the second {said[1]}: their outputs are different quantities; expected the same softmax in"
                " both. `network.without_softmax()` compares the logits, `mipnet.agree_on_class` (`about: class`) the classes"
            )
        return DifferenceScale(one, first.output_shape)

    @property
    def matrix(self) -> Array:
        """The functions of the difference of the last nodes, ``(functions, outputs)``, whose largest value is bounded."""
        every = np.eye(size(self.shape))
        if self.softmax is None:
            return np.concatenate([every, -every])
        groups = self.softmax.groups(self.shape)
        if groups.shape[1] == 1:
            return 0 * every[:1]
        if groups.shape[1] > PAIRED_OUTPUTS_MAX:
            return np.concatenate([2 * every, -2 * every])
        one, other = np.nonzero(~np.eye(groups.shape[1], dtype=bool))
        return (every[groups[:, one]] - every[groups[:, other]]).reshape(-1, len(every))

    @property
    def terms(self) -> float:
        """The sum of the absolute coefficients of a function."""
        return 1.0 if self.softmax is None else 2.0

    def outputs(self, bound: float) -> float:
        """Return a bound on the difference of the outputs, from one of the functions; rounded up."""
        if self.softmax is None:
            return bound
        found = max(0.0, bound) * (1 + TANH_ROUNDING_RELATIVE)
        return found if self.softmax.kind == "log_softmax" else min(1.0, math.tanh(found / 4) * (1 + TANH_ROUNDING_RELATIVE))

    def enough(self, limit: float) -> float:
        """Return a bound of the functions for which the outputs differ by at most ``limit``; rounded down."""
        if self.softmax is None:
            return limit
        lower = limit * (1 - 4 * TANH_ROUNDING_RELATIVE)
        if self.softmax.kind == "log_softmax":
            return lower
        return 4 * math.atanh(lower) * (1 - TANH_ROUNDING_RELATIVE) if limit < 1 else math.inf


@dataclass(frozen=True, eq=False)
class OutputDifference:
    """Minus the absolute difference of each output of two networks, for a search for its minimum."""

    first: Network
    second: Network

    @property
    def network(self) -> Network:
        """The network whose passes cost most."""
        return max(self.first, self.second, key=len)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the values ``(n, outputs)`` at inputs ``(n, *input_shape)``, differentiable."""
        one, other = (_outputs(each, x).flatten(1) for each in (self.first, self.second))
        return -(one - other).abs()


def _outputs(network: Network, x: Tensor) -> Tensor:
    y = network.values(x)[network.output.name]
    return y if network.softmax is None else network.softmax.apply(y)


def largest_difference(first: Network, second: Network, x: Array) -> float:
    """Return the largest difference of the outputs at an input ``(1, *input_shape)``."""
    return float(np.abs(first.outputs(x) - second.outputs(x).reshape(first.outputs(x).shape)).max())
