"""Bounds of the inputs of an embedded network: those of the user's variables, by interval arithmetic, and those that the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import linopy
import numpy as np
import pandas as pd
import xarray as xr

from mipnet.arrays import Array, Mask, activity, distinct, widen
from mipnet.embedding.host_relaxation import relaxation_bounds
from mipnet.embedding.inputs import Inputs
from mipnet.errors import DataError, InputError, UnboundedError, meant
from mipnet.formulations.linopy_rows import column_bounds
from mipnet.limits.deadline import Deadline
from mipnet.model.to_program import from_model
from mipnet.network.given_arrays import as_labelled
from mipnet.network.graph import Network
from mipnet.network.sets import Box

CONSTANT_INPUT_TOLERANCE = 1e-9
"""How far a constant input may lie outside of a polytope, in the maximum norm."""

InputBounds = Mapping[str, Any] | tuple[Any, Any] | xr.Dataset
"""Bounds of inputs: ``{"wind": (0, 25)}`` by feature, or a pair of lower and upper bounds of all features, or a Dataset with these names.

Each end is a number, an array of the shape of one input, or a labelled array over dimensions of the samples and of the features.
"""


@dataclass(frozen=True, eq=False)
class InputRange:
    """The input set ``lower <= x <= upper``, ``(sample, *input_shape)``.

    ``tighter`` marks the inputs whose given bounds are tighter than those that the user's variables have.
    """

    lower: Array
    upper: Array
    tighter: Mask


def find_bounds(model: linopy.Model, inputs: Inputs, given: InputBounds | None, what: str, tighten: Deadline | None = None) -> InputRange:
    """Return the bounds of all inputs; with ``tighten``, also from the relaxation of the model, computed until this deadline.

    Raises `UnboundedError`, naming a feature, if an end is missing or infinite; `InputError` if bounds exclude each other.
    """
    lower, upper = _of_variables(model, inputs)
    low, high = _given(inputs, given)
    tighter = (low > lower) | (high < upper)
    lower, upper = np.maximum(lower, low), np.minimum(upper, high)
    if tighten is not None:
        low, high = relaxation_bounds(model, inputs.value, lower, upper, tighten)
        tighter |= (low > lower) | (high < upper)
        lower, upper = low, high
    for end, side in ((lower, "lower"), (upper, "upper")):
        if not np.isfinite(end).all():
            fault = _named(inputs, ~np.isfinite(end), what, f"has infinite bounds: no {side} bound")
            raise UnboundedError(
                f"{fault}; set finite bounds, or give `bounds={{name: (lower, upper)}}`: the big-Ms are computed from them"
            )
    if (lower > upper).any():
        raise InputError(f"{_named(inputs, lower > upper, what, 'has bounds that exclude each other')}; expected lower <= upper")
    return InputRange(lower, upper, tighter)


def _of_variables(model: linopy.Model, inputs: Inputs) -> tuple[Array, Array]:
    """Return the bounds of the inputs that follow from those of the variables; where these are infinite, from rows that bound them."""
    value, (lower, upper) = inputs.value, column_bounds(model)
    read = distinct(value.terms.indices)
    if not (np.isfinite(lower[read]) & np.isfinite(upper[read])).all():
        program = from_model(model)
        lower[program.labels], upper[program.labels] = program.implied_bounds
    low, high = activity(widen(value.terms, len(lower)), lower, upper)
    return low.reshape(value.shape) + value.constant, high.reshape(value.shape) + value.constant


def _named(inputs: Inputs, where: Mask, what: str, fault: str) -> str:
    flat = where.reshape(len(where), -1)
    sample, element = np.argwhere(flat)[0]
    at = inputs.grid.describe(int(sample))
    others = np.count_nonzero(flat) - 1
    return f"{what} {fault} of feature `{inputs.features[element]}`{f' at {at}' if at else ''}" + (
        f" and in {others} other places" if others else ""
    )


def _given(inputs: Inputs, given: InputBounds | None) -> tuple[Array, Array]:
    """Return the given bounds of all inputs; infinite where there are none."""
    shape = inputs.value.shape
    ends = [np.full(shape, -np.inf), np.full(shape, np.inf)]
    if given is None:
        return ends[0], ends[1]
    if isinstance(given, xr.Dataset):
        lacking = [name for name in ("lower", "upper") if name not in given]
        if lacking:
            raise DataError(f"`bounds` is a Dataset without `{lacking[0]}`; expected arrays `lower` and `upper`")
        given = (given["lower"], given["upper"])
    if isinstance(given, Mapping):
        for name, pair in given.items():
            if str(name) not in inputs.features:
                raise InputError(f"`bounds` has `{name}`; the features are {', '.join(inputs.features)}{meant(str(name), inputs.features)}")
            element = inputs.features.index(str(name))
            for end, side in zip(ends, _pair(pair, f"`bounds` of `{name}`"), strict=True):
                if side is not None:
                    end.reshape(len(end), -1)[:, element] = _of_samples(inputs, side, f"`bounds` of `{name}`")
        return ends[0], ends[1]
    low, high = (end if side is None else _of_all(inputs, side) for end, side in zip(ends, _pair(given, "`bounds`"), strict=True))
    return low, high


def _pair(given: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError(f"{what} is {type(given).__name__}; expected a pair of lower and upper bounds, of which one may be None")
    return given[0], given[1]


def _of_samples(inputs: Inputs, end: Any, what: str) -> Array:
    """Return one end of one feature, per sample."""
    labelled, places = named_array(end), inputs.grid.places
    if labelled is None:
        if np.ndim(end) != 0:
            raise DataError(f"{what} is an array without labels; expected a number, or a labelled array over {places.dims}")
        return np.full(len(inputs.value.constant), float(end))
    return inputs.grid.gathered(over_frame(labelled, places, what))


def _of_all(inputs: Inputs, end: Any) -> Array:
    """Return one end of all features, of shape ``(sample, *input_shape)``."""
    shape, labelled, grid = inputs.value.shape, named_array(end), inputs.grid
    if labelled is None:
        array = np.asarray(end, dtype=np.float64)
        if array.shape not in ((), shape[1:]):
            raise DataError(f"`bounds` have shape {array.shape}; expected a number, an array of shape {shape[1:]}, or a labelled one")
        return np.array(np.broadcast_to(array, shape))
    frame = xr.DataArray(np.zeros((*grid.places.shape, *shape[1:])), dims=(*grid.places.dims, *grid.feature_dims))
    frame = frame.assign_coords(grid.places.coords).assign_coords(grid.feature_coords)
    return grid.gathered(over_frame(labelled, frame, "`bounds`"))


def one_set(network: Network, inputs: Inputs, given: Box) -> Box:
    """Return the input set that every input lies in, in the network's order.

    Raises `InputError` for several sets and for a ball, and where constant inputs lie outside of the polytope.
    """
    region = given.fit(network.input_shape, network.input_names)
    if region.samples != 1 or region.ball is not None:
        what = "a ball" if region.ball is not None else f"{region.samples} sets"
        raise InputError(f"`bounds` is {what}; expected one box, `mn.Polytope` or `mn.ConvexHull`, in which every input lies")
    value = inputs.value
    fixed = (value.row_sizes == 0).reshape(len(value.constant), -1).all(axis=1)
    outside = np.flatnonzero(fixed)[~region.meets_further(value.constant[fixed], CONSTANT_INPUT_TOLERANCE)]
    if len(outside):
        at = inputs.grid.describe(int(outside[0]))
        raise InputError(f"`bounds` is a polytope, and the constant input{f' at {at}' if at else ''} lies outside of it")
    return region


def named_array(given: Any) -> xr.DataArray | None:
    """Return a labelled array with the dimensions that the user named, or None for plain numbers."""
    named = isinstance(given, pd.Series) and given.index.name is not None
    return given.to_xarray() if named else as_labelled(given)


def over_frame(array: xr.DataArray, frame: xr.DataArray, what: str) -> xr.DataArray:
    """Return an array broadcast over the dimensions of a frame, by label; NaN becomes infinity of neither side, an error elsewhere."""
    unknown = [str(dim) for dim in array.dims if dim not in frame.dims]
    if unknown:
        raise DataError(f"{what} have the dimension `{unknown[0]}`; expected some of {tuple(map(str, frame.dims))}")
    for dim in array.dims:
        own, wanted = array.indexes.get(dim), frame.indexes.get(dim)
        if own is not None and wanted is not None and not own.equals(wanted):
            positions = own.get_indexer(wanted)
            if (positions < 0).any():
                raise DataError(f"{what} lack {dim}={wanted[int(np.argmin(positions))]}; expected one entry for every label of the inputs")
            array = array.isel({dim: positions})
        elif array.sizes[dim] != frame.sizes[dim]:
            raise DataError(f"{what} have {array.sizes[dim]} entries along `{dim}`; expected {frame.sizes[dim]}")
    try:
        plain = array.drop_vars(list(array.coords)).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are of type {array.dtype} and not of numbers; expected real numbers") from error
    if bool(plain.isnull().any()):
        raise DataError(f"{what} contain NaN; expected a number in every place")
    return plain.expand_dims({dim: frame.sizes[dim] for dim in frame.dims if dim not in plain.dims}).transpose(*frame.dims)
