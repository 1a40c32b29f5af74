"""One operator of an ONNX graph, with its inputs and attributes at batch size 1, as its conversion rule sees it.

A rule gets the `OnnxCall` and the operator's inputs in order: an `OnnxTensor` for an input that depends on the network's input, an
`OnnxConstant` for initialisers and for values computed from them, and None for a missing optional input.  The rule asks the call for
each attribute.  Attributes that no rule asked for are refused, and so are inputs and outputs that the rule does not take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mipnet.arrays import Shape
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.layers import Reshape
from mipnet.network.graph import Layer, constant
from mipnet.readers.conversion import MOVING_LAYERS, Value, one_line
from mipnet.readers.node_names import NodeNames
from mipnet.readers.onnx_fold import run_operator
from mipnet.readers.operators.table import name_operator

if TYPE_CHECKING:
    from onnx import NodeProto

ONNX_RULES: dict[str, Callable[..., OnnxTensor | OnnxConstant]] = {}
"""The conversion rule of each operator, by the operator's name."""

ONNX_FLOAT_TYPES = (1, 10, 11, 16)
"""ONNX's type numbers of FLOAT, FLOAT16, DOUBLE and BFLOAT16."""

ONNX_HALF_TYPES = (10, 16)
"""Those of 16 bits: FLOAT16 and BFLOAT16."""

OnnxRule = TypeVar("OnnxRule", bound=Callable[..., Any])


def reads(*operators: str, operator: str | None = None) -> Callable[[OnnxRule], OnnxRule]:
    """Register a function as the rule of these operators; ``operator`` is their row in `mipnet.readers.operators.table`."""

    def register(rule: OnnxRule) -> OnnxRule:
        ONNX_RULES.update(dict.fromkeys(operators, rule))
        name_operator(operator, operators, "onnx")
        return rule

    return register


@dataclass(frozen=True)
class OnnxTensor(Value):
    """A value that depends on the input; ``dims`` is its shape in the graph, where a leading 1 is the sample axis (`one_sample`)."""

    dims: Shape

    @property
    def lead(self) -> int:
        """Number of sample axes in ``dims``: 1 or 0."""
        return len(self.dims) - len(self.shape)

    def dims_of(self, shape: Shape) -> Shape:
        """Return the dims of a result whose sample has this shape, where the sample axis stays."""
        return (1,) * self.lead + shape


@dataclass(frozen=True, eq=False)
class OnnxConstant:
    """An array that does not depend on the input, and the names of the initialisers that went into it."""

    array: NDArray[Any]
    paths: frozenset[str] = frozenset()


def one_sample(dims: Shape) -> Shape:
    """Return the shape of one sample: ``dims`` without a leading axis of length 1, unless it is the only axis."""
    return dims[1:] if len(dims) > 1 and dims[0] == 1 else dims


def together(call: OnnxCall, one: Shape, other: Shape) -> Shape:
    """Return the shape that two shapes broadcast to; the sample axis must keep its length of 1."""
    try:
        dims = tuple(int(n) for n in np.broadcast_shapes(one, other))
    except ValueError:
        call.refuse(f"shapes {list(one)} and {list(other)} do not fit together")
    if len(dims) == len(one) > 1 and one[0] == 1 != dims[0]:
        call.refuse(f"shape {list(other)} differs from sample to sample; expected a first axis of length 1")
    return dims


class GraphState(Protocol):
    """What a call needs of the reader of its graph.

    ``dims`` is the shape of its input, ``values`` holds the value of each name in the graph that was read so far, ``layers`` the nodes of
    the network as ``(name, layer, inputs)``, and ``reshaped`` the source of each reshape node, by the node's name.
    """

    opset: int
    dims: Shape
    names: NodeNames
    values: dict[str, OnnxTensor | OnnxConstant]
    layers: list[tuple[str, Layer, tuple[str, ...]]]
    reshaped: dict[str, OnnxTensor]

    def fuse(self, node: NodeProto, consumer: NodeProto) -> None:
        """Let the layer that is read from ``node`` compute the result of ``consumer`` too."""

    def sole_consumer(self, name: str) -> NodeProto | None:
        """Return the only node that reads a value; None if several do, or if the value is the graph's output."""


@dataclass(eq=False)
class OnnxCall:
    """One operator of the graph, as its rule sees it."""

    graph: GraphState
    node: NodeProto
    attributes: dict[str, Any]
    paths: frozenset[str] = frozenset()
    asked: set[str] = field(default_factory=set)

    @property
    def opset(self) -> int:
        """The version of ONNX's operators that the graph uses."""
        return self.graph.opset

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or ``default`` if the node does not have it."""
        self.asked.add(name)
        return self.attributes.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an attribute that is 0 or 1."""
        given = self.get(name, int(default))
        if given not in (0, 1):
            self.refuse(f"its {name} is {given}; expected 0 or 1")
        return bool(given)

    def emit(self, layer: Layer, *inputs: OnnxTensor, dims: Shape | None = None) -> OnnxTensor:
        """Add a node that computes ``layer``; ``dims`` defaults to that of the first input if it fits, else to ``(1, *shape)``."""
        try:
            shape = layer.shape(*(value.shape for value in inputs))
        except NetworkError as error:
            self.refuse(str(error))
        if dims is None:
            dims = inputs[0].dims if inputs[0].shape == shape else (1, *shape)
        if one_sample(dims) != shape:
            self.refuse(f"its result has shape {shape} for one sample, and {dims} in the graph")
        name = self.graph.names.give(self._origin(layer), self.paths, layer)
        self.graph.layers.append((name, layer, tuple(value.name for value in inputs)))
        return OnnxTensor(name, shape, dims)

    def view(self, x: OnnxTensor, dims: Shape) -> OnnxTensor:
        """Return the same elements with other dims: no node if one sample keeps its shape, and one node for several reshapes in a row."""
        source = self.graph.reshaped.get(x.name, x)
        if one_sample(dims) in (x.shape, source.shape):
            x = x if one_sample(dims) == x.shape else source
            return OnnxTensor(x.name, x.shape, dims)
        found = self.emit(Reshape(one_sample(dims)), source, dims=dims)
        self.graph.reshaped[found.name] = source
        return found

    def reshape(self, x: OnnxTensor, shape: Shape) -> OnnxTensor:
        """Return a value in another shape of one sample; no node if that is its shape."""
        return x if x.shape == shape else self.view(x, (1, *shape))

    def axes(self, x: OnnxTensor, given: Sequence[int]) -> list[int]:
        """Return axes of a value in the graph as those of one sample; refuses the sample axis."""
        rank = len(x.dims)
        if any(not -rank <= axis < rank or axis % rank < x.lead for axis in given):
            self.refuse(f"it acts on {list(x.dims)} over axes {list(given)}; the first axis numbers the samples")
        return [axis % rank - x.lead for axis in given]

    def constant_of_sample(self, x: OnnxTensor, given: Any, what: str) -> torch.Tensor:
        """Return a constant that meets a value, without the sample axis, along which its length must be 1."""
        found = self.array(given, what)
        together(self, x.dims, tuple(found.shape))
        rank = max(len(x.shape), found.ndim - x.lead)
        return found.reshape(found.shape[max(0, found.ndim - rank) :])

    def evaluate(self, stand_ins: Callable[[OnnxTensor], NDArray[Any]], constants: Callable[[Any], Any]) -> list[NDArray[Any]]:
        """Return what the standard's own operator gives for arrays in place of values; floating-point constants pass ``constants``."""
        arrays: list[NDArray[Any] | None] = []
        for name in self.node.input:
            value = self.graph.values[name] if name else None
            if isinstance(value, OnnxConstant):
                arrays.append(constants(value.array) if value.array.dtype.kind == "f" else value.array)
            else:
                arrays.append(None if value is None else stand_ins(value))
        self.asked |= set(self.attributes)
        try:
            return run_operator(self.node, arrays, self.opset)
        except Exception as error:
            self.refuse(f"onnx's reference implementation fails ({one_line(error)})")

    def _origin(self, layer: Layer) -> tuple[str, str]:
        """Return the node's identity and the module that owns its weights, if their names say one (`fc1.weight`)."""
        if isinstance(layer, MOVING_LAYERS):  # the name is for the layer with the weights
            return "", ""
        owners = {owner_of(path) for path in self.paths} - {""}
        return str(id(self.node)), owners.pop() if len(owners) == 1 else ""

    def refuse(self, why: str) -> NoReturn:
        """Raise `UnsupportedError` that names the operator and its node."""
        raise UnsupportedError(f"{place(self.node)} cannot be read: {why}")

    def check_attributes(self) -> None:
        """Refuse the node if it has an attribute that its rule did not ask for."""
        if unread := set(self.attributes) - self.asked:
            self.refuse(f"mipnet does not know what its attribute `{min(unread)}` means")

    def array(self, given: Any, what: str) -> torch.Tensor:
        """Return a constant as a float64 tensor; refuses values that depend on the input or are not floating-point."""
        if not isinstance(given, OnnxConstant):
            self.refuse(f"{what} {'is missing' if given is None else 'depends on the network input'}; expected a constant")
        if given.array.dtype.kind != "f":
            self.refuse(f"{what} is of type {given.array.dtype}; expected floating-point numbers")
        return constant(given.array, f"{what} of {place(self.node)}")

    def number(self, given: Any, what: str, otherwise: float) -> float:
        """Return a constant of one element, possibly repeated, as a number, which may be infinite; ``otherwise`` if it is missing."""
        if given is None:
            return otherwise
        if not isinstance(given, OnnxConstant):
            self.refuse(f"{what} depends on the network input; expected a constant")
        flat = given.array.reshape(-1)
        if not flat.size or flat.dtype.kind != "f" or np.isnan(flat).any() or (flat != flat[0]).any():
            self.refuse(f"{what} has shape {given.array.shape} and type {flat.dtype}; expected one number for all elements")
        return float(flat[0])

    def integers(self, given: Any, what: str) -> tuple[int, ...]:
        """Return a constant of whole numbers."""
        if not isinstance(given, OnnxConstant) or given.array.dtype.kind not in "iu" or given.array.ndim > 1:
            self.refuse(f"{what} must be whole numbers that do not depend on the network input")
        return tuple(int(n) for n in given.array.reshape(-1))

    def value(self, given: Any, what: str = "its input") -> OnnxTensor:
        """Return an input of the operator that must depend on the network's input."""
        return given if isinstance(given, OnnxTensor) else self.refuse(f"{what} is a constant; expected what depends on the network input")


def owner_of(path: str) -> str:
    """Return the module that an initialiser belongs to: ``fc1`` for ``fc1.weight``, else the empty string."""
    owner, _, last = path.rpartition(".")
    return owner if last in ("weight", "bias", "running_mean", "running_var") else ""


def place(node: NodeProto) -> str:
    """Return the description of a node for errors."""
    domain = f"{node.domain}::" if node.domain not in ("", "ai.onnx") else ""
    return f"operator `{domain}{node.op_type}` (node `{node.name or ', '.join(node.output)}`)"


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node, by name."""
    from onnx import AttributeProto, helper

    for each in node.attribute:
        if each.ref_attr_name or each.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise UnsupportedError(f"{place(node)} cannot be read: its attribute `{each.name}` is a graph or refers to a function")
    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for name, value in found.items()}


def axes_of(call: OnnxCall, given: Any, opset: int) -> tuple[int, ...]:
    """Return the axes: the input ``given`` from version ``opset`` on, the attribute `axes` before."""
    if call.opset < opset:
        return tuple(int(axis) for axis in call.get("axes", ()))
    return () if given is None else call.integers(given, "the axes")
