"""Bounds of all nodes, layer after layer: intervals first, and then whatever can make them tighter where it matters.

A later layer has no use for tighter bounds of a unit whose sign is known, or of a value that an affine layer reads: only the
others are bounded again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from mipnet.bounds.alpha_crown import alpha
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import Known, ancestors, crown
from mipnet.bounds.interval import Interval, Method, Mode, interval
from mipnet.bounds.linear_rules import is_elementwise, is_exact, lines, moves
from mipnet.bounds.user_bounds import BoundsByNode, UserBounds, hold_against_samples, read_given
from mipnet.errors import InputError, suggest_keywords
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT, Network, Node, size
from mipnet.network.sets import Box

Refine = Callable[[Known, Node, Interval, Tensor], Interval]
"""From the bounds so far, a node, its box and a mask of its elements to a better box of the node."""

PATIENCE = 2 * 10**9
"""Under `auto` a node keeps its intervals if linear bounds would take more numbers than that: some seconds."""


@suggest_keywords
def propagate(
    network: Network,
    region: Box,
    gates: Sequence[Gate] = (),
    mode: Literal["sound", "paper"] = "sound",
    epsilon: float = 0.0,
    method: Method = "auto",
    *,
    start: Bounds | None = None,
    given: BoundsByNode | UserBounds | None = None,
) -> Bounds:
    """Bounds of every node over ``region`` (widened by ``epsilon``), for all samples at once.

    In ``sound`` mode a gated value ranges over the hull of 0 and its own interval, so the bounds of later nodes hold for
    every gate value.  In ``paper`` mode gates are not seen, as in the reference implementation (ElAraby et al. 2023, section 3).

    Parameters
    ----------
    method
        ``interval``; ``crown``, linear backward bounds; ``alpha``, the same with optimised slopes; ``auto``, which is ``interval`` in
        ``paper`` mode and otherwise ``crown``, except for nodes where that would take too long.
    start
        Bounds that are known to hold and are made tighter.
    given
        Bounds of your own, by node name: ``{"fc1": (lower, upper)}``, of the shape of the node or with a sample axis in front.  They
        are checked against forward passes (`mipnet.bounds.user_bounds`) and intersected with the computed ones.  With
        ``UserBounds(by_node, replace=True)`` they stand in place of the computed ones.
    """
    refine: dict[str, list[Refine]] = {"interval": [], "crown": [crown], "alpha": [alpha], "auto": [] if mode == "paper" else [_in_time]}
    if method not in refine:
        raise InputError(f"the method is `{method}`; expected one of {', '.join(refine)}")
    region = region.fit(network.input_shape)
    if start is not None:
        start.check(network, region, gates)
    user = given if isinstance(given, UserBounds) else UserBounds(given or {})
    own = read_given(network, region, user.by_node)
    hold_against_samples(network, region.widen(epsilon), gates if mode == "sound" else (), own)
    if method == "alpha":  # whose first step is not always the better one
        start = propagate(network, region, gates, mode, epsilon, "crown", start=start, given=user)
    name = method if method != "auto" else "crown" if refine["auto"] else "interval"
    return sweep(Question(network, region, tuple(gates), mode, epsilon, start, own, user.replace), refine[method], name)


def wanted_bounds(network: Network, region: Box, gates: Sequence[Gate], mode: Mode | Bounds, epsilon: float) -> Bounds:
    """The bounds that `mipnet.encode` is asked for by name, or given, which are checked."""
    if isinstance(mode, Bounds):
        mode.check(network, region, gates)
        return mode
    if mode == "paper":
        return propagate(network, region, gates, "paper", epsilon)
    if mode in ("sound", "interval", "crown", "alpha"):
        return propagate(network, region, gates, method="auto" if mode == "sound" else mode)
    raise InputError(f"bounds are `{mode}`; expected `sound`, `paper`, `interval`, `crown`, `alpha` or a Bounds object")


@dataclass(frozen=True, eq=False)
class Question:
    """What bounds are asked for: see `propagate`."""

    network: Network
    region: Box
    gates: tuple[Gate, ...] = ()
    mode: Literal["sound", "paper"] = "sound"
    epsilon: float = 0.0
    start: Bounds | None = None
    given: Mapping[str, Interval] = field(default_factory=dict)
    replace: bool = False

    @property
    def sites(self) -> frozenset[str]:
        """The nodes behind which a gate acts."""
        return frozenset(site for gate in self.gates for site in gate.sites)

    def known(self) -> Known:
        """Bounds of the input, and of nothing else yet."""
        box = self.region.widen(self.epsilon)
        source = Interval(torch.tensor(box.lower), torch.tensor(box.upper))
        return Known(self.network, self.sites if self.mode == "sound" else frozenset(), {INPUT: source}, ball=box.ball)

    def with_known(self, name: str, value: Interval) -> Interval:
        """A node's box along with what is known from the start, and with what the user gave."""
        if self.replace and name in self.given:
            return self.given[name]
        value = value if self.start is None else value & self.start.before_gate(name)
        return value & self.given[name] if name in self.given else value


def sweep(question: Question, refine: Sequence[Refine], method: str) -> Bounds:
    """One pass over all nodes: the interval rule, what is known already, and every refinement in turn."""
    network, known, sites = question.network, question.known(), question.sites
    # nodes whose elements move independently of one another: an affine layer's interval of them is exact
    apart = {INPUT} if known.ball is None else set()
    with torch.no_grad():
        for node in network.nodes:
            value = question.with_known(node.name, interval(node.layer, *(known.after[source] for source in node.inputs)))
            exact = is_elementwise(node.layer) or (node.inputs[0] in apart and len(node.inputs) == 1 and is_exact(node.layer))
            for better in () if exact or (question.replace and node.name in question.given) else refine:
                wanted = matters(known, node.name, value)
                value = better(known, node, value, wanted) if wanted.any() else value
            if _moves_apart(node, network, apart) or not value.width.any():
                apart.add(node.name)
            if node.name in sites:
                known.ungated[node.name] = value
            known.after[node.name] = value.with_zero if node.name in known.sites else value
    return Bounds(network, question.region, known.after, known.ungated, question.gates, question.mode, method)


def _moves_apart(node: Node, network: Network, apart: set[str]) -> bool:
    source = node.inputs[0]
    return source in apart and moves(node.layer) and size(network.shape_of(source)) == size(node.shape)


def matters(known: Known, name: str, box: Interval) -> Tensor:
    """The elements of a node that tighter bounds would serve: what is returned, gated, compared, or of undecided sign."""
    anything = box.width > 0
    if name == known.network.output.name or name in known.sites:
        return anything
    found = torch.zeros_like(anything)
    for reader in known.network.consumers[name]:
        if is_elementwise(reader.layer):
            found |= anything & (lines(reader.layer, box).apart | matters(known, reader.name, interval(reader.layer, box)))
        elif not is_exact(reader.layer):
            found |= anything
    return found


def _in_time(known: Known, node: Node, box: Interval, wanted: Tensor) -> Interval:
    """`crown`, unless that would hold more than `PATIENCE` coefficients, all nodes taken together."""
    before = sum(size(each.shape) for each in ancestors(known.network, node.name))
    return crown(known, node, box, wanted) if 2 * int(wanted.sum()) * before <= PATIENCE else box
