"""Names of nodes: the path of the module that a layer comes from, or its kind and a counter."""

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
)
from mipnet.network.graph import INPUT, Layer

KINDS: dict[type[Layer], str] = {
    **{Dense: "fc", Conv2d: "conv", BatchNorm: "bn", Scale: "scale", ReLU: "relu", LeakyReLU: "relu", Clip: "clip"},
    **{MaxPool2d: "pool", AvgPool2d: "pool", AdaptiveAvgPool2d: "pool"},
    **{Reshape: "reshape", Permute: "permute", Add: "add", Concat: "cat"},
}
"""How nodes without a module path of their own are called, before the counter."""

RESERVED = (INPUT, "sample")


@dataclass(eq=False)
class Names:
    """The names given so far, the first use of each module's weights (`origins`) and the paths of modules (`modules`).

    ``paths`` are those of all modules.  A path of numbers alone ("0", "1.2") says nothing and is not used.
    """

    paths: set[str] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    _named: dict[str, str] = field(default_factory=dict)
    _calls: set[str] = field(default_factory=set)
    _owners: dict[frozenset[str], list[tuple[str, Layer]]] = field(default_factory=dict)

    def give(self, place: tuple[str, str], weights: frozenset[str], layer: Layer) -> str:
        """A new name for a layer that was read from ``place``, a call and its module's path, made of the parameters ``weights``."""
        first = self._first_use(weights, layer)
        name = self._free(f"{first}_{{}}", 2) if first else self._name(place, layer)
        self.origins[name] = first or name
        if not first:
            self._owners[weights] = [*self._owners.get(weights, []), (name, layer)]
        return name

    def _first_use(self, weights: frozenset[str], layer: Layer) -> str | None:
        """The node that had the same weights before, if any: a module or a parameter used twice."""
        mine = layer.weights()
        for name, other in self._owners.get(weights, []) if weights and mine else []:
            if type(other) is type(layer) and all(torch.equal(mine[key], value) for key, value in other.weights().items()):
                return name
        return None

    def _name(self, place: tuple[str, str], layer: Layer) -> str:
        """The module's path for the first layer of each call (with a counter from the second call on), else kind and counter."""
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
        kind = "flatten" if isinstance(layer, Reshape) and len(layer.target) == 1 else KINDS.get(type(layer), type(layer).__name__.lower())
        return self._free(kind + "{}", 1, avoid=self.paths)

    def _free_name(self, name: str) -> str:
        return name if name not in RESERVED and name not in self.origins else self._free(name + "_{}", 2)

    def _free(self, pattern: str, count: int, avoid: set[str] | frozenset[str] = frozenset()) -> str:
        while (name := pattern.format(count)) in RESERVED or name in self.origins or name in avoid:
            count += 1
        return name
