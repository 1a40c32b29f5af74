"""The shifts of biases and running means that replace constant elements which are removed.

What a removed constant adds to a layer moves into the layer's bias, or into the running mean of its batch norm.  The shift must be the
same at every place.  Where padding makes it differ, or no bias or batch norm can take it, the constants stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mipnet.layers import BatchNorm, Conv2d, Dense, Scale
from mipnet.network.graph import Network, Node
from mipnet.pruning.smaller.constant_elements import ConstantElements, path_of

SHIFT_SPREAD_MAX = 1e-12
"""Relative difference up to which a shift counts as the same at every place."""


class BiasShifts:
    """The shifts that replace removed constants other than 0.

    ``shifts`` are added to biases, ``means`` to running means (of the batch norm after a convolution without bias), both by path.
    ``refused`` holds the nodes whose constants other than 0 must stay.
    """

    def __init__(
        self,
        network: Network,
        constants: ConstantElements,
        kept: Mapping[str, Tensor],
        masked: Mapping[str, Tensor],
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
                if node.name in masked:
                    shift[masked[node.name]] = 0.0
                uses.setdefault(path_of(network, node), []).append((node, shift.flatten(1) if shift.ndim > 1 else shift[:, None]))
        for path, found in uses.items():
            self._fold(path, found)

    def _fold(self, path: str, uses: list[tuple[Node, Tensor]]) -> None:
        """Decide where the shifts ``(unit, place)`` of one module go, over all its uses."""
        shift = torch.cat([values for _, values in uses], dim=1)
        if not bool((shift != 0).any()):
            return
        same = float((shift.amax(dim=1) - shift.amin(dim=1)).max()) <= SHIFT_SPREAD_MAX * float(shift.abs().max().clamp(min=1.0))
        node = uses[0][0]
        norm = self._norm_after(node) if len(uses) == 1 else None
        if same and getattr(node.layer, "bias", None) is not None:
            self.shifts[path] = shift.mean(dim=1)
        elif same and norm is not None:
            self.means[norm] = -shift.mean(dim=1)
        else:
            self.refused += [user.inputs[0] for user, _ in uses]

    def _norm_after(self, node: Node) -> str | None:
        """Return the path of the batch norm that alone reads the node, if that module has no other use."""
        readers = self._network.consumers[node.name]
        if len(readers) != 1 or not isinstance(readers[0].layer, BatchNorm | Scale) or not self._owned(readers[0]):
            return None
        path = path_of(self._network, readers[0])
        used = [n for n in self._network.nodes if path_of(self._network, n) == path]
        return path if len(used) == 1 else None
