"""The cost of a forward pass, and how many samples are passed at once so that the clock can be asked often enough."""

from __future__ import annotations

from mipnet.limits.memory import count_in_memory
from mipnet.network.graph import PASS_ELEMENT_BYTES, Network, size

PASS_MULTIPLICATIONS_MAX = 2**28
"""Largest number of multiplications in one forward pass of several samples, which takes about a tenth of a second."""

GRADIENT_ELEMENT_BYTES = 32
"""Bytes per element of all nodes in a pass that is differentiated: the value, its gradient, and temporary copies."""

GRADIENT_PASSES = 3
"""What a pass that is differentiated costs, in forward passes."""

ELEMENT_MULTIPLICATIONS = 16
"""What it costs to read and write one element of a node's value, in multiplications."""


def multiplications(network: Network) -> int:
    """Return about how many multiplications a forward pass of one sample takes.

    A weight is applied once per position of a node's value; the positions are the axes after the first.
    """
    found = 0
    for node in network.nodes:
        weights = sum(weight.numel() for weight in node.layer.weights().values())
        found += weights * size(node.shape[1:]) + ELEMENT_MULTIPLICATIONS * size(node.shape)
    return found


def gradient_bytes(network: Network) -> float:
    """Return about how many bytes a forward pass of one sample takes that is differentiated afterwards."""
    return GRADIENT_ELEMENT_BYTES * sum(size(node.shape) for node in network.nodes)


def count_in_time(cost: int) -> int:
    """Return how many samples are passed between two looks at the clock if one of them takes ``cost`` multiplications, at least one."""
    return max(1, PASS_MULTIPLICATIONS_MAX // max(1, cost))


def samples_at_once(network: Network, passes: int = 1) -> int:
    """Return how many samples are passed at once, at least one and no more than fit into memory.

    ``passes`` is the number of forward passes that each of them costs.
    """
    in_time = count_in_time(passes * multiplications(network))
    return count_in_memory(passes * PASS_ELEMENT_BYTES * sum(size(node.shape) for node in network.nodes), in_time)
