"""Choosing the formulation of each layer: by name, by default, or with `auto`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mipnet.bounds.boxes import Bounds
from mipnet.errors import InputError, UnsupportedError, meant
from mipnet.formulations.block import PARTITION_PARTS_DEFAULT, Block, ChosenFormulation
from mipnet.formulations.registry import Encoder, RegisteredFormulation, all_formulations, formulations, is_affine
from mipnet.formulations.relu import POSITIVE_PART
from mipnet.network.gates import Gate
from mipnet.network.graph import Network, Node

Formulation = Mapping[str, str | int]
"""Formulation name by lower-case layer name, ``{"relu": "partition", "parts": 4}``; ``parts`` is the number of parts for `partition`."""

AUTO_FORMULATION = "auto"
"""The name that chooses a formulation per node."""

SOS1_UNSTABLE_MAX = 80
"""Largest number of unstable activations for which `auto` chooses `sos1`: of one sample, or of all samples if scores couple them."""


@dataclass(frozen=True)
class NetworkFacts:
    """Properties of the network that `auto` uses.

    ``unstable`` is the number of unstable activations: without gates the largest one of a sample, because every sample is then a network
    of its own; with gates that of all samples, which share the scores.  ``other_binaries`` is True if other layers or gates have binaries.
    """

    unstable: int
    other_binaries: bool
    coupled: bool = False

    @staticmethod
    def of(bounds: Bounds, gates: Sequence[Gate] = (), *, binary_scores: bool = False) -> NetworkFacts:
        """Return the properties of the network with these bounds and gates."""
        counts, coupled = bounds.unstable_per_sample(), bool(gates)
        other_binaries = (binary_scores and coupled) or has_other_binaries(bounds.network)
        return NetworkFacts(int(counts.sum() if coupled else counts.max(initial=0)), other_binaries, coupled)

    @property
    def where(self) -> str:
        """Where the unstable activations are counted, for the reason of a choice."""
        return "over all samples" if self.coupled else "in one sample"


def check_formulation(formulation: Formulation) -> None:
    """Raise `InputError` or `UnsupportedError` for a layer, a name or an option that is not registered."""
    if not isinstance(formulation, Mapping):
        raise InputError(f"the formulation is {formulation!r}; expected a mapping such as {{'relu': 'big-m'}}")
    names = {kind: name for kind, name in formulation.items() if kind != "parts"}
    parts, offered = formulation.get("parts", 1), all_formulations()
    if isinstance(parts, bool) or not isinstance(parts, int) or parts < 1:
        raise InputError(f"`parts` is {parts!r}; expected a whole number of at least 1")
    unknown = [kind for kind in names if kind not in offered]
    if unknown:
        raise InputError(
            f"a formulation is given for {unknown}; the layers that have one are {sorted(offered)}{meant(unknown[0], offered)}"
        )
    for kind, name in names.items():
        if name not in (*offered[kind], AUTO_FORMULATION):
            known = (*offered[kind], AUTO_FORMULATION)
            raise UnsupportedError(f"layer `{kind}` has no formulation `{name}`; it offers {', '.join(known)}{meant(name, known)}")
    if "parts" in formulation and "partition" not in names.values():
        raise InputError("`parts` is for formulation `partition`, and no layer has it; leave it out")


def choose(block: Block, formulation: Formulation, facts: NetworkFacts) -> Encoder:
    """Choose the formulation of a block's layer, store it in the block, and return the encoder."""
    block.choice = choice_of(block.node, formulation, facts)
    return block.choice.formulation.write


def choice_of(node: Node, formulation: Formulation, facts: NetworkFacts) -> ChosenFormulation:
    """Return the formulation of a node's layer."""
    offered = formulations(type(node.layer))
    if not offered:
        kind = type(node.layer).__name__
        raise UnsupportedError(f"no encoding for layer `{kind}` of node `{node.name}`; register one with `@mipnet.encoding({kind}, name)`")
    return _chosen(node, _wanted(node, formulation), offered, formulation, facts)


def choose_gate(block: Block, formulation: Formulation, facts: NetworkFacts) -> None:
    """Choose the formulation of the gate after a layer that is not written with positive parts: the one of ReLU."""
    if block.chosen_of(POSITIVE_PART) is None:
        block.gate_choice = gate_choice_of(block.node, formulation, facts)


def gate_choice_of(node: Node, formulation: Formulation, facts: NetworkFacts) -> ChosenFormulation:
    """Return the formulation of the gate after a node whose layer is not written with positive parts."""
    return _chosen(node, formulation.get("relu"), POSITIVE_PART.formulations, formulation, facts)


def has_other_binaries(network: Network) -> bool:
    """Return True if a layer other than an activation, such as max pooling, may need binaries."""
    return any(not node.layer.activation and not is_affine(node.layer) for node in network.nodes)


def _wanted(node: Node, formulation: Formulation) -> str | int | None:
    return formulation.get(type(node.layer).__name__.lower(), formulation.get("relu") if node.layer.activation else None)


def _chosen(
    node: Node, wanted: str | int | None, offered: Mapping[str, RegisteredFormulation], formulation: Formulation, facts: NetworkFacts
) -> ChosenFormulation:
    if wanted == AUTO_FORMULATION:
        name, why = automatic(offered, facts)
    else:
        name = str(next(iter(offered)) if wanted is None else wanted)
        why = "the default" if wanted is None else "as asked"
    if name not in offered:
        raise UnsupportedError(f"node `{node.name}` has no formulation `{name}`; it offers {', '.join(offered)}")
    return ChosenFormulation(offered[name], why, int(formulation.get("parts", PARTITION_PARTS_DEFAULT)))


def automatic(offered: Mapping[str, RegisteredFormulation], facts: NetworkFacts) -> tuple[str, str]:
    """Return the name of the formulation that `auto` chooses among the offered ones, and the reason.

    The choice is an exact formulation wherever one is registered, and depends only on the network and its bounds.  In small networks
    SCIP is fastest with SOS1 pairs; a solver without SOS1 sets gets big-M rows instead.  With other binaries, pairs are sometimes much
    slower, and in large networks the dual bound hardly improves while SCIP branches on them.  docs/benchmarks.md lists the times.
    """
    if "sos1" not in offered:
        exact = [name for name, each in offered.items() if not each.relaxed]
        return (exact[0], "the default; no other was faster") if exact else (next(iter(offered)), "the default; none is exact")
    if facts.other_binaries:
        return "big-m", "the network has other binaries, with which SOS1 pairs are sometimes much slower"
    if facts.unstable > SOS1_UNSTABLE_MAX:
        return (
            "big-m",
            f"{facts.unstable:,} activations are unstable {facts.where}, more than {SOS1_UNSTABLE_MAX}: with SOS1 the bound hardly moves",
        )
    return (
        "sos1",
        f"{facts.unstable:,} activations are unstable {facts.where}, at most {SOS1_UNSTABLE_MAX}, without other binaries: SOS1 is fastest",
    )
