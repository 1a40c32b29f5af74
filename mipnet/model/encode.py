"""Writing a network over an input set as a linopy model, with one block per node, for all samples at once.

`encode` creates a new model, `write_network` writes into the model of an `Encoding`.  Constants, affine layers and units with a fixed
sign need no variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import linopy
import numpy as np
import xarray as xr

from mipnet.arrays import Array, Ints
from mipnet.bounds.boxes import Bounds
from mipnet.bounds.interval import Mode
from mipnet.bounds.propagation import wanted_bounds
from mipnet.errors import InputError, UnsupportedError, suggest_keywords
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block, BlockBounds, write_work
from mipnet.formulations.distance import BALL_ROWS, DISTANCE_VARIABLE, add_ball
from mipnet.formulations.formulation_choice import Formulation, NetworkFacts, check_formulation
from mipnet.formulations.linopy_rows import add_rows, add_variables, coordinates, value_range
from mipnet.formulations.polytope_rows import HULL_WEIGHTS, add_polytope, hull_fill
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.model.encoding import Encoding, register
from mipnet.model.encoding_size import making_program
from mipnet.model.node_values import FormulationRequest, scores_of_elements, write_node
from mipnet.network.gates import Gate, resolve_gates
from mipnet.network.graph import INPUT_NODE, Network, Node, dims_of
from mipnet.network.polytopes import Hull
from mipnet.network.sets import Box

RESERVED_VARIABLE_NAMES = frozenset({INPUT_NODE, "output", "lse", "hinge", "sparsity", "level", "above", DISTANCE_VARIABLE, HULL_WEIGHTS})
"""Names of variables that belong to no node; the variables of a node with such a name get the suffix ``_node``."""

BOUNDS_TIME_SHARE = 0.5
"""Largest share of the time limit of `encode` in which bounds are computed."""


@suggest_keywords
def encode(
    network: Network,
    region: Box,
    *,
    formulation: Formulation | None = None,
    bounds: Mode | Bounds = "sound",
    gates: Sequence[Gate] | str | Sequence[str] | None = None,
    binary_gates: bool = False,
    epsilon: float = 1e-5,
    time_limit: TimeLimit = None,
) -> Encoding:
    """Write a network over an input set as a new linopy model.

    Parameters
    ----------
    network
        The network.
    region
        The input set: `Box`, `LInf`, `L1`, `L2` or `Samples`, of shape ``(sample, *input_shape)``, with one set per sample; or `Polytope`
        or `ConvexHull`.
    formulation
        Formulation name by lower-case layer name, ``{"relu": "big-m"}``.  A layer that is not listed gets its default, and ``"auto"``
        chooses one per node; see `mipnet.formulations.formulation_choice`.
    bounds
        ``"sound"``: bounds that are valid for every gate value, computed by CROWN.  ``"interval"``, ``"crown"`` or ``"alpha"``: the
        same, computed by the named method.  ``"paper"``: interval bounds of the network without gates over the region widened by
        ``epsilon``, used as big-Ms of the gated network, as published.  Or a `Bounds` object; see `mipnet.bounds.propagation`.
    gates
        None for no gates, ``"all"``, or a list of layer names; see `mipnet.network.gates`.
    binary_gates
        True for scores in {0, 1} instead of [0, 1].
    epsilon
        Distance in the maximum norm by which ``bounds="paper"`` widens the region.
    time_limit
        Seconds of the whole call, None for no limit.  Bounds may take `BOUNDS_TIME_SHARE` of them and are looser afterwards.

    Raises `UnboundedError` if a big-M would be infinite, `TimeLimitReached` if the time ends before all layers are written, and
    `MemoryLimitReached` if the program would be larger than the memory limit (`mipnet.memory_limit`).  Raises
    `UnsupportedError` if a layer does not have the requested formulation, and for a network that ends in a softmax:
    `Network.without_softmax` returns the one whose outputs are the logits.
    """
    refuse_softmax(network)
    deadline = Deadline.after(time_limit)
    region = region.fit(network.input_shape, network.input_names)
    chosen = resolve_gates(network, gates)
    known = wanted_bounds(network, region, chosen, bounds, epsilon, deadline.share(BOUNDS_TIME_SHARE))
    samples = xr.DataArray(np.arange(region.samples), dims="sample")
    enc = Encoding(network, linopy.Model(), region, known, chosen, samples)
    enc.values[INPUT_NODE] = Affine.fixed(region.lower) if region.fixed else _input_variable(enc)
    write_network(enc, formulation or {}, deadline, binary_gates=binary_gates)
    if region.ball is not None and not region.fixed:
        add_ball(enc.model, enc.distance(region.ball.centre, region.ball.radius, region.ball.norm), samples)
        enc.own_rows.append(BALL_ROWS)
    if not region.fixed:
        write_polytope(enc)
    return enc


def refuse_softmax(network: Network) -> None:
    """Raise `UnsupportedError` for a network that ends in a softmax."""
    if network.softmax is not None:
        raise UnsupportedError(
            f"the network ends in a {network.softmax.kind}, which is not piecewise linear; expected a network without it: write"
            " `network.without_softmax()`, and the output of the encoding is the logits"
        )


def write_polytope(enc: Encoding, prefix: str = "") -> None:
    """Add the rows that keep the input in the polytope of the input set, if there is one."""
    polytope, x = enc.region.polytope, enc.values[INPUT_NODE]
    if polytope is None:
        return
    enc.own_rows += add_polytope(enc.model, polytope, x, prefix, enc.samples)
    if isinstance(polytope, Hull):
        enc.fills.append((enc.model.variables[f"{prefix}{HULL_WEIGHTS}"].labels.values, hull_fill(polytope, x)))


def _input_variable(enc: Encoding) -> Affine:
    coords = coordinates(("sample", *dims_of(INPUT_NODE, enc.network.input_shape)), enc.region.lower.shape, enc.samples)
    return Affine.of(add_variables(enc.model, INPUT_NODE, enc.region.lower, enc.region.upper, coords).labels.values)


def write_network(enc: Encoding, formulation: Formulation, deadline: Deadline, *, binary_gates: bool = False, prefix: str = "") -> Encoding:
    """Write all nodes into the model, each in its own block, and the output as variables; the value of the input is known."""
    check_formulation(formulation)
    check_output_name(enc.model, prefix)
    for gate in enc.gates:
        coords = {gate.dim: np.arange(gate.units)}
        enc.scores[gate.name] = add_variables(enc.model, f"{prefix}score_{gate.name}", 0, 1, coords, binary=binary_gates)
    scores_at = {site: enc.scores[gate.name].labels.values for gate in enc.gates for site in gate.sites}
    request = FormulationRequest(formulation, NetworkFacts.of(enc.bounds, enc.gates, binary_scores=binary_gates), deadline)
    with making_program(enc.network, enc.region, enc.bounds, request):
        _write_nodes(enc, request, scores_at, prefix, deadline)
        add_output(enc, prefix)
    register(enc)
    return enc


def check_output_name(model: linopy.Model, prefix: str) -> None:
    """Raise `InputError` if the model has the output of a network with this prefix."""
    if f"{prefix}output" in model.variables:
        raise InputError(
            f"the model has a variable `{prefix}output` already, perhaps of another network; give this one a `prefix` of its own"
        )


def _write_nodes(enc: Encoding, request: FormulationRequest, scores_at: Mapping[str, Ints], prefix: str, deadline: Deadline) -> None:
    for node in enc.network.nodes:
        deadline.check(write_work(node))
        block = new_block(enc, node, prefix)
        block.deadline = deadline
        inputs = [enc.values[name] for name in node.inputs]
        score = scores_of_elements(scores_at[node.name], block) if node.name in scores_at else None
        enc.values[node.name] = write_node(block, inputs, score, request)
        block.deadline = NO_DEADLINE  # rows may be added later
        enc.blocks[node.name] = block


def new_block(enc: Encoding, node: Node, prefix: str) -> Block:
    """Return the block of a node, without variables and rows."""
    return Block(
        name=prefix + (f"{node.name}_node" if node.name in RESERVED_VARIABLE_NAMES or node.name.startswith("score_") else node.name),
        node=node,
        model=enc.model,
        samples=enc.samples,
        bounds=BlockBounds(
            before=tuple(enc.bounds.after[name] for name in node.inputs),
            after=enc.bounds.before_gate(node.name),
            paper=enc.bounds.mode == "paper",
        ),
        fills=enc.fills,
        threshold_gap=enc.threshold_gap,
    )


def add_output(enc: Encoding, prefix: str, known: tuple[Array, Array] | None = None) -> None:
    """Add variables for the output.  A linopy objective cannot contain the constants of an affine value, but it can contain variables.

    ``known`` are bounds of shape ``(sample, element)``; by default they follow from the terms of the output.
    """
    node = enc.network.output
    value, dims = enc.values[node.name], ("sample", *node.dims)
    lower, upper = value_range(enc.model, value) if known is None else (end.reshape(value.shape) for end in known)
    if enc.bounds.mode == "sound":
        box = enc.bounds.after[node.name]
        lower, upper = np.maximum(lower, box.lower.numpy()), np.minimum(upper, box.upper.numpy())
    ends, name = (np.minimum(lower, upper), np.maximum(lower, upper)), f"{prefix}output"
    if enc.grid is None:
        enc.output = add_variables(enc.model, name, *ends, coordinates(dims, value.shape, enc.samples))
        enc.output_labels = enc.output.labels.values
    else:
        enc.output, enc.output_labels = enc.grid.variable(enc.model, name, ends, node.dims)
    labels = enc.output_labels
    enc.fills.append((labels, value.evaluate))
    enc.own_rows.append(f"{prefix}output_is")
    add_rows(enc.model, enc.own_rows[-1], value - Affine.of(labels), "=", 0.0, dims, enc.samples)
