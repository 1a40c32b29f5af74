"""Rules of linear backward bounds: how a linear function of a layer's output is bounded by a linear function of its inputs.

A row of coefficients c stands for the function ``c . y`` of an output y.  The rule of a layer gives, for every row, coefficients a of
each input and a number b with

    c . layer(x)  >=  a . x + b        for every x in the input boxes,

so that rows are propagated back to the input of the network, where their minimum is known (Zhang et al., "Efficient Neural Network
Robustness Certification with General Activation Functions", NeurIPS 2018, section 3: CROWN).  `backward` is open: register a rule for
a layer of your own with ``@backward.register(MyLayer)``, or a rule of `lines` if it acts on each element alone.  For a layer with
neither, the interval bounds of its output are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, TypeVar

import torch
from torch import Tensor

from mipnet.bounds.interval import Interval, interval
from mipnet.errors import UnsupportedError, suggest_keywords
from mipnet.errors.expectations import expects
from mipnet.limits.code_digests import RULES_BY_CLASS
from mipnet.network.graph import Layer
from mipnet.network.layer_rules import checks_kinds

BackwardBound = tuple[Sequence[Tensor], Tensor]
"""The result of a rule: coefficients ``(rows, *shape)`` per input, and constants ``(rows,)``."""

BackwardRule = Callable[..., BackwardBound]
R = TypeVar("R", bound=BackwardRule)


@checks_kinds("tensor", "interval")
@singledispatch
def backward(layer: Layer, coefficients: Tensor, *inputs: Interval) -> BackwardBound:
    """Return a_i and b with ``coefficients . layer(x) >= sum of a_i . x_i + b``, row by row.

    ``coefficients`` has shape ``(rows, *shape of the output)``; the boxes of the inputs have one entry per row, or a single one for all
    rows.  The ``a_i`` have shape ``(rows, *shape of input i)`` and ``b`` has shape ``(rows,)``.
    """
    if is_elementwise(layer):
        return lines(layer, inputs[0]).backward(coefficients)
    raise UnsupportedError(
        f"no backward rule for layer `{layer.label}`; register one with `@mipnet.backward.register({type(layer).__name__})`"
    )


@dataclass(frozen=True, eq=False)
class Lines:
    """``lower_slope x + lower_shift <= f(x) <= upper_slope x + upper_shift``, element by element."""

    lower_slope: Tensor
    lower_shift: Tensor
    upper_slope: Tensor
    upper_shift: Tensor

    @property
    def differ(self) -> Tensor:
        """True where the two lines differ, that is, where f is not linear on the interval."""
        return (self.lower_slope != self.upper_slope) | (self.lower_shift != self.upper_shift)

    @expects("numbers of samples")
    def of(self, samples: Tensor) -> Lines:
        """Return the lines of some samples; those of a single sample hold for all."""
        if len(self.lower_slope) == 1:
            return self
        return Lines(self.lower_slope[samples], self.lower_shift[samples], self.upper_slope[samples], self.upper_shift[samples])

    @expects("coefficients as a tensor, row by row")
    def backward(self, coefficients: Tensor) -> BackwardBound:
        """Apply the backward rule: the lower line for positive coefficients, the upper line for negative ones."""
        positive = coefficients.clamp(min=0)
        negative = coefficients - positive
        parts = ((positive, self.lower_shift), (negative, self.upper_shift))
        shift = torch.stack([torch.linalg.vecdot(part.flatten(1), end.flatten(1)) for part, end in parts]).sum(0)
        return (torch.addcmul(positive * self.lower_slope, negative, self.upper_slope),), shift

    @suggest_keywords
    def combined(self, factor: float | Tensor, slope: float | Tensor) -> Lines:
        """Return the lines of ``factor f(x) + slope x``, for numbers or for tensors that broadcast to one sample."""
        rising = torch.as_tensor(factor) >= 0
        slopes = [torch.where(rising, *ends) for ends in ((self.lower_slope, self.upper_slope), (self.upper_slope, self.lower_slope))]
        shifts = [torch.where(rising, *ends) for ends in ((self.lower_shift, self.upper_shift), (self.upper_shift, self.lower_shift))]
        return Lines(factor * slopes[0] + slope, factor * shifts[0], factor * slopes[1] + slope, factor * shifts[1])


@checks_kinds("interval", "choice")
@singledispatch
def lines(layer: Layer, x: Interval, choice: Tensor | None = None) -> Lines:
    """Return a line below and a line above a layer that acts on each element alone, on the interval ``x``.

    If several lines are valid, ``choice`` selects one: one number in [0, 1] per element, which may be optimised.  Every choice gives valid
    lines.  Without ``choice`` the rule selects.
    """
    raise UnsupportedError(f"layer `{layer.label}` has no lines; register them with `@mipnet.lines.register({type(layer).__name__})`")


def is_elementwise(layer: Layer) -> bool:
    """Return True if the layer has a rule of `lines`."""
    return lines.dispatch(type(layer)) is not lines.dispatch(object)


def has_backward(layer: Layer) -> bool:
    """Return True if the layer has a rule of `backward` or `lines`."""
    return is_elementwise(layer) or backward.dispatch(type(layer)) is not backward.dispatch(object)


AFFINE_RULES: set[BackwardRule] = set()
"""Rules of affine layers: they hold with equality, and read only the shapes of the input boxes."""


def affine(rule: R) -> R:
    """Mark a backward rule as that of an affine layer: it holds with equality."""
    AFFINE_RULES.add(rule)
    return rule


@affine
@checks_kinds("tensor", "interval")
def adjoint(layer: Layer, coefficients: Tensor, *inputs: Interval) -> BackwardBound:
    """The backward rule of any affine layer: ``a = c J`` with its Jacobian J, by automatic differentiation, and ``b = c . layer(0)``."""
    zeros = [torch.zeros(len(coefficients), *x.lower.shape[1:], dtype=coefficients.dtype) for x in inputs]
    differentiated: Any = torch.func.vjp(layer.forward, *zeros)
    at_zero, pull = differentiated
    return pull(coefficients), (coefficients * at_zero).flatten(1).sum(1)


@affine
def rearranged(layer: Layer, coefficients: Tensor, *inputs: Interval) -> BackwardBound:
    """The backward rule of a layer that only rearranges elements: `adjoint`; independent elements stay independent."""
    return adjoint(layer, coefficients, *inputs)


def is_exact(layer: Layer) -> bool:
    """Return True if the layer's rule is marked as `affine`."""
    return backward.dispatch(type(layer)) in AFFINE_RULES


def moves(layer: Layer) -> bool:
    """Return True if every output element depends on one input element only."""
    return layer.unitwise or backward.dispatch(type(layer)) is rearranged


def clip_lines(x: Interval, low: float, high: float, choice: Tensor | None = None) -> Lines:
    """Return lines of ``f(x) = min(max(x, low), high)``; either end may be infinite, and ReLU is ``clip(x, 0, inf)``.

    Where f is linear on [l, u], both lines are f.  Otherwise the line below is the chord from (l, f(l)) to (u, f(u)) if ``l >= low``, and
    a line through the kink (low, low) with slope ``choice (f(u) - low) / (u - low)`` if not; the line above likewise at (high, high).
    Without ``choice`` the slope is taken at 0 or 1, whichever gives the smaller area (Zhang et al. 2018, section 3.3).
    """
    lower, upper = x.lower, x.upper
    at_lower, at_upper = lower.clamp(low, high), upper.clamp(low, high)
    flat = (upper <= low) | (lower >= high)
    straight = flat | ((lower >= low) & (upper <= high))
    slope = torch.where(flat, 0.0, torch.where(straight, 1.0, (at_upper - at_lower) / torch.where(straight, 1.0, upper - lower)))
    shift = torch.where(straight & ~flat, 0.0, at_lower - slope * torch.where(flat, 0.0, lower))
    below, above = (slope, shift), (slope, shift)
    if low > -torch.inf:
        bent = ~straight & (lower < low)
        below = _line_through(low, bent, (at_upper - low) / torch.where(bent, upper - low, 1.0), upper - low >= low - lower, choice, below)
    if high < torch.inf:
        bent = ~straight & (upper > high)
        above = _line_through(
            high, bent, (high - at_lower) / torch.where(bent, high - lower, 1.0), high - lower >= upper - high, choice, above
        )
    return Lines(*below, *above)


def _line_through(
    kink: float, where: Tensor, steepest: Tensor, steep: Tensor, choice: Tensor | None, other: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return slope and shift of a line through ``(kink, kink)`` in the elements ``where``, and of the ``other`` line elsewhere."""
    slope = torch.where(where, steepest, 0.0) * (steep.to(steepest.dtype) if choice is None else choice)
    return torch.where(where, slope, other[0]), torch.where(where, kink - slope * kink, other[1])


def gate_lines(y: Interval) -> Lines:
    """Return lines of a gated value that hold for every score: ``min(0, y) <= y' <= max(0, y)``, see `mipnet.network.gates`.

    The score is projected out: for every s in [0, 1] a soft threshold lies between 0 and y, and for s in {0, 1} it is one of them.
    The lines are the chords of min(0, y) and max(0, y) on [l, u].
    """
    lower, upper = y.with_zero.lower, y.with_zero.upper
    mixed = (lower < 0) & (upper > 0)
    width = torch.where(mixed, upper - lower, 1.0)
    below = torch.where(mixed, -lower / width, (lower < 0).to(lower.dtype))
    above = torch.where(mixed, upper / width, (upper > 0).to(upper.dtype))
    product = torch.where(mixed, lower * upper / width, 0.0)
    return Lines(below, product, above, -product)


def _rules(kind: type) -> list[object]:
    """Return the rules of a layer type, for digests."""
    return [rules.dispatch(kind) for rules in (interval, backward, lines)] if issubclass(kind, Layer) else []


RULES_BY_CLASS.append(_rules)
