"""The rules that convert torch operators, and what a rule sees of the operator that it converts.

A rule gets the `TorchCall` and the operator's arguments in the order of its schema, with defaults filled in: a `Value` for an
argument that depends on the network's input, a `TorchConstant` for weights, buffers and values computed from them, and plain
numbers and lists otherwise.  It returns the value of its last layer.  To read another operator, write a rule for it::

    @reads("aten.abs.default")
    def _(call, x):
        return call.emit(MyAbs(), x)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, fx

from mipnet.arrays import Shape
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.layers import Reshape
from mipnet.network.graph import Layer, constant
from mipnet.readers.conversion import MOVING_LAYERS, Value
from mipnet.readers.node_names import NodeNames
from mipnet.readers.operators.table import name_operator

TorchRule = Callable[..., Any]
OwnRule = TypeVar("OwnRule", bound=TorchRule)

TORCH_RULES: dict[str, TorchRule] = {}
"""The conversion rule of each operator, by the operator's name in the exported graph."""

ALIASING_OPERATORS: set[str] = set()
"""Operators whose result may share memory with their first argument."""

NamedLayer = tuple[str, Layer, tuple[str, ...]]
"""A node as `Network.build` takes it: its name, its layer, and the names of its inputs."""


def reads(*operators: str, alias: bool = False, operator: str | None = None) -> Callable[[OwnRule], OwnRule]:
    """Register a function as the rule of operators; set ``alias`` if their result may be a view of the first argument.

    ``operator`` is the row of `mipnet.readers.operators.table` that they are listed in, None for operators of your own.
    """

    def register(rule: OwnRule) -> OwnRule:
        TORCH_RULES.update(dict.fromkeys(operators, rule))
        ALIASING_OPERATORS.update(operators if alias else ())
        name_operator(operator, operators, "torch")
        return rule

    return register


@dataclass(frozen=True, eq=False)
class TorchConstant:
    """A tensor that does not depend on the input, and the paths of the parameters and buffers that went into it."""

    tensor: Tensor
    paths: frozenset[str] = frozenset()


@dataclass(eq=False)
class TorchCall:
    """One operator of the graph, as its rule sees it."""

    node: fx.Node
    layers: list[NamedLayer]
    names: NodeNames
    paths: frozenset[str] = frozenset()
    values: Mapping[fx.Node, Any] = field(default_factory=dict)
    samples: int = 1

    @property
    def operator(self) -> str:
        """The operator's name, under which its rule is registered."""
        return str(self.node.target)

    @property
    def shape(self) -> Shape:
        """Shape of one sample of the result, as recorded by torch; one number per sample has shape (1,)."""
        return sample_shape(self.node.meta["val"])

    @property
    def rank(self) -> int:
        """Number of axes of the first argument, with the sample axis."""
        return int(self.node.args[0].meta["val"].ndim)  # type: ignore[union-attr]

    def emit(self, layer: Layer, *inputs: Value) -> Value:
        """Add a node that computes ``layer`` from ``inputs``, and return its value."""
        try:
            shape = layer.shape(*(value.shape for value in inputs))
        except NetworkError as error:
            self.refuse(str(error))
        moved = isinstance(layer, MOVING_LAYERS) and (self.paths or calling_module(self.node)[1] in self.names.owners)
        # a module's name is for its layer with the weights, not for the padding before it
        name = self.names.give(("", "") if moved else calling_module(self.node), frozenset() if moved else self.paths, layer)
        self.layers.append((name, layer, tuple(value.name for value in inputs)))
        return Value(name, shape)

    def reshape(self, x: Value, shape: Shape) -> Value:
        """Return a value in another shape of one sample; no node if that is its shape."""
        return x if x.shape == shape else self.emit(Reshape(shape), x)

    def axis(self, given: int) -> int:
        """Return an axis of the first argument as one of a sample; refuses the sample axis."""
        return given % self.rank - 1 if given % self.rank else self.refuse("it acts along the sample axis")

    def axes(self, given: Any) -> list[int]:
        """Return axes of the first argument as those of a sample; all of them if none is given."""
        every = given is None or (isinstance(given, list | tuple) and not given)
        return [self.axis(int(axis)) for axis in ((given,) if isinstance(given, int) else range(self.rank) if every else given)]

    def constant_of_sample(self, given: Any, what: str, rank: int) -> Tensor:
        """Return a constant without its sample axis, along which it must not change; ``rank`` counts the axes of one sample."""
        found, axes = self.array(given, what), rank + 1
        if found.ndim > axes or (found.ndim == axes and not torch.equal(found, found[:1].expand_as(found))):
            self.refuse(f"a constant of shape {tuple(found.shape)} differs from sample to sample")
        return found[0] if found.ndim == axes else found

    def evaluate(self, stand_ins: Callable[[Value], Tensor], constants: Callable[[Tensor], Tensor], replaced: Mapping[str, Any]) -> Any:
        """Return what torch's own operator gives for tensors in place of values; ``replaced`` are arguments by name."""

        def given(node: fx.Node) -> Any:
            value = self.values[node]
            if isinstance(value, TorchConstant):
                return constants(value.tensor) if value.tensor.is_floating_point() else value.tensor
            return stand_ins(value) if isinstance(value, Value) else fixed(value)

        schema = self.node.target._schema  # type: ignore[union-attr]
        args, kwargs = fx.node.map_arg((self.node.args, self.node.kwargs), given)
        named = {**dict(zip((each.name for each in schema.arguments), args, strict=False)), **kwargs}
        return self.node.target(**named | {name: value for name, value in replaced.items() if name in named})  # type: ignore[operator]

    def refuse(self, why: str) -> NoReturn:
        """Raise `UnsupportedError` that names the operator, its node and its module."""
        raise UnsupportedError(f"{place(self.node)} cannot be read: {why}")

    def array(self, given: Any, what: str) -> Tensor:
        """Return a constant or a number as a float64 tensor; refuses values that depend on the input."""
        if isinstance(given, TorchConstant):
            whole = not (given.tensor.is_floating_point() or given.tensor.is_complex())  # torch computes with whole numbers and booleans
            return constant(given.tensor.to(torch.float64) if whole else given.tensor, f"{what} of {place(self.node)}")
        if isinstance(given, int | float):
            return constant(torch.tensor(given, dtype=torch.float64), f"{what} of {place(self.node)}")
        return self.refuse(f"{what} depends on the network's input; expected a constant")

    def value(self, given: Any, what: str = "its input") -> Value:
        """Return an argument that must depend on the network's input."""
        return given if isinstance(given, Value) else self.refuse(f"{what} is a constant; expected what depends on the network's input")


def sample_shape(recorded: Any) -> Shape:
    """Return the shape of one sample of a tensor that torch recorded; one number per sample has shape (1,)."""
    return tuple(int(n) for n in recorded.shape[1:]) or (1,)


def fixed(value: Any) -> Any:
    """Return a number of the graph; a size that depends on the number of samples as torch recorded it."""
    return int(value.node.hint) if isinstance(value, torch.SymInt) else value


def calling_module(node: fx.Node) -> tuple[str, str]:
    """Return ``(call, path)`` of the innermost module that contains a node; two calls of one module have the same path."""
    modules: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    if not modules:
        return "", ""
    key, (path, _) = list(modules.items())[-1]
    return key, path.split("@")[0]


def place(node: fx.Node) -> str:
    """Return the operator, the node and the module of a node, for error messages."""
    path = calling_module(node)[1]
    return f"operator `{node.target}` (node `{node.name}`" + (f", module `{path}`)" if path else ")")
