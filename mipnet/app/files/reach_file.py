"""The YAML file of `mipnet reach`."""

from __future__ import annotations

from typing import Annotated, Literal

from mipnet.app.files.certify_file import InputSetFile
from mipnet.app.files.values import FiniteNumber, ListAsTuple, choice, expects


class ReachFile(InputSetFile):
    """A YAML file for `mipnet reach`: a network, an input set, and linear functions of the outputs (each output if left out)."""

    task: Annotated[Literal["reach"], choice("reach")]
    directions: Annotated[
        tuple[Annotated[tuple[FiniteNumber, ...], ListAsTuple], ...] | None,
        ListAsTuple,
        expects("a list of rows, such as [[1, -1]], with one number per output"),
    ] = None
