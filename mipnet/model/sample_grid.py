"""The samples of an embedded network: the places of a user's dimensions at which the network is applied.

Inside an encoding the samples are one axis.  A user's model has them along any dimensions (time, plant, scenario), with coordinates, and
some places may have none: there an input is absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import linopy
import numpy as np
import xarray as xr

from mipnet.arrays import Array, Ints, Mask, Shape
from mipnet.formulations.affine import Affine
from mipnet.formulations.linopy_rows import expression_of


@dataclass(frozen=True, eq=False)
class SampleGrid:
    """The places of the samples.

    ``places`` has the user's dimensions and coordinates and is True where there is a sample; samples are numbered in C order.
    ``feature_dims`` are the dimensions of one input, with ``feature_coords``.
    """

    places: xr.DataArray
    feature_dims: tuple[str, ...]
    feature_coords: dict[str, Any] = field(default_factory=dict)

    @property
    def present(self) -> Mask:
        """``places`` as a flat mask."""
        found: Mask = self.places.values.reshape(-1)
        return found

    @property
    def dims(self) -> tuple[str, ...]:
        """The user's dimensions without those of one input."""
        return tuple(str(dim) for dim in self.places.dims)

    def labelled(self, values: Array, dims: tuple[str, ...], coords: dict[str, Any]) -> xr.DataArray:
        """Return values of shape ``(sample, *shape)`` over the user's dimensions and ``dims``; NaN where there is no sample."""
        return self._spread(values, dims, coords, np.nan)

    def _spread(self, values: Array | Ints, dims: tuple[str, ...], coords: dict[str, Any], missing: float) -> xr.DataArray:
        shape = values.shape[1:]
        filled = np.full((self.places.size, *shape), missing, dtype=values.dtype)
        filled[self.present] = values
        array = xr.DataArray(filled.reshape(*self.places.shape, *shape), dims=(*self.places.dims, *dims))
        return array.assign_coords(self.places.coords).assign_coords(coords)

    def gathered(self, array: xr.DataArray) -> Array:
        """Return the values of an array over the user's dimensions and others as ``(sample, *others)``, the inverse of `labelled`."""
        shape = array.shape[self.places.ndim :]
        found: Array = array.transpose(*self.places.dims, ...).values.reshape(-1, *shape)[self.present]
        return found

    def describe(self, sample: int) -> str:
        """Return the labels of a sample as text, ``time=3, plant=b``; empty without dimensions."""
        at = np.unravel_index(int(np.flatnonzero(self.present)[sample]), self.places.shape) if self.places.ndim else ()
        found = []
        for dim, i in zip(self.places.dims, at, strict=True):
            found.append(f"{dim}={self.places.indexes[dim][int(i)] if dim in self.places.indexes else int(i)}")
        return ", ".join(found)

    def variable(self, model: linopy.Model, name: str, ends: tuple[Array, Array], dims: tuple[str, ...]) -> tuple[linopy.Variable, Ints]:
        """Add variables over the user's dimensions and ``dims``, masked where there is no sample.

        ``ends`` are bounds of shape ``(sample, *shape)``.  Returns the variable, and its labels in this shape.
        """
        shape = ends[0].shape
        start = model._xCounter
        end = start + self.places.size * int(np.prod(shape[1:]))
        every = model._allocate_labels(start, end)
        model._xCounter = end
        labels = every.reshape(self.places.size, *shape[1:])[self.present]
        coords = {dim: np.arange(n) for dim, n in zip(dims, shape[1:], strict=True)}
        arrays = {"lower": self.labelled(ends[0], dims, coords), "upper": self.labelled(ends[1], dims, coords)}
        arrays["scaling"] = xr.ones_like(arrays["lower"])
        arrays["labels"] = self._spread(labels, dims, coords, -1)
        data = xr.Dataset(arrays)
        data.attrs = {"label_range": (start, end), "name": name, "binary": False, "integer": False, "semi_continuous": False}
        model.variables.add(linopy.Variable(data, model, name, skip_broadcast=True))
        return model.variables[name], labels.astype(np.int64)

    def expression(self, model: linopy.Model, value: Affine, dims: tuple[str, ...], coords: dict[str, Any]) -> linopy.LinearExpression:
        """Return a value of shape ``(sample, *shape)`` as an expression over the user's dimensions and ``dims``; absent elsewhere."""
        shape: Shape = value.shape[1:]
        where = np.repeat(self.present, int(np.prod(shape))).reshape(self.places.size, *shape)
        spread = value.reshape(-1).place(where)
        constant = np.where(where, spread.constant, np.nan).reshape(*self.places.shape, *shape)
        frame = xr.DataArray(constant, dims=(*self.places.dims, *dims)).assign_coords(self.places.coords).assign_coords(coords)
        return expression_of(model, spread, frame)
