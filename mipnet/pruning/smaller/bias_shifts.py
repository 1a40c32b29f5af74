"""What a layer no longer adds when constants go: it moves into the layer's bias, or into the running mean of its batch norm.

The shift must be the same at every place: where padding makes it differ, and where there is nothing that could take it, the
constants stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mipnet.layers import BatchNorm, Conv2d, Dense, Scale
from mipnet.network.graph import Network, Node
from mipnet.pruning.smaller.constant_elements import ConstantElements, path_of

SHIFT_SPREAD_MAX = 1e-12
"""Relative difference below which a shift counts as the same at every place."""


class BiasShifts:
    """Where constants other than 0 that go leave their mark.

    ``shifts`` are added to biases, ``means`` to running means (a convolution without bias, before its batch norm), both by path;
    ``refused`` are the nodes whose elements with such constants must stay.
    """

    def __init__(
        self,
        network: Network,
        constants: ConstantElements,
        kept: Mapping[str, Tensor],
        silent: Mapping[str, Tensor],
        owned: Callable[[Node], bool],
    ):
        self.shifts: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}
        self.refused: list[str] = []
        self._network, self._owned = network, owned
        uses: dict[str, list[tuple[Node, Tensor]]] = {}
        for node in network.nodes:
            if isinstance(node.layer, Dense | Conv2d) and owned(node):
                gone = constants.value[node.inputs[0]].masked_fill(kept[node.inputs[0]], 0.0)
                shift = node.layer.forward(gone[None])[0] - node.layer.forward(torch.zeros_like(gone)[None])[0]
                if node.name in silent:
                    shift[silent[node.name]] = 0.0
                uses.setdefault(path_of(network, node), []).append((node, shift.flatten(1) if shift.ndim > 1 else shift[:, None]))
        for path, found in uses.items():
            self._fold(path, found)

    def _fold(self, path: str, uses: list[tuple[Node, Tensor]]) -> None:
        """Decide about one module from the shifts ``(unit, place)`` of all its uses."""
        shift = torch.cat([values for _, values in uses], dim=1)
        if not bool((shift != 0).any()):
            return
        same = float((shift.amax(dim=1) - shift.amin(dim=1)).max()) <= SHIFT_SPREAD_MAX * float(shift.abs().max().clamp(min=1.0))
        node = uses[0][0]
        norm = self._norm_behind(node) if len(uses) == 1 else None
        if same and getattr(node.layer, "bias", None) is not None:
            self.shifts[path] = shift.mean(dim=1)
        elif same and norm is not None:
            self.means[norm] = -shift.mean(dim=1)
        else:
            self.refused += [user.inputs[0] for user, _ in uses]

    def _norm_behind(self, node: Node) -> str | None:
        """The path of the batch norm that alone reads the node, if it has no other use."""
        behind = self._network.consumers[node.name]
        if len(behind) != 1 or not isinstance(behind[0].layer, BatchNorm | Scale) or not self._owned(behind[0]):
            return None
        path = path_of(self._network, behind[0])
        used = [n for n in self._network.nodes if path_of(self._network, n) == path]
        return path if len(used) == 1 else None
