"""alpha-CROWN: among all valid lines, those with which the bounds are tightest, found by gradient steps.

Xu et al., "Fast and Complete: Enabling Complete Verification with Rapid and Massively Parallel Incomplete Verifiers" (ICLR 2021),
section 3.2.  Every choice of lines is valid, so each step gives true bounds and the best of all steps is kept, row by row: the result
is never worse than `mipnet.bounds.crown.crown`, which is where the steps begin.  Each row has choices of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipnet.bounds.crown import Known, Rows, ancestors, least, rows_at_once
from mipnet.bounds.interval import Interval
from mipnet.bounds.linear_rules import is_elementwise, lines
from mipnet.network.graph import Node

STEPS = 20
RATE = 0.25
DECAY = 0.9


def alpha(known: Known, node: Node, box: Interval, wanted: Tensor) -> Interval:
    """The node's box, where ``wanted`` improved by linear backward bounds with optimised lines."""
    rows = Rows.both(node, wanted)
    if not len(rows):
        return box
    return rows.improve(box, torch.cat([_best(known, part, box) for part in rows.split(rows_at_once(known.network, node))]))


def _best(known: Known, rows: Rows, box: Interval) -> Tensor:
    """The best lower bound of each row over the steps of projected Adam on the choices."""
    best = least(known, rows, box)
    choices = _begin(known, rows)
    if not choices:
        return best
    with torch.enable_grad():
        for choice in choices.values():
            choice.requires_grad_()
        adam = torch.optim.Adam(choices.values(), lr=RATE)
        for _ in range(STEPS):
            found = least(known, rows, box, choices)
            best = torch.maximum(best, found.detach())
            if not found.requires_grad:
                break
            for choice, slope in zip(
                choices.values(), torch.autograd.grad(-found.sum(), tuple(choices.values()), allow_unused=True), strict=True
            ):
                choice.grad = slope
            adam.step()
            _project(choices, adam)
    return torch.maximum(best, least(known, rows, box, {name: choice.detach() for name, choice in choices.items()}))


def _begin(known: Known, rows: Rows) -> dict[str, Tensor]:
    """Choices for each row and each element of an activation that is undecided for one of the samples."""
    choices = {}
    for node in ancestors(known.network, rows.node.name)[:-1]:
        if is_elementwise(node.layer):
            x = known.after[node.inputs[0]]
            if bool(lines(node.layer, x).apart.any()):
                steep = lines(node.layer, x).of(rows.sample).lower_slope > 0.0
                choices[node.name] = steep.to(torch.float64).expand(len(rows), *node.shape).clone()
    return choices


def _project(choices: dict[str, Tensor], adam: torch.optim.Adam) -> None:
    with torch.no_grad():
        for choice in choices.values():
            choice.clamp_(0.0, 1.0)
    for group in adam.param_groups:
        group["lr"] *= DECAY
