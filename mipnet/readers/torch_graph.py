"""From a torch.export graph to a `Network`: one rule per operator (`mipnet.readers.torch_call`), one or more nodes per rule."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from mipnet.errors import UnsupportedError
from mipnet.layers import Reshape
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.graph import INPUT_NODE, Network, constant
from mipnet.readers.conversion import Value, one_line
from mipnet.readers.node_names import NodeNames
from mipnet.readers.operators.remedies import refusal
from mipnet.readers.torch_call import (
    ALIASING_OPERATORS,
    TORCH_RULES,
    NamedLayer,
    TorchCall,
    TorchConstant,
    calling_module,
    fixed,
    place,
    reads,
    sample_shape,
)

TORCH_SOFTMAXES: dict[str, Literal["softmax", "log_softmax"]] = {"aten.softmax.int": "softmax", "aten._softmax.default": "softmax"}
TORCH_SOFTMAXES |= {"aten.log_softmax.int": "log_softmax", "aten._log_softmax.default": "log_softmax"}
"""Operators that are taken off the end of a graph, with the kind of `FinalSoftmax`."""


@dataclass(eq=False)
class TorchReader:
    """The reader of one exported program: the value of each graph node, the layers so far, and the names of nodes."""

    program: ExportedProgram
    deadline: Deadline = NO_DEADLINE
    values: dict[fx.Node, Any] = field(default_factory=dict)
    layers: list[NamedLayer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    softmax: FinalSoftmax | None = None
    names: NodeNames = field(default_factory=NodeNames)

    def network(self) -> Network:
        """Read the network that the graph computes."""
        self.program = _functional(self.program)
        given, out = self._ends()
        owners = {target.rpartition(".")[0] for target in self.program.state_dict} - {""}
        self.names = NodeNames(owners | self._module_paths(), owners)
        self._batch, self._samples = str(given.meta["val"].shape[0]), fixed(given.meta["val"].shape[0])
        shape = tuple(int(n) for n in given.meta["val"].shape[1:])
        self.values[given] = Value(INPUT_NODE, shape)
        out = self._take_off_softmax(out)
        for node in _needed(out):
            if node not in self.values:
                self.deadline.check(f"read {place(node)}")
                self.values[node] = self._read(node)
        if not isinstance(self.values[out], Value):
            raise UnsupportedError("the module's output does not depend on its input; expected a network")
        if self.values[out].name == INPUT_NODE:  # the graph has no operator that computes
            self.values[out] = TorchCall(out, self.layers, self.names).emit(Reshape(self.values[out].shape), self.values[out])
        notes = self.notes if self.softmax is None else [*self.notes, self.softmax.note]
        return Network.build(shape, self.layers, origins=self.names.origins, notes=notes, modules=self.names.modules, softmax=self.softmax)

    def _ends(self) -> tuple[fx.Node, fx.Node]:
        """Return the input and the output of the graph, and read all other placeholders as constants."""
        inputs: list[fx.Node] = []
        nodes = {node.name: node for node in self.program.graph.nodes}
        stored = {**self.program.constants, **self.program.state_dict}
        for spec in self.program.graph_signature.input_specs:
            node = nodes[spec.arg.name]
            if spec.kind == InputKind.USER_INPUT:
                inputs += [node] if "val" in node.meta and isinstance(node.meta["val"], Tensor) else []
            elif isinstance(stored.get(spec.target or ""), Tensor):
                self.deadline.check(f"read the weights `{spec.target}`")
                self.values[node] = TorchConstant(float64(stored[spec.target or ""]), frozenset({spec.target or ""}))
        outputs = [nodes.get(str(name)) for name in self.program.graph_signature.user_outputs]
        if len(inputs) != 1 or len(outputs) != 1 or outputs[0] is None:
            raise UnsupportedError(f"the module has {len(inputs)} input and {len(outputs)} output tensors; expected one of each")
        return inputs[0], outputs[0]

    def _module_paths(self) -> set[str]:
        return {calling_module(node)[1] for node in self.program.graph.nodes} - {""}

    def _take_off_softmax(self, out: fx.Node) -> fx.Node:
        """Return the node before a final softmax, and record the softmax; the output itself if there is none."""
        here = out
        while str(here.target) in IDENTITY_OPERATORS and here.args and isinstance(here.args[0], fx.Node) and _same_type(here):
            here = here.args[0]
        kind = TORCH_SOFTMAXES.get(str(here.target))
        if kind is None or not isinstance(here.args[0], fx.Node) or (len(here.args) > 2 and here.args[2] not in (None, False)):
            return out
        before = here.args[0]
        axis = int(here.args[1]) % before.meta["val"].ndim  # type: ignore[arg-type]
        if axis == 0:
            return out
        self.softmax = FinalSoftmax(kind, (axis - 1,))
        return before

    def _read(self, node: fx.Node) -> Any:
        found = node.meta.get("val")
        if node.op == "call_function" and isinstance(found, int | float | torch.SymInt):
            return found
        arguments = _arguments(node, self.values)
        flat = list(_flatten(arguments))
        if node.op == "call_function" and not any(isinstance(a, Value) for a in flat):
            return self._fold(node, [a for a in flat if isinstance(a, TorchConstant)])
        rule = TORCH_RULES.get(str(node.target))
        if rule is None or node.op != "call_function":
            raise UnsupportedError(refusal(place(node), str(node.target).split(".")[1] if "." in str(node.target) else str(node.target)))
        paths = frozenset[str]().union(*(a.paths for a in flat if isinstance(a, TorchConstant)))
        self._check_paths(flat)
        call = TorchCall(node, self.layers, self.names, paths, self.values, self._samples)
        return self._checked(node, rule(call, *arguments))

    def _check_paths(self, arguments: list[Any]) -> None:
        for argument in arguments:
            if isinstance(argument, TorchConstant) and len(argument.paths) == 1 and argument.tensor.is_floating_point():
                constant(argument.tensor, f"parameter `{next(iter(argument.paths))}`")

    def _checked(self, node: fx.Node, value: Any) -> Any:
        """Return the value, or the list of values; raises `UnsupportedError` unless torch recorded a batch of such samples."""
        if isinstance(value, TorchConstant):  # no element of it depends on the input
            return value
        if isinstance(value, list):
            pairs = zip(value, node.meta["val"], strict=True)
            return [self._checked_tensor(node, each, found) if isinstance(each, Value) else each for each, found in pairs]
        return self._checked_tensor(node, value, node.meta["val"] if isinstance(node.meta["val"], Tensor) else node.meta["val"][0])

    def _checked_tensor(self, node: fx.Node, value: Value, found: Tensor) -> Value:
        if not found.is_floating_point():
            raise UnsupportedError(f"{place(node)} cannot be read: its result is of type {found.dtype}; expected real numbers")
        if not found.ndim or str(found.shape[0]) != self._batch:
            raise UnsupportedError(
                f"{place(node)} cannot be read: it mixes samples, its result has shape {tuple(found.shape)};"
                f" expected the sample axis first, {self._batch} samples"
            )
        if value.shape != sample_shape(found):
            raise UnsupportedError(f"{place(node)} cannot be read: torch gives {tuple(found.shape[1:])} for one sample, not {value.shape}")
        return value

    def _fold(self, node: fx.Node, constants: list[TorchConstant]) -> TorchConstant:
        """Return the result of an operator whose inputs are all constants, computed by torch."""
        values = {key: v.tensor if isinstance(v, TorchConstant) else v for key, v in self.values.items()}
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        try:
            result = node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:
            raise UnsupportedError(f"{place(node)} cannot be read: torch says {one_line(error)}") from None
        if not isinstance(result, Tensor):
            raise UnsupportedError(f"{place(node)} cannot be read: it returns a {type(result).__name__} for constants; expected a tensor")
        return TorchConstant(result.detach(), frozenset[str]().union(*(c.paths for c in constants)))


IDENTITY_OPERATORS = {
    f"aten.{name}" for name in ("contiguous.default", "clone.default", "alias.default", "detach.default", "detach_.default")
}
IDENTITY_OPERATORS |= {
    f"aten.{name}" for name in ("lift_fresh_copy.default", "to.dtype", "to.device", "to.dtype_layout", "to.other", "type_as.default")
}
IDENTITY_OPERATORS |= {f"aten.{name}" for name in ("_to_copy.default", "positive.default", "view_as.default")}
"""Operators whose result is their first argument."""


def _same_type(node: fx.Node) -> bool:
    before = node.args[0]
    return isinstance(before, fx.Node) and before.meta["val"].dtype == node.meta["val"].dtype


def _needed(out: fx.Node) -> list[fx.Node]:
    """Return the nodes that the output depends on, in the order of the graph."""
    found, open_nodes = {out}, [out]
    while open_nodes:
        for node in open_nodes.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                open_nodes.append(node)
    return [node for node in out.graph.nodes if node in found]


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Return the program without in-place operators on values that other nodes read; the program itself if it has none."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable and not _is_only_reader(node):
            return cast(ExportedProgram, program.run_decompositions({}))
    return program


def float64(given: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float64 if it holds floating-point numbers."""
    return given.detach().to("cpu", torch.float64 if given.is_floating_point() else given.dtype)


def _is_only_reader(node: fx.Node) -> bool:
    """Return True if no other node reads the value that ``node`` changes in place."""
    here = node.args[0]
    while isinstance(here, fx.Node):
        if len(here.users) > 1:
            return False
        if here.op != "call_function":
            return here.op == "placeholder"
        if str(here.target) in TORCH_RULES and str(here.target) not in ALIASING_OPERATORS:
            return True
        here = here.args[0] if here.args else None
    return False


def _arguments(node: fx.Node, values: Mapping[fx.Node, Any]) -> list[Any]:
    """Return the arguments of a call in the order of the operator's schema, with defaults filled in."""
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
def _(call: TorchCall, given: Any, index: int) -> Value:
    """Return one of several results; of a rule that returns a single value, the first."""
    found = given[index] if isinstance(given, list | tuple) else given if index == 0 else None
    return found if isinstance(found, Value) else call.refuse("it takes a result that mipnet does not read, such as the place of a maximum")
