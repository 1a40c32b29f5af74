"""The minimum and the maximum of a linear function of the outputs of a softmax, as minima of functions of the logits.

For a group of outputs p with sum 1, logits y, and a set A of them::

    p(A) = sum_{k in A} p_k = 1 / (1 + exp(h)),      h = log sum_{j not in A} exp(y_j) - log sum_{i in A} exp(y_i)

so the maximum of p(A) is the minimum of h, and the minimum of p(A) that of -h.  A function ``d . p`` whose coefficients are ``low`` or
``high`` is ``low + (high - low) p(A)``.  A log-probability is ``-log(1 + exp(h))`` with A of one output.  A function of
log-probabilities whose coefficients sum to 0 is the same function of the logits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array, Ints
from mipnet.errors import UnsupportedError
from mipnet.network.graph import Network, size
from mipnet.verification.output_functions import OutputFunctions
from mipnet.verification.softmax_rows import LogSumRow

CONVERSION_ROUNDING_RELATIVE = 1e-14
"""Relative rounding error of an output that is computed from h, per 1 + the absolute value of h."""

ROW_COEFFICIENTS_MAX = 10_000_000
"""Number of coefficients of differences of logits in one search, 8 bytes each."""

EXPONENT_MAX = 1e3
"""The exponential of a larger number is infinite."""

SMALLEST_ERROR = 1e-300
"""Error of numbers near 0, which have fewer digits."""


class OutputEnd(ABC):
    """The minimum or the maximum of one function of the outputs, as the minimum of a function f of the logits.

    ``output`` is the function of the outputs at a value of f; it moves towards the end as f decreases.
    """

    @abstractmethod
    def output(self, f: float) -> float:
        """Return the function of the outputs."""

    @abstractmethod
    def outward(self, f: float, side: int) -> float:
        """Return a number above (``side`` 1) or below (-1) the function of the outputs, by the rounding error of `output`."""

    def size(self, f: float, largest: float) -> float:
        """Return the size of the function of the outputs at a value of f: its absolute value, and at least 1, the sum of probabilities."""
        return max(1.0, abs(self.output(f)))

    @abstractmethod
    def step(self, f: float, gap: float) -> float:
        """Return how far f may decrease until the function of the outputs has changed by ``gap``; infinite if it never does."""


@dataclass(frozen=True)
class LinearEnd(OutputEnd):
    """The end of a linear function: ``output`` is ``sign * f``."""

    sign: float

    def output(self, f: float) -> float:
        """Return the function of the outputs."""
        return self.sign * f

    def size(self, f: float, largest: float) -> float:
        """Return the largest absolute value of the function."""
        return largest

    def outward(self, f: float, side: int) -> float:
        """Return the function of the outputs, which is not rounded."""
        return self.output(f)

    def step(self, f: float, gap: float) -> float:
        """Return the gap."""
        return gap


@dataclass(frozen=True)
class ProbabilityEnd(OutputEnd):
    """The end of ``low + (high - low) p(A)``: the maximum with f = h, or with ``sign`` = -1 the minimum with f = -h."""

    sign: float
    low: float
    high: float

    def output(self, f: float) -> float:
        """Return the function of the outputs."""
        return self.low + (self.high - self.low) * _share(-self.sign * f)

    def outward(self, f: float, side: int) -> float:
        """Return a number beyond the function of the outputs, in its range."""
        error = (self.high - self.low) * _share(-self.sign * f) * _relative(f) + abs(self.low) * _relative(0) + SMALLEST_ERROR
        return min(self.high, max(self.low, self.output(f) + side * error))

    def step(self, f: float, gap: float) -> float:
        """Return how far f may decrease."""
        share = _share(-f) + gap / (self.high - self.low)
        return math.inf if share >= 1 else max(0.0, f - math.log1p(-share) + math.log(share))


@dataclass(frozen=True)
class LogProbabilityEnd(OutputEnd):
    """The end of ``factor`` times a log-probability: at its maximum with f = h, or with ``sign`` = -1 at its minimum with f = -h."""

    sign: float
    factor: float

    def output(self, f: float) -> float:
        """Return the function of the outputs."""
        return -self.factor * _softplus(self.sign * f)

    def outward(self, f: float, side: int) -> float:
        """Return a number beyond the function of the outputs, with its sign."""
        found = self.output(f)
        found += side * (abs(found) * _relative(f) + SMALLEST_ERROR)
        return min(found, 0.0) if self.factor > 0 else max(found, 0.0)

    def step(self, f: float, gap: float) -> float:
        """Return how far f may decrease."""
        there = _softplus(self.sign * f) - self.sign * gap / abs(self.factor)  # -log p at the end of the step
        return math.inf if there <= 0 else max(0.0, f - self.sign * (there + math.log(-math.expm1(-there))))


def _relative(f: float) -> float:
    """Return the relative rounding error of an output that is computed from f."""
    return CONVERSION_ROUNDING_RELATIVE * (1 + min(abs(f), EXPONENT_MAX))


def _softplus(z: float) -> float:
    """Return ``log(1 + exp(z))``."""
    return float(np.logaddexp(0.0, z))


def _share(z: float) -> float:
    """Return ``1 / (1 + exp(-z))``."""
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


@dataclass(frozen=True, eq=False)
class SoftmaxFunctions(OutputFunctions):
    """The functions of the logits whose minima are ``ends``, one group each."""

    ends: tuple[OutputEnd, ...] = ()

    def gap(self, value: Array, size: Array, tolerance: float) -> Array:
        """Return the gap at which each group is finished, from a tolerance of the outputs relative to `OutputEnd.size`."""
        at = zip(value.tolist(), size.tolist(), self.ends, strict=True)
        return np.array([end.step(f, tolerance * end.size(f, largest)) for f, largest, end in at])

    def parts(self) -> list[SoftmaxFunctions]:
        """Return the functions in parts, in order, with about `ROW_COEFFICIENTS_MAX` coefficients of rows of logits in each."""
        width = self.matrix.shape[1]
        sizes = [width * (self.log_sums[k].shift.size if k in self.log_sums else 1) for k in range(len(self.ends))]
        number = np.cumsum(sizes) // ROW_COEFFICIENTS_MAX
        return [self._part(np.flatnonzero(number == each)) for each in np.unique(number)]

    def _part(self, rows: Ints) -> SoftmaxFunctions:
        log_sums = {k: self.log_sums[row] for k, row in enumerate(rows.tolist()) if row in self.log_sums}
        ends = tuple(self.ends[row] for row in rows.tolist())
        return SoftmaxFunctions(self.matrix[rows], self.offset[rows], np.arange(len(rows)), log_sums, ends)


def softmax_functions(network: Network, directions: Array) -> SoftmaxFunctions:
    """Return the minimum of each of ``directions`` ``(functions, outputs)``, and then the maximum of each, as functions of the logits.

    Raises `UnsupportedError` for a direction that is no single function of this kind.
    """
    count, found = size(network.output_shape), [_reduced(network, each, number) for number, each in enumerate(directions)]
    matrix, offset = np.zeros((2 * len(found), count)), np.zeros(2 * len(found))
    log_sums, ends = dict[int, LogSumRow](), list[OutputEnd]()
    for sign in (-1.0, 1.0):
        for each in found:
            if each.row is None:
                matrix[len(ends)], offset[len(ends)] = -sign * each.linear, -sign * each.low
                ends.append(LinearEnd(-sign))
            elif each.factor:
                up = sign if each.factor > 0 else -sign
                log_sums[len(ends)] = each.row if up > 0 else each.row.swapped
                ends.append(LogProbabilityEnd(up, each.factor))
            else:
                log_sums[len(ends)] = each.row if sign > 0 else each.row.swapped
                ends.append(ProbabilityEnd(sign, each.low, each.high))
    return SoftmaxFunctions(matrix, offset, np.arange(len(ends)), log_sums, tuple(ends))


@dataclass(frozen=True, eq=False)
class _Reduced:
    """One direction: ``linear @ y + low`` of the logits y; or with a ``row``, ``low + (high - low) p(A)``, or ``factor`` log p(A)."""

    linear: Array
    low: float = 0.0
    high: float = 0.0
    factor: float = 0.0
    row: LogSumRow | None = None


def _reduced(network: Network, direction: Array, number: int) -> _Reduced:
    softmax = network.softmax
    if softmax is None or not direction.any():
        return _Reduced(direction)
    groups = softmax.groups(network.output_shape)
    if softmax.kind == "log_softmax" and all(math.fsum(direction[group]) == 0 for group in groups):
        return _Reduced(direction)
    read = [group for group in groups if direction[group].any()]
    inside, nothing = direction[read[0]], 0 * direction
    values = np.unique(inside)
    single = np.count_nonzero(inside) == 1
    if len(read) > 1 or len(values) > 2 or (softmax.kind == "log_softmax" and not single):
        raise UnsupportedError(
            f"direction {number} joins {np.count_nonzero(direction)} outputs, and the network ends in a {softmax.kind}; expected single"
            f" outputs, {'sums of outputs' if softmax.kind == 'softmax' else 'differences of outputs'}, or `network.without_softmax()` for"
            " functions of the logits"
        )
    if len(inside) == 1 or len(values) == 1:  # all of a group, whose sum is 1
        return _Reduced(nothing, float(values[0]) if softmax.kind == "softmax" else 0.0)
    if softmax.kind == "log_softmax":
        return _Reduced(nothing, factor=float(inside.sum()), row=log_odds(read[0], inside != 0))
    return _Reduced(nothing, float(values[0]), float(values[1]), row=log_odds(read[0], inside == values[1]))


def log_odds(group: Ints, chosen: NDArray[np.bool_]) -> LogSumRow:
    """Return h: the log-sum of the other logits of a group less that of the chosen ones."""
    others = ~chosen
    return LogSumRow(group[others], group[chosen], np.zeros((int(others.sum()), int(chosen.sum()))))
