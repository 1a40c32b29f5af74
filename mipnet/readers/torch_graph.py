"""From a torch.export graph to a `Network`: one rule an operator, one or more nodes a rule.

A rule gets the `Call` it reads and the operator's arguments in the order of its schema, defaults filled in: a `Value` where the
argument depends on the network's input, a `Constant` for weights, buffers and what is computed from them, plain numbers and
lists else.  It returns the value that its last layer computes.  Teach the reader an operator with a rule of your own::

    @reads("aten.abs.default")
    def _(call, x):
        return call.emit(MyAbs(), x)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from mipnet.arrays import Shape
from mipnet.errors import NetworkError, UnsupportedError
from mipnet.network.graph import INPUT, Layer, Network, constant
from mipnet.readers.lowering import TAKEN_OFF, Value, one_line
from mipnet.readers.names import Names

Rule = Callable[..., "Value"]

RULES: dict[str, Rule] = {}
"""The rule of each operator, by its name in the exported graph."""

ALIASES: set[str] = set()
"""Operators whose result may share memory with their first argument."""

LAST = {"aten.softmax.int": "softmax", "aten._softmax.default": "softmax"}
LAST |= {"aten.log_softmax.int": "log_softmax", "aten._log_softmax.default": "log_softmax"}


def reads(*operators: str, alias: bool = False) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators; ``alias`` if their result may be a view of the first argument."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, rule))
        ALIASES.update(operators if alias else ())
        return rule

    return register


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the input, and the paths of the parameters and buffers that went into it."""

    tensor: Tensor
    paths: frozenset[str] = frozenset()


@dataclass(eq=False)
class Call:
    """One operator of the graph, as its rule sees it."""

    reading: Reading
    node: fx.Node
    paths: frozenset[str] = frozenset()

    @property
    def operator(self) -> str:
        """The name under which rules are registered."""
        return str(self.node.target)

    @property
    def shape(self) -> Shape:
        """Shape of one sample of the result, as torch found it."""
        return tuple(int(n) for n in self.node.meta["val"].shape[1:])

    def emit(self, layer: Layer, *inputs: Value) -> Value:
        """A new node that computes ``layer`` from ``inputs``."""
        try:
            shape = layer.shape(*(value.shape for value in inputs))
        except NetworkError as error:
            self.refuse(str(error))
        name = self.reading.names.give(stack(self.node), self.paths, layer)
        self.reading.layers.append((name, layer, tuple(value.name for value in inputs)))
        return Value(name, shape)

    def refuse(self, why: str) -> NoReturn:
        """Raise `UnsupportedError` that names the operator, its node and its module."""
        raise UnsupportedError(f"{_place(self.node)} cannot be read: {why}")

    def array(self, given: Any, what: str) -> Tensor:
        """A constant or a number as a float64 tensor; refuses everything that depends on the input."""
        if isinstance(given, Constant):
            return constant(given.tensor, f"{what} of {_place(self.node)}")
        if isinstance(given, int | float):
            return constant(torch.tensor(given, dtype=torch.float64), f"{what} of {_place(self.node)}")
        return self.refuse(f"{what} depends on the network's input; expected a constant")

    def value(self, given: Any, what: str = "its input") -> Value:
        """An argument that must depend on the network's input."""
        return given if isinstance(given, Value) else self.refuse(f"{what} is a constant; expected what depends on the network's input")


def stack(node: fx.Node) -> tuple[str, str]:
    """``(call, path)`` of the innermost module that a node comes from; a second call of one module has the same path."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    key, (path, _) = list(stack.items())[-1]
    return key, path.split("@")[0]


def _place(node: fx.Node) -> str:
    path = stack(node)[1]
    return f"operator `{node.target}` (node `{node.name}`" + (f", module `{path}`)" if path else ")")


def supported() -> str:
    """The operators that can be read, in one line."""
    names = {name.split(".")[1].strip("_") for name in RULES if name.startswith("aten.")}
    return f"{', '.join(sorted(names))}; softmax and log_softmax as the last operation"


@dataclass(eq=False)
class Reading:
    """The state of one reading: what each graph node stands for, the layers so far, the names given."""

    program: ExportedProgram
    values: dict[fx.Node, Any] = field(default_factory=dict)
    layers: list[tuple[str, Layer, tuple[str, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last: tuple[str, int] | None = None
    names: Names = field(default_factory=Names)

    def network(self) -> Network:
        """The network that the graph computes."""
        self.program = _functional(self.program)
        given, out = self._ends()
        self.names = Names(self._module_paths())
        self._batch = str(given.meta["val"].shape[0])
        shape = tuple(int(n) for n in given.meta["val"].shape[1:])
        self.values[given] = Value(INPUT, shape)
        out = self._take_off_softmax(out)
        for node in _needed(out):
            if node not in self.values:
                self.values[node] = self._read(node)
        if not isinstance(self.values[out], Value):
            raise UnsupportedError("the module's output does not depend on its input; expected a network")
        return Network.build(shape, self.layers, origins=self.names.origins, notes=self.notes, modules=self.names.modules)

    def _ends(self) -> tuple[fx.Node, fx.Node]:
        """The input and the output of the graph; all other placeholders become constants."""
        inputs: list[fx.Node] = []
        nodes = {node.name: node for node in self.program.graph.nodes}
        stored = {**self.program.constants, **self.program.state_dict}
        for spec in self.program.graph_signature.input_specs:
            node = nodes[spec.arg.name]
            if spec.kind == InputKind.USER_INPUT:
                inputs += [node] if "val" in node.meta and isinstance(node.meta["val"], Tensor) else []
            elif isinstance(stored.get(spec.target or ""), Tensor):
                self.values[node] = Constant(float64(stored[spec.target or ""]), frozenset({spec.target or ""}))
        outputs = [nodes.get(str(name)) for name in self.program.graph_signature.user_outputs]
        if len(inputs) != 1 or len(outputs) != 1 or outputs[0] is None:
            raise UnsupportedError(f"the module has {len(inputs)} input and {len(outputs)} output tensors; expected one of each")
        return inputs[0], outputs[0]

    def _module_paths(self) -> set[str]:
        owners = {target.rpartition(".")[0] for target in self.program.state_dict}
        return (owners | {stack(node)[1] for node in self.program.graph.nodes}) - {""}

    def _take_off_softmax(self, out: fx.Node) -> fx.Node:
        """The node before a final softmax, which is noted; the output itself if there is none."""
        here = out
        while str(here.target) in PASSED and here.args and isinstance(here.args[0], fx.Node) and _same_type(here):
            here = here.args[0]
        kind = LAST.get(str(here.target))
        if kind is None or not isinstance(here.args[0], fx.Node) or (len(here.args) > 2 and here.args[2] not in (None, False)):
            return out
        before = here.args[0]
        axis = int(here.args[1]) % before.meta["val"].ndim  # type: ignore[arg-type]
        if axis == 0:
            return out
        self.last = (kind, axis)
        self.notes.append(TAKEN_OFF[kind])
        return before

    def _read(self, node: fx.Node) -> Any:
        found = node.meta.get("val")
        if node.op == "call_function" and isinstance(found, int | float | torch.SymInt):
            return found
        arguments = _arguments(node, self.values)
        flat = list(_flatten(arguments))
        if node.op == "call_function" and not any(isinstance(a, Value) for a in flat):
            return self._fold(node, [a for a in flat if isinstance(a, Constant)])
        rule = RULES.get(str(node.target))
        if rule is None or node.op != "call_function":
            raise UnsupportedError(f"{_place(node)} cannot be read; mipnet reads {supported()}")
        paths = frozenset[str]().union(*(a.paths for a in flat if isinstance(a, Constant)))
        self._check_paths(flat)
        return self._checked(node, rule(Call(self, node, paths), *arguments))

    def _check_paths(self, arguments: list[Any]) -> None:
        for argument in arguments:
            if isinstance(argument, Constant) and len(argument.paths) == 1 and argument.tensor.is_floating_point():
                constant(argument.tensor, f"parameter `{next(iter(argument.paths))}`")

    def _checked(self, node: fx.Node, value: Value) -> Value:
        """The value, if torch agrees that it is one sample's share of a batch of that shape."""
        found = node.meta["val"] if isinstance(node.meta["val"], Tensor) else node.meta["val"][0]
        if not found.is_floating_point():
            raise UnsupportedError(f"{_place(node)} cannot be read: its result is of type {found.dtype}; expected real numbers")
        if not found.ndim or str(found.shape[0]) != self._batch:
            raise UnsupportedError(
                f"{_place(node)} cannot be read: it mixes samples, its result has shape {tuple(found.shape)};"
                f" expected the sample axis first, {self._batch} samples"
            )
        if value.shape != tuple(found.shape[1:]):
            raise UnsupportedError(f"{_place(node)} cannot be read: torch gives {tuple(found.shape[1:])} for one sample, not {value.shape}")
        return value

    def _fold(self, node: fx.Node, constants: list[Constant]) -> Constant:
        """What an operator makes of constants alone, computed by torch."""
        values = {key: v.tensor if isinstance(v, Constant) else v for key, v in self.values.items()}
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        try:
            result = node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:
            raise UnsupportedError(f"{_place(node)} cannot be read: torch says {one_line(error)}") from None
        if not isinstance(result, Tensor):
            raise UnsupportedError(f"{_place(node)} cannot be read: it makes {type(result).__name__} of constants; expected a tensor")
        return Constant(result.detach(), frozenset[str]().union(*(c.paths for c in constants)))


PASSED = {f"aten.{name}" for name in ("contiguous.default", "clone.default", "alias.default", "detach.default", "detach_.default")}
PASSED |= {
    f"aten.{name}" for name in ("lift_fresh_copy.default", "to.dtype", "to.device", "to.dtype_layout", "to.other", "type_as.default")
}
PASSED |= {f"aten.{name}" for name in ("_to_copy.default", "positive.default", "view_as.default", "expand_as.default")}
"""Operators that hand on their first argument."""


def _same_type(node: fx.Node) -> bool:
    before = node.args[0]
    return isinstance(before, fx.Node) and before.meta["val"].dtype == node.meta["val"].dtype


def _needed(out: fx.Node) -> list[fx.Node]:
    """The nodes that the output depends on, in the order of the graph."""
    found, open_nodes = {out}, [out]
    while open_nodes:
        for node in open_nodes.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                open_nodes.append(node)
    return [node for node in out.graph.nodes if node in found]


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The program without operators that change a value which something else reads; the program itself where there is none."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable and not _alone(node):
            return cast(ExportedProgram, program.run_decompositions({}))
    return program


def float64(given: Tensor) -> Tensor:
    """A tensor on the CPU, in float64 if it holds floating-point numbers."""
    return given.detach().to("cpu", torch.float64 if given.is_floating_point() else given.dtype)


def _alone(node: fx.Node) -> bool:
    """True if nothing but ``node`` reads the value that it changes in place."""
    here = node.args[0]
    while isinstance(here, fx.Node):
        if len(here.users) > 1:
            return False
        if here.op != "call_function":
            return here.op == "placeholder"
        if str(here.target) in RULES and str(here.target) not in ALIASES:
            return True
        here = here.args[0] if here.args else None
    return False


def _arguments(node: fx.Node, values: Mapping[fx.Node, Any]) -> list[Any]:
    """The arguments of a call in the order of the operator's schema, defaults filled in."""
    if node.op != "call_function":
        return []
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values.get(n, n))
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return [*args, *kwargs.values()]
    rest = schema.arguments[len(args) :]
    return [*args, *(kwargs.get(a.name, a.default_value) for a in rest if a.name in kwargs or a.has_default_value())]


def _flatten(given: Any) -> Any:
    if isinstance(given, list | tuple):
        for part in given:
            yield from _flatten(part)
    else:
        yield given


@reads(str(operator.getitem))
def _(call: Call, given: Any, index: int) -> Value:
    """The first of several results, where the others are not used (batch norm after functionalisation)."""
    if isinstance(given, Value) and index == 0:
        return given
    return call.refuse("it takes one of several results")
