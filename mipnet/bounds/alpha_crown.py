"""alpha-CROWN: linear backward bounds whose lines are optimised by gradient steps.

Xu et al., "Fast and Complete: Enabling Complete Verification with Rapid and Massively Parallel Incomplete Verifiers" (ICLR 2021),
section 3.2.  Every choice of lines is valid, so each step gives valid bounds, and the best bound of all steps is kept for each row.
The steps begin at the lines of `mipnet.bounds.crown.crown`, so the result is never worse.  Each row has its own choices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipnet.bounds.crown import BackwardMethod, bounds_in_parts, lower_bounds
from mipnet.bounds.crown_rows import CrownRows, KnownBounds, ancestors
from mipnet.bounds.interval import Interval
from mipnet.bounds.linear_rules import is_elementwise, lines
from mipnet.bounds.projected_adam import AdamVariable, ProjectedAdam
from mipnet.network.graph import Network, Node, size

ALPHA_STEPS = 20
"""Number of gradient steps per row."""

ALPHA_RATE, ALPHA_RATE_DECAY = 0.25, 0.9
"""The step size of Adam for choices in [0, 1], and the factor by which each step shrinks it."""


ALPHA_ELEMENT_BYTES = 104
"""Bytes per row and element of any node: the choices with their gradients and moments, and what a gradient step keeps of the pass."""


def alpha(known: KnownBounds, node: Node, box: Interval, wanted: Tensor) -> Interval:
    """Return the node's box with the elements in ``wanted`` tightened by linear backward bounds with optimised lines."""
    return bounds_in_parts(known, node, box, wanted, BackwardMethod("optimised linear bounds", _best_bounds, _alpha_row_bytes))


def _alpha_row_bytes(network: Network, node: Node) -> float:
    return ALPHA_ELEMENT_BYTES * sum(size(each.shape) for each in ancestors(network, node.name))


def _best_bounds(known: KnownBounds, rows: CrownRows, box: Interval) -> Tensor:
    """Return the best lower bound of each row over all steps of projected Adam on the choices, or over those before the deadline."""
    best = lower_bounds(known, rows, box)
    width = box.width.flatten(1)[rows.sample if len(box.lower) > 1 else 0, rows.element]
    size = torch.where((width > 0) & width.isfinite(), width, 1.0)  # so that steps do not depend on the unit of a row
    choices = _first_choices(known, rows)
    if not choices:
        return best
    with torch.enable_grad():
        for choice in choices.values():
            choice.requires_grad_()
        adam = ProjectedAdam([AdamVariable(choice, ALPHA_RATE, 1.0) for choice in choices.values()], ALPHA_RATE_DECAY)
        for _ in range(ALPHA_STEPS):
            found = lower_bounds(known, rows, box, choices)
            best = torch.maximum(best, found.detach())
            if not found.requires_grad or known.late():
                return best
            adam.step(torch.autograd.grad(-(found / size).sum(), tuple(choices.values()), allow_unused=True))
    return torch.maximum(best, lower_bounds(known, rows, box, {name: choice.detach() for name, choice in choices.items()}))


def _first_choices(known: KnownBounds, rows: CrownRows) -> dict[str, Tensor]:
    """Return the first choices: one per row and element, for every activation with unstable units in some sample."""
    choices = {}
    for node in ancestors(known.network, rows.node.name)[:-1]:
        if is_elementwise(node.layer):
            x = known.after[node.inputs[0]]
            if bool(lines(node.layer, x).differ.any()):
                steep = lines(node.layer, x).of(rows.sample).lower_slope > 0.0
                choices[node.name] = steep.to(torch.float64).expand(len(rows), *node.shape).clone()
    return choices
