"""Dense: ``y = W x + b``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from mipnet.arrays import Csr, Shape
from mipnet.bounds.interval import Interval, interval, linear
from mipnet.bounds.linear_rules import BackwardBound, affine, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.network.graph import Layer, constant, require


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """``y = W x + b`` for a vector x; ``weight`` has shape ``(outputs, inputs)``, and ``bias`` has shape ``(outputs,)`` or is None."""

    weight: Tensor
    bias: Tensor | None = None

    prunable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", constant(self.weight, "the weight of a dense layer"))
        if self.bias is not None:
            object.__setattr__(self, "bias", constant(self.bias, "the bias of a dense layer"))
        require(self.weight.ndim == 2, f"the weight has shape {tuple(self.weight.shape)}; expected (outputs, inputs)")
        ok = self.bias is None or self.bias.shape == self.weight.shape[:1]
        require(ok, f"the bias has shape {tuple(getattr(self.bias, 'shape', ()))}; expected ({len(self.weight)},)")

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(outputs,)``."""
        (given,) = inputs
        require(given == (self.weight.shape[1],), f"its input has shape {given}; the weight expects ({self.weight.shape[1]},)")
        return (self.weight.shape[0],)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return ``x @ W.T + b``."""
        (x,) = inputs
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


@interval.register(Dense)
def _(layer: Dense, x: Interval) -> Interval:
    return linear(layer.forward, lambda r: F.linear(r, layer.weight.abs()), x)


@backward.register(Dense)
@affine
def _(layer: Dense, coefficients: Tensor, x: Interval) -> BackwardBound:
    """``c . (W x + b) = (c W) . x + c . b``."""
    constant = coefficients.new_zeros(len(coefficients)) if layer.bias is None else coefficients @ layer.bias
    return (coefficients @ layer.weight,), constant


@linear_map.register(Dense)
def _(layer: Dense, *shapes: Shape) -> tuple[Csr, ...]:
    weight = layer.weight.numpy()
    (rows, columns), kind = weight.shape, np.int32 if weight.size < 2**31 else np.int64
    columns_of_rows = np.tile(np.arange(columns, dtype=kind), rows)
    matrix = Csr((weight.reshape(-1).copy(), columns_of_rows, np.arange(0, weight.size + 1, columns, dtype=kind)), shape=weight.shape)
    matrix.eliminate_zeros()
    return (matrix,)
