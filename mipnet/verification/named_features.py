"""The features of a network by name or number: what a user gives by feature, and inputs labelled by feature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mipnet.arrays import Array, Ints
from mipnet.errors import DataError, InputError, meant, shown
from mipnet.network.given_arrays import as_labelled, layout_hint, numbers
from mipnet.network.graph import INPUT_NODE, Network, dims_of, size

FEATURE_DIM = "feature"
"""The dimension of the features of a network whose input has one axis."""


@dataclass(frozen=True, eq=False)
class NamedFeatures:
    """The features of a network: the names of its inputs, or those of the given input, or their numbers."""

    network: Network
    names: tuple[Any, ...]

    @staticmethod
    def of(network: Network, x: Any) -> NamedFeatures:
        """Return the features of a network, with the names of a labelled input if the network has none."""
        count = size(network.input_shape)
        if network.input_names:
            return NamedFeatures(network, network.input_names)
        given = list(x) if isinstance(x, Mapping) else None
        labelled = as_labelled(x, FEATURE_DIM) if given is None else None
        if labelled is not None and labelled.ndim and labelled.sizes[labelled.dims[-1]] == count and labelled.dims[-1] in labelled.indexes:
            given = list(labelled.indexes[labelled.dims[-1]])
        named = given is not None and all(isinstance(each, str) for each in given) and len(given) == count
        return NamedFeatures(network, tuple(given) if named and given is not None else tuple(range(count)))

    @property
    def count(self) -> int:
        """The number of features."""
        return len(self.names)

    def called(self, position: int) -> str:
        """Return how messages call a feature."""
        return f"`{self.names[position]}`" if isinstance(self.names[position], str) else f"feature {position}"

    def position(self, name: Any, what: str) -> int:
        """Return the position of a feature; raises `InputError` if there is none of this name or number."""
        if isinstance(name, str | int) and not isinstance(name, bool) and name in self.names:
            return self.names.index(name)
        known = ", ".join(map(str, self.names[:12])) + (", ..." if self.count > 12 else "")
        raise InputError(f"{what} has the feature {shown(name)}; the features are {known}{meant(name, map(str, self.names))}")

    def positions(self, names: Any, what: str) -> Ints:
        """Return the positions of some features."""
        if isinstance(names, str | Mapping) or not isinstance(names, Iterable) or getattr(names, "ndim", 1) != 1:
            raise InputError(f"`{what}` is {shown(names)}; expected a list of features")
        found = [self.position(name.item() if isinstance(name, np.generic) else name, f"`{what}`") for name in names]
        if len(set(found)) < len(found):
            raise InputError(f"`{what}` has a feature twice; expected each once")
        return np.array(found, dtype=np.int64)

    def groups(self, given: Any) -> tuple[Ints, ...]:
        """Return the positions of the features of each one-hot group; raises `InputError` for a feature in two of them."""
        parts = list(given.values()) if isinstance(given, Mapping) else given
        if isinstance(parts, str) or not isinstance(parts, Iterable) or any(isinstance(part, str) or np.ndim(part) != 1 for part in parts):
            raise InputError(f"`one_hot` is {shown(given)}; expected a list of groups, each a list of features: [['red', 'green', 'blue']]")
        groups = tuple(self.positions(part, "one_hot") for part in parts)
        if any(len(group) < 2 for group in groups):
            raise InputError("`one_hot` has a group with fewer than two features; expected all columns of one category in each")
        every = np.concatenate([*groups, np.zeros(0, dtype=np.int64)])
        if len(np.unique(every)) < len(every):
            raise InputError("`one_hot` has a feature in two groups; expected each once")
        return groups

    def array(self, given: Any, what: str) -> Array:
        """Return one number per feature ``(inputs,)``: labelled ones, and mappings, by name; others by their order."""
        shape = self.network.input_shape
        labelled = None if isinstance(given, Mapping) else as_labelled(given, FEATURE_DIM)
        if labelled is not None and labelled.ndim == 2 and labelled.shape[0] == 1:
            labelled = labelled.isel({labelled.dims[0]: 0}, drop=True)
        if isinstance(given, Mapping):
            values = {self.position(name, what): value for name, value in given.items()}
            if len(values) < self.count:
                missing = next(k for k in range(self.count) if k not in values)
                raise DataError(f"{what} lacks {self.called(missing)}; expected a number for each feature")
            given = np.array([values[k] for k in range(self.count)])
        elif labelled is not None and labelled.ndim == 1 and labelled.dims[0] in labelled.indexes:
            index = labelled.indexes[labelled.dims[0]]
            if len(index) == self.count and all(isinstance(each, str) for each in (*index, *self.names)):
                order = [self.position(name, what) for name in index]
                if len(set(order)) < len(order):
                    raise DataError(f"{what} has a feature twice; expected each once")
                given = np.empty(self.count)
                given[order] = numbers(labelled.values, what)
        array = np.array(numbers(given, what), dtype=np.float64)
        array = array[0] if array.shape == (1, *shape) else array
        if array.shape not in (shape, (self.count,)):
            raise DataError(f"{what} has shape {array.shape}; the network takes {shape}{layout_hint(array.shape, shape)}")
        if not np.isfinite(array).all():
            raise DataError(f"{what} holds NaN or infinite numbers; expected finite ones")
        return array.reshape(-1)

    def labelled(self, x: Array) -> xr.DataArray:
        """Return one input as a labelled array."""
        shape = self.network.input_shape
        if len(shape) == 1:
            return xr.DataArray(x.reshape(-1), dims=FEATURE_DIM, coords={FEATURE_DIM: list(self.names)})
        return xr.DataArray(x.reshape(shape), dims=dims_of(INPUT_NODE, shape))
