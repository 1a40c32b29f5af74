"""From an ONNX graph to a `Network`, at batch size 1: one rule per operator (`mipnet.readers.onnx_call`), one or more nodes per rule."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Shape
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.layers import Reshape
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.graph import INPUT_NODE, Layer, Network, size
from mipnet.readers.node_names import NodeNames
from mipnet.readers.onnx_call import (
    ONNX_FLOAT_TYPES,
    ONNX_HALF_TYPES,
    ONNX_RULES,
    OnnxCall,
    OnnxConstant,
    OnnxTensor,
    attributes_of,
    one_sample,
    owner_of,
    place,
)
from mipnet.readers.onnx_fold import Unfoldable, fold
from mipnet.readers.operators.remedies import refusal

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, ValueInfoProto

ONNX_SOFTMAXES: dict[str, Literal["softmax", "log_softmax"]] = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}
"""Operators that are taken off the end of a graph, with the kind of `FinalSoftmax`."""


def _ancestors(layers: list[tuple[str, Layer, tuple[str, ...]]], name: str) -> list[tuple[str, Layer, tuple[str, ...]]]:
    """Return the layers that a value depends on; other layers were read for their shapes only."""
    wanted, found = {name}, []
    for layer in reversed(layers):
        if layer[0] in wanted:
            wanted.update(layer[2])
            found.append(layer)
    return found[::-1]


@dataclass(eq=False)
class OnnxReader:
    """The reader of one graph: the value of each name in the graph, the layers so far, and the names of nodes."""

    graph: GraphProto
    opset: int
    deadline: Deadline = NO_DEADLINE
    values: dict[str, OnnxTensor | OnnxConstant] = field(default_factory=dict)
    layers: list[tuple[str, Layer, tuple[str, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    softmax: FinalSoftmax | None = None
    names: NodeNames = field(default_factory=NodeNames)
    dims: Shape = ()
    reshaped: dict[str, OnnxTensor] = field(default_factory=dict)
    fused: dict[str, tuple[str]] = field(default_factory=dict)

    def network(self) -> Network:
        """Read the network that the graph computes at batch size 1."""
        self._read_initialisers()
        self._check_declared()
        self._read_input()
        self.names = NodeNames({owner for name in self.values if (owner := owner_of(name))})
        out, softmax = self._take_off_softmax()
        for node in needed(self.graph, out):
            if node.output[0] not in self.values:
                self.deadline.check(f"read {place(node)}")
                self._read(node)
        found = self.values.get(out)
        if not isinstance(found, OnnxTensor):
            raise UnsupportedError(f"the output `{out}` does not depend on the input; expected a network")
        if softmax is not None:
            self._note_softmax(softmax, found)
        if found.name == INPUT_NODE:  # the graph has no operator, or none that computes
            from onnx import NodeProto

            found = OnnxCall(self, NodeProto(op_type="Identity"), {}).emit(Reshape(found.shape), found)
        self._note_rounding_casts()
        self.deadline.check("put the layers together")
        layers = _ancestors(self.layers, found.name)
        return Network.build(one_sample(self.dims), layers, origins=self.names.origins, notes=self.notes, softmax=self.softmax)

    def _note_rounding_casts(self) -> None:
        """Record casts to numbers of 16 bits, which are read as no layer: the graph rounds there, the network does not."""
        casts = [node for node in self.graph.node if node.op_type == "Cast" and attributes_of(node).get("to") in ONNX_HALF_TYPES]
        if casts:
            names = ", ".join(f"`{node.name or node.output[0]}`" for node in casts[:3]) + (", ..." if len(casts) > 3 else "")
            self.notes.append(f"casts to numbers of 16 bits ({names}) round in the file, by up to 0.4 %, and not in the network")

    def _read_initialisers(self) -> None:
        from onnx import numpy_helper

        for each in self.graph.initializer:
            self.deadline.check(f"read the initialiser `{each.name}`")
            try:
                array = as_float64(numpy_helper.to_array(each))
            except Exception as error:
                why = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
                raise NetworkError(f"the initialiser `{each.name}` cannot be read ({why}); expected {list(each.dims)} numbers") from None
            self.values[each.name] = OnnxConstant(array, frozenset({each.name}))

    def _read_input(self) -> None:
        """Read the only input that is not an initialiser, with its sample axis at length 1."""
        given = [each for each in self.graph.input if each.name not in self.values]
        if len(given) != 1 or len(self.graph.output) != 1:
            names = ", ".join(f"`{each.name}`" for each in (*given, *self.graph.output))
            raise UnsupportedError(
                f"the graph has {len(given)} inputs and {len(self.graph.output)} outputs ({names}); expected one of each"
            )
        self.dims = input_dims(given[0])
        if len(self.dims) > 1 and self.dims[0] != 1:
            self.notes.append(f"the input {list(self.dims)} has no sample axis of length 1 or of any length: it is taken as one sample")
        self.values[given[0].name] = OnnxTensor(INPUT_NODE, one_sample(self.dims), self.dims)

    def _check_declared(self) -> None:
        """Raise unless initialisers that are also listed as inputs, as in old files, have the shapes declared there."""
        for each in self.graph.input:
            found, sizes = self.values.get(each.name), each.type.tensor_type.shape.dim
            if isinstance(found, OnnxConstant) and sizes and all(d.HasField("dim_value") for d in sizes):
                declared = tuple(int(d.dim_value) for d in sizes)
                if declared != found.array.shape:
                    given = f"has shape {list(found.array.shape)} and is declared with {list(declared)}"
                    raise NetworkError(f"the initialiser `{each.name}` {given}; export the network again")

    def _take_off_softmax(self) -> tuple[str, NodeProto | None]:
        """Return the name of the input of a final softmax, and the softmax; the output's name and None if there is none."""
        makers = {name: node for node in self.graph.node for name in node.output}
        out = here = str(self.graph.output[0].name)
        while here in makers and passes_on(makers[here]):
            here = str(makers[here].input[0])
        if here not in makers or makers[here].op_type not in ONNX_SOFTMAXES or makers[here].domain not in ("", "ai.onnx"):
            return out, None
        return str(makers[here].input[0]), makers[here]

    def _note_softmax(self, node: NodeProto, before: OnnxTensor) -> None:
        """Record the softmax that was taken off; before opset 13 it normalises over all axes from ``axis`` on."""
        call, rank, kind = OnnxCall(self, node, attributes_of(node)), len(before.dims), ONNX_SOFTMAXES[node.op_type]
        axis = int(call.get("axis", -1 if self.opset >= 13 else 1))
        if not -rank <= axis < rank or (rank > 1 and axis % rank == 0):
            call.refuse(f"it normalises {list(before.dims)} over axis {axis}; expected an axis of one sample")
        call.check_attributes()
        axes = (axis % rank,) if self.opset >= 13 else tuple(range(axis % rank, rank))
        first = rank - len(before.shape)  # the number of sample axes
        self.softmax = FinalSoftmax(kind, tuple(each - first for each in axes))
        self.notes.append(self.softmax.note)

    def _read(self, node: NodeProto) -> None:
        inputs = [None if name == "" else self._known(node, name) for name in node.input]
        paths = frozenset[str]().union(*(each.paths for each in inputs if isinstance(each, OnnxConstant)))
        call = OnnxCall(self, node, attributes_of(node), paths)
        if node.domain in ("", "ai.onnx") and not any(isinstance(each, OnnxTensor) for each in inputs):
            self._fold(call, [None if each is None else each.array for each in inputs if not isinstance(each, OnnxTensor)])
            return
        rule = ONNX_RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise UnsupportedError(refusal(place(node), str(node.op_type)))
        try:
            inspect.signature(rule).bind(call, *inputs)
        except TypeError:
            call.refuse(f"it has {len(inputs)} inputs")
        found = rule(call, *inputs)
        call.check_attributes()
        results = found if isinstance(found, list) else [found] * (1 + len(more := self.fused.pop(node.output[0], ())))
        names = node.output if isinstance(found, list) else (node.output[0], *more)
        self.values |= {name: value for name, value in zip(names, results, strict=True) if name}

    def _known(self, node: NodeProto, name: str) -> OnnxTensor | OnnxConstant:
        if name not in self.values:
            raise UnsupportedError(f"{place(node)} cannot be read: its input `{name}` is not a value that mipnet reads")
        return self.values[name]

    def _fold(self, call: OnnxCall, inputs: list[NDArray[Any] | None]) -> None:
        try:
            found = fold(call.node, call.attributes, inputs, self.opset)
        except Unfoldable as error:
            call.refuse(f"its inputs are constants, and {error}")
        for name, array in zip(call.node.output, found, strict=False):
            self.values[name] = OnnxConstant(as_float64(array), call.paths)

    def fuse(self, node: NodeProto, consumer: NodeProto) -> None:
        """Let the layer that is read from ``node`` compute the result of ``consumer`` too."""
        self.fused[node.output[0]] = (consumer.output[0],)

    def sole_consumer(self, name: str) -> NodeProto | None:
        """Return the only node that reads a value; None if several do, or if the value is the graph's output."""
        consumers = [node for node in self.graph.node for each in node.input if each == name]
        return consumers[0] if len(consumers) == 1 and name != self.graph.output[0].name else None


def passes_on(node: NodeProto) -> bool:
    """Return True for an identity and for a cast between floating-point types."""
    if node.domain not in ("", "ai.onnx") or len(node.input) != 1:
        return False
    return node.op_type == "Identity" or (node.op_type == "Cast" and attributes_of(node).get("to") in ONNX_FLOAT_TYPES)


def as_float64(array: NDArray[Any]) -> NDArray[Any]:
    """Convert floating-point numbers of any size to float64; other arrays are returned unchanged."""
    return array.astype(np.float64) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array


def input_dims(given: ValueInfoProto) -> Shape:
    """Return the shape of the graph's input at batch size 1: a first axis of variable length has length 1."""
    from onnx import TensorProto

    kind = given.type.tensor_type
    if not given.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise UnsupportedError(f"the input `{given.name}` has no shape; expected a tensor with (samples, *shape of one sample)")
    if kind.elem_type not in ONNX_FLOAT_TYPES:
        known = dict(TensorProto.DataType.items())
        name = next((key for key, number in known.items() if number == kind.elem_type), str(kind.elem_type))
        raise UnsupportedError(f"the input `{given.name}` is of type {name}; expected floating-point numbers")
    sizes = [int(d.dim_value) if d.HasField("dim_value") else None for d in kind.shape.dim]
    shown = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
    if len(sizes) > 1 and (sizes[0] is None or sizes[0] < 1):  # some exporters write 0 or -1 for a variable length
        sizes[0] = 1
    found = tuple(n for n in sizes if n is not None)
    if not sizes or len(found) < len(sizes) or min(found) < 1 or size(found) > math.isqrt(2**63):
        raise UnsupportedError(f"the input `{given.name}` has shape {shown}; expected fixed sizes, except for the first axis (samples)")
    return found


def needed(graph: GraphProto, out: str) -> list[NodeProto]:
    """Return the nodes that a value depends on, in the order of the graph."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    found, open_names = set[int](), [out]
    while open_names:
        index = makers.get(open_names.pop())
        if index is not None and index not in found:
            found.add(index)
            open_names += graph.node[index].input
    return [graph.node[index] for index in sorted(found)]
