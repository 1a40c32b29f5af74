"""Compression: a smaller network that equals a given one on a whole box, because some of its ReLUs never change state there.

Serra, Yu, Kumar and Ramalingam, "Scaling Up Exact Neural Network Compression by ReLU Stability" (NeurIPS 2021).  Units that are always
inactive are removed.  Units that are always active are linear: those whose weights are linear combinations of others are folded into
these, at most as many stay as the next layer has units, and a layer of such units only is merged with the next layer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from mipnet.arrays import Shape
from mipnet.backend import Backend
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.propagation import propagate
from mipnet.errors import TimeLimitReached, UnsupportedError, suggest_keywords
from mipnet.layers import Dense, ReLU
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.kept_parts import kept_parts
from mipnet.limits.result_warnings import add_warning, carries_warnings
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.graph import Network, free_name
from mipnet.network.sets import Box
from mipnet.readers.torch import from_torch
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.certified_minimum import MinimumSettings
from mipnet.verification.reach import check_tolerance, one_box
from mipnet.verification.two_networks.agreement import Agreement, compare_outputs, output_size
from mipnet.verification.two_networks.folding import DenseChain, ReluUnits
from mipnet.verification.two_networks.relu_stability import ReluStates, decide_states

COMPRESSION_TIME_SHARES = {"bounds": 0.3, "search": 0.2, "program": 0.6}
"""Share of the remaining time that a stage may use; the check of the result uses the rest."""

INTERRUPTED_CHECK_SECONDS = 1.0
"""Time limit of the check of the result after Ctrl-C."""

AGREEMENT_TOLERANCE = 1e-4
"""The gap at which the check ends, relative to the difference of the outputs where that is above 1; as in `mipnet.agree`."""


@dataclass(frozen=True)
class CompressedLayer:
    """The number of ``units`` of a layer of ReLUs, by state over the box, and how many are ``kept``.

    ``silent`` units are always inactive, ``active`` units are always active, ``changing`` units may be both.
    """

    name: str
    units: int
    silent: int
    active: int
    changing: int
    kept: int


@dataclass(frozen=True, eq=False)
class Compressed:
    """The smaller ``network``, the counts of every layer, and the ``agreement`` of both networks over the box.

    ``warnings`` say what was not proven or left out.
    ``complete`` is True if it was decided for every unit whether it changes state; undecided units are kept.  ``rounds`` is the number of
    solves of the program.
    """

    network: Network
    layers: tuple[CompressedLayer, ...]
    agreement: Agreement
    complete: bool
    rounds: int
    nodes: int
    seconds: float
    warnings: tuple[str, ...] = ()

    @suggest_keywords
    def module(self, dtype: torch.dtype = torch.float32) -> nn.Sequential:
        """Return the smaller network as a torch module of Linear and ReLU layers, with the softmax at the end of the given one.

        float64 is exact, other types round the weights.
        """
        parts: dict[str, nn.Module] = {}
        for node in self.network.nodes:
            layer = node.layer
            if isinstance(layer, Dense):
                linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=dtype)
                with torch.no_grad():
                    linear.weight.copy_(layer.weight)
                    linear.bias.copy_(torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias)
                parts[node.name] = linear
            elif isinstance(layer, ReLU):
                parts[node.name] = nn.ReLU()
            else:
                parts[node.name] = nn.Flatten() if len(node.shape) == 1 else nn.Unflatten(1, node.shape)
        if self.network.softmax is not None:
            taken = set(parts)
            parts |= {free_name(name, taken): part for name, part in softmax_modules(self.network.softmax, self.network.output_shape)}
        module = nn.Sequential()
        for name, part in parts.items():
            module.add_module(name, part)
        return module.eval()


def softmax_modules(softmax: FinalSoftmax, shape: Shape) -> list[tuple[str, nn.Module]]:
    """Return torch modules, by name, that compute a softmax of outputs of this shape; raises `UnsupportedError` if it has several axes."""
    kind = nn.Softmax if softmax.kind == "softmax" else nn.LogSoftmax
    if len(softmax.axes) == 1:
        return [(softmax.kind, kind(softmax.axes[0] + 1))]
    if len(softmax.axes) == len(shape):
        return [("flat_output", nn.Flatten()), (softmax.kind, kind(1)), ("output", nn.Unflatten(1, shape))]
    raise UnsupportedError(
        f"the network ends in a {softmax.kind} over axes {softmax.axes} of the output {shape}, which no module of torch computes; expected"
        " one axis or all, or `network.without_softmax()`"
    )


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS)
@carries_warnings
def compress(
    network: Network | nn.Module,
    region: Box,
    *,
    backend: str | Backend | MipSettings = "highs",
    time_limit: TimeLimit = 120.0,
    within: float = 1e-6,
    seed: int = 0,
) -> Compressed:
    """Return a network with fewer units whose outputs are equal for every input of a box; for chains of dense layers and ReLUs.

    Parameters
    ----------
    network
        A `Network`, or a torch module, which is read for inputs of the region's shape.
    region
        One box that contains all inputs the network will be used for; outside of it the networks may differ.
    time_limit
        Seconds of the whole call, None for no limit.  Units for which nothing is proven by then are kept, and what is left of the check
        of the result is not made: its ``agreement`` says what was proven.
    within
        The bound on the largest difference that `mipnet.agree` has to prove, given the bounds found here, relative to the size of the
        outputs: only rounding errors remain.
    backend, seed
        As those of `mipnet.reach`.

    A softmax at the end stays: the outputs that are equal are the probabilities.
    Inside `mipnet.keep_parts` the states of the units are kept after each solve of the program, and after the stages before it.
    Ctrl-C ends the search: what is proven by then is removed, and a short check of the result follows, with ``agreement.interrupted``.
    Raises `UnsupportedError` for other layers (convolutions, pooling, residual connections, leaky ReLUs), naming the node.
    """
    began, deadline = time.monotonic(), Deadline.after(time_limit)
    if isinstance(network, nn.Module):
        network = from_torch(network, torch.tensor(region.centre if region.lower.ndim > 1 else region.centre[None]), deadline)
    region = one_box(network, region)
    check_tolerance(within)
    settings, shares = MipSettings.of(backend), COMPRESSION_TIME_SHARES
    chain = DenseChain.of(network)
    first = propagate(network, region, method="interval")  # some forward passes of dense layers, whatever the limit
    states, interrupted = ReluStates.of(network, first), False
    try:
        states.parts = kept_parts("compress", {"network": network, "region": region, "settings": settings, "within": within, "seed": seed})
        states = _bounded(states, deadline.share(shares["bounds"]))
        if not states.searched:
            states.search(deadline.share(shares["search"]), seed)
            states.searched = True
            states.keep()
        decide_states(states, settings, deadline.share(shares["program"]))
    except KeyboardInterrupt:  # what was proven before holds
        interrupted, states.complete, deadline = True, False, deadline.within(INTERRUPTED_CHECK_SECONDS)
    units = [ReluUnits(name, *states.bounds_of(name)) for name in states.where]
    chain.shrink(units, region, deadline)
    small = chain.network()
    check = MinimumSettings(settings, deadline, AGREEMENT_TOLERANCE, seed=seed, size_min=output_size(network, region, deadline, seed))
    agreement = compare_outputs(network, small, region, within * check.size_min, check, _proven_bounds(states, deadline))
    agreement = replace(agreement, interrupted=agreement.interrupted or interrupted)
    if agreement.agree is not True:
        add_warning(f"the outputs of both networks are not proven to be equal: their difference is bounded by {agreement.bound:.3g}")
    layers = tuple(_counted(each, chain) for each in units)
    seconds = time.monotonic() - began
    return Compressed(small, layers, agreement, states.complete, states.rounds, states.nodes, seconds)


def _bounded(states: ReluStates, deadline: Deadline) -> ReluStates:
    """Return the states that alpha-CROWN proves, or those that an earlier call has kept."""
    network, region = states.network, states.bounds.region
    if states.go_on():
        states.bounds = propagate(network, region, method="crown", start=states.bounds, given=states.given(), time_limit=deadline)
        return states
    found = ReluStates.of(network, propagate(network, region, method="alpha", start=states.bounds, time_limit=deadline))
    found.parts = states.parts
    found.keep()
    return found


def _proven_bounds(states: ReluStates, deadline: Deadline) -> Bounds:
    """Return the bounds of all nodes with what was proven of the states, or the first bounds if there is no time for that."""
    known = states.bounds
    try:
        return propagate(states.network, known.region, method="crown", start=known, given=states.given(), time_limit=deadline)
    except TimeLimitReached:
        return known


def _counted(units: ReluUnits, chain: DenseChain) -> CompressedLayer:
    silent, active = units.upper <= 0, (units.lower >= 0) & (units.upper > 0)
    changing = len(units.lower) - int(silent.sum()) - int(active.sum())
    return CompressedLayer(units.name, len(silent), int(silent.sum()), int(active.sum()), changing, chain.width(units.name))
