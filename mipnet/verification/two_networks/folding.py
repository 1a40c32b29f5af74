"""A chain of dense layers and ReLUs in which units that never change state are folded: exact over the box, up to rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import qr, solve_triangular

from mipnet.arrays import Array, Shape
from mipnet.errors import UnsupportedError
from mipnet.formulations.registry import linear_map
from mipnet.layers import BatchNorm, Dense, ReLU, Reshape
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.memory import check_memory
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.graph import INPUT_NODE, Layer, Network, free_name, size
from mipnet.network.sets import Box

DEPENDENT_ROW_RELATIVE = 1e-10
"""A row is a linear combination of others if its residual is at most this, relative to the largest row."""

COMBINATION_FACTOR_MAX = 1e4
"""Combinations with larger factors are not used, because they would multiply rounding errors."""

FACTORISATION_MULTIPLICATIONS_PER_SECOND = 1e9
"""How many multiplications per second of a QR factorisation with pivoting, which cannot be stopped, are counted on."""

IDENTITY_ENTRY_BYTES = 16
"""Bytes per entry of an identity: itself, and the product that is made of it."""

LIFT_ROUNDING_RELATIVE = 1e-12
"""Bounds of sums are rounded outwards by this, relative to the sum of the absolute values of the terms."""

RowNumbers = NDArray[np.signedinteger]


@dataclass(frozen=True, eq=False)
class ReluUnits:
    """The units of one ReLU, with the bounds of their inputs."""

    name: str
    lower: Array
    upper: Array


class AffineMap(NamedTuple):
    """The map ``weight @ x + bias`` with the name of its dense layer, empty if there is none yet; ``untouched`` if it is no layer's map."""

    weight: Array
    bias: Array
    name: str
    untouched: bool

    @staticmethod
    def identity(width: int) -> AffineMap:
        """Return the identity; raises `MemoryLimitReached` if it would not fit into memory."""
        check_memory(f"the dense matrix of a layer with {width:,} inputs", IDENTITY_ENTRY_BYTES * width**2, "give a smaller network")
        return AffineMap(np.eye(width), np.zeros(width), "", untouched=True)

    def then(self, layer: Layer, shape: Shape, name: str) -> AffineMap:
        """Return this map followed by an affine layer, whose input has a shape."""
        matrix = layer.weight.numpy() if isinstance(layer, Dense) else linear_map(layer, shape)[0]
        weight = matrix @ self.weight if not self.untouched else matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
        return AffineMap(np.asarray(weight), matrix @ self.bias + _constant(layer, shape), name, untouched=False)


class ActiveUnits(NamedTuple):
    """Units that are always active: their weights and biases, their columns in the next layer, and what is added to its bias.

    ``lower`` and ``upper`` are the bounds of the units.
    """

    rows: Array
    shifts: Array
    columns: Array
    lower: Array
    upper: Array
    added: Array


@dataclass(eq=False)
class DenseChain:
    """The chain ``x -> relus[0](weights[0] x + biases[0]) -> ...``; the last dense layer has no ReLU after it."""

    input_shape: Shape
    output_shape: Shape
    weights: list[Array]
    biases: list[Array]
    names: list[str]
    relus: list[str]
    softmax: FinalSoftmax | None = None

    @staticmethod
    def of(network: Network) -> DenseChain:
        """Read a network as a chain; raises `UnsupportedError` if it is none, naming the node."""
        chain = DenseChain(network.input_shape, network.output_shape, [], [], [], [], network.softmax)
        block = AffineMap.identity(size(network.input_shape))
        before = INPUT_NODE
        for node in network.nodes:
            if node.inputs != (before,) or not isinstance(node.layer, Dense | BatchNorm | Reshape | ReLU):
                raise UnsupportedError(
                    f"node `{node.name}` ({node.layer.label}) cannot be compressed; expected a chain of dense layers, batch norm and ReLUs"
                )
            before = node.name
            if isinstance(node.layer, ReLU):
                chain.relus.append(node.name)
                chain._append(block._replace(name=block.name or f"{node.name}_input"))
                block = AffineMap.identity(size(node.shape))
                continue
            shape = network.shape_of(node.inputs[0])
            name = node.name if isinstance(node.layer, Dense) else block.name
            block = block.then(node.layer, shape, name)
        chain._append(block._replace(name=block.name or "output_rows"))
        return chain

    def _append(self, block: AffineMap) -> None:
        self.weights.append(block.weight)
        self.biases.append(block.bias)
        self.names.append(block.name)

    def width(self, relu: str) -> int:
        """Return the number of units of a ReLU, 0 if it was removed."""
        return len(self.biases[self.relus.index(relu)]) if relu in self.relus else 0

    def shrink(self, units: list[ReluUnits], region: Box, deadline: Deadline = NO_DEADLINE) -> None:
        """Fold the units that never change state, from the first layer on, and drop unread units, from the last layer on.

        Where there is no time to look for units that are linear combinations of others, these stay.
        """
        box = region.lower.reshape(-1), region.upper.reshape(-1)
        for each in units:
            box = self._fold(self.relus.index(each.name), each, box, deadline)
        for k in reversed(range(len(self.relus))):
            self._drop(k)

    def _fold(self, k: int, units: ReluUnits, box: tuple[Array, Array], deadline: Deadline) -> tuple[Array, Array]:
        """Fold one layer whose input lies in a box, and return the box of its outputs, or the same box if the layer was removed."""
        silent = units.upper <= 0
        active = (units.lower >= 0) & ~silent
        changing = ~silent & ~active
        weight, bias, after = self.weights[k], self.biases[k], self.weights[k + 1]
        rows, shifts, columns = weight[active], bias[active], after[:, active]
        if not changing.any():
            self._merge(k, columns @ rows, columns @ shifts)
            return box
        kept = _independent(rows, deadline)
        linear = ActiveUnits(rows, shifts, columns, units.lower[active].clip(min=0), units.upper[active], np.zeros(len(after)))
        if min(len(rows), len(after)) < min(len(rows), len(kept)):
            linear = _summed(columns @ rows, columns @ shifts, box)
        elif len(kept) < len(rows):
            linear = _combined(linear, kept)
        self.weights[k] = np.concatenate([weight[changing], linear.rows])
        self.biases[k] = np.concatenate([bias[changing], linear.shifts])
        self.weights[k + 1] = np.concatenate([after[:, changing], linear.columns], axis=1)
        self.biases[k + 1] = self.biases[k + 1] + linear.added
        lower = np.concatenate([np.zeros(int(changing.sum())), linear.lower])
        return lower, np.concatenate([units.upper[changing], linear.upper])

    def _merge(self, k: int, weight: Array, shift: Array) -> None:
        """Replace a layer and the next one by one linear function."""
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
        """Return the chain as a network with the same node names."""
        taken = {*self.names, *self.relus}
        layers: list[tuple[str, Layer]] = []
        if len(self.input_shape) > 1:
            layers.append((free_name("flatten", taken), Reshape((size(self.input_shape),))))
        for k, name in enumerate(self.names):
            layers.append((name, Dense(torch.tensor(self.weights[k]), torch.tensor(self.biases[k]))))
            layers += [(self.relus[k], ReLU())] if k < len(self.relus) else []
        if len(self.output_shape) > 1:
            layers.append((free_name("unflatten", taken), Reshape(self.output_shape)))
        notes = () if self.softmax is None else (self.softmax.note,)
        return Network.build(self.input_shape, layers, notes=notes, softmax=self.softmax)


def _constant(layer: Layer, shape: Shape) -> Array:
    with torch.no_grad():
        return np.asarray(layer.forward(torch.zeros(1, *shape, dtype=torch.float64)).reshape(-1).numpy())


def _independent(rows: Array, deadline: Deadline) -> RowNumbers:
    """Return the numbers of rows of which all rows are linear combinations; of all rows if there is no time to find fewer."""
    if not len(rows) or 4 * rows.size * min(rows.shape) > FACTORISATION_MULTIPLICATIONS_PER_SECOND * deadline.seconds:
        return np.arange(len(rows))
    _, triangle, order = qr(rows.T, mode="economic", pivoting=True)
    size_of = np.abs(np.diag(triangle))
    rank = int((size_of > DEPENDENT_ROW_RELATIVE * max(size_of[0], 1e-300)).sum())
    kept = np.sort(order[:rank])
    return kept if np.abs(_factors(rows, kept)).max(initial=0.0) <= COMBINATION_FACTOR_MAX else np.arange(len(rows))


def _factors(rows: Array, kept: RowNumbers) -> Array:
    """Return the factors of the kept rows in each of the other rows."""
    others = np.setdiff1d(np.arange(len(rows)), kept)
    basis, triangle = qr(rows[kept].T, mode="economic")
    return np.asarray(solve_triangular(triangle, basis.T @ rows[others].T)).T if len(kept) else np.zeros((len(others), 0))


def _combined(units: ActiveUnits, kept: RowNumbers) -> ActiveUnits:
    """Return the kept units; the columns of all others, which are linear combinations of them, are added to theirs."""
    rows, shifts, columns = units.rows, units.shifts, units.columns
    others, factors = np.setdiff1d(np.arange(len(rows)), kept), _factors(rows, kept)
    added = columns[:, others] @ (shifts[others] - factors @ shifts[kept])
    columns = columns[:, kept] + columns[:, others] @ factors
    return ActiveUnits(rows[kept], shifts[kept], columns, units.lower[kept], units.upper[kept], added)


def _summed(rows: Array, shifts: Array, box: tuple[Array, Array]) -> ActiveUnits:
    """Return one unit per unit of the next layer: the weighted sum of all active units, plus a constant so that it is never negative."""
    up, down = rows.clip(min=0), rows.clip(max=0)
    low, high = up @ box[0] + down @ box[1] + shifts, up @ box[1] + down @ box[0] + shifts
    rounding = LIFT_ROUNDING_RELATIVE * (1.0 + np.abs(rows) @ np.maximum(np.abs(box[0]), np.abs(box[1])) + np.abs(shifts))
    lift = (rounding - low).clip(min=0)
    return ActiveUnits(rows, shifts + lift, np.eye(len(rows)), (low + lift).clip(min=0), high + lift + rounding, -lift)
