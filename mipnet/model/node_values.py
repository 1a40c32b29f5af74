"""Writing one node of a network and its gate: the value of a node from the values of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mipnet.arrays import Array, Ints
from mipnet.formulations.affine import Affine
from mipnet.formulations.block import Block
from mipnet.formulations.formulation_choice import Formulation, NetworkFacts, choose, choose_gate
from mipnet.formulations.gated import gated, gated_relu, published_linear
from mipnet.formulations.registry import is_affine, linear_map
from mipnet.layers.activations import ReLU
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.graph import Layer


@dataclass(frozen=True)
class FormulationRequest:
    """The formulations that the user requested, the properties of the network that `auto` uses, and when the writing has to end."""

    formulation: Formulation
    facts: NetworkFacts
    deadline: Deadline = NO_DEADLINE


def scores_of_elements(labels: Ints, block: Block) -> Affine:
    """Return the score of each element of a block, from the labels of the scores per unit; all samples and positions share them."""
    return Affine.of(np.broadcast_to(labels.reshape(1, -1, *[1] * (len(block.shape) - 2)), block.shape))


def write_node(block: Block, inputs: list[Affine], score: Affine | None, request: FormulationRequest) -> Affine:
    """Write a node and its gate, and return the value; raises `TimeLimitReached` after the deadline."""
    node = block.node
    if all(x.is_fixed for x in inputs):
        value = Affine.fixed(_forward(node.layer, inputs))
    elif score is not None and isinstance(node.layer, ReLU):
        choose(block, request.formulation, request.facts)
        return gated_relu(block, inputs[0], score)
    else:
        value = _layer_value(block, inputs, request)
    return value if score is None else _gated_value(block, value, score, request)


def _layer_value(block: Block, inputs: list[Affine], request: FormulationRequest) -> Affine:
    node = block.node
    if not is_affine(node.layer):
        return block.checked(choose(block, request.formulation, request.facts)(node.layer, block, *inputs))
    constant = _forward(node.layer, inputs)
    maps = linear_map(node.layer, *(x.shape[1:] for x in inputs))
    parts = [x.through(m, np.zeros(constant.shape), request.deadline) for x, m in zip(inputs, maps, strict=True)]
    return sum(parts[1:], start=parts[0]) + constant


def _gated_value(block: Block, value: Affine, score: Affine, request: FormulationRequest) -> Affine:
    choose_gate(block, request.formulation, request.facts)
    lower, upper = block.bounds.after.lower.numpy(), block.bounds.after.upper.numpy()
    if block.bounds.paper and not block.node.layer.activation:
        return published_linear(block, value, score, upper)
    return gated(block, value, score, lower, upper)


def _forward(layer: Layer, inputs: list[Affine]) -> Array:
    """Apply the layer to the constants of its inputs: its value if the inputs are constant, and the new constant of an affine layer."""
    with torch.no_grad():
        value: Array = layer.forward(*(torch.tensor(x.constant) for x in inputs)).numpy()
    return value
