"""Compress: a smaller network that is equal to a given one all over a box, because some of its ReLUs never change there.

Serra, Yu, Kumar and Ramalingam, "Scaling Up Exact Neural Network Compression by ReLU Stability" (NeurIPS 2021).  Units that are always
silent go.  Units that always act are linear: those whose weights depend on the others' are folded into these, no more of them stay
than the next layer has units, and a layer without any other unit is one with the next.
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
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.minimum import MinimumSettings
from mipnet.verification.reach import check_numbers, one_box
from mipnet.verification.two_networks.agreement import Agreement, compare_outputs
from mipnet.verification.two_networks.folding import Chain, Units
from mipnet.verification.two_networks.stability import States, settle

SHARES = {"search": 0.2, "program": 0.7}
"""A stage may take so much of the time that is left when it begins; the rest is for the check."""

AGREEMENT_TOLERANCE = 1e-4
"""The gap at which the check ends, relative to the difference of the outputs where that is above 1; as in `mipnet.agree`."""


@dataclass(frozen=True)
class LayerCount:
    """What became of a layer of ReLUs: of ``units``, so many are always ``silent``, always ``active``, or change; ``kept`` are left."""

    name: str
    units: int
    silent: int
    active: int
    changing: int
    kept: int


@dataclass(frozen=True, eq=False)
class Compressed:
    """A smaller ``network``, what became of every layer, and the ``agreement`` of both networks over the box.

    ``complete`` is True if it is known of every unit whether it changes; those of which it is not are left as they are.
    ``rounds`` counts the solves of the program.
    """

    network: Network
    layers: tuple[LayerCount, ...]
    agreement: Agreement
    complete: bool
    rounds: int
    nodes: int
    seconds: float

    def module(self, dtype: torch.dtype = torch.float32) -> nn.Sequential:
        """The smaller network as a torch module of Linear and ReLU layers; float64 is exact, other types round the weights."""
        parts: dict[str, nn.Module] = {}
        for node in self.network.nodes:
            layer = node.layer
            if isinstance(layer, Dense):
                linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=dtype)
                assert layer.bias is not None
                with torch.no_grad():
                    linear.weight.copy_(layer.weight)
                    linear.bias.copy_(layer.bias)
                parts[node.name] = linear
            else:
                parts[node.name] = nn.ReLU() if isinstance(layer, ReLU) else nn.Flatten()
        module = nn.Sequential()
        for name, part in parts.items():
            module.add_module(name, part)
        return module.eval()


@suggest_keywords
def compress(
    network: Network | nn.Module,
    region: Box,
    *,
    backend: str | Backend | MipSettings = "highs",
    time_limit: float = 120.0,
    within: float = 1e-6,
    seed: int = 0,
) -> Compressed:
    """A network with fewer units whose outputs are the same all over a box: dense layers and ReLUs, in a chain.

    Parameters
    ----------
    network
        A `Network`, or a torch module that is read for inputs of the region's shape.
    region
        One box, which all inputs that will ever be asked for have to lie in: outside of it both networks differ.
    time_limit
        Seconds for everything.  A unit of which nothing is proven by then stays.
    within
        What `mipnet.agree` has to prove of the largest difference, under the bounds that are proven here: rounding alone is left.
    backend, seed
        As those of `mipnet.reach`.

    Raises `UnsupportedError` for other layers (convolutions, pooling, residual connections, leaky ReLUs), naming the node.
    """
    if isinstance(network, nn.Module):
        network = from_torch(network, torch.tensor(region.centre if region.lower.ndim > 1 else region.centre[None]))
    region = one_box(network, region)
    check_numbers(time_limit, within)
    began, settings = time.monotonic(), MipSettings.of(backend)
    chain = Chain.of(network)
    states = States.of(network, propagate(network, region, method="alpha"))
    states.witness(began + SHARES["search"] * time_limit, seed)
    now = time.monotonic()
    settle(states, settings, now + SHARES["program"] * (began + time_limit - now))
    units = [Units(name, *states.ends(name)) for name in states.where]
    chain.shrink(units, region)
    small = chain.network()
    left = max(1.0, began + time_limit - time.monotonic())
    known = propagate(network, region, method="crown", given=states.known())
    how = MinimumSettings(settings, time.monotonic() + left, AGREEMENT_TOLERANCE, seed=seed)
    agreement = compare_outputs(network, small, region, within, how, known)
    layers = tuple(_counted(each, chain) for each in units)
    seconds = time.monotonic() - began
    return Compressed(small, layers, agreement, states.complete, states.rounds, states.nodes, seconds)


def _counted(units: Units, chain: Chain) -> LayerCount:
    silent, active = units.upper <= 0, (units.lower >= 0) & (units.upper > 0)
    changing = len(units.lower) - int(silent.sum()) - int(active.sum())
    return LayerCount(units.name, len(silent), int(silent.sum()), int(active.sum()), changing, chain.width(units.name))
