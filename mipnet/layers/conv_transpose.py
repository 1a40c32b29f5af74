"""ConvTranspose2d: a transposed convolution, each input element adds a copy of the kernel to the output."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from mipnet.arrays import Csr, Shape
from mipnet.bounds.interval import Interval, interval, linear
from mipnet.bounds.linear_rules import BackwardBound, affine, backward
from mipnet.errors import suggest_keywords
from mipnet.formulations.registry import linear_map
from mipnet.layers.conv import Conv2d, bias_constant
from mipnet.layers.window import Pair, Sides
from mipnet.network.graph import Layer, constant, require


@suggest_keywords
@dataclass(frozen=True, eq=False)
class ConvTranspose2d(Layer):
    """``y[o, r*stride + u*dilation - top, c*stride + v*dilation - left] += W[i, o, u, v] x[i, r, c]``, and ``b[o]`` everywhere.

    ``weight`` has shape ``(inputs, outputs / groups, rows, cols)``, and ``bias`` has shape ``(outputs,)`` or is None.  ``cut`` is the
    number of rows and columns cut off at ``(top, bottom, left, right)``; a negative number adds them.  torch's ``padding`` p and
    ``output_padding`` q are ``cut=(p, p - q, p, p - q)``.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: Pair = (1, 1)
    cut: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", constant(self.weight, "the weight of a transposed convolution"))
        if self.bias is not None:
            object.__setattr__(self, "bias", constant(self.bias, "the bias of a transposed convolution"))
        require(self.weight.ndim == 4, f"the weight has shape {tuple(self.weight.shape)}; expected (inputs, outputs/groups, rows, cols)")
        outputs = int(self.weight.shape[1]) * self.groups
        ok = self.bias is None or tuple(self.bias.shape) == (outputs,)
        require(ok, f"the bias has shape {tuple(getattr(self.bias, 'shape', ()))}; expected ({outputs},)")
        require(len(self.weight) % self.groups == 0, f"{len(self.weight)} input channels do not divide into {self.groups} groups")

    def shape(self, *inputs: Shape) -> Shape:
        """Return ``(outputs, rows, cols)``."""
        (given,) = inputs
        require(len(given) == 3 and given[0] == len(self.weight), f"its input has shape {given}; expected ({len(self.weight)}, rows, cols)")
        lengths = [
            (n - 1) * step + gap * (int(k) - 1) + 1 - sum(self.cut[2 * axis : 2 * axis + 2])
            for axis, (n, step, gap, k) in enumerate(zip(given[1:], self.stride, self.dilation, self.weight.shape[2:], strict=True))
        ]
        require(min(lengths) > 0, f"cutting {self.cut} off leaves nothing of an input of shape {given}")
        return (int(self.weight.shape[1]) * self.groups, *lengths)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the transposed convolution of a batch."""
        (x,) = inputs
        return self._apply(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        full = F.conv_transpose2d(x, weight, None, self.stride, 0, 0, self.groups, self.dilation)
        top, bottom, left, right = self.cut
        found = F.pad(full, (-left, -right, -top, -bottom)) if any(self.cut) else full
        return found if bias is None else found + bias[:, None, None]

    def adjoint(self) -> Conv2d:
        """Return the convolution that is the adjoint map, without the bias."""
        return Conv2d(self.weight, None, self.stride, self.cut, self.dilation, self.groups)


@interval.register(ConvTranspose2d)
def _(layer: ConvTranspose2d, x: Interval) -> Interval:
    return linear(layer.forward, lambda r: layer._apply(r, layer.weight.abs(), None), x)


@backward.register(ConvTranspose2d)
@affine
def _(layer: ConvTranspose2d, coefficients: Tensor, x: Interval) -> BackwardBound:
    """Return the convolution of the coefficients."""
    return (layer.adjoint().forward(coefficients),), bias_constant(layer.bias, coefficients)


@linear_map.register(ConvTranspose2d)
def _(layer: ConvTranspose2d, *shapes: Shape) -> tuple[Csr, ...]:
    """Return the transpose of the matrix of the adjoint convolution."""
    (matrix,) = linear_map(layer.adjoint(), layer.shape(*shapes))
    return (Csr(matrix.T.tocsr()),)
