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
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, fx

from mipnet.arrays import Shape
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.network.graph import Layer, constant
from mipnet.readers.conversion import Value
from mipnet.readers.node_names import NodeNames

TorchRule = Callable[..., "Value"]

TORCH_RULES: dict[str, TorchRule] = {}
"""The conversion rule of each operator, by the operator's name in the exported graph."""

ALIASING_OPERATORS: set[str] = set()
"""Operators whose result may share memory with their first argument."""

NamedLayer = tuple[str, Layer, tuple[str, ...]]
"""A node as `Network.build` takes it: its name, its layer, and the names of its inputs."""

IntOrPair = int | list[int]
"""An argument of a window: one number for rows and columns, or one for each."""


def reads(*operators: str, alias: bool = False) -> Callable[[TorchRule], TorchRule]:
    """Register a function as the rule of operators; set ``alias`` if their result may be a view of the first argument."""

    def register(rule: TorchRule) -> TorchRule:
        TORCH_RULES.update(dict.fromkeys(operators, rule))
        ALIASING_OPERATORS.update(operators if alias else ())
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

    @property
    def operator(self) -> str:
        """The operator's name, under which its rule is registered."""
        return str(self.node.target)

    @property
    def shape(self) -> Shape:
        """Shape of one sample of the result, as recorded by torch."""
        return tuple(int(n) for n in self.node.meta["val"].shape[1:])

    def emit(self, layer: Layer, *inputs: Value) -> Value:
        """Add a node that computes ``layer`` from ``inputs``, and return its value."""
        try:
            shape = layer.shape(*(value.shape for value in inputs))
        except NetworkError as error:
            self.refuse(str(error))
        name = self.names.give(calling_module(self.node), self.paths, layer)
        self.layers.append((name, layer, tuple(value.name for value in inputs)))
        return Value(name, shape)

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


def supported() -> str:
    """Return the operators that can be read, in one line."""
    names = {name.split(".")[1].strip("_") for name in TORCH_RULES if name.startswith("aten.")}
    return f"{', '.join(sorted(names))}; softmax and log_softmax as the last operation"
