"""Bounds of all nodes, layer after layer: first intervals, then refinements of the elements whose bounds a later layer uses.

Tighter bounds are of no use for a unit whose sign is known, or for a value that only affine layers read.  Only the other elements are
refined.  At the end of the time, the elements that are left keep their interval bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from mipnet.bounds.alpha_crown import alpha
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.crown import crown
from mipnet.bounds.crown_rows import KnownBounds, ancestors
from mipnet.bounds.interval import Interval, Method, Mode, interval
from mipnet.bounds.linear_rules import is_elementwise, is_exact, lines, moves
from mipnet.bounds.user_bounds import BoundsByNode, UserBounds, check_by_samples, read_given
from mipnet.errors import InputError, check_choice, shown, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.limits.memory import check_memory
from mipnet.limits.result_warnings import add_warning
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT_NODE, Network, Node, size
from mipnet.network.sets import Box

Refinement = Callable[[KnownBounds, Node, Interval, Tensor], Interval]
"""A function of the bounds so far, a node, its box and a mask of its elements that returns a tighter box of the node."""

INTERVAL_SECONDS_AFTER_DEADLINE = 0.2
"""Seconds after the deadline in which the interval rule goes on, so that the last nodes profit from refined bounds of the earlier ones."""

BOX_BYTES, BOX_COPY_BYTES, WEIGHT_COPY_BYTES = 16, 96, 8
"""Bytes per element and sample of the box of a node, of the temporary copies at one node, and per weight of the copy of one layer."""

AUTO_COEFFICIENTS_MAX = 2 * 10**9
"""With `auto` a node keeps its interval bounds if CROWN would need more coefficients than this, which takes some seconds."""


@suggest_keywords(
    moved={
        "replace": "write `given=mn.UserBounds(..., replace=True)`",
        "epsilon": "write `region.widen(epsilon)` in place of the region",
    }
)
def propagate(
    network: Network,
    region: Box,
    gates: Sequence[Gate] = (),
    mode: Literal["sound", "paper"] = "sound",
    method: Method = "auto",
    *,
    start: Bounds | None = None,
    given: BoundsByNode | UserBounds | None = None,
    time_limit: TimeLimit = None,
) -> Bounds:
    """Return bounds of every node over ``region``, for all samples at once.

    In ``sound`` mode the interval of a gated value includes 0, so the bounds of later nodes hold for every score.  In ``paper`` mode
    gates are ignored, as in the reference implementation (ElAraby et al. 2023, section 3).

    Parameters
    ----------
    method
        ``interval``; ``crown``: linear backward bounds; ``alpha``: linear backward bounds with optimised slopes; ``auto``: ``interval``
        in ``paper`` mode and ``crown`` otherwise, except for nodes where that would take too long.
    start
        Bounds that hold, from which the computation starts; the result is at least as tight.
    given
        Your own bounds by node name: ``{"fc1": (lower, upper)}``, of the shape of the node or with a sample axis in front.  They
        are checked by forward passes (`mipnet.bounds.user_bounds`) and intersected with the computed bounds.  With
        ``UserBounds(by_node, replace=True)`` they replace the computed bounds.
    time_limit
        Seconds of the whole call, None for no limit.  The result is ``stopped`` if some bounds are looser than the method can give.

    Where memory or time does not suffice for the method, a node keeps looser bounds, which `Bounds.warnings` say.  Raises
    `TimeLimitReached` if the time ends before there are interval bounds of every node, and `MemoryLimitReached` if the boxes of all samples
    do not fit into memory.
    """
    deadline = Deadline.after(time_limit)
    check_choice("the method", method, sorted(get_args(Method), key="auto".__eq__))
    region = region.fit(network.input_shape, network.input_names)
    if start is not None:
        start.check(network, region, gates)
    user = given if isinstance(given, UserBounds) else UserBounds(given or {})
    own = read_given(network, region, user.by_node)
    check_by_samples(network, region, gates if mode == "sound" else (), own, deadline)
    question = BoundsQuestion(network, region, tuple(gates), mode, start, own, user.replace, deadline)
    return _by_method(question, method)


def propagate_until_ctrl_c(
    network: Network, region: Box, gates: Sequence[Gate], method: Method, deadline: Deadline, start: Bounds | None = None
) -> Bounds:
    """Return bounds as `propagate`; Ctrl-C ends that early, and what is proven by then is returned, with `Bounds.interrupted` True."""
    region = region.fit(network.input_shape, network.input_names)
    return _by_method(BoundsQuestion(network, region, tuple(gates), start=start, deadline=deadline, keeps=True), method)


def _by_method(question: BoundsQuestion, method: Method) -> Bounds:
    if method == "alpha":  # the lines of CROWN are sometimes the better ones
        question = replace(question, start=sweep(question, [crown], "crown"))
    if method == "auto":
        return sweep(question, *(([], "interval") if question.mode == "paper" else ([_crown_in_time], "crown")))
    refine: dict[Method, list[Refinement]] = {"interval": [], "crown": [crown], "alpha": [alpha]}
    return sweep(question, refine[method], method)


def wanted_bounds(
    network: Network, region: Box, gates: Sequence[Gate], mode: Mode | Bounds, epsilon: float, deadline: Deadline = NO_DEADLINE
) -> Bounds:
    """Return the bounds that an argument ``bounds`` of `mipnet.encode` names, or check and return those it provides."""
    if isinstance(mode, Bounds):
        mode.check(network, region, gates)
        return mode
    if isinstance(mode, str) and mode == "paper":
        return propagate(network, region.widen(epsilon), gates, "paper", time_limit=deadline)
    if isinstance(mode, str) and mode in ("sound", "interval", "crown", "alpha"):
        return propagate(network, region, gates, method="auto" if mode == "sound" else mode, time_limit=deadline)
    raise InputError(f"bounds are {shown(mode)}; expected `sound`, `paper`, `interval`, `crown`, `alpha` or a Bounds object")


@dataclass(frozen=True, eq=False)
class BoundsQuestion:
    """Which bounds are wanted: the arguments of `propagate`.

    If it ``keeps``, Ctrl-C ends the refinements, and the bounds so far are returned.
    """

    network: Network
    region: Box
    gates: tuple[Gate, ...] = ()
    mode: Literal["sound", "paper"] = "sound"
    start: Bounds | None = None
    given: Mapping[str, Interval] = field(default_factory=dict)
    replace: bool = False
    deadline: Deadline = NO_DEADLINE
    keeps: bool = False

    @property
    def sites(self) -> frozenset[str]:
        """The nodes after which a gate acts."""
        return frozenset(site for gate in self.gates for site in gate.sites)

    def known(self) -> KnownBounds:
        """Return the bounds of the input, to which `sweep` adds those of the nodes."""
        source = Interval(torch.tensor(self.region.lower), torch.tensor(self.region.upper))
        sites = self.sites if self.mode == "sound" else frozenset()
        known = KnownBounds(self.network, sites, {INPUT_NODE: source}, deadline=self.deadline)
        known.ball, known.polytope = self.region.ball, self.region.polytope
        return known

    def with_known(self, name: str, value: Interval) -> Interval:
        """Return a node's box intersected with the bounds of the start and of the user, or replaced by the user's."""
        if self.replace and name in self.given:
            return self.given[name]
        value = value if self.start is None else value & self.start.before_gate(name)
        return value & self.given[name] if name in self.given else value


def sweep(question: BoundsQuestion, refine: Sequence[Refinement], method: str) -> Bounds:
    """Return bounds from one pass over all nodes: the interval rule, then the known bounds, then every refinement in turn.

    After the deadline, and after Ctrl-C, only the interval rule is used, and soon after the deadline the bounds of the start alone; the
    result is then ``stopped``.  So that there is a start, a pass with refinements and a deadline begins with interval bounds; raises
    `TimeLimitReached` if the time does not suffice for these.
    """
    if question.start is None and refine and (question.deadline != NO_DEADLINE or question.keeps):
        question = replace(question, start=sweep(question, (), "interval"))
    network, known, sites = question.network, question.known(), question.sites
    known.interrupted = question.keeps and question.start is not None and question.start.interrupted
    check_memory(f"the bounds of {question.region.samples:,} samples at every node", _boxes_bytes(question), "give fewer samples")
    late = question.deadline.extended(INTERVAL_SECONDS_AFTER_DEADLINE)
    # nodes whose elements vary independently of each other: the interval rule of an affine layer is exact for them
    independent = {INPUT_NODE} if known.ball is None and known.polytope is None else set()
    with torch.no_grad():
        for node in network.nodes:
            if question.start is None:
                question.deadline.check(f"bound node `{node.name}`")
            if question.start is not None and late.passed:
                known.stopped = True
                value = question.with_known(node.name, question.start.before_gate(node.name))
            else:
                value = _unbroken(question, known, partial(_by_intervals, question, known, node))
            exact = is_elementwise(node.layer) or (node.inputs[0] in independent and len(node.inputs) == 1 and is_exact(node.layer))
            skipped = exact or not refine or (question.replace and node.name in question.given) or known.late()
            for better in () if skipped else refine:
                value = _unbroken(question, known, partial(_refined, better, known, node, value))
            if _stays_independent(node, network, independent) or not value.width.any():
                independent.add(node.name)
            if node.name in sites:
                known.ungated[node.name] = value
            known.after[node.name] = value.with_zero if node.name in known.sites else value
    simpler = (*(() if question.start is None else question.start.simpler), *known.simpler)
    for text in known.simpler:
        add_warning(text)
    made = question.mode, method, known.stopped or known.interrupted, tuple(dict.fromkeys(simpler)), known.interrupted
    return Bounds(network, question.region, known.after, known.ungated, question.gates, *made)


def _unbroken(question: BoundsQuestion, known: KnownBounds, compute: Callable[[], Interval]) -> Interval:
    """Return what is computed, a second time after Ctrl-C if the question keeps its bounds: then nothing is refined any more."""
    try:
        return compute()
    except KeyboardInterrupt:
        if not question.keeps or known.interrupted:
            raise
        known.interrupted = True
        return compute()


def _by_intervals(question: BoundsQuestion, known: KnownBounds, node: Node) -> Interval:
    return question.with_known(node.name, interval(node.layer, *(known.after[source] for source in node.inputs)))


def _refined(better: Refinement, known: KnownBounds, node: Node, value: Interval) -> Interval:
    if known.interrupted:
        return value
    wanted = elements_to_tighten(known, node.name, value)
    return better(known, node, value, wanted) if wanted.any() else value


def _boxes_bytes(question: BoundsQuestion) -> float:
    """Return the bytes of the boxes of all nodes, and of the temporary copies at the largest one, its weights included."""
    sizes = [size(node.shape) for node in question.network.nodes]
    weights = max(sum(w.numel() for w in node.layer.weights().values()) for node in question.network.nodes)
    return question.region.samples * (BOX_BYTES * sum(sizes) + BOX_COPY_BYTES * max(sizes)) + WEIGHT_COPY_BYTES * weights


def _stays_independent(node: Node, network: Network, independent: set[str]) -> bool:
    source = node.inputs[0]
    return source in independent and moves(node.layer) and size(network.shape_of(source)) == size(node.shape)


def elements_to_tighten(known: KnownBounds, name: str, box: Interval) -> Tensor:
    """Return a mask of the elements whose tighter bounds are of use: those that are returned, gated or compared, or have either sign."""
    anything = box.width > 0
    if name == known.network.output.name or name in known.sites:
        return anything
    found = torch.zeros_like(anything)
    for reader in known.network.consumers[name]:
        if is_elementwise(reader.layer):
            found |= anything & (lines(reader.layer, box).differ | elements_to_tighten(known, reader.name, interval(reader.layer, box)))
        elif not is_exact(reader.layer):
            found |= anything
    return found


def _crown_in_time(known: KnownBounds, node: Node, box: Interval, wanted: Tensor) -> Interval:
    """Apply `crown`, unless it needs more than `AUTO_COEFFICIENTS_MAX` coefficients over all nodes."""
    count = 2 * int(wanted.sum()) * sum(size(each.shape) for each in ancestors(known.network, node.name))
    if count <= AUTO_COEFFICIENTS_MAX:
        return crown(known, node, box, wanted)
    text = f"`{node.name}` keeps looser bounds: linear backward bounds would need {count:.1e} coefficients"
    known.simpler.append(f"{text}, more than {AUTO_COEFFICIENTS_MAX:.0e}; the method `crown` computes them all the same")
    return box
