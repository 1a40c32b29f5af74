"""The inputs of networks in a user's model: their bounds there have to lie in the set that the network was written for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import linopy
import numpy as np

from mipnet.arrays import Mask, activity, distinct, widen
from mipnet.backend import Program
from mipnet.errors import InputError
from mipnet.model.encoding import Encoding
from mipnet.model.to_program import column_lookup

FEASIBILITY_ROUNDING = 1e-9
"""Largest violation of a constraint by a forward pass that counts as feasible, relative to the size of the constraint."""


def rows_of_user(model: linopy.Model, encodings: Sequence[Encoding]) -> Mask:
    """Return the rows of a model that none of these networks owns, as a mask."""
    own = {name for encoding in encodings for name in encoding.own_constraints}
    counts = {name: len(each.active_labels()) for name, each in model.constraints.data.items() if not each.is_indicator}
    return np.repeat(np.array([name not in own for name in counts], dtype=np.bool_), list(counts.values()))


def check_region(encoding: Encoding, program: Program, rows: Callable[[], Mask]) -> None:
    """Raise `InputError` if an input variable has bounds outside the input set for which the bounds of the network were computed.

    Variables without finite bounds have those that ``rows`` imply: rows that were there before the network, whose own rows hold only within
    the input set.
    """
    source = encoding.source
    if source.is_fixed:
        return
    labels = np.asarray(program.labels)
    width = max(source.terms.shape[1], int(labels.max(initial=-1)) + 1)
    ends = [np.zeros(width), np.zeros(width)]
    bounded = np.isfinite(program.lower) & np.isfinite(program.upper)
    if not bounded[column_lookup(labels)[distinct(source.terms.indices)]].all():
        program = replace(program, rows=program.rows.part(rows()))
    for end, given in zip(ends, program.implied_bounds, strict=True):
        end[labels] = given
    low, high = (found + source.constant.reshape(-1) for found in activity(widen(source.terms, width), *ends))
    lower, upper = (end.reshape(-1) for end in (encoding.region.lower, encoding.region.upper))
    rounding = FEASIBILITY_ROUNDING * (upper - lower) + (0.0 if encoding.host is None else FEASIBILITY_ROUNDING * (1 + np.abs(lower)))
    wider = ~((low >= lower - rounding) & (high <= upper + rounding))
    if encoding.enforced is not None:
        wider &= ~encoding.enforced.reshape(-1)
    if wider.any():
        raise InputError(
            f"{np.count_nonzero(wider)} inputs of the network have wider bounds than when it was written into the model, and its big-Ms"
            " are not valid for them; set the bounds before you add the network"
        )
