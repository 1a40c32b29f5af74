"""Names of nodes: the path of the module that a layer was read from, or the kind of the layer and a counter."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch

from mipnet.layers import (
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    Dense,
    LeakyReLU,
    MaxPool2d,
    Permute,
    ReLU,
    Reshape,
    Scale,
    Select,
    TreeEnsemble,
)
from mipnet.network.graph import INPUT_NODE, Layer

NODE_NAME_STEMS: dict[type[Layer], str] = {
    **{Dense: "fc", Conv2d: "conv", BatchNorm: "bn", Scale: "scale", ReLU: "relu", LeakyReLU: "relu", Clip: "clip"},
    **{MaxPool2d: "pool", AvgPool2d: "pool", AdaptiveAvgPool2d: "pool"},
    **{Reshape: "reshape", Permute: "permute", Select: "select", TreeEnsemble: "trees", Add: "add", Concat: "cat"},
}
"""The name, before the counter, of a node that has no module path."""

RESERVED_NODE_NAMES = (INPUT_NODE, "sample")
"""Names that mean something else in a network or in its encoding."""


@dataclass(eq=False)
class NodeNames:
    """The names given so far.

    ``paths`` are the paths of all modules, ``owners`` those of modules with weights.  ``origins`` maps each node to the first node with the
    same weights, ``modules`` maps each node to the path of its module.  A path that consists of numbers alone ("0", "1.2") is not used as a
    name.
    """

    paths: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    _named: dict[str, str] = field(default_factory=dict)
    _calls: set[str] = field(default_factory=set)
    _owners: dict[frozenset[str], list[tuple[str, Layer]]] = field(default_factory=dict)

    def give(self, place: tuple[str, str], weights: frozenset[str], layer: Layer) -> str:
        """Return a new name for a layer that was read from ``place``, a call and its module's path, with the parameters ``weights``."""
        first = self._first_use(weights, layer)
        name = self._free(f"{first}_{{}}", 2) if first else self._name(place, layer)
        self.origins[name] = first or name
        if not first:
            self._owners[weights] = [*self._owners.get(weights, []), (name, layer)]
        return name

    def _first_use(self, weights: frozenset[str], layer: Layer) -> str | None:
        """Return the first node with the same weights, if a module or a parameter is used twice; None otherwise."""
        own = layer.weights()
        for name, other in self._owners.get(weights, []) if weights and own else []:
            if type(other) is type(layer) and all(torch.equal(own[key], value) for key, value in other.weights().items()):
                return name
        return None

    def _name(self, place: tuple[str, str], layer: Layer) -> str:
        """Return the module's path for the first layer of each call (with a counter from the second call on), else kind and counter."""
        key, path = place
        if not self._is_leaf(path) or key in self._calls:
            return self._counted(layer)
        self._calls.add(key)
        if path in self._named:
            return self._free(self._named[path] + "_{}", 2)
        unnamed = all(part.isdigit() for part in path.split("."))
        name = self._counted(layer) if unnamed else self._free_name(re.sub(r"[^A-Za-z0-9_.]", "_", path))
        self._named[path], self.modules[name] = name, path
        return name

    def _is_leaf(self, path: str) -> bool:
        return path in self.paths and not any(other.startswith(f"{path}.") for other in self.paths)

    def _counted(self, layer: Layer) -> str:
        stem = NODE_NAME_STEMS.get(type(layer), type(layer).__name__.lower())
        if isinstance(layer, Reshape) and len(layer.target) == 1:
            stem = "flatten"
        return self._free(stem + "{}", 1, avoid=self.paths)

    def _free_name(self, name: str) -> str:
        return name if name not in RESERVED_NODE_NAMES and name not in self.origins else self._free(name + "_{}", 2)

    def _free(self, pattern: str, count: int, avoid: set[str] | frozenset[str] = frozenset()) -> str:
        while (name := pattern.format(count)) in RESERVED_NODE_NAMES or name in self.origins or name in avoid:
            count += 1
        return name
