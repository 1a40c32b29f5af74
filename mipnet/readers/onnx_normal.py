"""Models that onnxruntime runs and onnx's checker refuses, in the form that the checker asks for.

Nodes may stand behind their readers, a domain may have several versions of its operators (onnxruntime takes the last one) and two names, a
graph may have no name, outputs, initialisers listed as inputs and values in between may have no type or no shape, and initialisers of the
first versions of the format need not be listed as inputs.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import GraphProto, ModelProto, NodeProto


IR_OF_UNLISTED_INITIALISERS = 4
"""The first version of the format whose initialisers need not be inputs."""

FUNCTION_DEPTH_MAX = 100
"""Largest depth of functions that call each other."""


def operator_versions(model: ModelProto) -> dict[str, int]:
    """Return the version of the operators of each domain: the last one that is given, as onnxruntime reads it."""
    return {"" if each.domain == "ai.onnx" else each.domain: int(each.version) for each in model.opset_import}


def normal_form(model: ModelProto) -> ModelProto:
    """Return an equal model whose nodes stand behind what they read, with one version per domain, and without gaps in its declarations."""
    found = type(model)()
    found.CopyFrom(model)
    del found.opset_import[:], found.graph.node[:], found.graph.value_info[:]
    for domain, version in operator_versions(model).items():
        found.opset_import.add(domain=domain, version=version)
    found.graph.node.extend(sorted_nodes(model.graph))
    for node in found.graph.node:
        if node.domain == "ai.onnx":  # the other name of the domain that has none
            node.domain = ""
    found.graph.name = model.graph.name or "graph"
    if 0 < model.ir_version < IR_OF_UNLISTED_INITIALISERS:
        found.ir_version = IR_OF_UNLISTED_INITIALISERS
    _complete_declarations(found.graph)
    return found


def expanded_nodes(model: ModelProto) -> float:
    """Return the number of nodes of the graph with its functions written out; infinite if a function calls itself."""
    bodies = {(each.domain, each.name): each.node for each in model.functions}
    sizes: dict[tuple[str, str], float] = {}

    def size(nodes: Iterable[NodeProto], calls: frozenset[tuple[str, str]]) -> float:
        total = 0.0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in bodies and key not in sizes:
                sizes[key] = math.inf if key in calls or len(calls) > FUNCTION_DEPTH_MAX else size(bodies[key], calls | {key})
            total += sizes.get(key, 1.0)
        return total

    return size(model.graph.node, frozenset())


def sorted_nodes(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes, each behind those that it reads and otherwise in their order; in their order if there is a cycle."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    readers: dict[int, list[int]] = {}
    waiting = [0] * len(graph.node)
    for place, node in enumerate(graph.node):
        for before in {makers[name] for name in node.input if name in makers}:
            readers.setdefault(before, []).append(place)
            waiting[place] += 1
    ready = [place for place, count in enumerate(waiting) if not count]
    heapify(ready)
    found: list[int] = []
    while ready:
        found.append(heappop(ready))
        for place in readers.get(found[-1], ()):
            waiting[place] -= 1
            if not waiting[place]:
                heappush(ready, place)
    return [graph.node[place] for place in found] if len(found) == len(graph.node) else list(graph.node)


def _complete_declarations(graph: GraphProto) -> None:
    """Give a type and a shape to initialisers that are listed as inputs, and to outputs, whose declarations nothing else reads."""
    from onnx import TensorProto

    stored = {each.name: each for each in graph.initializer}
    for given in (*(each for each in graph.input if each.name in stored), *graph.output):
        if given.type.WhichOneof("value") not in (None, "tensor_type"):
            continue
        declared, kind, tensor = given.type.HasField("tensor_type"), given.type.tensor_type, stored.get(given.name)
        if not declared:
            kind.elem_type = TensorProto.FLOAT if tensor is None else tensor.data_type
        if not kind.HasField("shape"):
            kind.shape.SetInParent()
            for n in () if tensor is None else tensor.dims:
                kind.shape.dim.add(dim_value=n)
