"""Adding variables and rows to a linopy model without alignment and broadcasting.

The methods of linopy align and broadcast labelled arrays, which takes one or two milliseconds per group of variables or rows, however
small.  Here every array already has the shape of its group, so the objects that linopy stores are made directly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import linopy
import numpy as np
import pandas as pd
import xarray as xr
from linopy import CSRConstraint, LinearExpression
from linopy.csr import Grid
from numpy.typing import ArrayLike, NDArray

from mipnet.arrays import Array, Mask, Shape, activity, widen
from mipnet.errors import InputError
from mipnet.formulations.affine import Affine

Sense = Literal["<=", ">=", "="]

NODE_ATTRIBUTE = "node"
"""The attribute of a variable that names the node that it was added for; variables of one node are computed in one step."""

Coordinates = Mapping[str, NDArray[Any]]
"""The labels along each dimension, by dimension name."""


def coordinates(dims: tuple[str, ...], shape: Shape, samples: xr.DataArray) -> Coordinates:
    """Return coordinates for variables or rows: name and labels of ``samples`` for dimension ``sample``, 0, 1, 2, ... for any other."""
    own = str(samples.dims[0])
    return {own if d == "sample" else d: samples.values if d == "sample" else np.arange(n) for d, n in zip(dims, shape, strict=True)}


def add_variables(
    model: linopy.Model,
    name: str,
    lower: ArrayLike,
    upper: ArrayLike,
    coords: Coordinates,
    *,
    where: Mask | None = None,
    binary: bool = False,
    integer: bool = False,
) -> linopy.Variable:
    """Add variables over ``coords``, without those where the mask ``where`` is False; raises `InputError` if the name is taken."""
    if name in model.variables:
        raise InputError(f"the model has a variable `{name}` already; give this network a `prefix` of its own")
    dims, shape = tuple(coords), tuple(len(labels) for labels in coords.values())
    start, end = model._xCounter, model._xCounter + math.prod(shape)
    labels = model._allocate_labels(start, end).reshape(shape)
    model._xCounter = end
    arrays = {
        "lower": np.array(np.broadcast_to(lower, shape), dtype=np.float64),
        "upper": np.array(np.broadcast_to(upper, shape), dtype=np.float64),
        "scaling": np.broadcast_to(1.0, shape),
        "labels": labels if where is None else np.where(where, labels, labels.dtype.type(-1)),
    }
    kind = {"binary": binary, "integer": integer, "semi_continuous": False}
    data = xr.Dataset(
        {key: (dims, array) for key, array in arrays.items()}, coords=coords, attrs={"label_range": (start, end), "name": name, **kind}
    )
    made = linopy.Variable(data, model, name, skip_broadcast=True)
    model.variables.add(made)
    return made


def add_rows(
    model: linopy.Model, name: str, value: Affine, sense: Sense, right: Array | float, dims: tuple[str, ...], samples: xr.DataArray
) -> None:
    """Add rows ``value sense right``, stored as a sparse matrix (`linopy.CSRConstraint`); raises `InputError` if the name is taken.

    This takes a fifteenth of the time of a labelled constraint, and needs no padding.
    """
    bound = (np.asarray(right, dtype=np.float64) - value.constant).reshape(-1)
    grid = Grid.from_coords(pd.Index(labels, name=dim) for dim, labels in coordinates(dims, value.shape, samples).items())
    if name in model.constraints:
        raise InputError(f"the model has constraints `{name}` already; give this network a `prefix` of its own")
    rows = CSRConstraint(widen(value.terms, model._xCounter), np.arange(len(bound)), bound, sense, grid, model)
    start, model._cCounter = model._cCounter, model._cCounter + len(bound)
    model.constraints.add(rows.assign_labels(start, name))


def binary_data(value: Affine, dim: str) -> xr.Dataset:
    """Return the data of a binary linopy variable over ``dim``, from a value with exactly one variable per element."""
    labels = value.terms.indices.astype(np.int64)
    arrays = {"labels": labels, "lower": np.zeros(len(labels)), "upper": np.ones(len(labels))}
    data = xr.Dataset({name: (dim, array) for name, array in arrays.items()}, coords={dim: np.arange(len(labels))})
    return data.assign_attrs(binary=True, integer=False, label_range=(int(labels.min()), int(labels.max()) + 1))


def expression(model: linopy.Model, value: Affine, dims: tuple[str, ...], samples: xr.DataArray) -> LinearExpression:
    """Return an affine value as a labelled linopy expression with its constant; rows are padded to the length of the longest."""
    coords = coordinates(dims, value.shape, samples)
    return expression_of(model, value, xr.DataArray(value.constant, dims=tuple(coords), coords=coords))


def expression_of(model: linopy.Model, value: Affine, constant: xr.DataArray) -> LinearExpression:
    """Return an expression with the terms of a value, and with the constant, the dimensions and the coordinates of ``constant``."""
    sizes, rows = value.row_sizes, value.constant.size
    longest = max(1, int(sizes.max(initial=0)))
    coefficients, labels = np.full((rows, longest), np.nan), np.full((rows, longest), -1, dtype=np.int32)
    present = np.arange(longest) < sizes[:, None]
    coefficients[present], labels[present] = value.terms.data, value.terms.indices
    terms = {"coeffs": coefficients, "vars": labels}
    arrays = {name: ((*constant.dims, "_term"), array.reshape(*constant.shape, longest)) for name, array in terms.items()}
    return LinearExpression(xr.Dataset(arrays | {"const": (constant.dims, constant.values)}, coords=constant.coords), model)


def value_range(model: linopy.Model, value: Affine) -> tuple[Array, Array]:
    """Return lower and upper bounds of an affine value, computed from the bounds of its variables."""
    lower, upper = column_bounds(model)
    width = value.terms.shape[1]
    low, high = activity(value.terms, lower[:width], upper[:width])
    return low.reshape(value.shape) + value.constant, high.reshape(value.shape) + value.constant


def column_bounds(model: linopy.Model) -> tuple[Array, Array]:
    """Return the lower and upper bound of every variable of a model, by label; infinite for labels that are not in use.

    Those of a semi-continuous variable contain 0.
    """
    lower, upper = np.full(model._xCounter, -np.inf), np.full(model._xCounter, np.inf)
    for variable in (model.variables[name] for name in model.variables):
        labels = variable.labels.values.reshape(-1)
        present = labels >= 0
        lower[labels[present]] = variable.lower.values.reshape(-1)[present]
        upper[labels[present]] = variable.upper.values.reshape(-1)[present]
        if variable.attrs.get("semi_continuous"):
            lower[labels[present]] = np.minimum(lower[labels[present]], 0.0)
    return lower, upper
