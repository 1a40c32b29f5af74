"""Which formulation each layer gets, and why: by name, by default, or picked by `auto`."""

from __future__ import annotations

from collections.abc import Mapping

from mipnet.errors import InputError, UnsupportedError
from mipnet.formulations.block import RELAXED, Block, Encoder, all_formulations, formulations, is_affine
from mipnet.formulations.relu import LINKS
from mipnet.network.graph import Network, Node

Formulation = Mapping[str, str | int]
"""Formulation name by lower-case layer name, ``{"relu": "partition", "parts": 4}``; ``parts`` is for `partition`."""

AUTO = "auto"

PAIRS = 80
"""Up to so many unstable activations in the network, over all samples, `auto` writes pairs."""


def check_formulation(formulation: Formulation) -> None:
    """Raise `InputError` or `UnsupportedError` for a layer, a name or an option that nobody knows."""
    if not isinstance(formulation, Mapping):
        raise InputError(f"the formulation is {formulation!r}; expected a mapping such as {{'relu': 'big-m'}}")
    names = {kind: name for kind, name in formulation.items() if kind != "parts"}
    parts, offered = formulation.get("parts", 1), all_formulations()
    if isinstance(parts, bool) or not isinstance(parts, int) or parts < 1:
        raise InputError(f"`parts` is {parts!r}; expected a whole number of at least 1")
    unknown = [kind for kind in names if kind not in offered]
    if unknown:
        raise InputError(f"a formulation is given for {unknown}; the layers that have one are {sorted(offered)}")
    for kind, name in names.items():
        if name not in (*offered[kind], AUTO):
            raise UnsupportedError(f"layer `{kind}` has no formulation `{name}`; it offers {', '.join(offered[kind])}, {AUTO}")
    if "parts" in formulation and "partition" not in names.values():
        raise InputError("`parts` is for formulation `partition`, and no layer has it; leave it out")


def choose(block: Block, formulation: Formulation) -> Encoder:
    """The encoder of a block's layer; the block notes the formulation's name and why it is this one."""
    offered = formulations(type(block.node.layer))
    if not offered:
        kind = type(block.node.layer).__name__
        raise UnsupportedError(
            f"no encoding for layer `{kind}` of node `{block.node.name}`; register one with `@mipnet.encoding({kind}, name)`"
        )
    name = _note(block, _wanted(block.node, formulation), offered, formulation)
    if name not in offered:
        raise UnsupportedError(f"node `{block.node.name}` has no formulation `{name}`; it offers {', '.join(offered)}")
    return offered[name]


def choose_gate(block: Block, formulation: Formulation) -> None:
    """The formulation of the gate behind a block that has none of its own: that of ReLU."""
    if block.formulation not in LINKS:
        _note(block, formulation.get("relu"), LINKS, formulation)


def has_other_binaries(network: Network) -> bool:
    """True if a layer that is no activation, such as max pooling, may need binaries."""
    return any(not node.layer.activation and not is_affine(node.layer) for node in network.nodes)


def _wanted(node: Node, formulation: Formulation) -> str | int | None:
    return formulation.get(type(node.layer).__name__.lower(), formulation.get("relu") if node.layer.activation else None)


def _note(block: Block, wanted: str | int | None, offered: Mapping[str, object], formulation: Formulation) -> str:
    if wanted == AUTO:
        block.formulation, block.why = automatic(block, offered)
    else:
        block.formulation = str(next(iter(offered)) if wanted is None else wanted)
        block.why = "the default" if wanted is None else "as asked"
    block.parts = int(formulation.get("parts", block.parts))
    return block.formulation


def automatic(block: Block, offered: Mapping[str, object]) -> tuple[str, str]:
    """What `auto` picks for a block, and why: always an exact formulation, and always the same for the same network and bounds.

    Pairs (`sos1`) are what SCIP searches fastest in small networks, and a solver without such sets gets big-m all the same.  Beside other
    binaries they are sometimes far slower, and in large networks branching on them hardly moves the bound: the sections on
    formulations in docs/benchmarks.md have the times.
    """
    if "sos1" not in offered:
        return next(name for name in offered if name not in RELAXED), "the default; nothing else measured faster"
    if block.mixed:
        return "big-m", "the network has other binaries, and beside those pairs are sometimes far slower"
    if block.unstable > PAIRS:
        return "big-m", f"{block.unstable:,} activations are unstable, more than {PAIRS}: pairs leave the bound where it is"
    return "sos1", f"{block.unstable:,} activations are unstable, at most {PAIRS}, and no others are binary: pairs search fastest"
