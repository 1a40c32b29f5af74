"""What a rule of the ONNX reader sees: one operator with its inputs and attributes, at batch size 1.

A rule gets the `Call` it reads and the operator's inputs in order: a `Tensor` where the input depends on the network's, a
`Constant` for initialisers and what is computed from them, None where an optional one is missing.  It asks the call for each
attribute, and an attribute that nobody asked for is refused, as are inputs and outputs that a rule does not take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mipnet.arrays import Shape
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.layers import Reshape
from mipnet.network.graph import Layer, constant
from mipnet.readers.lowering import Value

if TYPE_CHECKING:
    from onnx import NodeProto

    from mipnet.readers.onnx_graph import Reading

RULES: dict[str, Callable[..., Tensor | Constant]] = {}
"""The rule of each operator."""

FLOATS = (1, 10, 11, 16)
"""The numbers of FLOAT, FLOAT16, DOUBLE and BFLOAT16 in ONNX."""


Rule = TypeVar("Rule", bound=Callable[..., Any])


def reads(*operators: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, rule))
        return rule

    return register


@dataclass(frozen=True)
class Tensor(Value):
    """A value with the shape that ONNX sees: ``dims``, of which a leading 1 is the sample axis (`one_sample`)."""

    dims: Shape


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that does not depend on the input, and the names of the initialisers that went into it."""

    array: NDArray[Any]
    paths: frozenset[str] = frozenset()


def one_sample(dims: Shape) -> Shape:
    """The shape of one sample: without a leading axis of length 1, unless it is the only one."""
    return dims[1:] if len(dims) > 1 and dims[0] == 1 else dims


@dataclass(eq=False)
class Call:
    """One operator of the graph, as its rule sees it."""

    reading: Reading
    node: NodeProto
    attributes: dict[str, Any]
    paths: frozenset[str] = frozenset()
    asked: set[str] = field(default_factory=set)

    @property
    def opset(self) -> int:
        """The version of the operators."""
        return self.reading.opset

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default of the standard."""
        self.asked.add(name)
        return self.attributes.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """An attribute that is 0 or 1."""
        given = self.get(name, int(default))
        if given not in (0, 1):
            self.refuse(f"its {name} is {given}; expected 0 or 1")
        return bool(given)

    def emit(self, layer: Layer, *inputs: Tensor, dims: Shape | None = None) -> Tensor:
        """A new node that computes ``layer``; ``dims`` are the first input's, or a sample axis and the layer's shape, if not given."""
        try:
            shape = layer.shape(*(value.shape for value in inputs))
        except NetworkError as error:
            self.refuse(str(error))
        if dims is None:
            dims = inputs[0].dims if inputs[0].shape == shape else (1, *shape)
        if one_sample(dims) != shape:
            self.refuse(f"its result has shape {shape} for one sample, and {dims} in the graph")
        name = self.reading.names.give(self._origin(), self.paths, layer)
        self.reading.layers.append((name, layer, tuple(value.name for value in inputs)))
        return Tensor(name, shape, dims)

    def view(self, x: Tensor, dims: Shape) -> Tensor:
        """The same elements under other dims; no node where one sample keeps its shape, and one instead of several in a row."""
        source = self.reading.reshaped.get(x.name, x)
        if one_sample(dims) in (x.shape, source.shape):
            x = x if one_sample(dims) == x.shape else source
            return Tensor(x.name, x.shape, dims)
        found = self.emit(Reshape(one_sample(dims)), source, dims=dims)
        self.reading.reshaped[found.name] = source
        return found

    def _origin(self) -> tuple[str, str]:
        """The node, and the module that owns its weights, if their names say one (`fc1.weight`)."""
        owners = {owner_of(path) for path in self.paths} - {""}
        return str(id(self.node)), owners.pop() if len(owners) == 1 else ""

    def refuse(self, why: str) -> NoReturn:
        """Raise `UnsupportedError` that names the operator and its node."""
        raise UnsupportedError(f"{place(self.node)} cannot be read: {why}")

    def check_attributes(self) -> None:
        """Refuse an attribute that nobody asked for."""
        if unread := set(self.attributes) - self.asked:
            self.refuse(f"mipnet does not know what its attribute `{min(unread)}` means")

    def array(self, given: Any, what: str) -> torch.Tensor:
        """A constant as a float64 tensor; refuses what depends on the input and what holds no real numbers."""
        if not isinstance(given, Constant):
            self.refuse(f"{what} {'is missing' if given is None else 'depends on the network input'}; expected a constant")
        if given.array.dtype.kind != "f":
            self.refuse(f"{what} is of type {given.array.dtype}; expected floating-point numbers")
        return constant(given.array, f"{what} of {place(self.node)}")

    def number(self, given: Any, what: str, otherwise: float) -> float:
        """A constant of one element, possibly repeated, as a number (infinite ones are allowed); ``otherwise`` if missing."""
        if given is None:
            return otherwise
        if not isinstance(given, Constant):
            self.refuse(f"{what} depends on the network input; expected a constant")
        flat = given.array.reshape(-1)
        if not flat.size or flat.dtype.kind != "f" or np.isnan(flat).any() or (flat != flat[0]).any():
            self.refuse(f"{what} has shape {given.array.shape} and type {flat.dtype}; expected one number for all elements")
        return float(flat[0])

    def integers(self, given: Any, what: str) -> tuple[int, ...]:
        """A constant of whole numbers."""
        if not isinstance(given, Constant) or given.array.dtype.kind not in "iu" or given.array.ndim > 1:
            self.refuse(f"{what} must be whole numbers that do not depend on the network input")
        return tuple(int(n) for n in given.array.reshape(-1))

    def value(self, given: Any, what: str = "its input") -> Tensor:
        """An input that must depend on the network's."""
        return given if isinstance(given, Tensor) else self.refuse(f"{what} is a constant; expected what depends on the network input")


def owner_of(path: str) -> str:
    """The module that an initialiser belongs to: ``fc1`` for ``fc1.weight``, else nothing."""
    owner, _, last = path.rpartition(".")
    return owner if last in ("weight", "bias", "running_mean", "running_var") else ""


def place(node: NodeProto) -> str:
    """How errors call a node."""
    domain = f"{node.domain}::" if node.domain not in ("", "ai.onnx") else ""
    return f"operator `{domain}{node.op_type}` (node `{node.name or ', '.join(node.output)}`)"


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node, by name."""
    from onnx import AttributeProto, helper

    for each in node.attribute:
        if each.ref_attr_name or each.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise UnsupportedError(f"{place(node)} cannot be read: its attribute `{each.name}` is a graph or refers to a function")
    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for name, value in found.items()}


def axes_of(call: Call, given: Any, opset: int) -> tuple[int, ...]:
    """Axes as an input from an opset on, as an attribute before."""
    if call.opset < opset:
        return tuple(int(axis) for axis in call.get("axes", ()))
    return () if given is None else call.integers(given, "the axes")
