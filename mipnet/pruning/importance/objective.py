"""The objective of the importance program: sparsity against the loss of the gated network, and the weight between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mipnet.errors import InputError, check_choice, shown, suggest_keywords
from mipnet.errors.argument_kinds import is_number
from mipnet.model.losses import Loss

SparsityNormalization = Literal["units", "parameters", "paper"]
SparsityLayers = Literal["paper", "all"]


@suggest_keywords
@dataclass(frozen=True)
class Objective:
    """``S + weight * mean over images of loss(logits, label)``, to be minimised; see `mipnet.pruning.importance.program` for S.

    Parameters
    ----------
    weight
        The loss weight, at least 0.  A larger weight prunes less.
    loss
        Cross-entropy or the margin loss.
    normalize
        The size N_l by which the sparsity of layer l is divided.  ``units``: the number of units.  ``paper``: the same, but ``units *
        kernel rows * kernel columns`` for a convolution, as in the reference code.  ``parameters``: such that a layer counts in
        proportion to its parameters.
    layers
        ``paper``: S sums the n - 1 largest of the n sparsities I_l (for n = 1, S = I_1).  ``all``: S sums all of them.
    """

    weight: float = 5.0
    loss: Loss = Loss()  # noqa: RUF009  (frozen)
    normalize: SparsityNormalization = "units"
    layers: SparsityLayers = "paper"

    def __post_init__(self) -> None:
        if not (is_number(self.weight) and 0 <= self.weight < math.inf):
            raise InputError(f"the loss weight is {shown(self.weight)}; expected a number of at least 0")
        check_choice("`normalize`", self.normalize, get_args(SparsityNormalization))
        check_choice("`layers`", self.layers, get_args(SparsityLayers))
