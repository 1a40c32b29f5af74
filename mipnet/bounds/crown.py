"""CROWN: linear bounds are propagated from a node back to the input, where their minimum over the input set is known.

Zhang et al., "Efficient Neural Network Robustness Certification with General Activation Functions" (NeurIPS 2018), section 3.  An upper
bound is the negated lower bound of the negated value, so all bounds are computed by one backward pass with one row of coefficients per
bound, for all samples and elements at once.  The rule of each layer is in `mipnet.bounds.linear_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mipnet.bounds.crown_rows import CrownRows, KnownBounds, ancestors
from mipnet.bounds.interval import Interval
from mipnet.bounds.linear_rules import BackwardBound, backward, gate_lines, has_backward, is_elementwise, is_exact, lines
from mipnet.limits.memory import fits, memory_left, shown_bytes
from mipnet.network.graph import INPUT_NODE, Network, Node, size
from mipnet.network.polytopes import Hull
from mipnet.network.sets import Ball

CROWN_COEFFICIENTS_MAX = 2**19
"""Largest number of coefficients of one node that are computed at once: 4 MiB, which fits into a cache."""

CROWN_COEFFICIENT_BYTES = 96
"""Bytes per coefficient of the largest node: itself, and the temporary copies of a step."""

ROW_BYTES = 64
"""Bytes per row of all rows of a node together: its sample, element, sign and bound, with copies."""

CROWN_ROUNDING_RELATIVE = 1e-12
"""Bounds are rounded outwards by this, relative to the sum of the absolute values of all terms; the precision of float64 is 1e-16.

The terms are those of every node on the way back: its coefficients times the absolute terms of its value (`magnitude`).  Terms
may cancel, as in the difference of two networks that are nearly equal, and the sum of what is left says nothing about rounding errors.
"""

HULL_PRODUCTS_MAX = 2**24
"""Largest product of rows and points for which linear functions are minimised over a hull; more rows are minimised over its box."""


Choices = Mapping[str, Tensor]
"""Numbers per row and element, by node name."""


def crown(known: KnownBounds, node: Node, box: Interval, wanted: Tensor) -> Interval:
    """Return the node's box with the elements in ``wanted`` tightened by linear backward bounds over the boxes of earlier nodes."""
    return bounds_in_parts(known, node, box, wanted, BackwardMethod("linear backward bounds", lower_bounds, _crown_row_bytes))


@dataclass(frozen=True)
class BackwardMethod:
    """A method of backward bounds: its name, the function that bounds some rows, and the bytes that each row of a node takes meanwhile."""

    name: str
    bound: Callable[[KnownBounds, CrownRows, Interval], Tensor]
    row_bytes: Callable[[Network, Node], float]


def _crown_row_bytes(network: Network, node: Node) -> float:
    return CROWN_COEFFICIENT_BYTES * largest_size(network, node)


def bounds_in_parts(known: KnownBounds, node: Node, box: Interval, wanted: Tensor, method: BackwardMethod) -> Interval:
    """Return the node's box with the elements in ``wanted`` tightened by a method, as many rows at a time as fit into memory.

    The rows that are left at the deadline keep their bounds.  If memory does not suffice for a single row, all of them do.
    """
    count = 2 * int(wanted.sum())
    at_once = _rows_in_memory(known, node, count, method)
    if not count or not at_once:
        return box
    rows = CrownRows.both(node, wanted)
    parts, bound = rows.split(at_once), method.bound
    unknown = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
    found = [unknown[: len(part)] if known.late() else bound(known, part, box) for part in parts]
    return rows.improve(box, torch.cat(found))


def _rows_in_memory(known: KnownBounds, node: Node, count: int, method: BackwardMethod) -> int:
    """Return how many of ``count`` rows are computed at once; 0 if not even one of them fits, which is recorded."""
    wanted, listed, each = min(count, rows_at_once(known.network, node)), ROW_BYTES * count, method.row_bytes(known.network, node)
    if fits(listed + wanted * each):
        return wanted
    left = memory_left()
    at_once = min(wanted, int((left - listed) / each))
    if at_once > 0:
        return at_once
    text = f"`{node.name}` keeps looser bounds: {method.name} of {count // 2:,} of its elements would take {shown_bytes(listed + each)}"
    known.simpler.append(f"{text}, and {shown_bytes(left)} may be taken")
    return 0


def largest_size(network: Network, node: Node) -> int:
    """Return the largest number of elements of a node, or of a value that it depends on."""
    return max(size(network.shape_of(name)) for each in ancestors(network, node.name) for name in (each.name, *each.inputs))


def rows_at_once(network: Network, node: Node) -> int:
    """Return how many rows are computed at once, so that no node has more than `CROWN_COEFFICIENTS_MAX` coefficients."""
    return max(1, CROWN_COEFFICIENTS_MAX // largest_size(network, node))


def lower_bounds(known: KnownBounds, rows: CrownRows, box: Interval, choices: Choices | None = None) -> Tensor:
    """Return a lower bound per row, shape ``(rows,)``; ``choices`` by node name are those of `mipnet.bounds.linear_rules.lines`."""
    return backward_pass(known, rows, box, choices)[0]


def backward_pass(
    known: KnownBounds,
    rows: CrownRows,
    box: Interval,
    choices: Choices | None = None,
    added: Choices | None = None,
    seen: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a lower bound per row, and the coefficients of the input in that linear bound, ``(rows, *input_shape)``.

    ``added`` are coefficients that are added to those of a node's value: Lagrange multipliers of constraints on it.  The coefficients that
    reach each activation are stored in ``seen``.
    """
    waiting, shifts, rounding = {rows.node.name: rows.coefficients()}, [], torch.zeros(len(rows), dtype=torch.float64)
    for node in reversed(ancestors(known.network, rows.node.name)):
        if node.name not in waiting:
            continue
        coefficients, value = waiting.pop(node.name), box if node is rows.node else known.before_gate(node.name)
        if added is not None and node.name in added:
            coefficients = coefficients + added[node.name]
        if seen is not None and node.layer.activation:
            seen[node.name] = coefficients
        if node is not rows.node and node.name in known.sites:
            (coefficients,), shift = gate_lines(value).of(rows.sample).backward(coefficients)
            shifts.append(shift)
        if not has_backward(node.layer) or (node is not rows.node and not value.width.any()):
            shifts.append(minimum_over_box(rows.of(value), coefficients))
            continue
        rounding += absolute_product(rows.of_tensor(known.magnitude(node)), coefficients)
        parts, shift = _step(known, node, rows, coefficients, choices or {})
        shifts.append(shift)
        for name, part in zip(node.inputs, parts, strict=True):
            waiting[name] = waiting[name] + part if name in waiting else part
    source = known.after[INPUT_NODE]
    slopes = waiting[INPUT_NODE] if INPUT_NODE in waiting else source.lower.new_zeros(len(rows), *source.lower.shape[1:])
    lowest = minimum_over_box(rows.of(source), slopes)
    if known.ball is not None:
        lowest = torch.maximum(lowest, minimum_over_ball(known.ball, rows, source, slopes))
    if isinstance(known.polytope, Hull) and len(slopes) * len(known.polytope.points) <= HULL_PRODUCTS_MAX:
        lowest = torch.maximum(lowest, minimum_over_hull(known.polytope, slopes))
    terms = torch.stack([*shifts, lowest])
    return terms.sum(0) - CROWN_ROUNDING_RELATIVE * (terms.abs().sum(0).detach() + rounding), slopes


def _step(known: KnownBounds, node: Node, rows: CrownRows, coefficients: Tensor, choices: Choices) -> BackwardBound:
    inputs = [known.after[name] for name in node.inputs]
    if is_exact(node.layer):
        return backward(node.layer, coefficients, *inputs)  # an affine rule reads only their shapes
    if not is_elementwise(node.layer):
        return backward(node.layer, coefficients, *(rows.of(x) for x in inputs))
    if node.name in choices:
        return lines(node.layer, rows.of(inputs[0]), choices[node.name]).backward(coefficients)
    return lines(node.layer, inputs[0]).of(rows.sample).backward(coefficients)


def absolute_product(magnitude: Tensor, coefficients: Tensor) -> Tensor:
    """Return ``|c| . m`` of each row, for magnitudes m of one entry per row, or of a single one for all; no gradient passes through it."""
    flat, size = coefficients.detach().flatten(1).abs(), magnitude.flatten(1)
    return flat @ size[0] if len(size) == 1 else torch.linalg.vecdot(flat, size)


def minimum_over_box(box: Interval, coefficients: Tensor) -> Tensor:
    """Return the minimum of each row over its box: ``c . centre - |c| . radius``, rounded outwards."""
    flat, centre, radius = coefficients.flatten(1), box.centre.flatten(1), box.radius.flatten(1)
    reach = radius + CROWN_ROUNDING_RELATIVE * (centre.abs() + radius)
    if len(centre) == 1:
        return flat @ centre[0] - flat.abs() @ reach[0]
    return (flat * centre).sum(1) - (flat.abs() * reach).sum(1)


def minimum_over_ball(ball: Ball, rows: CrownRows, box: Interval, coefficients: Tensor) -> Tensor:
    """Return a lower bound of each row over the ball of its sample: ``c . centre - radius * |c|`` in the dual norm, rounded outwards.

    The dual norm of the sum norm is the largest ``|c_i|``; the Euclidean norm is its own dual.  A coordinate in which the box does not let
    the row decrease is left out: it cannot bring the value below the value at the centre.
    """
    centre = torch.tensor(ball.centre)
    centre = centre if len(centre) == 1 else centre[rows.sample]
    ends = rows.of(box)
    room = torch.where(coefficients > 0, centre - ends.lower, ends.upper - centre)
    falls = torch.where(room > 0, coefficients, 0.0).flatten(1)
    dual = falls.abs().amax(1) if ball.norm == "l1" else torch.linalg.vector_norm(falls, dim=1)
    terms = (coefficients * centre).flatten(1)
    return terms.sum(1) - ball.radius * dual - CROWN_ROUNDING_RELATIVE * (terms.abs().sum(1) + ball.radius * dual)


def minimum_over_hull(hull: Hull, coefficients: Tensor) -> Tensor:
    """Return the minimum of each row over a hull: the smallest value at a point, less ``|c| . enlarge``, rounded outwards."""
    flat, points, reach = coefficients.flatten(1), torch.tensor(hull.points), torch.tensor(hull.enlarge)
    size = flat.abs() @ (points.abs().amax(0) + reach)
    return (flat @ points.T).amin(1) - flat.abs() @ reach - CROWN_ROUNDING_RELATIVE * size
