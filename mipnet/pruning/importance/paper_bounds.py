"""The published bounds of the importance program, with their width and the rows of the activation pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mipnet.errors import check_choice, suggest_keywords

Pattern = Literal["free", "upper", "paper"]


@suggest_keywords
@dataclass(frozen=True)
class PaperBounds:
    """Bounds of the network without gates on each image, as published (ElAraby et al. 2023); ``bounds="paper"`` is ``PaperBounds()``.

    Parameters
    ----------
    pattern
        The rows of the activation pattern in the reduced-space program (``formulation={"relu": "frozen"}``): ``free``, ``upper`` or
        ``paper``; see `mipnet.pruning.importance.frozen_loss_rows`.  The full program always has all of them.
    epsilon
        The images are widened by this number before bounds are computed.
    """

    pattern: Pattern = "free"
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_choice("`pattern`", self.pattern, get_args(Pattern))
