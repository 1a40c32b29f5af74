"""The network of an estimator under construction: its inputs, its nodes, and the softmax at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike

from mipnet.arrays import Array
from mipnet.errors import UnsupportedError
from mipnet.layers import Clip, Concat, Dense, Scale, Select
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.network.graph import INPUT_NODE, Layer, Network
from mipnet.readers.estimators.columns import InputColumn
from mipnet.readers.node_names import NODE_NAME_STEMS


@dataclass(frozen=True, eq=False)
class TakenEncoder:
    """A one-hot encoder that was taken off, and the features that it codes, by number."""

    encoder: Any
    features: tuple[int, ...]


@dataclass(eq=False)
class EstimatorReading:
    """The nodes so far of the network of an estimator with ``count`` features, which have ``names`` or none.

    ``codes`` holds the names of the columns that code a feature, by its number.  ``probes`` are values of inputs at which the network is
    compared with the estimator, such as thresholds.  ``rounding`` is the relative error of the estimator's own arithmetic.
    """

    estimator: Any
    count: int
    names: tuple[str, ...] = ()
    layers: list[tuple[str, Layer, tuple[str, ...]]] = field(default_factory=list)
    encoders: list[TakenEncoder] = field(default_factory=list)
    codes: dict[int, tuple[str, ...]] = field(default_factory=dict)
    probes: dict[tuple[int, int | None], Array] = field(default_factory=dict)
    columns: tuple[InputColumn, ...] = ()
    softmax: FinalSoftmax | None = None
    notes: list[str] = field(default_factory=list)
    rounding: float = 1e-9
    deadline: Deadline = NO_DEADLINE

    @property
    def work(self) -> str:
        """What is being done, for a message at the end of the time."""
        return f"read the {type(self.estimator).__name__}"

    def name_of(self, feature: int) -> str:
        """Return the name of a feature; scikit-learn's own, such as `x3`, if it has none."""
        return self.names[feature] if self.names else f"x{feature}"

    @property
    def sources(self) -> list[tuple[int, int | None]]:
        """The inputs of the network: the features in their order, each coded one replaced by the columns that code it."""
        found: list[tuple[int, int | None]] = []
        for feature in range(self.count):
            codes = self.codes.get(feature)
            found += [(feature, None)] if codes is None else [(feature, code) for code in range(len(codes))]
        return found

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs of the network; empty if the estimator has none and codes nothing."""
        if not self.names and not self.codes:
            return ()
        return tuple(self.name_of(feature) if code is None else self.codes[feature][code] for feature, code in self.sources)

    def places(self, columns: Sequence[InputColumn]) -> tuple[int, ...]:
        """Return the numbers of the inputs that columns are computed from; raises `UnsupportedError` for a feature that is also coded."""
        number = {source: place for place, source in enumerate(self.sources)}
        both = [each.feature for each in columns if each.source not in number]
        if both:
            raise UnsupportedError(
                f"feature `{self.name_of(both[0])}` is coded by a OneHotEncoder and also used as it is; expected one of the two"
            )
        return tuple(number[each.source] for each in columns)

    def emit(self, layer: Layer, *inputs: str) -> str:
        """Add a node, and return its name."""
        stem = NODE_NAME_STEMS.get(type(layer), type(layer).__name__.lower())
        name = f"{stem}{1 + sum(each.startswith(stem) for each, _, _ in self.layers)}"
        self.layers.append((name, layer, inputs))
        return name

    def emit_columns(self, columns: Sequence[InputColumn]) -> str:
        """Add the nodes that compute columns from the inputs, and return the last one's name: columns with equal clips together."""
        self.columns = tuple(columns)
        parts = []
        for clips, group in groupby(columns, key=lambda each: each.clips):
            part, places = list(group), self.places(columns)
            own = places if len(part) == len(columns) else self.places(part)
            value = INPUT_NODE if own == tuple(range(len(self.sources))) else self.emit(Select(own), INPUT_NODE)
            for k, lines in enumerate(zip(*(each.lines for each in part), strict=True)):
                factor, shift = np.array(lines).T
                if (factor != 1).any() or shift.any():
                    value = self.emit(Scale(torch.tensor(factor), torch.tensor(shift)), value)
                value = self.emit(Clip(*clips[k]), value) if k < len(clips) else value
            parts.append(value)
        return parts[0] if len(parts) == 1 else self.emit(Concat(), *parts)

    def emit_linear(self, value: str, weight: ArrayLike, bias: ArrayLike) -> str:
        """Add ``weight @ x + bias`` for a matrix, or for a vector as its only row."""
        matrix = np.atleast_2d(np.asarray(weight, dtype=np.float64))
        shift = np.broadcast_to(np.asarray(bias, dtype=np.float64), len(matrix)).copy()
        return self.emit(Dense(torch.tensor(matrix), torch.tensor(shift)), value)

    def emit_logits(self, value: str, weight: ArrayLike, bias: ArrayLike) -> str:
        """Add the logits of classes whose probabilities are their softmax; the logits of two classes are 0 and the only row."""
        matrix, shift = np.atleast_2d(np.asarray(weight, dtype=np.float64)), np.atleast_1d(np.asarray(bias, dtype=np.float64))
        self.softmax = FinalSoftmax("softmax", (0,))
        if len(matrix) == 1:
            matrix, shift = np.vstack([np.zeros_like(matrix), matrix]), np.append(0.0, shift)
        return self.emit_linear(value, matrix, shift)

    def network(self) -> Network:
        """Return the network."""
        layers = self.layers or [("scale1", Scale(torch.ones(1), torch.zeros(1)), (INPUT_NODE,))]
        notes = [*self.notes, *([] if self.softmax is None else [self.softmax.note])]
        for each in self.encoders:
            told = ", ".join(f"`{self.name_of(feature)}`" for feature in each.features)
            notes.append(f"the one-hot encoder of {told} was taken off: the inputs are its columns, 0 or 1")
        network = Network.build((len(self.sources),), layers, notes=notes, softmax=self.softmax)
        return network.with_input_names(self.input_names) if self.input_names else network


def refuse(estimator: Any, why: str) -> NoReturn:
    """Raise `UnsupportedError` that names the estimator."""
    raise UnsupportedError(f"the {type(estimator).__name__} cannot be read: {why}")
