"""AxisDense: a dense layer along one axis, for each position of the others, as on tokens; sums, means and cumulative sums."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from mipnet.arrays import Csr, Shape
from mipnet.bounds.interval import Interval, interval, linear
from mipnet.bounds.linear_rules import BackwardBound, affine, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.network.graph import Layer, constant, require, size


@suggest_keywords
@dataclass(frozen=True, eq=False)
class AxisDense(Layer):
    """``y[..., o, ...] = b[o] + sum_i W[o, i] x[..., i, ...]`` along the ``axis`` of one sample; -1 is the last one.

    ``weight`` has shape ``(outputs, inputs)``, and ``bias`` has shape ``(outputs,)`` or is None.  Set ``trained`` to False if they are
    constants, as those of a mean.
    """

    weight: Tensor
    bias: Tensor | None = None
    axis: int = -1
    trained: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", constant(self.weight, "the weight of a dense layer along an axis"))
        if self.bias is not None:
            object.__setattr__(self, "bias", constant(self.bias, "the bias of a dense layer along an axis"))
        require(self.weight.ndim == 2, f"the weight has shape {tuple(self.weight.shape)}; expected (outputs, inputs)")
        ok = self.bias is None or self.bias.shape == self.weight.shape[:1]
        require(ok, f"the bias has shape {tuple(getattr(self.bias, 'shape', ()))}; expected ({len(self.weight)},)")

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input with ``outputs`` as the length of the axis."""
        (given,) = inputs
        require(-len(given) <= self.axis < len(given), f"its axis is {self.axis} and its input has shape {given}")
        place = self.axis % len(given)
        wanted = int(self.weight.shape[1])
        require(given[place] == wanted, f"its input has shape {given}; the weight expects {wanted} numbers along axis {self.axis}")
        return (*given[:place], int(self.weight.shape[0]), *given[place + 1 :])

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the sums of a batch."""
        (x,) = inputs
        return self._apply(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        place = self.axis % (x.ndim - 1) + 1
        return F.linear(x.movedim(place, -1), weight, bias).movedim(-1, place)

    def weights(self) -> dict[str, Tensor]:
        """Return the trained tensors, by field name."""
        return super().weights() if self.trained else {}


@interval.register(AxisDense)
def _(layer: AxisDense, x: Interval) -> Interval:
    return linear(layer.forward, lambda r: layer._apply(r, layer.weight.abs(), None), x)


@backward.register(AxisDense)
@affine
def _(layer: AxisDense, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Return the coefficients times the weight along the axis."""
    part = layer._apply(coefficients, layer.weight.T.contiguous(), None)
    if layer.bias is None:
        return (part,), coefficients.new_zeros(len(coefficients))
    place = layer.axis % (coefficients.ndim - 1) + 1
    sums = coefficients.movedim(place, 1).reshape(*coefficients.shape[:1], len(layer.bias), -1).sum(2)
    return (part,), sums @ layer.bias


@linear_map.register(AxisDense)
def _(layer: AxisDense, *shapes: Shape) -> tuple[Csr, ...]:
    """Return the weight, repeated along the diagonal for every position of the other axes."""
    (given,) = shapes
    place = layer.axis % len(given)
    before, after = sparse.eye_array(size(given[:place])), sparse.eye_array(size(given[place + 1 :]))
    weight = sparse.csr_array(layer.weight.numpy())
    return (Csr(sparse.kron(before, sparse.kron(weight, after, format="csr"), format="csr")),)


def sum_weight(length: int) -> Tensor:
    """Return the weight of the sum over an axis of this length."""
    return torch.ones(1, length, dtype=torch.float64)
