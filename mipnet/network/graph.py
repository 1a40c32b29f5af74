"""The intermediate representation: a network is a directed acyclic graph of named nodes, each with a layer.

A `Layer` defines what it computes (`forward`, in torch, on tensors of any floating type with the sample axis first) and the shape
of its output.  Its bounds and encodings are rules registered elsewhere, so a new layer is one file and needs no edit here.
Weights are float64 tensors and are never modified.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mipnet.arrays import Array, Shape
from mipnet.errors import NetworkError, UnsupportedError, meant, shown, suggest_keywords
from mipnet.limits.memory import count_in_memory
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.given_arrays import layout_hint, numbers
from mipnet.network.named_inputs import in_input_order, names_of_inputs

CODE_TYPE_PATTERN = re.compile(r"q?u?int[1-8]|bool|float[48]_\w+|bits\w+")
"""Types of NumPy and torch that weights are not given in."""

PASS_ELEMENT_BYTES = 16
"""Bytes per element of all nodes in a forward pass of one sample: its value, and a temporary copy of it."""

INPUT_NODE = "input"
"""The name by which nodes refer to the network's input."""


def constant(value: ArrayLike | Tensor, what: str) -> Tensor:
    """Return a copy of ``value`` as a float64 tensor.

    Raises `NetworkError` naming ``what`` if an entry is NaN or infinite, and for types whose numbers are codes and not weights: those of
    8 bits or fewer, and quantised ones.
    """
    _refuse_codes(value, what)
    tensor = torch.tensor(np.asarray(numbers(value, what, NetworkError), dtype=np.float64))
    check_weights(tensor, what)
    return tensor


def whole_constant(value: ArrayLike | Tensor, what: str) -> Tensor:
    """Return a tensor of whole numbers; raises `NetworkError` for others."""
    found = constant(value, what)
    whole = found.to(torch.int64)
    require(bool((whole == found).all()), f"{what} are not whole numbers")
    return whole


def _refuse_codes(value: ArrayLike | Tensor, what: str) -> None:
    kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
    if CODE_TYPE_PATTERN.fullmatch(kind):
        raise NetworkError(f"{what} is of type {kind}, whose numbers are codes; expected the floating-point weights that they stand for")


def check_weights(tensor: Tensor, what: str) -> None:
    """Raise `NetworkError` naming ``what`` if a number is NaN or infinite, and for types whose numbers are codes; makes no copy."""
    _refuse_codes(tensor, what)
    if not torch.isfinite(tensor.sum()):  # the sum is finite only if all numbers are
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise NetworkError(f"{what} holds {bad} NaN or infinite among {tensor.numel()} numbers; expected finite weights")


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """One operation of a network: its data, its output shape and its forward pass.

    Class attributes define the role of a layer in pruning:

    ``prunable``    its output units (first axis of the shape) have weights of their own and may carry a gate;
    ``unitwise``    every output element depends on the input element at the same position only, so a gate may act after the layer;
    ``channelwise`` output unit k depends on input unit k only, also at other positions (pooling): a gate may act after it too;
    ``activation``  it is the nonlinearity at which the gate of the preceding units acts.

    ``continuous`` is False if outputs jump: bounds over small boxes around a jump are no better, so input sets are not halved.
    """

    prunable: ClassVar[bool] = False
    unitwise: ClassVar[bool] = False
    channelwise: ClassVar[bool] = False
    activation: ClassVar[bool] = False
    continuous: ClassVar[bool] = True

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of one sample's output, given the shapes of its inputs; raises `NetworkError` if they do not fit."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output for a batch; every tensor has the sample axis first."""

    @property
    def label(self) -> str:
        """The name of this layer in tables."""
        return type(self).__name__

    def weights(self) -> dict[str, Tensor]:
        """Return the trained tensors, by field name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Node:
    """A layer of a network with its unique name, the names of its inputs, and the shape of one sample's output.

    ``origin`` names the module that owns the weights: two nodes of one module have the same origin, and share their gate.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    shape: Shape
    origin: str

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimension names of one sample's output; see `dims_of`."""
        return dims_of(self.name, self.shape)


def dims_of(name: str, shape: Shape) -> tuple[str, ...]:
    """Return dimension names with the node's name: ``fc1_unit``; ``conv1_channel, conv1_row, conv1_col``; else ``view_0, view_1``, ..."""
    if len(shape) == 1:
        return (f"{name}_unit",)
    if len(shape) == 3:
        return (f"{name}_channel", f"{name}_row", f"{name}_col")
    return tuple(f"{name}_{axis}" for axis in range(len(shape)))


def _layer_of(entry: object) -> tuple[str, Layer, Sequence[str] | None]:
    name, layer, inputs = (*entry, None)[:3] if isinstance(entry, tuple | list) and 2 <= len(entry) <= 3 else (None, None, None)
    named = isinstance(name, str) and isinstance(layer, Layer) and not isinstance(inputs, str)
    if not named or not all(isinstance(each, str) for each in inputs or ()):
        raise NetworkError(f"a layer is {shown(entry)}; expected a name and a layer, such as ('act', mn.ReLU()), and its inputs")
    return name, layer, inputs


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Network:
    """A directed acyclic graph of layers in topological order; the last node is the output.

    ``softmax`` is the softmax or log-softmax that a reader took off the end of the file or module, or None.  The last node then holds
    its argument, the logits: `forward` returns these, and `outputs` what the file or module returns.  ``notes`` record what the reader
    changed.  ``modules`` maps a node's `origin` to the path of the torch module that it was read from.  ``input_names`` names the inputs
    of a network with one axis, in their order; empty if they have no names.  Build a network with `Network.build` or with a reader.
    """

    input_shape: Shape
    nodes: tuple[Node, ...]
    notes: tuple[str, ...] = field(default=())
    modules: Mapping[str, str] = field(default_factory=dict)
    softmax: FinalSoftmax | None = None
    input_names: tuple[str, ...] = ()

    @staticmethod
    @suggest_keywords
    def build(
        input_shape: Sequence[int],
        layers: Iterable[tuple[str, Layer] | tuple[str, Layer, Sequence[str]]],
        *,
        origins: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        modules: Mapping[str, str] | None = None,
        softmax: FinalSoftmax | None = None,
    ) -> Network:
        """Build a network from ``(name, layer)`` or ``(name, layer, inputs)``; a layer without inputs reads the layer before it.

        Raises `NetworkError` for a name used twice, an unknown input or shapes that do not fit, naming the node.
        """
        shapes: dict[str, Shape] = {INPUT_NODE: tuple(int(n) for n in input_shape)}
        nodes: list[Node] = []
        if not isinstance(layers, Iterable):
            raise NetworkError(f"the layers are {shown(layers)}; expected a list, such as [('act', mn.ReLU())]")
        for entry in layers:
            name, layer, given = _layer_of(entry)
            inputs = tuple(given) if given is not None else (nodes[-1].name if nodes else INPUT_NODE,)
            if name in shapes:
                raise NetworkError(f"node name `{name}` is used twice; every node needs a name of its own")
            for source in inputs:
                if source not in shapes:
                    raise NetworkError(
                        f"node `{name}` reads `{source}`, which is not the name of an earlier node; known: {', '.join(shapes)}"
                    )
            try:
                shapes[name] = layer.shape(*(shapes[source] for source in inputs))
            except NetworkError as error:
                raise NetworkError(f"node `{name}` ({layer.label}): {error}") from None
            nodes.append(Node(name, layer, inputs, shapes[name], (origins or {}).get(name, name)))
        network = Network(shapes[INPUT_NODE], tuple(nodes), tuple(notes), dict(modules or {}), softmax)
        network.check()
        return network

    def check(self) -> None:
        """Raise `NetworkError` unless the network has nodes, positive sizes and finite weights, and a softmax fits the output."""
        if not self.nodes:
            raise NetworkError("the network has no layers; expected at least one")
        for name, shape in ((INPUT_NODE, self.input_shape), *((node.name, node.shape) for node in self.nodes)):
            if not shape or any(n < 1 for n in shape):
                raise NetworkError(f"`{name}` has shape {shape} for one sample; expected positive sizes in at least one axis")
        for node in self.nodes:
            for key, value in node.layer.weights().items():
                check_weights(value, f"`{key}` of node `{node.name}`")
        if self.softmax is not None:
            self.softmax.check(self.output_shape)

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read the output of each node, and the network's input."""
        readers: dict[str, list[Node]] = {INPUT_NODE: [], **{node.name: [] for node in self.nodes}}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                readers[source].append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    def __getitem__(self, name: str) -> Node:
        try:
            return self._by_name[name]
        except (KeyError, TypeError):  # a list or an array cannot be looked up
            nodes, called = ", ".join(self._by_name), f"`{name}`" if isinstance(name, str) else shown(name)
            raise NetworkError(f"no node is called {called}; the nodes are {nodes}{meant(name, self._by_name)}") from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._by_name

    def __len__(self) -> int:
        return len(self.nodes)

    def __str__(self) -> str:
        rows = [f"Network: input {self.input_shape}, output {self.output_shape}, {self.parameters:,} parameters"]
        width = max(len(node.name) for node in self.nodes)
        rows += [f"  {n.name:<{width}}  {n.layer.label:<12} {n.shape!s:<16} <- {', '.join(n.inputs)}" for n in self.nodes]
        return "\n".join(rows + [f"  note: {note}" for note in self.notes])

    @property
    def output(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.output.shape

    @property
    def continuous(self) -> bool:
        """False if the outputs of a layer jump, as those of trees do."""
        return all(node.layer.continuous for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Number of parameters; those of a module that is used twice count once."""
        owned = {(n.origin, key): w.numel() for n in self.nodes for key, w in n.layer.weights().items()}
        return sum(owned.values())

    @suggest_keywords
    def shape_of(self, name: str) -> Shape:
        """Return the shape of one sample at a node, or at the input."""
        return self.input_shape if name == INPUT_NODE else self[name].shape

    @suggest_keywords
    def values(self, x: Tensor, after: Mapping[str, Callable[[Tensor], Tensor]] | None = None) -> dict[str, Tensor]:
        """Return the value of every node, and of the input, for a batch ``x`` of shape ``(sample, *input_shape)``.

        ``after[name]`` is applied to the value of that node before other nodes read it; gates and masks act here.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            takes, hint = ", ".join(map(str, self.input_shape)), layout_hint(tuple(x.shape), self.input_shape)
            raise NetworkError(f"the input has shape {tuple(x.shape)}; expected (samples, {takes}){hint}")
        values = {INPUT_NODE: x}
        for node in self.nodes:
            value = node.layer.forward(*(values[source] for source in node.inputs))
            values[node.name] = after[node.name](value) if after and node.name in after else value
        return values

    @suggest_keywords
    def forward(self, x: ArrayLike | Tensor, after: Mapping[str, Callable[[Tensor], Tensor]] | None = None, batch: int = 1024) -> Array:
        """Return the value of the last node in float64 for inputs ``(samples, *input_shape)``, computed ``batch`` samples at a time.

        This is the output, or the argument of the ``softmax`` that was taken off; `outputs` applies it.
        """
        what = "the input"
        given = in_input_order(numbers(x, what, NetworkError), names_of_inputs(x, what, NetworkError), self.input_names, what, NetworkError)
        inputs = torch.from_numpy(np.require(given, np.float64, "W"))  # torch warns of arrays that it cannot write, as those of pandas
        if not inputs.ndim:
            raise NetworkError(f"the input is one number; expected the shape (samples, {', '.join(map(str, self.input_shape))})")
        batch = count_in_memory(PASS_ELEMENT_BYTES * sum(size(node.shape) for node in self.nodes), batch)
        with torch.no_grad():
            parts = [
                self.values(part, after)[self.output.name] for part in torch.tensor_split(inputs, list(range(batch, len(inputs), batch)))
            ]
        return torch.cat(parts).numpy() if parts else np.empty((0, *self.output_shape))

    @suggest_keywords
    def outputs(self, x: ArrayLike | Tensor, after: Mapping[str, Callable[[Tensor], Tensor]] | None = None, batch: int = 1024) -> Array:
        """Return what the file or module returns, in float64: `forward`, followed by the ``softmax`` if one was taken off."""
        y = self.forward(x, after, batch)
        return y if self.softmax is None else self.softmax.apply(torch.from_numpy(y)).numpy()

    @suggest_keywords
    def without_softmax(self) -> Network:
        """Return the network whose outputs are the logits: what goes into the ``softmax``; the network itself if there is none."""
        return self if self.softmax is None else replace(self, softmax=None, notes=tuple(n for n in self.notes if n != self.softmax.note))

    def check_classes(self) -> None:
        """Raise `UnsupportedError` if a ``softmax`` normalises several groups of outputs: their largest logit is not the largest output."""
        if self.softmax is not None and len(self.softmax.groups(self.output_shape)) > 1:
            raise UnsupportedError(
                f"the network ends in a {self.softmax.kind} over axes {self.softmax.axes} of the output {self.output_shape}, which makes"
                f" {len(self.softmax.groups(self.output_shape))} distributions; the largest output of all of them is no class: expected a"
                " softmax over all outputs, or `network.without_softmax()`"
            )

    @suggest_keywords
    def with_notes(self, *notes: str) -> Network:
        """Return the same network with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    @suggest_keywords
    def with_input_names(self, names: Sequence[str]) -> Network:
        """Return the same network with names of its inputs, in their order, by which labelled arrays and inputs of models are aligned.

        Raises `NetworkError` unless the input has one axis and each of its elements a name of its own.
        """
        given = tuple(names)
        if len(self.input_shape) != 1 or isinstance(names, str) or len(given) != self.input_shape[0]:
            raise NetworkError(
                f"{names!r} were given as names of an input of shape {self.input_shape}; expected one for each of its elements"
            )
        if len(set(given)) < len(given):
            raise NetworkError(f"the input names {', '.join(map(str, given))} contain one twice; expected a name of its own for each input")
        return replace(self, input_names=given)


def size(shape: Shape) -> int:
    """Return the number of elements of a shape."""
    return math.prod(shape)


def free_name(name: str, taken: set[str]) -> str:
    """Return the name, with underscores appended until it is not in ``taken``, and add it to ``taken``."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def require(condition: Any, message: str) -> None:
    """Raise `NetworkError` with ``message`` unless ``condition`` holds; for the `shape` methods of layers."""
    if not condition:
        raise NetworkError(message)
