"""The stages of a network: it is cut at nodes that every path passes, so that each stage holds one gated layer, or a few.

A node is a place to cut if every path from input to output goes through it: in topological order, no later node reads an earlier one.
A gate belongs to one stage as a whole, with all its nodes and sites.  So a module that is used twice, and branches that are added, stay
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mipnet.errors import InputError, suggest_keywords
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT_NODE, Network, Node


@dataclass(frozen=True)
class Stage:
    """The nodes after ``source`` up to ``end``, with the names of their gates; the first stage has the input as its ``source``."""

    gates: tuple[str, ...]
    source: str
    end: str

    @property
    def name(self) -> str:
        """The names of its gates, joined."""
        return "+".join(self.gates)


@suggest_keywords
def find_stages(network: Network, gates: Sequence[Gate]) -> tuple[Stage, ...]:
    """Return the stages of a network, one more than there are places to cut between gated layers; the last one ends with the network.

    Of several places between the same layers, the first after their sites and after unit-wise layers, such as an activation, is taken: a
    pooling layer belongs to the stage that reads it.  Raises `InputError` if there is no place to cut.
    """
    chosen = _chosen_cuts(network, gates)
    if not chosen:
        names = ", ".join(gate.name for gate in gates)
        raise InputError(
            f"the network has no place to cut between its gated layers ({names or 'none'}): no node there carries its whole value, or there"
            " are fewer than two; solve it as one program, not decoupled by layer"
        )
    place = {INPUT_NODE: -1} | {node.name: i for i, node in enumerate(network.nodes)}
    stages = []
    for source, end in zip([INPUT_NODE, *chosen], [*chosen, network.output.name], strict=True):
        inside = tuple(gate.name for gate in gates if place[source] < place[gate.nodes[0]] <= place[end])
        stages.append(Stage(inside, source, end))
    return tuple(stages)


def _chosen_cuts(network: Network, gates: Sequence[Gate]) -> list[str]:
    """Return one of the places between the same gates: the nodes before and after it have no gate in common."""
    place = {node.name: i for i, node in enumerate(network.nodes)}
    spans = [[place[name] for name in (*gate.nodes, *gate.sites)] for gate in gates]
    chosen: dict[int, str] = {}
    for cut in find_cuts(network):
        begun, ended = (sum(end(span) <= place[cut] for span in spans) for end in (min, max))
        if begun == ended and 0 < ended < len(gates):
            before = chosen.get(ended)
            follows = network[cut].inputs == (before,) and network[cut].layer.unitwise
            chosen[ended] = cut if before is None or follows else before
    return list(chosen.values())


def find_cuts(network: Network) -> list[str]:
    """Return the nodes before the output that every path from input to output goes through, in order."""
    place = {INPUT_NODE: -1} | {node.name: i for i, node in enumerate(network.nodes)}
    used, cuts, reach = {network.output.name}, [], len(network)
    for i, node in reversed(list(enumerate(network.nodes))):
        if node.name in used:
            if i <= reach and node is not network.output:
                cuts.append(node.name)
            used |= set(node.inputs)
            reach = min([reach, *(place[source] for source in node.inputs)])
    return cuts[::-1]


def between(network: Network, source: str, end: str) -> Network:
    """Return the part of a network after one place to cut, up to another node; its input is the value at that place."""
    nodes: list[Node] = []
    wanted = {end}
    for node in reversed(network.nodes):
        if node.name in wanted and node.name != source:
            nodes.append(node)
            wanted |= set(node.inputs)
    made = [(n.name, n.layer, [INPUT_NODE if name == source else name for name in n.inputs]) for n in reversed(nodes)]
    origins = {node.name: node.origin for node in nodes}
    return Network.build(network.shape_of(source), made, origins=origins, modules=network.modules)


def chained(first: Network, second: Network, prefix: str = "head") -> Network:
    """Return the network ``second(first(x))``; the names of the second get a prefix that no name of the first has."""
    taken = {name for node in first.nodes for name in (node.name, node.origin)}
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    renamed = {INPUT_NODE: first.output.name} | {node.name: f"{prefix}_{node.name}" for node in second.nodes}
    added = [(renamed[n.name], n.layer, [renamed[name] for name in n.inputs]) for n in second.nodes]
    origins = {n.name: n.origin for n in first.nodes} | {renamed[n.name]: f"{prefix}_{n.origin}" for n in second.nodes}
    made = Network.build(first.input_shape, [*((n.name, n.layer, n.inputs) for n in first.nodes), *added], origins=origins)
    return replace(made, modules=first.modules)
