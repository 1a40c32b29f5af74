"""A softmax or log-softmax at the end of a network, which the readers take off: its function, and which outputs it joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Ints, Shape
from mipnet.errors import NetworkError, suggest_keywords
from mipnet.errors.expectations import expects


@suggest_keywords
@dataclass(frozen=True)
class FinalSoftmax:
    """The function that turns the value y of the last node into the outputs p of the file or module::

        softmax      p_k = exp(y_k) / sum_j exp(y_j)
        log_softmax  p_k = y_k - log sum_j exp(y_j)

    The sums run over ``axes`` of one sample.  Outputs that share a sum form a group: within a group, p has the order of y.
    """

    kind: Literal["softmax", "log_softmax"]
    axes: tuple[int, ...]

    @property
    def note(self) -> str:
        """The entry of `Network.notes`."""
        return f"the final {self.kind} was taken off: the value of the last node is what goes into it, and `Network.outputs` applies it"

    @expects("a shape, such as (10,)")
    def check(self, shape: Shape) -> None:
        """Raise `NetworkError` unless the axes are different axes of a sample of this shape."""
        if not self.axes or len(set(self.axes)) < len(self.axes) or not all(0 <= axis < len(shape) for axis in self.axes):
            raise NetworkError(
                f"the final {self.kind} normalises over axes {self.axes} of the output {shape}; expected different axes of it"
            )

    @expects("a tensor of shape (samples, *output shape)")
    def apply(self, y: Tensor) -> Tensor:
        """Return the outputs for values ``(samples, *output_shape)`` of the last node."""
        logs = y - torch.logsumexp(y, tuple(axis + 1 for axis in self.axes), keepdim=True)
        return logs.exp() if self.kind == "softmax" else logs

    @expects("a shape, such as (10,)")
    def groups(self, shape: Shape) -> Ints:
        """Return the numbers of the flat outputs of each group, for outputs of this shape: ``(groups, outputs of one group)``."""
        others = [axis for axis in range(len(shape)) if axis not in self.axes]
        numbers = np.arange(int(np.prod(shape))).reshape(shape).transpose(*others, *self.axes)
        return numbers.reshape(int(np.prod([shape[axis] for axis in others], dtype=int)), -1)
