"""What is known of the values of a network over an input set: a box for every node, labelled, measured, and held against samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import xarray as xr

from mipnet.bounds.interval import Interval
from mipnet.errors import NetworkError
from mipnet.gates import Gate
from mipnet.ir import Network, dims_of
from mipnet.sets import Box


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds of every node, as later nodes read it (`after`), and at gate sites before the gate acts (`ungated`).

    ``mode`` says for which gate values they hold: ``sound`` for every s in [0, 1]; ``paper`` for s = 1 only, over the input
    widened by epsilon, as in the published method, where they serve as big-Ms of the gated network all the same.  ``method`` says
    how they were found, ``region`` and ``gates`` for which input set and which gates they hold.
    """

    network: Network
    after: Mapping[str, Interval]
    ungated: Mapping[str, Interval] = field(default_factory=dict)
    mode: Literal["sound", "paper"] = "sound"
    method: str = "interval"
    region: Box | None = None
    gates: tuple[Gate, ...] = ()

    def before_gate(self, name: str) -> Interval:
        """The value that a node computes, before a gate acts on it."""
        return self.ungated.get(name, self.after[name])

    def __getitem__(self, name: str) -> xr.Dataset:
        """Labelled ``lower`` and ``upper`` of what a node computes (before its gate), with the node's dimensions."""
        if name not in self.after:
            raise NetworkError(f"no bounds for `{name}`; the nodes are {', '.join(self.after)}")
        box, dims = self.before_gate(name), ("sample", *dims_of(name, self.network.shape_of(name)))
        return xr.Dataset({"lower": (dims, box.lower.numpy()), "upper": (dims, box.upper.numpy())})

    def unstable(self) -> dict[str, int]:
        """For each activation: how many of its inputs, over all samples, may have either sign."""
        counts = {}
        for node in self.network.nodes:
            if node.layer.activation:
                box = self.after[node.inputs[0]]
                counts[node.name] = int(((box.lower < 0) & (box.upper > 0)).sum())
        return counts

    def width(self) -> dict[str, float]:
        """For each node: the mean of upper - lower before its gate."""
        return {n.name: float(self.before_gate(n.name).width.mean()) for n in self.network.nodes}
