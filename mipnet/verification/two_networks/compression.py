"""Compression: a smaller network that equals a given one on a whole box, because some of its ReLUs never change state there.

Serra, Yu, Kumar and Ramalingam, "Scaling Up Exact Neural Network Compression by ReLU Stability" (NeurIPS 2021).  Units that are always
inactive are removed.  Units that are always active are linear: those whose weights are linear combinations of others are folded into
these, at most as many stay as the next layer has units, and a layer of such units only is merged with the next layer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from mipnet.backend import Backend
from mipnet.bounds.propagation import propagate
from mipnet.errors import suggest_keywords
from mipnet.layers import Dense, ReLU
from mipnet.network.graph import Network
from mipnet.network.sets import Box
from mipnet.readers.torch import from_torch
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.certified_minimum import MinimumSettings
from mipnet.verification.reach import check_numbers, one_box
from mipnet.verification.two_networks.agreement import Agreement, compare_outputs
from mipnet.verification.two_networks.folding import DenseChain, ReluUnits
from mipnet.verification.two_networks.relu_stability import ReluStates, decide_states

COMPRESSION_TIME_SHARES = {"search": 0.2, "program": 0.7}
"""Share of the remaining time that a stage may use; the check of the result uses the rest."""

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

    @suggest_keywords
    def module(self, dtype: torch.dtype = torch.float32) -> nn.Sequential:
        """Return the smaller network as a torch module of Linear and ReLU layers; float64 is exact, other types round the weights."""
        parts: dict[str, nn.Module] = {}
        for node in self.network.nodes:
            layer = node.layer
            if isinstance(layer, Dense):
                linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=dtype)
                with torch.no_grad():
                    linear.weight.copy_(layer.weight)
                    linear.bias.copy_(torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias)
                parts[node.name] = linear
            else:
                parts[node.name] = nn.ReLU() if isinstance(layer, ReLU) else nn.Flatten()
        module = nn.Sequential()
        for name, part in parts.items():
            module.add_module(name, part)
        return module.eval()


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS)
def compress(
    network: Network | nn.Module,
    region: Box,
    *,
    backend: str | Backend | MipSettings = "highs",
    time_limit: float = 120.0,
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
        Seconds for all stages together.  Units for which nothing is proven by then are kept.
    within
        The bound on the largest difference that `mipnet.agree` has to prove, given the bounds found here: only rounding errors remain.
    backend, seed
        As those of `mipnet.reach`.

    Raises `UnsupportedError` for other layers (convolutions, pooling, residual connections, leaky ReLUs), naming the node.
    """
    if isinstance(network, nn.Module):
        network = from_torch(network, torch.tensor(region.centre if region.lower.ndim > 1 else region.centre[None]))
    region = one_box(network, region)
    check_numbers(time_limit, within)
    began, settings = time.monotonic(), MipSettings.of(backend)
    chain = DenseChain.of(network)
    states = ReluStates.of(network, propagate(network, region, method="alpha"))
    states.search(began + COMPRESSION_TIME_SHARES["search"] * time_limit, seed)
    now = time.monotonic()
    decide_states(states, settings, now + COMPRESSION_TIME_SHARES["program"] * (began + time_limit - now))
    units = [ReluUnits(name, *states.bounds_of(name)) for name in states.where]
    chain.shrink(units, region)
    small = chain.network()
    left = max(1.0, began + time_limit - time.monotonic())
    known = propagate(network, region, method="crown", given=states.given())
    check = MinimumSettings(settings, time.monotonic() + left, AGREEMENT_TOLERANCE, seed=seed)
    agreement = compare_outputs(network, small, region, within, check, known)
    layers = tuple(_counted(each, chain) for each in units)
    seconds = time.monotonic() - began
    return Compressed(small, layers, agreement, states.complete, states.rounds, states.nodes, seconds)


def _counted(units: ReluUnits, chain: DenseChain) -> CompressedLayer:
    silent, active = units.upper <= 0, (units.lower >= 0) & (units.upper > 0)
    changing = len(units.lower) - int(silent.sum()) - int(active.sum())
    return CompressedLayer(units.name, len(silent), int(silent.sum()), int(active.sum()), changing, chain.width(units.name))
