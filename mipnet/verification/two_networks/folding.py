"""A chain of dense layers and ReLUs with the units that never change folded away: exact up to rounding, over the box of their bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import qr, solve_triangular

from mipnet.arrays import Array, Shape
from mipnet.errors import UnsupportedError
from mipnet.formulations.registry import linear_map
from mipnet.layers import BatchNorm, Dense, ReLU, Reshape
from mipnet.network.graph import INPUT, Layer, Network, free_name, size
from mipnet.network.sets import Box

DEPENDENT = 1e-10
"""Rows are combinations of others if what is left of them is at most this, relative to the largest row."""

STEEP = 1e4
"""Combinations with larger factors are left alone: they would multiply rounding errors."""

ROUNDING = 1e-12
"""Sums are rounded outwards by this, relative to the size of what is added up."""

Places = NDArray[np.signedinteger]


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one ReLU, and the bounds of what each reads."""

    name: str
    lower: Array
    upper: Array


@dataclass(eq=False)
class Chain:
    """``x -> relus[0] of (weights[0] x + biases[0])``, and so on; the last weights have no ReLU behind them."""

    input_shape: Shape
    output_shape: Shape
    weights: list[Array]
    biases: list[Array]
    names: list[str]
    relus: list[str]

    @staticmethod
    def of(network: Network) -> Chain:
        """The chain that a network is; raises `UnsupportedError` if it is none, naming the node."""
        chain = Chain(network.input_shape, network.output_shape, [], [], [], [])
        weight, bias, name = _nothing(size(network.input_shape))
        before = INPUT
        for node in network.nodes:
            if node.inputs != (before,) or not isinstance(node.layer, Dense | BatchNorm | Reshape | ReLU):
                raise UnsupportedError(
                    f"node `{node.name}` ({node.layer.label}) cannot be compressed; expected a chain of dense layers, batch norm and ReLUs"
                )
            before = node.name
            if isinstance(node.layer, ReLU):
                chain.relus.append(node.name)
                chain._put(weight, bias, name or f"{node.name}_input")
                weight, bias, name = _nothing(size(node.shape))
                continue
            shape = network.shape_of(node.inputs[0])
            (matrix,) = linear_map(node.layer, shape)
            weight, bias = np.asarray(matrix @ weight), matrix @ bias + _constant(node.layer, shape)
            name = node.name if isinstance(node.layer, Dense) else name
        chain._put(weight, bias, name or "output_rows")
        return chain

    def _put(self, weight: Array, bias: Array, name: str) -> None:
        self.weights.append(weight)
        self.biases.append(bias)
        self.names.append(name)

    def width(self, relu: str) -> int:
        """How many units a ReLU has, 0 if it is gone."""
        return len(self.biases[self.relus.index(relu)]) if relu in self.relus else 0

    def shrink(self, units: list[Units], region: Box) -> None:
        """Fold all units that never change, from the input on, and drop those that nothing reads, from the output on."""
        box = region.lower.reshape(-1), region.upper.reshape(-1)
        for each in units:
            box = self._fold(self.relus.index(each.name), each, box)
        for k in reversed(range(len(self.relus))):
            self._drop(k)

    def _fold(self, k: int, units: Units, box: tuple[Array, Array]) -> tuple[Array, Array]:
        """Fold one layer whose input lies in a box; returned is the box of its own outputs, or the same one if the layer is gone."""
        silent = units.upper <= 0
        active = (units.lower >= 0) & ~silent
        changing = ~silent & ~active
        weight, bias, after = self.weights[k], self.biases[k], self.weights[k + 1]
        rows, shifts, columns = weight[active], bias[active], after[:, active]
        if not changing.any():
            self._merge(k, columns @ rows, columns @ shifts)
            return box
        low, high = units.lower[active].clip(min=0), units.upper[active]
        kept = _independent(rows)
        if min(len(rows), len(after)) < min(len(rows), len(kept)):
            rows, shifts, columns, low, high, moved = _passed_on(columns @ rows, columns @ shifts, box)
        elif len(kept) < len(rows):
            rows, shifts, columns, moved = _combined(rows, shifts, columns, kept)
            low, high = low[kept], high[kept]
        else:
            moved = np.zeros(len(after))
        self.weights[k], self.biases[k] = np.concatenate([weight[changing], rows]), np.concatenate([bias[changing], shifts])
        self.weights[k + 1] = np.concatenate([after[:, changing], columns], axis=1)
        self.biases[k + 1] = self.biases[k + 1] + moved
        return np.concatenate([np.zeros(int(changing.sum())), low]), np.concatenate([units.upper[changing], high])

    def _merge(self, k: int, weight: Array, shift: Array) -> None:
        """Put a linear function in the place of a layer and the next."""
        self.weights[k : k + 2] = [weight]
        self.biases[k : k + 2] = [self.biases[k + 1] + shift]
        del self.names[k], self.relus[k]

    def _drop(self, k: int) -> None:
        used = (self.weights[k + 1] != 0).any(axis=0)
        if not used.any():
            self._merge(k, np.zeros((len(self.weights[k + 1]), self.weights[k].shape[1])), np.zeros(len(self.weights[k + 1])))
            return
        self.weights[k], self.biases[k], self.weights[k + 1] = self.weights[k][used], self.biases[k][used], self.weights[k + 1][:, used]

    def network(self) -> Network:
        """The chain as a network, its nodes named as they were."""
        taken = {*self.names, *self.relus}
        layers: list[tuple[str, Layer]] = []
        if len(self.input_shape) > 1:
            layers.append((free_name("flatten", taken), Reshape((size(self.input_shape),))))
        for k, name in enumerate(self.names):
            layers.append((name, Dense(torch.tensor(self.weights[k]), torch.tensor(self.biases[k]))))
            layers += [(self.relus[k], ReLU())] if k < len(self.relus) else []
        if len(self.output_shape) > 1:
            layers.append((free_name("unflatten", taken), Reshape(self.output_shape)))
        return Network.build(self.input_shape, layers)


def _nothing(width: int) -> tuple[Array, Array, str]:
    return np.eye(width), np.zeros(width), ""


def _constant(layer: Layer, shape: Shape) -> Array:
    with torch.no_grad():
        return np.asarray(layer.forward(torch.zeros(1, *shape, dtype=torch.float64)).reshape(-1).numpy())


def _independent(rows: Array) -> Places:
    """The numbers of rows of which all rows are combinations."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    _, triangle, order = qr(rows.T, mode="economic", pivoting=True)
    size_of = np.abs(np.diag(triangle))
    rank = int((size_of > DEPENDENT * max(size_of[0], 1e-300)).sum())
    kept = np.sort(order[:rank])
    return kept if np.abs(_factors(rows, kept)).max(initial=0.0) <= STEEP else np.arange(len(rows))


def _factors(rows: Array, kept: Places) -> Array:
    """The factors of the kept rows in each of the others."""
    others = np.setdiff1d(np.arange(len(rows)), kept)
    basis, triangle = qr(rows[kept].T, mode="economic")
    return np.asarray(solve_triangular(triangle, basis.T @ rows[others].T)).T if len(kept) else np.zeros((len(others), 0))


def _combined(rows: Array, shifts: Array, columns: Array, kept: Places) -> tuple[Array, Array, Array, Array]:
    """The kept rows, which do the others' work as well: rows, shifts, columns, and what comes to the next bias."""
    others, factors = np.setdiff1d(np.arange(len(rows)), kept), _factors(rows, kept)
    moved = columns[:, others] @ (shifts[others] - factors @ shifts[kept])
    return rows[kept], shifts[kept], columns[:, kept] + columns[:, others] @ factors, moved


def _passed_on(rows: Array, shifts: Array, box: tuple[Array, Array]) -> tuple[Array, Array, Array, Array, Array, Array]:
    """One unit for each of the next layer, which passes on the sum of all active units, lifted so that it is never below zero."""
    up, down = rows.clip(min=0), rows.clip(max=0)
    low, high = up @ box[0] + down @ box[1] + shifts, up @ box[1] + down @ box[0] + shifts
    room = ROUNDING * (1.0 + np.abs(rows) @ np.maximum(np.abs(box[0]), np.abs(box[1])) + np.abs(shifts))
    lift = (room - low).clip(min=0)
    return rows, shifts + lift, np.eye(len(rows)), (low + lift).clip(min=0), high + lift + room, -lift
